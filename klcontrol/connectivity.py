"""Which states can reach which, and with what period: graph checks on known transitions, by scipy.

Everything here runs on the host, on the sparsity pattern of q (entries that are exactly zero are no
transitions).
"""

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph


def _reached(pattern: scipy.sparse.csr_array, start: int) -> np.ndarray:
    """Mask of the states that can be reached from `start`."""
    order = csgraph.breadth_first_order(pattern, start, return_predecessors=False)
    reached = np.zeros(pattern.shape[0], bool)
    reached[order] = True
    return reached


def first_unreachable(pattern: scipy.sparse.csr_array) -> tuple[int, int] | None:
    """States (i, j) such that j cannot be reached from i; None if the chain is irreducible.

    One of the two is state 0: a chain is strongly connected if state 0 reaches every state, and
    every state reaches state 0.
    """
    forward = _reached(pattern, 0)
    if not forward.all():
        return 0, int(np.argmin(forward))
    backward = _reached(pattern.T.tocsr(), 0)
    if not backward.all():
        return int(np.argmin(backward)), 0
    return None


def first_without_exit(pattern: scipy.sparse.csr_array, absorbing: np.ndarray) -> int | None:
    """The first state that can reach no absorbing state; None if all can."""
    n = pattern.shape[0]
    ends = np.flatnonzero(absorbing)
    # A further state n, from which one steps to each absorbing state, in the reversed graph.
    links = scipy.sparse.coo_array(
        (np.ones(ends.size), (np.full(ends.size, n), ends)), shape=(n + 1, n + 1)
    )
    reverse = pattern.T.tocoo()
    reverse = scipy.sparse.coo_array((reverse.data, reverse.coords), shape=(n + 1, n + 1))
    reached = _reached((reverse + links).tocsr(), n)
    return None if reached.all() else int(np.argmin(reached))


def cycle_period(pattern: scipy.sparse.csr_array) -> int:
    """The period of an irreducible chain: the greatest common divisor of its cycles' lengths.

    With d_i the number of steps from state 0 to i, that is the divisor of d_i + 1 - d_j over all
    transitions i -> j.
    """
    order, before = csgraph.breadth_first_order(pattern, 0)
    n = pattern.shape[0]
    # Depth by doubling: `before` jumps 1, 2, 4, … steps towards state 0.
    ancestor = np.where(before < 0, 0, before)
    ancestor[order[0]] = order[0]
    depth = (ancestor != np.arange(n)).astype(np.int64)
    while (ancestor != order[0]).any():
        depth += depth[ancestor]
        ancestor = ancestor[ancestor]
    edges = pattern.tocoo()
    rows, columns = edges.coords
    return int(np.gcd.reduce(np.abs(depth[rows] + 1 - depth[columns])))
