"""Experiments of `phydi`: the identity, the size of the networks, and how fast they learn."""

EXPERIMENTS = ("identity", "parameters", "table1", "table2", "figure1")
