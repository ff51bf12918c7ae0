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
import functools
import time
from collections.abc import Callable

import numpy as np

from lyapjax.proofs import processes
from lyapjax.proofs.branching import ROUND, End, Search
from lyapjax.proofs.checkpoint import Checkpoint, stamp
from lyapjax.proofs.statements import Bounding, Statement, statement_of


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
        keeper_fn=None if checkpoint is None else functools.partial(Checkpoint, checkpoint),
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
    keeper_fn: Callable | None = None,
) -> Proof:
    """`prove`, of a statement that has been read; `keeper_fn` gives the keeper of its state."""
    start = time.perf_counter() if start is None else start
    smallest = rtol * (hi.max(axis=0) - lo.min(axis=0))
    before = time.perf_counter()
    bounding = Bounding(statement, lo, hi, smallest)
    start += time.perf_counter() - before  # compiling does not count
    search = Search(bounding, lo, hi, max_boxes, start + max_seconds)
    keeper = None
    if keeper_fn is not None or processes.several():
        what = stamp(statement.program, tuple(statement.forms), lo, hi, rtol)
        processes.begin(search, what, keeper_fn)
    if keeper_fn is not None:
        keeper = keeper_fn(what)
        search.restore(keeper.load())
    while True:
        together = search.count + ROUND
        while search.is_open and search.count < together:
            search.step()
            if keeper is not None and (search.end.is_over or keeper.is_due):
                keeper.save(search.state())
            if callback_fn is not None:
                callback_fn(search.measure / search.everything, search.count)
        seconds = time.perf_counter() - start
        if processes.several():
            seconds = processes.exchange(search, seconds)
        if not search.is_open:
            break
    if keeper is not None and not search.end.is_over:
        keeper.ended(search.state())
    return _proof(search, max_seconds, seconds)


def _proof(search: Search, max_seconds: float, seconds: float) -> Proof:
    """What a search that has ended says."""
    end, share = search.end, search.measure / search.everything
    verdict = {End.PROVED: Verdict.PROVED, End.REFUTED: Verdict.REFUTED}.get(end, Verdict.UNKNOWN)
    point = search.point if end is End.REFUTED else None
    if end is End.STUCK:
        middle = (0.5 * search.hardest[0] + 0.5 * search.hardest[1]).tolist()
    reason = {
        End.PROVED: lambda: "",
        End.REFUTED: lambda: f"the margin is not negative at {point.tolist()}",
        End.STUCK: lambda: f"a box of the smallest size is open, around {middle}",
        End.BOXES: lambda: f"not finished within {search.count} boxes",
        End.SECONDS: lambda: f"not finished within {max_seconds:g} seconds",
    }[end]()
    if verdict is Verdict.UNKNOWN:
        reason += f"; {share:.3%} of the volume is proved"
    proved = verdict is Verdict.PROVED
    return Proof(
        verdict,
        reason,
        point,
        1.0 if proved else min(share, 1.0),
        search.count,
        seconds,
        *search.finished(),
        None if proved else search.hardest,
    )
