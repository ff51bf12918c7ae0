"""Vehicles that hover: the Caltech ducted fan, quadrotors in a plane and in space, a jump jet.

Those in a plane have the state (x, y, θ, ẋ, ẏ, θ̇): position and tilt, from the hover. Given θ the
right-hand side is affine in everything else, which is what `lyapjax.proofs.regional` lives on:
of six coordinates one has to be cut.
"""

import functools

import jax.numpy as jnp
from jax import Array

from lyapjax.systems.domains import positive_numbers, real_tuple
from lyapjax.systems.system import System

STATE_NAMES = ("x", "y", "tilt", "velocity in x", "velocity in y", "angular velocity")
STATE_UNITS = ("m", "m", "rad", "m/s", "m/s", "rad/s")


@functools.cache
def _ducted_fan(mass, inertia, arm, gravity, drag, radius):
    def f(x: Array, u: Array) -> Array:
        _, _, theta, vx, vy, omega = (x[i] for i in range(6))
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        across = (u[0] * cos - u[1] * sin - drag * vx) / mass
        # (u2 - m g) cosθ + m g (cosθ - 1) is u2 cosθ - m g, and 0 at the hover also in rounding.
        lift = (u[1] - mass * gravity) * cos + mass * gravity * (cos - 1)
        up = (u[0] * sin + lift - drag * vy) / mass
        return jnp.stack([vx, vy, omega, across, up, arm / inertia * u[0]])

    return System(
        f,
        6,
        2,
        equilibrium=((0.0,) * 6, (0.0, mass * gravity)),
        domain=radius,
        name="ducted_fan",
        state_names=STATE_NAMES,
        state_units=STATE_UNITS,
        control_names=("force across the fan", "force along the fan"),
        control_units=("N", "N"),
    )


