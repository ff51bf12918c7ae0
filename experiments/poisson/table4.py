"""Table IV: time of the general, the specialised and the dense algorithm, in microseconds.

The paper's are C++ loops and armadillo's LU on its authors' machine; ours are compiled by XLA and
timed here, medians of interleaved runs without compilation. A scan pays for every step in XLA; the
columns "green" and "partition" are the methods to use instead.
"""

import dataclasses
from functools import partial

import jax
import matplotlib.pyplot as plt
from rich.progress import track

import poisson
from experiments.measuring import medians
from poisson.pivoting import dense_lu_bytes
from poisson.systems import poisson_diagonals

PAPER = {  # by log10 n: general, specialised, LU, in microseconds
    1: (None, None, 144.60),
    2: (2.00, 2.60, 3285.00),
    3: (36.60, 22.20, 86933.40),
    4: (441.60, 397.80, 10779421.60),
    5: (6561.00, 3219.00, None),
    6: (34875.80, 14222.40, None),
}
METHODS = ("thomas", "toeplitz", "dense_lu", "green", "partition")


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and repetitions."""

    exponents: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Sizes n = 10^k for these k."""
    rounds: int = 7
    """Interleaved repetitions; the median counts."""
    max_gib: float = 4.0
    """Leave out dense LU where it needs more memory than this."""


QUICK = Config(exponents=(1, 2, 3, 4, 5), rounds=3, max_gib=0.05)


def contestants(n: int, dense: bool) -> dict:
    """Prepared calls for n grid points, by method."""
    d = poisson.source(n)[1:-1] / (n - 1) ** 2
    system = (*poisson_diagonals(n - 2, d.dtype), d)
    arguments = {"toeplitz": (d,), "green": (d,), "thomas": system, "partition": system}
    if dense:
        arguments["dense_lu"] = system
    return {name: partial(jax.jit(getattr(poisson, name)), *a) for name, a in arguments.items()}


def run(config: Config) -> dict:
    """Median times by size and method."""
    rows, series = [], {}
    for k in track(config.exponents, "times"):
        n = 10**k
        needed = dense_lu_bytes(n - 2) / 2**30
        calls = contestants(n, dense=needed <= config.max_gib)
        times = {name: 1e6 * t for name, t in medians(calls, config.rounds).items()}
        series[n] = times
        paper = dict(zip(METHODS, PAPER.get(k, (None,) * 3)))
        for name in METHODS:
            rows.append(
                {
                    "quantity": f"{name}, n = 1e{k} (µs)",
                    "paper": paper.get(name),
                    "here": times.get(name),
                }
            )
        if "dense_lu" not in calls:
            rows[-3]["left out"] = f"needs {needed:.1f} GiB (--max-gib)"
    return {"table": rows, "series": series}


def plot(results: dict):
    """Time against n, log–log, the paper's times as crosses."""
    figure, axes = plt.subplots(figsize=(6.4, 4.6))
    for i, name in enumerate(METHODS):
        points = [(int(n), t[name]) for n, t in results["series"].items() if name in t]
        axes.loglog(*zip(*points), "o-", color=f"C{i}", label=name)
    for i in range(3):
        points = [(10**k, t[i]) for k, t in PAPER.items() if t[i] is not None]
        axes.loglog(*zip(*points), "x:", color=f"C{i}", label=f"{METHODS[i]}, paper", lw=1)
    axes.set(xlabel="n", ylabel="time (µs)")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    return figure
