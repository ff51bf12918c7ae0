"""Measured: Table 1 and Figure 4 at the preset for a CPU, real pictures and text, as recorded.

The cells of `table1`, `table2` and `figure4` at `--scale cpu` that this project has trained, from
`experiments/phydi/recorded`: nothing is trained here. With `--images` or `--text`, the finished
cells of folders of yours, however many there are.
"""

import dataclasses
import json
from pathlib import Path

import matplotlib.pyplot as plt

from experiments.phydi import figure4, table1, table2
from experiments.phydi.image_cells import SCALES

SHOWN = ("quantity", "paper", "here", "error", "reached", "paper M2", "M2", "best")
RECORDED = Path(__file__).parent / "recorded"


@dataclasses.dataclass(frozen=True)
class Config:
    """Whose cells."""

    images: Path | None = None
    """Folder of cells of `table1` and `table2`; those that are recorded if None."""
    text: Path | None = None
    """Folder of cells of `figure4`; those that are recorded if None."""


QUICK = Config()


def read(folder: Path | None, recorded: str) -> list[dict]:
    """The results of the finished cells of a folder, or of a file of records."""
    if folder is None:
        return json.loads((RECORDED / recorded).read_text())
    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*/result.json"))]
    if not found:
        raise ValueError(f"{folder}: expected folders with a result.json each, found none")
    return found


def _grouped(results: list[dict], *names: str) -> dict:
    groups: dict = {}
    for result in sorted(results, key=lambda r: [r["cell"][name] for name in (*names, "seed")]):
        groups.setdefault(tuple(result["cell"][name] for name in names), []).append(result)
    return groups


def run(config: Config) -> dict:
    """The rows of the tables, and their curves."""
    found = read(config.images, "images_cpu.json")
    images = [result for result in found if result["cell"]["batch_size"] == 64]
    larger = [result for result in found if result["cell"]["batch_size"] != 64]
    text = read(config.text, "text_cpu.json")
    rows, curves = [], {}
    for results, paper, name in (
        (images, table1.PAPER, "table1"),
        (larger, table2.PAPER, "table2"),
    ):
        settings: dict = {}
        for key, seeds in _grouped(
            results, "depth", "n", "batch_size", "learning_rate", "init"
        ).items():
            settings.setdefault(key[:-1], {})[key[-1]] = seeds
        more, curves[name] = table1.compare(settings, "cpu", paper)
        rows += more
    more, curves["figure4"] = figure4.compare(_grouped(text, "n", "depth", "norm"), "cpu")
    rows += more
    cuts = {row["cut"] for row in rows}
    notes = [
        f"{len(found)} networks on images, {len(text)} on text.",
        *sorted(f"Cut: {cut}." for cut in cuts),
    ]
    targets = {"table1": SCALES["cpu"].target, "figure4": figure4.SCALES["cpu"].target}
    shown = [{name: row.get(name) for name in SHOWN} for row in rows]
    return {"table": shown, "series": curves, "targets": targets, "notes": notes}


def plot(results: dict):
    """Epochs to the target against depth: images above, text below."""
    figure = plt.figure(figsize=(11, 6.5), layout="constrained")
    parts = figure.subfigures(2, 1)
    for part, module, name in zip(parts, (table1, figure4), ("table1", "figure4")):
        module.plot({"series": results["series"][name], "target": results["targets"][name]}, part)
    return figure
