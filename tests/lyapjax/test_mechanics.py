"""Vehicles and poles: linearisations, energy along trajectories, equilibria, known formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.proofs.local import is_equilibrium

MAKERS = {
    "ducted fan": ly.systems.ducted_fan,
    "quadrotor": ly.systems.planar_quadrotor,
    "quadrotor in space": ly.systems.quadrotor,
    "vtol": ly.systems.planar_vtol,
    "cart-pole": ly.systems.cart_pole,
    "2 links": lambda: ly.systems.n_link(2),
    "3 links": ly.systems.n_link,
    "5 links": lambda: ly.systems.n_link(5),
}


def _links(n):
    """M(θ), b and the Coriolis matrix of equal rods, written with arrays."""
    a = np.array([[n - 1 - max(i, j) + 0.5 for j in range(n)] for i in range(n)])
    np.fill_diagonal(a, [1 / 12 + 1 / 4 + n - 1 - i for i in range(n)])
    b = 9.81 * np.array([0.5 + n - 1 - i for i in range(n)])

    def parts(theta, omega):
        between = theta[None] - theta[:, None]
        return a * np.cos(between), -a * omega[None] * np.sin(between), -b * np.sin(theta)

    return parts, b


INERTIA = np.array([0.0820, 0.0845, 0.1377])


def rotation(x):
    """Rz(yaw) Ry(pitch) Rx(roll)."""
    (s1, s2, s3), (c1, c2, c3) = np.sin(x[3:6]), np.cos(x[3:6])
    about_x = np.array([[1, 0, 0], [0, c1, -s1], [0, s1, c1]])
    about_y = np.array([[c2, 0, s2], [0, 1, 0], [-s2, 0, c2]])
    return np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]]) @ about_y @ about_x


def energy(name, x):
    """Mechanical energy, with the default constants."""
    if "link" in name:
        n = len(x) // 2
        theta, omega = x[:n], x[n:]
        parts, b = _links(n)
        return omega @ parts(theta, omega)[0] @ omega / 2 + b @ np.cos(theta)
    if name == "cart-pole":
        _, theta, v, omega = x
        M, m, half, g = 1.0, 0.1, 0.5, 9.8
        moving = (M + m) * v**2 + 2 * m * half * v * omega * np.cos(theta)
        return (moving + 4 / 3 * m * half**2 * omega**2) / 2 + m * g * half * np.cos(theta)
    if name == "quadrotor in space":
        spin = INERTIA @ x[9:] ** 2
        return (4.34 * x[6:9] @ x[6:9] + spin) / 2 + 4.34 * 9.81 * x[2]
    m, J, g = {
        "ducted fan": (11.2, 0.0462, 0.28), "quadrotor": (0.486, 0.00383, 9.81), "vtol": (1, 1, 1)
    }[name]  # fmt: skip
    return m * (x[3] ** 2 + x[4] ** 2) / 2 + J * x[5] ** 2 / 2 + m * g * x[1]


def power(name, x, u):
    """What the inputs put in, less what drag takes out."""
    if "link" in name:
        return x[len(x) // 2 :] @ u
    if name == "cart-pole":
        return x[2] * u[0]
    if name == "quadrotor in space":
        return u[0] * (x[6:9] @ rotation(x)[:, 2]) + x[9:] @ u[1:]
    sin, cos = np.sin(x[2]), np.cos(x[2])
    if name == "ducted fan":
        force = u[0] * cos - u[1] * sin - 0.1 * x[3], u[0] * sin + u[1] * cos - 0.1 * x[4]
        moment = 0.156 * u[0]
    elif name == "quadrotor":
        force, moment = (-(u[0] + u[1]) * sin, (u[0] + u[1]) * cos), 0.25 * (u[0] - u[1])
    else:
        force = 0.1 * u[1] * cos - u[0] * sin, u[0] * cos + 0.1 * u[1] * sin
        moment = u[1]
    return force[0] * x[3] + force[1] * x[4] + moment * x[5]


@pytest.mark.parametrize("name", MAKERS)
def test_equilibria_are_exact_and_equal_calls_give_one_system(name):
    system = MAKERS[name]()
    x, u = (jnp.asarray(v) for v in system.equilibrium)
    assert np.all(np.asarray(system.f(x, u)) == 0)
    assert np.all(np.asarray(jax.jit(system.f)(x, u)) == 0)
    assert MAKERS[name]() is system
    if system.state_dim <= 6:
        assert is_equilibrium(system.closed_loop(), np.asarray(x))
        K = ly.lqr(system).K
        assert is_equilibrium(system.closed_loop(ly.linear_controller(system, K)), np.asarray(x))


@pytest.mark.parametrize("name", MAKERS)
def test_linearisations_are_central_differences(name):
    system = MAKERS[name]()
    x, u = (np.asarray(v, float) for v in system.equilibrium)
    A, B = system.linearisation()
    h = 1e-5
    for i, step in enumerate(h * np.eye(len(x))):
        column = (system.f(jnp.asarray(x + step), u) - system.f(jnp.asarray(x - step), u)) / (2 * h)
        np.testing.assert_allclose(A[:, i], column, atol=1e-6 * (1 + np.abs(A).max()))
    for i, step in enumerate(h * np.eye(len(u))):
        column = (system.f(x, jnp.asarray(u + step)) - system.f(x, jnp.asarray(u - step))) / (2 * h)
        np.testing.assert_allclose(B[:, i], column, atol=1e-6 * (1 + np.abs(B).max()))


@pytest.mark.parametrize("name", MAKERS)
def test_energy_changes_by_the_power_of_the_inputs(name):
    """Along a trajectory under a wild input, by quadrature of the power (RK4: h⁴)."""
    system = MAKERS[name]()
    rng = np.random.default_rng(3)
    n, m = system.state_dim, system.control_dim
    x0 = jnp.asarray(0.4 * rng.normal(size=n))
    rest = jnp.asarray(system.equilibrium[1])
    phase, seconds, num = jnp.asarray(rng.normal(size=m)), 0.5, 800
    h = seconds / num

    def u(t):
        return rest + 0.3 * jnp.sin(4 * t + phase)

    @jax.jit
    def run(x0):
        def step(x, t):
            k1 = system.f(x, u(t))
            k2 = system.f(x + h / 2 * k1, u(t + h / 2))
            k3 = system.f(x + h / 2 * k2, u(t + h / 2))
            k4 = system.f(x + h * k3, u(t + h))
            after = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return after, after

        return jax.lax.scan(step, x0, h * jnp.arange(num))[1]

    x = np.concatenate([np.asarray(x0)[None], np.asarray(run(x0))])
    inputs = np.asarray(jax.vmap(u)(h * jnp.arange(num + 1)))
    flow = np.array([power(name, *pair) for pair in zip(x, inputs)])
    simpson = h / 3 * (flow[0] + 4 * flow[1::2].sum() + 2 * flow[2:-1:2].sum() + flow[-1])
    values = np.array([energy(name, state) for state in x])
    size = np.abs(values - values[0]).max()
    assert size > 1e-3
    np.testing.assert_allclose(values[-1] - values[0], simpson, atol=2e-7 * (1 + size))


def test_a_quadrotor_without_moments_keeps_its_angular_momentum():
    """R J Ω in space; its derivative along f, exactly."""
    system = ly.systems.quadrotor()
    rng = np.random.default_rng(7)
    for _ in range(5):
        x, h = rng.uniform(-0.6, 0.6, 12), 1e-5
        rate = np.asarray(system.f(jnp.asarray(x), jnp.array([30.0, 0.0, 0.0, 0.0])))
        ends = [rotation(y) @ (INERTIA * y[9:]) for y in (x + h * rate, x - h * rate)]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), 0.0, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_links_satisfy_their_equation(n):
    system, (parts, _) = ly.systems.n_link(n), _links(n)
    rng = np.random.default_rng(n)
    for _ in range(5):
        x, u = rng.normal(size=2 * n), rng.normal(size=n)
        M, C, tau = parts(x[:n], x[n:])
        rates = np.asarray(system.f(jnp.asarray(x), jnp.asarray(u)))
        np.testing.assert_array_equal(rates[:n], x[n:])
        np.testing.assert_allclose(M @ rates[n:] + C @ x[n:] + tau, u, atol=1e-11)


def test_one_link_is_a_pendulum_and_unequal_links_use_their_constants():
    system = ly.systems.n_link(1, masses=[2.0], lengths=[0.6], centres=[0.2], inertias=[0.05])
    theta, omega, u = 0.7, -0.4, 0.3
    expected = (u + 2.0 * 0.2 * 9.81 * np.sin(theta)) / (0.05 + 2.0 * 0.2**2)
    got = system.f(jnp.array([theta, omega]), jnp.array([u]))
    np.testing.assert_allclose(got, [omega, expected], rtol=1e-14)
    # With the upper link weightless the lower one is that pendulum, whatever the upper one does.
    two = ly.systems.n_link(
        2, masses=[2.0, 1e-12], lengths=[0.6, 1.0], centres=[0.2, 0.5], inertias=[0.05, 1.0]
    )
    got = two.f(jnp.array([theta, 0.9, omega, 1.1]), jnp.array([u, 0.2]))
    np.testing.assert_allclose(got[2:], [expected, 0.2], rtol=1e-9)


def test_solve_is_numpys_and_refuses_what_does_not_fit():
    rng = np.random.default_rng(0)
    for n in range(1, 6):
        A = rng.normal(size=(n, n))
        M, b = A @ A.T + np.eye(n), rng.normal(size=n)
        np.testing.assert_allclose(ly.systems.solve(M, b), np.linalg.solve(M, b))
    with pytest.raises(ValueError, match=r"M: expected shape \(n, n\) for b of shape \(n,\)"):
        ly.systems.solve(jnp.eye(3), jnp.zeros(2))


def test_bad_constants_are_named():
    for call, match in (
        (lambda: ly.systems.ducted_fan(drag=-0.1), "drag: expected a positive number, got -0.1"),
        (lambda: ly.systems.n_link(0), "links: expected an integer of at least 1, got 0"),
        (lambda: ly.systems.n_link(2, masses=[1.0]), r"masses: expected shape \(2,\)"),
        (lambda: ly.systems.n_link(2, masses=[1.0, 0.0]), r"masses\[1\]: expected a positive"),
        (lambda: ly.systems.cart_pole(pole=True), "pole: expected a positive number, got True"),
        (lambda: ly.systems.quadrotor(radius=2.0), "radius: expected at most 1.5"),
        (lambda: ly.systems.quadrotor(inertia=(1.0, 1.0)), r"inertia: expected shape \(3,\)"),
        (lambda: ly.systems.planar_vtol(coupling=0.0), "coupling: expected a positive number"),
        (lambda: ly.systems.planar_quadrotor(arm=np.inf), "arm: expected a positive number"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
