"""Deblur: a picture of yours is blurred, made noisy and restored, with a proved radius.

Reads any picture that Pillow reads, as grey values in [0, 1], shrunk to at most `size` pixels a
side. The restoration knows the point-spread function, a bound on the noise from its standard
deviation, and that grey values lie in [0, 1]. Beside it: Tikhonov's regularisation, its parameter
by the discrepancy principle. Without --image, the scene of the paper's second example.
"""

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats
from PIL import Image
from rich.console import Console

import chebyshev

console = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """The picture and what is done to it."""

    image: Path | None = None
    """Picture file; the scene of the paper if not given."""
    size: int = 64
    """Longest side in pixels; more are averaged away. 64 x 64 takes half a minute."""
    sigma: float = 0.8
    """Standard deviation of the point-spread function, in pixels."""
    noise: float = 0.0125
    """Standard deviation of the noise, in grey values of [0, 1]."""
    confidence: float = 0.95
    """Probability that the bound on the noise holds."""
    seed: int = 0
    """Of the noise."""
    rtol: float = 1e-2
    """Relative gap of the squared radius to stop at."""


QUICK = Config(size=24)


def read(path: Path | None, size: int) -> np.ndarray:
    """Grey values in [0, 1], or a ValueError that names the file."""
    if not 4 <= size <= 128:
        raise ValueError(f"size: expected 4 to 128 pixels a side, for the proof, got {size}")
    if path is None:
        return np.clip(chebyshev.problems.blur_operator(size).x.reshape(size, size).T / 4, 0, 1)
    try:
        with Image.open(path) as file:
            if file.mode[0] in "IF":  # more than 8 bits, which convert would clip
                grey = np.asarray(file, float)
                top = grey.max() or 1.0
                picture = Image.fromarray((255 * np.clip(grey / top, 0, 1)).astype(np.uint8))
            else:
                picture = file.convert("L")
    except OSError as error:
        raise ValueError(f"{path}: not a picture that can be read: {error}") from None
    picture.thumbnail((size, size), Image.Resampling.BOX)
    if min(picture.size) < 2:
        raise ValueError(f"{path}: too narrow: {picture.size} pixels at this size")
    return np.asarray(picture, float) / 255


def _point_spread(n: int, sigma: float) -> np.ndarray:
    """Gaussian blur of n pixels, no light lost inside."""
    j = np.arange(n)
    column = np.where(j <= np.ceil(3 * sigma), np.exp(-(j**2) / (2 * sigma**2)), 0)
    return scipy.linalg.toeplitz(column) / (2 * column.sum() - column[0])


def _tikhonov(blur: chebyshev.problems.Kronecker, y: np.ndarray, rho: float) -> np.ndarray:
    """‖A x - y‖² = ρ with the smallest ‖x‖ of all, in the eigenvectors of both factors."""
    (a, U), (b, V) = np.linalg.eigh(blur.left), np.linalg.eigh(blur.right)
    factor = a[:, None] * b
    c = U.T @ y.reshape(factor.shape) @ V

    def filtered(log_weight):
        return c * factor / (factor**2 + np.exp(log_weight))

    def excess(log_weight):
        return np.sum((factor * filtered(log_weight) - c) ** 2) - rho

    # Where even x = 0 explains the data, or nothing does, the end that is closer to it.
    ends = -60.0, 20.0
    if excess(ends[0]) < 0 < excess(ends[1]):
        weight = scipy.optimize.brentq(excess, *ends)
    else:
        weight = min(ends, key=lambda end: abs(excess(end)))
    return (U @ filtered(weight) @ V.T).ravel()


def run(config: Config) -> dict:
    """The pictures, their errors, and the proved radius."""
    if not (config.sigma > 0 and config.noise > 0):
        raise ValueError(f"sigma, noise: expected positive, got {config.sigma}, {config.noise}")
    picture = read(config.image, config.size)
    rows, columns = picture.shape
    blur = chebyshev.problems.Kronecker(
        _point_spread(rows, config.sigma), _point_spread(columns, config.sigma)
    )
    x = picture.ravel()
    rng = np.random.default_rng(config.seed)
    y = blur(x) + config.noise * rng.normal(size=x.size)
    rho = config.noise**2 * scipy.stats.chi2.ppf(config.confidence, x.size)
    data = (blur, y, rho, np.zeros(x.size), np.ones(x.size))
    with console.status(f"restoring {rows} x {columns} pixels"):
        solution = chebyshev.rcc_matrix_free(*data, rtol=config.rtol)
        restored = np.asarray(solution.x)
    with console.status("proving the radius"):
        radius = chebyshev.certified_radius(*data, restored, solution.alpha)
    pictures = {
        "true": x,
        "blurred, with noise": y,
        "Tikhonov": _tikhonov(blur, y, rho),
        "RCC": restored,
    }
    errors = {name: float(np.sum((p - x) ** 2)) for name, p in pictures.items() if name != "true"}
    status = chebyshev.Status(int(solution.status))
    table = [
        {"quantity": f"squared error, {name}", "paper": None, "here": error}
        for name, error in errors.items()
    ]
    table += [
        {"quantity": "proved radius, squared", "paper": None, "here": radius**2},
        {"quantity": "radius of the box, squared", "paper": None, "here": x.size / 4},
        {"quantity": "relative gap", "paper": None, "here": float(solution.gap)},
    ]
    notes = [] if status == chebyshev.Status.CONVERGED else [f"restoration: {status.message}"]
    series = {name: p.reshape(picture.shape) for name, p in pictures.items()}
    return {"table": table, "series": series, "notes": notes}


def plot(results: dict):
    """Before and after."""
    series = results["series"]
    figure, panels = plt.subplots(1, len(series), figsize=(3 * len(series), 3.2))
    for axes, (name, picture) in zip(panels, series.items()):
        axes.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=1)
        axes.set_title(name)
        axes.set_axis_off()
    figure.tight_layout()
    return figure
