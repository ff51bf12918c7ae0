"""`prove`: an inequality on every point of a union of boxes, by branch and bound.

    margin(x) < 0   for every x in the boxes with where(x) <= 0

A box is done if the upper bound of the margin is below 0, or the lower bound of some entry of
`where` above 0. Boxes that are not are cut at their middle, along the coordinate on which the
bounds depend most (along two, if both matter), until none is left; if there are few, twice, since
empty places of a batch cost as much as full ones. The boxes of a round are bounded
together, in batches of fixed sizes on all cores and devices (see `spreading`). What a round is does
not depend on how many there are, so neither do the boxes of the proof. The list of open boxes lives
on the host, last in, first out, so that it stays short.

In every box the place where the bounds say that the margin is greatest is a candidate for a
counterexample; and when a proof becomes long, the open boxes with the largest bounds are where a
gradient search for one starts. A point at which the margin seems not to be negative is read
again in ball arithmetic, and only then called a counterexample. Cutting at a floating-point number
gives two boxes that share it, so nothing between them is lost, and NaN is never below 0, so nothing
is proved by it.
"""

import dataclasses
import enum
import time
from collections.abc import Callable

import numpy as np

from lyapjax.proofs.checkpoint import Checkpoint, packed, stamp, unpacked
from lyapjax.proofs.cutting import cut, divided, measure, widest
from lyapjax.proofs.statements import Bounding, Statement, statement_of
from lyapjax.readers import intervals as ia
from lyapjax.readers.compiled import SMALL, SMALL_BATCH, Bounded

ROUND = 16_384  # boxes, at most
NUM_TRIED = 3
NUM_CLIMBS = 12
CLIMB_AFTER = 8192


class Verdict(enum.Enum):
    """What is known of a statement.

    Attributes:
      PROVED: it holds for every point.
      REFUTED: a counterexample was checked in ball arithmetic.
      UNKNOWN: neither, within the budget or to the resolution of floating point.

    Examples:
      >>> import lyapjax as ly
      >>> ly.Verdict.PROVED.value
      'PROVED'
    """

    PROVED = "PROVED"
    REFUTED = "REFUTED"
    UNKNOWN = "UNKNOWN"


@dataclasses.dataclass(frozen=True)
class Proof:
    """The outcome of `prove`.

    Attributes:
      verdict: `Verdict`.
      reason: in words, why it is UNKNOWN, or what was refuted; "" if proved.
      point: (n,) the counterexample, None unless REFUTED.
      share: of the volume, how much is proved, from 0 to 1.
      num_boxes: how many boxes were bounded.
      seconds: wall-clock time, without that of compiling.
      lo: (N, n) lower corners of the boxes of the proof, which cover the region.
      hi: (N, n) their upper corners.
      hardest: the open box with the largest upper bound as (lo, hi), None if none is open.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> p = ly.prove(lambda x: x[0] - 2.0, jnp.zeros(1), jnp.full(1, 3.0))
      >>> p.verdict.value, bool(p.point[0] >= 2)
      ('REFUTED', True)
    """

    verdict: Verdict
    reason: str
    point: np.ndarray | None
    share: float
    num_boxes: int
    seconds: float
    lo: np.ndarray
    hi: np.ndarray
    hardest: tuple[np.ndarray, np.ndarray] | None

    @property
    def proved(self) -> bool:
        """Whether the statement holds."""
        return self.verdict is Verdict.PROVED


def _check_boxes(lo, hi):
    lo, hi = (np.atleast_2d(np.asarray(v)) for v in (lo, hi))
    for name, v in (("lo", lo), ("hi", hi)):
        if v.dtype != np.float64:
            raise ValueError(f"{name}: expected float64, got {v.dtype}")
    if lo.shape != hi.shape or lo.ndim != 2 or lo.size == 0:
        raise ValueError(f"hi: expected corners (n,) or (N, n) like lo, got {lo.shape}, {hi.shape}")
    if not (np.isfinite(lo).all() and np.isfinite(hi).all() and (lo <= hi).all()):
        raise ValueError("lo: expected finite corners with lo <= hi, and no NaN")
    return lo, hi


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


def prove(
    margin_fn: Callable,
    lo,
    hi,
    *,
    where_fn: Callable | None = None,
    max_boxes: int = 2_000_000,
    max_seconds: float = 60.0,
    rtol: float = 1e-9,
    callback_fn: Callable[[float, int], None] | None = None,
    checkpoint=None,
) -> Proof:
    """Prove an inequality for every point of a union of boxes.

        margin(x) < 0   for every x in the boxes with where(x) <= 0

    Runs on the host, outside of `jit`. PROVED is a statement about the real numbers; see
    `lyapjax.readers.enclosure` for what it rests on.

    Args:
      margin_fn: (n,) -> () JAX function of the supported primitives.
      lo: (n,) or (N, n) lower corners of the boxes.
      hi: upper corners; equal to lo in a coordinate for faces.
      where_fn: (n,) -> (k,) function; only points where no entry is positive matter. None for all.
      max_boxes: how many boxes are bounded before giving up.
      max_seconds: how long to try, compilation not counted; checked between batches.
      rtol: boxes are not cut below this share of the first boxes' extent.
      callback_fn: called with (share proved, boxes bounded) after each batch.
      checkpoint: a path; every half minute, and when the budget is over, what is open and what is
        done is written there, and a call with a file there goes on from it, the count of boxes
        included. The file is removed when the statement is decided.

    Returns:
      `Proof`: PROVED, REFUTED with a point, or UNKNOWN with a reason.

    Raises:
      ValueError: float32, bad boxes, a margin that is not a number, a checkpoint of another proof.
      NotImplementedError: a primitive without a rule, by its name.

    Reference:
      Chang, Roohi & Gao, section 3.2, where dReal does this up to a tolerance δ. Departure: strict,
      without δ.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> lo, hi = jnp.full(2, -3.0), jnp.full(2, 3.0)
      >>> ring = lambda x: jnp.stack([1.0 - x @ x, x @ x - 4.0])
      >>> ly.prove(lambda x: jnp.sin(x[0]) * x[1] - x @ x, lo, hi, where_fn=ring).verdict.value
      'PROVED'
    """
    start = time.perf_counter()
    lo, hi = _check_boxes(lo, hi)
    statement = statement_of(margin_fn, where_fn, lo.shape[1])
    return prove_statement(
        statement,
        lo,
        hi,
        max_boxes=max_boxes,
        max_seconds=max_seconds,
        rtol=rtol,
        callback_fn=callback_fn,
        start=start,
        checkpoint=checkpoint,
    )


