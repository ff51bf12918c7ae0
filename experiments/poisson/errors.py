"""What tables I to III share: ε of one method against the step size, and its plot."""

import math
from functools import partial

import jax
import matplotlib.pyplot as plt
from rich.progress import track

import poisson


@partial(jax.jit, static_argnames=("method", "order"))
def solution(f, method: str, order: int = 2):
    """u alone: what is not used of `poisson.solve` under `jit`, like its proof, is not computed."""
    return poisson.solve(f, method=method, order=order).u


def exact_error(k: float) -> float:
    """The exact ε at h = 10^-k: log10 |C - 1| without cancellation."""
    z = 5 * 10.0**-k  # C = (z / sinh z)^2, and ln C is known to full precision by its series
    log_c = -2 * (z * z / 6 - z**4 / 180 + z**6 / 2835)
    return math.log10(abs(math.expm1(log_c)))


def error_rows(method: str, exponents, paper: dict[int, float], skip=None) -> list[dict]:
    """ε of `method`, of method "green", the exact value and the paper's, by step size.

    `skip(n)` may return the reason why a size is left out.
    """
    rows = []
    for k in track(exponents, f"{method}"):
        n = 10**k + 1
        u, f = poisson.exact_solution(n), poisson.source(n)
        reason = skip(n) if skip else None

        def error(name, f=f, u=u):
            return float(poisson.relative_error(solution(f, name), u))

        rows.append(
            {
                "quantity": f"ε at h = 1e-{k}",
                "log10 h": -k,
                "paper": paper.get(k),
                "here": None if reason else error(method),
                "green": error("green"),
                "exact": exact_error(k),
            }
        )
        if reason:
            rows[-1]["left out"] = reason
    return rows


def error_plot(results: dict, label: str):
    """ε against log10 h: the paper's points, ours, and the exact line."""
    rows = results["table"]
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    h = [row["log10 h"] for row in rows]
    axes.plot(h, [row["exact"] for row in rows], "-", color="0.75", lw=5, label="exact")
    for key, style, name in (
        ("green", "o-", "here, green"),
        ("here", "s--", f"here, {label}"),
        ("paper", "kx", "paper"),
    ):
        points = [(x, row[key]) for x, row in zip(h, rows) if row[key] is not None]
        axes.plot(*zip(*points), style, label=name, ms=7 if key == "paper" else 5, mew=1.5)
    axes.set(xlabel="log10 h", ylabel="ε = log10 of the largest relative error")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure
