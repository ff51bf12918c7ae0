"""Sectors: bounds that hold, no false proof, the same verdicts as secants with fewer boxes."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.proofs import regional, sectors
from lyapjax.proofs.regional import form_of
from lyapjax.readers import affine as aa
from lyapjax.readers.affine import Affine
from lyapjax.readers.program import trace
from lyapjax.readers.secants import base_of, plan_of, secants
from lyapjax.readers.sectors import _greatest


def loop(system, factor=1.0):
    """The closed loop of LQR's gain, or a part of it."""
    return system.closed_loop(ly.linear_controller(system, factor * ly.lqr(system).K))


def random_boxes(rng, n, batch, level):
    """Boxes of z within the ball's box, from whole to small."""
    top, share = np.sqrt(level), rng.uniform(0.05, 1.0, (batch, n))
    share[rng.uniform(size=(batch, n)) < 0.2] = 1.0
    lo = top * (-1 + 2 * rng.uniform(size=(batch, n)) * (1 - share))
    return lo, np.minimum(lo + 2 * top * share, top)


def points_of(rng, lo, hi, rho, num=4000):
    """Points of a box in the ball."""
    z = rng.uniform(lo, hi, (num, len(lo)))
    away = np.linalg.norm(z, axis=1)
    z = z * np.minimum(1.0, np.sqrt(rho) / away * rng.uniform(0.7, 1, num))[:, None]
    return z[((z >= lo) & (z <= hi) & (np.sum(z**2, axis=1)[:, None] <= rho)).all(axis=1)]


def test_the_greatest_of_a_linear_function_on_a_box_and_a_ball():
    rng = np.random.default_rng(0)
    n, batch = 4, 60
    lo, hi = random_boxes(rng, n, batch, 1.0)
    g, rho = rng.normal(size=(batch, n)), np.ones(batch)
    least = np.where((lo <= 0) & (hi >= 0), 0, np.minimum(np.abs(lo), np.abs(hi)))
    meets = (least**2).sum(axis=1) < 0.9
    found = _greatest(g, lo, hi, rho)
    close = 0
    for i in np.flatnonzero(meets):
        z = points_of(rng, lo[i], hi[i], 1.0, 20_000)
        if len(z):
            assert (z @ g[i]).max() <= found[i]
            close += found[i] - (z @ g[i]).max() < 0.3 * np.abs(g[i]).max()
    assert close > 20
    whole = _greatest(g, -np.ones((batch, n)), np.ones((batch, n)), rho)
    np.testing.assert_allclose(whole, np.linalg.norm(g, axis=1), rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["cos", "sech2", "sin", "tanh", "atan", "sin ratio", "tanh ratio", "atan ratio"]
)
def test_monotone_functions_have_their_exact_range(name):
    op = name.split()[0]
    rule = aa.AT_ZERO[op] if "ratio" in name else aa.UNARY[op]
    rng = np.random.default_rng(1)
    c, h = rng.uniform(-2, 2, 300), rng.uniform(0, 1.0, 300)
    found = rule(Affine(c, None, h))
    x = c + h * np.linspace(-1, 1, 401)[:, None]
    plain = {"cos": np.cos, "sin": np.sin, "tanh": np.tanh, "atan": np.arctan}
    plain["sech2"] = lambda v: 1 / np.cosh(v) ** 2
    exact = plain[op](x) / (x if "ratio" in name else 1)
    assert (np.abs(exact - found.c) <= found.r + 1e-12).all()
    span = exact.max(axis=0) - exact.min(axis=0)
    inside = np.abs(c) + h < (1.57 if name == "sin" else 3.1)
    assert (2 * found.r <= span + 1e-4 + 0.02 * span)[inside].all()


def test_solutions_of_linear_systems_are_enclosed():
    rng = np.random.default_rng(2)
    n, batch, k = 3, 200, 2
    M = rng.normal(size=(n, n, batch)) * 0.3 + 2 * np.eye(n)[..., None]
    Ma, ba = 0.1 * rng.normal(size=(k, n, n, batch)), rng.normal(size=(k, n, 1, batch))
    Mr, b = 0.01 * rng.uniform(size=M.shape), rng.normal(size=(n, 1, batch))
    found = aa.solve(Affine(M, Ma, Mr), Affine(b, ba, 0.01 * np.ones(b.shape)))
    assert np.isfinite(found.r).mean() > 0.9
    for _ in range(50):
        e = rng.choice([-1.0, 1.0, 0.4], (k, batch))
        here = M + np.einsum("kb,kijb->ijb", e, Ma) + Mr * rng.uniform(-1, 1, M.shape)
        right = b + np.einsum("kb,kijb->ijb", e, ba) + 0.01 * rng.uniform(-1, 1, b.shape)
        x = np.linalg.solve(here.transpose(2, 0, 1), right.transpose(2, 0, 1)).transpose(1, 2, 0)
        away = np.abs(x - found.c - np.einsum("kb,kijb->ijb", e, found.a))
        assert not (away > found.r * (1 + 1e-9)).any()
    # Singular somewhere in the enclosure: nothing is known.
    singular = aa.solve(Affine(np.eye(2)[..., None], None, np.ones((2, 2, 1))), aa.point(b[:2]))
    assert np.isnan(singular.r).all()


