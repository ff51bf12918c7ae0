"""Side-by-side benchmarks: ratios of medians from interleaved runs in one process.

A package's folder has `benchmarks.rows(quick) -> list[Row]`. A row prepares its data when its turn
comes, checks that all contestants agree, and then times them in turns. Only ratios are claimed.
"""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

from rich.progress import track

from experiments import provenance, runner
from experiments.catalogue import benchmark_rows
from experiments.measuring import interleaved


@dataclasses.dataclass(frozen=True)
class Contest:
    """Prepared calls of a row.

    `difference` is the largest relative difference between our answer and a peer's, which must not
    exceed `tolerance`: a benchmark of a wrong answer is worth nothing. `arrays` is the peak memory
    (arguments, result and temporaries) in arrays of the problem's size, where XLA tells it.
    """

    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]]
    difference: float
    tolerance: float
    arrays: float | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the benchmark: a name, a goal for the ratio, and how to prepare it.

    `rounds` limits the repetitions where a peer takes half a minute.
    """

    name: str
    goal: float | None
    prepare: Callable[[], Contest]
    rounds: int | None = None


def measure(row: Row, rounds: int) -> dict:
    """Times, ratio and spread of one row, as plain data."""
    rounds = min(rounds, row.rounds or rounds)
    contest = row.prepare()
    if not contest.difference <= contest.tolerance:
        raise ValueError(
            f"{row.name}: answers differ by {contest.difference:.2g}, more than "
            f"{contest.tolerance:.2g}; not timed"
        )
    times = interleaved({"ours": contest.ours, **contest.peers}, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(contest.peers, key=medians.get)
    each = sorted(a / b for a, b in zip(times["ours"], times[best]))
    ratio = medians["ours"] / medians[best]
    return {
        "row": row.name,
        "ratio": ratio,
        "goal": row.goal,
        "met": None if row.goal is None else ratio <= row.goal,
        "ours ms": medians["ours"] * 1e3,
        "peer ms": medians[best] * 1e3,
        "best peer": best,
        "quartiles": f"{each[len(each) // 4]:.3g} … {each[(3 * len(each)) // 4]:.3g}",
        "arrays of n": contest.arrays,
        "difference": contest.difference,
    }


def run(out: Path, *, quick: bool, only: str = "") -> dict:
    """Run the rows whose name contains `only`, write `out`/bench.json, return the record."""
    rounds = 5 if quick else 15
    rows = [row for row in benchmark_rows(quick) if only in row.name]
    if not rows:
        raise ValueError(f"only: no benchmark row's name contains {only!r}")
    measured = [measure(row, rounds) for row in track(rows, "benchmarks")]
    record = {
        "rows": measured,
        "rounds": rounds,
        "quick": quick,
        "commit": provenance.commit(),
        "environment": provenance.environment(),
    }
    runner.write_json(out / "bench.json", record)
    return record
