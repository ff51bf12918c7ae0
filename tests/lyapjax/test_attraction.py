"""Regions of attraction: secants and forms against balls and samples, no false proof, levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import lyapjax as ly
from lyapjax.proofs.definite import has_positive_pivots, is_positive, negative
from lyapjax.proofs.regional import form_of, matrices
from lyapjax.readers import affine as aa
from lyapjax.readers.affine import Affine
from lyapjax.readers.ball import FUNCTIONS
from lyapjax.readers.program import trace
from lyapjax.readers.secants import base_of, plan_of, secants


def loop(system, gain=None):
    """The closed loop of a gain, LQR's by default."""
    gain = ly.lqr(system).K if gain is None else gain
    return system.closed_loop(ly.linear_controller(system, gain))


def box(rng, n, batch, wide=0.3):
    """Boxes as affine forms, and points of them with their places."""
    c = rng.uniform(-0.8, 0.8, (n, batch))
    half = wide * rng.uniform(0, 1, (n, batch)) * rng.uniform(0, 1, batch)
    c[:, 0] = half[:, 0] = 0
    place = rng.choice([-1.0, 1.0, 0.3, -0.7], (n, batch))
    form = Affine(c, np.eye(n)[:, :, None] * half[None], np.zeros((n, batch)))
    return form, c + half * place, place


@pytest.mark.parametrize("name", sorted(set(aa.UNARY) - {"neg"}))
def test_functions_hold_their_values_in_ball_arithmetic(name, monkeypatch):
    """Value and, where there is one, divided difference at 0: points of random boxes."""
    monkeypatch.setattr(ctx, "prec", 300)
    rng = np.random.default_rng(len(name))
    lift = 2.5 if name in ("log", "sqrt") else 0.0
    for scale in (1e-12, 1e-5, 1e-2, 1.0):
        form, x, place = box(rng, 1, 400, scale)
        form = form._replace(c=form.c * min(1, 100 * scale) + lift)
        x = form.c + form.a[0] * place
        with np.errstate(all="ignore"):
            found = aa.UNARY[name](form)
            ratio = aa.AT_ZERO[name](form) if name in aa.AT_ZERO else None
        checked = 0
        for i in range(x.shape[1]):
            at = arb(float(form.c[0, i])) + arb(float(form.a[0, 0, i])) * arb(float(place[0, i]))
            exact = FUNCTIONS[name](at)
            for result, value in ((found, exact), (ratio, None)):
                if result is None or not np.isfinite(result.r[0, i]):
                    continue
                if value is None and abs(float(at)) < 1e-30:
                    continue
                if value is None:
                    value = (exact - (1 if name == "cos" else 0)) / at
                middle = arb(float(result.c[0, i]))
                middle += arb(float(result.a[0, 0, i])) * arb(float(place[0, i]))
                assert not abs(value - middle) > arb(float(result.r[0, i])), (
                    name,
                    scale,
                    float(at),
                )
                checked += 1
        assert checked > 200


def test_remainders_are_of_second_order():
    c = np.array([[0.7]])
    for name in ("sin", "tanh", "exp", "sech2", "cos"):
        reach = []
        for half in (1e-2, 1e-3):
            reach.append(aa.UNARY[name](Affine(c, np.full((1, 1, 1), half), 0 * c)).r[0, 0])
        assert 90 < reach[0] / reach[1] < 110


