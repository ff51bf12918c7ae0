"""Kullback–Leibler control of Markov chains: solved exactly and certified, or learned online.

Describe the chain, its costs and the temperature with `Problem`.

    problem          Problem
    dynamics         Neighbours and the other forms of q
    connectivity     irreducibility, absorption, period
"""

from klcontrol.dynamics import Neighbours, apply, as_dense, as_neighbours, period
from klcontrol.problem import Problem

__all__ = [
    "Neighbours",
    "Problem",
    "apply",
    "as_dense",
    "as_neighbours",
    "period",
]
