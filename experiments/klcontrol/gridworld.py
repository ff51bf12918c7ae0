"""A gridworld: value, optimal policy, trajectories, and proved bounds on the average cost.

Every step costs, but at the goal. The passive walk wanders; the optimal one pays for its haste by
the Kullback–Leibler divergence. Φ is drawn with the drift of the optimal policy and some
trajectories; the table compares inverse temperatures, with the bounds that the certificate proves.
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
    """The world and what to draw in it."""

    extent: int = 30
    """Cells along each side."""
    walls: float = 0.25
    """Fraction of cells that are walls, at random."""
    cost: float = 1.0
    """Of a step that does not start at the goal."""
    betas: tuple[float, ...] = (0.02, 0.2, 2.0)
    """Inverse temperatures."""
    trajectories: int = 12
    """Drawn for the last of them."""
    steps: int = 300
    """Of each trajectory."""
    seed: int = 3
    """Of walls and trajectories."""


QUICK = Config(extent=16, betas=(0.2, 2.0), trajectories=6, steps=120)


def _world(config: Config, beta: float):
    walls = np.random.default_rng(config.seed).random((config.extent,) * 2) < config.walls
    goal = (config.extent // 4, 3 * config.extent // 4)
    walls[goal] = False
    return klcontrol.examples.gridworld(
        walls.shape, goals=[goal], walls=walls, cost=config.cost, beta=beta
    )


def _walk(key, policy, starts, steps: int):
    """States of walks by a policy in lists, (steps + 1, starts)."""
    logits = jnp.log(policy.probabilities)

    def step(states, key):
        slots = jax.random.categorical(key, logits[states])
        following = policy.indices[states, slots]
        return following, following

    _, visited = jax.lax.scan(step, starts, jax.random.split(key, steps))
    return jnp.concatenate([starts[None], visited])


def run(config: Config) -> dict:
    """Solutions, bounds, and the trajectories of the last temperature."""
    rows = []
    for beta in track(config.betas, "inverse temperatures"):
        world = _world(config, beta)
        solution = klcontrol.solve(world.problem)
        proof = klcontrol.certify(world.problem, solution)
        rows.append(
            {
                "β": beta,
                "states": world.problem.num_states,
                "average cost ρ*": float(solution.rho),
                "proved width of ρ*": float(proof.rho[1] - proof.rho[0]),
                "range of Φ": float(jnp.ptp(solution.value)),
                "mean cost left alone": float(jnp.mean(world.problem.cost)),
                "status": klcontrol.Status(int(solution.stats.status)).name,
            }
        )
    cells, states = np.asarray(world.cells), np.asarray(world.states)
    value = np.where(states >= 0, np.asarray(solution.value)[states], np.nan)
    policy = solution.policy
    moves = cells[np.asarray(policy.indices)] - cells[:, None]
    drift = (np.asarray(policy.probabilities)[..., None] * moves).sum(axis=1)
    key = jax.random.key(config.seed)
    starts = jax.random.randint(key, (config.trajectories,), 0, len(cells), policy.indices.dtype)
    visited = _walk(jax.random.fold_in(key, 1), policy, starts, config.steps)
    return {
        "table": rows,
        "series": {
            "value": value,
            "cells": cells,
            "drift": drift,
            "trajectories": cells[np.asarray(visited)],
            "goal": cells[np.asarray(world.goals)],
            "beta": config.betas[-1],
        },
        "notes": ["The walk is symmetric, so left alone it visits cells by their number of moves."],
    }


def plot(results: dict):
    """Φ with the optimal drift; trajectories."""
    s = {name: np.asarray(values, float) for name, values in results["series"].items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8), sharey=True)
    for axes in (left, right):
        axes.set_facecolor("0.25")
        image = axes.imshow(s["value"], cmap="viridis_r")
        axes.plot(*s["goal"].T[::-1], "*", color="red", ms=14, mec="white")
        axes.set_xticks([])
        axes.set_yticks([])
    row, column = s["cells"].T
    down, along = s["drift"].T
    left.quiver(column, row, along, -down, color="white", scale=25, width=0.004)
    left.set_title(f"value Φ and optimal drift, β = {float(s['beta']):g}")
    shift = np.random.default_rng(0).uniform(-0.25, 0.25, (s["trajectories"].shape[1], 2))
    for k in range(s["trajectories"].shape[1]):
        path = s["trajectories"][:, k] + shift[k]
        right.plot(path[:, 1], path[:, 0], lw=0.9, color="white", alpha=0.8)
        right.plot(path[0, 1], path[0, 0], "o", ms=4, color="orange")
    right.set_title("optimal trajectories (start: orange)")
    figure.colorbar(image, ax=(left, right), label="Φ, in units of cost", shrink=0.85)
    return figure
