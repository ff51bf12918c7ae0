"""Figure 1: learning curves of hypercomplex ResNets with and without the identity at the start.

Test accuracy after each epoch, n = 4, of the cells of Table 1, whose folder and scales these are:
what Table 1 has trained is not trained again. A cell stops at the target.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt

from experiments.phydi import table1
from experiments.phydi.image_cells import SCALES


@dataclasses.dataclass(frozen=True)
class Config:
    """Which cells, and where they are kept."""

    scale: Literal["cpu", "paper", "digits"] = "cpu"
    """The paper's setting, or what a CPU can do in a night; digits needs no data."""
    depths: tuple[int, ...] = (18, 50, 152)
    """Layers."""
    ns: tuple[int, ...] = (4,)
    """Numbers of components."""
    inits: tuple[str, ...] = ("standard", "phydi")
    """Starts of the residual blocks."""
    num_seeds: int = 3
    """Runs of each cell."""
    data: Path | None = None
    """Folder of CIFAR-10's files, or with `cifar-10-batches-bin`; CERTAX_DATA or `data` if None."""
    cells: Path | None = Path("results/phydi/cells")
    """Folder of the cells; None to forget them."""


QUICK = Config(scale="digits", depths=(18,), num_seeds=1, cells=None)


def run(config: Config) -> dict:
    """The curves, and the accuracy after the first and the last epoch of each."""
    settings = [(depth, n, 64, 0.01) for n in config.ns for depth in config.depths]
    _, curves = table1.compare(table1.gather(config, settings), config.scale, {})
    rows = []
    for name, seeds in curves.items():
        depth, n, init = name.split("|")
        for seed, curve in enumerate(seeds):
            rows.append(
                {
                    "quantity": f"PHResNet{depth}, n = {n}, {init}, seed {seed}: last accuracy",
                    "paper": None,
                    "here": curve[-1] if curve else None,
                    "after one epoch": curve[0] if curve else None,
                    "epochs": len(curve),
                    "cut": SCALES[config.scale].cut,
                }
            )
    target = SCALES[config.scale].target
    return {"table": rows, "series": curves, "target": target, "notes": []}


def plot(results: dict):
    """Accuracy against epochs, a panel for each depth, a line for each seed."""
    curves = results["series"]
    depths = sorted({int(name.split("|")[0]) for name in curves})
    figure, axes = plt.subplots(1, len(depths), figsize=(4 * len(depths), 3), squeeze=False)
    for axis, depth in zip(axes[0], depths):
        for name, seeds in curves.items():
            own, _, init = name.split("|")
            for i, curve in enumerate(seeds if int(own) == depth else []):
                label = init if i == 0 else None
                axis.plot(
                    range(1, len(curve) + 1), curve, ".-", color=table1.COLOURS[init], label=label
                )
        axis.axhline(results["target"], color="0.7", lw=1)
        axis.set_title(f"{depth} layers")
        axis.set_xlabel("epoch")
        axis.set_ylim(0, 1)
    axes[0][0].set_ylabel("test accuracy")
    axes[0][-1].legend(frameon=False, loc="lower right")
    figure.tight_layout()
    return figure
