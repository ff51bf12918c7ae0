"""Branch and bound over boxes: its state, and the rounds by which it goes on.

See `proving` for what is done in a round, and `processes` for how several processes share a search.
"""

import enum
import time

import numpy as np

from lyapjax.proofs.checkpoint import packed, unpacked
from lyapjax.proofs.cutting import cut, divided, measure, widest
from lyapjax.proofs.statements import Bounding
from lyapjax.readers import intervals as ia
from lyapjax.readers.compiled import SMALL, SMALL_BATCH, Bounded

ROUND = 16_384  # boxes, at most
NUM_TRIED = 3
NUM_CLIMBS = 12
CLIMB_AFTER = 8192


class End(enum.IntEnum):
    """How a search has ended; of several processes that share one, the least is that of all."""

    REFUTED = 0
    STUCK = 1
    BOXES = 2
    SECONDS = 3
    OPEN = 4
    PROVED = 5

    @property
    def is_over(self) -> bool:
        """Whether there was more to do, which a larger budget would allow."""
        return self in (End.BOXES, End.SECONDS)


def _climb(bounding: Bounding, lo, hi) -> np.ndarray:
    """Points of the boxes, after steps uphill in the margin, or downhill where outside.

    In floating point: these are only candidates.
    """
    forms, columns, least, most = bounding.statement.forms, np.arange(len(lo)), lo.T, hi.T
    sign, index, offset = forms.sign[:, None], forms.index, forms.offset[:, None]
    x, width = 0.5 * least + 0.5 * most, most - least
    best, found = np.full(len(lo), -ia.INF), x.copy()
    for turn in range(NUM_CLIMBS):
        outputs, slopes = bounding.gradients(x)
        values = sign * outputs[index] + offset
        worst = np.argmax(values[1:], axis=0) + 1 if len(values) > 1 else None
        here = np.full(len(lo), -1.0) if worst is None else values[worst, columns]
        direction = sign[0] * slopes[index[0]]
        if worst is not None:
            back = -sign[worst, 0] * slopes[index[worst], :, columns].T
            direction = np.where(here > 0, back, direction)
        better = (here <= 0) & (values[0] > best)
        best, found = np.where(better, values[0], best), np.where(better, x, found)
        size = np.abs(direction * width).max(axis=0)
        move = direction * width**2 / np.where((size > 0) & np.isfinite(size), size, ia.INF)
        x = np.clip(x + np.nan_to_num(move) * 0.75**turn, least, most)
    order = np.argsort(-best)[:NUM_TRIED]
    return found.T[order[best[order] >= 0]]


def _suspects(found: Bounded) -> np.ndarray:
    """The centres that are the likeliest counterexamples, likeliest first, (k, n)."""
    size = np.abs(found.value[np.isfinite(found.value)]).max(initial=0.0)
    places = np.flatnonzero(~found.finished & (found.lack <= SMALL * size))
    return found.centre.T[places[np.argsort(-found.value[places], kind="stable")[:NUM_TRIED]]]


