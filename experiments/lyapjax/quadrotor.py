"""A quadrotor in a vertical plane: six states, learned and proved.

Not one of the paper's systems; LQR's certified region beside that of a learned V and controller.
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
    radius: float = 10.0
    """Of the domain, in the norm of the states."""
    certificate: Path | None = None
    """File for the certificate of the proof, which is then replayed."""


QUICK = Config(num_steps=600, max_seconds=20.0)


def run(config: Config) -> dict:
    """Learn and prove."""
    return study_region(
        ly.systems.planar_quadrotor(radius=config.radius),
        sees=(2,),
        seed=config.seed,
        num_steps=config.num_steps,
        max_seconds=config.max_seconds,
        certificate=config.certificate,
        plane=(0, 2),
        seconds=10.0,
    )


def plot(results: dict):
    """Regions, V along trajectories, growth."""
    return draw_region(results)
