"""`rcc`: the relaxed Chebyshev centre of a set, by `chebyshev.interior_point`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from chebyshev.cuts import replace_idle, violations, with_cuts
from chebyshev.geometry import Geometry, Scaled, frame, scaled
from chebyshev.interior_point import RUNNING, Status, dual_point, optimum, relative_gap
from chebyshev.sets import Ellipsoids


class Solution(NamedTuple):
    """The relaxed Chebyshev centre.

        every admissible x lies within `radius` of `x`

    Attributes:
      x: (m,) the estimate (16), complex if the data are.
      alpha: (k,) the multipliers of (17), of the constraints in their own units.
      value: () the squared radius: the dual value (17).
      radius: () its square root.
      primal: () tr W of the last iterate, the primal value (15) up to its infeasibility.
      gap: () |value - primal| / value.
      infeasibility: () largest violation of (15) by (W, primal_x), in units of each scale.
      W: (dim, dim) = Δ - xx' of the last iterate, over (Re x, Im x) for complex data.
      primal_x: (dim,) x of the last iterate, likewise.
      status: () int32, a `Status`.
      num_steps: () int32.
      cuts: (c, 2) int32, the products that were added, see `chebyshev.cuts`; their multipliers are
        the last c of alpha.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> s = chebyshev.rcc(chebyshev.box(jnp.zeros(2), jnp.array([2.0, 4.0])))
      >>> s.x.round(6).tolist(), round(float(s.value), 6)
      ([1.0, 2.0], 5.0)
    """

    x: Array
    alpha: Array
    value: Array
    radius: Array
    primal: Array
    gap: Array
    infeasibility: Array
    W: Array
    primal_x: Array
    status: Array
    num_steps: Array
    cuts: Array


def _solve_scaled(problem: Scaled, coordinates, cuts: Array, rtol, max_steps) -> Solution:
    """The solution for constraints in units of their scales, with those cuts."""
    problem = with_cuts(problem, coordinates, cuts)
    point = optimum(problem, coordinates, rtol, max_steps)
    geometry = Geometry(problem, coordinates)
    W, alpha = point.W, point.alpha
    x, value = dual_point(geometry, alpha)
    primal = jnp.trace(W)
    status = jnp.where(point.status == RUNNING, Status.MAX_STEPS, point.status)
    empty = (status == Status.EMPTY) | (status == Status.UNBOUNDED)
    # A value below zero by rounding alone: a point, or nearly.
    failed = empty | ~jnp.isfinite(value) | (value < 0)
    status = jnp.where(failed & ~empty & (value < 0), Status.STALLED, status)
    status = jnp.where(failed & (status < Status.STALLED), Status.FAILED, status)
    value = jnp.where(failed, jnp.where(status == Status.UNBOUNDED, jnp.inf, jnp.nan), value)
    return Solution(
        jnp.where(failed, jnp.nan, x),
        alpha / problem.scale,
        value,
        jnp.sqrt(value),
        primal,
        relative_gap(value, primal),
        jnp.max(geometry.inner(W) + geometry.values(point.x)),
        W,
        point.x,
        status.astype(jnp.int32),
        point.num_steps,
        cuts,
    )


@partial(jax.jit, static_argnames=("rtol", "max_steps"))
def solve_sets(
    sets: Ellipsoids, cuts: Array, rtol: float, max_steps: int, tightening=0.0
) -> Solution:
    """`rcc` with those cuts, over R^dim; every f_i raised by `tightening` in units of its scale."""
    origin, unit = frame(sets)
    problem = scaled(sets.moved(origin, unit))
    problem = problem._replace(d=problem.d + tightening)
    s = _solve_scaled(problem, sets.coordinates, cuts, rtol, max_steps)
    area = unit**2
    # A box or slab is a square of a length and is in z what it is in x but for `area`; quadratics
    # and cuts have the same values in both.
    p, k = len(sets.factors), len(sets.names)
    places = jnp.arange(s.alpha.shape[0])
    weight = jnp.where((places >= p) & (places < k), 1.0, area)
    return s._replace(
        x=origin + unit * s.x,
        alpha=weight * s.alpha,
        value=area * s.value,
        radius=unit * s.radius,
        primal=area * s.primal,
        W=area * s.W,
        primal_x=origin + unit * s.primal_x,
    )


NO_CUTS = np.zeros((0, 2), np.int32)
CUT_VIOLATION = 1e-6  # in units of half widths: products violated by less are left out
CUT_RTOL = 1e-6  # gap at which the rounds that only choose cuts may stop


@partial(jax.jit, static_argnames=("num_cuts", "max_rounds", "rtol", "max_steps"))
def _choose_cuts(sets: Ellipsoids, num_cuts, max_rounds, rtol, max_steps) -> Array:
    """Cuts that are violated without them, added round after round."""
    sets = jax.tree.map(lax.stop_gradient, sets)
    problem, coordinates = scaled(sets.moved(*frame(sets))), sets.coordinates

    def another(state):
        _, placed, num_rounds = state
        return (placed > 0) & (num_rounds < max_rounds)

    def improve(state):
        cuts, _, num_rounds = state
        s = _solve_scaled(problem, coordinates, cuts, rtol, max_steps)
        violation = violations(problem, coordinates, s.W, s.primal_x)
        new, placed = replace_idle(cuts, s.alpha[problem.d.shape[0] :], violation, CUT_VIOLATION)
        usable = jnp.isfinite(s.value)
        return jnp.where(usable, new, cuts), jnp.where(usable, placed, 0), num_rounds + 1

    none = jnp.full((num_cuts, 2), -1, jnp.int32)
    return lax.while_loop(another, improve, (none, jnp.asarray(1), 0))[0]


def rcc(
    sets: Ellipsoids,
    *,
    cuts: str | None = None,
    num_cuts: int = 128,
    max_rounds: int = 10,
    rtol: float | None = None,
    max_steps: int = 60,
) -> Solution:
    """The relaxed Chebyshev centre of an intersection of ellipsoids.

        x = -(Σ α_i Q_i)⁻¹ Σ α_i g_i,        every admissible x' has ‖x' - x‖ <= radius

    with α the solution of (17). One solve takes a fraction of a second up to some 300 unknowns.
    Batches by `jax.vmap` over sets of one shape; derivatives of x, alpha, value and radius with
    respect to every number in the sets, by implicit differentiation of the optimality conditions.

    With `cuts="rlt"` products of the linear constraints (sides of boxes and slabs) tighten the
    relaxation: the radius never grows (beyond rtol) and often shrinks much, at the price of some
    ten solves. A smaller radius is a better guarantee; the error at one given truth may still grow.

    Args:
      sets: the admissible set, bounded and with an interior.
      cuts: None or "rlt".
      num_cuts: most products in use at a time.
      max_rounds: most rounds of adding products.
      rtol: relative gap (and infeasibility, in units of each scale) to stop at; by default 1e-9,
        and 1e-8 with cuts, which make the problem degenerate.
      max_steps: most interior-point steps; 15 to 25 are usual.

    Returns:
      `Solution`. An empty or unbounded set is a status, EMPTY or UNBOUNDED, with x NaN.

    Raises:
      ValueError: `rtol`, `num_cuts`, `max_rounds` or `max_steps` not positive; unknown `cuts`;
        float64 is switched off.

    Reference:
      Eldar, Beck & Teboulle, (15) to (17); Sherali & Adams, A Reformulation–Linearization Technique
      (1999), for the cuts. Departure: theirs is a general semidefinite solver; the
      multipliers of Theorem 3.1 run from 0 to k.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(2), jnp.ones(2), 1.0)
      >>> s = chebyshev.rcc(sets & chebyshev.box(jnp.zeros(2), jnp.full(2, 3.0)))
      >>> s.x.round(6).tolist(), round(float(s.radius), 6)
      ([1.0, 1.0], 1.0)
    """
    if not isinstance(sets, Ellipsoids):
        raise ValueError(f"sets: expected Ellipsoids, got {type(sets).__name__}")
    if rtol is None:
        rtol = 1e-8 if cuts else 1e-9
    if not rtol > 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol!r}")
    if max_steps < 1:
        raise ValueError(f"max_steps: expected at least 1, got {max_steps!r}")
    if cuts not in (None, "rlt"):
        raise ValueError(f"cuts: expected None or 'rlt', got {cuts!r}")
    for name, number in (("num_cuts", num_cuts), ("max_rounds", max_rounds)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number!r}")
    options = float(rtol), int(max_steps)
    chosen = NO_CUTS
    if cuts and len(sets.coordinates) + len(sets.normals) > 1:
        chosen = _choose_cuts(sets, num_cuts, max_rounds, max(options[0], CUT_RTOL), options[1])
    solution = solve_sets(sets, jnp.asarray(chosen), *options)
    return solution._replace(x=sets.from_real(solution.x))
