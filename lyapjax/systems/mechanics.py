"""Poles that want to fall: n links balanced one on the other, and a pole on a cart.

The equations of n links have a mass matrix on their left, which depends on the angles: `solve`.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from lyapjax.systems.domains import positive_numbers, real_tuple
from lyapjax.systems.elimination import solve
from lyapjax.systems.system import System


@functools.cache
def _n_link(masses, lengths, centres, inertias, gravity, radius):
    n = len(masses)
    a, b = np.zeros((n, n)), np.zeros(n)
    for i in range(n):
        above = sum(masses[i + 1 :])
        a[i, i] = inertias[i] + masses[i] * centres[i] ** 2 + lengths[i] ** 2 * above
        b[i] = (masses[i] * centres[i] + lengths[i] * above) * gravity
        for j in range(i + 1, n):
            above = sum(masses[j + 1 :])
            a[i, j] = masses[j] * lengths[i] * centres[j] + lengths[i] * lengths[j] * above
            a[j, i] = a[i, j]

    def f(x: Array, u: Array) -> Array:
        theta, omega = [x[i] for i in range(n)], [x[n + i] for i in range(n)]
        between = {(i, j): theta[j] - theta[i] for i in range(n) for j in range(i + 1, n)}
        M: list[list] = [[jnp.asarray(a[i, i])] * n for i in range(n)]
        force = [u[i] + b[i] * jnp.sin(theta[i]) for i in range(n)]
        for (i, j), angle in between.items():
            M[i][j] = M[j][i] = a[i, j] * jnp.cos(angle)
            pull = a[i, j] * jnp.sin(angle)
            force[i] = force[i] + pull * jnp.square(omega[j])
            force[j] = force[j] - pull * jnp.square(omega[i])
        mass = jnp.stack([jnp.stack(row) for row in M])
        return jnp.concatenate([jnp.stack(omega), solve(mass, jnp.stack(force))])

    angles = tuple(f"angle {i + 1}" for i in range(n))
    return System(
        f,
        2 * n,
        n,
        domain=radius,
        name=f"n_link_{n}",
        state_names=(*angles, *(f"angular velocity {i + 1}" for i in range(n))),
        state_units=("rad",) * n + ("rad/s",) * n,
        control_names=tuple(f"torque {i + 1}" for i in range(n)),
        control_units=("N m",) * n,
    )


def n_link(
    links: int = 3,
    masses: Sequence[float] | None = None,
    lengths: Sequence[float] | None = None,
    centres: Sequence[float] | None = None,
    inertias: Sequence[float] | None = None,
    gravity: float = 9.81,
    radius: float = 3.0,
) -> System:
    """n links balanced upright, the paper's humanoid, with a torque on each.

        M(θ) θ̈ + C(θ, θ̇) θ̇ + τ(θ) = u
        M = [a_ij cos(θj - θi)],    C = [-a_ij θ̇j sin(θj - θi)],    τ_i = -b_i sin θ_i
        a_ii = I_i + m_i c_i² + ℓ_i² Σ_{k>i} m_k,    b_i = (m_i c_i + ℓ_i Σ_{k>i} m_k) g
        a_ij = m_j ℓ_i c_j + ℓ_i ℓ_j Σ_{k>j} m_k     for i < j

    State (θ1, …, θn, θ̇1, …, θ̇n), angles from the vertical; u_i is the torque that does its work on
    θ_i.

    Args:
      links: n, the number of links.
      masses: m_i, kg; all 1 by default.
      lengths: ℓ_i, m; all 1 by default.
      centres: c_i, from the lower joint of link i to its centre of mass, m; ℓ_i/2 by default.
      inertias: I_i about the centre of mass, kg m²; those of thin rods, m_i ℓ_i²/12, by default.
      gravity: g, m/s².
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with 2n states and n inputs.

    Raises:
      ValueError: no link, a constant that is not positive, a wrong number of them.

    Reference:
      Chang, Roohi & Gao, Humanoid balancing. Departure: masses and lengths are not published; the
      defaults are ours (ERRATA).

    Examples:
      >>> import lyapjax as ly
      >>> system = ly.systems.n_link(2)
      >>> system.state_dim, system.state_names[1]
      (4, 'angle 2')
      >>> system.linearisation()[1][2:].round(3).tolist()  # the inverse of M(0)
      [[1.714, -2.571], [-2.571, 6.857]]
    """
    if isinstance(links, bool) or not isinstance(links, int) or links < 1:
        raise ValueError(f"links: expected an integer of at least 1, got {links!r}")
    gravity, radius = positive_numbers(gravity=gravity, radius=radius)
    masses = _each("masses", masses, [1.0] * links)
    lengths = _each("lengths", lengths, [1.0] * links)
    centres = _each("centres", centres, [length / 2 for length in lengths])
    rods = [m * length**2 / 12 for m, length in zip(masses, lengths)]
    inertias = _each("inertias", inertias, rods)
    return _n_link(masses, lengths, centres, inertias, gravity, radius)


def _each(name: str, values, default: list[float]) -> tuple[float, ...]:
    """A positive number for each link."""
    found = real_tuple(name, default if values is None else values, len(default))
    positive_numbers(**{f"{name}[{i}]": value for i, value in enumerate(found)})
    return found


@functools.cache
def _cart_pole(cart, pole, half_length, gravity, radius):
    total = cart + pole

    def f(x: Array, u: Array) -> Array:
        _, theta, v, omega = (x[i] for i in range(4))
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        push = (u[0] + pole * half_length * jnp.square(omega) * sin) / total
        inertia = half_length * (4.0 / 3.0 - pole / total * jnp.square(cos))
        turn = (gravity * sin - cos * push) / inertia
        return jnp.stack([v, omega, push - pole * half_length / total * turn * cos, turn])

    return System(
        f,
        4,
        1,
        domain=radius,
        name="cart_pole",
        state_names=("position", "angle", "velocity", "angular velocity"),
        state_units=("m", "rad", "m/s", "rad/s"),
        control_names=("force",),
        control_units=("N",),
    )


def cart_pole(
    cart: float = 1.0,
    pole: float = 0.1,
    half_length: float = 0.5,
    gravity: float = 9.8,
    radius: float = 5.0,
) -> System:
    """A pole on a cart that is pushed; no friction.

        p = (u + m ℓ θ̇² sin θ) / (M + m)
        θ̈ = (g sin θ - p cos θ) / (ℓ (4/3 - m cos²θ / (M + m)))
        ẍ = p - m ℓ θ̈ cos θ / (M + m)

    State (x, θ, ẋ, θ̇), θ from the upright position; input the force on the cart.

    Args:
      cart: M, kg.
      pole: m, kg, of a uniform rod.
      half_length: ℓ, m.
      gravity: g, m/s².
      radius: of the domain, ‖x‖ <= radius.

    Returns:
      `System` with four states and one input.

    Raises:
      ValueError: a constant that is not positive.

    Reference:
      Barto, Sutton & Anderson (1983), constants; Florian (2007), Correct equations for the dynamics
      of the cart-pole system, (23) and (24) without friction.

    Examples:
      >>> import lyapjax as ly
      >>> ly.systems.cart_pole().linearisation()[1].round(3).ravel().tolist()
      [0.0, 0.0, 0.976, -1.463]
    """
    numbers = positive_numbers(
        cart=cart, pole=pole, half_length=half_length, gravity=gravity, radius=radius
    )
    return _cart_pole(*numbers)
