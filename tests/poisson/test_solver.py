"""solve: schemes, boundary values, methods, derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import poisson

METHODS = ["auto", "green", "toeplitz", "thomas", "partition", "lapack", "dense_lu"]


@pytest.mark.float32
@pytest.mark.parametrize("method", METHODS)
def test_quadratics_are_solved_exactly(method, dtype):
    # u = 1 + 2x - 3x²: -u'' = 6, and second differences of quadratics have no truncation error.
    n = 21
    x = poisson.grid(n, dtype=dtype)
    solution = poisson.solve(jnp.full(n, 6, dtype), left=1, right=0, method=method)
    np.testing.assert_allclose(
        solution.u, 1 + 2 * x - 3 * x**2, atol=100 * float(jnp.finfo(dtype).eps)
    )
    assert solution.u[0] == 1
    assert solution.u[-1] == 0
    assert solution.u.dtype == dtype
    np.testing.assert_allclose(solution.x, x, rtol=float(jnp.finfo(dtype).eps))
    assert solution.stats.method == ("green" if method == "auto" else method)
    assert int(solution.stats.status) == poisson.Status.SOLVED


@pytest.mark.parametrize(("order", "degree"), [(2, 3), (4, 5), (6, 7)])
def test_schemes_are_exact_up_to_their_degree(order, degree):
    n = 12
    x = np.asarray(poisson.grid(n))
    for p in range(degree + 1):
        f = -p * (p - 1) * x ** max(p - 2, 0)
        u = poisson.solve(f, left=float(p == 0), right=1.0, order=order).u
        np.testing.assert_allclose(u, x**p, atol=1e-13)
    p = degree + 1
    u = poisson.solve(-p * (p - 1) * x ** (p - 2), right=1.0, order=order).u
    assert np.abs(u - x**p).max() > 1e-9


@pytest.mark.parametrize("order", [2, 4, 6])
def test_orders_of_convergence(order):
    sizes = np.array([20, 40, 80])
    errors = []
    for N in sizes:
        x = poisson.grid(N + 1)
        u = poisson.solve(jnp.pi**2 * jnp.sin(jnp.pi * x), order=order).u
        errors.append(float(jnp.abs(u - jnp.sin(jnp.pi * x)).max()))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, order, atol=0.15)


def test_high_orders_on_the_papers_problem():
    # Numerov's relative error is (10 h)⁴/240 at every point: -11.58 at 2,000 points, and -12 takes
    # 2,545. Order 6 gets there with 300.
    def error(n, order):
        u = poisson.solve(poisson.source(n), order=order).u
        return float(poisson.relative_error(u, poisson.exact_solution(n)))

    assert error(2000, 4) == pytest.approx(np.log10((10 / 1999) ** 4 / 240), abs=1e-3)
    assert error(2545, 4) <= -12 < error(2500, 4)
    assert error(300, 6) <= -12
    assert error(2000, 6) <= -14


@pytest.mark.float32
def test_order_two_ignores_the_boundary_values_of_f():
    f = jnp.array([9.0, 1.0, 2.0, 3.0, -7.0])
    np.testing.assert_array_equal(poisson.solve(f).u, poisson.solve(f.at[0].set(0).at[-1].set(0)).u)


@pytest.mark.float32
@pytest.mark.parametrize("method", ["auto", "thomas"])
def test_derivatives_with_respect_to_source_and_boundary(method):
    n = 9
    f = poisson.source(n)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=n), f.dtype)

    @jax.jit
    def value(f, left, right):
        return weights @ poisson.solve(f, left=left, right=right, method=method).u

    gf, gl, gr = jax.grad(value, argnums=(0, 1, 2))(f, 1.0, 2.0)
    # The map is affine, so differences are exact up to rounding.
    tolerance = 1e-10 if f.dtype == jnp.float64 else 2e-3
    base = value(f, 1.0, 2.0)
    for i in range(n):
        assert float(gf[i]) == pytest.approx(
            float(value(f.at[i].add(1), 1.0, 2.0) - base), abs=tolerance
        )
    assert float(gl) == pytest.approx(float(value(f, 2.0, 2.0) - base), abs=tolerance)
    assert float(gr) == pytest.approx(float(value(f, 1.0, 3.0) - base), abs=tolerance)
    _, tangent = jax.jvp(value, (f, 1.0, 2.0), (jnp.ones(n), 1.0, 1.0))
    assert float(tangent) == pytest.approx(float(gf.sum() + gl + gr), abs=10 * tolerance)


@pytest.mark.float32
def test_vmap_equals_loop_and_jit_equals_eager():
    f = jnp.stack([poisson.source(50), jnp.ones(50), jnp.sin(poisson.grid(50))])
    left = jnp.array([0.0, 1.0, -1.0])
    batch = jax.jit(jax.vmap(lambda f, left: poisson.solve(f, left=left)))(f, left)
    for i in range(3):
        one = poisson.solve(f[i], left=left[i])
        # A batched product may sum in another order.
        np.testing.assert_allclose(batch.u[i], one.u, rtol=20 * float(jnp.finfo(f.dtype).eps))
        assert batch.stats.method == "green"
    assert batch.certificate.algebraic.shape == (3, 50)
    eager, jitted = poisson.solve(f[0]), jax.jit(poisson.solve)(f[0])
    np.testing.assert_allclose(eager.u, jitted.u, rtol=20 * float(jnp.finfo(f.dtype).eps))


@pytest.mark.float32
def test_the_second_call_does_not_retrace():
    traces = []

    @jax.jit
    def call(f):
        traces.append(None)
        return poisson.solve(f).u

    call(poisson.source(20))
    call(jnp.ones(20))
    assert len(traces) == 1


def test_in_a_users_scan():
    # A fixed-point iteration of -u'' = exp(u), the Bratu problem, whose solution is known.
    n = 201

    @jax.jit
    def iterate(u):
        return jax.lax.scan(lambda u, _: (poisson.solve(jnp.exp(u), order=4).u, None), u, None, 40)

    u, _ = iterate(jnp.zeros(n))
    theta = 1.5171645990507543685  # θ = sqrt(2) cosh(θ/4)
    x = poisson.grid(n)
    exact = -2 * jnp.log(jnp.cosh((x - 0.5) * theta / 2) / jnp.cosh(theta / 4))
    assert float(jnp.abs(u - exact).max()) < 1e-10


@pytest.mark.float32
def test_bad_input_is_named():
    f = jnp.ones(8)
    for arguments, match in (
        ({"f": jnp.ones(2)}, "f: expected a vector of at least 3"),
        ({"f": jnp.ones(7), "order": 6}, "f: expected a vector of at least 8"),
        ({"f": f.at[3].set(jnp.nan)}, "f: expected finite values, got nan at index 3"),
        ({"f": jnp.ones((4, 4))}, "f: expected a vector"),
        ({"f": f, "order": 3}, r"order: expected one of \(2, 4, 6\), got 3"),
        ({"f": f, "method": "lu"}, "method: expected 'auto' or one of"),
        ({"f": f, "left": jnp.ones(2)}, "left: expected a number"),
        ({"f": f, "right": float("nan")}, "right: expected a finite number"),
    ):
        with pytest.raises(ValueError, match=match):
            poisson.solve(arguments.pop("f"), **arguments)


@pytest.mark.float32
def test_known_arrays_inside_jit_are_checked_not_traced():
    f, bad = poisson.source(9), poisson.source(9).at[3].set(jnp.inf)
    u = jax.jit(lambda scale: scale * poisson.solve(f).u)(2.0)
    np.testing.assert_allclose(u, 2 * poisson.solve(f).u, rtol=1e-6)
    with pytest.raises(ValueError, match="f: expected finite values, got inf at index 3"):
        jax.jit(lambda scale: scale * poisson.solve(bad).u)(2.0)


@pytest.mark.float32
def test_nan_under_jit_is_a_status_and_no_bound():
    solution = jax.jit(poisson.solve)(jnp.ones(50).at[7].set(jnp.nan))
    assert int(solution.stats.status) == poisson.Status.SINGULAR
    assert not np.isfinite(solution.certificate.algebraic[1:-1]).any()
