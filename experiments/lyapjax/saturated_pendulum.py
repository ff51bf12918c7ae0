"""The pendulum with a weak motor: learn, prove, and compare with LQR.

The input is bounded by 1.36 m g l: enough to hold the pendulum anywhere, not to stop it anywhere,
so that the region of attraction is a part of the domain. V is a tanh network of three layers.
"""

import dataclasses

import lyapjax as ly
from experiments.lyapjax.study import draw, study


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    seed: int = 0
    """Of the learner."""
    hidden: tuple[int, ...] = (20, 20, 20)
    """Widths of the tanh layers of V."""
    max_seconds: float = 300.0
    """Budget of the proof."""
    num_grid: int = 121
    """Points of the plots along an axis."""


QUICK = Config(hidden=(6,))


def run(config: Config) -> dict:
    """Learn and prove."""
    return study(
        ly.systems.saturated_pendulum(),
        recipe=ly.Recipe(hidden=config.hidden),
        seed=config.seed,
        max_seconds=config.max_seconds,
        seconds=8.0,
        num_grid=config.num_grid,
        paper_area=None,
    )


def plot(results: dict):
    """Level sets, derivative, learning, trajectories."""
    return draw(results)
