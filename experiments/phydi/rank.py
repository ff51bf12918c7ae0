"""Rank: the accuracy of networks of few products of blocks beside those of all n².

A layer whose multiplication tensor is free needs n² products of blocks; as a sum of R terms, the
rank of almost every tensor of that size, R of them: 2, 5 and 7 for n = 2, 3 and 4. The same PHYDI
network is trained both ways for the same number of epochs, with the same images in the same order.
Shown is the test accuracy after each: mean and standard error over seeds. What the R products save
in time is in `bench`. Not in the paper; the scales are those of `table1`.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Literal

import matplotlib.pyplot as plt

import phydi
from experiments.phydi import cells as kept
from experiments.phydi.image_cells import SCALES, Cell, fit_cell
from experiments.resuming import stamp


@dataclasses.dataclass(frozen=True)
class Config:
    """Which networks, and for how long."""

    scale: Literal["cpu", "paper", "digits"] = "digits"
    """The images and the width, as in `table1`; digits needs no data."""
    depth: int = 18
    """Layers."""
    ns: tuple[int, ...] = (2, 3, 4)
    """Numbers of components."""
    num_seeds: int = 3
    """Runs of each network."""
    num_epochs: int = 6
    """All are trained for so many."""
    data: Path | None = None
    """Folder of CIFAR-10's files, or with `cifar-10-batches-bin`; CERTAX_DATA or `data` if None."""
    cells: Path | None = Path("results/phydi/cells")
    """Folder of the trained networks; None to forget them."""


QUICK = Config(ns=(4,), num_seeds=1, num_epochs=1, cells=None)


def run(config: Config) -> dict:
    """The accuracy of every network after each epoch."""
    scale = kept.find_scale(SCALES, config.scale)
    preset = dataclasses.replace(scale, max_epochs=config.num_epochs, target=1.0)
    data = None if preset.digits else kept.data_folder(config.data)
    runs, keys = {}, []
    for n in config.ns:
        for rank in (None, phydi.generic_rank(n)):
            for seed in range(config.num_seeds):
                cell = Cell(config.depth, n, "phydi", seed)
                mark = stamp((cell, rank), preset)
                name = f"rank{rank}-{config.scale}-resnet{config.depth}-n{n}-seed{seed}-{mark}"
                runs[name] = functools.partial(
                    fit_cell, cell, config.scale, data, preset=preset, rank=rank
                )
                keys.append((n, rank))
    results = kept.run_cells(runs, config.num_epochs, config.cells, say)
    curves: dict = {}
    for key, result in zip(keys, results):
        curve = [record["test_accuracy"] for record in result["epochs"]]
        curves.setdefault(key, []).append(curve)
    rows = []
    for (n, rank), seeds in curves.items():
        mean, error = kept.mean_and_error([curve[-1] for curve in seeds])
        free, _ = kept.mean_and_error([curve[-1] for curve in curves[n, None]])
        kind = "free" if rank is None else f"rank {rank}"
        rows.append(
            {
                "quantity": f"n = {n}, {kind}: accuracy after {config.num_epochs} epochs",
                "paper": None,
                "here": mean,
                "error": error,
                "less free": None if rank is None else mean - free,
                "products": f"{n * n if rank is None else rank} of {n * n}",
                "seeds": len(seeds),
            }
        )
    notes = [f"Cut: {scale.cut}; all epochs are run."]
    return {
        "table": rows,
        "series": {f"{n}|{r}": c for (n, r), c in curves.items()},
        "notes": notes,
    }


def say(record: dict) -> str:
    """A record of training in words."""
    return f"test accuracy {record.get('test_accuracy', float('nan')):.3f}"


def plot(results: dict):
    """Test accuracy against epochs, a panel for each n, with standard errors over seeds."""
    series = results["series"]
    ns = sorted({int(name.split("|")[0]) for name in series})
    size = (1.5 + 3 * len(ns), 3)
    figure, axes = plt.subplots(1, len(ns), figsize=size, sharey=True, squeeze=False)
    for axis, n in zip(axes[0], ns):
        for i, (name, seeds) in enumerate(
            item for item in series.items() if item[0].startswith(f"{n}|")
        ):
            rank = name.split("|")[1]
            label = "all n² products" if rank == "None" else f"rank {rank}"
            points = [kept.mean_and_error(list(epoch)) for epoch in zip(*seeds)]
            epochs = [number + 0.06 * (2 * i - 1) for number in range(1, len(points) + 1)]
            means, errors = [m for m, _ in points], [e or 0.0 for _, e in points]
            axis.errorbar(epochs, means, errors, fmt="o-", capsize=3, label=label, color=f"C{i}")
        axis.set_title(f"n = {n}")
        axis.set_xlabel("epoch")
        axis.set_ylim(0, 1)
        axis.legend(frameon=False, loc="lower right")
    axes[0][0].set_ylabel("test accuracy")
    figure.tight_layout()
    return figure
