"""A system of your own: learn, prove and draw what a Python file describes.

The file has a function `system()` that returns a `lyapjax.System`; see `example_system.py` beside
this module. It is run, so let it be one that you trust. For more than two states the pictures show
the first two, the others at the equilibrium.
"""

import dataclasses
import importlib.util
from pathlib import Path

import lyapjax as ly
from experiments.lyapjax.study import draw, study

EXAMPLE = Path(__file__).with_name("example_system.py")


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    module: Path = EXAMPLE
    """A Python file with a function `system()`."""
    seed: int = 0
    """Of the learner."""
    hidden: tuple[int, ...] = (6,)
    """Widths of the tanh layers of V."""
    margin: float = 0.5
    """Of decay while learning, see `lyapjax.Recipe`."""
    max_seconds: float = 300.0
    """Budget of the proof."""
    seconds: float = 8.0
    """Length of the trajectories."""
    num_grid: int = 121
    """Points of the plots along an axis."""


QUICK = Config()


def load(path: Path) -> ly.System:
    """The system of a file, or a ValueError that says what is missing."""
    if not Path(path).is_file():
        raise ValueError(f"module: expected a Python file, got {path}")
    spec = importlib.util.spec_from_file_location("custom_system", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"module: expected a file that ends in .py, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make = getattr(module, "system", None)
    system = make() if callable(make) else make
    if not isinstance(system, ly.System):
        raise ValueError(
            f"module: expected a function system() that returns a lyapjax.System in {path}, got "
            f"{type(system).__name__}"
        )
    return system


def run(config: Config) -> dict:
    """Learn and prove."""
    return study(
        load(config.module),
        recipe=ly.Recipe(hidden=config.hidden, margin=config.margin),
        seed=config.seed,
        max_seconds=config.max_seconds,
        seconds=config.seconds,
        num_grid=config.num_grid,
        paper_area=None,
    )


def plot(results: dict):
    """Level sets, derivative, learning, trajectories."""
    return draw(results)
