"""Table 1: epochs until hypercomplex ResNets of 18, 50 and 152 layers classify CIFAR-10.

M1 is the number of epochs to the target accuracy on the test images, 80% in the paper: mean and
standard error over seeds. The paper calls M2 the "epochs to beat the model with PHYDI" and does
not say where; here it is the first epoch with a higher test accuracy than PHYDI has after its
first. `--scale paper` is the paper's setting and needs a GPU; `--scale cpu` keeps the depth and
cuts what the column `cut` says. Every cell is kept in a folder: a run that was stopped goes on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.phydi.cells import epochs_to, mean_and_error
from experiments.phydi.image_cells import SCALES, Cell, run_cells
from experiments.phydi.plotting import epochs_against_depth

COLOURS = {"standard": "C0", "wkp": "C2", "phydi": "C1", "fixup": "C3"}

# Mean and standard error of M1, and M2, by (depth, n, init).
PAPER = {
    (18, 2): {"standard": (6.00, 0.58, 2), "wkp": (5.75, 0.25, 2), "phydi": (6.00, 0.00, None)},
    (50, 2): {"standard": (10.67, 1.20, 3), "wkp": (10.67, 0.67, 2), "phydi": (7.00, 0.58, None)},
    (152, 2): {"standard": (32.67, 2.03, 4), "wkp": (29.80, 3.68, 4), "phydi": (6.33, 1.33, None)},
    (18, 3): {"standard": (6.33, 0.33, 2), "wkp": (6.00, 0.00, 1), "phydi": (5.00, 0.58, None)},
    (50, 3): {"standard": (8.67, 1.20, 2), "wkp": (9.0, 0.58, 2), "phydi": (6.33, 0.67, None)},
    (152, 3): {"standard": (26.67, 1.76, 4), "wkp": (20.00, 2.12, 4), "phydi": (4.67, 0.33, None)},
    (18, 4): {"standard": (3.75, 0.48, 1), "wkp": (5.67, 0.67, 2), "phydi": (4.50, 0.50, None)},
    (50, 4): {"standard": (8.33, 0.88, 2), "wkp": (9.33, 0.88, 2), "phydi": (7.00, 1.15, None)},
    (152, 4): {"standard": (22.67, 3.71, 3), "wkp": (20.60, 1.60, 3), "phydi": (5.33, 0.33, None)},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which cells, and where they are kept."""

    scale: Literal["cpu", "paper", "digits"] = "cpu"
    """The paper's setting, or what a CPU can do in a night; digits needs no data."""
    depths: tuple[int, ...] = (18, 50, 152)
    """Layers."""
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


QUICK = Config(
    scale="digits", depths=(18,), ns=(4,), inits=("standard", "phydi"), num_seeds=1, cells=None
)


def compare(groups: dict, scale: str, paper: dict) -> tuple[list[dict], dict]:
    """Rows and curves of groups {(depth, n, batch size, rate): {init: results of the seeds}}."""
    rows, curves, target = [], {}, SCALES[scale].target
    for (depth, n, batch_size, rate), by_init in groups.items():
        found = {
            init: [[e["test_accuracy"] for e in result["epochs"]] for result in results]
            for init, results in by_init.items()
        }
        firsts = [curve[0] for curve in found.get("phydi", []) if curve]
        first = sum(firsts) / len(firsts) if firsts else None
        for init, results in by_init.items():
            reached = [epochs_to(curve, target) for curve in found[init]]
            m1, error = mean_and_error([m for m in reached if m is not None])
            beaten = [epochs_to(c, first, strict=True) for c in found[init] if first is not None]
            m2, _ = mean_and_error([m for m in beaten if m is not None])
            known = paper.get((depth, n), {}).get(init, (None, None, None))
            best = [max(curve, default=0.0) for curve in found[init]]
            name = f"PHResNet{depth}, n = {n}, {init}"
            rows.append(
                {
                    "quantity": f"{name}: epochs to {target:.0%} (M1)",
                    "paper": known[0],
                    "here": m1,
                    "paper error": known[1],
                    "error": error,
                    "reached": f"{sum(m is not None for m in reached)} of {len(reached)}",
                    "paper M2": known[2],
                    "M2": None if init == "phydi" else m2,
                    "best": max(best),
                    "batch": batch_size,
                    "rate": rate,
                    "status": "; ".join(sorted({result["status"] for result in results})),
                    "cut": SCALES[scale].cut,
                }
            )
            curves[f"{depth}|{n}|{init}"] = found[init]
    return rows, curves


def gather(config: Config, settings: list[tuple[int, int, int, float]]) -> dict:
    """Run all cells of the settings (depth, n, batch size, rate), grouped by them."""
    cells = {
        (setting, init): [Cell(*setting[:2], init, seed, *setting[2:]) for seed in _seeds(config)]
        for setting in settings
        for init in config.inits
    }
    flat = [cell for group in cells.values() for cell in group]
    results = iter(run_cells(flat, config.scale, config.data, config.cells))
    groups: dict = {}
    for (setting, init), group in cells.items():
        groups.setdefault(setting, {})[init] = [next(results) for _ in group]
    return groups


def _seeds(config: Config) -> range:
    return range(config.num_seeds)


def run(config: Config) -> dict:
    """Epochs to the target for every network, and the curves."""
    settings = [(depth, n, 64, 0.01) for n in config.ns for depth in config.depths]
    rows, curves = compare(gather(config, settings), config.scale, PAPER)
    notes = [f"cut: {SCALES[config.scale].cut}"]
    return {"table": rows, "series": curves, "target": SCALES[config.scale].target, "notes": notes}


def plot(results: dict, figure=None):
    """Epochs to the target against depth, one panel for each n; bars are standard errors."""
    curves, target = results["series"], results["target"]
    reached = {}
    for name, seeds in curves.items():
        depth, n, init = name.split("|")
        reached[int(n), int(depth), init] = [epochs_to(curve, target) for curve in seeds]
    longest = max((len(curve) for seeds in curves.values() for curve in seeds), default=1)
    return epochs_against_depth(reached, COLOURS, longest, f"{target:.0%}", figure)
