"""Boxes cut at their middle, so that nothing between the parts is lost.

The middle is a floating-point number, which both parts contain.
"""

import functools

import numpy as np

from lyapjax.readers import intervals as ia


def measure(lo: np.ndarray, hi: np.ndarray) -> float:
    """The volume of boxes; of faces, their area."""
    width = hi - lo
    return float(np.prod(np.where(width > 0, width, 1.0), axis=1).sum())


def cut(lo, hi, axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, n) in halves along axes[0], or in quarters along axes[1] too, where it is not -1.

    Also which of them cannot be cut, for these have no parts.
    """
    first, second = axes
    rows = np.arange(len(lo))
    middle = 0.5 * lo[rows, first] + 0.5 * hi[rows, first]
    stuck = (first < 0) | ~((lo[rows, first] < middle) & (middle < hi[rows, first]))
    if stuck.any():
        keep = ~stuck
        return *cut(lo[keep], hi[keep], axes[:, keep])[:2], stuck
    low, high = hi.copy(), lo.copy()
    low[rows, first] = high[rows, first] = middle
    lo, hi, second = np.concatenate([lo, high]), np.concatenate([low, hi]), np.tile(second, 2)
    again = second >= 0
    if again.any():
        axes = np.stack([second, np.full_like(second, -1)])[:, again]
        quarters = cut(lo[again], hi[again], axes)
        # A coordinate that cannot be cut is left as it is.
        again[again] = ~quarters[2]
        lo, hi = (
            np.concatenate([lo[~again], quarters[0]]),
            np.concatenate([hi[~again], quarters[1]]),
        )
    return lo, hi, stuck


def widest(lo, hi, smallest, *, quarters: bool = True) -> np.ndarray:
    """(2, N) the widest coordinate, and another if it is more than half as wide; -1 for none.

    Coordinates no wider than `smallest` (n,) are not cut.
    """
    middle = 0.5 * lo + 0.5 * hi
    can = (lo < middle) & (middle < hi) & (hi - lo > smallest)
    # In units of the region's extent, to which `smallest` is proportional.
    width = np.where(can, (hi - lo) / np.maximum(smallest, ia.TINY), -1.0)
    order, rows = np.argsort(-width, axis=1, kind="stable"), np.arange(len(lo))
    first, second = order[:, 0], order[:, min(1, lo.shape[1] - 1)]
    both = (width[rows, second] > 0.5 * width[rows, first]) & (first != second) & quarters
    return np.stack([np.where(can[rows, first], first, -1), np.where(both, second, -1)])


def divided(lo, hi, smallest, most: int) -> tuple[np.ndarray, np.ndarray]:
    """At most that many boxes, cut without looking at what they are for."""
    return _divided(lo.tobytes(), hi.tobytes(), smallest.tobytes(), lo.shape[1], most)


@functools.lru_cache(maxsize=64)
def _divided(lo: bytes, hi: bytes, smallest: bytes, n: int, most: int):
    """`divided`, once for all statements about the same boxes."""
    lo, hi = (np.frombuffer(v).reshape(-1, n) for v in (lo, hi))
    smallest = np.frombuffer(smallest)
    while 2 * len(lo) <= most:
        axes = widest(lo, hi, smallest, quarters=4 * len(lo) <= most)
        new_lo, new_hi, stuck = cut(lo, hi, axes)
        if stuck.all():
            break
        lo, hi = np.concatenate([new_lo, lo[stuck]]), np.concatenate([new_hi, hi[stuck]])
    for v in (lo, hi):
        v.setflags(write=False)
    return lo, hi