def prove_statement(
    statement: Statement,
    lo: np.ndarray,
    hi: np.ndarray,
    *,
    max_boxes: int,
    max_seconds: float,
    rtol: float = 1e-9,
    callback_fn: Callable[[float, int], None] | None = None,
    start: float | None = None,
    checkpoint=None,
) -> Proof:
    """`prove`, of a statement that has been read."""
    start = time.perf_counter() if start is None else start
    n = lo.shape[1]
    smallest = rtol * (hi.max(axis=0) - lo.min(axis=0))
    before = time.perf_counter()
    bounding, climb_at = Bounding(statement, lo, hi, smallest), CLIMB_AFTER
    start += time.perf_counter() - before  # compiling does not count
    keeper, known = None, None
    if checkpoint is not None:
        what = stamp(statement.program, tuple(statement.forms), lo, hi, rtol)
        keeper = Checkpoint(checkpoint, what)
        known = keeper.load()
    everything, done_measure = measure(lo, hi), 0.0
    # A few rounds of cutting blindly cost less than bounding boxes that are far too large.
    lo, hi = divided(lo, hi, smallest, SMALL_BATCH)
    stack, done, count = [(lo, hi)], [], 0
    verdict, reason, point = Verdict.PROVED, "", None
    hardest = None
    if known is not None:
        stack, done = unpacked("open", known), unpacked("done", known)
        count, climb_at = (int(v) for v in known["counts"])
        done_measure = float(known["measure"])
    while stack:
        over = count >= max_boxes or time.perf_counter() - start > max_seconds
        if keeper is not None and count and (over or keeper.is_due):
            counts = {"counts": np.array([count, climb_at]), "measure": done_measure}
            keeper.save({**packed("open", stack), **packed("done", done), **counts})
        if count and over:
            what = f"{count} boxes" if count >= max_boxes else f"{max_seconds:g} seconds"
            verdict, reason = Verdict.UNKNOWN, f"not finished within {what}"
            break
        lo, hi = _take(stack, min(ROUND, max(max_boxes - count, SMALL_BATCH)))
        found = bounding(lo, hi)
        count += len(lo)
        points, finished = _suspects(found), found.finished
        open_ = ~finished
        done.append((lo[finished], hi[finished]))
        done_measure += measure(lo[finished], hi[finished])
        lo, hi, upper, axes = lo[open_], hi[open_], found.upper[open_], found.axes[:, open_]
        if count >= climb_at and len(lo) and not len(points):
            climb_at = 4 * count
            worst = np.argsort(-upper)[:SMALL_BATCH]
            points = _climb(bounding, lo[worst], hi[worst])
        for x in points:
            if statement.refuted_at(x):
                verdict, point = Verdict.REFUTED, x
                reason = f"the margin is not negative at {x.tolist()}"
                break
        if callback_fn is not None:
            callback_fn(done_measure / everything, count)
        if verdict is Verdict.REFUTED:
            break
        if len(lo):
            top = int(np.argmax(upper))
            hardest = lo[top], hi[top]
            new_lo, new_hi, stuck = cut(lo, hi, axes)
            if stuck.any():
                i = int(np.argmax(stuck))
                hardest = (lo[i], hi[i])
                verdict = Verdict.UNKNOWN
                middle = (0.5 * lo[i] + 0.5 * hi[i]).tolist()
                reason = f"a box of the smallest size is open, around {middle}"
                break
            if 4 * len(new_lo) <= SMALL_BATCH:  # places of a batch cost the same if empty
                *finer, stuck = cut(new_lo, new_hi, widest(new_lo, new_hi, smallest))
                new_lo, new_hi = (new_lo, new_hi) if stuck.any() else finer
            stack.append((new_lo, new_hi))
    if keeper is not None and verdict is not Verdict.UNKNOWN:
        keeper.remove()
    if verdict is Verdict.UNKNOWN:
        reason += f"; {done_measure / everything:.3%} of the volume is proved"
    empty = np.zeros((0, n))
    return Proof(
        verdict,
        reason,
        point,
        1.0 if verdict is Verdict.PROVED else min(done_measure / everything, 1.0),
        count,
        time.perf_counter() - start,
        np.concatenate([empty, *(d[0] for d in done)]),
        np.concatenate([empty, *(d[1] for d in done)]),
        None if verdict is Verdict.PROVED else hardest,
    )
