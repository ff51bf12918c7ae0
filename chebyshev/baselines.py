"""What the relaxed Chebyshev centre is compared with: least squares in its variants.

All take the sets that `rcc` takes; the model A and the observations y are those of the noise ball
in it, ‖A x - y‖² <= ρ.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from chebyshev.constructors import noise_ball, norm_ball
from chebyshev.geometry import Geometry, Scaled, scaled
from chebyshev.interior_point import RUNNING, Status, ratio_step
from chebyshev.sets import Ellipsoids, to_real


class Estimate(NamedTuple):
    """An estimate that minimises a data error.

        minimise ‖A x - y‖²

    Attributes:
      x: (m,) the estimate, complex if the data are.
      data_error: () ‖A x - y‖².
      status: () int32, a `Status`.
      num_steps: () int32.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(2), jnp.ones(2), 1.0)
      >>> chebyshev.ls(sets).x.tolist()
      [1.0, 1.0]
    """

    x: Array
    data_error: Array
    status: Array
    num_steps: Array


def _model(sets: Ellipsoids) -> tuple[Array, Array]:
    """A and y."""
    count = sets.names.count("noise_ball")
    if count != 1:
        raise ValueError(f"sets: expected one noise_ball, which holds A and y; there are {count}")
    index = sets.names.index("noise_ball")
    return sets.factors[index], sets.targets[index]


def _direct(sets: Ellipsoids, x: Array) -> Estimate:
    A, y = _model(sets)
    status = jnp.where(jnp.isfinite(x).all(), Status.CONVERGED, Status.FAILED)
    return Estimate(
        sets.from_real(x), jnp.sum((A @ x - y) ** 2), status.astype(jnp.int32), jnp.int32(0)
    )


def ls(sets: Ellipsoids) -> Estimate:
    """Least squares, the constraints ignored.

        minimise ‖A x - y‖²,        of the smallest norm if A is singular

    Args:
      sets: sets with a noise ball.

    Returns:
      `Estimate`.

    Raises:
      ValueError: no noise ball.

    Reference:
      Eldar, Beck & Teboulle, section 4.2. Departure: by the singular value decomposition, so that a
      singular A does no harm beyond its nature.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> chebyshev.ls(chebyshev.noise_ball(2 * jnp.eye(2), jnp.ones(2), 1.0)).x.tolist()
      [0.5, 0.5]
    """
    A, y = _model(sets)
    return _direct(sets, jnp.linalg.lstsq(A, y)[0])


def tikhonov(sets: Ellipsoids, weight, L=None) -> Estimate:
    """Tikhonov's regularisation.

        minimise ‖A x - y‖² + weight ‖L x‖²

    Args:
      sets: sets with a noise ball.
      weight: regularisation parameter, positive.
      L: (r, m) matrix; the identity by default.

    Returns:
      `Estimate`.

    Raises:
      ValueError: no noise ball; `weight` not positive.

    Reference:
      Tikhonov & Arsenin (1977).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(2), jnp.ones(2), 1.0)
      >>> chebyshev.tikhonov(sets, 1.0).x.round(12).tolist()
      [0.5, 0.5]
    """
    A, y = _model(sets)
    if not isinstance(weight, jax.core.Tracer) and not weight > 0:
        raise ValueError(f"weight: expected a positive number, got {weight!r}")
    if L is None:
        L = jnp.eye(sets.dim)
    else:
        L = to_real(jnp.asarray(L) + 0j) if sets.is_complex else jnp.asarray(L)
        if L.ndim != 2 or L.shape[1] != sets.dim or jnp.iscomplexobj(L):
            raise ValueError(f"L: expected a matrix for {sets.names[0]}, got shape {L.shape}")
    # As one least-squares problem: forming A'A would square the condition number.
    stacked = jnp.concatenate([A, jnp.sqrt(weight) * L])
    return _direct(sets, jnp.linalg.lstsq(stacked, jnp.pad(y, (0, L.shape[0])))[0])


class _Iterate(NamedTuple):
    x: Array
    alpha: Array
    s: Array
    status: Array
    step: Array


def _least_squares_step(geometry: Geometry, Q0: Array, g0: Array, rtol, it: _Iterate) -> _Iterate:
    """One predictor–corrector step for min x'Q0 x + 2 g0'x subject to f_i(x) + s_i = 0."""
    x, alpha, s = it.x, it.alpha, it.s
    k = alpha.shape[0]
    G = geometry.gradients(x)
    r_x = Q0 @ x + g0 + alpha @ G
    r_p = geometry.values(x) + s
    mu = alpha @ s / k
    H = Q0 + geometry.combine(alpha) + 2 * (G.T * (alpha / s)) @ G
    scale = 1 / jnp.sqrt(jnp.diagonal(H))
    factor = jnp.linalg.cholesky(scale[:, None] * H * scale + 1e-15 * jnp.eye(x.shape[0]))

    def direction(mu, correction_s, correction_f):
        # 2 G dx + ds = -(r_p + correction_f); α ds + s dα = μ - α s - correction_s.
        target = (mu - alpha * s - correction_s) / s + alpha * (r_p + correction_f) / s
        dx = scale * cho_solve((factor, True), scale * -(r_x + target @ G))
        ds = -(r_p + correction_f) - 2 * G @ dx
        return dx, ds, (mu - alpha * s - correction_s - alpha * ds) / s

    dx, ds, da = direction(0.0, 0.0, 0.0)
    t = jnp.minimum(ratio_step(s, ds), ratio_step(alpha, da))
    sigma = jnp.clip(((alpha + t * da) @ (s + t * ds) / k / mu) ** 3, 1e-6, 1)
    dx, ds, da = direction(sigma * mu, da * ds, geometry.squares(dx))
    t = 0.99 * jnp.minimum(ratio_step(s, ds), ratio_step(alpha, da))
    size = 1 + jnp.abs(x @ Q0 @ x)
    done = (k * mu <= rtol * size) & (jnp.max(jnp.abs(r_p)) <= rtol)
    done &= jnp.max(jnp.abs(r_x)) <= rtol * (1 + jnp.max(jnp.abs(g0)))
    status = jnp.where(done, Status.CONVERGED, RUNNING)
    stuck = ~jnp.isfinite(t * jnp.sum(dx)) | (t < 1e-7)
    status = jnp.where((status == RUNNING) & stuck, Status.STALLED, status).astype(jnp.int32)
    go = status == RUNNING
    t = jnp.where(go, t, 0)

    def move(value, change):
        return jnp.where(go, value + t * change, value)

    return _Iterate(move(x, dx), move(alpha, da), move(s, ds), status, it.step + 1)


@partial(jax.jit, static_argnames=("coordinates", "max_steps"))
def _constrained(Q0, g0, problem: Scaled, coordinates, rtol, max_steps) -> _Iterate:
    geometry = Geometry(problem, coordinates)
    k = problem.d.shape[0]
    ones = jnp.ones(k)
    x = jnp.linalg.solve(geometry.combine(ones) + Q0, -(g0 + ones @ problem.g))
    s = jnp.maximum(-geometry.values(x), 0.1)
    start = _Iterate(x, ones, s, jnp.int32(RUNNING), jnp.int32(0))
    return lax.while_loop(
        lambda it: (it.status == RUNNING) & (it.step < max_steps),
        lambda it: _least_squares_step(geometry, Q0, g0, rtol, it),
        start,
    )


def _drop(sets: Ellipsoids, name: str) -> tuple[Scaled, tuple[int, ...]]:
    """The constraints other than the quadratic of that name."""
    keep = np.array([i for i, n in enumerate(sets.names) if n != name], int)
    problem = scaled(sets)
    quadratics = keep[keep < len(sets.factors)]
    problem = problem._replace(
        Q=problem.Q[quadratics], g=problem.g[keep], d=problem.d[keep], scale=problem.scale[keep]
    )
    return problem, sets.coordinates


def cls(
    sets: Ellipsoids, *, backend: str = "native", rtol: float = 1e-9, max_steps: int = 100
) -> Estimate:
    """Constrained least squares: the smallest data error within the other constraints.

        minimise ‖A x - y‖²    subject to    f_i(x) <= 0 for all i but the noise ball

    Args:
      sets: sets with a noise ball and other constraints.
      backend: "native", an interior-point method in JAX, or "cvxpy" (Clarabel).
      rtol: relative gap and infeasibility to stop at.
      max_steps: most interior-point steps.

    Returns:
      `Estimate`.

    Raises:
      ValueError: no noise ball; nothing else; an unknown backend.

    Reference:
      Eldar, Beck & Teboulle, equation (4).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(2), jnp.array([2.0, 0.5]), 9.0)
      >>> chebyshev.cls(sets & chebyshev.box(jnp.zeros(2), jnp.ones(2))).x.round(6).tolist()
      [1.0, 0.5]
    """
    if backend not in ("native", "cvxpy"):
        raise ValueError(f"backend: expected 'native' or 'cvxpy', got {backend!r}")
    if not rtol > 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol!r}")
    A, y = _model(sets)
    if len(sets.names) == 1:
        raise ValueError("sets: expected a constraint besides the noise ball; ls has none")
    if backend == "cvxpy":
        return _with_cvxpy(sets, A, y)
    problem, coordinates = _drop(sets, "noise_ball")
    # In units of A's size, so that the multipliers are of order one.
    size = jnp.sum(A**2) / sets.dim
    it = _constrained(A.T @ A / size, -(A.T @ y) / size, problem, coordinates, rtol, max_steps)
    status = jnp.where(it.status == RUNNING, Status.MAX_STEPS, it.status).astype(jnp.int32)
    return Estimate(sets.from_real(it.x), jnp.sum((A @ it.x - y) ** 2), status, it.step)


def _with_cvxpy(sets: Ellipsoids, A: Array, y: Array) -> Estimate:
    import cvxpy as cp

    x = cp.Variable(sets.dim)
    constraints = []
    for i, (F, t) in enumerate(zip(sets.factors, sets.targets)):
        if sets.names[i] != "noise_ball":
            linear = 2 * np.asarray(sets.linear[i]) @ x + float(sets.constant[i])
            constraints.append(cp.sum_squares(np.asarray(F) @ x - np.asarray(t)) + linear <= 0)
    if sets.coordinates:
        inside = x[list(sets.coordinates)]
        constraints += [inside >= np.asarray(sets.lo), inside <= np.asarray(sets.hi)]
    for v, lo, hi in zip(sets.normals, sets.slab_lo.tolist(), sets.slab_hi.tolist()):
        constraints += [np.asarray(v) @ x >= lo, np.asarray(v) @ x <= hi]
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(np.asarray(A) @ x - np.asarray(y))), constraints
    )
    problem.solve(solver="CLARABEL")
    if x.value is None:
        return _direct(sets, jnp.full(sets.dim, jnp.nan))
    return _direct(sets, jnp.asarray(x.value))


def rls(sets: Ellipsoids, eta, **options) -> Estimate:
    """Regularised least squares: the smallest data error within a ball.

        minimise ‖A x - y‖²    subject to    ‖x‖ <= η

    Args:
      sets: sets with a noise ball; the others are ignored.
      eta: bound of the norm, not squared.
      options: those of `cls`.

    Returns:
      `Estimate`.

    Raises:
      ValueError: no noise ball; `eta` not positive.

    Reference:
      Eldar, Beck & Teboulle, section 4.2.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> sets = chebyshev.noise_ball(jnp.eye(2), jnp.array([3.0, 4.0]), 1.0)
      >>> [round(v, 6) for v in chebyshev.rls(sets, 1.0).x.tolist()]
      [0.6, 0.8]
    """
    # cls leaves the noise ball out, so its size does not matter.
    ball = noise_ball(*_model(sets), 1.0) & norm_ball(jnp.eye(sets.dim), eta)
    estimate = cls(ball, **options)
    return estimate._replace(x=sets.from_real(estimate.x))
