"""Beyond six states: regions of LQR's V for links and a quadrotor in space, up to twelve states.

How the cost of `verify_region` grows with the dimension, and how far it goes in ten minutes.
"""

import dataclasses
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

import lyapjax as ly

SYSTEMS = {
    "ducted fan": ly.systems.ducted_fan,
    "2 links": lambda: ly.systems.n_link(2),
    "3 links": lambda: ly.systems.n_link(3),
    "4 links": lambda: ly.systems.n_link(4),
    "5 links": lambda: ly.systems.n_link(5),
    "quadrotor in space": ly.systems.quadrotor,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which systems, and how long."""

    systems: tuple[str, ...] = tuple(SYSTEMS)
    """Names in `SYSTEMS`."""
    max_seconds: float = 600.0
    """Budget of each proof; the quick form proves smaller levels in its few seconds."""


QUICK = Config(systems=("ducted fan", "2 links", "3 links", "quadrotor in space"), max_seconds=4.0)


def _study(name: str, max_seconds: float) -> dict:
    """The proof, and when which level was proved."""
    system = SYSTEMS[name]()
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    course, start = [], time.perf_counter()

    def note(level, num_boxes, num_open):
        if num_open == 0:
            course.append((time.perf_counter() - start, level))

    proof = ly.verify_region(
        f, regulator.P, system.domain, max_seconds=max_seconds, callback_fn=note
    )
    first = course[0][0] if course else np.nan
    return {
        "row": {
            "system": name,
            "states": system.state_dim,
            "verdict": proof.verdict.value,
            "level": proof.level,
            "volume": proof.volume,
            "boxes of the proof": len(proof.lo),
            "boxes bounded": proof.num_boxes,
            "multipliers a box": proof.multipliers.shape[1],
            "seconds to the first level": first,
            "seconds": proof.seconds,
        },
        "course": course,
    }


def run(config: Config) -> dict:
    """A proof of each system."""
    found = {name: _study(name, config.max_seconds) for name in config.systems}
    return {
        "table": [one["row"] for one in found.values()],
        "series": {name: one["course"] for name, one in found.items()},
        "budget": config.max_seconds,
    }


def plot(results: dict):
    """Proved levels over time, and the size of the proofs over the number of states."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    budget = results["budget"]
    for name, course in results["series"].items():
        best = np.maximum.accumulate([level for _, level in course])
        if not len(best):
            continue
        seconds = [second for second, _ in course]
        axes[0].step([*seconds, budget], [*best, best[-1]], where="post", label=name)
    axes[0].set_xscale("log")
    axes[0].set_yscale("log")
    axes[0].xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_xlabel("seconds")
    axes[0].set_ylabel("largest level proved so far")
    axes[0].legend(fontsize=8)
    for row in results["table"]:
        for key, marker, color in (
            ("boxes of the proof", "o", "C0"),
            ("seconds to the first level", "s", "C1"),
        ):
            axes[1].semilogy(row["states"], row[key], marker, color=color)
    axes[1].plot([], [], "o", color="C0", label="boxes of the proof")
    axes[1].plot([], [], "s", color="C1", label="seconds to the first level")
    axes[1].set_xlabel("states")
    axes[1].legend(fontsize=8)
    return figure
