"""Systems of two states, each with f(x*, u*) = 0 exactly, also in floating point.

States are measured from the equilibrium, in SI units. Calls with equal constants return one and the
same system, so that what has been compiled for it is used again.
"""

import functools

import jax.numpy as jnp
from jax import Array

from lyapjax.systems.domains import Box, positive_numbers
from lyapjax.systems.system import System


@functools.cache
def _pendulum(mass, length, gravity, friction, radius, torque):
    def f(x: Array, u: Array) -> Array:
        fall = mass * gravity * length * jnp.sin(x[0])
        return jnp.stack([x[1], (fall + u[0] - friction * x[1]) / (mass * length**2)])

    return System(
        f,
        2,
        1,
        domain=radius,
        input_bounds=None if torque is None else ((-torque,), (torque,)),
        name="inverted_pendulum" if torque is None else "saturated_pendulum",
        state_names=("angle", "angular velocity"),
        state_units=("rad", "rad/s"),
        control_names=("torque",),
        control_units=("N m",),
    )


def inverted_pendulum(
    mass: float = 0.15,
    length: float = 0.5,
    gravity: float = 9.81,
    friction: float = 0.1,
    radius: float = 6.0,
) -> System:
    """The inverted pendulum with a torque at its joint.

        θ̈ = (m g ℓ sin θ + u - b θ̇) / (m ℓ²)

    State (θ, θ̇) from the upright position, input the torque.

    Args:
      mass: m, kg.
      length: ℓ, m.
      gravity: g, m/s².
      friction: b, N m s.
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with two states and one input.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Chang, Roohi & Gao, Inverted pendulum; constants of their code (ERRATA).

    Examples:
      >>> import lyapjax as ly
      >>> A, B = ly.systems.inverted_pendulum().linearisation()
      >>> A.round(2).tolist(), B.round(2).tolist()
      ([[0.0, 1.0], [19.62, -2.67]], [[0.0], [26.67]])
    """
    numbers = positive_numbers(
        mass=mass, length=length, gravity=gravity, friction=friction, radius=radius
    )
    return _pendulum(*numbers, None)


def saturated_pendulum(
    torque: float = 1.0,
    mass: float = 0.15,
    length: float = 0.5,
    gravity: float = 9.81,
    friction: float = 0.1,
    radius: float = 4.0,
) -> System:
    """The inverted pendulum with a motor of limited torque.

        θ̈ = (m g ℓ sin θ + u - b θ̇) / (m ℓ²),        |u| <= torque

    The default torque is 1.36 m g ℓ: enough to hold the pendulum anywhere, not to stop it anywhere.

    Args:
      torque: the largest |u|, N m.
      mass: m, kg.
      length: ℓ, m.
      gravity: g, m/s².
      friction: b, N m s.
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with two states, one input and input bounds.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      None in the paper, whose inputs are unbounded; the constants are those of its pendulum.

    Examples:
      >>> import lyapjax as ly
      >>> ly.systems.saturated_pendulum().input_bounds
      ((-1.0,), (1.0,))
    """
    torque, *numbers = positive_numbers(
        torque=torque, mass=mass, length=length, gravity=gravity, friction=friction, radius=radius
    )
    return _pendulum(*numbers, torque)


@functools.cache
def _path_following(speed, wheelbase, curvature, radius, steering, form):
    # θ̇ = slip (tan(steering angle)/wheelbase) - carry cosθ/(1 - κ d); feed-forward tangent `ahead`.
    carry = speed * curvature if form == "kinematic" else curvature
    ahead = wheelbase * curvature if form == "kinematic" else wheelbase * curvature / speed

    def f(x: Array, u: Array) -> Array:
        d, angle = x[0], x[1]
        turn = jnp.tan(u[0])
        # tan(arctan(ahead) + u), by the addition theorem: exactly `ahead` at u = 0.
        tangent = (ahead + turn) / (1 - ahead * turn)
        road = carry * jnp.cos(angle) / (1 - curvature * d)
        return jnp.stack([speed * jnp.sin(angle), speed / wheelbase * tangent - road])

    bounds = None if steering is None else ((-steering,), (steering,))
    return System(
        f,
        2,
        1,
        domain=radius,
        input_bounds=bounds,
        name=f"path_following_{form}",
        state_names=("distance", "angle"),
        state_units=("m", "rad"),
        control_names=("steering beyond the feed-forward",),
        control_units=("rad",),
    )


