"""Controllers with neural Lyapunov functions, proved stable.

Write f(x, u) once, as a `System`; learn a controller and a Lyapunov function; prove that every
trajectory from a level set converges; keep the proof in a file that anyone can check.

    domains         Ball, Box
    system          System
    systems         pendulum, path following, Van der Pol and others
    lqr             lqr: the linear regulator and its quadratic Lyapunov function
    conditions      lie_derivative, lyapunov_risk
"""

from lyapjax import systems
from lyapjax.conditions import lie_derivative, lyapunov_risk
from lyapjax.domains import Ball, Box
from lyapjax.lqr import Regulator, lqr
from lyapjax.system import System

__all__ = [
    "Ball",
    "Box",
    "Regulator",
    "System",
    "lie_derivative",
    "lqr",
    "lyapunov_risk",
    "systems",
]
