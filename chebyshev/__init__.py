"""Bounded-error estimation: the relaxed Chebyshev centre, solved fast and certified.

Describe what is known of the parameter with sets (`noise_ball`, `box`, … combined with `&`), call
`rcc` for the estimate and a radius, `certify` for a proof of both.

    sets            Ellipsoids
    constructors    noise_ball, box, slab, simplex_like, norm_ball, ellipsoid, ellipsoids
    geometry        the constraints as the solver sees them
    interior_point  the primal–dual method, with implicit derivatives
    cuts            products of linear constraints, for rcc(..., cuts="rlt")
    relaxation      rcc
    matrix_free     rcc_matrix_free: one noise ball and a box, for thousands of unknowns
    large_certificate  certified_radius: its proof, in floating point with bounded errors
    balls           the constraints in ball arithmetic
    certificate     certify: a rigorous enclosure, or a second opinion by CVXPY
    feasibility     which constraints make a set empty, which direction is unbounded
    exact           chebyshev_center_exact, where it can be had
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
from chebyshev.exact import ExactCenter, chebyshev_center_exact
from chebyshev.feasibility import Feasibility, feasibility
from chebyshev.interior_point import Status
from chebyshev.large_certificate import certified_radius
from chebyshev.matrix_free import LargeSolution, rcc_matrix_free
from chebyshev.relaxation import Solution, rcc
from chebyshev.sets import Ellipsoids

__all__ = [
    "Certificate",
    "Ellipsoids",
    "Estimate",
    "ExactCenter",
    "Feasibility",
    "LargeSolution",
    "Solution",
    "Status",
    "box",
    "certified_radius",
    "certify",
    "chebyshev_center_exact",
    "cls",
    "ellipsoid",
    "ellipsoids",
    "feasibility",
    "ls",
    "noise_ball",
    "norm_ball",
    "problems",
    "rcc",
    "rcc_matrix_free",
    "rls",
    "simplex_like",
    "slab",
    "tikhonov",
]
