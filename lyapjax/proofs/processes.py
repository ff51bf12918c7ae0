"""Proofs by several processes: each takes a share of the boxes, and all agree on the outcome.

After `jax.distributed.initialize`, every process calls `prove`, `verify`, `verify_shell` or
`certificate` (which proves a part again) with the same arguments. The first boxes are dealt out by
turns. After each round all tell how they stand: where one has a counterexample, or its budget is
spent, all end with that; where some have much less to do than others, the open boxes are put
together and dealt out again. At the end the boxes that are proved are put together too, so that
every process returns the same `Proof`, and one of them can save the certificate. What is exchanged
are bits, not numbers that could be rounded. All of it is determined by the statement and the number
of processes, up to budgets of time.

`verify_region` has few boxes, each of which costs much: there every process judges its share of a
batch, and all make the same search of what they put together (`agreed`, `gathered`).

Processes that were given different statements (other arguments, or guesses that came out
differently on another kind of machine) are told apart before the first round: a ValueError in each.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from lyapjax.proofs.branching import End, Search


def several() -> bool:
    """Whether this is one of several processes."""
    return jax.process_count() > 1


def check(what: str, checkpoint) -> None:
    """ValueError if not all processes prove the same, by its stamp, or if they keep files."""
    if not several():
        return
    if checkpoint is not None:
        raise ValueError("checkpoint: expected None, as several processes share the proof")
    mine = np.frombuffer(bytes.fromhex(what), np.int64)
    if (np.asarray(multihost_utils.process_allgather(mine)) != mine).any():
        raise ValueError(
            "prove: expected the same statement in all processes, got different ones; call it with "
            "the same arguments, on machines of one kind"
        )


def agreed(flag: bool) -> bool:
    """Whether any process says so."""
    if not several():
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.array(flag))).any())


def turn() -> slice:
    """Which entries of a list are this process's share."""
    return slice(jax.process_index(), None, jax.process_count())


def begin(search: Search, what: str, keeper_fn) -> None:
    """Deal out the first boxes; ValueError if not all processes prove the same, or keep files."""
    if not several():
        return
    check(what, keeper_fn)
    lo, hi = search.stack[0]
    search.max_boxes = -(-search.max_boxes // jax.process_count())
    _deal(search, lo, hi)


def exchange(search: Search, seconds: float) -> float:
    """Agree on how the search stands, share what is open, and at the end put together what is done.

    Returns the longest time that any process took.
    """
    n = len(search.bounding.smallest)
    none = np.full(n, np.nan)
    lo, hi = (none, none) if search.hardest is None else search.hardest
    point = none if search.point is None else search.point
    num_open = sum(len(part[0]) for part in search.stack)
    numbers = [search.end, seconds, num_open, search.bound]
    found = np.stack(gathered(np.concatenate([numbers, point, lo, hi])[None]))[:, 0]
    ends, times, left, bounds = found[:, :4].T
    search.end = End(int(ends.min()))
    if not search.is_open:
        # Of those that ended so: the first, or where nothing more is known the hardest box.
        chosen = np.flatnonzero(ends == ends.min())[0]
        if search.end.is_over:
            chosen = int(np.argmax(bounds))
        point, lo, hi = np.split(found[chosen, 4:], 3)
        search.point = None if np.isnan(point).any() else point
        search.hardest = None if np.isnan(lo).any() else (lo, hi)
        totals = gathered(np.array([[search.count, search.measure]]))
        search.count, search.measure = (
            int(sum(t[0, 0] for t in totals)),
            sum(t[0, 1] for t in totals),
        )
        boxes = np.concatenate(gathered(np.concatenate(search.finished(), axis=1)))
        search.done = [(boxes[:, :n], boxes[:, n:])]
    elif 2 * left.min() < left.max():
        rows = [np.concatenate(part, axis=1) for part in search.stack]
        boxes = np.concatenate(gathered(np.concatenate([np.zeros((0, 2 * n)), *rows])))
        _deal(search, boxes[:, :n], boxes[:, n:])
    return float(times.max())


def _deal(search: Search, lo, hi) -> None:
    """Each process its share, by turns."""
    lo, hi = lo[turn()], hi[turn()]
    search.stack = [(lo, hi)] if len(lo) else []
    search.end = End.OPEN if search.stack else End.PROVED


def gathered(rows: np.ndarray) -> list[np.ndarray]:
    """The rows (N, m) of each process, bit for bit; N may differ, and m where N is 0."""
    shapes = np.asarray(multihost_utils.process_allgather(np.array(rows.shape))).reshape(-1, 2)
    num, width = shapes.max(axis=0)
    size = 1 << max(int(num) - 1, 0).bit_length()  # a few sizes, each compiled once
    padded = np.zeros((size, width))
    padded[: len(rows), : rows.shape[1]] = rows
    found = np.asarray(multihost_utils.process_allgather(padded.view(np.int64)))
    return [part[:count].view(np.float64) for part, count in zip(found, shapes[:, 0])]
