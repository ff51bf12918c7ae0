"""Complex data: the real form loses nothing, and two ellipsoids over C have no relaxation gap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import chebyshev
from chebyshev import Status


def normal(rng, *shape):
    """Complex standard normal numbers."""
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def two_ellipsoids(seed: int, m: int = 3):
    """Two complex ellipsoids with the origin inside both."""
    rng = np.random.default_rng(seed)
    A, y = normal(rng, m + 1, m), 0.3 * normal(rng, m + 1)
    L, center = normal(rng, m, m), 0.2 * normal(rng, m)
    rho = np.linalg.norm(y) ** 2 + rng.uniform(0.5, 4)
    eta = np.linalg.norm(L @ center) + rng.uniform(0.5, 2)
    return chebyshev.noise_ball(A, y, rho) & chebyshev.norm_ball(L, eta, center)


@pytest.mark.parametrize("seed", range(12))
def test_two_complex_ellipsoids_are_exact(seed):
    # Two admissible points, a diameter of the ball apart: no ball that holds both is smaller. They
    # are x ± e^(iθ) w with W = ww*: θ turns the slope of f_1 along w to zero, and that of f_2 with
    # it, which over the reals is not possible.
    sets = two_ellipsoids(seed)
    solution = chebyshev.rcc(sets, rtol=1e-11)
    assert solution.x.dtype == jnp.complex128
    W = np.asarray(solution.W)
    W = (W[:3, :3] + W[3:, 3:]) / 2 + 1j * (W[3:, :3] - W[:3, 3:]) / 2
    values, vectors = np.linalg.eigh(W)
    assert values[-2] < 1e-4 * values[-1]
    x = np.asarray(sets.from_real(solution.primal_x))
    w = float(solution.radius) * vectors[:, -1]
    F, t = np.asarray(sets.factors[0]), np.asarray(sets.targets[0])
    F = F[: F.shape[0] // 2, :3] + 1j * F[F.shape[0] // 2 :, :3]
    t = t[: t.shape[0] // 2] + 1j * t[t.shape[0] // 2 :]
    slope = np.vdot(F.conj().T @ (F @ x - t), w)
    w = w * 1j * np.exp(-1j * np.angle(slope))
    for point in (x + w, x - w):
        assert float(jnp.max(sets.values(point) / sets.scale)) <= 1e-4
        assert np.linalg.norm(point - solution.x) == pytest.approx(float(solution.radius), rel=1e-4)


def test_real_data_given_as_complex_with_real_answers_agree():
    # Over C the set is larger (imaginary parts are free within the ball), but by symmetry under
    # conjugation the centre is real.
    rng = np.random.default_rng(4)
    A, y = rng.normal(size=(5, 3)), 0.3 * rng.normal(size=5)
    real = chebyshev.noise_ball(A, y, 3.0)
    over_c = chebyshev.noise_ball(A + 0j, y, 3.0)
    a, b = chebyshev.rcc(real), chebyshev.rcc(over_c)
    np.testing.assert_allclose(b.x.real, a.x, atol=1e-6)
    np.testing.assert_allclose(b.x.imag, 0, atol=1e-6)
    # One ellipsoid: the radius is its longest half axis, over R and over C.
    assert float(b.value) == pytest.approx(float(a.value), rel=1e-8)


def test_a_unitary_change_of_coordinates_moves_the_estimate_along():
    rng = np.random.default_rng(7)
    A, y = normal(rng, 5, 3), 0.2 * normal(rng, 5)
    U, _ = np.linalg.qr(normal(rng, 3, 3))
    center = 0.1 * normal(rng, 3)

    def solve(A, center):
        ball = chebyshev.norm_ball(np.eye(3), 0.6, center)
        return chebyshev.rcc(chebyshev.noise_ball(A, y, 2.0) & ball, rtol=1e-10)

    a, b = solve(A, center), solve(A @ U.conj().T, U @ center)
    assert int(a.status) == int(b.status) == Status.CONVERGED
    np.testing.assert_allclose(b.x, U @ a.x, atol=1e-6)
    assert float(b.value) == pytest.approx(float(a.value), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_values_boxes_slabs_and_ellipsoids_mean_what_they_say(seed):
    rng = np.random.default_rng(seed)
    F, g, x = normal(rng, 2, 2), normal(rng, 2), normal(rng, 2)
    Q = F.conj().T @ F
    P = Q + np.eye(2)
    a, lo, hi = normal(rng, 2), -1 - 2j + np.zeros(2), 1 + 1j + np.zeros(2)
    sets = (
        chebyshev.ellipsoids(Q[None], g[None], -np.ones(1))
        & chebyshev.ellipsoid(P, np.ones(2))
        & chebyshev.box(lo, hi)
        & chebyshev.slab(a, -2.0, 1.0)
    )
    along = np.vdot(a, x).real
    expected = [
        (np.vdot(x, Q @ x) + 2 * np.vdot(g, x)).real - 1,
        np.vdot(x - 1, np.linalg.solve(P, x - 1)).real - 1,
        *((x.real + 1) * (x.real - 1)),
        *((x.imag + 2) * (x.imag - 1)),
        (along + 2) * (along - 1),
    ]
    np.testing.assert_allclose(sets.values(x), expected, rtol=1e-12, atol=1e-12)
    assert sets.names[2:6] == ("Re box[0]", "Re box[1]", "Im box[0]", "Im box[1]")


def test_certificate_baselines_and_derivatives_take_complex_data():
    rng = np.random.default_rng(2)
    A, x = normal(rng, 6, 3), normal(rng, 3)
    y = A @ x + 0.01 * normal(rng, 6)
    sets = chebyshev.noise_ball(A, y, sd=0.02) & chebyshev.norm_ball(np.eye(3), 4.0)
    solution = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, solution)
    assert proof.gap <= 1e-8
    assert np.linalg.norm(x - solution.x) <= proof.radius
    value, _ = chebyshev.certify(sets, solution, backend="cvxpy")
    assert value == pytest.approx(proof.upper, rel=1e-5)
    # A complex oracle of least squares, free and regularised.
    direct = np.linalg.lstsq(A, y, rcond=None)[0]
    np.testing.assert_allclose(chebyshev.ls(sets).x, direct, atol=1e-10)
    normal_equations = np.linalg.solve(A.conj().T @ A + 0.5 * np.eye(3), A.conj().T @ y)
    np.testing.assert_allclose(chebyshev.tikhonov(sets, 0.5).x, normal_equations, atol=1e-10)
    np.testing.assert_allclose(chebyshev.cls(sets).x, direct, atol=1e-6)
    eta = 0.5 * np.linalg.norm(x)
    assert np.linalg.norm(chebyshev.rls(sets, eta).x) == pytest.approx(eta, rel=1e-6)

    def radius(y):
        ball = chebyshev.noise_ball(A, y, 0.1) & chebyshev.norm_ball(jnp.eye(3), 2.3)
        return chebyshev.rcc(ball, rtol=1e-11).value

    # JAX's convention: the gradient of a real function is the conjugate of its steepest ascent.
    gradient, v = jax.grad(radius)(jnp.asarray(y)), normal(rng, 6)
    difference = float(radius(y + 1e-5 * v) - radius(y - 1e-5 * v)) / 2e-5
    assert float(jnp.sum(gradient * v).real) == pytest.approx(difference, rel=1e-3)


def test_rho_from_a_standard_deviation_covers_complex_noise_as_often_as_said():
    rng = np.random.default_rng(0)
    ball = chebyshev.noise_ball(np.eye(20) + 0j, np.zeros(20), sd=0.5, confidence=0.9)
    noise = 0.5 / np.sqrt(2) * normal(rng, 20_000, 20)
    share = np.mean(np.sum(np.abs(noise) ** 2, axis=1) <= float(ball.scale[0]))
    assert abs(share - 0.9) < 0.01
    assert float(ball.scale[0]) == pytest.approx(0.125 * scipy.stats.chi2.ppf(0.9, 40))


def test_mixed_and_wrong_data_are_named():
    ball = chebyshev.noise_ball(np.eye(2) + 0j, np.ones(2), 1.0)
    for call, match in (
        (
            lambda: ball & chebyshev.box(np.zeros(2), np.ones(2)),
            r"sets: box\[0\] bounds real parameters, the other set is over complex ones",
        ),
        (
            lambda: chebyshev.ellipsoids(1j * np.ones((1, 1, 1)), np.zeros((1, 1)), -np.ones(1)),
            r"Q: expected symmetric \(Hermitian\) matrices, Q\[0\]",
        ),
        (lambda: chebyshev.simplex_like(1j, 2), "eta: expected real numbers"),
        (
            lambda: chebyshev.certify(ball, chebyshev.rcc(ball)._replace(x=jnp.zeros(4))),
            r"solution: expected x of shape \(2,\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