def _take(stack: list, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to that many boxes from the end of the list."""
    los, his, count = [], [], 0
    while stack and count < limit:
        lo, hi = stack.pop()
        if count + len(lo) > limit:
            rest = limit - count
            stack.append((lo[rest:], hi[rest:]))
            lo, hi = lo[:rest], hi[:rest]
        los.append(lo)
        his.append(hi)
        count += len(lo)
    return np.concatenate(los), np.concatenate(his)


class Search:
    """A branch and bound for one statement.

    Attributes:
      stack: open boxes, (lo, hi) each, last in, first out.
      done: boxes that are proved.
      count: of boxes that were bounded.
      measure: the volume of the boxes that are proved.
      end: `End`, OPEN while there is more to do.
      point: the counterexample, None if there is none.
      hardest: the open box with the largest upper bound in the last round, or one that is stuck.
      bound: the upper bound of the hardest.
    """

    def __init__(self, bounding: Bounding, lo, hi, max_boxes: int, deadline: float):
        self.bounding, self.max_boxes, self.deadline = bounding, max_boxes, deadline
        self.everything = measure(lo, hi)
        # A few rounds of cutting blindly cost less than bounding boxes that are far too large.
        self.stack = [divided(lo, hi, bounding.smallest, SMALL_BATCH)]
        self.done, self.count, self.measure = [], 0, 0.0
        self.end, self.climb_at = End.OPEN, CLIMB_AFTER
        self.point, self.hardest, self.bound = None, None, -np.inf

    @property
    def is_open(self) -> bool:
        """Whether there is more to do."""
        return self.end is End.OPEN

    def state(self) -> dict:
        """What is to be saved."""
        counts = {"counts": np.array([self.count, self.climb_at]), "measure": self.measure}
        none = np.full(len(self.bounding.smallest), np.nan)
        counts["point"] = none if self.point is None else self.point
        counts["hardest"] = np.stack([none, none] if self.hardest is None else self.hardest)
        counts["end"] = np.array(End.OPEN if self.end.is_over else self.end)
        return {**packed("open", self.stack), **packed("done", self.done), **counts}

    def restore(self, known: dict | None) -> None:
        """Go on from what was saved, if anything was."""
        if known is None:
            return
        self.stack, self.done = unpacked("open", known), unpacked("done", known)
        self.count, self.climb_at = (int(v) for v in known["counts"])
        self.measure, self.end = float(known["measure"]), End(int(known["end"]))
        self.point = None if np.isnan(known["point"]).any() else known["point"]
        self.hardest = None if np.isnan(known["hardest"]).any() else tuple(known["hardest"])

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corners of the boxes that are proved."""
        empty = np.zeros((0, len(self.bounding.smallest)))
        return tuple(np.concatenate([empty, *(part[k] for part in self.done)]) for k in range(2))

    def step(self) -> None:
        """A round: bound some boxes, look for a counterexample, cut what is open."""
        limit = min(ROUND, max(self.max_boxes - self.count, SMALL_BATCH))
        self._bound(*_take(self.stack, limit))
        if not self.is_open:
            return
        if not self.stack:
            self.end = End.PROVED
        elif self.count >= self.max_boxes:
            self.end = End.BOXES
        elif time.perf_counter() > self.deadline:
            self.end = End.SECONDS

    def _bound(self, lo, hi) -> None:
        found = self.bounding(lo, hi)
        self.count += len(lo)
        points, finished = _suspects(found), found.finished
        open_ = ~finished
        self.done.append((lo[finished], hi[finished]))
        self.measure += measure(lo[finished], hi[finished])
        lo, hi, upper, axes = lo[open_], hi[open_], found.upper[open_], found.axes[:, open_]
        if self.count >= self.climb_at and len(lo) and not len(points):
            self.climb_at = 4 * self.count
            worst = np.argsort(-upper)[:SMALL_BATCH]
            points = _climb(self.bounding, lo[worst], hi[worst])
        for x in points:
            if self.bounding.statement.refuted_at(x):
                self.end, self.point = End.REFUTED, x
                return
        if not len(lo):
            return
        top = int(np.argmax(upper))
        self.hardest, self.bound = (lo[top], hi[top]), float(upper[top])
        new_lo, new_hi, stuck = cut(lo, hi, axes)
        if stuck.any():
            i = int(np.argmax(stuck))
            self.hardest, self.end = (lo[i], hi[i]), End.STUCK
            return
        if 4 * len(new_lo) <= SMALL_BATCH:  # places of a batch cost the same if empty
            *finer, stuck = cut(new_lo, new_hi, widest(new_lo, new_hi, self.bounding.smallest))
            new_lo, new_hi = (new_lo, new_hi) if stuck.any() else finer
        self.stack.append((new_lo, new_hi))
