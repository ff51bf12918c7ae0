"""Passive dynamics in their several forms: dense, lists of successors, sparse, a function.

    (q z)_i = Σ_j q_ij z_j

`Neighbours` is the form that scales: n states with d successors each are two (n, d) arrays, and
q z is a gather and a sum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from jax.experimental.sparse import BCSR

from klcontrol.connectivity import cycle_period, first_unreachable

# Padded lists may hold this many times the entries of a sparse matrix, and no more.
MAX_PADDING = 64
# Lists up to this long are unrolled.
MAX_UNROLLED = 16


class Neighbours(NamedTuple):
    """The successors of each state, in lists of one length.

        (q z)_i = Σ_k probabilities[i, k] z[indices[i, k]]

    Lists are padded with probability 0 and any valid index. A successor may occur twice.

    Attributes:
      indices: (n, d) integers, the states that can follow.
      probabilities: (n, d) their probabilities.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> ring = klcontrol.Neighbours(jnp.array([[1], [2], [0]]), jnp.ones((3, 1)))
      >>> klcontrol.as_dense(ring).tolist()
      [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    indices: Array
    probabilities: Array


def apply(q, z) -> Array:
    """The expected value of z after a step of the passive dynamics.

        (q z)_i = Σ_j q_ij z_j

    Args:
      q: passive dynamics in any form of `Problem.q`.
      z: (n,) a number a state.

    Returns:
      (n,) q z.

    Raises:
      ValueError: q is in none of the forms.

    Reference:
      The paper's section 3; it is what the power method needs of q.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.apply(jnp.full((2, 2), 0.5), jnp.array([1.0, 3.0])).tolist()
      [2.0, 2.0]
    """
    if isinstance(q, Neighbours):
        z, length = jnp.asarray(z), q.indices.shape[-1]
        if length > MAX_UNROLLED:
            return jnp.sum(q.probabilities * z[q.indices], axis=-1)
        # Successor by successor: XLA fuses this into one pass, several times as fast.
        columns = range(length)
        return sum(q.probabilities[:, k] * z[q.indices[:, k]] for k in columns)
    if isinstance(q, (BCSR, np.ndarray, Array)):
        return q @ jnp.asarray(z)
    if scipy.sparse.issparse(q):
        return apply(as_neighbours(q), z)
    if callable(q):
        return q(z)
    raise ValueError(f"q: expected an array, Neighbours, BCSR or a function, got {type(q)}")


def as_dense(q) -> Array:
    """The passive dynamics as a dense matrix.

        q_ij = Σ_{k: indices[i, k] = j} probabilities[i, k]

    Args:
      q: array, `Neighbours`, BCSR or a sparse matrix of scipy.

    Returns:
      (n, n) array.

    Raises:
      ValueError: q is a function, whose entries are not known, or in none of the forms.

    Reference:
      None; a change of form.

    Examples:
      >>> import numpy as np, scipy.sparse, klcontrol
      >>> klcontrol.as_dense(scipy.sparse.csr_array(np.eye(2))).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    if isinstance(q, Neighbours):
        n = q.indices.shape[0]
        rows = jnp.arange(n)[:, None]
        zero = jnp.zeros((n, n), q.probabilities.dtype)
        return zero.at[rows, q.indices].add(q.probabilities)
    if isinstance(q, BCSR) or scipy.sparse.issparse(q):
        return jnp.asarray(q.todense())
    if isinstance(q, (np.ndarray, Array)):
        return jnp.asarray(q)
    raise ValueError(f"q: expected entries (an array, Neighbours, BCSR), got {type(q)}")


def as_neighbours(q) -> Neighbours:
    """The passive dynamics as lists of successors.

        q_ij > 0   =>   j is in the list of i, with probability q_ij

    Args:
      q: `Neighbours`, an array, BCSR or a sparse matrix of scipy, whose pattern is known (not
        traced).

    Returns:
      `Neighbours` as long as the longest list, in the order of the columns.

    Raises:
      ValueError: q is a function, or traced, or one state has so many more successors than the
        others that padded lists would be wasteful.

    Reference:
      None; a change of form.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.as_neighbours(jnp.array([[0.0, 1.0], [0.5, 0.5]])).indices.tolist()
      [[1, 0], [0, 1]]
    """
    if isinstance(q, Neighbours):
        return q
    if isinstance(q, BCSR):
        if not is_concrete(q.indices, q.indptr):
            raise ValueError(
                "q: the pattern of a BCSR must be known; call as_neighbours(q) outside jit"
            )
        # Values may be traced, so they are only moved, by positions that are known.
        indptr, columns = np.asarray(q.indptr), np.asarray(q.indices)
        order = np.arange(columns.size)
        data = q.data
    else:
        if isinstance(q, (np.ndarray, Array)) and is_concrete(q):
            q = scipy.sparse.csr_array(np.asarray(q))
        if not scipy.sparse.issparse(q):
            raise ValueError(f"q: expected known entries, got {type(q)}")
        q = scipy.sparse.csr_array(q)
        q.sum_duplicates()
        q.eliminate_zeros()
        indptr, columns, data = q.indptr, q.indices, jnp.asarray(q.data)
        order = np.arange(columns.size)
    counts = np.diff(indptr)
    n, d = counts.size, max(int(counts.max(initial=0)), 1)
    if n * d > MAX_PADDING * max(columns.size, n):
        raise ValueError(
            f"q: state {int(np.argmax(counts))} has {d} successors where the mean is "
            f"{counts.mean():.1f}; lists padded to that length are wasteful: give q as a function "
            "z -> q z"
        )
    rows = np.repeat(np.arange(n), counts)
    slots = order - np.repeat(indptr[:-1], counts)
    # Padding points to the state itself, which is near in memory.
    indices = np.tile(np.arange(n, dtype=np.int32)[:, None], (1, d))
    indices[rows, slots] = columns
    if isinstance(data, jax.core.Tracer):
        indices[rows, slots] = columns
        return Neighbours(
            jnp.asarray(indices), jnp.zeros((n, d), data.dtype).at[rows, slots].set(data)
        )
    spare = np.ones((n, d), bool)
    spare[rows, slots] = False
    indices[rows, slots] = columns
    probabilities = np.zeros((n, d), np.asarray(data).dtype)
    probabilities[rows, slots] = np.asarray(data)
    return Neighbours(jnp.asarray(indices), jnp.asarray(probabilities))


def period(q) -> int:
    """The period of an irreducible chain; the power method converges if it is 1.

        gcd { m > 0 : (q^m)_ii > 0 },    the same for every i

    Args:
      q: passive dynamics with known entries.

    Returns:
      The period, an integer.

    Raises:
      ValueError: q is a function or traced, or the chain is not irreducible.

    Reference:
      Aperiodicity is a hypothesis of the paper's Lemma 3.4.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.period(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
      2
    """
    found = pattern(q)
    if found is None:
        raise ValueError(f"q: expected known entries, got {type(q)}")
    pair = first_unreachable(found)
    if pair is not None:
        raise ValueError(f"q: state {pair[1]} cannot be reached from state {pair[0]}")
    return cycle_period(found)


def stay_probabilities(q) -> Array:
    """(n,) q_ii."""
    if isinstance(q, Neighbours):
        own = jnp.arange(q.indices.shape[0])[:, None]
        return jnp.sum(jnp.where(q.indices == own, q.probabilities, 0), axis=-1)
    if isinstance(q, Array):
        return jnp.diagonal(q)
    raise ValueError("criterion: 'total' needs the entries of q, not a function")


def pattern(q) -> scipy.sparse.csr_array | None:
    """The transitions of positive probability, on the host; None if they are not known."""
    if isinstance(q, (np.ndarray, Array)) and is_concrete(q):
        return scipy.sparse.csr_array(np.asarray(q) > 0)
    if isinstance(q, Neighbours) and is_concrete(*q):
        indices, positive = np.asarray(q.indices), np.asarray(q.probabilities) > 0
        n = indices.shape[0]
        indptr = np.concatenate([[0], np.cumsum(positive.sum(axis=1))])
        columns = indices[positive]
        return scipy.sparse.csr_array((np.ones(columns.size, bool), columns, indptr), shape=(n, n))
    return None


def is_concrete(*values) -> bool:
    """Whether every value is known now, so that its entries can be checked."""
    return not any(isinstance(v, jax.core.Tracer) for v in values)
