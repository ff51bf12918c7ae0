"""Systems: what a proof is about, and those of the literature, ready to use.

domains         Ball, Box
system          System: f(x, u), its equilibrium and its domain
elimination     solve: a mass matrix on the left of the equations
plane           systems of two states
mechanics       poles on carts and on each other
vehicles        a fan, quadrotors and a jet that hover
"""

from lyapjax.systems.elimination import solve
from lyapjax.systems.mechanics import cart_pole, n_link
from lyapjax.systems.plane import (
    double_integrator,
    inverted_pendulum,
    path_following,
    saturated_pendulum,
    van_der_pol,
)
from lyapjax.systems.vehicles import ducted_fan, planar_quadrotor, planar_vtol, quadrotor

__all__ = [
    "cart_pole",
    "double_integrator",
    "ducted_fan",
    "inverted_pendulum",
    "n_link",
    "path_following",
    "planar_quadrotor",
    "planar_vtol",
    "quadrotor",
    "saturated_pendulum",
    "solve",
    "van_der_pol",
]
