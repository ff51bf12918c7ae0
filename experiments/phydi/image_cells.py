"""Cells of Tables 1 and 2: one hypercomplex ResNet trained once on images."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from flax import nnx
from jax import Array

import phydi
from experiments.phydi import cells as kept
from experiments.resuming import stamp


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
    "digits": Scale(1 / 16, 1_437, 360, 1, 8, 0.9, digits=True),
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
        rate = f"{self.learning_rate:g}"
        return (
            f"{scale}-resnet{self.depth}-n{self.n}-{self.init}-batch{self.batch_size}"
            f"-rate{rate}-seed{self.seed}-{stamp(self, SCALES[scale])}"
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


def fit_cell(
    cell: Cell,
    scale: str,
    data: Path | None,
    folder: Path,
    callback,
    *,
    preset: Scale | None = None,
    rank: int | None = None,
) -> dict:
    """Train one cell on the images of a scale; `preset` may ask for another end than that has."""
    preset = SCALES[scale] if preset is None else preset
    train, test = (phydi.prepare(images, n=cell.n) for images in _loaded(scale, data))
    # The released code's distributions: they decide how large a step of 0.01 is.
    start = {"algebra_init": phydi.released_algebra, "kernel_init": phydi.released_kernel(cell.n)}
    if rank is not None:  # it has none for factors: ours, scaled to the same variance of A
        start["algebra_init"] = _factors_of_released_size
    model = phydi.PHResNet(
        cell.depth,
        n=cell.n,
        num_classes=10,
        width=preset.width,
        init=cell.init,
        rank=rank,
        rngs=nnx.Rngs(cell.seed),
        **start,
    )
    return kept.train(
        cell,
        preset,
        model,
        phydi.shuffled_batches(train, cell.batch_size),
        phydi.classification_loss,
        phydi.sgd(cell.learning_rate),
        batch_size=cell.batch_size,
        folder=folder,
        test_data=phydi.ordered_batches(test, 500),
        stop_fn=lambda record: record["test_accuracy"] >= preset.target,
        callback=callback,
        log_steps=10,
        checkpoint_steps=200,
    )


def _factors_of_released_size(key, shape, dtype) -> Array:
    """Factors whose tensor has the variance of the released code's, 1/n², instead of 1/n."""
    return phydi.isometric_factors(key, shape, dtype) * shape[-1] ** (-1 / 6)


def _say(record: dict) -> str:
    loss = f"loss {record['train_loss']:.3f}"
    accuracy = record.get("test_accuracy")
    return loss if accuracy is None else f"{loss}, test accuracy {accuracy:.3f}"


def run_cells(cells: list[Cell], scale: str, data: Path | None, folder: Path | None) -> list[dict]:
    """The results of cells, in their order; those of no folder are forgotten."""
    preset = kept.find_scale(SCALES, scale)
    if not preset.digits:
        data = kept.data_folder(data)
    runs = {cell.name(scale): functools.partial(fit_cell, cell, scale, data) for cell in cells}
    return kept.run_cells(runs, preset.max_epochs, folder, _say)