def path_following(
    speed: float = 6.0,
    wheelbase: float = 1.0,
    curvature: float = 1.0,
    radius: float = 0.8,
    steering: float = 0.7,
    *,
    form: str = "kinematic",
) -> System:
    """A car on a circular path: the kinematic bicycle in coordinates of the path.

        ḋ = v sin θ,        θ̇ = v tan(δ)/L - v κ cos θ/(1 - κ d),        δ = arctan(L κ) + u

    State (d, θ): distance from the path and heading error. The input u is the steering angle beyond
    the feed-forward, which the origin needs to be an equilibrium; bounds keep δ away from the poles
    of the tangent. In the code, tan δ is written out by the addition theorem, so that f(0, 0) = 0
    exactly.

    Args:
      speed: v, m/s.
      wheelbase: L, m.
      curvature: κ of the path, 1/m; a unit circle by default.
      radius: of the domain, ‖x‖ <= radius; less than 1/κ.
      steering: the largest |u|, rad.
      form: "kinematic", as above; "published", the paper's own code, which drops a factor v:
        θ̇ = v tan(δ)/L - κ cos θ/(1 - κ d), δ = arctan(L κ/v) + u.

    Returns:
      `System` with two states, one input and input bounds.

    Raises:
      ValueError: a constant that is not positive, a domain that holds the pole d = 1/κ, steering
        that reaches a pole of the tangent, an unknown form.

    Reference:
      Chang, Roohi & Gao, Wheeled vehicle path following. Departure: the appendix prints ḋ in the
      denominator, the published code drops a factor v (ERRATA); both lack the feed-forward.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> system = ly.systems.path_following()
      >>> system.f(jnp.zeros(2), jnp.zeros(1)).tolist()
      [0.0, 0.0]
    """
    if form not in ("kinematic", "published"):
        raise ValueError(f"form: expected 'kinematic' or 'published', got {form!r}")
    numbers = positive_numbers(
        speed=speed, wheelbase=wheelbase, curvature=curvature, radius=radius, steering=steering
    )
    speed, wheelbase, curvature, radius, steering = numbers
    if radius * curvature >= 1:
        raise ValueError(
            f"radius: expected less than 1/curvature = {1 / curvature:g}, where the model has a "
            f"pole, got {radius}"
        )
    ahead = wheelbase * curvature / (1 if form == "kinematic" else speed)
    most = float(jnp.pi / 2 - jnp.arctan(ahead))
    if steering >= most:
        raise ValueError(
            f"steering: expected less than {most:.6g}, where the steering angle reaches a right "
            f"angle, got {steering}"
        )
    return _path_following(speed, wheelbase, curvature, radius, steering, form)


@functools.cache
def _van_der_pol(mu, width, height):
    def f(x: Array, u: Array) -> Array:
        return jnp.stack([-x[1], x[0] - mu * (1 - x[0] ** 2) * x[1]])

    return System(f, 2, 0, domain=Box((-width, -height), (width, height)), name="van_der_pol")


def van_der_pol(mu: float = 1.0, width: float = 2.5, height: float = 3.0) -> System:
    """The Van der Pol oscillator in reversed time, without input.

        ẋ1 = -x2,        ẋ2 = x1 - μ (1 - x1²) x2

    The origin attracts what lies inside the limit cycle, which |x1| <= 2.01, |x2| <= 2.68 holds for
    μ = 1: the largest region of attraction is known, with area 13.72.

    Args:
      mu: μ.
      width: the domain is |x1| <= width,
      height: |x2| <= height.

    Returns:
      `System` with two states and no input.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Van der Pol (1926); a standard test of Lyapunov functions, not one of the paper's examples.

    Examples:
      >>> import lyapjax as ly
      >>> ly.systems.van_der_pol().linearisation()[0][1].tolist()
      [1.0, -1.0]
    """
    return _van_der_pol(*positive_numbers(mu=mu, width=width, height=height))


@functools.cache
def _double_integrator(radius):
    def f(x: Array, u: Array) -> Array:
        return jnp.stack([x[1], u[0]])

    return System(
        f,
        2,
        1,
        domain=radius,
        name="double_integrator",
        state_names=("position", "velocity"),
        state_units=("m", "m/s"),
        control_names=("acceleration",),
        control_units=("m/s²",),
    )


def double_integrator(radius: float = 1.0) -> System:
    """A mass on a line, pushed: linear, with LQR in closed form.

        ẍ = u,        Q = I, R = 1:  P = [[√3, 1], [1, √3]],  K = (-1, -√3)

    Args:
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with two states and one input.

    Raises:
      ValueError: `radius` not positive.

    Reference:
      Any textbook on optimal control.

    Examples:
      >>> import lyapjax as ly
      >>> ly.lqr(ly.systems.double_integrator()).K.round(6).tolist()
      [[-1.0, -1.732051]]
    """
    return _double_integrator(*positive_numbers(radius=radius))
