"""Experiments of `phydi`: the paper's tables and figures, and how deep stacks learn."""

EXPERIMENTS = (
    *("table1", "table2", "figure1", "figure4", "measured"),
    *("parameters", "identity", "rank"),
)
