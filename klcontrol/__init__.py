"""Kullback–Leibler control of Markov chains: solved exactly and certified, or learned online.

Describe the chain, its costs and the temperature with `Problem`.

    problem          Problem
    dynamics         Neighbours and the other forms of q
    connectivity     irreducibility, absorption, period
    bellman          the Bellman equation in logarithms, its linearisation
    iterations       power, krylov, inverse: inside jit
    newton           Newton's method for a million states, outside jit
    aggregation      its multilevel preconditioner
    implicit         derivatives
    certificate      bounds on λ* and ρ* that hold in spite of rounding; certify
    solver           solve
    horizon          finite horizons, the policy of a value function
    learning         KL-learning, Z-learning, the differential rule: init and step
    sampling         alias tables, a counter-based generator
    simulation       whole runs of many chains
    counterexample   Conjecture 3.9 refuted in exact arithmetic
    examples         closed forms, gridworlds, random chains, graphs
"""

from klcontrol import counterexample, examples
from klcontrol.certificate import Certificate, certify
from klcontrol.dynamics import Neighbours, apply, as_dense, as_neighbours, period
from klcontrol.horizon import finite_horizon, optimal_policy
from klcontrol.learning import (
    Algorithm,
    Estimate,
    LearnerState,
    default_gain,
    differential,
    kl_learning,
    z_learning,
)
from klcontrol.problem import Problem
from klcontrol.sampling import AliasTable, alias_table
from klcontrol.simulation import Run, RunState, resume, simulate
from klcontrol.solver import Solution, Stats, Status, solve

__all__ = [
    "Algorithm",
    "AliasTable",
    "Certificate",
    "Estimate",
    "LearnerState",
    "Neighbours",
    "Problem",
    "Run",
    "RunState",
    "Solution",
    "Stats",
    "Status",
    "alias_table",
    "apply",
    "as_dense",
    "as_neighbours",
    "certify",
    "counterexample",
    "default_gain",
    "differential",
    "examples",
    "finite_horizon",
    "kl_learning",
    "optimal_policy",
    "period",
    "resume",
    "simulate",
    "solve",
    "z_learning",
]