def ducted_fan(
    mass: float = 11.2,
    inertia: float = 0.0462,
    arm: float = 0.156,
    gravity: float = 0.28,
    drag: float = 0.1,
    radius: float = 3.0,
) -> System:
    """The Caltech ducted fan in hover.

        m ẍ = -d ẋ + u1 cos θ - u2 sin θ
        m ÿ = -d ẏ + u1 sin θ + u2 cos θ - m g
        J θ̈ = r u1

    State (x, y, θ, ẋ, ẏ, θ̇); inputs the forces across and along the fan, u* = (0, m g). The small
    gravity is that of the experiment, whose counterweight carries most of the fan.

    Args:
      mass: m, kg.
      inertia: J, kg m².
      arm: r, from the centre of mass to where the forces act, m.
      gravity: g, m/s².
      drag: d, N s/m.
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with six states and two inputs.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Chang, Roohi & Gao, Caltech ducted fan; Jadbabaie & Hauser (2002) for the fan. Departure: the
      appendix prints -u2 cosθ, with which its own gains are unstable (ERRATA).

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> system = ly.systems.ducted_fan()
      >>> system.f(*map(jnp.asarray, system.equilibrium)).tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    numbers = positive_numbers(
        mass=mass, inertia=inertia, arm=arm, gravity=gravity, drag=drag, radius=radius
    )
    return _ducted_fan(*numbers)


@functools.cache
def _planar_quadrotor(mass, inertia, arm, gravity, radius):
    def f(x: Array, u: Array) -> Array:
        _, _, theta, vx, vy, omega = (x[i] for i in range(6))
        thrust = u[0] + u[1]
        # thrust cosθ - m g, written so that it vanishes at the hover also in rounding.
        lift = (thrust - mass * gravity) * jnp.cos(theta) + mass * gravity * (jnp.cos(theta) - 1)
        turn = arm / inertia * (u[0] - u[1])
        return jnp.stack([vx, vy, omega, -thrust * jnp.sin(theta) / mass, lift / mass, turn])

    half = mass * gravity / 2
    return System(
        f,
        6,
        2,
        equilibrium=((0.0,) * 6, (half, half)),
        domain=radius,
        name="planar_quadrotor",
        state_names=STATE_NAMES,
        state_units=STATE_UNITS,
        control_names=("thrust of the right rotor", "thrust of the left rotor"),
        control_units=("N", "N"),
    )


def planar_quadrotor(
    mass: float = 0.486,
    inertia: float = 0.00383,
    arm: float = 0.25,
    gravity: float = 9.81,
    radius: float = 10.0,
) -> System:
    """A quadrotor that moves in a vertical plane.

        m ẍ = -(u1 + u2) sin θ,    m ÿ = (u1 + u2) cos θ - m g,    J θ̈ = r (u1 - u2)

    State (x, y, θ, ẋ, ẏ, θ̇); inputs the thrusts of the two rotors, u* = (m g/2, m g/2). They are
    not bounded here, though rotors cannot pull.

    Args:
      mass: m, kg.
      inertia: J, kg m².
      arm: r, from the centre to a rotor, m.
      gravity: g, m/s².
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with six states and two inputs.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Tedrake, Underactuated Robotics, "Acrobots, cart-poles, and quadrotors", equations of the
      planar quadrotor, and the constants of its examples.

    Examples:
      >>> import lyapjax as ly
      >>> A, B = ly.systems.planar_quadrotor().linearisation()
      >>> A[3, 2].round(2).item(), B[5].round(2).tolist()
      (-9.81, [65.27, -65.27])
    """
    numbers = positive_numbers(mass=mass, inertia=inertia, arm=arm, gravity=gravity, radius=radius)
    return _planar_quadrotor(*numbers)


@functools.cache
def _planar_vtol(coupling, radius):
    def f(x: Array, u: Array) -> Array:
        _, _, theta, vx, vy, omega = (x[i] for i in range(6))
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        across = coupling * u[1] * cos - u[0] * sin
        up = (u[0] - 1) * cos + (cos - 1) + coupling * u[1] * sin
        return jnp.stack([vx, vy, omega, across, up, u[1]])

    return System(
        f,
        6,
        2,
        equilibrium=((0.0,) * 6, (1.0, 0.0)),
        domain=radius,
        name="planar_vtol",
        state_names=STATE_NAMES,
        control_names=("thrust", "rolling moment"),
    )


def planar_vtol(coupling: float = 0.1, radius: float = 3.0) -> System:
    """A jump jet in hover (PVTOL), in units of its weight, its mass and gravity.

        ẍ = -u1 sin θ + ε u2 cos θ,    ÿ = u1 cos θ + ε u2 sin θ - 1,    θ̈ = u2

    State (x, y, θ, ẋ, ẏ, θ̇), without units; u* = (1, 0). A rolling moment also pushes the jet
    sideways, by ε, which makes it non-minimum phase.

    Args:
      coupling: ε.
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with six states and two inputs.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Hauser, Sastry & Meyer (1992), Nonlinear control design for slightly non-minimum phase
      systems: application to V/STOL aircraft, equation (2). Its ε is "small"; 0.1 is ours.

    Examples:
      >>> import lyapjax as ly
      >>> A, B = ly.systems.planar_vtol().linearisation()
      >>> A[3].tolist(), B[:, 1].tolist()
      ([0.0, 0.0, -1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1, 0.0, 1.0])
    """
    return _planar_vtol(*positive_numbers(coupling=coupling, radius=radius))


@functools.cache
def _quadrotor(mass, inertia, gravity, radius):
    J1, J2, J3 = inertia
    weight = mass * gravity

    def f(x: Array, u: Array) -> Array:
        roll, pitch, yaw = x[3], x[4], x[5]
        p, q, r = x[9], x[10], x[11]
        s1, c1, s2, c2 = jnp.sin(roll), jnp.cos(roll), jnp.sin(pitch), jnp.cos(pitch)
        s3, c3 = jnp.sin(yaw), jnp.cos(yaw)
        turn = (q * s1 + r * c1) / c2
        # T cosθ cosφ - m g, written so that it vanishes at the hover also in rounding.
        lift = (u[0] - weight) * (c2 * c1) + weight * (c2 * c1 - 1)
        rates = [p + s2 * turn, q * c1 - r * s1, turn]
        push = [u[0] * (c3 * s2 * c1 + s3 * s1), u[0] * (s3 * s2 * c1 - c3 * s1), lift]
        spin = [
            (u[1] + (J2 - J3) * (q * r)) / J1,
            (u[2] + (J3 - J1) * (r * p)) / J2,
            (u[3] + (J1 - J2) * (p * q)) / J3,
        ]
        return jnp.stack([x[6], x[7], x[8], *rates, *(v / mass for v in push), *spin])

    return System(
        f,
        12,
        4,
        equilibrium=((0.0,) * 12, (weight, 0.0, 0.0, 0.0)),
        domain=radius,
        name="quadrotor",
        state_names=(
            *("x", "y", "z", "roll", "pitch", "yaw", "velocity in x", "velocity in y"),
            *("velocity in z", "roll rate", "pitch rate", "yaw rate"),
        ),
        state_units=("m",) * 3 + ("rad",) * 3 + ("m/s",) * 3 + ("rad/s",) * 3,
        control_names=("thrust", "roll moment", "pitch moment", "yaw moment"),
        control_units=("N", "N m", "N m", "N m"),
    )


def quadrotor(
    mass: float = 4.34,
    inertia: tuple[float, float, float] = (0.0820, 0.0845, 0.1377),
    gravity: float = 9.81,
    radius: float = 1.5,
) -> System:
    """A quadrotor in space: twelve states.

        m v̇ = T R e3 - m g e3,    J Ω̇ = τ - Ω × J Ω,    J diagonal
        φ̇ = p + sin θ ψ̇,    θ̇ = q cos φ - r sin φ,    ψ̇ = (q sin φ + r cos φ) / cos θ

    State (position, Euler angles φ θ ψ, velocity, body rates Ω = (p, q, r)), R = Rz(ψ) Ry(θ) Rx(φ);
    inputs the thrust T and the moments τ, u* = (m g, 0, 0, 0), not bounded. The angles are a chart
    for |θ| < π/2 only, so the domain must not reach beyond.

    Args:
      mass: m, kg.
      inertia: the diagonal of J, kg m².
      gravity: g, m/s².
      radius: of the domain, ‖x‖ <= radius, at most 1.5.

    Returns:
      `System` with twelve states and four inputs.

    Raises:
      ValueError: a constant that is not positive, a radius beyond the chart.

    Reference:
      Lee, Leok & McClamroch (2010), Geometric tracking control of a quadrotor UAV on SE(3),
      equations (1) to (5) and the constants of its example. Departure: z is up here.

    Examples:
      >>> import lyapjax as ly
      >>> A, B = ly.systems.quadrotor().linearisation()
      >>> A[6, 4].round(2).item(), A[7, 3].round(2).item(), B[9, 1].round(2).item()
      (9.81, -9.81, 12.2)
    """
    mass, gravity, radius = positive_numbers(mass=mass, gravity=gravity, radius=radius)
    inertia = real_tuple("inertia", inertia, 3)
    positive_numbers(**{f"inertia[{i}]": value for i, value in enumerate(inertia)})
    if radius > 1.5:
        raise ValueError(
            f"radius: expected at most 1.5, where the angles are a chart, got {radius}"
        )
    return _quadrotor(mass, inertia, gravity, radius)
