"""Cells of the image tables: one network trained once, resumable, kept in a folder of its own.

    <folder>/<cell>/metrics.jsonl, checkpoints/    written while it trains
    <folder>/<cell>/result.json                    when it has ended; such a cell never runs again

A cell ends at the target, after the last epoch, or where the loss ceases to be a number.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import Progress

import phydi
from experiments.runner import write_json

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a preset trains on, and for how long."""

    width: float
    """Multiplier of the channels."""
    num_train: int
    """Training images, the first so many."""
    num_test: int
    """Test images, the first so many."""
    shrink: int
    """Pixels a side that are averaged into one."""
    max_epochs: int
    """After how many to give up."""
    target: float
    """Test accuracy to reach."""
    digits: bool = False
    """Scikit-learn's digits instead of CIFAR-10."""

    @property
    def cut(self) -> str:
        """What differs from the paper's setting."""
        parts = []
        if self.digits:
            parts.append("digits instead of CIFAR-10")
        if self.width != 1:
            parts.append(f"width 1/{round(1 / self.width)}")
        if not self.digits and self.num_train < 50_000:
            parts.append(f"{self.num_train:,} of 50,000 training images")
        if not self.digits and self.num_test < 10_000:
            parts.append(f"{self.num_test:,} of 10,000 test images")
        if self.shrink > 1:
            parts.append(f"{32 // self.shrink} pixels a side")
        if self.target != 0.8:
            parts.append(f"target {self.target:.0%} instead of 80%")
        parts.append(f"at most {self.max_epochs} epochs")
        return "; ".join(parts)


SCALES = {
    "paper": Scale(1.0, 50_000, 10_000, 1, 50, 0.8),
    "cpu": Scale(1 / 8, 5_000, 2_000, 4, 20, 0.35),
    "digits": Scale(1 / 16, 256, 128, 1, 2, 0.8, digits=True),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network, trained once."""

    depth: int
    n: int
    init: str
    seed: int
    batch_size: int = 64
    learning_rate: float = 0.01

    def name(self, scale: str) -> str:
        """Of its folder: what it is, and a stamp of all settings of the preset."""
        stamp = repr((self, SCALES[scale])).encode()
        stamp = hashlib.sha256(stamp).hexdigest()[:8]
        rate = f"{self.learning_rate:g}"
        return (
            f"{scale}-resnet{self.depth}-n{self.n}-{self.init}-batch{self.batch_size}"
            f"-rate{rate}-seed{self.seed}-{stamp}"
        )


def _shrunk(images: phydi.Images, num: int, factor: int) -> phydi.Images:
    image = images.image[:num]
    if factor > 1:
        rows, height, width, channels = image.shape
        shape = (rows, height // factor, factor, width // factor, factor, channels)
        image = np.rint(image.reshape(shape).mean((2, 4))).astype(np.uint8)
    return phydi.Images(image, images.label[:num], images.names)


@functools.cache
def _loaded(scale: str, data: Path | None) -> tuple[phydi.Images, phydi.Images]:
    preset = SCALES[scale]
    train, test = phydi.digits() if preset.digits else phydi.cifar10(data)
    return (
        _shrunk(train, preset.num_train, preset.shrink),
        _shrunk(test, preset.num_test, preset.shrink),
    )


def _fit(cell: Cell, scale: str, data: Path | None, folder: Path, callback, devices) -> dict:
    preset = SCALES[scale]
    train, test = (phydi.prepare(images, n=cell.n) for images in _loaded(scale, data))
    # The released code's distributions: they decide how large a step of 0.01 is.
    start = {"algebra_init": phydi.released_algebra, "kernel_init": phydi.released_kernel(cell.n)}
    model = phydi.PHResNet(
        cell.depth,
        n=cell.n,
        num_classes=10,
        width=preset.width,
        init=cell.init,
        rngs=nnx.Rngs(cell.seed),
        **start,
    )
    batches = phydi.shuffled_batches(train, cell.batch_size)
    try:
        fitted = phydi.fit(
            model,
            batches,
            phydi.classification_loss,
            phydi.sgd(cell.learning_rate),
            key=jax.random.key(cell.seed),
            num_epochs=preset.max_epochs,
            test_data=phydi.ordered_batches(test, 500),
            stop_fn=lambda record: record["test_accuracy"] >= preset.target,
            callback=callback,
            log_steps=10,
            folder=folder,
            checkpoint_steps=200,
            devices=devices,
        )
        status = fitted.status
    except FloatingPointError as error:
        status = f"diverged: {error}".split(";")[0]
    records = [record for record in phydi.read_records(folder) if record["kind"] == "epoch"]
    return {
        "cell": dataclasses.asdict(cell),
        "scale": dataclasses.asdict(preset),
        "status": status,
        "steps_per_epoch": batches.num_batches,
        "epochs": records,
    }


def run_cell(cell: Cell, scale: str, data: Path | None, folder: Path, progress=None) -> dict:
    """The result of a cell, from its folder if it is there."""
    place = Path(folder) / cell.name(scale)
    path = place / "result.json"
    if path.exists():
        return json.loads(path.read_text())
    task = progress.add_task(cell.name(scale), total=SCALES[scale].max_epochs) if progress else None

    def show(record: dict) -> None:
        if task is None:
            return
        loss = f"loss {record['train_loss']:.3f}"
        accuracy = record.get("test_accuracy")
        text = loss if accuracy is None else f"{loss}, test accuracy {accuracy:.3f}"
        done = record["epoch"] - (0 if record["kind"] == "epoch" else 0.5)
        progress.update(task, completed=done, description=f"{cell.name(scale)} {text}")

    number = len(jax.devices())
    devices = jax.devices() if cell.batch_size % number == 0 else jax.devices()[:1]
    found = _fit(cell, scale, data, place, show, devices)
    write_json(path, found)
    if task is not None:
        progress.remove_task(task)
    return found


def run_cells(cells: list[Cell], scale: str, data: Path | None, folder: Path | None) -> list[dict]:
    """The results of cells, in their order; those of no folder are forgotten."""
    if scale not in SCALES:
        raise ValueError(f"scale: expected one of {', '.join(SCALES)}, got {scale!r}")
    if not SCALES[scale].digits:
        data = data_folder(data)
    context = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory()
    with context as place, Progress(console=console, transient=True) as progress:
        return [run_cell(cell, scale, data, Path(place), progress) for cell in cells]


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
