"""The relaxed Chebyshev centre by a primal–dual interior-point method.

The Chebyshev centre of Q = { x : f_i(x) <= 0 } is the centre of the smallest ball that holds Q. Its
relaxation replaces xx' by a matrix Δ ⪰ xx'. With Δ = W + xx' it reads

    maximise tr W    subject to    tr(Q_i W) + f_i(x) <= 0,    W ⪰ 0,                       (15)

a problem with multipliers α_i >= 0 and Z = Σ α_i Q_i - I ⪰ 0 for W, whose dual is

    minimise g'(Σ α_i Q_i)⁻¹ g - Σ α_i d_i    subject to    Z ⪰ 0, α >= 0,                  (17)

g = Σ α_i g_i, and at the optimum x = -(Σ α_i Q_i)⁻¹ g (16). Any α that is feasible here gives an
upper bound of the squared radius: every admissible x lies within its root of that x.

The method follows the central path Z W = μ I, α_i s_i = μ, with s the slacks of (15), by Mehrotra's
predictor and corrector in the HKM direction: ΔW = μ Z⁻¹ - W - sym(W ΔZ Z⁻¹) with ΔZ = Σ Δα_i Q_i.
Eliminating everything but Δα leaves one k x k system with the matrix

    M = T + 2 G'(Z + I)⁻¹ G + diag(s/α),    T_ij = tr(Q_i W Q_j Z⁻¹),    G = [Q_i x + g_i].

Where Q_i = v_i v_i', T is an elementwise product, (v_i'W v_j)(v_i'Z⁻¹ v_j). Z comes from α, so
dual feasibility holds by construction; x and W approach feasibility. Every constraint is first
divided by its scale, so that α compares like with like; without that the method breaks down.
"""

import enum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from chebyshev.geometry import Geometry, Scaled, smallest_eigenvalue