def test_secants_of_a_solution_that_is_not_0_at_the_equilibrium():
    def f(x):
        M = jnp.stack(
            [jnp.stack([2 + jnp.cos(x[0]), x[1]]), jnp.stack([x[1], 3 + jnp.square(x[0])])]
        )
        return ly.systems.solve(M, jnp.stack([1 + x[1], 2 - jnp.sin(x[0])]))

    program = trace(f, jnp.zeros(2), whole=True)
    assert "solve" in program.ops
    assert "solve" not in trace(f, jnp.zeros(2)).ops
    base = base_of(program, np.zeros(2))
    rng = np.random.default_rng(3)
    c, half = rng.uniform(-0.5, 0.5, (2, 100)), 0.05
    x = Affine(c, half * np.eye(2)[..., None] * np.ones(100), np.zeros((2, 100)))
    (found,) = secants(program, base, plan_of(program, base, np.zeros(2)), x, np.eye(2))
    place = rng.choice([-1.0, 1.0, 0.3], (2, 100))
    y = c + half * place
    exact = np.asarray(jax.vmap(f)(jnp.asarray(y.T))).T - np.asarray(f(jnp.zeros(2)))[:, None]
    F = found.matrix.c + np.einsum("kijb,kb->ijb", found.matrix.a, place)
    error = np.abs(np.einsum("ijb,jb->ib", F, y) - exact)
    assert (error <= np.einsum("ijb,jb->ib", found.matrix.r, np.abs(y)) + 1e-12).all()


CASES = {
    "2 links": (lambda: ly.systems.n_link(2), 1.1),
    "cart-pole": (ly.systems.cart_pole, 3.2),
    "fan": (ly.systems.ducted_fan, 1.5),
}


@pytest.mark.parametrize("name", CASES)
def test_no_box_is_proved_that_has_a_violation(name):
    make, level = CASES[name]
    system = make()
    f, P = loop(system), ly.lqr(system).P
    n = system.state_dim
    form = form_of(f, P, np.zeros(n), None)
    rng = np.random.default_rng(4)
    lo, hi = random_boxes(rng, n, 96, level)
    problem = sectors.inequality(form, np.zeros(n), lo, hi, np.full(96, level))
    proved = problem.prove(form.unit)[0]
    slope = jax.jit(jax.vmap(lambda x: ly.lie_derivative(lambda y: y @ (P @ y), f, x)))
    rises, checked = 0, 0
    for i in range(96):
        z = points_of(rng, lo[i], hi[i], level)
        z = z[np.sum(z**2, axis=1) > 0]
        if not len(z):
            continue
        worst = float(slope(jnp.asarray(np.resize(z, (4000, n)) @ form.R.T)).max())
        rises += worst >= 0
        checked += proved[i]
        assert worst < 0 or not proved[i]
    assert (checked > 5, rises > 5) == (True, True), (checked, rises)


def test_a_product_of_products_is_one_sector():
    def f(x):
        return jnp.stack([-x[0] + jnp.sin(x[0]) * jnp.square(x[1]), -x[1] + x[0] * x[1] * x[0]])

    form = form_of(f, np.eye(2), np.zeros(2), None)
    h = np.full((1, 2), 0.5)
    problem = sectors.inequality(form, np.zeros(2), -h, h, np.array([0.25]))
    assert problem.half.shape == (1, 2)
    # sin x1 x2 is within 0.25 of 0, and so is x1².
    assert (np.abs(problem.half) <= 0.2501).all()


def test_the_form_with_features_is_the_derivative_of_V():
    system = ly.systems.n_link(2)
    f, P = loop(system), ly.lqr(system).P
    W = jnp.array([[1.0, 0.3, 0.0, 0.1], [0.0, -0.5, 0.2, 0.0]])

    def phi(x):
        return 0.3 * jnp.tanh(W @ x)

    def V(x):
        return x @ (P @ x) + jnp.sum(phi(x) ** 2)

    form = form_of(f, P, np.zeros(4), phi)
    rng = np.random.default_rng(0)
    z = 0.2 * rng.normal(size=(20, 4))
    # Boxes of no extent: the w are 0 but for rounding.
    problem = sectors.inequality(form, np.zeros(4), z, z, np.full(20, 10.0))
    slope = np.asarray(jax.vmap(lambda x: ly.lie_derivative(V, f, x))(jnp.asarray(z @ form.R.T)))
    C = problem.C[:, :4, :4]
    np.testing.assert_allclose(np.einsum("bi,bij,bj->b", z, C, z), slope, rtol=1e-6, atol=1e-9)
    assert problem.half.max(initial=0.0) < 1e-6
    proof = ly.verify_region(f, P, system.domain, features_fn=phi, level=0.2)
    assert proof.proved
    assert proof.by_sectors


