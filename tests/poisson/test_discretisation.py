"""Grid, closed solutions, quadrature rules: against ball arithmetic, moments, Peano kernels."""

import math

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import poisson
from poisson.discretisation import (
    DENOMINATOR,
    QUADRATURE_ERROR,
    QUADRATURE_ERROR_EDGE,
    weighted_source,
)


@pytest.fixture
def precision():
    """200 bits in ball arithmetic."""
    old, ctx.prec = ctx.prec, 200
    yield
    ctx.prec = old


def ball_solution(x: arb) -> arb:
    """The paper's u, in the paper's own form."""
    return 1 - (1 - arb(-10).exp()) * x - (-10 * x).exp()


@pytest.mark.parametrize("n", [3, 11, 1001, 10**7 + 1])
def test_exact_solution_is_exact_to_a_few_units(n, precision):
    u = np.asarray(poisson.exact_solution(n))
    N = n - 1
    for i in {1, N // 3, N // 2, N // 2 + 1, 2 * N // 3, N - 1} - {0, N}:
        exact = ball_solution(arb(i) / N)
        assert abs(float((arb(float(u[i])) - exact) / exact)) < 8 * 2.0**-53
    assert u[0] == u[-1] == 0


def test_errata_values_of_the_exact_error():
    # ERRATA, poisson 4.
    for k, expected in enumerate((-1.1006, -3.0794, -5.0792, -7.0792, -9.0792), 1):
        n = 10**k + 1
        error = poisson.relative_error(poisson.discrete_solution(n), poisson.exact_solution(n))
        assert float(error) == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("n", [3, 4, 17])
def test_discrete_solution_solves_the_discrete_equations(n, order, precision):
    N = n - 1
    h = arb(1) / N
    factor = (5 * h / (5 * h).sinh()) ** 2
    if order == 4:
        factor *= (10 + 2 * (10 * h).cosh()) / 12
    v = [factor * ball_solution(arb(i) / N) for i in range(n)]
    f = [100 * (-10 * arb(i) / N).exp() for i in range(n)]
    for i in range(1, N):
        right = f[i] if order == 2 else (f[i - 1] + 10 * f[i] + f[i + 1]) / 12
        assert abs(float((2 * v[i] - v[i - 1] - v[i + 1]) / h**2 - right)) < 1e-40
    ours = np.asarray(poisson.discrete_solution(n, order=order))
    np.testing.assert_allclose(ours, [float(x) for x in v], rtol=2e-15, atol=1e-45)


def hat_moment(p: int) -> float:
    """∫ (1 - |t|) t^p dt over (-1, 1)."""
    return 0.0 if p % 2 else 2 / ((p + 1) * (p + 2))


def rule_weights(order: int, row: int, n: int = 12) -> np.ndarray:
    """Weights of the rule at an interior row, by feeding it unit vectors."""
    columns = [weighted_source(jnp.asarray(e), order)[row - 1] for e in np.eye(n)]
    return np.array(columns, float) / DENOMINATOR[order]


@pytest.mark.parametrize(("order", "row"), [(2, 3), (4, 1), (4, 6), (6, 1), (6, 6), (6, 10)])
def test_rules_are_exact_for_polynomials_below_their_order(order, row):
    nodes = np.arange(12) - row
    weights = rule_weights(order, row)
    for p in range(order):
        assert weights @ nodes.astype(float) ** p == pytest.approx(hat_moment(p), abs=1e-9)
    assert abs(weights @ nodes.astype(float) ** order - hat_moment(order)) > 1e-3


def peano_norm(order: int, row: int) -> float:
    """The L1 norm of the Peano kernel of the rule under the hat weight."""
    nodes, weights = np.arange(12) - row, rule_weights(order, row)
    p = order - 1
    used = nodes[weights != 0]
    s = np.linspace(min(used.min(), -1), max(used.max(), 1), 400_001)

    def power(x, k):
        return np.maximum(x - s, 0) ** k / math.factorial(k)

    kernel = power(1, p + 2) - 2 * power(0, p + 2) + power(-1, p + 2)
    for node, weight in zip(nodes, weights):
        kernel -= weight * power(node, p)
    return float(np.trapezoid(np.abs(kernel), s))


@pytest.mark.parametrize("order", [2, 4, 6])
def test_error_constants_bound_the_peano_kernels(order):
    for row, table in ((6, QUADRATURE_ERROR), (1, QUADRATURE_ERROR_EDGE)):
        norm = peano_norm(order, row)
        assert norm <= table[order] * (1 + 1e-6)
        assert norm >= table[order] * 0.99  # and not larger than need be


@pytest.mark.float32
def test_dtypes_and_values(dtype):
    for function in (poisson.grid, poisson.source, poisson.exact_solution):
        chex.assert_shape(function(5, dtype=dtype), (5,))
        assert function(5, dtype=dtype).dtype == dtype
    np.testing.assert_array_equal(poisson.grid(5, dtype=dtype), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.float32
@pytest.mark.parametrize("n", [2, -1, 3.0, True, "3"])
def test_bad_sizes_are_named(n):
    for function in (poisson.grid, poisson.source, poisson.exact_solution):
        with pytest.raises(ValueError, match=r"^n: expected"):
            function(n)


@pytest.mark.float32
def test_relative_error_ignores_the_boundary_and_names_bad_shapes():
    u = jnp.array([0.0, 2.0, 4.0, 0.0])
    assert float(poisson.relative_error(jnp.array([5.0, 2.0, 4.0, 7.0]), u)) == -jnp.inf
    assert float(poisson.relative_error(jnp.array([0.0, 2.2, 4.0, 0.0]), u)) == pytest.approx(
        -1, abs=1e-6
    )
    with pytest.raises(ValueError, match="v, u: expected"):
        poisson.relative_error(u, u[:-1])


def test_discrete_solution_has_no_order_six():
    with pytest.raises(ValueError, match="order: expected 2 or 4"):
        poisson.discrete_solution(9, order=6)
