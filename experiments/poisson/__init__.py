"""Experiments of `poisson`: the paper's four tables and its figure, then accuracy and speed."""

EXPERIMENTS = (
    "figure1",
    "table1",
    "table2",
    "table3",
    "table4",
    "accuracy",
    "scaling",
    "solve",
)
