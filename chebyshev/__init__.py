"""Bounded-error estimation: the relaxed Chebyshev centre, solved fast and certified.

Describe what is known of the parameter with sets (`noise_ball`, `box`, … combined with `&`), call
`rcc` for the estimate and a radius, `certify` for a proof of both.

    sets            Ellipsoids
    constructors    noise_ball, box, slab, simplex_like, norm_ball, ellipsoid, ellipsoids
    geometry        the constraints as the solver sees them
    interior_point  the primal–dual method, with implicit derivatives
    relaxation      rcc
    certificate     certify: a rigorous enclosure in ball arithmetic, or a second opinion by CVXPY
    baselines       ls, tikhonov, rls, cls
    problems        heat, blur and others from the literature
"""

from chebyshev import problems
from chebyshev.baselines import Estimate, cls, ls, rls, tikhonov
from chebyshev.certificate import Certificate, certify
from chebyshev.constructors import (
    box,
    ellipsoid,
    ellipsoids,
    noise_ball,
    norm_ball,
    simplex_like,
    slab,
)
from chebyshev.feasibility import Feasibility, feasibility
from chebyshev.interior_point import Status
from chebyshev.relaxation import Solution, rcc
from chebyshev.sets import Ellipsoids

__all__ = [
    "Certificate",
    "Ellipsoids",
    "Estimate",
    "Feasibility",
    "Solution",
    "Status",
    "box",
    "certify",
    "cls",
    "ellipsoid",
    "ellipsoids",
    "feasibility",
    "ls",
    "noise_ball",
    "norm_ball",
    "problems",
    "rcc",
    "rls",
    "simplex_like",
    "slab",
    "tikhonov",
]
