"""Humanoid balancing: links one on the other, a torque each, proved.

The paper's three links took it 6,000 s to learn and 458 s to falsify, with relaxed conditions, for
‖x‖ <= 0.5. Here V is a quadratic form and tanh features of the angles, the controller a gain and a
tanh network of them.
"""

import dataclasses
from pathlib import Path

from experiments.lyapjax import hovering


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    links: int = 3
    """How many."""
    seed: int = 0
    """Of the learner."""
    num_steps: int = 1500
    """Of learning."""
    max_seconds: float = 60.0
    """Budget of each proof."""
    radius: float | None = None
    """Of the domain, in the norm of the states; 0.5 by default, and 1 for two links."""
    certificate: Path | None = None
    """File in which to keep the certificate of the proof."""


QUICK = Config(num_steps=900, max_seconds=20.0)
plot = hovering.draw_region


def run(config: Config) -> dict:
    """Learn and prove."""
    return hovering.study_region(hovering.links(config.links), config, replays=True)