SYSTEMS = {
    "fan": (ly.systems.ducted_fan, {2}),
    "quadrotor": (ly.systems.planar_quadrotor, {2}),
    "cart-pole": (ly.systems.cart_pole, {1, 3}),
    "2 links": (lambda: ly.systems.n_link(2), {0, 1, 2, 3}),
    "pendulum": (ly.systems.inverted_pendulum, {0}),
    "van der pol": (ly.systems.van_der_pol, {0}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_secants_give_f_back_and_depend_on_the_angles_alone(name):
    make, moving = SYSTEMS[name]
    system = make()
    n = system.state_dim
    f = loop(system) if system.control_dim else system.closed_loop()
    program = trace(f, jnp.zeros(n))
    base = base_of(program, np.zeros(n))
    plan = plan_of(program, base, np.zeros(n))
    assert plan.moving == (frozenset(moving),)
    rng = np.random.default_rng(5)
    R = np.eye(n) + 0.2 * rng.normal(size=(n, n))
    form, x, place = box(rng, n, 300)
    (found,) = secants(program, base, plan, form, R)
    assert not found.bad.any()
    exact = np.asarray(jax.vmap(f)(jnp.asarray(x.T))).T
    value = found.value.c + np.einsum("kib,kb->ib", found.value.a, place)
    size = 1e-12 * (1 + np.abs(exact))
    assert (np.abs(value - exact) <= found.value.r + size).all()
    F = found.matrix.c + np.einsum("kijb,kb->ijb", found.matrix.a, place)
    z = np.linalg.solve(R, x)
    error = np.abs(np.einsum("ijb,jb->ib", F, z) - exact)
    assert (error <= np.einsum("ijb,jb->ib", found.matrix.r, np.abs(z)) + size).all()
    # Against the linearisation at x*, the first box.
    A = np.asarray(jax.jacfwd(f)(jnp.zeros(n)))
    np.testing.assert_allclose(found.matrix.c[..., 0], A @ R, atol=1e-8 * (1 + np.abs(A).max()))


def test_what_has_no_value_is_bad_and_what_has_no_rule_is_named():
    def f(x):
        return jnp.stack([-x[0] + 0.0 * jnp.log(0.5 + x[1]) - 0.0 * jnp.log(0.5), -x[1]])

    proof = ly.verify_region(f, np.eye(2), ly.Ball(2.0, (0.0, 0.0)), level=0.9)
    assert proof.verdict is ly.Verdict.UNKNOWN
    with pytest.raises(NotImplementedError, match="no secants of the operation 'sinh'"):
        ly.verify_region(lambda x: -jnp.sinh(x), np.eye(2), ly.Ball(1.0, (0.0, 0.0)))


def test_definiteness_is_decided_as_eigenvalues_do():
    rng = np.random.default_rng(1)
    A = rng.normal(size=(500, 5, 5))
    A = A + A.transpose(0, 2, 1) + 4.5 * np.eye(5)
    least = np.linalg.eigvalsh(A)[:, 0]
    clear = np.abs(least) > 1e-9
    assert (has_positive_pivots(A.copy()) == (least > 0))[clear].all()
    S = np.abs(rng.normal(size=A.shape)) * 0.1
    S = S + S.transpose(0, 2, 1)
    scale = rng.uniform(0.5, 2, (500, 5))
    proved = is_positive(A, S, scale)
    assert 0 < proved.sum() < 500
    for _ in range(20):
        signs = np.sign(rng.normal(size=A.shape))
        E = S * np.triu(signs) + S * np.triu(signs, 1).transpose(0, 2, 1)
        assert (np.linalg.eigvalsh(A + E)[proved, 0] > 0).all()
    assert not is_positive(np.full((1, 2, 2), np.nan), np.zeros((1, 2, 2)), np.ones((1, 2)))[0]


def test_forms_proved_negative_have_no_positive_point():
    """Random indefinite forms on boxes and balls, some true, none proved that sampling refutes."""
    rng = np.random.default_rng(2)
    batch, n, k = 400, 4, 2
    C = rng.normal(size=(batch, n, n))
    C = 0.3 * (C + C.transpose(0, 2, 1)) - 0.7 * np.eye(n)
    Ck = 0.05 * rng.normal(size=(batch, k, n, n))
    Ck = Ck + Ck.swapaxes(-1, -2)
    S = np.full((batch, n, n), 0.01)
    lo = rng.uniform(-1, 0.8, (batch, n))
    hi = lo + rng.uniform(0.05, 0.4, (batch, n))
    lo[:, k:], hi[:, k:] = -1.0, 1.0
    rho = np.ones(batch)
    answer = negative(C, Ck, S, lo, hi, rho, 1.0)
    indefinite = np.linalg.eigvalsh(C)[:, -1] > 0
    assert answer.proved[indefinite].sum() > 20
    assert (answer.multipliers >= 0).all()
    for _ in range(200):
        z = rng.uniform(lo, hi)
        norm = np.linalg.norm(z[:, k:], axis=1)
        room = np.sqrt(np.maximum(1 - np.sum(z[:, :k] ** 2, axis=1), 0))
        z[:, k:] *= np.minimum(1, room / norm)[:, None]
        inside = np.sum(z**2, axis=1) <= 1 + 1e-12
        place = 2 * (z[:, :k] - lo[:, :k]) / (hi - lo)[:, :k] - 1
        M = C + np.einsum("bk,bkij->bij", place, Ck)
        value = np.einsum("bi,bij,bj->b", z, M, z) + 0.01 * np.abs(z).sum(axis=1) ** 2
        assert not (answer.proved & inside & (value >= 0)).any()


def features(x):
    """Some φ with φ(0) = 0."""
    return 0.4 * jnp.tanh(jnp.array([[0.0, 0.0, 1.0, 0.2, 0.0, 0.3]]) @ x)


@pytest.mark.parametrize("with_features", [False, True])
def test_the_form_is_the_derivative_of_V(with_features):
    system = ly.systems.ducted_fan()
    f, P = loop(system), ly.lqr(system).P
    phi = features if with_features else None

    def V(x):
        return x @ (P @ x) + (jnp.sum(features(x) ** 2) if with_features else 0.0)

    form = form_of(f, P, np.zeros(6), phi)
    assert form.cut == (3 if with_features else 1)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 6)) * 0.5
    C, _, S, least, bad = matrices(form, np.zeros(6), z, z)
    x = jnp.asarray(z @ form.R.T)
    slope = np.asarray(jax.vmap(lambda x: ly.lie_derivative(V, f, x))(x))
    np.testing.assert_allclose(np.einsum("bi,bij,bj->b", z, C, z), slope, rtol=1e-8, atol=1e-10)
    assert not bad.any()
    assert S.max() < 1e-8
    extra = np.asarray(jax.vmap(V)(x)) - np.sum(z**2, axis=1)
    assert (least <= extra + 1e-12).all()


