"""Figure 4: epochs until hypercomplex Transformers of 12 to 96 layers know WikiText-2.

Causal language models with the norm after each sub-layer, before it, or PHYDI's α and none. Counted
are the epochs of training to a validation perplexity of at most the target, 200 in the paper: mean
and standard error over seeds. The words are those of the released code (see `phydi.wikitext2`), and
so are the start and the optimizer; α is one a layer. The paper's text gives two points: PHYDI with
96 layers needs 2 epochs, and the post-norm diverges at 48 layers for n = 2, beyond 64 for n = 4.
`--scale paper` is the paper's setting and needs a GPU; `--scale cpu` keeps the depth and cuts what
the column `cut` says. Every cell is kept in a folder: a run that was stopped goes on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.phydi.cells import mean_and_error
from experiments.phydi.language_cells import SCALES, Cell, epochs_to, run_cells
from experiments.phydi.plotting import epochs_against_depth

NORMS = ("post", "pre", "phydi")


@dataclasses.dataclass(frozen=True)
class Config:
    """Which cells, and where they are kept."""

    scale: Literal["cpu", "paper", "python"] = "cpu"
    """The paper's setting, or what a CPU can do in a night; python needs no data."""
    depths: tuple[int, ...] = (12, 16, 24, 32, 48, 64, 96)
    """Layers."""
    ns: tuple[int, ...] = (2, 3, 4)
    """Numbers of components."""
    norms: tuple[Literal["post", "pre", "phydi"], ...] = NORMS
    """Places of the norm."""
    num_alphas: Literal[1, 2] = 1
    """Of a PHYDI layer; the released code has two."""
    learning_rate: float = 0.01
    """Of Adagrad, times 0.9 after each epoch."""
    num_seeds: int = 3
    """Runs of each cell."""
    data: Path | None = None
    """Folder of WikiText-2's files, or with `wikitext-2`; CERTAX_DATA or `data` if None."""
    cells: Path | None = Path("results/phydi/language-cells")
    """Folder of the cells; None to forget them."""


QUICK = Config(
    scale="python", depths=(2,), ns=(4,), norms=("pre", "phydi"), num_seeds=1, cells=None
)


def paper_value(depth: int, n: int, norm: str) -> float | str | None:
    """What the paper's text says of a cell, if it says anything."""
    if norm == "phydi" and depth == 96:
        return 2.0
    if norm == "post" and depth >= {2: 48, 4: 96}.get(n, 96):
        return "diverges"
    return None


def compare(groups: dict, scale: str) -> tuple[list[dict], dict]:
    """Rows and curves of groups {(n, depth, norm): results of the seeds}."""
    preset, rows, curves = SCALES[scale], [], {}
    for (n, depth, norm), results in groups.items():
        perplexities = [[e["perplexity"] for e in result["epochs"]] for result in results]
        reached = [epochs_to(curve, preset.target) for curve in perplexities]
        mean, error = mean_and_error([epochs for epochs in reached if epochs is not None])
        best = [min(curve, default=float("inf")) for curve in perplexities]
        rows.append(
            {
                "quantity": f"{depth} layers, n = {n}, {norm}: epochs to {preset.target:g}",
                "paper": paper_value(depth, n, norm),
                "here": mean,
                "error": error,
                "reached": f"{sum(epochs is not None for epochs in reached)} of {len(reached)}",
                "best": mean_and_error(best)[0],
                "status": "; ".join(sorted({result["status"] for result in results})),
                "cut": preset.cut,
            }
        )
        curves[f"{n}|{depth}|{norm}"] = perplexities
    return rows, curves


def run(config: Config) -> dict:
    """The epochs to the target for every model, and the curves."""
    names = [
        (n, depth, norm) for n in config.ns for depth in config.depths for norm in config.norms
    ]
    options = {"num_alphas": config.num_alphas, "learning_rate": config.learning_rate}
    cells = [
        Cell(depth, n, norm, seed, **options)
        for n, depth, norm in names
        for seed in range(config.num_seeds)
    ]
    results = iter(run_cells(cells, config.scale, config.data, config.cells))
    groups = {name: [next(results) for _ in range(config.num_seeds)] for name in names}
    rows, curves = compare(groups, config.scale)
    preset = SCALES[config.scale]
    notes = [f"cut: {preset.cut}", "a mean is over the seeds that reached the target"]
    return {"table": rows, "series": curves, "target": preset.target, "notes": notes}


def plot(results: dict, figure=None):
    """Epochs to the target against depth, a panel for each n; crosses where no seed reached it."""
    curves, target = results["series"], results["target"]
    reached = {}
    for name, seeds in curves.items():
        n, depth, norm = name.split("|")
        reached[int(n), int(depth), norm] = [epochs_to(curve, target) for curve in seeds]
    longest = max((len(curve) for seeds in curves.values() for curve in seeds), default=1)
    colours = {"post": "C0", "pre": "C2", "phydi": "C1"}
    return epochs_against_depth(reached, colours, longest, f"perplexity {target:g}", figure)