class Status(enum.IntEnum):
    """How the interior-point method ended.

    Attributes:
      message: one sentence, what happened and what to try.

    Examples:
      >>> import chebyshev
      >>> chebyshev.Status(0).message
      'converged'
    """

    CONVERGED = 0
    MAX_STEPS = 1
    STALLED = 2
    EMPTY = 3
    UNBOUNDED = 4
    FAILED = 5

    @property
    def message(self) -> str:
        """One sentence: what happened and what to try."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "converged",
    Status.MAX_STEPS: "max_steps reached before rtol: raise max_steps, or look at the gap",
    Status.STALLED: "rounding stopped the method before rtol: the gap says how far it came",
    Status.EMPTY: "the set is empty; `feasibility` names the constraints in conflict",
    Status.UNBOUNDED: "the set is unbounded; `feasibility` shows a direction to bound",
    Status.FAILED: "a factorisation failed at the start: check for NaN, and the scale of the data",
}


def _cholesky(A: Array) -> Array:
    """Lower factor, NaN if A is not positive definite."""
    return jnp.linalg.cholesky(A, symmetrize_input=False)


def _largest_step(point: Array, direction: Array, shrink: float) -> Array:
    """A step t <= 1, at least `shrink` of the largest, with point + t direction ≻ 0."""

    def fails(t):
        return ~jnp.isfinite(_cholesky(point + t * direction)[-1, -1])

    return lax.while_loop(lambda t: (t > 1e-9) & fails(t), lambda t: shrink * t, jnp.ones(()))


def ratio_step(value: Array, change: Array) -> Array:
    """The largest t <= 1 with value + t change >= 0."""
    return jnp.min(jnp.where(change < 0, -value / jnp.where(change < 0, change, -1), 1), initial=1)


class State(NamedTuple):
    """An iterate, the best one so far, and the last one that is good for derivatives.

    At the optimum Z and W are singular, and their inverses are noise of size u/μ. So derivatives
    are taken where the merit is not yet below SMOOTH: there bias and noise balance near 1e-5.
    """

    x: Array
    W: Array
    alpha: Array
    s: Array
    best: tuple
    smooth: tuple
    merit: Array
    status: Array
    step: Array


RUNNING = -1
FRACTION = 0.97  # of the way to the boundary
SHRINK = 0.8
EMPTINESS = 1e-9  # a dual value as far below zero is no rounding: the set is empty
SMOOTH = 3e-10  # merit of the last iterate that derivatives use, see State.smooth


def relative_gap(dual: Array, primal: Array) -> Array:
    """The gap, relative down to a millionth of the unit that values are measured in."""
    return jnp.abs(dual - primal) / jnp.maximum(jnp.abs(dual), 1e-6)


def dual_point(geometry: Geometry, alpha: Array) -> tuple[Array, Array]:
    """x of (16) and the value of (17)."""
    g = alpha @ geometry.problem.g
    x = -cho_solve((_cholesky(geometry.combine(alpha)), True), g)
    return x, -(g @ x) - alpha @ geometry.problem.d


def _reduced_factor(geometry: Geometry, W, inverse, G, Y, ratio) -> tuple[Array, Array, Array]:
    """M = T + 2 G Y + diag(ratio), the scale to a unit diagonal, and the scaled factor."""
    M = geometry.schur(W, inverse) + 2 * G @ Y + jnp.diag(ratio)
    scale = 1 / jnp.sqrt(jnp.diagonal(M))
    factor = _cholesky(scale[:, None] * M * scale + 1e-15 * jnp.eye(M.shape[0]))
    return M, scale, factor


def _reduced_solver(M: Array, scale: Array, factor: Array):
    """M⁻¹, refined once."""

    def apply(v):
        return scale * cho_solve((factor, True), scale * v)

    def solve(rhs):
        first = apply(rhs)
        return first + apply(rhs - M @ first)

    return solve


def _step(geometry: Geometry, state: State, rtol: float) -> State:
    x, W, alpha, s = state.x, state.W, state.alpha, state.s
    m, k = geometry.m, alpha.shape[0]
    identity = jnp.eye(m)
    Z = geometry.combine(alpha) - identity
    mu = (jnp.sum(W * Z) + alpha @ s) / (m + k)
    values = geometry.values(x)
    r_p = geometry.inner(W) + values + s
    G = geometry.gradients(x)
    r_x = alpha @ G
    ZI = (_cholesky(Z + identity), True)
    g = alpha @ geometry.problem.g
    dual = g @ cho_solve(ZI, g) - alpha @ geometry.problem.d
    primal = jnp.trace(W)
    violation = jnp.max(r_p - s)
    gap = relative_gap(dual, primal)
    merit = jnp.maximum(gap, violation)

    LZ = _cholesky(Z)
    inverse = cho_solve((LZ, True), identity)
    Y = cho_solve(ZI, jnp.concatenate([G, r_x[None]]).T)
    Y, y = Y[:, :-1], Y[:, -1]
    solve = _reduced_solver(*_reduced_factor(geometry, W, inverse, G, Y, s / alpha))

    def direction(mu, correction_W, correction_s, correction_f):
        base = mu * inverse - W - correction_W
        rhs = r_p + correction_f + geometry.inner(base) - 2 * G @ y
        d_alpha = solve(rhs + (mu - correction_s) / alpha - s)
        dZ = geometry.combine(d_alpha)
        product = W @ dZ @ inverse
        dW = base - (product + product.T) / 2
        return d_alpha, dZ, dW, -y - Y @ d_alpha, (mu - correction_s - s * d_alpha) / alpha - s

    def steps(d_alpha, dZ, dW, ds, shrink):
        primal = jnp.minimum(_largest_step(W, dW, shrink), ratio_step(s, ds))
        dual = jnp.minimum(_largest_step(Z, dZ, shrink), ratio_step(alpha, d_alpha))
        return primal, dual

    d_alpha, dZ, dW, dx, ds = direction(0.0, 0.0, 0.0, 0.0)
    t_p, t_d = steps(d_alpha, dZ, dW, ds, 0.5)
    after = jnp.sum((W + t_p * dW) * (Z + t_d * dZ)) + (alpha + t_d * d_alpha) @ (s + t_p * ds)
    sigma = jnp.clip((after / (m + k) / mu) ** 3, 1e-6, 1.0)
    product = dW @ dZ @ inverse
    d_alpha, dZ, dW, dx, ds = direction(
        sigma * mu, (product + product.T) / 2, d_alpha * ds, geometry.squares(dx)
    )
    t_p, t_d = (FRACTION * t for t in steps(d_alpha, dZ, dW, ds, SHRINK))

    status = jnp.where(merit <= rtol, Status.CONVERGED, RUNNING)
    moved = jnp.isfinite(t_p * t_d * jnp.sum(dx) * jnp.sum(d_alpha))
    stuck = ~moved | (jnp.maximum(t_p, t_d) < 1e-4)
    status = jnp.where((status == RUNNING) & stuck, Status.STALLED, status)
    status = jnp.where(dual < -EMPTINESS, Status.EMPTY, status)
    go = status == RUNNING
    t_p, t_d = jnp.where(go, t_p, 0), jnp.where(go, t_d, 0)

    def move(value, t, change):
        return jnp.where(go, value + t * change, value)

    better = merit < state.merit
    here = x, W, alpha
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), here, state.best)
    smooth = better & (merit >= SMOOTH)
    smooth = jax.tree.map(lambda new, old: jnp.where(smooth, new, old), here, state.smooth)
    return State(
        move(x, t_p, dx),
        move(W, t_p, dW),
        move(alpha, t_d, d_alpha),
        move(s, t_p, ds),
        best,
        smooth,
        jnp.where(better, merit, state.merit),
        status.astype(jnp.int32),
        state.step + 1,
    )


def _start(geometry: Geometry) -> State:
    k, m = geometry.problem.g.shape
    c = geometry.problem.left.shape[0]
    convex = jnp.arange(k) < k - c
    total = geometry.combine(convex * 1.0)
    lowest, bounded = smallest_eigenvalue(total)
    alpha = jnp.ones(k) * 2 / jnp.where(bounded, lowest, 1.0)
    if c:
        # Small multipliers of the cuts, so that these do not make the sum indefinite.
        lengths = [
            jnp.linalg.norm(v, axis=1) for v in (geometry.problem.left, geometry.problem.right)
        ]
        share = 0.25 * lowest / (1e-300 + jnp.sum(lengths[0] * lengths[1]))
        alpha = 2 * alpha * jnp.where(convex, 1, jnp.minimum(share, 1))
    x, _ = dual_point(geometry, alpha)
    W = 0.5 * jnp.eye(m) / jnp.max(geometry.inner(jnp.eye(m)))
    s = jnp.maximum(-(geometry.inner(W) + geometry.values(x)), 0.1)
    status = jnp.where(bounded, RUNNING, Status.UNBOUNDED)
    status = jnp.where(jnp.isfinite(jnp.sum(total)), status, Status.FAILED).astype(jnp.int32)
    here = x, W, alpha
    return State(*here, s, here, here, jnp.asarray(jnp.inf), status, jnp.int32(0))


class Point(NamedTuple):
    """Where the method ended."""

    x: Array
    W: Array
    alpha: Array
    smooth: tuple
    status: Array
    num_steps: Array


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def optimum(problem: Scaled, coordinates, rtol, max_steps) -> Point:
    """The best iterate, differentiable in the numbers of the problem."""

    # One problem of a batch after the other: each stops by itself, and on the CPU of jaxlib 0.10.2
    # batched factorisations can wait for ever. LAPACK's kernels there share a batch out to the
    # thread pool that they run in and block until it is done (jax::ParallelBatchMap); as many of
    # them at a time as there are threads leave none to do the work.
    @jax.custom_batching.sequential_vmap
    def run(problem):
        geometry = Geometry(problem, coordinates)
        state = lax.while_loop(
            lambda s: (s.status == RUNNING) & (s.step < max_steps),
            lambda s: _step(geometry, s, rtol),
            _start(geometry),
        )
        return Point(*state.best, state.smooth, state.status, state.step)

    return run(problem)


@optimum.defjvp
def _optimum_jvp(coordinates, rtol, max_steps, primals, tangents):
    """The implicit function theorem for the optimality conditions, by one more solve with M.

    With residuals p_i = tr(Q_i W) + f_i(x) + s_i and q = Σ α_i (Q_i x + g_i), Z W and α_i s_i held:

        M dα = δp - tr(Q_i sym(W δZ Z⁻¹)) - 2 G'(Z + I)⁻¹ δq

    where δ is the change of the residuals that the data alone cause.
    """
    (problem,), (change,) = primals, tangents
    point = optimum(problem, coordinates, rtol, max_steps)
    x, W, alpha = point.smooth

    def residuals(problem):
        geometry = Geometry(problem, coordinates)
        values = geometry.inner(W) + geometry.values(x)
        return values, alpha @ geometry.gradients(x), geometry.combine(alpha)

    (values, _, total), (d_p, d_q, d_Z) = jax.jvp(residuals, (problem,), (change,))
    geometry = Geometry(problem, coordinates)
    G = geometry.gradients(x)

    @jax.custom_batching.sequential_vmap  # see `optimum`
    def factors(problem, W, G, total, ratio):
        geometry = Geometry(problem, coordinates)
        eye = jnp.eye(geometry.m)
        inverse = cho_solve((_cholesky(total - eye), True), eye)
        L = _cholesky(total)
        Y = cho_solve((L, True), G.T)
        return inverse, L, _reduced_factor(geometry, W, inverse, G, Y, ratio)

    s = jnp.maximum(-values, 1e-14)
    inverse, L, reduced = factors(problem, W, G, total, s / alpha)
    ZI, solve = (L, True), _reduced_solver(*reduced)
    product = W @ d_Z @ inverse
    rhs = d_p - geometry.inner((product + product.T) / 2) - 2 * G @ cho_solve(ZI, d_q)
    d_alpha = solve(rhs)
    d_x = -cho_solve(ZI, d_q + d_alpha @ G)
    d_total = geometry.combine(d_alpha) + d_Z
    product = W @ d_total @ inverse
    zero = jax.tree.map(jnp.zeros_like, point)
    nothing = [np.zeros(v.shape, jax.dtypes.float0) for v in (point.status, point.num_steps)]
    d_W = -(product + product.T) / 2
    return point, Point(d_x, d_W, d_alpha, zero.smooth, *nothing)
