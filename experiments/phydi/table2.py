"""Table 2: the same with batches of 128, and a learning rate of 0.1 for 18 layers.

M1, M2 and the scales are those of Table 1, and so is the folder of the cells.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.phydi import table1
from experiments.phydi.image_cells import SCALES

PAPER = {
    (18, 2): {"standard": (21.86, 3.14, 3), "wkp": (17.17, 3.35, 3), "phydi": (10.00, 1.22, None)},
    (50, 2): {"standard": (24.33, 2.19, 3), "wkp": (12.67, 1.67, 2), "phydi": (8.67, 0.88, None)},
    (18, 3): {"standard": (20.50, 5.08, 3), "wkp": (12.83, 1.68, 3), "phydi": (8.00, 0.58, None)},
    (50, 3): {"standard": (11.25, 2.56, 2), "wkp": (12.80, 3.89, 2), "phydi": (10.75, 2.25, None)},
    (18, 4): {"standard": (21.40, 3.22, 3), "wkp": (20.67, 2.78, 2), "phydi": (8.80, 1.24, None)},
    (50, 4): {"standard": (22.33, 8.67, 2), "wkp": (11.00, 0.58, 2), "phydi": (10.00, 1.00, None)},
}
_RATES = {18: 0.1, 50: 0.01}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which cells, and where they are kept."""

    scale: Literal["cpu", "paper", "digits"] = "cpu"
    """The paper's setting, or what a CPU can do in a night; digits needs no data."""
    depths: tuple[int, ...] = (18, 50)
    """Layers, of 18 and 50."""
    ns: tuple[int, ...] = (2, 3, 4)
    """Numbers of components."""
    inits: tuple[str, ...] = ("standard", "wkp", "phydi")
    """Starts of the residual blocks."""
    num_seeds: int = 3
    """Runs of each cell."""
    data: Path | None = None
    """Folder of CIFAR-10's files, or with `cifar-10-batches-bin`; CERTAX_DATA or `data` if None."""
    cells: Path | None = Path("results/phydi/cells")
    """Folder of the cells; None to forget them."""


QUICK = Config(scale="digits", depths=(18,), ns=(4,), inits=("phydi",), num_seeds=1, cells=None)


def run(config: Config) -> dict:
    """Epochs to the target for every network, and the curves."""
    unknown = sorted(set(config.depths) - set(_RATES))
    if unknown:
        raise ValueError(f"depths: expected 18 or 50, as in the paper, got {unknown}")
    settings = [(depth, n, 128, _RATES[depth]) for n in config.ns for depth in config.depths]
    rows, curves = table1.compare(table1.gather(config, settings), config.scale, PAPER)
    notes = [f"cut: {SCALES[config.scale].cut}"]
    return {"table": rows, "series": curves, "target": SCALES[config.scale].target, "notes": notes}


def plot(results: dict):
    """Epochs to the target against depth, one panel for each n."""
    return table1.plot(results)
