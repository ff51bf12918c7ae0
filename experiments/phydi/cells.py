"""Cells of the tables: one network trained once, resumable, kept in a folder of its own.

    <folder>/<cell>/metrics.jsonl, checkpoints/    written while it trains
    <folder>/<cell>/result.json                    when it has ended; such a cell never runs again

A cell ends at the target, after the last epoch, or where the loss ceases to be a number. What is
trained, on what, and for how long, is said in `image_cells` and `language_cells`.
"""

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import Progress

import phydi
from experiments.resuming import kept

console = Console(stderr=True)


def train(cell, preset, model, batches, loss_fn, optimizer, *, batch_size, folder, **options):
    """Train until the target, the last epoch or a loss that is no number: what is kept of it."""
    devices = jax.devices() if batch_size % len(jax.devices()) == 0 else jax.devices()[:1]
    try:
        status = phydi.fit(
            model,
            batches,
            loss_fn,
            optimizer,
            key=jax.random.key(cell.seed),
            num_epochs=preset.max_epochs,
            folder=folder,
            devices=devices,
            **options,
        ).status
    except FloatingPointError as error:
        status = f"diverged: {error}".split(";")[0]
    return {
        "cell": dataclasses.asdict(cell),
        "scale": dataclasses.asdict(preset),
        "status": status,
        "steps_per_epoch": batches.num_batches,
        "epochs": [r for r in phydi.read_records(folder) if r["kind"] == "epoch"],
    }


def run_cells(
    cells: dict[str, Callable[..., dict]],
    max_epochs: int,
    folder: Path | None,
    say: Callable[[dict], str],
) -> list[dict]:
    """The results of cells, by the names of their folders; those of no folder are forgotten.

    Each is a function (place, callback) -> result; `say` puts a record of training into words.
    """
    context = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory()
    with context as place, Progress(console=console, transient=True) as progress:
        return [
            _run(name, fit, max_epochs, Path(place) / name, say, progress)
            for name, fit in cells.items()
        ]


def _run(name: str, fit, max_epochs: int, place: Path, say, progress: Progress) -> dict:
    def train_it() -> dict:
        task = progress.add_task(name, total=max_epochs)

        def show(record: dict) -> None:
            done = record["epoch"] - (0 if record["kind"] == "epoch" else 0.5)
            progress.update(task, completed=done, description=f"{name} {say(record)}")

        found = fit(place, show)
        progress.remove_task(task)
        return found

    return kept(place / "result.json", train_it)


def find_scale(scales: dict, scale: str):
    """The preset of that name."""
    if scale not in scales:
        raise ValueError(f"scale: expected one of {', '.join(scales)}, got {scale!r}")
    return scales[scale]


def data_folder(data: Path | None) -> Path:
    """Where the data sets are: as given, or the environment's CERTAX_DATA, or the folder `data`."""
    return Path(os.environ.get("CERTAX_DATA", "data")) if data is None else data


def epochs_to(curve: list[float], level: float, *, strict: bool = False) -> int | None:
    """The first epoch (from 1) at which a curve reaches a level, or exceeds it; None if never."""
    for number, value in enumerate(curve, start=1):
        if value > level or (value == level and not strict):
            return number
    return None


def mean_and_error(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and standard error; the error is None for fewer than two values."""
    if not values:
        return None, None
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))
