"""Newton's method on the Bellman equation for many states with few neighbours.

    (I - P) δ + ℓ 1 = r,        φ <- φ + δ

with r and P from `klcontrol.bellman`: policy iteration, whose steps are solved only to a hundredth,
by GCR in double precision with the multilevel cycle of `klcontrol.aggregation` in single precision
as preconditioner. Because r is the logarithm of (Hz)_i / z_i, its 2-norm controls the relative
error of every component of z, however small; nothing has to be scaled.

Newton's method needs a start from which P is a sensible chain. For steps that are as likely to go
one way as back, z decays along a path like exp(-Σ κ_i) with

    stay_i + (1 - stay_i) cosh κ_i = λ exp(β c_i)

(the dispersion relation of H), so the start is φ = -distance, by Dijkstra's algorithm with κ as the
length of edges, from the states where λ exp(β c_i) <= 1. λ comes from some power steps.
"""

import ctypes
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array, lax
from scipy.sparse import csgraph

from klcontrol.aggregation import (
    build_levels,
    cycle,
    fill_levels,
    gather,
    invert_coarsest,
)
from klcontrol.bellman import linearise, rounding_floor
from klcontrol.dynamics import stay_probabilities
from klcontrol.iterations import Iterate, iterate, power, spread
from klcontrol.problem import Problem

DIRECTIONS = 8
RESTARTS = 5
LINEAR_RTOL = 1e-2
MAX_LINEAR_RTOL = 0.1
START_STEPS = 3
# So many steps may pass without a narrower width.
PATIENCE = 4
# Products with q, where those steps lead no further.
POLISHING_STEPS = 5_000
# From so many states on, memory that is free is worth returning.
MANY_STATES = 100_000


def newton(problem: Problem, rtol: float, max_steps: int) -> Iterate:
    """φ such that r is constant to rtol (or rounding); on the host, with known values."""
    indices = np.ascontiguousarray(np.asarray(problem.q.indices).T)
    absorbing = np.asarray(problem.absorbing)
    own = np.arange(problem.num_states, dtype=np.int32)
    linked = np.asarray(problem.q.probabilities).T > 0
    linked = linked & (indices != own) & ~absorbing & ~absorbing[indices]
    levels, last = build_levels(indices, linked)
    indices = levels[0].indices if levels else last
    del linked
    best = _Best(np.inf, None, None, 0)
    many = problem.num_states >= MANY_STATES
    if many:
        _return_freed_memory(levels)
    phi = _start(problem)
    if many:
        _return_freed_memory(phi)
    for step in range(max_steps + 1):
        residual = _residual(problem, phi)
        width = float(spread(problem, residual))
        if best.phi is None or width < best.width:
            best = _Best(width if np.isfinite(width) else np.inf, phi, residual, step)
        elif not np.isfinite(width) or step - best.step > PATIENCE:
            break
        goal = max(rtol, float(rounding_floor(problem, phi)))
        if width <= goal or step == max_steps:
            break
        # Far from the solution Newton's method itself is not worth more.
        wanted = max(min(MAX_LINEAR_RTOL, width), LINEAR_RTOL, 0.1 * goal / width)
        phi = phi + _evaluate(problem, levels, last, indices, phi, residual, wanted)
        if many:
            _return_freed_memory(phi)
    found = Iterate(best.phi, best.residual, jnp.asarray(step, jnp.int32))
    if best.width > goal and step < max_steps:
        # Where drift is so strong that cycles stall, products alone carry the errors out.
        polished = _polish(problem, best.phi, rtol)
        if spread(problem, polished.residual) < best.width:
            found = polished._replace(steps=found.steps + polished.steps)
    return found


class _Best(NamedTuple):
    """The narrowest iterate so far."""

    width: float
    phi: Array | None
    residual: Array | None
    step: int


def _return_freed_memory(computed) -> None:
    """Once `computed` is there, have the C library return what is free; glibc keeps small pieces.

    At a million states that is a third of the memory of the process.
    """
    jax.block_until_ready(computed)
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # another C library, which needs no asking