def test_verdicts_are_those_of_secants_with_no_more_boxes():
    for make, level in ((ly.systems.ducted_fan, 0.3), (ly.systems.cart_pole, 1.5)):
        system = make()
        form = form_of(loop(system), ly.lqr(system).P, np.zeros(system.state_dim), None)
        x, deadline = np.zeros(system.state_dim), time.perf_counter() + 60
        fine = regional.search(form, x, level, 4000, deadline)
        wide = sectors.search(form, x, level, 400, deadline)
        assert fine.verdict is wide.verdict is ly.Verdict.PROVED
        assert wide.num_boxes <= fine.num_boxes
        broken = form_of(loop(system, 0.3), ly.lqr(system).P, x, None)
        assert sectors.search(broken, x, level, 50, deadline).verdict is not ly.Verdict.PROVED


def test_a_box_that_is_hardly_in_the_ball_is_cut():
    """The middle of such a box is outside, where sectors have no ranges to compare."""
    system = ly.systems.n_link(2)
    x = np.zeros(4)
    form = form_of(loop(system), ly.lqr(system).P, x, None)
    lo, hi = np.full((2, 4), 0.3), np.full((2, 4), 0.5)
    problem = sectors.inequality(form, x, lo, hi, np.full(2, 4 * 0.3**2 * 1.001))
    axes = sectors._axes(form, x, problem, np.ones_like(problem.half))
    assert axes.shape == (2,)
    assert ((axes >= 0) & (axes < 4)).all()


def test_links_in_few_boxes_and_counterexamples_beyond():
    """Secants of the inverse mass matrix, written out, took 1,628 boxes for three links."""
    three = ly.systems.n_link(3, radius=0.5)
    f, P = loop(three), ly.lqr(three).P
    proof = ly.verify_region(f, P, three.domain)
    assert proof.proved
    assert proof.num_boxes <= 3
    # All of ‖x‖ <= 0.5 that an ellipsoid of P can have.
    assert proof.level == pytest.approx(0.25 * np.linalg.eigvalsh(P)[0], rel=1e-6)
    far = ly.systems.n_link(3)
    wrong = ly.verify_region(f, P, far.domain, level=0.37, max_boxes=400)
    assert wrong.verdict is ly.Verdict.REFUTED
    x = jnp.asarray(wrong.point)
    assert float(x @ P @ x) <= 0.37
    assert float(ly.lie_derivative(lambda y: y @ (P @ y), f, x)) >= 0


@pytest.mark.parametrize("links", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_eight_and_ten_states(links):
    system = ly.systems.n_link(links)
    regulator = ly.lqr(system)
    P, f, broken = (
        regulator.P,
        *(system.closed_loop(ly.linear_controller(system, k * regulator.K)) for k in (1, 0.05)),
    )
    level = {4: 0.05, 5: 0.025}[links]
    proof = ly.verify_region(f, P, system.domain, level=level)
    assert proof.proved
    assert proof.num_boxes == 1
    assert not ly.verify_region(broken, P, system.domain, level=level, max_boxes=2).proved


def test_what_multiplies_nothing_does_no_harm():
    """tanh of 0 x, as in a candidate whose controller has learned no features."""
    W = jnp.zeros((5, 3))

    def f(x):
        return -x + jnp.sin(jnp.roll(x, 1)) * x * 0.1 + jnp.ones((3, 5)) @ jnp.tanh(W @ x)

    proof = ly.verify_region(f, np.eye(3), ly.Ball(1.0, (0.0,) * 3), level=0.9)
    assert proof.proved
    assert proof.by_sectors


def test_two_varying_factors_in_a_contraction_are_left_to_secants():
    A = jnp.array([[0.0, 1.0, 0.2], [0.3, 0.0, 1.0], [1.0, 0.2, 0.0]])

    def f(x):
        return -x + 0.1 * x * jnp.dot(jnp.sin(A @ x), jnp.cos(A @ x))

    proof = ly.verify_region(f, np.eye(3), ly.Ball(1.0, (0.0,) * 3), level=0.2)
    assert proof.proved
    assert not proof.by_sectors
