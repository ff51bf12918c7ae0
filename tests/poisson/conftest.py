"""Oracles for the tests of `poisson`: exact rational arithmetic and dense algebra."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

DTYPES = [jnp.float32, jnp.float64] if jax.config.jax_enable_x64 else [jnp.float32]


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    """Every floating type that this run has."""
    return request.param


def dense(a, b, c) -> np.ndarray:
    """The matrix of three diagonals, in float64."""
    a, b, c = (np.asarray(v, np.float64) for v in (a, b, c))
    return np.diag(b) + np.diag(a, -1) + np.diag(c, 1)


def rational_thomas(a, b, c, d) -> list[Fraction]:
    """The exact solution of a tridiagonal system, by elimination on fractions."""
    a, b, c, d = ([Fraction(float(v)) for v in w] for w in (a, b, c, d))
    for i in range(1, len(b)):
        factor = a[i - 1] / b[i - 1]
        b[i] -= factor * c[i - 1]
        d[i] -= factor * d[i - 1]
    x = [d[-1] / b[-1]]
    for i in reversed(range(len(b) - 1)):
        x.append((d[i] - c[i] * x[-1]) / b[i])
    return x[::-1]


def distance(computed, exact: list[Fraction]) -> np.ndarray:
    """|computed - exact| at each entry, the difference taken exactly."""
    return np.array([abs(float(Fraction(float(v)) - e)) for v, e in zip(computed, exact)])


def random_system(m: int, seed: int, dtype=None, dominance: float = 2.0):
    """A non-symmetric system with |b_i| >= `dominance`, neighbours at most 1."""
    rng = np.random.default_rng(seed)
    a, c = rng.uniform(-1, 1, (2, m - 1))
    b = rng.choice([-1, 1], m) * (dominance + rng.uniform(0, 1, m))
    return tuple(jnp.asarray(v, dtype) for v in (a, b, c, rng.normal(size=m)))
