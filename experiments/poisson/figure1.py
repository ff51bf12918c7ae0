"""Figure 1: the numerical solution at h = 1e-2 on top of the exact one.

Below it, the error against the exact solution and what is proved about it: the certificate bounds
the rounding error from the residual and the discretisation error from max |f''| = 1e4. The rounding
error itself is measured against the discrete solution in rational arithmetic.
"""

import dataclasses
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np

import poisson


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid and the method."""

    num_points: int = 101
    """Grid points, boundary included."""
    method: str = "thomas"
    """Method of `poisson.solve`."""


QUICK = Config()


def run(config: Config) -> dict:
    """Solution, exact solution and certificate."""
    n = config.num_points
    f = poisson.source(n)
    solution = poisson.solve(f, method=config.method, derivative_bound=1e4)
    u = poisson.exact_solution(n)
    error = np.abs(np.asarray(solution.u - u))
    exact = poisson.rational_solution(f)
    rounding = [abs(float(Fraction(v) - e)) for v, e in zip(solution.u.tolist(), exact)]
    proof = solution.certificate
    return {
        "table": [
            {
                "quantity": "max |error|",
                "paper": None,
                "here": error.max(),
                "proved bound": float(proof.algebraic.max() + proof.discretisation),
            },
            {
                "quantity": "max |rounding error|",
                "paper": None,
                "here": max(rounding),
                "proved bound": float(proof.algebraic.max()),
            },
        ],
        "series": {
            "x": solution.x,
            "u": solution.u,
            "exact": u,
            "error": error,
            "rounding": rounding,
            "rounding bound": proof.algebraic,
            "discretisation bound": proof.discretisation,
        },
    }


def plot(results: dict):
    """Solution above, errors and their bounds below."""
    s = results["series"]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 6.4), sharex=True)
    top.plot(s["x"], s["u"], lw=3, label="numerical")
    top.plot(s["x"], s["exact"], "--", color="limegreen", label="exact")
    top.set(ylabel="u")
    top.legend()
    inner = slice(1, -1)
    x = s["x"][inner]
    bottom.semilogy(x, s["error"][inner], label="|v - u|")
    bottom.axhline(s["discretisation bound"], color="C0", ls=":", label="its bound, proved")
    rounding = np.maximum(s["rounding"][inner], 1e-19)
    bottom.semilogy(x, rounding, ".", ms=9, color="C1", label="|v - v*|")
    bottom.semilogy(x, s["rounding bound"][inner], color="k", lw=0.8, label="its bound, proved")
    bottom.set(xlabel="x", ylabel="error")
    bottom.legend(loc="center right")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    return figure
