"""Benchmark rows of `chebyshev`, beside CVXPY with general semidefinite solvers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import chebyshev
from experiments.bench import Contest, Row
from experiments.chebyshev.examples import blur, heat


def _against_cvxpy(sets, solver: str, tolerance: float) -> Contest:
    solution = chebyshev.rcc(sets)
    peer = partial(chebyshev.certify, sets, solution, backend="cvxpy", solver=solver)
    value, _ = peer()
    proof = chebyshev.certify(sets, solution)
    if not proof.gap <= 1e-8:
        raise ValueError(f"certified gap {proof.gap:.2g}, expected at most 1e-8")
    difference = abs(value - float(solution.value)) / float(solution.value)
    return Contest(lambda: chebyshev.rcc(sets), {f"CVXPY + {solver}": peer}, difference, tolerance)


def _batch() -> Contest:
    """64 heat problems by vmap against a loop of rcc."""
    base, problem = heat(2, 0)
    rng = np.random.default_rng(1)
    ys = jnp.asarray(problem.b + 1e-3 * rng.normal(size=(64, 90)))
    rho = base.scale[0]

    def solve(y):
        sets = chebyshev.noise_ball(problem.A, y, rho)
        return chebyshev.rcc(sets & chebyshev.simplex_like(2 * problem.x.sum(), 90)).value

    batched, single = jax.jit(jax.vmap(solve)), jax.jit(solve)
    values = jnp.stack([single(y) for y in ys])
    difference = float(jnp.max(jnp.abs(batched(ys) - values) / values))
    return Contest(
        lambda: batched(ys), {"loop of rcc": lambda: [single(y) for y in ys]}, difference, 1e-7
    )


def _large() -> Contest:
    """32 x 32 pixels without matrices, against the interior-point method with them."""
    problem = chebyshev.problems.blur_operator(32, 4, 0.8)
    m = problem.x.size
    w = 0.05 * np.random.default_rng(0).normal(size=m)
    data = (problem.A, problem.b + w, 1.3 * w @ w, np.zeros(m), np.full(m, 4.0))
    dense = chebyshev.problems.blur(32, 4, 0.8).A
    sets = chebyshev.noise_ball(dense, *data[1:3]) & chebyshev.box(*data[3:])
    found, exact = chebyshev.rcc_matrix_free(*data), chebyshev.rcc(sets)
    difference = abs(float(found.value) / float(exact.value) - 1)
    peers = {"rcc, dense": lambda: chebyshev.rcc(sets)}
    return Contest(lambda: chebyshev.rcc_matrix_free(*data), peers, difference, 1e-2)


def rows(quick: bool) -> list[Row]:
    """The rows; the general solvers take half a minute a call, so quick leaves them out."""
    found = [Row("chebyshev 64 heat by vmap", 0.5, _batch)]
    if quick:
        return found
    found += [
        Row(
            f"chebyshev heat, α = {alpha}",
            1 / 250,
            lambda alpha=alpha: _against_cvxpy(heat(alpha, 0)[0], "CLARABEL", 1e-5),
            rounds=1,
        )
        for alpha in (2, 10)
    ]
    found.append(Row("chebyshev blur, 32 x 32 without matrices", 0.2, _large, rounds=1))
    found.append(
        Row(
            "chebyshev blur",
            1 / 35,
            lambda: _against_cvxpy(blur(0)[0], "SCS", 1e-3),
            rounds=1,
        )
    )
    return found
