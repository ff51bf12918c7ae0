"""Iterations for λ z = H z that run inside jit: power, Krylov, inverse.

Each takes φ = log z and returns a better one; `iterate` repeats one of them until the residual of
`klcontrol.bellman` is constant. The names:

    power     z <- H z, in logarithms: the paper's iteration, converges if q is aperiodic
    krylov    restarted Arnoldi on H scaled by the current z, so that small components of z count as
              much as large ones
    inverse   inverse iteration with Noda's shift max (Hz)_i / z_i: quadratic whatever the gap, for
              nearly periodic and nearly decoupled chains; n² memory, n³ work

The elimination of `inverse` is that of Grassmann, Taksar and Heyman: states are taken out of the
chain one by one, sums and products of probabilities only, so that no cancellation spoils chains
whose parts hardly communicate.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from klcontrol.bellman import apply_policy, linearise, rounding_floor
from klcontrol.dynamics import as_dense
from klcontrol.problem import Problem

INNER_STEPS = 16
# Beyond this range of r, powers of the scaled matrix would leave the range of floating point.
INNER_RANGE = 20.0
KRYLOV_SIZE = 32
SEGMENT = 8


class Iterate(NamedTuple):
    """φ, its residual r = T(φ) - φ, and how often q was applied (or a matrix factorised)."""

    phi: Array
    residual: Array
    steps: Array


def power(problem: Problem, phi: Array, residual: Array, policy) -> tuple[Array, int]:
    """Up to INNER_STEPS + 1 steps z <- H z; one, in logarithms, while z still changes much."""
    top = peak(problem, residual)
    scale = jnp.exp(jnp.maximum(residual - top, -INNER_RANGE))
    steps = jnp.where(top - jnp.min(residual) < INNER_RANGE, INNER_STEPS, 0)

    def step(_, w):
        return scale * apply_policy(problem, policy, w)

    w = lax.fori_loop(0, steps, step, scale)
    # The first step was the exact one: w = exp(residual - top), whose logarithm is known.
    inner = jnp.where(steps > 0, jnp.log(w), residual - top)
    return phi + inner, steps + 1


def krylov(problem: Problem, phi: Array, residual: Array, policy) -> tuple[Array, int]:
    """The Ritz vector of a Krylov space of H scaled by z, kept positive by a power step."""
    n = phi.shape[0]
    size = min(KRYLOV_SIZE, n)
    top = peak(problem, residual)
    scale = jnp.exp(residual - top)

    # A 1 = scale, up to rounding, since the rows of P sum to one.
    def multiply(w):
        return scale * apply_policy(problem, policy, w)

    if callable(policy):
        low, rounded = lambda w: policy(w.astype(phi.dtype)).astype(w.dtype), scale
    else:
        low, rounded = jax.tree.map(_single, (policy, scale))

    def multiply_in_single(w):
        return (rounded * apply_policy(problem, low, w)).astype(w.dtype)

    w = _ritz(multiply_in_single, scale, size)
    if problem.criterion == "total":
        ends = problem.absorbing
        w = w / (jnp.sum(jnp.where(ends, w, 0)) / jnp.sum(ends))
    else:
        w = w / w[jnp.argmax(jnp.abs(w))]
    # Ritz vectors may have components that are not positive: there the power method goes on.
    good = jnp.isfinite(w) & (w > 1e-3 * scale)
    wild = ~jnp.isfinite(w).all() | (top - jnp.min(residual) > INNER_RANGE)
    w = jnp.where(wild, scale, jnp.where(good, w, 1e-3 * scale))
    inner = jnp.where(wild, residual - top, jnp.log(multiply(w)))
    return phi + inner, size + 1


def _single(leaf: Array) -> Array:
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _ritz(multiply_fn, image: Array, size: int) -> Array:
    """The dominant Ritz vector of A in the Krylov space of 1, whose image A 1 is given, (n,).

    The basis is kept in single precision but for its first vector, 1/√n, and the image of that: the
    Ritz vector is that one plus a correction, of which seven digits do.
    """
    n, dtype = image.shape[0], image.dtype
    single = jnp.float32

    def extend(k, state):
        basis, columns = state
        w = multiply_fn(lax.dynamic_index_in_dim(basis, k, keepdims=False))
        coordinates = basis @ w
        w = w - coordinates @ basis
        lost = jnp.sqrt(coordinates @ coordinates)

        def again(state):
            w, coordinates = state
            more = basis @ w
            return w - more @ basis, coordinates + more

        # Where little is left, once loses orthogonality.
        twice = w @ w < 0.01 * lost**2
        w, coordinates = lax.cond(twice, again, lambda state: state, (w, coordinates))
        return _append(basis, columns, k, w, coordinates, 1e-6 * lost)

    mean = jnp.mean(image)
    basis = jnp.full((1, n), 1 / n**0.5, single)
    columns = jnp.zeros((size, size + 1), dtype)
    for first in range(0, size, SEGMENT):
        # Rows that are still zero cost as much as others: they come segment by segment.
        last = min(first + SEGMENT, size)
        basis = jnp.pad(basis, ((0, last - first), (0, 0)))
        if first == 0:
            projected = jnp.zeros(basis.shape[0], dtype).at[0].set(mean)
            rest = (image - mean) / n**0.5
            basis, columns = _append(basis, columns, 0, rest, projected, 1e-14 * mean)
        start = max(first, 1)
        basis, columns = lax.fori_loop(start, last, extend, (basis, columns))
    w = _dominant(columns[:, :size].T)
    return w[0] / n**0.5 + (w.at[0].set(0).astype(single) @ basis[:size]).astype(dtype)


def _append(basis: Array, columns: Array, k, w: Array, coordinates: Array, negligible):
    """The basis with w / ‖w‖ as vector k + 1, and column k of A in that basis."""
    norm = jnp.sqrt(w @ w)
    dependent = norm <= negligible
    w = jnp.where(dependent, 0, w / jnp.where(dependent, 1, norm)).astype(basis.dtype)
    norm = jnp.where(dependent, 0, norm).astype(columns.dtype)
    basis = lax.dynamic_update_index_in_dim(basis, w, k + 1, 0)
    columns = lax.dynamic_update_slice(columns, coordinates.astype(columns.dtype)[None], (k, 0))
    return basis, lax.dynamic_update_slice(columns, norm[None, None], (k, k + 1))


def _dominant(matrix: Array) -> Array:
    """The eigenvector of the eigenvalue with the largest real part, by squaring (I + M/‖M‖)^2^k."""
    norm = jnp.linalg.norm(matrix)
    square = jnp.eye(matrix.shape[0], dtype=matrix.dtype) + matrix / jnp.where(norm > 0, norm, 1)

    def unfinished(state):
        k, _, change = state
        return (k < 40) & (change > 1e-14)

    def step(state):
        k, m, _ = state
        following = m @ m
        following = following / jnp.linalg.norm(following)
        return k + 1, following, jnp.linalg.norm(following - m)

    square = lax.while_loop(unfinished, step, (0, square, jnp.asarray(jnp.inf, matrix.dtype)))[1]
    # Every column is the eigenvector, up to its length; the longest is the most accurate.
    return square[:, jnp.argmax(jnp.sum(square**2, axis=0))]


def inverse(problem: Problem, phi: Array, residual: Array, policy) -> tuple[Array, int]:
    """Noda's step w = (I - H̃/σ)⁻¹ 1 for σ = max e^r, then a power step.

    H̃ = diag(e^r) P has row sums e^r <= σ, so that what a row of I - H̃/σ lacks is known without
    cancellation, -expm1(r - log σ), and the elimination adds positive numbers only.
    """
    absorbing = problem.absorbing
    P = as_dense(policy)
    top = peak(problem, residual)
    P = jnp.exp(residual - top)[:, None] * P
    lack = -jnp.expm1(residual - top)
    if problem.criterion == "average":
        # A shift larger by a factor 1 + 1e-60 keeps the system regular where P underflows.
        lack = jnp.maximum(lack, 1e-60)
        start = jnp.ones_like(residual)
    else:
        # Where the chain is absorbed w = 1 already; the system is for the other states.
        start = jnp.sum(jnp.where(absorbing[None, :], P, 0), axis=1)
        P = jnp.where(absorbing[:, None] | absorbing[None, :], 0, P)
        lack = jnp.where(absorbing, 1, lack + start)
        start = jnp.where(absorbing, 1, start)
    # What underflows is left to the next steps.
    phi = phi + jnp.log(jnp.maximum(eliminate(P, lack, start), 1e-250))
    phi = jnp.where(absorbing, 0, phi)
    return phi + linearise(problem, phi)[0], 2


def eliminate(P: Array, lack: Array, start: Array) -> Array:
    """w = start + P w for P >= 0 whose rows sum to 1 - lack, states taken out the last first."""
    n = start.shape[0]
    index = jnp.arange(n)
    tiny = jnp.finfo(start.dtype).tiny

    def remove(step, state):
        P, lack, start, leave = state
        k = n - 1 - step
        row = jnp.where(index < k, P[k], 0)
        # The weight that leaves k, summed and never taken as 1 - P_kk.
        out = jnp.maximum(jnp.sum(row) + lack[k], tiny)
        into = jnp.where(index < k, P[:, k], 0) / out
        P = P + into[:, None] * row[None, :]
        return P, lack + into * lack[k], start + into * start[k], leave.at[k].set(out)

    P, _, start, leave = lax.fori_loop(0, n, remove, (P, lack, start, jnp.ones_like(start)))

    def restore(k, w):
        row = jnp.where(index < k, P[k], 0)
        return w.at[k].set((start[k] + row @ w) / leave[k])

    return lax.fori_loop(0, n, restore, jnp.zeros_like(start))


METHODS: dict[str, Callable] = {"power": power, "krylov": krylov, "inverse": inverse}


def peak(problem: Problem, residual: Array) -> Array:
    """The largest log ratio, by which H is scaled; 0 in the total criterion, where λ = 1."""
    return jnp.zeros((), residual.dtype) if problem.criterion == "total" else jnp.max(residual)


def spread(problem: Problem, residual: Array) -> Array:
    """How far r is from constant; from zero, in the total criterion."""
    if problem.criterion == "total":
        return jnp.max(jnp.abs(residual))
    return jnp.max(residual) - jnp.min(residual)


def middle(problem: Problem, found: Iterate) -> Array:
    """log λ*: the middle of the residual; 0 in the total criterion."""
    if problem.criterion == "total":
        return jnp.zeros((), found.phi.dtype)
    return (jnp.max(found.residual) + jnp.min(found.residual)) / 2


def iterate(problem: Problem, phi: Array, method: str, rtol: float, max_steps) -> Iterate:
    """Repeat `method` until the spread of r is at most rtol, or rounding, or max_steps is over."""
    advance = METHODS[method]

    def unfinished(state):
        phi, residual, _, steps, _, stalled = state
        width = spread(problem, residual)
        goal = jnp.maximum(rtol, rounding_floor(problem, phi))
        return (width > goal) & (steps < max_steps) & jnp.isfinite(width) & (stalled < 8)

    def step(state):
        phi, residual, policy, steps, best, stalled = state
        phi, used = advance(problem, phi, residual, policy)
        phi = jnp.where(problem.absorbing, 0, phi)
        if problem.criterion == "average":
            phi = phi - jnp.max(phi)
        residual, policy = linearise(problem, phi)
        width = spread(problem, residual)
        # Only near rounding can the width stop falling for good.
        near = width < 1e3 * rounding_floor(problem, phi)
        stalled = jnp.where(near & (width >= best), stalled + 1, 0)
        return phi, residual, policy, steps + used, jnp.minimum(best, width), stalled

    residual, policy = linearise(problem, phi)
    zero = jnp.zeros((), jnp.int32)
    infinite = jnp.asarray(jnp.inf, phi.dtype)
    state = (phi, residual, policy, zero, infinite, zero)
    phi, residual, _, steps, _, _ = lax.while_loop(unfinished, step, state)
    return Iterate(phi, residual, steps)
