"""A multilevel preconditioner for I - P, P a sparse stochastic matrix, by aggregation of states.

The generator A = D - W of a chain, W >= 0 the probabilities to other states, D = Σ_j W_ij + exit,
is coarsened by lumping states: with S the indicator of the aggregates,

    W_c = SᵀWS without its diagonal,        exit_c = Sᵀ exit,

which is again such a generator, on fewer states. Aggregates are the surroundings of a maximal set
of states no two of which are within two steps of each other (found in parallel, by random
priorities). Which states are lumped depends on the pattern of q alone, so it is found once; the
weights change with the policy and are summed anew.

A cycle smooths by damped Jacobi sweeps, solves the lumped problem by two steps of GCR with the
cycle below as preconditioner (a K-cycle: lumping alone converges ever more slowly as the number of
levels grows, two optimised steps do not), and smooths again. Lists are stored successor by
successor, (d, n), so that products are d long gathers. Coarse levels are padded to a few sizes,
so that problems of similar size share compiled code.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

COARSEST = 600
# The weights of the Jacobi sweeps: 1 moves information a whole step, 0.6 damps what alternates.
SWEEPS = (1.0, 0.6, 1.0, 0.6)
# Lumping is given up where it saves less than this.
MIN_SAVING = 0.75


class Level(NamedTuple):
    """The pattern of one level, and how it is lumped into the next one.

    Attributes:
      indices: (d, n) successors.
      aggregate: (n,) the aggregate of each state.
      target: (d, n) position of each entry of W in the flat (d_c, n_c) lists of the next level;
        d_c n_c for entries inside an aggregate.
    """

    indices: Array
    aggregate: Array
    target: Array


class Generator(NamedTuple):
    """The numbers of one level: A x = diagonal x - W x."""

    weights: Array
    exits: Array
    diagonal: Array


def build_levels(indices: Array, linked: np.ndarray) -> tuple[list[Level], Array]:
    """The levels of a pattern (d, n), and the pattern of the coarsest.

    `linked` (d, n): entries that count; the others may point anywhere.
    """
    levels: list[Level] = []
    n = indices.shape[1]
    while n > COARSEST:
        own = np.arange(n, dtype=np.int32)
        seen = np.where(linked, np.asarray(indices), own)
        root = np.array(_roots(jnp.asarray(seen)))
        alone = (seen == own).all(axis=0)
        if alone.any():
            # States without links have equations of their own; padding too.
            root[alone] = np.argmax(alone)
        used = np.zeros(n, bool)
        used[root] = True
        count = int(used.sum())
        aggregate = (np.cumsum(used, dtype=np.int32) - 1)[root]
        if count > MIN_SAVING * n:
            break
        # Entry by entry of the lists: (d, n) arrays of 64-bit keys would be most of the memory.
        distinct = np.unique(np.concatenate([_cross(aggregate, row, count)[1] for row in seen]))
        owner = distinct // count
        slot = np.arange(distinct.size) - np.searchsorted(owner, np.arange(count))[owner]
        width = _bucket(int(slot.max(initial=0)) + 1, 2)
        size = _bucket(count, 8)
        if width * size > MIN_SAVING * indices.size:
            break
        place = (slot * size + owner).astype(np.int32)
        target = np.full(seen.shape, width * size, np.int32)
        for row, into in zip(seen, target):
            cross, keys = _cross(aggregate, row, count)
            into[cross] = place[np.searchsorted(distinct, keys)]
        del seen
        coarse = np.tile(np.arange(size, dtype=np.int32), (width, 1))
        coarse[slot, owner] = distinct % count
        levels.append(
            Level(
                jnp.asarray(indices),
                jnp.asarray(aggregate),
                jnp.asarray(target),
            )
        )
        linked = coarse != np.arange(size)
        indices, n = coarse, size
    return levels, jnp.asarray(indices)


def _cross(aggregate: np.ndarray, successor: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Which states have a successor in another aggregate, and a number for each such pair."""
    column = aggregate[successor]
    cross = column != aggregate
    return cross, aggregate[cross].astype(np.int64) * count + column[cross]


