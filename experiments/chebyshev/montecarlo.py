"""Monte Carlo: how the errors of CLS and RCC compare over many draws of the noise.

The paper's figures are single draws. Here is the distribution of the ratio of squared errors, CLS
over RCC, over seeds: for the heat equation on the whole vector and on the observable part, for the
blurred image on all pixels. Above 1, RCC is better; the paper's figures are marked.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import chebyshev
from experiments.chebyshev.examples import OBSERVABLE, blur, heat, squared_error

PAPER = {"heat, α = 2": 196.0, "heat, α = 10": 55.0, "blur": 1 / (1 - 0.33)}


@dataclasses.dataclass(frozen=True)
class Config:
    """How many draws."""

    num_seeds: int = 200
    """Draws of the noise, seeds 0, 1, …"""


QUICK = Config(num_seeds=8)


def run(config: Config) -> dict:
    """Ratios by example and seed."""
    ratios: dict[str, list[float]] = {}
    for seed in track(range(config.num_seeds), "seeds"):
        for name, (sets, problem) in (
            ("heat, α = 2", heat(2, seed)),
            ("heat, α = 10", heat(10, seed)),
            ("blur", blur(seed)),
        ):
            rcc, cls = chebyshev.rcc(sets), chebyshev.cls(sets)
            if int(rcc.status) != chebyshev.Status.CONVERGED:
                raise RuntimeError(f"{name}, seed {seed}: rcc ended with {int(rcc.status)}")
            parts = [(name, None)]
            if name.startswith("heat"):
                parts.append((f"{name}, first {OBSERVABLE}", OBSERVABLE))
            for part, upto in parts:
                errors = [squared_error(e.x, problem.x, upto) for e in (cls, rcc)]
                ratios.setdefault(part, []).append(errors[0] / errors[1])
    rows = []
    for name, values in ratios.items():
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        rows.append(
            {
                "quantity": f"CLS error / RCC error, {name}: median of {len(values)} draws",
                "paper": PAPER.get(name),
                "here": middle,
                "10% quantile": low,
                "90% quantile": high,
                "share above 1": float(np.mean(np.array(values) > 1)),
            }
        )
    return {"table": rows, "series": ratios}


def plot(results: dict):
    """One histogram an example, the paper's draw as a line."""
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.4))
    for axes, name in zip(panels, PAPER):
        for part, values in results["series"].items():
            if part.startswith(name + ",") or part == name:
                bins = np.geomspace(min(values) * 0.9, max(values) * 1.1, 25)
                label = "whole vector" if part == name else part.removeprefix(name + ", ")
                axes.hist(values, bins=bins, alpha=0.6, label=label)
        axes.axvline(PAPER[name], color="k", ls="--", label="paper, one draw")
        axes.axvline(1, color="0.6", lw=1)
        axes.set(xscale="log", title=name, xlabel="CLS error / RCC error")
        axes.legend(fontsize=8)
    return figure
