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
    enclosure        bounds on Φ and z*, state by state; enclose
    solver           solve
    policies         the cost of any policy, rollouts
    horizon          finite horizons, the policy of a value function
    learning         KL-learning, Z-learning, the differential rule: init and step
    sampling         alias tables, a counter-based generator
    simulation       whole runs of many chains
    baselines        Q-learning
    analysis         the ODE behind KL-learning, invariant laws, detailed balance
    equilibrium      its linearisation and stability, Proposition 3.8
    counterexample   Conjecture 3.9 refuted in exact arithmetic
    examples         closed forms, gridworlds, random chains, graphs
    worlds           a pendulum on a grid
"""

from klcontrol import counterexample, examples, worlds
from klcontrol.analysis import controlled_law, detailed_balance, drift, flow, invariant_law
from klcontrol.baselines import QRun, QState, q_init, q_learning, q_step
from klcontrol.certificate import Certificate, certify
from klcontrol.dynamics import Neighbours, apply, as_dense, as_neighbours, period
from klcontrol.enclosure import Enclosure, enclose
from klcontrol.equilibrium import (
    Condition,
    Linearisation,
    Stability,
    linearisation,
    stability,
    sufficient_conditions,
)
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
from klcontrol.policies import PolicyCost, Rollout, policy_cost, rollout, step_cost
from klcontrol.problem import Problem
from klcontrol.sampling import AliasTable, alias_table
from klcontrol.simulation import Run, RunState, resume, simulate
from klcontrol.solver import Solution, Stats, Status, solve

__all__ = [
    "Algorithm",
    "AliasTable",
    "Certificate",
    "Condition",
    "Enclosure",
    "Estimate",
    "LearnerState",
    "Linearisation",
    "Neighbours",
    "PolicyCost",
    "Problem",
    "QRun",
    "QState",
    "Rollout",
    "Run",
    "RunState",
    "Solution",
    "Stability",
    "Stats",
    "Status",
    "alias_table",
    "apply",
    "as_dense",
    "as_neighbours",
    "certify",
    "controlled_law",
    "counterexample",
    "default_gain",
    "detailed_balance",
    "differential",
    "drift",
    "enclose",
    "examples",
    "finite_horizon",
    "flow",
    "invariant_law",
    "kl_learning",
    "linearisation",
    "optimal_policy",
    "period",
    "policy_cost",
    "q_init",
    "q_learning",
    "q_step",
    "resume",
    "rollout",
    "simulate",
    "solve",
    "stability",
    "step_cost",
    "sufficient_conditions",
    "worlds",
    "z_learning",
]