def test_the_ducted_fan_under_lqr_is_proved_and_refuted_where_it_fails():
    """The issue's yardstick: 1.1e6 boxes for V <= 0.3, without the hole around 0."""
    system = ly.systems.ducted_fan()
    f, P = loop(system), ly.lqr(system).P
    small = ly.verify_region(f, P, system.domain, level=0.3)
    assert small.proved
    assert small.num_boxes < 100
    largest = ly.verify_region(f, P, system.domain)
    assert largest.proved
    assert largest.level > 0.6
    ellipsoid = np.pi**3 / 6 * largest.level**3 / np.sqrt(np.linalg.det(P))
    assert largest.volume == pytest.approx(ellipsoid, rel=1e-6)
    assert largest.volume <= ellipsoid
    # Fully grown, V rises somewhere: the verdict above it must never be PROVED.
    above = ly.verify_region(f, P, system.domain, level=1.1 * largest.level, max_boxes=3000)
    assert not above.proved
    wrong = ly.verify_region(loop(system, 0.2 * ly.lqr(system).K), P, system.domain, level=0.3)
    assert not wrong.proved


def test_counterexamples_are_counterexamples():
    system = ly.systems.planar_vtol()
    f, P = loop(system), ly.lqr(system).P
    proof = ly.verify_region(f, P, system.domain, level=0.8)
    assert proof.verdict is ly.Verdict.REFUTED
    x = jnp.asarray(proof.point)
    assert float(x @ P @ x) <= 0.8
    assert float(ly.lie_derivative(lambda x: x @ P @ x, f, x)) > 0


@pytest.mark.parametrize("size", [0.3, 0.1, 0.03])
def test_candidates_broken_in_a_small_place_are_never_proved(size):
    """f that pushes outward in a small ball somewhere inside the level set."""
    rng = np.random.default_rng(int(1000 * size))
    for _ in range(3):
        direction = rng.normal(size=3)
        centre = 0.6 * direction / np.linalg.norm(direction)

        def f(x, centre=centre):
            bump = jnp.exp(-jnp.sum(jnp.square((x - centre) / size)))
            return -x + 2.0 * bump * x

        proof = ly.verify_region(f, np.eye(3), ly.Ball(1.0, (0.0,) * 3), level=0.9, max_boxes=4000)
        assert not proof.proved
        whole = ly.verify_region(lambda x: -x, np.eye(3), ly.Ball(1.0, (0.0,) * 3), level=0.9)
        assert whole.proved


def test_levels_against_the_known_region():
    """ẋ = -x + x³: V = x² falls for |x| < 1 in each coordinate, exactly."""
    proof = ly.verify_region(lambda x: -x + x**3, np.eye(2), ly.Ball(2.0, (0.0, 0.0)))
    assert proof.proved
    assert 0.9 < proof.level < 1.0
    shifted = ly.verify_region(
        lambda x: -(x - 1.0) + (x - 1.0) ** 3, np.eye(2), ly.Ball(2.0, (1.0, 1.0)), (1.0, 1.0)
    )
    assert shifted.level == pytest.approx(proof.level, rel=1e-6)
    bounded = ly.verify_region(lambda x: -x + x**3, np.eye(2), ly.Box((-0.5, -2.0), (0.6, 2.0)))
    assert bounded.level == pytest.approx(0.25, rel=1e-6)
    assert bounded.volume == pytest.approx(0.25 * np.pi, rel=1e-6)


