"""Experiments of `phydi`: how deep stacks learn, and how long language models take."""

EXPERIMENTS = ("identity", "figure4")
