"""Experiments of `phydi`: how long a deep stack stays near an isometry."""

EXPERIMENTS = ("identity",)
