"""Convergence: error against steps of KL-learning and its rivals, on three problems.

Errors of z (1-norm, 1-normalised) and of λ (relative) against steps for each state, median and
quartiles over independent chains, with the default gains for all. Z-learning knows λ* = 1 and is
run on costs shifted by ρ*, which no one has in practice. The power method sees all of H at every
sweep: one sweep is counted as n steps.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import klcontrol


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the runs."""

    seed: int = 0
    """Of the chains."""
    num_chains: int = 64
    """Independent chains."""
    sweeps: int = 10_000
    """Steps of a chain, divided by the number of states."""
    records: int = 100
    """Points of each curve."""
    num_problems: int = 3
    """How many of the problems."""


QUICK = Config(num_chains=16, sweeps=500, records=10, num_problems=2)


def problems() -> dict:
    """A problem of Example 2.2 and two gridworlds."""
    rng = np.random.default_rng(0)
    walls = np.zeros((8, 8), bool)
    walls[4, 1:] = True
    return {
        "Example 2.2, n = 20": klcontrol.examples.boltzmann(rng.uniform(0, 2, 20)).problem,
        "grid 10 × 10": klcontrol.examples.gridworld((10, 10), goals=[(2, 7)], cost=0.5).problem,
        "grid with a wall": klcontrol.examples.gridworld(
            (8, 8), goals=[(7, 7)], cost=0.2, walls=walls
        ).problem,
    }


def algorithms() -> dict:
    """The online rules."""
    return {
        "KL-learning": klcontrol.kl_learning(),
        "KL-learning, global clock": klcontrol.kl_learning(clock="global"),
        "differential rule": klcontrol.differential(),
        "Z-learning, λ* known": klcontrol.z_learning(),
    }


def whole(estimate):
    """Keep z, which is scaled to a sum of one, and λ."""
    return estimate.z / jnp.sum(estimate.z), estimate.lam


def power_method(problem, exact, sweeps: np.ndarray) -> np.ndarray:
    """Errors of z after so many sweeps."""
    q, w = np.asarray(klcontrol.as_dense(problem.q)), np.exp(-np.asarray(problem.cost))
    z, errors = np.ones(len(w)) / len(w), []
    for sweep in range(1, int(sweeps[-1]) + 1):
        z = w * (q @ z)
        z = z / z.sum()
        if sweep in sweeps:
            errors.append(np.abs(z - exact).sum())
    return np.array(errors)


def run(config: Config) -> dict:
    """Curves and the errors at the end."""
    rows, series = [], {}
    for name, problem in track(list(problems().items())[: config.num_problems], "problems"):
        solution = klcontrol.solve(problem)
        exact, lam = np.asarray(solution.z / solution.z.sum()), float(solution.lam)
        shifted = klcontrol.Problem(problem.q, problem.cost - solution.rho)
        n = problem.num_states
        every = config.sweeps // config.records * n
        every += every % 2
        num_steps = every * config.records
        steps = np.arange(1, config.records + 1) * every / n
        series[name] = {"sweeps": steps, "curves": {}}
        for label, algorithm in algorithms().items():
            known = algorithm.rule == "z"
            result = klcontrol.simulate(
                jax.random.key(config.seed),
                shifted if known else problem,
                algorithm,
                num_steps=num_steps,
                every=every,
                num_chains=config.num_chains,
                record_fn=whole,
            )
            z, lams = map(np.asarray, result.history)
            error = np.abs(z - exact).sum(axis=-1)
            series[name]["curves"][label] = np.quantile(error, [0.25, 0.5, 0.75], axis=1)
            lam_error = 100 * abs(float(lams[-1].mean()) / lam - 1)
            rows.append(
                {
                    "quantity": f"{name}, {label}: error of z (%), mean of {len(error[0])} chains",
                    "paper": None,
                    "here": 100 * float(np.abs(z[-1].mean(axis=0) - exact).sum()),
                    "one chain (%)": 100 * float(np.median(error[-1])),
                    "error of λ (%)": None if known else lam_error,
                }
            )
        result = klcontrol.q_learning(
            jax.random.key(config.seed),
            problem,
            num_steps=num_steps,
            every=every,
            num_chains=config.num_chains,
        )
        error = np.abs(np.asarray(result.history) - exact).sum(axis=-1)
        series[name]["curves"]["Q-learning"] = np.quantile(error, [0.25, 0.5, 0.75], axis=1)
        rows.append(
            {
                "quantity": f"{name}, Q-learning: error of z (%), mean of {len(error[0])} chains",
                "paper": None,
                "here": 100 * float(np.abs(np.asarray(result.z).mean(axis=0) - exact).sum()),
                "one chain (%)": 100 * float(np.median(error[-1])),
                "error of λ (%)": 100 * abs(float(result.lam.mean()) / lam - 1),
            }
        )
        sweeps = np.unique(np.geomspace(1, min(2000, steps[-1]), 40).astype(int))
        series[name]["power"] = {"sweeps": sweeps, "error": power_method(problem, exact, sweeps)}
    return {"table": rows, "series": series}


def plot(results: dict):
    """Error of z against sweeps; bands are quartiles over chains."""
    series = results["series"]
    figure, panels = plt.subplots(1, len(series), figsize=(4.2 * len(series), 4), sharey=True)
    for axes, (name, s) in zip(panels, series.items()):
        for label, curve in s["curves"].items():
            low, middle, high = np.array(curve)
            (line,) = axes.loglog(s["sweeps"], middle, label=label, lw=1.2)
            axes.fill_between(s["sweeps"], low, high, color=line.get_color(), alpha=0.2)
        axes.loglog(s["power"]["sweeps"], s["power"]["error"], "k--", lw=1, label="power method")
        axes.set(xlabel="steps / n", title=name, ylim=(1e-4, 3))
        axes.grid(alpha=0.3, which="both")
    panels[0].set(ylabel="‖z - z*‖₁")
    panels[-1].legend(fontsize=7)
    return figure
