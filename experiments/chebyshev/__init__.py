"""Experiments of `chebyshev`: the paper's two examples, and the distribution over noise seeds."""

EXPERIMENTS = ("figure2", "figure3", "montecarlo")
