"""Is the set empty or unbounded, and which constraints make it so?

The least t for which all f_i(x) <= t s_i, s_i the scale of each constraint, is positive exactly if
the set is empty. Its multipliers α >= 0 then have inf_x Σ α_i f_i(x) > 0, which no point of the set
could bear: they prove emptiness, and only constraints in conflict have any.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from chebyshev.balls import is_inside, proved_infimum
from chebyshev.geometry import Geometry, frame, scaled, smallest_eigenvalue
from chebyshev.interior_point import Status
from chebyshev.sets import Ellipsoids

UNDECIDED = 1e-8  # margins below this are the solver's tolerance, unless they are proved


class Feasibility(NamedTuple):
    """What `feasibility` finds about a set.

        margin = min_x max_i f_i(x) / scale_i

    Attributes:
      status: CONVERGED if the set has an interior and is bounded, else EMPTY or UNBOUNDED; STALLED
        if it is so close to a point that neither can be told.
      constraints: names of the constraints in conflict, for an empty set.
      margin: how far every constraint would have to be loosened (if positive) or could be tightened
        (if negative), relative to its squared radius; nan if the set is unbounded.
      x: a point that attains the margin; for an unbounded set a direction that nothing bounds.
      proved: whether it was proved in ball arithmetic: that the set is empty, or that x is inside.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> ball = chebyshev.norm_ball(jnp.eye(2), 1.0, jnp.array([4.0, 0.5]))
      >>> found = chebyshev.feasibility(ball & chebyshev.box(jnp.zeros(2), jnp.ones(2)))
      >>> found.status.name, found.constraints, found.proved
      ('EMPTY', ('norm_ball', 'box[0]'), True)
    """

    status: Status
    constraints: tuple[str, ...]
    margin: float
    x: np.ndarray
    proved: bool


def _loosest(sets: Ellipsoids, solver: str) -> tuple[float, np.ndarray, np.ndarray]:
    """t, x and the multipliers of: minimise t subject to f_i(x) <= t scale_i."""
    import cvxpy as cp

    x, t = cp.Variable(sets.dim), cp.Variable()
    constraints = []
    for i, (F, target) in enumerate(zip(sets.factors, sets.targets)):
        scale = float(sets.scale[i])
        square = cp.sum_squares((np.asarray(F) @ x - np.asarray(target)) / np.sqrt(scale))
        linear = 2 * np.asarray(sets.linear[i]) @ x + float(sets.constant[i])
        constraints.append(square + linear / scale <= t)
    V = np.concatenate([np.eye(sets.dim)[list(sets.coordinates)], np.asarray(sets.normals)])
    lo = np.concatenate([sets.lo, sets.slab_lo])
    hi = np.concatenate([sets.hi, sets.slab_hi])
    if len(V):
        half, middle = (hi - lo) / 2, (hi + lo) / 2
        constraints.append(cp.square((V @ x - middle) / half) - 1 <= t)
    problem = cp.Problem(cp.Minimize(t), constraints)
    problem.solve(solver=solver)
    if t.value is None:
        raise ValueError(f"sets: {solver} found no least margin, it ended {problem.status}")
    alpha = np.concatenate([np.atleast_1d(c.dual_value) for c in constraints])
    return float(t.value), np.asarray(x.value), alpha


def feasibility(sets: Ellipsoids, *, solver: str = "CLARABEL") -> Feasibility:
    """Whether a set is empty or unbounded, and by which constraints.

        minimise t    subject to    f_i(x) <= t scale_i

    Runs on the host, by CVXPY; emptiness is then proved in ball arithmetic from the multipliers,
    an inner point by its values. What is called unbounded is the relaxation: a direction that no
    Q_i sees.

    Args:
      sets: the set, concrete.
      solver: the conic solver that CVXPY uses.

    Returns:
      `Feasibility`.

    Raises:
      ValueError: not `Ellipsoids`; a problem that the solver gives up.

    Reference:
      Boyd & Vandenberghe, Convex Optimization, sections 11.4 and 5.8 (theorems of alternatives).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> found = chebyshev.feasibility(chebyshev.slab(jnp.array([1.0, 0.0]), -1.0, 1.0))
      >>> found.status.name, abs(found.x).round(6).tolist()
      ('UNBOUNDED', [0.0, 1.0])
    """
    if not isinstance(sets, Ellipsoids):
        raise ValueError(f"sets: expected Ellipsoids, got {type(sets).__name__}")
    # Measured from the middle in units of the size, for the solver alone: moving rounds, so what is
    # proved is proved of the sets as they were given.
    origin, unit = frame(sets)
    problem = scaled(sets)
    margin, z, alpha = _loosest(sets.moved(origin, unit), solver)
    x = np.asarray(origin + unit * z)
    alpha = np.maximum(alpha, 0)
    if margin > 0:
        conflict = alpha > 1e-5 * alpha.max()
        names = tuple(name for name, bad in zip(sets.names, conflict) if bad)
        proved = proved_infimum(sets, alpha / np.asarray(problem.scale), x) > 0
        if proved or margin > UNDECIDED:
            return Feasibility(Status.EMPTY, names, margin, sets.from_real(x), proved)
    total = Geometry(problem, sets.coordinates).combine(jnp.ones(len(sets.names)))
    if not smallest_eigenvalue(total)[1]:
        direction = sets.from_real(np.linalg.eigh(np.asarray(total))[1][:, 0])
        return Feasibility(Status.UNBOUNDED, (), float("nan"), direction, False)
    inside = is_inside(sets, x)
    status = Status.CONVERGED if inside else Status.STALLED
    return Feasibility(status, (), margin, sets.from_real(x), inside)
