"""Systems: what is checked when they are made; the shipped ones against written-out formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lyapjax as ly
from lyapjax.systems.system import as_pytree

SHIPPED = {
    "pendulum": ly.systems.inverted_pendulum,
    "saturated": ly.systems.saturated_pendulum,
    "path": ly.systems.path_following,
    "path, published": lambda: ly.systems.path_following(form="published"),
    "van der pol": ly.systems.van_der_pol,
    "double integrator": ly.systems.double_integrator,
}


@pytest.mark.parametrize("make", SHIPPED.values(), ids=SHIPPED)
def test_the_equilibria_are_exact_and_equal_calls_give_the_same_system(make):
    system = make()
    x, u = (jnp.asarray(v) for v in system.equilibrium)
    assert np.all(np.asarray(system.f(x, u)) == 0)
    assert make() is system
    assert hash(make()) == hash(system)
    assert jax.tree.leaves(system) == []


def test_the_pendulum_is_the_papers():
    system = ly.systems.inverted_pendulum()
    theta, omega, torque = 0.7, -1.3, 0.4
    m, l, g, b = 0.15, 0.5, 9.81, 0.1
    acceleration = (m * g * l * np.sin(theta) + torque - b * omega) / (m * l**2)
    got = system.f(jnp.array([theta, omega]), jnp.array([torque]))
    np.testing.assert_allclose(got, [omega, acceleration], rtol=1e-14)
    A, B = system.linearisation()
    np.testing.assert_allclose(A, [[0, 1], [g / l, -b / (m * l**2)]], rtol=1e-14)
    np.testing.assert_allclose(B, [[0], [1 / (m * l**2)]], rtol=1e-14)


@pytest.mark.parametrize("form", ["kinematic", "published"])
def test_path_following_is_the_bicycle_with_its_feed_forward(form):
    v, L, kappa = 5.0, 1.3, 0.6
    system = ly.systems.path_following(v, L, kappa, steering=0.5, form=form)
    factor = v if form == "kinematic" else 1.0
    ahead = np.arctan(L * kappa * factor / v)
    for d, theta, u in ((0.3, -0.2, 0.1), (-0.5, 0.6, -0.4)):
        rate = v * np.tan(ahead + u) / L - factor * kappa * np.cos(theta) / (1 - kappa * d)
        got = system.f(jnp.array([d, theta]), jnp.array([u]))
        np.testing.assert_allclose(got, [v * np.sin(theta), rate], rtol=1e-13)


def test_the_van_der_pol_oscillator_runs_backwards():
    x = jnp.array([0.3, -0.8])
    got = ly.systems.van_der_pol(2.0).f(x, jnp.zeros(0))
    forward = np.array([x[1], 2.0 * (1 - x[0] ** 2) * x[1] - x[0]])
    np.testing.assert_allclose(got, -forward, rtol=1e-14)


def test_a_closed_loop_is_a_pytree_of_the_controllers_numbers():
    system = ly.systems.inverted_pendulum()
    u = ly.linear_controller(system, [[-2.0, -1.0]])
    f = system.closed_loop(u)
    assert [leaf.shape for leaf in jax.tree.leaves(f)] == [(1, 2)]
    x = jnp.array([0.3, 0.4])
    np.testing.assert_array_equal(f(x), system.f(x, jnp.array([-1.0])))
    np.testing.assert_array_equal(jax.jit(lambda f, x: f(x))(f, x), jax.jit(f)(x))
    # A plain function is static and has no numbers; no controller at all keeps u*.
    plain = system.closed_loop(lambda x: jnp.array([-2.0 * x[0] - x[1]]))
    assert jax.tree.leaves(plain) == []
    np.testing.assert_array_equal(plain(x), f(x))
    np.testing.assert_array_equal(system.closed_loop()(x), system.f(x, jnp.zeros(1)))


def test_the_actuator_clips_what_a_controller_does_not():
    system = ly.systems.saturated_pendulum(torque=1.0)
    x = jnp.array([2.0, 1.0])
    wild = system.closed_loop(ly.LinearController([[-5.0, -5.0]]))
    np.testing.assert_array_equal(wild(x), system.f(x, jnp.array([-1.0])))
    kept = ly.SaturatedController([[-5.0, -5.0]], bounds=system.input_bounds)
    np.testing.assert_array_equal(system.closed_loop(kept)(x), system.f(x, kept(x)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.booleans())
def test_domains_draw_project_and_measure(seed, n, ball):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=n)
    half = rng.uniform(0.5, 2, n)
    domain = ly.Ball(half[0], centre) if ball else ly.Box(centre - half, centre + half)
    key = jax.random.key(seed % 1000)
    inside, rim = domain.uniform(key, 64), domain.boundary(key, 64)
    assert inside.shape == rim.shape == (64, n)
    assert float(domain.gauge(inside).max()) <= 1
    np.testing.assert_allclose(domain.gauge(rim), 1, rtol=1e-12)
    far = jnp.asarray(centre + 5 * rng.normal(size=(64, n)))
    near = domain.project(far)
    assert float(domain.gauge(near).max()) <= 1 + 1e-12
    # The projection is the closest point of a convex set: the angle to every other point is blunt.
    angles = jnp.einsum("ik,ijk->ij", far - near, inside[None] - near[:, None])
    assert float(angles.max()) <= 1e-9
    np.testing.assert_allclose(domain.gauge(domain.to_boundary(far)), 1, rtol=1e-12)


def test_volumes_and_uniformity():
    assert ly.Ball(2.0, (0.0,)).volume == pytest.approx(4)
    assert ly.Ball(3.0, (0.0, 0.0, 1.0)).volume == pytest.approx(36 * np.pi)
    ball = ly.Ball(2.0, (1.0, -1.0))
    x = np.asarray(ball.uniform(jax.random.key(0), 20_000))
    share = np.mean(np.linalg.norm(x - [1, -1], axis=1) < 1)
    assert abs(share - 0.25) < 0.015


def test_bad_systems_are_named():
    def good(x, u):
        return -x

    def make(f=good, n=2, m=0, **kwargs):
        return lambda: ly.System(f, n, m, **{"domain": 1.0, **kwargs})

    for call, match in (
        (make(lambda x, u: x + 1), r"f\(x\*, u\*\) = 0 to 1e-09, got f = \[1.0, 1.0\] at x\* = "),
        (make(lambda x, u: x[:1]), r"f: expected a result of shape \(2,\).*got \(1,\)"),
        (make(lambda x, u: (x, x)), "f: expected a result of shape .* got tuple"),
        (make(lambda x, u: x @ x @ x), "f: cannot be traced for x of shape"),
        (make(lambda x, u: x / 0.0), "f: expected finite values, got f = "),
        (make(lambda x, u: jnp.sign(x) * jnp.sqrt(jnp.abs(x))), "got ∂f/∂x = "),
        (make(lambda x, u: x * jnp.log(0.5 - x)), "f: expected finite values in the domain, got"),
        (make(lambda x, u: x.astype(jnp.float32)), "f: expected float64 .* got float32"),
        (make("f"), "f: expected a function"),
        (make(n=0), "state_dim: expected an integer of at least 1, got 0"),
        (make(m=-1), "control_dim: expected an integer of at least 0, got -1"),
        (make(equilibrium=((0.0,), ())), r"equilibrium x\*: expected shape \(2,\), got shape \(1"),
        (make(equilibrium=((0.0, 0.0),)), "equilibrium: expected the pair"),
        (make(equilibrium=((0.0, np.nan), ())), r"equilibrium x\*: expected finite"),
        (make(domain=ly.Ball(1.0, (2.0, 0.0))), r"x\* = \[0.0, 0.0\] in its interior"),
        (make(domain=ly.Box((0.0, -1.0), (1.0, 1.0))), "in its interior"),
        (make(domain=ly.Ball(1.0, (0.0,))), "domain: expected dimension 2, got 1"),
        (make(domain="big"), "domain: expected a Ball, a Box or a radius, got 'big'"),
        (make(domain=-1.0), "radius: expected a positive number, got -1.0"),
        (make(state_names=("a",)), r"state_names: expected 2 strings, got \('a',\)"),
        (make(m=1, input_bounds=((0.0,), (1.0,))), r"expected lo < u\* < hi, got 0.0, 0.0, 1.0"),
        (make(m=1, input_bounds=(-1.0,)), "input_bounds: expected"),
        (lambda: ly.Box((0.0, 1.0), (1.0, 1.0)), "lo: expected lo < hi, got .* at index 1"),
        (lambda: ly.Box((0.0,), (1.0, 1.0)), r"hi: expected shape \(1,\)"),
        (lambda: ly.systems.inverted_pendulum(mass=0.0), "mass: expected a positive number"),
        (lambda: ly.systems.path_following(radius=1.0), "radius: expected less than 1/curvature"),
        (lambda: ly.systems.path_following(steering=0.8), "steering: expected less than 0.785398"),
        (lambda: ly.systems.path_following(form="printed"), "form: expected 'kinematic' or"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.float32
def test_float32_is_refused_with_advice():
    if jax.config.jax_enable_x64:
        with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
            ly.System(lambda x, u: -x, 2, 0)
    else:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            ly.systems.inverted_pendulum()


def test_callables_become_pytrees_of_numbers():
    module = ly.LinearController([[1.0, 2.0]])
    assert as_pytree(module) is module
    wrapped = as_pytree(jnp.sum)
    assert jax.tree.leaves(wrapped) == []
    assert float(wrapped(jnp.ones(3))) == 3.0
