"""Random steps of a chain: alias tables and a counter-based generator, both exact to the bit.

Row i of q is turned into integers m_ij > 0 for q_ij > 0 that sum to 2³² exactly, and those into an
alias table with D slots, a power of two: one 32-bit word chooses the slot with its low bits and
accepts or takes the alias with the others. The sampled law is m_ij / 2³² without any further error,
within d 2⁻³² of q_ij for d successors; a successor of probability zero is never taken.

Words come from Threefry-2×32 with 13 rounds (Salmon, Moraes, Dror and Shaw, 2011; the fewest that
pass BigCrush), keyed by the user's key and counting (time, chain), so that chain b at time t draws
the same word however the chains are batched.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from klcontrol.dynamics import as_neighbours, is_concrete

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
ROUNDS = 13
UNIT = 2**32


class AliasTable(NamedTuple):
    """Alias tables of all rows of q.

        P(i -> j) = m_ij / 2³²

    Attributes:
      keep: (n, D) uint32: slot s of state i keeps its own successor if the upper bits of the word
        are below keep[i, s].
      target: (n, D, 2) int32: the slot's own successor, and its alias.

    Examples:
      >>> import numpy as np, klcontrol
      >>> klcontrol.alias_table(np.full((2, 2), 0.5)).target[0].tolist()
      [[0, 0], [1, 1]]
    """

    keep: Array
    target: Array


def alias_table(q) -> AliasTable:
    """Tables from which a step of q is drawn in O(1), whatever the number of successors.

        m_ij ≈ 2³² q_ij,    Σ_j m_ij = 2³²

    Args:
      q: passive dynamics with known entries: array, `Neighbours`, BCSR, scipy sparse.

    Returns:
      `AliasTable`: 12 bytes a slot, successors of a state rounded up to a power of two.

    Raises:
      ValueError: q is a function or traced, or the table would not fit 32-bit indices.

    Reference:
      Walker (1977), by integers, always the poorest slot from the richest.

    Examples:
      >>> import numpy as np, klcontrol
      >>> klcontrol.alias_table(np.array([[0.0, 1.0], [0.25, 0.75]])).keep.shape
      (2, 2)
    """
    if callable(q):
        raise ValueError(
            "q: a function has no entries to sample from; give an array or Neighbours, or feed "
            "observed transitions to Algorithm.step"
        )
    lists = as_neighbours(q)
    if not is_concrete(*lists):
        raise ValueError("q: the entries must be known; call alias_table(q) outside jit")
    indices = np.asarray(lists.indices, np.int64)
    masses = _integer_masses(np.asarray(lists.probabilities, np.float64))
    n, d = masses.shape
    slots = max(2, 1 << (d - 1).bit_length())
    if 2 * n * slots >= 2**31:
        raise ValueError(f"q: {n} states with {slots} slots each do not fit 32-bit indices")
    # Padded slots point to a real successor with mass zero: never taken.
    likely = indices[np.arange(n), masses.argmax(axis=1)][:, None]
    own = np.concatenate([indices, np.repeat(likely, slots - d, axis=1)], axis=1)
    mass = np.concatenate([masses, np.zeros((n, slots - d), np.int64)], axis=1)
    capacity = UNIT // slots
    keep = np.full((n, slots), capacity, np.int64)
    alias = np.tile(np.arange(slots), (n, 1))
    rows = np.arange(n)
    open_slots = np.ones((n, slots), bool)
    for _ in range(slots - 1):
        poorest = np.where(open_slots, mass, UNIT + 1).argmin(axis=1)
        richest = np.where(open_slots, mass, -1).argmax(axis=1)
        short = mass[rows, poorest] < capacity  # otherwise all that are open are exactly full
        i, s, r = rows[short], poorest[short], richest[short]
        keep[i, s], alias[i, s] = mass[i, s], r
        mass[i, r] -= capacity - mass[i, s]
        open_slots[rows, poorest] = False
    target = np.stack([own, own[rows[:, None], alias]], axis=-1)
    return AliasTable(jnp.asarray(keep.astype(np.uint32)), jnp.asarray(target.astype(np.int32)))


def _integer_masses(q: np.ndarray) -> np.ndarray:
    """Rows of integers that sum to 2³², positive where q is."""
    exact = q / q.sum(axis=1, keepdims=True) * UNIT
    masses = np.where(q > 0, np.maximum(np.floor(exact), 1), 0).astype(np.int64)
    rows = np.arange(len(q))
    masses[rows, masses.argmax(axis=1)] += UNIT - masses.sum(axis=1)
    return masses


def draw(table: AliasTable, x: Array, word: Array) -> Array:
    """The successor of x that a uniform 32-bit word chooses; x and word of one shape."""
    slots = table.keep.shape[1]
    bits = slots.bit_length() - 1
    slot = x * slots + (word & jnp.uint32(slots - 1)).astype(jnp.int32)
    keep = table.keep.ravel().at[slot].get(mode="promise_in_bounds")
    rejected = (word >> bits) >= keep
    index = 2 * slot + rejected.astype(jnp.int32)
    return table.target.ravel().at[index].get(mode="promise_in_bounds")


def threefry(key: tuple[Array, Array], high: Array, low: Array) -> tuple[Array, Array]:
    """Two uniform words for each pair of 32-bit counters."""
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    a, b = high + keys[0], low + keys[1]
    for r in range(ROUNDS):
        turn = ROTATIONS[r % 8]
        a = a + b
        b = ((b << turn) | (b >> (32 - turn))) ^ a
        if r % 4 == 3:
            j = r // 4 + 1
            a, b = a + keys[j % 3], b + keys[(j + 1) % 3] + jnp.uint32(j)
    return a, b
