"""Benchmark rows of `klcontrol`: solve beside scipy's eigs and value iteration; learning."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import klcontrol
from experiments.bench import Contest, Row
from experiments.klcontrol.learning_benchmarks import learning_rows

CERTIFIED = 1e-10


def _matrix(problem) -> scipy.sparse.csr_array:
    """H, as scipy's solvers want it."""
    q = problem.q
    n, d = q.indices.shape
    scale = np.exp(-np.asarray(problem.beta * problem.cost))
    entries = (np.asarray(q.probabilities) * scale[:, None]).ravel()
    rows = np.repeat(np.arange(n), d)
    return scipy.sparse.csr_array((entries, (rows, np.asarray(q.indices).ravel())), shape=(n, n))


def _certified(problem, solution) -> None:
    proof = klcontrol.certify(problem, solution, backend="numpy")
    width = float(proof.log_lam[1] - proof.log_lam[0])
    if not width <= CERTIFIED:
        raise ValueError(f"certified relative width {width:.2g}, expected at most {CERTIFIED:g}")


def _random_sparse(num_states: int) -> Contest:
    problem = klcontrol.examples.random_chain(jax.random.key(0), num_states, 8)
    H = _matrix(problem)

    def eigs():
        return scipy.sparse.linalg.eigs(H, k=1, which="LM", v0=np.ones(num_states))[0]

    solution = klcontrol.solve(problem)
    _certified(problem, solution)
    difference = abs(eigs()[0].real / float(solution.lam) - 1)
    return Contest(lambda: klcontrol.solve(problem), {"scipy eigs": eigs}, difference, 1e-10)


def _gridworld(extent: int, cost: float) -> Contest:
    """A grid with its goal in the middle, beside relative value iteration to the same width."""
    middle = (extent // 2, extent // 2)
    problem = klcontrol.examples.gridworld((extent, extent), goals=[middle], cost=cost).problem

    def ours():
        return klcontrol.solve(problem, method="aggregation", rtol=CERTIFIED / 2)

    def value_iteration():
        return klcontrol.solve(problem, method="power", rtol=CERTIFIED / 2, max_steps=200_000)

    solution = ours()
    _certified(problem, solution)
    other = value_iteration()
    difference = float(jnp.abs(other.rho - solution.rho) / solution.rho)
    peers = {"relative value iteration in JAX": value_iteration}
    return Contest(ours, peers, difference, 1e-8)


def _eigs_on_grid(extent: int, cost: float) -> Contest:
    middle = (extent // 2, extent // 2)
    problem = klcontrol.examples.gridworld((extent, extent), goals=[middle], cost=cost).problem
    H = _matrix(problem)

    def ours():
        return klcontrol.solve(problem, method="aggregation", rtol=CERTIFIED / 2)

    def eigs():
        return scipy.sparse.linalg.eigs(H, k=1, which="LM", v0=np.ones(H.shape[0]))[0]

    solution = ours()
    _certified(problem, solution)
    difference = abs(eigs()[0].real / float(solution.lam) - 1)
    return Contest(ours, {"scipy eigs (λ only)": eigs}, difference, 1e-8)


def _general_solver(extent: int) -> Contest:
    """QuantEcon's policy iteration, with actions listed for it: p*, q, and single moves.

    Discounted, since it knows no average costs; ρ is then the mean value under p*'s invariant law,
    times one less the discount. It is told p* as one of the actions; we have to find it.
    """
    import quantecon.markov

    middle = (extent // 2, extent // 2)
    problem = klcontrol.examples.gridworld((extent, extent), goals=[middle], cost=0.1).problem
    solution = klcontrol.solve(problem)
    q = problem.q
    n, d = q.indices.shape
    singles = [klcontrol.Neighbours(q.indices, jnp.eye(d)[jnp.full(n, k)]) for k in range(d)]
    policies = [solution.policy, q, *singles]
    costs = np.stack([np.asarray(klcontrol.step_cost(problem, p)) for p in policies], axis=1)
    rows = np.arange(n).repeat(d)
    matrices = [
        scipy.sparse.csr_array(
            (np.asarray(p.probabilities).ravel(), (rows, np.asarray(q.indices).ravel())), (n, n)
        )
        for p in policies
    ]
    # Moves where q has none cost infinitely much, and are not offered.
    states, actions = np.nonzero(np.isfinite(costs))
    stacked = scipy.sparse.vstack(matrices, format="csr")[actions * n + states]
    discount = 1 - 1e-6
    reward = -costs[states, actions]
    peer = quantecon.markov.DiscreteDP(
        reward, scipy.sparse.csr_matrix(stacked), discount, states, actions
    )

    def by_quantecon():
        return peer.solve(method="policy_iteration")

    found = by_quantecon()
    law = np.asarray(klcontrol.invariant_law(solution.policy))
    rho = -float(law @ found.v) * (1 - discount)
    difference = abs(rho / float(solution.rho) - 1)
    peers = {"QuantEcon policy iteration, p* given": by_quantecon}
    return Contest(lambda: klcontrol.solve(problem), peers, difference, 1e-6)


def offline_rows(quick: bool) -> list[Row]:
    """The rows of `solve`."""
    found = [Row("klcontrol random sparse, n = 3000", 1.0, lambda: _random_sparse(3000))]
    if importlib.util.find_spec("quantecon"):
        found.append(
            Row("klcontrol grid 30x30, a general solver", 1.0, lambda: _general_solver(30))
        )
    if quick:
        return found
    found += [
        Row("klcontrol grid 100x100, cost 0.01", 1.0, lambda: _gridworld(100, 0.01), rounds=3),
        Row("klcontrol grid 300x300, cost 0.01", None, lambda: _eigs_on_grid(300, 0.01), rounds=1),
    ]
    return found


def rows(quick: bool) -> list[Row]:
    """All rows of the package."""
    return [*offline_rows(quick), *learning_rows(quick)]
