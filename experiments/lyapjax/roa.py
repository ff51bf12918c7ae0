"""Regions of attraction: certified areas over seeds, beside LQR's by the same verifier.

Each seed is learned and proved as a whole. The paper's published networks leave usable level sets
of 9.39 (pendulum, of 113.1) and 0.63 (path following, of 2.01); its LQR ellipses have 3.0 and 0.16.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import lyapjax as ly
from experiments.lyapjax.study import regulator_proof

PAPER = {"inverted_pendulum": (9.39, 3.0), "path_following": (0.63, 0.16)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which systems, how many seeds."""

    systems: tuple[str, ...] = ("inverted_pendulum", "path_following")
    """Names in `lyapjax.systems`."""
    num_seeds: int = 20
    """Runs of each."""
    max_seconds: float = 300.0
    """Budget of a proof."""


QUICK = Config(systems=("inverted_pendulum",), num_seeds=3)


def run(config: Config) -> dict:
    """Areas of every seed."""
    rows, areas, domains = [], {}, {}
    for name in config.systems:
        system = getattr(ly.systems, name)()
        results = [
            ly.synthesize(system, key=jax.random.key(seed), max_seconds=config.max_seconds)
            for seed in track(range(config.num_seeds), name)
        ]
        found = [result.volume for result in results]
        _, _, proof = regulator_proof(system, results[-1].V, config.max_seconds)
        areas[name], domains[name] = found, system.domain.volume
        ours, lqr = PAPER.get(name, (None, None))
        proved = sum(result.proved for result in results)
        for quantity, paper, here in (
            ("seeds proved", None, f"{proved} of {config.num_seeds}"),
            ("certified area, median", ours, float(np.median(found))),
            ("certified area, least", ours, min(found)),
            ("LQR: certified area", lqr, proof.volume),
            ("area of the domain", None, system.domain.volume),
            ("seconds a seed, median, compiled", None,
             float(np.median([r.seconds["total"] for r in results[1:] or results]))),
        ):  # fmt: skip
            rows.append({"quantity": f"{name}: {quantity}", "paper": paper, "here": here})
    return {"table": rows, "series": {"areas": areas, "domains": domains}}


def plot(results: dict):
    """The areas as shares of the domain, a dot a seed."""
    s = results["series"]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for k, (name, found) in enumerate(s["areas"].items()):
        share = np.sort(np.array(found, float)) / s["domains"][name]
        axes.plot(np.full(len(share), k) + np.linspace(-0.2, 0.2, len(share)), share, "o")
        paper = PAPER.get(name)
        if paper:
            for value, style, label in zip(paper, ("-", ":"), ("paper's network", "paper's LQR")):
                axes.hlines(
                    value / s["domains"][name], k - 0.35, k + 0.35, ls=style, color="0.4",
                    label=label if k == 0 else None,
                )  # fmt: skip
    axes.set_xticks(range(len(s["areas"])), list(s["areas"]))
    axes.set_ylim(0, 1)
    axes.set_ylabel("certified share of the domain")
    axes.legend()
    return figure