@partial(jax.jit, static_argnames=("rtol",))
def _polish(problem: Problem, phi: Array, rtol: float) -> Iterate:
    return iterate(problem, phi, "power", rtol, POLISHING_STEPS)


@jax.jit
def _residual(problem: Problem, phi: Array) -> Array:
    return linearise(problem, phi)[0]


@jax.jit
def _evaluate(problem, levels, last, indices, phi, residual, rtol):
    """δ with (I - P) δ + ℓ 1 = r approximately; ℓ = 0 in the total criterion.

    Under the average criterion I - P is singular, and r - ℓ 1 in its range if ℓ = π·r, π the
    invariant law of P. `law` stands for π: everything is projected to law·v = 0 along constants,
    which changes little if law is like π, and is right, if slow, whatever it is.
    """
    # Rounded to single precision the weights are those of a chain close by; what matters is that
    # the diagonal is their sum in double precision, so that constants stay in the null space.
    weights, exits = _weights(problem, indices, phi)
    diagonal = lax.fori_loop(0, len(weights), lambda k, total: total + weights[k], exits)
    diagonal = jnp.where(diagonal > 0, diagonal, 1)
    generators = fill_levels(levels, last, weights, exits.astype(jnp.float32))
    average = problem.criterion == "average"
    law = jax.nn.softmax(2 * phi + problem.beta * problem.cost)
    masses = law.astype(jnp.float32)
    for level, generator in zip(levels, generators[1:]):
        size = generator.exits.shape[0]
        masses = jax.ops.segment_sum(masses, level.aggregate, num_segments=size)
    inverse = invert_coarsest(last, generators[-1], masses if average else None)

    def project(v):
        return v - jnp.sum(law * v) if average else v

    def precondition(v):
        size = jnp.max(jnp.abs(v))
        v = (v / jnp.where(size > 0, size, 1)).astype(jnp.float32)
        return cycle(levels, generators, last, inverse, v)

    def product(v):
        v = v.astype(residual.dtype)

        # A loop, since XLA would keep all weights and gathered v in double precision at once.
        def subtract(k, y):
            return y - weights[k] * gather(v, indices[k])

        return project(lax.fori_loop(0, len(weights), subtract, diagonal * v))

    rest = project(residual)
    target = rtol * jnp.linalg.norm(rest)

    def restart(state):
        delta, rest, count = state
        change, rest = _gcr(product, precondition, rest, target)
        return delta + change, rest, count + 1

    def unfinished(state):
        return (jnp.linalg.norm(state[1]) > target) & (state[2] < RESTARTS)

    state = (jnp.zeros_like(rest), rest, 0)
    return lax.while_loop(unfinished, restart, state)[0]


def _weights(problem: Problem, indices: Array, phi: Array) -> tuple[Array, Array]:
    """The policy's probabilities to other states, (d, n) in single precision, and to the ends.

    Successor by successor, so that no (n, d) array in double precision is needed.
    """
    d, n = indices.shape
    q, absorbing, own = (
        problem.q.probabilities,
        problem.absorbing,
        jnp.arange(n, dtype=indices.dtype),
    )

    def rise(k):
        return jnp.where(q[:, k] > 0, gather(phi, indices[k]) - phi, -jnp.inf)

    def share(k):
        return q[:, k] * jnp.exp(rise(k) - top)

    def add(k, sums):
        into = share(k)
        return sums[0] + into, sums[1] + jnp.where(gather(absorbing, indices[k]), into, 0)

    def fill(k, weights):
        stays = (indices[k] == own) | gather(absorbing, indices[k]) | absorbing
        weight = jnp.where(stays, 0, share(k) / total)
        return lax.dynamic_update_index_in_dim(weights, weight.astype(jnp.float32), k, 0)

    # Loops, since XLA would work on all successors at once.
    top = lax.fori_loop(0, d, lambda k, top: jnp.maximum(top, rise(k)), jnp.full(n, -jnp.inf))
    total, ends = lax.fori_loop(0, d, add, (jnp.zeros(n), jnp.zeros(n)))
    weights = lax.fori_loop(0, d, fill, jnp.zeros((d, n), jnp.float32))
    return weights, jnp.where(absorbing, 1, ends / total)


