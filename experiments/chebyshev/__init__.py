"""Experiments of `chebyshev`: the paper's figures and examples, how tight and how variable."""

EXPERIMENTS = ("figure1", "figure2", "figure3", "montecarlo", "tightness", "deblur")
