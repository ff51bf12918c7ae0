"""Learn, prove and draw one system of four or six states: what its experiments have in common."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import lyapjax as ly
from experiments.lyapjax.study import LQR, OURS, axis_names, checked, papers_claim, trajectories
from lyapjax.growth import controller, value


class Case(NamedTuple):
    """A system, what its networks see, and how it is drawn: a plane of two states, a time."""

    make: Callable[..., ly.System]
    radius: float
    sees: tuple[int, ...]
    plane: tuple[int, int]
    seconds: float


def links(number: int) -> Case:
    """That many links; the paper's radius for its three."""
    make = partial(ly.systems.n_link, number)
    return Case(make, 0.5 if number >= 3 else 1.0, tuple(range(number)), (0, 1), 4.0)


CASES = {
    "ducted fan": Case(ly.systems.ducted_fan, 6.0, (2,), (0, 2), 40.0),
    "quadrotor": Case(ly.systems.planar_quadrotor, 10.0, (2,), (0, 2), 10.0),
    "cart-pole": Case(ly.systems.cart_pole, 5.0, (1,), (1, 3), 15.0),
    "2 links": links(2),
    "3 links": links(3),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The run."""

    seed: int = 0
    """Of the learner."""
    num_steps: int = 1500
    """Of learning."""
    max_seconds: float = 60.0
    """Budget of each proof."""
    radius: float | None = None
    """Of the domain, in the norm of the states; by default that of `CASES`."""
    certificate: Path | None = None
    """File for the certificate of the proof, which is then replayed."""


QUICK = Config(num_steps=600, max_seconds=20.0)


def study_region(case: Case, config, *, replays: bool = False) -> dict:
    """LQR's certified region, and that of a learned V and controller.

    The certificate is written and replayed if it is given a file, or with `replays`.
    """
    make, radius, sees, plane, seconds = case
    system = make(radius=config.radius or radius)
    regulator = ly.lqr(system)
    f_lqr = system.closed_loop(ly.linear_controller(system, regulator.K))
    lqr = ly.verify_region(f_lqr, regulator.P, system.domain, max_seconds=config.max_seconds)
    start = time.perf_counter()
    candidate, (volumes, rates) = ly.grow(
        jax.random.key(config.seed), system, sees=sees, num_steps=config.num_steps
    )
    jax.block_until_ready(candidate.L)
    learning = time.perf_counter() - start
    ours = ly.verify_candidate(candidate, system, max_seconds=config.max_seconds)
    ratio = ours.volume / lqr.volume if lqr.volume else np.nan
    rows = [
        {
            "quantity": "learned: whole proof",
            "paper": papers_claim(system),
            "here": ours.verdict.value,
        },
        {"quantity": "learned: certified level", "paper": None, "here": ours.level},
        {"quantity": "learned: certified volume", "paper": None, "here": ours.volume},
        {"quantity": "learned: boxes of the proof", "paper": None, "here": len(ours.lo)},
        {"quantity": "LQR: whole proof", "paper": None, "here": lqr.verdict.value},
        {"quantity": "LQR: certified level", "paper": None, "here": lqr.level},
        {"quantity": "LQR: certified volume", "paper": None, "here": lqr.volume},
        {"quantity": "LQR: boxes of the proof", "paper": None, "here": len(lqr.lo)},
        {"quantity": "certified volume over LQR's", "paper": None, "here": ratio},
        {"quantity": "seconds of learning", "paper": None, "here": learning},
        {"quantity": "seconds of proving", "paper": None, "here": ours.seconds},
        {"quantity": "seconds of proving LQR", "paper": None, "here": lqr.seconds},
    ]
    if replays or config.certificate is not None:
        replay, writing, replaying = checked(ours, config.certificate)
        rows += [
            {"quantity": "learned: its certificate, replayed", "paper": None, "here": replay},
            {"quantity": "seconds of writing the certificate", "paper": None, "here": writing},
            {"quantity": "seconds of replaying it", "paper": None, "here": replaying},
        ]
    at = np.asarray(system.equilibrium[0])
    rng = np.random.default_rng(config.seed)
    z = rng.normal(size=(12, system.state_dim))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    radius = np.sqrt(ours.level * 0.9) if ours.proved else 0.1
    # The features push the edge inwards; these starts are inside for small ones, and are shrunk.
    starts = at + radius * z @ ours.R.T
    V = jax.jit(jax.vmap(lambda x: value(candidate, jnp.asarray(at), x)))
    for _ in range(20):
        outside = np.asarray(V(jnp.asarray(starts))) > (ours.level if ours.proved else 0.1)
        starts[outside] = at + 0.9 * (starts[outside] - at)
    f = system.closed_loop(controller(candidate, system))
    # Runge–Kutta needs h |λ| < 2.7 for the fastest mode, which learned gains make fast.
    fastest = np.abs(np.linalg.eigvals(np.asarray(jax.jacfwd(f)(jnp.asarray(at))))).max()
    num = 200 * int(np.ceil(max(400, 2 * seconds * fastest) / 200))
    found = trajectories(f, starts, seconds, num)[:, :: num // 200]
    return {
        "table": rows,
        "series": {
            "plane": plane,
            "names": axis_names(system),
            "P": candidate.P,
            "P_lqr": regulator.P,
            "level": ours.level,
            "level_lqr": lqr.level,
            "grid": _slice(V, candidate.P, at, plane),
            "volumes": np.asarray(volumes)[:: max(1, config.num_steps // 200)],
            "rates": np.asarray(rates)[:: max(1, config.num_steps // 200)],
            "ours": found,
            "V": np.stack([np.asarray(V(jnp.asarray(path))) for path in found]),
            "seconds": seconds,
        },
        "notes": [
            f"{system.name}: {ours.statement}" + (f": {ours.reason}" if ours.reason else ""),
            f"Boxes bounded for all levels tried: {ours.num_boxes}, for LQR {lqr.num_boxes}.",
        ],
    }  # fmt: skip


def _slice(V, P, at, plane) -> dict:
    """V on the plane of two coordinates through x*."""
    i, j = plane
    inverse = np.linalg.inv(P)
    reach = 1.15 * np.sqrt([inverse[i, i], inverse[j, j]])
    axes = [np.linspace(-r, r, 81) for r in reach]
    points = np.zeros((81 * 81, len(P))) + at
    a, b = np.meshgrid(*axes)
    points[:, i] += a.ravel()
    points[:, j] += b.ravel()
    values = np.concatenate([np.asarray(V(jnp.asarray(p))) for p in np.array_split(points, 4)])
    return {"x": axes[0], "y": axes[1], "V": values.reshape(81, 81)}


def _ellipse(P, level, plane):
    """The section of an ellipsoid with the plane of two coordinates."""
    section = P[np.ix_(plane, plane)]
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    return np.sqrt(level) * np.linalg.solve(np.linalg.cholesky(section).T, circle)


def draw_region(results: dict):
    """Sections of the regions, V along trajectories, the course of learning."""
    s = results["series"]
    plane = list(s["plane"])
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    grid = s["grid"]
    if s["level"] is not None:  # the JSON has null for NaN
        axes[0].contour(grid["x"], grid["y"], grid["V"], [s["level"]], colors=OURS)
    if s["level_lqr"] is not None:
        axes[0].plot(*_ellipse(np.asarray(s["P_lqr"]), s["level_lqr"], plane), color=LQR)
    axes[0].plot([], [], color=OURS, label="learned, proved")
    axes[0].plot([], [], color=LQR, label="LQR, proved")
    axes[0].set_xlabel(s["names"][plane[0]])
    axes[0].set_ylabel(s["names"][plane[1]])
    axes[0].set_title("sections of the certified regions")
    axes[0].legend(loc="upper right")
    V = np.asarray(s["V"])
    V = np.where(np.isfinite(V) & (V < 1e6), V, np.nan)  # unproved loops may run away
    axes[1].semilogy(np.linspace(0, s["seconds"], V.shape[1]), V.T, color=OURS, lw=0.8)
    axes[1].set_xlabel("time (s)")
    axes[1].set_ylabel("V")
    axes[1].set_title("V along trajectories from the edge")
    steps = np.arange(len(s["volumes"]))
    axes[2].plot(steps / max(len(steps) - 1, 1), s["volumes"], color=OURS)
    axes[2].set_xlabel("share of the training")
    axes[2].set_ylabel("log volume of {V ≤ 1}")
    axes[2].set_title("growth of the region while learning")
    return figure
