"""`rcc`: the relaxed Chebyshev centre of a set, by `chebyshev.interior_point`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from chebyshev.geometry import Geometry, Scaled, scaled
from chebyshev.interior_point import RUNNING, Status, dual_point, optimum
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
      gap: () |value - primal| / (1 + |value|).
      infeasibility: () largest violation of (15) by (W, primal_x), in units of each scale.
      W: (dim, dim) = Δ - xx' of the last iterate, over (Re x, Im x) for complex data.
      primal_x: (dim,) x of the last iterate, likewise.
      status: () int32, a `Status`.
      num_steps: () int32.

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


@partial(jax.jit, static_argnames=("coordinates", "rtol", "max_steps"))
def solve_scaled(problem: Scaled, coordinates, rtol: float, max_steps: int) -> Solution:
    """`rcc` for constraints in units of their scales."""
    point = optimum(problem, coordinates, rtol, max_steps)
    geometry = Geometry(problem, coordinates)
    W, alpha = point.W, point.alpha
    x, value = dual_point(geometry, alpha)
    primal = jnp.trace(W)
    status = jnp.where(point.status == RUNNING, Status.MAX_STEPS, point.status)
    failed = (status == Status.EMPTY) | (status == Status.UNBOUNDED) | ~jnp.isfinite(value)
    status = jnp.where(failed & (status <= Status.STALLED), Status.FAILED, status)
    value = jnp.where(failed, jnp.where(status == Status.UNBOUNDED, jnp.inf, jnp.nan), value)
    return Solution(
        jnp.where(failed, jnp.nan, x),
        alpha / problem.scale,
        value,
        jnp.sqrt(value),
        primal,
        jnp.abs(value - primal) / (1 + jnp.abs(value)),
        jnp.max(geometry.inner(W) + geometry.values(point.x)),
        W,
        point.x,
        status.astype(jnp.int32),
        point.num_steps,
    )


def rcc(sets: Ellipsoids, *, rtol: float = 1e-9, max_steps: int = 60) -> Solution:
    """The relaxed Chebyshev centre of an intersection of ellipsoids.

        x = -(Σ α_i Q_i)⁻¹ Σ α_i g_i,        every admissible x' has ‖x' - x‖ <= radius

    with α the solution of (17). One solve takes a fraction of a second up to some 300 unknowns.
    Batches by `jax.vmap` over sets of one shape; derivatives of x, alpha, value and radius with
    respect to every number in the sets, by implicit differentiation of the optimality conditions.

    Args:
      sets: the admissible set, bounded and with an interior.
      rtol: relative gap (and infeasibility, in units of each scale) to stop at.
      max_steps: most interior-point steps; 15 to 25 are usual.

    Returns:
      `Solution`. An empty or unbounded set is a status, EMPTY or UNBOUNDED, with x NaN.

    Raises:
      ValueError: `rtol` or `max_steps` not positive; float64 is switched off.

    Reference:
      Eldar, Beck & Teboulle, (15) to (17). Departure: theirs is a general semidefinite solver; the
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
    if not rtol > 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol!r}")
    if max_steps < 1:
        raise ValueError(f"max_steps: expected at least 1, got {max_steps!r}")
    solution = solve_scaled(scaled(sets), sets.coordinates, float(rtol), int(max_steps))
    return solution._replace(x=sets.from_real(solution.x))
