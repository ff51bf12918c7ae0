"""Path following: a car on a unit circle, learned and proved, and compared with LQR.

‖x‖ <= 0.8, steering limited to 0.7 rad beyond the feed-forward, in the corrected model (the paper's
code drops a factor v). The paper's area is half the goal that its published network sets (0.63).
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
    form: str = "kinematic"
    """Of the dynamics: "kinematic", or "published" for the paper's code."""
    max_seconds: float = 300.0
    """Budget of the proof."""
    num_grid: int = 121
    """Points of the plots along an axis."""


QUICK = Config()


def run(config: Config) -> dict:
    """Learn and prove."""
    return study(
        ly.systems.path_following(form=config.form),
        recipe=ly.Recipe(hidden=(config.width,)),
        seed=config.seed,
        max_seconds=config.max_seconds,
        seconds=1.5,
        num_grid=config.num_grid,
        paper_area=0.63,
    )


def plot(results: dict):
    """Level sets, derivative, learning, trajectories."""
    return draw(results)
