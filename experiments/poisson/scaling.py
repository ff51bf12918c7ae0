"""Scaling: time against the number of unknowns, beside scipy's banded solvers.

Medians of interleaved runs in one process, without compilation. solve_banded is LAPACK's gtsv,
solveh_banded its ptsv for symmetric positive definite matrices.
"""

import dataclasses
from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
from rich.progress import track

import poisson
from experiments.measuring import medians
from poisson.systems import poisson_diagonals


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and repetitions."""

    exponents: tuple[float, ...] = tuple(i / 2 for i in range(6, 15))
    """Unknowns m of about 10^k for these k."""
    rounds: int = 7
    """Interleaved repetitions; the median counts."""
    max_scan: int = 1_000_000
    """The two scans stop at this size."""


QUICK = Config(exponents=(3.0, 4.0, 5.0, 6.0), rounds=3, max_scan=10_000)


def contestants(m: int, scans: bool) -> dict:
    """Prepared calls for m unknowns, by name."""
    d = poisson.source(m + 2)[1:-1] / (m + 1) ** 2
    system = (*poisson_diagonals(m, d.dtype), d)
    host = np.asarray(d)
    bands = np.full((3, m), -1.0)
    bands[1] = 2
    calls = {
        "scipy solve_banded": partial(scipy.linalg.solve_banded, (1, 1), bands, host),
        "scipy solveh_banded": partial(scipy.linalg.solveh_banded, bands[:2], host),
        "green": partial(jax.jit(poisson.green), d),
        "partition": partial(jax.jit(poisson.partition), *system),
        "lapack": partial(jax.jit(poisson.lapack), *system),
    }
    if scans:
        calls["toeplitz"] = partial(jax.jit(poisson.toeplitz), d)
        calls["thomas"] = partial(jax.jit(poisson.thomas), *system)
    return calls


def run(config: Config) -> dict:
    """Median times by method."""
    series = {}
    for k in track(config.exponents, "scaling"):
        m = round(10**k)
        calls = contestants(m, scans=m <= config.max_scan)
        for name, seconds in medians(calls, config.rounds).items():
            series.setdefault(name, []).append((m, seconds))
    rows = []
    for name, points in series.items():
        m, seconds = points[-1]
        rows.append(
            {
                "quantity": f"{name}: ns per unknown at m = {m}",
                "paper": None,
                "here": 1e9 * seconds / m,
            }
        )
    return {"table": rows, "series": series}


def plot(results: dict):
    """Nanoseconds an unknown against m."""
    figure, axes = plt.subplots(figsize=(6.8, 4.6))
    for name, points in results["series"].items():
        m, seconds = (np.array(v) for v in zip(*points))
        style = "k" + ("-" if "solveh" in name else "--") if name.startswith("scipy") else "o-"
        axes.loglog(m, 1e9 * seconds / m, style, label=name, ms=4)
    axes.set(xlabel="unknowns m", ylabel="ns per unknown")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    return figure
