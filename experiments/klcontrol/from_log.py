"""From a log: learn z*, λ* and Φ from transitions in a CSV file, without knowing the dynamics.

The file has three columns, x, cost, x': states by any names, and the cost of a step from x (an
optional first line names the columns). Each line is one transition; the lines need not follow one
another. Without --data an example is learned: a walk on a 3 × 3 grid with a goal, as a robot would
have logged it. KL-learning with the local clock; the log is gone through `passes` times.
"""

import csv
import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import klcontrol

EXAMPLE = Path(__file__).with_name("example.csv")


@dataclasses.dataclass(frozen=True)
class Config:
    """The file and how to learn from it."""

    data: Path | None = None
    """CSV file with columns x, cost, x'; the example if not given."""
    beta: float = 1.0
    """Inverse temperature."""
    passes: int = 50
    """How often the log is gone through."""


QUICK = Config()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names of states, x, cost and x' of a CSV file, or a ValueError that names file and line."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(i, line) for i, line in enumerate(csv.reader(file), 1) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV: {error}") from error
    if lines and len(lines[0][1]) == 3 and _number(lines[0][1][1]) is None:
        lines = lines[1:]  # a header
    rows = []
    for number, cells in lines:
        cells = [cell.strip() for cell in cells]
        cost = _number(cells[1]) if len(cells) == 3 else None
        if cost is None or not math.isfinite(cost) or not cells[0] or not cells[2]:
            raise ValueError(
                f"{path}, line {number}: expected a state, a finite cost and the next state, got "
                f"{','.join(cells)!r}"
            )
        rows.append((number, cells[0], cost, cells[2]))
    if not rows:
        raise ValueError(f"{path}: expected at least one transition x,cost,x'")
    left = {x for _, x, _, _ in rows}
    for number, _, _, y in rows:
        if y not in left:
            raise ValueError(
                f"{path}, line {number}: state {y!r} is entered but never left in this log, so "
                "nothing can be learned about it"
            )
    names = sorted(left, key=lambda name: (_number(name) is None, _number(name) or 0, name))
    place = {name: i for i, name in enumerate(names)}
    x = np.array([place[x] for _, x, _, _ in rows], np.int32)
    y = np.array([place[y] for *_, y in rows], np.int32)
    return names, x, np.array([cost for _, _, cost, _ in rows]), y


def learn(x, cost, y, num_states: int, beta: float, passes: int) -> klcontrol.Estimate:
    """KL-learning over the log, again and again."""
    algorithm = klcontrol.kl_learning(beta=beta)
    data = tuple(map(jnp.asarray, (x, cost, y)))

    def through(state, _):
        state, _ = jax.lax.scan(lambda s, row: (algorithm.step(s, *row), None), state, data)
        return algorithm.refresh(state), None

    start = algorithm.init(num_states, lam=float(np.exp(-beta * np.mean(cost))))
    state, _ = jax.jit(lambda s: jax.lax.scan(through, s, length=passes))(start)
    return algorithm.estimate(state)


def run(config: Config) -> dict:
    """What was learned, beside the exact solution for the frequencies of the log."""
    path = config.data or EXAMPLE
    names, x, cost, y = read(path)
    n = len(names)
    estimate = learn(x, cost, y, n, config.beta, config.passes)
    # H as the log has it: the mean of exp(-βc) over the steps from i, those to j alone.
    H = np.zeros((n, n))
    np.add.at(H, (x, y), np.exp(-config.beta * cost))
    H = H / np.bincount(x, minlength=n)[:, None]
    sums = H.sum(axis=1)
    notes = []
    try:
        problem = klcontrol.Problem(H / sums[:, None], -np.log(sums) / config.beta, config.beta)
        exact = klcontrol.solve(problem)
        lam, value = float(exact.lam), np.asarray(exact.value)
    except ValueError as error:  # the log's chain need not be irreducible
        lam, value = None, None
        notes.append(f"No exact solution to compare with: {error}")
    learned = -np.log(np.asarray(estimate.z)) / config.beta
    return {
        "table": [
            {"quantity": "transitions", "paper": None, "here": len(x)},
            {"quantity": "states", "paper": None, "here": n},
            {
                "quantity": "λ learned",
                "paper": None,
                "here": float(estimate.lam),
                "of the empirical chain": lam,
            },
            {
                "quantity": "average cost ρ learned",
                "paper": None,
                "here": -math.log(float(estimate.lam)) / config.beta,
                "of the empirical chain": None if lam is None else -math.log(lam) / config.beta,
            },
        ],
        "notes": notes,
        "series": {"names": names, "learned": learned, "exact": value},
    }


def plot(results: dict):
    """Φ of each state, learned and exact."""
    s = results["series"]
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    places = np.arange(len(s["names"]))
    if s["exact"] is not None:
        axes.bar(places, np.array(s["exact"]), color="0.85", label="empirical chain, exact")
    axes.plot(places, np.array(s["learned"]), "o", ms=4, label="learned")
    axes.set(xlabel="state", ylabel="Φ")
    axes.margins(y=0.25)
    if len(places) <= 40:
        axes.set_xticks(places, s["names"], rotation=45, fontsize=7)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure
