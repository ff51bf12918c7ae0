"""`verify`: the whole proof, on systems whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.proofs.local import _decreases, is_equilibrium, local_certificate, quadratic, reach

DISC = ly.Ball(2.5, (0.0, 0.0))
P = jnp.array([[1.5, -0.5], [-0.5, 1.0]])


def van_der_pol(x):
    """Time-reversed: the inside of the limit cycle converges."""
    return jnp.stack([-x[1], x[0] - (1 - x[0] ** 2) * x[1]])


def bowl(x):
    return x @ P @ x


def simulate(f, x, seconds, steps=4000):
    dt = seconds / steps

    def step(x, _):
        k1 = f(x)
        k2 = f(x + dt / 2 * k1)
        k3 = f(x + dt / 2 * k2)
        k4 = f(x + dt * k3)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x, None, length=steps)[0]


@pytest.fixture(scope="module")
def oscillator():
    return ly.verify(bowl, van_der_pol, DISC)


def test_the_level_set_of_the_van_der_pol_oscillator_is_proved(oscillator):
    r = oscillator
    assert r.verdict is ly.Verdict.PROVED
    assert set(r.proofs) == {"core", "boundary", "shell"}
    assert all(proof.proved for proof in r.proofs.values())
    # The largest level on which V̇ < 0 is 2.3045…, found by a fine grid of the curve V̇ = 0.
    assert 2.25 < r.level < 2.3046
    assert 0 < r.inner_level < r.level
    area = np.pi * r.level / np.sqrt(np.linalg.det(P))
    assert 0.97 * area < r.volume < area
    assert repr(r.level) in r.statement


def test_trajectories_from_what_is_proved_do_converge(oscillator):
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    factor = np.linalg.cholesky(np.asarray(P))
    starts = np.sqrt(oscillator.level) * np.linalg.solve(factor.T, circle).T
    ends = jax.vmap(lambda x: simulate(van_der_pol, x, 40.0))(starts)
    assert float(jnp.abs(ends).max()) < 1e-3


def test_a_level_that_is_too_large_is_refuted_with_a_point():
    r = ly.verify(bowl, van_der_pol, DISC, level=2.5)
    assert r.verdict is ly.Verdict.REFUTED
    assert "shell" in r.reason
    assert float(bowl(r.point)) <= 2.5
    assert float(ly.lie_derivative(bowl, van_der_pol, jnp.asarray(r.point))) >= 0
    outside = ly.verify(bowl, van_der_pol, ly.Ball(1.0, (0.0, 0.0)), level=2.0)
    # Hardly any float lies on the circle itself, so there is no point to show.
    assert outside.verdict is ly.Verdict.UNKNOWN
    assert "boundary" in outside.reason
    square = ly.verify(bowl, van_der_pol, ly.Box((-1.0, -1.0), (1.0, 1.0)), level=2.0)
    assert square.verdict is ly.Verdict.REFUTED
    assert np.abs(square.point).max() == 1.0


def test_a_box_is_a_domain_too_and_the_equilibrium_may_be_anywhere():
    centre = jnp.array([1.0, -0.5])

    def f(x):
        return van_der_pol(x - centre)

    def V(x):
        return bowl(x - centre)

    box = ly.Box((-1.5, -3.5), (3.5, 2.0))
    r = ly.verify(V, f, box, equilibrium=centre)
    assert r.verdict is ly.Verdict.PROVED
    assert 2.2 < r.level < 2.3046
    # The grid of the area's boxes is another one, so the bound differs a little.
    assert r.volume > 0.97 * np.pi * r.level / np.sqrt(np.linalg.det(P))


def test_what_does_not_converge_is_never_proved():
    r = ly.verify(bowl, lambda x: -van_der_pol(x), DISC)  # unstable
    assert r.verdict is ly.Verdict.UNKNOWN
    assert "not stable" in r.reason
    r = ly.verify(bowl, lambda x: jnp.stack([x[1], -x[0]]), DISC)  # a centre
    assert r.verdict is ly.Verdict.UNKNOWN
    r = ly.verify(lambda x: -bowl(x), van_der_pol, DISC)  # V upside down
    assert r.verdict is ly.Verdict.UNKNOWN
    r = ly.verify(bowl, lambda x: van_der_pol(x) + 1e-13, DISC)  # no equilibrium at 0
    assert "not exactly 0" in r.reason


def test_bad_candidates_are_named():
    cases = [
        (lambda x: jnp.abs(x[0]) + x[1] ** 2, van_der_pol, "V: expected a derivative everywhere"),
        (lambda x: jax.nn.relu(x[0]) + x[1] ** 2, van_der_pol, "V: expected derivatives that"),
        (lambda x: bowl(jax.lax.stop_gradient(x)) - bowl(x), van_der_pol, "stop_gradient"),
        (bowl, lambda x: jnp.sign(x), "f: expected continuity"),
        (bowl, lambda x: jnp.where(x > 0, x, 0.0), "f: expected continuity"),
        (lambda x: x, van_der_pol, r"V: expected a result of shape \(\)"),
        (bowl, lambda x: x[:1], r"f: expected a result of shape \(2,\)"),
        (lambda x: bowl(x.astype(jnp.float32)), van_der_pol, "float32"),
    ]
    for V, f, words in cases:
        with pytest.raises(ValueError, match=words):
            ly.verify(V, f, DISC)
    with pytest.raises(ValueError, match="equilibrium: expected a point inside the domain"):
        ly.verify(bowl, van_der_pol, DISC, equilibrium=[3.0, 0.0])
    with pytest.raises(ValueError, match="domain: expected a Ball or a Box"):
        ly.verify(bowl, van_der_pol, 2.5)
    with pytest.raises(ValueError, match="inner: expected 0 < inner < outer"):
        ly.verify_shell(bowl, van_der_pol, 1.0, 0.5)


def test_time_that_runs_out_is_unknown():
    r = ly.verify(bowl, van_der_pol, DISC, level=2.0, max_boxes=10)
    assert r.verdict is ly.Verdict.UNKNOWN
    assert "not finished" in r.reason


def test_ellipsoids_lie_in_their_bounding_boxes_and_shrink_in_time():
    found, reason = local_certificate(van_der_pol, np.zeros(2), DISC)
    assert reason == ""
    assert found.core <= found.level
    half = reach(found.P, found.level)
    angle = np.linspace(0, 2 * np.pi, 1000)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    edge = np.sqrt(found.level) * np.linalg.solve(np.linalg.cholesky(found.P).T, circle).T
    assert (np.abs(edge) <= half).all()
    assert np.abs(edge).max(axis=0) == pytest.approx(half, rel=1e-4)
    W = quadratic(jnp.asarray(found.P), jnp.zeros(2))
    slopes = jax.vmap(lambda x: ly.lie_derivative(W, van_der_pol, x))(edge * np.sqrt(0.999))
    assert float(slopes.max()) < 0


def test_definiteness_holds_for_all_matrices_or_is_not_claimed():
    thin = np.array([[[-1.0, -1.0], [0.5, 0.5]], [[-0.5, -0.5], [-1.0, -1.0]]])
    assert _decreases(np.eye(2), thin)
    wide = thin + np.array([-1.1, 1.1])
    assert not _decreases(np.eye(2), wide)
    assert not _decreases(np.eye(2), np.full((2, 2, 2), np.nan))
    rng = np.random.default_rng(0)
    for _ in range(200):
        J = -np.eye(2) + 0.6 * rng.normal(size=(2, 2))
        r = 10 ** rng.uniform(-3, 0.3)
        ends = np.stack([J - r, J + r], axis=-1)
        if _decreases(np.eye(2), ends):
            for corner in range(16):
                signs = np.array([(corner >> k) & 1 for k in range(4)]).reshape(2, 2)
                M = J + r * (2 * signs - 1)
                assert np.linalg.eigvalsh(M + M.T).max() < 0


def test_an_equilibrium_is_exact():
    assert is_equilibrium(van_der_pol, np.zeros(2))
    assert not is_equilibrium(lambda x: van_der_pol(x) + 1e-300, np.zeros(2))
    assert not is_equilibrium(lambda x: jnp.sin(x), np.array([np.pi, 0.0]))
