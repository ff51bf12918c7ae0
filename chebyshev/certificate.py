"""A rigorous enclosure of the relaxed squared radius, in ball arithmetic.

Nothing of the solver is trusted: a solution is three guesses, α, W and points x, and what follows
from them is computed again in Arb's balls, with every rounding enclosed.

Above: let α >= 0 and S = Σ α_i Q_i ⪰ λ I. For the reported x̃ and r = Σ α_i (Q_i x̃ + g_i), every
admissible x has Σ α_i f_i(x) <= 0, so

    λ ‖x - x̃‖² <= -Σ α_i f_i(x̃) - 2 r'(x - x̃),

and the optimal value of the relaxation is at most (-Σ α_i f_i(x̃) + ‖r‖²/λ) / λ.

Below: any W ⪰ 0 and x with tr(Q_i W) + f_i(x) <= 0 give the value tr W. The solution's own hold
only up to rounding, so they are replaced by those of slightly tightened constraints where need be.
W is written as L L', so that it is positive semidefinite by construction.

S ⪰ λ I is proved with an approximate inverse R of the Cholesky factor of S - λ I: R (S - λ I) R' is
evaluated in balls, and by Gershgorin's circles it is positive definite, hence S - λ I is.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flint import arb, arb_mat, ctx

from chebyshev.balls import BITS, Exact, ball_column, ball_matrix, down, is_positive_definite, up
from chebyshev.cuts import linear_forms
from chebyshev.geometry import scaled
from chebyshev.relaxation import Solution, solve_sets
from chebyshev.sets import Ellipsoids

MARGINS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1)


class Certificate(NamedTuple):
    """What is proved about the relaxed Chebyshev centre.

        lower <= optimal value of (15) and (17) <= upper,        ‖x' - x‖ <= radius

    for every admissible x' and the estimate x of the solution.

    Attributes:
      lower: proved lower bound of the relaxed squared radius; 0 if none could be proved.
      upper: proved upper bound; inf if none could be proved.
      radius: proved radius of a ball around the estimate that holds the whole set.
      gap: (upper - lower) / upper.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.box(jnp.zeros(2), jnp.array([2.0, 4.0]))
      >>> c = chebyshev.certify(sets, chebyshev.rcc(sets))
      >>> c.lower <= 5 <= c.upper, c.gap < 1e-8
      (True, True)
    """

    lower: float
    upper: float
    radius: float
    gap: float


def _upper(exact: Exact, alpha: np.ndarray, x: arb_mat) -> tuple[float, float]:
    """Proved upper bounds of the value and of the radius around x."""
    total = exact.combine(alpha)
    identity = arb_mat(exact.m, exact.m)
    for i in range(exact.m):
        identity[i, i] = 1
    for margin in MARGINS:
        bound = arb(1) - arb(margin)
        if is_positive_definite(total - identity * bound):
            break
    else:
        return float("inf"), float("inf")
    values, gradients = exact.values_and_gradients(x)
    weights = [arb(float(a)) for a in alpha]
    value = -sum((a * f for a, f in zip(weights, values)), arb(0))
    r = arb_mat(exact.m, 1)
    for a, gradient in zip(weights, gradients):
        r += gradient * a
    norm = (r.transpose() * r)[0, 0].sqrt()
    # λ t² <= value + 2 ‖r‖ t for t = ‖x' - x‖.
    under = (norm * norm + bound * value).max(arb(0))
    radius = (norm + under.sqrt()) / bound
    return up((value + norm * norm / bound) / bound), up(radius)


def _value_if_feasible(exact: Exact, W: np.ndarray, x: np.ndarray) -> float:
    """tr W, rounded down, if (W, x) is proved feasible; else 0."""
    # L L' is positive semidefinite by construction, and within rounding of W.
    eigenvalues, vectors = scipy.linalg.eigh(W)
    L = ball_matrix(vectors * np.sqrt(np.maximum(eigenvalues, 0)))
    values, _ = exact.values_and_gradients(ball_column(x))
    if not all(trace + value <= 0 for trace, value in zip(exact.traces_of_square(L), values)):
        return 0.0
    return max(down(sum((v * v for v in L.entries()), arb(0))), 0.0)


def _tightened(sets: Ellipsoids, solution: Solution, tightening: float) -> Solution:
    """The optimum with every f_i, cuts too, raised by `tightening` in units of its scale."""
    return solve_sets(sets, solution.cuts, tightening / 3, 60, tightening)


def _lower(sets: Ellipsoids, exact: Exact, solution: Solution) -> float:
    """A proved lower bound of the value."""
    violation = float(solution.infeasibility)
    for tightening in (0.0, 3e-11, 1e-10, 1e-9, 1e-8, 1e-6, 1e-4):
        if tightening == 0 and violation > -1e-15:
            continue
        if tightening > 0:
            # The optimum of slightly smaller sets is inside the given ones, rounding and all.
            solution = _tightened(sets, solution, tightening)
        found = _value_if_feasible(exact, np.asarray(solution.W), np.asarray(solution.primal_x))
        if found:
            return found
    return 0.0


def _compare_with_cvxpy(
    sets: Ellipsoids, solution: Solution, solver: str
) -> tuple[float, np.ndarray]:
    """The value and x of (15) by a general semidefinite solver."""
    import cvxpy as cp

    m = sets.dim
    # Δ - xx' ⪰ 0 as one matrix [[Δ, x], [x', 1]] ⪰ 0.
    block = cp.Variable((m + 1, m + 1), PSD=True)
    delta, x = block[:m, :m], block[:m, m]
    constraints = [block[m, m] == 1]
    for i, (F, t) in enumerate(zip(sets.factors, sets.targets)):
        F, t = np.asarray(F), np.asarray(t)
        g = np.asarray(sets.linear[i]) - F.T @ t
        d = float(sets.constant[i]) + t @ t
        expression = cp.trace(F.T @ F @ delta) + 2 * g @ x + d
        constraints.append(expression / float(sets.scale[i]) <= 0)
    for j, lo, hi in zip(sets.coordinates, sets.lo.tolist(), sets.hi.tolist()):
        constraints.append(delta[j, j] - (lo + hi) * x[j] + lo * hi <= 0)
    for v, lo, hi in zip(sets.normals, sets.slab_lo.tolist(), sets.slab_hi.tolist()):
        v = np.asarray(v)
        expression = cp.trace(np.outer(v, v) @ delta) - (lo + hi) * (v @ x) + lo * hi
        constraints.append(expression / ((hi - lo) / 2) ** 2 <= 0)
    u, b = (np.asarray(v) for v in linear_forms(scaled(sets), sets.coordinates))
    for i, j in np.asarray(solution.cuts)[np.asarray(solution.cuts)[:, 0] >= 0]:
        product = cp.trace(np.outer(u[i], u[j]) @ delta)
        constraints.append(product - (b[i] * u[j] + b[j] * u[i]) @ x + b[i] * b[j] >= 0)
    # tr Δ - ‖x‖² is concave.
    problem = cp.Problem(cp.Maximize(cp.trace(delta) - cp.sum_squares(x)), constraints)
    problem.solve(solver=solver)
    return float(problem.value), sets.from_real(np.asarray(x.value))


def certify(
    sets: Ellipsoids, solution: Solution, *, backend: str = "arb", solver: str = "CLARABEL"
):
    """Prove an enclosure of the relaxed value and a radius, or compare with a general solver.

        lower <= max { tr W : tr(Q_i W) + f_i(x) <= 0, W ⪰ 0 } <= upper

    Runs on the host, outside of `jit`. What is certified is the set as its arrays hold it: factors,
    targets and bounds, each number exact. With cuts, the enclosure is that of the tightened
    relaxation; the products are formed again from the sets, so a wrong cut cannot slip in.

    Args:
      sets: the sets that were solved, concrete.
      solution: what `rcc` returned for them; any other α, W and x will do, with a wider enclosure.
      backend: "arb" proves, in ball arithmetic; "cvxpy" solves (15) again with CVXPY.
      solver: the solver that CVXPY uses: "CLARABEL" or "SCS".

    Returns:
      `Certificate` for "arb"; for "cvxpy" the pair (value, x) of that solver.

    Raises:
      ValueError: an unknown backend; a solution of another dimension or with foreign cuts.

    Reference:
      Rump, Verification methods, Acta Numerica 2010 (positive definiteness); weak duality of (15)
      and (17).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(3), jnp.ones(3), 4.0)
      >>> chebyshev.certify(sets, chebyshev.rcc(sets)).gap < 1e-8
      True
    """
    if backend not in ("arb", "cvxpy"):
        raise ValueError(f"backend: expected 'arb' or 'cvxpy', got {backend!r}")
    k = len(sets.names) + solution.cuts.shape[0]
    m = sets.dim // 2 if sets.is_complex else sets.dim
    if solution.x.shape != (m,) or solution.alpha.shape != (k,):
        raise ValueError(
            f"solution: expected x of shape ({m},) and alpha of shape ({k},), got "
            f"{solution.x.shape} and {solution.alpha.shape}"
        )
    forms = 2 * (len(sets.coordinates) + sets.normals.shape[0])
    cuts = np.asarray(solution.cuts)
    unused = (cuts == -1).all(axis=1)
    if not (unused | ((cuts >= 0) & (cuts < forms)).all(axis=1)).all():
        raise ValueError(
            f"solution: expected cuts to name linear constraints of the sets, below {forms}"
        )
    if backend == "cvxpy":
        return _compare_with_cvxpy(sets, solution, solver)
    numbers = (solution.x, solution.alpha, solution.W, solution.primal_x)
    if not all(bool(jnp.isfinite(v).all()) for v in numbers):
        return Certificate(0.0, float("inf"), float("inf"), float("inf"))
    old = ctx.prec
    ctx.prec = BITS
    try:
        exact = Exact(sets, np.asarray(solution.cuts))
        alpha = np.maximum(np.asarray(solution.alpha), 0)
        upper, radius = _upper(exact, alpha, ball_column(sets.to_real(solution.x)))
        lower = _lower(sets, exact, solution)
    finally:
        ctx.prec = old
    gap = (upper - lower) / upper if 0 < upper < float("inf") else float("inf")
    return Certificate(lower, upper, radius, gap)
