"""Cells of Figure 4: one hypercomplex language model trained once on text."""

import dataclasses
import functools
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

import phydi
from experiments.phydi import cells as kept
from experiments.resuming import stamp


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a preset trains, on what, and for how long."""

    features: int
    """Of the signal between layers; the hidden layers have twice as many."""
    num_heads: int
    """Of the attention."""
    batch_size: int
    """Columns of text."""
    max_words: int
    """Of the vocabulary; the others are <unk>."""
    num_train: int | None
    """Words to learn from, the first so many; None for all."""
    num_valid: int | None
    """Words on which the perplexity is taken, the first so many; None for all."""
    max_epochs: int
    """After how many to give up."""
    target: float
    """Perplexity to reach."""
    python: bool = False
    """Python's own sources instead of WikiText-2."""

    @property
    def cut(self) -> str:
        """What differs from the paper's setting."""
        paper, parts = SCALES["paper"], []
        if self.python:
            parts.append("Python's own sources instead of WikiText-2")
        if self.features != paper.features:
            parts.append(f"{self.features} features instead of {paper.features}")
        if self.num_heads != paper.num_heads:
            parts.append(f"{self.num_heads} heads instead of {paper.num_heads}")
        if self.max_words != paper.max_words:
            parts.append(f"{self.max_words:,} words instead of {paper.max_words:,}")
        if self.num_train is not None:
            parts.append(f"{self.num_train:,} words of text an epoch instead of 2,049,990")
        if self.batch_size != paper.batch_size:
            parts.append(f"batch {self.batch_size} instead of {paper.batch_size}")
        if self.target != paper.target:
            parts.append(f"target {self.target:g} instead of {paper.target:g}")
        parts.append(f"at most {self.max_epochs} epochs")
        return "; ".join(parts)


SCALES = {
    "paper": Scale(128, 8, 64, 28_780, None, None, 50, 200.0),
    "cpu": Scale(32, 2, 16, 4_000, 100_000, 10_000, 4, 150.0),
    "python": Scale(8, 2, 8, 200, 8_000, 2_000, 2, 60.0, python=True),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One language model, trained once."""

    depth: int
    n: int
    norm: str
    seed: int
    num_alphas: int = 1
    learning_rate: float = 0.01

    def name(self, scale: str) -> str:
        """Of its folder: what it is, and a stamp of all settings of the preset."""
        mark = stamp(self, SCALES[scale])
        return f"{scale}-layers{self.depth}-n{self.n}-{self.norm}-seed{self.seed}-{mark}"


def released_start(n: int, features: int) -> dict:
    """The released code's distributions: they decide how large a step of 0.01 is."""
    kernel_init = phydi.released_kernel(n)

    def embedding_init(key, shape, dtype=jnp.float32):
        return kernel_init(key, shape[::-1], dtype).reshape(shape)

    return {
        "algebra_init": phydi.released_algebra,
        "kernel_init": kernel_init,
        "embedding_init": embedding_init,
        "embedding_scale": float(features),
    }


def model_of(cell: Cell, scale: str) -> phydi.PHTransformer:
    """The cell's language model before training."""
    preset = SCALES[scale]
    return phydi.PHTransformer(
        preset.max_words,
        cell.depth,
        cell.n,
        num_heads=preset.num_heads,
        features=preset.features,
        hidden=2 * preset.features,
        norm=cell.norm,
        num_alphas=cell.num_alphas,
        **released_start(cell.n, preset.features),
        rngs=nnx.Rngs(cell.seed),
    )


@functools.cache
def _loaded(scale: str, data: Path | None) -> phydi.Corpus:
    preset = SCALES[scale]
    if preset.python:
        return phydi.standard_library(max_words=preset.max_words)
    return phydi.wikitext2(data, tokens="released", max_words=preset.max_words)


def _first(words: np.ndarray, most: int | None, batch_size: int):
    """Batches of the first `most` words, all of one length so that there is one program."""
    if most is not None:
        places = max(min(most, len(words)) // batch_size // 35, 1) * 35 + 1
        words = words[: places * batch_size]
    return phydi.text_batches(words, batch_size)


def _perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _fit(cell: Cell, scale: str, data: Path | None, folder: Path, callback) -> dict:
    preset = SCALES[scale]
    corpus = _loaded(scale, data)
    train = _first(corpus.train, preset.num_train, preset.batch_size)
    model = model_of(cell, scale)
    found = kept.train(
        cell,
        preset,
        model,
        train,
        phydi.language_loss,
        phydi.adagrad(cell.learning_rate, steps_per_epoch=train.num_batches),
        batch_size=preset.batch_size,
        folder=folder,
        test_data=_first(corpus.valid, preset.num_valid, preset.batch_size),
        stop_fn=lambda record: record["test_loss"] <= math.log(preset.target),
        callback=callback,
        log_steps=20,
        checkpoint_steps=100,
    )
    for record in found["epochs"]:
        record["perplexity"] = _perplexity(record["test_loss"])
    if cell.norm == "phydi":
        alpha = np.abs(np.asarray(model.layers.blocks.alpha[...]))
        found["alpha"] = {"mean": float(alpha.mean()), "largest": float(alpha.max())}
    return found


def _say(record: dict) -> str:
    text = f"perplexity {_perplexity(record['train_loss']):.0f}"
    if "test_loss" in record:
        text += f", validation {_perplexity(record['test_loss']):.0f}"
    return text


def run_cells(cells: list[Cell], scale: str, data: Path | None, folder: Path | None) -> list[dict]:
    """The results of cells, in their order; those of no folder are forgotten."""
    preset = kept.find_scale(SCALES, scale)
    if not preset.python:
        data = kept.data_folder(data)
    runs = {cell.name(scale): functools.partial(_fit, cell, scale, data) for cell in cells}
    return kept.run_cells(runs, preset.max_epochs, folder, _say)


def epochs_to(perplexities: list[float], target: float) -> int | None:
    """The first epoch (from 1) with a perplexity of at most the target; None if never."""
    for number, value in enumerate(perplexities, start=1):
        if value <= target:
            return number
    return None
