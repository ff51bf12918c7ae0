"""Humanoid balancing: links one on the other, a torque each, proved.

The paper's three links took it 6,000 s to learn and 458 s to falsify, with relaxed conditions, for
‖x‖ <= 0.5. Here two links by default; V is quadratic, the controller linear.
"""

import dataclasses
from pathlib import Path

import lyapjax as ly
from experiments.lyapjax.hovering import draw_region, study_region


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    seed: int = 0
    """Of the learner."""
    num_steps: int = 2500
    """Of learning."""
    max_seconds: float = 60.0
    """Budget of each proof."""
    radius: float = 1.0
    """Of the domain, in the norm of the states."""
    links: int = 2
    """How many; the paper's three within a radius of 0.5 are as quick."""
    certificate: Path | None = None
    """File in which to keep the certificate of the proof."""


QUICK = Config(num_steps=600, max_seconds=20.0)


def run(config: Config) -> dict:
    """Learn and prove."""
    return study_region(
        ly.systems.n_link(config.links, radius=config.radius),
        sees=(),
        seed=config.seed,
        num_steps=config.num_steps,
        max_seconds=config.max_seconds,
        certificate=config.certificate,
        replays=True,
        plane=(0, 1),
        seconds=4.0,
    )


def plot(results: dict):
    """Regions, V along trajectories, growth."""
    return draw_region(results)