def _bucket(number: int, parts: int) -> int:
    """`number` rounded up to one of `parts` sizes an octave."""
    step = max(1, 2 ** (number - 1).bit_length() // (2 * parts))
    return -(-number // step) * step


@jax.jit
def _roots(indices: Array) -> Array:
    """(n,) the root of each state's aggregate."""
    n = indices.shape[1]

    def spread(v):
        best = v
        for k in range(indices.shape[0]):
            best = jnp.maximum(best, v[indices[k]])
        return best

    priority = 1 + jax.random.permutation(jax.random.key(0), n).astype(jnp.int32)

    def undecided(state):
        return jnp.any(state == 0)

    def choose(state):
        value = jnp.where(state == 0, priority, 0)
        chosen = (state == 0) & (spread(spread(value)) == priority)
        covered = spread(spread(chosen.astype(jnp.int32))) > 0
        return jnp.where(chosen, 1, jnp.where(covered & (state == 0), -1, state))

    state = lax.while_loop(undecided, choose, jnp.zeros(n, jnp.int32))
    number = jnp.where(state == 1, jnp.arange(1, n + 1, dtype=jnp.int32), 0)
    near = spread(number)
    return jnp.where(near > 0, near, spread(near)) - 1


def fill_levels(levels: list[Level], last: Array, weights: Array, exits: Array) -> list[Generator]:
    """The generators of all levels, from the finest's weights (d, n) and exits (n,)."""
    generators = []
    shapes = [level.indices.shape for level in levels[1:]] + [last.shape]
    for level, (width, size) in zip(levels, shapes):
        diagonal = jnp.sum(weights, axis=0) + exits
        # A state that nothing leaves is padding, or one whose value is known.
        generators.append(Generator(weights, exits, jnp.where(diagonal > 0, diagonal, 1)))
        flat = jax.ops.segment_sum(
            weights.ravel(), level.target.ravel(), num_segments=width * size + 1
        )
        weights = flat[:-1].reshape(width, size)
        exits = jax.ops.segment_sum(exits, level.aggregate, num_segments=size)
    diagonal = jnp.sum(weights, axis=0) + exits
    generators.append(Generator(weights, exits, jnp.where(diagonal > 0, diagonal, 1)))
    return generators


def multiply(indices: Array, generator: Generator, x: Array) -> Array:
    """A x."""
    y = generator.diagonal * x
    for k in range(indices.shape[0]):
        y = y - generator.weights[k] * gather(x, indices[k])
    return y


def gather(x: Array, indices: Array) -> Array:
    """x[indices] for indices known to be in range; else XLA keeps a corrected copy of them."""
    return x.at[indices].get(mode="promise_in_bounds", wrap_negative_indices=False)


def invert_coarsest(last: Array, generator: Generator, law: Array | None) -> Array | None:
    """The inverse of the coarsest A; of A + s 1 lawᵀ, if constants make A singular."""
    n = last.shape[1]
    if n > COARSEST:
        return None
    A = jnp.zeros((n, n), jnp.float64)
    A = A.at[jnp.arange(n)[None, :], last].add(-generator.weights)
    A = A + jnp.diag(generator.diagonal)
    if law is not None:
        A = A + jnp.mean(generator.diagonal) * law[None, :]
    return jnp.linalg.inv(A).astype(generator.weights.dtype)


def _smooth(indices: Array, generator: Generator, r: Array, x: Array) -> Array:
    weights = jnp.asarray(SWEEPS, r.dtype)

    # A loop, so that a sweep is compiled once.
    def sweep(k, x):
        return x + weights[k] * (r - multiply(indices, generator, x)) / generator.diagonal

    return lax.fori_loop(0, len(SWEEPS), sweep, x)


def cycle(levels, generators, last, inverse, r: Array) -> Array:
    """An approximation of A⁻¹ r on the finest of these levels."""
    generator = generators[0]
    indices = levels[0].indices if levels else last
    if not levels and inverse is not None:
        return inverse @ r
    x = _smooth(indices, generator, r, jnp.zeros_like(r))
    if levels:
        level = levels[0]
        size = generators[1].exits.shape[0]
        rest = jax.ops.segment_sum(
            r - multiply(indices, generator, x), level.aggregate, num_segments=size
        )
        below = partial(cycle, levels[1:], generators[1:], last, inverse)
        if len(levels) > 1:
            lower = partial(multiply, levels[1].indices, generators[1])
            correction = _two_steps(lower, below, rest)
        else:
            correction = below(rest)
        x = x + gather(correction, level.aggregate)
    return _smooth(indices, generator, r, x)


def _two_steps(product_fn, precondition_fn, r: Array) -> Array:
    """Two steps of preconditioned GCR on A x = r; written as a loop to be compiled once."""
    zero = jnp.zeros_like(r)

    def step(_, state):
        x, rest, z_before, w_before = state
        z = precondition_fn(rest)
        w = product_fn(z)
        overlap = w @ w_before
        z, w = z - overlap * z_before, w - overlap * w_before
        norm = jnp.linalg.norm(w)
        norm = jnp.where(norm > 0, norm, 1)
        z, w = z / norm, w / norm
        along = w @ rest
        return x + along * z, rest - along * w, z, w

    return lax.fori_loop(0, 2, step, (zero, r, zero, zero))[0]
