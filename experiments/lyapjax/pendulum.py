"""The inverted pendulum: learn, prove, and compare with LQR.

Figures 1 to 3 of the paper for ‖x‖ <= 6. The paper proves V >= 0 and dV/dt <= 0 off a ball; here
the whole proof closes: every trajectory from the level set converges to the upright position. The
paper's area is that of its published network's usable level set, which stays inside the domain.
"""

import dataclasses

import lyapjax as ly
from experiments.lyapjax.study import draw, study


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    seed: int = 0
    """Of the learner."""
    width: int = 6
    """Tanh units of V."""
    max_seconds: float = 300.0
    """Budget of the proof."""
    num_grid: int = 121
    """Points of the plots along an axis."""


QUICK = Config()


def run(config: Config) -> dict:
    """Learn and prove."""
    return study(
        ly.systems.inverted_pendulum(),
        recipe=ly.Recipe(hidden=(config.width,)),
        seed=config.seed,
        max_seconds=config.max_seconds,
        seconds=8.0,
        num_grid=config.num_grid,
        paper_area=9.39,
    )


def plot(results: dict):
    """Level sets, derivative, learning, trajectories."""
    return draw(results)
