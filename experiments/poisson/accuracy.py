"""Accuracy: ε of all methods against h, in float64 and float32, with the exact h² and h⁴ lines.

Elimination loses digits as the grid gets finer, because rounding is amplified by the condition
number, about 1/h². The Green's function has positive coefficients only and stays on the line. In
float32 its block sums are compensated.
"""

import dataclasses

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import poisson
from experiments.poisson.errors import exact_error, solution

METHODS = ("green", "toeplitz", "thomas", "partition", "lapack")


@dataclasses.dataclass(frozen=True)
class Config:
    """Step sizes."""

    exponents: tuple[float, ...] = tuple(i / 2 for i in range(2, 15))
    """Steps h of about 10^-k for these k."""


QUICK = Config(exponents=(1.0, 2.0, 4.0, 6.0))


def run(config: Config) -> dict:
    """ε by method, precision and order, and rounding errors against the closed solution."""
    series = {}
    rows = []
    for k in track(config.exponents, "accuracy"):
        n = round(10**k) + 1
        u64 = poisson.exact_solution(n)
        exact = {order: poisson.discrete_solution(n, order=order) for order in (2, 4)}
        for dtype in (jnp.float64, jnp.float32):
            f = poisson.source(n, dtype=dtype)
            for method in METHODS:
                u = solution(f, method).astype(u64.dtype)
                name = f"{method} {jnp.dtype(dtype).name}"
                series.setdefault(name, []).append((n - 1, poisson.relative_error(u, u64)))
                if method == "green":
                    rounding = 10 ** float(poisson.relative_error(u, exact[2]))
                    rows.append(
                        {
                            "quantity": f"rounding of green, {jnp.dtype(dtype).name}, N = {n - 1}",
                            "paper": None,
                            "here": rounding,
                            "in units of roundoff": rounding / (float(jnp.finfo(dtype).eps) / 2),
                        }
                    )
        for order in (4, 6):
            if n >= 8:
                u = solution(poisson.source(n), "green", order)
                point = (n - 1, poisson.relative_error(u, u64))
                series.setdefault(f"order {order} float64", []).append(point)
    exact_line = [(round(10**k), exact_error(np.log10(round(10**k)))) for k in config.exponents]
    return {"table": rows, "series": series, "exact": exact_line}


def plot(results: dict):
    """ε against h, log–log; one panel a precision."""
    names = list(dict.fromkeys(name.rsplit(" ", 1)[0] for name in results["series"]))
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, dtype in zip(panels, ("float64", "float32")):
        N, line = zip(*results["exact"])
        axes.semilogx(1 / np.array(N), line, color="0.8", lw=7, label="exact, order 2")
        for i, name in enumerate(names):
            points = results["series"].get(f"{name} {dtype}")
            if points is None:
                continue
            N, error = zip(*points)
            style = {"color": f"C{i}", "marker": "osv^Dxx"[i], "ms": 10 - i if i < 5 else 5}
            axes.semilogx(1 / np.array(N), error, lw=1, label=name, fillstyle="none", **style)
        axes.set(xlabel="h", title=dtype)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("ε = log10 of the largest relative error")
    return figure