def _gcr(product_fn, precondition_fn, r: Array, target) -> tuple[Array, Array]:
    """Up to DIRECTIONS steps of GCR on A x = r; x and what is left of r.

    The directions z are kept as they come from the preconditioner, in single precision, and w = A z
    is computed from them in double, so that rounding z costs nothing.
    """
    n = r.shape[0]
    small = jnp.zeros((DIRECTIONS, n), jnp.float32)
    triangle = jnp.eye(DIRECTIONS, dtype=r.dtype)

    def unfinished(state):
        k, rest = state[0], state[1]
        return (k < DIRECTIONS) & (jnp.linalg.norm(rest) > target)

    def step(state):
        k, rest, zs, ws, triangle, along = state
        z = precondition_fn(rest)
        w = product_fn(z)
        size = jnp.linalg.norm(w)
        w = (w / jnp.where(size > 0, size, 1)).astype(jnp.float32)
        overlap = ws @ w
        w = w - overlap @ ws
        again = ws @ w
        w = w - again @ ws
        norm = jnp.linalg.norm(w)
        w = w / jnp.where(norm > 0, norm, 1)
        step_length = jnp.sum(w * rest)
        column = (size * (overlap + again)).astype(r.dtype)
        column = column.at[k].set(jnp.where(norm > 0, size * norm, 1))
        return (
            k + 1,
            rest - step_length * w,
            lax.dynamic_update_index_in_dim(zs, z, k, 0),
            lax.dynamic_update_index_in_dim(ws, w, k, 0),
            triangle.at[:, k].set(column),
            along.at[k].set(step_length),
        )

    along = jnp.zeros(DIRECTIONS, r.dtype)
    state = (0, r, small, small, triangle, along)
    _, rest, zs, _, triangle, along = lax.while_loop(unfinished, step, state)
    lengths = jax.scipy.linalg.solve_triangular(triangle, along)
    x = lax.fori_loop(0, DIRECTIONS, lambda k, x: x + lengths[k] * zs[k], jnp.zeros_like(r))
    return x, rest


def _start(problem: Problem) -> Array:
    """φ = -distance from the cheap states, by the decay that the local costs imply."""
    average = problem.criterion == "average"
    phi = jnp.zeros_like(problem.cost)
    if average:
        for _ in range(START_STEPS):
            phi, _ = _power(problem, phi)
            phi = phi - jnp.max(phi)
        residual = np.asarray(_residual(problem, phi))
        level = float(residual[int(np.argmax(np.asarray(phi)))])
    else:
        level = 0.0
    stay = np.asarray(stay_probabilities(problem.q))
    growth = np.exp(np.minimum(level + np.asarray(problem.beta * problem.cost), 700.0))
    cosh = np.maximum((growth - stay) / np.maximum(1 - stay, 1e-12), 1)
    kappa = np.arccosh(cosh)
    sources = np.asarray(problem.absorbing) if not average else kappa == 0
    if not sources.any():
        sources = kappa == kappa.min()
    indices = np.asarray(problem.q.indices)
    n = indices.shape[0]
    positive = np.asarray(problem.q.probabilities) > 0
    # From j to i: the distance of i is that of a successor j plus κ_i. scipy reads 0 as no edge.
    owners = np.repeat(np.arange(n, dtype=np.int32), positive.sum(axis=1))
    rows, columns = indices[positive].astype(np.int32), owners
    graph = scipy.sparse.csr_array((kappa[columns] + 1e-12, (rows, columns)), shape=(n, n))
    distance = csgraph.dijkstra(graph, indices=np.flatnonzero(sources), min_only=True)
    distance = np.where(np.isfinite(distance), distance, 0.0)
    return jnp.asarray(-distance)


@jax.jit
def _power(problem, phi):
    residual, policy = linearise(problem, phi)
    return power(problem, phi, residual, policy)
