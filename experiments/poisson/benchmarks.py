"""Benchmark rows of `poisson`, beside scipy's banded solvers (LAPACK's gtsv and ptsv)."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

import poisson
from experiments.bench import Contest, Row


def _arrays(compiled, m: int) -> float:
    """Peak memory of a compiled call in float64 arrays of m: arguments, results, temporaries."""
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total / (8 * m)


def _difference(ours, theirs) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def poisson_matrix(m: int) -> Contest:
    """green against solve_banded and solveh_banded for tridiag(-1, 2, -1)."""
    d = poisson.source(m + 2)[1:-1] / (m + 1) ** 2
    host = np.asarray(d)
    bands = np.full((3, m), -1.0)
    bands[1] = 2
    compiled = jax.jit(poisson.green).lower(d).compile()
    exact = poisson.discrete_solution(m + 2)[1:-1]
    return Contest(
        lambda: compiled(d),
        {
            "solve_banded": lambda: scipy.linalg.solve_banded((1, 1), bands, host),
            "solveh_banded": lambda: scipy.linalg.solveh_banded(bands[:2], host),
        },
        _difference(compiled(d), exact),
        1e-14,
        _arrays(compiled, m),
    )


def _dominant(m: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    a, c = rng.uniform(-1, 1, (2, m - 1))
    return a, 2 + rng.uniform(0, 1, m), c, rng.normal(size=m)


def _bands(a, b, c) -> np.ndarray:
    bands = np.zeros((3, len(b)))
    bands[0, 1:], bands[1], bands[2, :-1] = c, b, a
    return bands


def general(m: int, method: str) -> Contest:
    """A general method against solve_banded for a non-symmetric dominant matrix."""
    system = _dominant(m)
    bands = _bands(*system[:3])
    device = tuple(map(jnp.asarray, system))
    compiled = jax.jit(getattr(poisson, method)).lower(*device).compile()

    def peer():
        return scipy.linalg.solve_banded((1, 1), bands, system[3])

    difference = _difference(compiled(*device).x, peer())
    return Contest(
        lambda: compiled(*device), {"solve_banded": peer}, difference, 1e-13, _arrays(compiled, m)
    )


def poisson_batch(batch: int, m: int) -> Contest:
    """vmap(green) against a loop of solveh_banded."""
    host = np.random.default_rng(0).uniform(size=(batch, m)) / (m + 1) ** 2
    bands = np.full((2, m), -1.0)
    bands[1] = 2
    d = jnp.asarray(host)
    compiled = jax.jit(jax.vmap(poisson.green)).lower(d).compile()

    def loop():
        return [scipy.linalg.solveh_banded(bands, row) for row in host]

    return Contest(
        lambda: compiled(d),
        {"loop of solveh_banded": loop},
        _difference(compiled(d), loop()),
        1e-10,  # ptsv itself is off by cond(A) u
        _arrays(compiled, batch * m),
    )


def general_batch(batch: int, m: int) -> Contest:
    """vmap(thomas) against a loop of solve_banded."""
    systems = [_dominant(m, seed) for seed in range(batch)]
    bands = [_bands(*s[:3]) for s in systems]
    device = tuple(jnp.asarray(np.stack(v)) for v in zip(*systems))
    compiled = jax.jit(jax.vmap(poisson.thomas)).lower(*device).compile()

    def loop():
        return [scipy.linalg.solve_banded((1, 1), ab, s[3]) for ab, s in zip(bands, systems)]

    return Contest(
        lambda: compiled(*device),
        {"loop of solve_banded": loop},
        _difference(compiled(*device).x, loop()),
        1e-13,
        _arrays(compiled, batch * m),
    )


def rows(quick: bool) -> list[Row]:
    """The rows; quick stops at a million unknowns."""
    exponents = (4, 5, 6) if quick else (4, 5, 6, 7)
    goals = {5: 0.25, 6: 0.25, 7: 0.4}
    found = [
        Row(f"poisson green 1e{k}", goals.get(k), lambda m=10**k: poisson_matrix(m))
        for k in exponents
    ]
    found += [
        Row(f"poisson {name} 1e{k}", 1.0, lambda m=10**k, name=name: general(m, name))
        for name in ("partition", "tridiagonal_solve")
        for k in exponents
    ]
    found += [
        Row("poisson green, 1000 of 1000", 0.5, lambda: poisson_batch(1000, 1000)),
        Row("poisson thomas, 1000 of 1000", 0.5, lambda: general_batch(1000, 1000)),
    ]
    return found
