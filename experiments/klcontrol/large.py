"""Large gridworlds: time, memory and proved width of `solve`, up to a million states.

The second of two calls is timed, since the first compiles. Memory is the peak of the process, so it
holds the interpreter, JAX and what went before.
"""

import dataclasses
import resource
import time

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import klcontrol


@dataclasses.dataclass(frozen=True)
class Config:
    """The worlds."""

    extents: tuple[int, ...] = (100, 300, 1000)
    """Cells along each side."""
    costs: tuple[float, ...] = (0.01, 1.0)
    """Of a step, at β = 1: from diffusion to drift."""
    width: float = 1e-10
    """Relative width of the bounds on λ* to be proved."""


QUICK = Config(extents=(40, 80), costs=(0.1,))


def _measure(extent: int, cost: float, width: float) -> dict:
    goal = (extent // 2, extent // 2)
    problem = klcontrol.examples.gridworld((extent, extent), goals=[goal], cost=cost).problem
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        solution = klcontrol.solve(problem, method="aggregation", rtol=width / 2)
        jax.block_until_ready(solution.bounds)
        seconds.append(time.perf_counter() - start)
    proof = klcontrol.certify(problem, solution, backend="numpy")
    return {
        "states": problem.num_states,
        "cost of a step": cost,
        "seconds": seconds[1],
        "first call, seconds": seconds[0],
        "steps": int(solution.stats.steps),
        "proved relative width of λ*": float(proof.log_lam[1] - proof.log_lam[0]),
        "average cost ρ*": float(solution.rho),
        "range of βΦ": float(np.ptp(np.asarray(solution.value))),
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def run(config: Config) -> dict:
    """One row a world."""
    worlds = [(extent, cost) for extent in config.extents for cost in config.costs]
    rows = [_measure(*world, config.width) for world in track(worlds, "gridworlds")]
    return {"table": rows, "series": {"rows": rows}}


def plot(results: dict):
    """Seconds against states."""
    rows = results["series"]["rows"]
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for cost in dict.fromkeys(row["cost of a step"] for row in rows):
        own = [row for row in rows if row["cost of a step"] == cost]
        axes.loglog([r["states"] for r in own], [r["seconds"] for r in own], "o-", label=cost)
    axes.set_xlabel("states")
    axes.set_ylabel("seconds")
    axes.legend(title="cost of a step")
    axes.grid(alpha=0.3)
    return figure
