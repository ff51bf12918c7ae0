"""Solve: -u'' = f with measured or user-given f, from a CSV file.

The file has two columns, x and f, on a uniform grid (an optional first line names them); x may run
over any interval. Without --data, an example is solved: a rod heated by a lamp, synthetic, with
noise on the readings (x in m, f in K/m²).
"""

import csv
import dataclasses
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import poisson

EXAMPLE = Path(__file__).with_name("example.csv")
UNIFORM = 0.02  # how far, in steps, a point may be off the uniform grid: printed decimals round


@dataclasses.dataclass(frozen=True)
class Config:
    """The file, the boundary values and the scheme."""

    data: Path | None = None
    """CSV file with columns x, f on a uniform grid; the example if not given."""
    left: float = 0.0
    """u at the first point."""
    right: float = 0.0
    """u at the last point."""
    order: int = 2
    """Order of the scheme: 2, 4 or 6. Higher orders want a smooth f."""
    method: str = "auto"
    """Method of `poisson.solve`."""


QUICK = Config()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str]) -> list[float] | None:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if len(numbers) == 2 else None


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """x and f of a CSV file, or a ValueError that names the file and the line."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(i, line) for i, line in enumerate(csv.reader(file), 1) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from error
    if lines and len(lines[0][1]) == 2 and not any(map(_is_number, lines[0][1])):
        lines = lines[1:]  # a header
    points = []
    for number, cells in lines:
        values = _numbers(cells)
        if values is None or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{path}, line {number}: expected two finite numbers x,f, got {','.join(cells)!r}"
            )
        points.append(values)
    if len(points) < 3:
        raise ValueError(f"{path}: expected at least 3 points, got {len(points)}")
    x, f = np.array(points).T
    step = (x[-1] - x[0]) / (len(x) - 1)
    if not step > 0:
        raise ValueError(f"{path}, line {lines[-1][0]}: expected x to increase")
    off = np.abs(x - (x[0] + step * np.arange(len(x)))) / step
    if off.max() > UNIFORM:
        worst = int(np.argmax(off > UNIFORM))
        raise ValueError(
            f"{path}, line {lines[worst][0]}: x = {x[worst]:g} is off the uniform grid of "
            f"{len(x)} points from {x[0]:g} to {x[-1]:g} (expected {x[0] + step * worst:g})"
        )
    return x, f


def run(config: Config) -> dict:
    """Solution and certificate."""
    x, f = read(config.data or EXAMPLE)
    length = x[-1] - x[0]
    solution = poisson.solve(
        f * length**2,  # u as a function of (x - x0)/length
        left=config.left,
        right=config.right,
        method=config.method,
        order=config.order,
    )
    status = poisson.Status(int(solution.stats.status))
    top = int(np.argmax(np.abs(solution.u)))
    bound = float(solution.certificate.algebraic.max())
    return {
        "table": [
            {"quantity": "points", "paper": None, "here": len(x)},
            {"quantity": "largest |u|", "paper": None, "here": float(abs(solution.u[top]))},
            {"quantity": "at x", "paper": None, "here": float(x[top])},
            {"quantity": "proved bound on rounding", "paper": None, "here": bound},
        ],
        "notes": [f"{solution.stats.method}: {status.message}."],
        "series": {"x": x, "f": f, "u": solution.u},
    }


def plot(results: dict):
    """f above, u below."""
    s = results["series"]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 5.4), sharex=True)
    top.plot(s["x"], s["f"], ".-", ms=3, lw=0.8, color="C1")
    top.set(ylabel="f")
    bottom.plot(s["x"], s["u"])
    bottom.set(xlabel="x", ylabel="u")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    return figure
