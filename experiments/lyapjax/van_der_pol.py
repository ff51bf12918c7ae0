"""Van der Pol in reversed time: how much of a known region of attraction is proved.

The origin attracts what lies inside the limit cycle, of area 13.72; nothing is controlled, so all
that can be learned is V, a network of three layers.
"""

import dataclasses

import lyapjax as ly
from experiments.lyapjax.study import draw, study

TRUE_AREA = 13.72


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    seed: int = 0
    """Of the learner."""
    hidden: tuple[int, ...] = (20, 20, 20)
    """Widths of the tanh layers of V."""
    margin: float = 0.2
    """Of decay while learning; smaller comes closer to the limit cycle."""
    max_seconds: float = 300.0
    """Budget of the proof."""
    num_grid: int = 121
    """Points of the plots along an axis."""


QUICK = Config(hidden=(6,))


def run(config: Config) -> dict:
    """Learn and prove."""
    results = study(
        ly.systems.van_der_pol(),
        recipe=ly.Recipe(hidden=config.hidden, margin=config.margin),
        seed=config.seed,
        max_seconds=config.max_seconds,
        seconds=10.0,
        num_grid=config.num_grid,
        paper_area=None,
    )
    certified = next(r["here"] for r in results["table"] if r["quantity"] == "certified area")
    share = {"quantity": "share of the true region", "paper": None, "here": certified / TRUE_AREA}
    results["table"].append(share)
    return results


def plot(results: dict):
    """Level sets, derivative, learning, trajectories."""
    return draw(results)
