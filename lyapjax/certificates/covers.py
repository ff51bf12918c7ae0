"""Whether boxes cover a box, decided by comparisons of floats alone."""

import numpy as np


def is_covered(lo: np.ndarray, hi: np.ndarray, los: np.ndarray, his: np.ndarray) -> bool:
    """Whether boxes cover a box: by cutting it where no box is cut, down to single ones.

    Sufficient, and also necessary for boxes that came from cutting.
    """
    if not los.shape == his.shape == (len(los), len(lo)):
        return False
    work = [(lo, hi, los, his)]
    while work:
        lo, hi, los, his = work.pop()
        if ((los <= lo) & (his >= hi)).all(axis=1).any():
            continue
        meets = np.where(lo < hi, (los < hi) & (his > lo), (los <= lo) & (his >= hi)).all(axis=1)
        los, his = los[meets], his[meets]
        cut = clean_cut(lo, hi, los, his)
        if cut is None:
            return False
        axis, at = cut
        left, right = los[:, axis] < at, his[:, axis] > at
        middle_hi, middle_lo = hi.copy(), lo.copy()
        middle_hi[axis] = middle_lo[axis] = at
        work += [(lo, middle_hi, los[left], his[left]), (middle_lo, hi, los[right], his[right])]
    return True


def clean_cut(lo, hi, los, his) -> tuple[int, float] | None:
    """A plane through the box that no box crosses; halves first, as they were made.

    Boxes that fill the space between them are met at their lower sides already.
    """
    middle = 0.5 * lo + 0.5 * hi
    for sides in (los, his):
        for axis in range(len(lo)):
            places = sides[:, axis]
            places = np.unique(places[(places > lo[axis]) & (places < hi[axis])])
            nearest = places[np.argsort(np.abs(places - middle[axis]), kind="stable")]
            for at in nearest.tolist():
                if not ((los[:, axis] < at) & (his[:, axis] > at)).any():
                    return axis, at
    return None
