"""Table 1: how long it takes, and what is proved at the end.

Learning and proving of each system, beside the paper's learning and falsification times (on its
machine). The paper ends with V >= 0 and dV/dt <= 0 for ε <= ‖x‖ <= r, up to dReal's δ: neither that
trajectories stay, nor that they reach the equilibrium. Here the proof is of convergence itself, no
hole is left, and nothing is relaxed.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import lyapjax as ly

# Learning and falsification in seconds, samples, iterations, and the radius of the hole, √ε.
PAPER = {
    "inverted_pendulum": (25.5, 0.6, 500, 430, 0.2),
    "path_following": (36.3, 0.2, 500, 610, 0.1),
}
PARTS = ("learning", "proving or falsifying")


@dataclasses.dataclass(frozen=True)
class Config:
    """Which systems, how many runs."""

    systems: tuple[str, ...] = ("inverted_pendulum", "path_following")
    """Names in `lyapjax.systems`."""
    num_seeds: int = 5
    """Runs of each after the first, which compiles; times are their medians."""
    max_seconds: float = 300.0
    """Budget of a run."""


QUICK = Config(systems=("inverted_pendulum",), num_seeds=1)


def _row(name: str, what: str, paper, here) -> dict:
    return {"quantity": f"{name}: {what}", "paper": paper, "here": here}


def run(config: Config) -> dict:
    """Learn and prove each system, the first time to compile."""
    rows, seconds = [], {}
    for name in config.systems:
        system, recipe = getattr(ly.systems, name)(), ly.Recipe()
        results = [
            ly.synthesize(system, key=jax.random.key(seed), max_seconds=config.max_seconds)
            for seed in track(range(1 + config.num_seeds), name)
        ]
        first, warm = results[0], results[1:]
        learning, proving = (
            float(np.median([r.seconds[part] for r in warm])) for part in ("learn", "verify")
        )
        steps = [int(r.state.num_rounds) * recipe.num_steps for r in warm]
        boxes = [sum(p.num_boxes for p in r.verification.proofs.values()) for r in warm]
        proved = sum(r.proved for r in results)
        paper = PAPER.get(name, (None,) * 5)
        seconds[name] = [learning, proving, paper[0], paper[1]]
        rows += [
            _row(name, "seconds of learning", paper[0], learning),
            _row(name, "seconds of falsifying (paper), of proving (here)", paper[1], proving),
            _row(name, "seconds in all, with compiling", None, first.seconds["total"]),
            _row(name, "samples", paper[2], recipe.num_samples),
            _row(name, "iterations", paper[3], float(np.median(steps))),
            _row(name, "boxes of the proof", None, float(np.median(boxes))),
            _row(name, "radius of the hole that is left", paper[4], 0.0 if proved else None),
            _row(name, "proved: trajectories stay in the domain", "no", _share(results)),
            _row(name, "proved: trajectories reach the equilibrium", "no", _share(results)),
            _row(name, "share of the domain that is certified", None,
                 float(np.median([r.volume for r in results])) / system.domain.volume),
        ]  # fmt: skip
    return {"table": rows, "series": {"seconds": seconds}}


def _share(results) -> str:
    return f"{sum(r.proved for r in results)} of {len(results)} runs"


def plot(results: dict):
    """Times of the parts, the paper's beside ours."""
    seconds = results["series"]["seconds"]
    figure, axes = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
    for k, found in enumerate(seconds.values()):
        for part in range(2):
            for who, (shade, label) in enumerate((("tab:blue", "here"), ("0.6", "paper"))):
                height = found[part + 2 * who]
                if height is None:
                    continue
                place = k + 0.2 * (2 * part + who) - 0.3
                axes.bar(place, height, 0.18, color=shade, alpha=1.0 if part == 0 else 0.55)
                axes.annotate(
                    f"{PARTS[part].split()[0]}\n{height:.2g} s", (place, height),
                    ha="center", va="bottom", fontsize=7,
                )  # fmt: skip
                if k == part == 0:
                    axes.bar(place, 0, color=shade, label=label)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(range(len(seconds)), [name.replace("_", " ") for name in seconds])
    axes.set_ylabel("seconds")
    axes.legend()
    return figure
