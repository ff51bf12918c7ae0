"""Beyond six states: regions of LQR's V for links and a quadrotor in space, up to twelve states.

How the cost of `verify_region` grows with the dimension, and how far it goes in ten minutes. Each
proof becomes a certificate, which is replayed in ball arithmetic. Every system that has ended is
kept in a folder: a run that was stopped goes on with the others.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

import lyapjax as ly
from experiments.lyapjax.study import checked
from experiments.resuming import kept, place

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
    certificates: Path | None = None
    """Folder in which to keep the certificates of the proofs."""
    cells: Path | None = Path("results/lyapjax/cells")
    """Folder of the systems that have ended; None to forget them."""


QUICK = Config(
    systems=("ducted fan", "2 links", "3 links", "quadrotor in space"), max_seconds=4.0, cells=None
)


def _study(name: str, max_seconds: float, folder: Path | None) -> dict:
    """The proof, when which level was proved, and the certificate replayed."""
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
    path = None if folder is None else folder / f"{name.replace(' ', '-')}.cert.npz"
    replay, writing, replaying = checked(proof, path)
    return {
        "row": {
            "system": name,
            "states": system.state_dim,
            "level": proof.level,
            "volume": proof.volume,
            "boxes": len(proof.lo),
            "boxes bounded": proof.num_boxes,
            "first level (s)": first,
            "proof (s)": proof.seconds,
            "file (s)": writing,
            "replay (s)": replaying,
            "replay": replay,
        },
        "course": course,
    }


def run(config: Config) -> dict:
    """A proof of each system."""
    budget, certificates = config.max_seconds, config.certificates
    found = {
        name: kept(
            place(config.cells, "lyapjax", f"beyond {name}", budget, certificates),
            partial(_study, name, budget, certificates),
        )
        for name in config.systems
    }
    return {
        "table": [one["row"] for one in found.values()],
        "series": {name: one["course"] for name, one in found.items()},
        "budget": config.max_seconds,
        "notes": [
            f"Each proof had {config.max_seconds:g} s for as large a level as it gets.",
            "Boxes bounded are those of all levels tried; a replay reads the proof from its file.",
        ],
    }


def plot(results: dict):
    """Proved levels over time, and the size of the proofs over the number of states."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
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
    axes[0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for row in results["table"]:
        for key, marker, color in (
            ("boxes", "o", "C0"),
            ("first level (s)", "s", "C1"),
            ("replay (s)", "^", "C2"),
        ):
            # None where no level was proved.
            axes[1].semilogy(row["states"], row[key] or np.nan, marker, color=color)
    axes[1].plot([], [], "o", color="C0", label="boxes of the proof")
    axes[1].plot([], [], "s", color="C1", label="seconds to the first level")
    axes[1].plot([], [], "^", color="C2", label="seconds of replaying the certificate")
    axes[1].set_xlabel("states")
    axes[1].legend(fontsize=8)
    return figure
