"""Scaling: chain steps a second against the number of states and of chains.

A step is O(1) whatever the number of states: what is left is how much of the chains' state fits the
caches. Gridworlds, sampling included, by both clocks; compilation apart. Few chains cannot amortise
the overhead of XLA operations, about a microsecond each step.
"""

import dataclasses
from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import klcontrol
from experiments.measuring import medians


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and repetitions."""

    sides: tuple[int, ...] = (10, 32, 100, 316)
    """Grids of side × side states, with `chains` chains."""
    num_chains: tuple[int, ...] = (1, 16, 256, 1024, 4096)
    """Numbers of chains on the 10 × 10 grid."""
    chains: int = 1024
    """Chains where the number of states varies."""
    num_steps: int = 10_000
    """Steps of each chain."""
    rounds: int = 3
    """Repetitions; the median counts."""


QUICK = Config(sides=(10, 32), num_chains=(1, 256, 1024), num_steps=640, rounds=2)
CLOCKS = ("global", "local")


def call(side: int, chains: int, clock: str, steps: int):
    """A prepared run."""
    problem = klcontrol.examples.gridworld((side, side), goals=[(0, 0)], cost=0.1).problem
    return partial(
        klcontrol.simulate,
        jax.random.key(0),
        problem,
        klcontrol.kl_learning(clock=clock),
        num_steps=steps,
        every=steps,
        num_chains=chains,
        table=klcontrol.alias_table(problem.q),
    )


def run(config: Config) -> dict:
    """Rates by states and by chains."""
    rows, series = [], {"states": {}, "chains": {}}
    points = [("states", side, config.chains) for side in config.sides]
    points += [("chains", 10, chains) for chains in config.num_chains]
    for kind, side, chains in track(points, "scaling"):
        calls = {clock: call(side, chains, clock, config.num_steps) for clock in CLOCKS}
        for clock, seconds in medians(calls, config.rounds).items():
            rate = chains * config.num_steps / seconds
            size = side**2 if kind == "states" else chains
            series[kind].setdefault(clock, []).append((size, rate))
            rows.append(
                {
                    "quantity": f"{chains} chains, {side**2} states, {clock} clock: 10⁶ steps/s",
                    "paper": None,
                    "here": rate / 1e6,
                }
            )
    return {"table": rows, "series": series}


def plot(results: dict):
    """Steps a second against states, and against chains."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    for axes, kind in zip(panels, ("states", "chains")):
        for clock, points in results["series"][kind].items():
            size, rate = (np.array(v) for v in zip(*points))
            axes.loglog(size, rate, "o-", ms=4, label=f"{clock} clock")
        axes.set(xlabel=kind, title=f"by number of {kind}")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=8)
    panels[0].set(ylabel="chain steps a second")
    return figure
