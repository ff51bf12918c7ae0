"""LQR against closed forms and scipy; the Lie derivative and the risk against hand computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import lyapjax as ly


def linear(A, B, radius=1.0):
    """The system dx/dt = A x + B u."""
    A, B = np.atleast_2d(A), np.asarray(B, float).reshape(len(A), -1)
    return ly.System(lambda x, u: A @ x + B @ u, len(A), B.shape[1], domain=radius)


def test_the_double_integrator_in_closed_form():
    regulator = ly.lqr(ly.systems.double_integrator())
    s = np.sqrt(3)
    np.testing.assert_allclose(regulator.P, [[s, 1], [1, s]], rtol=1e-12)
    np.testing.assert_allclose(regulator.K, [[-1, -s]], rtol=1e-12)
    np.testing.assert_allclose(sorted(regulator.eigenvalues.imag), [-0.5, 0.5], rtol=1e-9)
    np.testing.assert_allclose(regulator.eigenvalues.real, -s / 2, rtol=1e-9)


def test_the_pendulums_gain_is_that_of_the_errata():
    regulator = ly.lqr(ly.systems.inverted_pendulum())
    np.testing.assert_allclose(regulator.K, [[-1.977, -0.976]], atol=5e-4)


def test_a_scalar_system_in_closed_form():
    # a² p - ... : 2 a p - b² p²/r + q = 0
    a, b, q, r = 0.7, 1.3, 2.0, 0.5
    p = r * (a + np.sqrt(a**2 + q * b**2 / r)) / b**2
    regulator = ly.lqr(linear([[a]], [[b]]), [[q]], [[r]])
    np.testing.assert_allclose(regulator.P, [[p]], rtol=1e-12)
    np.testing.assert_allclose(regulator.K, [[-b * p / r]], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 2))
def test_riccati_and_decay_hold(seed, n, m):
    rng = np.random.default_rng(seed)
    A, B = rng.normal(size=(n, n)), rng.normal(size=(n, m))
    Q, R = np.eye(n) * rng.uniform(0.5, 2, n), np.eye(m) * rng.uniform(0.5, 2, m)
    regulator = ly.lqr(linear(A, B), Q, R)
    P, K = regulator.P, regulator.K
    size = np.abs(P).max() ** 2 + 1
    residual = A.T @ P + P @ A - P @ B @ np.linalg.solve(R, B.T) @ P + Q
    assert np.abs(residual).max() <= 1e-7 * size
    closed = A + B @ K
    np.testing.assert_allclose(closed.T @ P + P @ closed, -regulator.decay, atol=1e-7 * size)
    assert np.all(regulator.eigenvalues.real < 0)
    # V̇ of the linear loop is exactly -x'decay x.
    V = ly.quadratic_lyapunov(P)
    x = jnp.asarray(rng.normal(size=n))
    got = ly.lie_derivative(V, lambda x: closed @ x, x)
    assert float(got) == pytest.approx(float(-x @ regulator.decay @ x), abs=1e-6 * size)


def test_without_input_it_is_the_lyapunov_equation():
    system = ly.systems.van_der_pol()
    regulator = ly.lqr(system)
    A, _ = system.linearisation()
    expected = scipy.linalg.solve_continuous_lyapunov(A.T, -np.eye(2))
    np.testing.assert_allclose(regulator.P, expected, rtol=1e-12)
    assert regulator.K.shape == (0, 2)


def test_linearisations_that_cannot_be_stabilised_are_named_with_their_mode():
    for call, match in (
        (lambda: ly.lqr(linear(np.diag([2.0, -1.0]), [0.0, 1.0])), "not stabilisable .* mode.* 2;"),
        (lambda: ly.lqr(linear(np.diag([0.0, -1.0]), [0.0, 1.0])), "mode with eigenvalue 0;"),
        (lambda: ly.lqr(linear([[0, 1], [-1, 0.2]], [0, 0])), r"eigenvalue 0.1[+-]0.99498\dj"),
        (lambda: ly.lqr(linear(np.eye(2), np.zeros((2, 0)))), "there is no input: .* eigenvalue 1"),
        (
            lambda: ly.lqr(linear(np.diag([-2.0, -1.0]), [1.0, 1.0]), np.diag([1.0, 0.0])),
            "Q: the cost does not see the mode with eigenvalue -1",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    # Uncontrollable but stable is stabilisable.
    regulator = ly.lqr(linear(np.diag([2.0, -1.0]), [1.0, 0.0]))
    assert np.all(regulator.eigenvalues.real < 0)


def test_bad_weights_are_named():
    system = ly.systems.double_integrator()
    for call, match in (
        (lambda: ly.lqr(system, np.eye(3)), r"Q: expected shape \(2, 2\), got \(3, 3\)"),
        (lambda: ly.lqr(system, np.diag([1.0, -1.0])), "Q: expected positive semidefinite"),
        (lambda: ly.lqr(system, [[1, 1], [0, 1]]), "Q: expected a symmetric matrix"),
        (lambda: ly.lqr(system, np.full((2, 2), np.nan)), "Q: expected finite values"),
        (lambda: ly.lqr(system, None, [[0.0]]), "R: expected positive definite, got the eig.* 0"),
        (lambda: ly.lqr(system, "Q"), "Q: expected a matrix of real numbers"),
        (lambda: ly.lqr(system.f), "system: expected a System, got function"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_the_lie_derivative_is_the_slope_along_the_flow():
    system = ly.systems.inverted_pendulum()
    f = system.closed_loop(ly.linear_controller(system, [[-2.0, -1.0]]))

    def V(x):
        return jnp.tanh(x[0] * x[1]) + x @ x

    for x in np.random.default_rng(0).normal(size=(10, 2)):
        h, v = 1e-5, np.asarray(f(jnp.asarray(x)))
        slope = (V(x + h * v) - V(x - h * v)) / (2 * h)
        assert float(ly.lie_derivative(V, f, x)) == pytest.approx(float(slope), rel=1e-6, abs=1e-6)
    x = jnp.array([0.4, -0.2])
    np.testing.assert_allclose(
        jax.jit(lambda x: ly.lie_derivative(V, f, x))(x), ly.lie_derivative(V, f, x), rtol=1e-13
    )


def test_the_risk_is_equation_4():
    # V = x1: -V counts 2 at the first point; V̇ = x2: 3 at the first, nothing at the second.
    def V(x):
        return x[0] + 0.5

    def f(x):
        return jnp.stack([x[1], 0 * x[0]])

    x = jnp.array([[-2.5, 3.0], [1.0, -1.0]])
    assert float(ly.lyapunov_risk(V, f, x)) == (2 + 3) / 2 + 0.25
    # Section 3.3: ‖x‖ - α V, here about x* = (-2.5, 3).
    far = np.hypot(3.5, 4.0)
    expected = (2 + 3) / 2 + 4.0 + (0 + 2 * 2.0 + far - 2 * 1.5) / 2
    got = ly.lyapunov_risk(V, f, x, jnp.array([-2.5, 3.0]), roa_weight=2.0)
    assert float(got) == pytest.approx(expected, rel=1e-14)


def test_a_lyapunov_function_has_no_risk():
    system = ly.systems.double_integrator()
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    x = system.domain.uniform(jax.random.key(0), 500)
    assert float(ly.lyapunov_risk(ly.quadratic_lyapunov(regulator.P), f, x)) == 0


def test_conditions_name_bad_input():
    x = jnp.zeros((3, 2))
    for call, match in (
        (lambda: ly.lie_derivative(lambda x: x, lambda x: x, x[0]), "V: expected a number at each"),
        (lambda: ly.lie_derivative(jnp.sum, lambda x: x[:1], x[0]), r"f: expected shape \(2,\)"),
        (lambda: ly.lyapunov_risk(jnp.sum, lambda x: x, x[0]), r"x: expected points of shape"),
        (lambda: ly.lyapunov_risk(jnp.sum, lambda x: x, x * np.nan), "x: expected finite points"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