def test_the_volume_with_features_is_a_close_lower_bound():
    system = ly.systems.ducted_fan()
    f, P = loop(system), ly.lqr(system).P
    proof = ly.verify_region(f, P, system.domain, features_fn=features, level=0.2)
    assert proof.proved
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200_000, 6))
    z *= (np.sqrt(0.2) * rng.uniform(0, 1, len(z)) ** (1 / 6) / np.linalg.norm(z, axis=1))[:, None]
    x = jnp.asarray(z @ proof.R.T)
    values = np.sum(z**2, axis=1) + np.asarray(jnp.sum(jax.vmap(features)(x) ** 2, axis=1))
    ball = np.pi**3 / 6 * 0.2**3 / np.sqrt(np.linalg.det(P))
    sampled = ball * np.mean(values <= 0.2)
    assert 0.99 * sampled < proof.volume < 1.01 * sampled


def test_features_that_are_linear_in_some_coordinates_count_in_the_volume():
    """Their gradient has a constant secant matrix: V̇ does not depend on x2, the volume does."""

    def phi(x):
        return jnp.concatenate([jnp.tanh(jnp.eye(1, 4) @ x), jnp.eye(1, 4, 1) @ x])

    domain = ly.Ball(2.0, (0.0,) * 4)
    proof = ly.verify_region(lambda x: -x, np.eye(4), domain, features_fn=phi, level=0.5)
    assert proof.proved
    # V >= y² + y2² is its value for small y1, and tanh² y1 <= y1².
    least, most = np.pi**2 / 2 * 0.5**2 / np.array([2.0, np.sqrt(2) * np.sqrt(1.8)])
    assert least < proof.volume < most
    z = np.random.default_rng(0).uniform(-0.72, 0.72, (400_000, 4))
    values = (z**2).sum(axis=1) + np.tanh(z[:, 0]) ** 2 + z[:, 1] ** 2
    sampled = 1.44**4 * np.mean(values <= 0.5)
    assert 0.98 * sampled < proof.volume < 1.01 * sampled


@pytest.mark.parametrize("n", [1, 2])
def test_features_of_all_coordinates_leave_no_more_than_they_allow(n):
    """V = |y|² + 9 |tanh 2y|² is no quadratic form in any coordinate."""
    proof = ly.verify_region(
        lambda x: -x, np.eye(n), ly.Ball(2.0, (0.0,) * n),
        features_fn=lambda x: 3 * jnp.tanh(2 * x), level=0.5,
    )  # fmt: skip
    assert proof.proved
    grid = np.linspace(-0.3, 0.3, 1501)
    y = np.stack(np.meshgrid(*[grid] * n), -1)
    counted = 0.6**n * np.mean((y**2 + 9 * np.tanh(2 * y) ** 2).sum(axis=-1) <= 0.5)
    assert 0.95 * counted < proof.volume < 1.002 * counted


def test_a_phi_that_is_linear_everywhere_is_a_quadratic_V():
    proof = ly.verify_region(
        lambda x: -x, np.eye(2), ly.Ball(2.0, (0.0, 0.0)), features_fn=lambda x: x[:1], level=1.0
    )
    assert proof.volume == pytest.approx(np.pi / np.sqrt(2), rel=1e-3)
    assert proof.volume < np.pi / np.sqrt(2)


def test_bad_input_is_named():
    domain, P = ly.Ball(1.0, (0.0, 0.0)), np.eye(2)
    for call, match in (
        (lambda: ly.verify_region(lambda x: -x + 1e-9, P, domain), "f: expected exactly 0 at x"),
        (lambda: ly.verify_region(lambda x: -x, -P, domain), "P: expected positive definite"),
        (
            lambda: ly.verify_region(lambda x: -x, np.ones((2, 3)), domain),
            "P: expected a symmetric",
        ),
        (lambda: ly.verify_region(lambda x: -x, P, 1.0), "domain: expected a Ball or a Box"),
        (
            lambda: ly.verify_region(lambda x: -x, P, domain, level=-1.0),
            "level: expected a positive",
        ),
        (lambda: ly.verify_region(lambda x: -x[:1], P, domain), "f: expected a result of shape"),
        (
            lambda: ly.verify_region(lambda x: -x, P, domain, (2.0, 0.0)),
            "a point inside the domain",
        ),
        (
            lambda: ly.verify_region(lambda x: -x, P, domain, features_fn=lambda x: jnp.abs(x)),
            "features_fn: expected a smooth function",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert "at most 1" in ly.verify_region(lambda x: -x, P, domain, level=2.0).reason
    assert "not stable" in ly.verify_region(lambda x: x, P, domain).reason
