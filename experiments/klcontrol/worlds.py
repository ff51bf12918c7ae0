"""Continuous worlds on grids: value and optimal drift of the pendulum and of the mountain car.

The pendulum swings up against noise and pays for its height and speed on average; the car, too
weak to climb out of its valley at once, pays until it arrives. Arrows are the change of speed that
control adds to the passive motion; trajectories are drawn under the optimal policy. Φ is enclosed
state by state, and the table says how widely.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import klcontrol


@dataclasses.dataclass(frozen=True)
class Config:
    """Grids and trajectories."""

    pendulum: tuple[int, int] = (72, 61)
    """Angles and speeds."""
    car: tuple[int, int] = (90, 61)
    """Positions and speeds."""
    trajectories: int = 3
    """In each world."""
    steps: int = 200
    """Of each trajectory."""
    seed: int = 0
    """Of the trajectories."""


QUICK = Config(pendulum=(24, 21), car=(30, 25), steps=60)


def _world(name: str, config: Config):
    """Problem, abscissa, speed, and where trajectories start."""
    if name == "pendulum":
        world = klcontrol.worlds.pendulum(config.pendulum)
        return world.problem, world.angle, world.speed, (np.pi, 0.0)
    world = klcontrol.worlds.mountain_car(config.car)
    return world.problem, world.position, world.speed, (-0.5, 0.0)


def _solve(name: str, config: Config) -> tuple[dict, dict]:
    problem, x, v, start = _world(name, config)
    solution = klcontrol.solve(problem)
    found = klcontrol.enclose(problem, solution)
    q, p = problem.q, solution.policy
    push = jnp.sum((p.probabilities - q.probabilities) * v[q.indices], axis=1)
    distance = jnp.abs(x - start[0]) / jnp.ptp(x) + jnp.abs(v - start[1]) / jnp.ptp(v)
    keys = jax.random.split(jax.random.key(config.seed), config.trajectories)
    first = jnp.argmin(distance).astype(q.indices.dtype)

    def run(key):
        return klcontrol.rollout(key, problem, p, first, num_steps=config.steps).states

    row = {
        "world": name,
        "states": problem.num_states,
        "average cost ρ*": float(solution.rho) if problem.criterion == "average" else None,
        "Φ at the start": float(solution.value[first]),
        "proved width of Φ, largest": float((found.value[1] - found.value[0]).max()),
        "longest time to the reference": float(found.hitting_time.max()),
        "status": klcontrol.Status(int(solution.stats.status)).name,
    }
    visited = np.asarray(jax.vmap(run)(keys))
    series = {"x": x, "v": v, "value": solution.value, "push": push}
    series = {key: np.asarray(values) for key, values in series.items()}
    return row, series | {"paths": np.stack([series["x"], series["v"]], axis=1)[visited]}


def run(config: Config) -> dict:
    """Both worlds."""
    names = ("pendulum", "mountain car")
    found = {name: _solve(name, config) for name in track(names, "worlds")}
    return {
        "table": [row for row, _ in found.values()],
        "series": {name: series for name, (_, series) in found.items()},
    }


def plot(results: dict):
    """Φ with the push of control, and trajectories."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.4))
    for axes, (name, series) in zip(panels, results["series"].items()):
        s = {key: np.asarray(values, float) for key, values in series.items()}
        x, column = np.unique(s["x"], return_inverse=True)
        v, row = np.unique(s["v"], return_inverse=True)
        value = np.full((v.size, x.size), np.nan)
        value[row, column] = s["value"]
        image = axes.pcolormesh(x, v, value, shading="nearest", cmap="viridis_r", rasterized=True)
        figure.colorbar(image, ax=axes, label="value Φ")
        some = np.random.default_rng(0).permutation(s["x"].size)[:350]
        push = s["push"][some] / np.abs(s["push"]).max()
        axes.quiver(
            s["x"][some], s["v"][some], 0 * push, push, color="white", scale=14, width=0.003
        )
        for path in s["paths"]:
            # A jump by half the range is the pendulum going round.
            jumps = np.abs(np.diff(path[:, 0])) > np.ptp(s["x"]) / 2
            path = np.insert(path, np.flatnonzero(jumps) + 1, np.nan, axis=0)
            axes.plot(path[:, 0], path[:, 1], color="red", lw=0.9, alpha=0.8)
            axes.plot(*path[0], "o", color="orange", ms=5)
        axes.set_title(name)
        axes.set_ylabel("speed")
    panels[0].set_xlabel("angle in rad, 0 upright")
    panels[1].set_xlabel("position")
    figure.tight_layout()
    return figure
