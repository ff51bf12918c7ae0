"""All systems: certified regions of what is learned, of LQR and of sums of squares, side by side.

Two-state systems by `synthesize` and `verify`, the others by `grow` and `verify_region`. Everything
in the table is proved whole: convergence from the level set to x*, strictly, without a hole.
"""

import dataclasses
import time

import jax
import matplotlib.pyplot as plt
import numpy as np

import lyapjax as ly
from experiments.lyapjax.study import LQR, OURS, regulator_proof

# Of the larger systems: the coordinates that the networks see, and the radius of the domain.
LARGE = {
    "ducted_fan": (ly.systems.ducted_fan, (2,), 3.0),
    "planar_quadrotor": (ly.systems.planar_quadrotor, (2,), 10.0),
    "cart_pole": (ly.systems.cart_pole, (1,), 5.0),
    "2 links": (lambda radius: ly.systems.n_link(2, radius=radius), (), 1.0),
    "3 links": (lambda radius: ly.systems.n_link(3, radius=radius), (), 0.5),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which systems, and how long."""

    plane: tuple[str, ...] = ("inverted_pendulum", "path_following", "van_der_pol")
    """Two-state systems, by their names in `lyapjax.systems`."""
    large: tuple[str, ...] = tuple(LARGE)
    """Names in `LARGE`."""
    seed: int = 0
    """Of the learners."""
    num_steps: int = 2500
    """Of `grow`."""
    sos_degree: int = 4
    """Of V by sums of squares."""
    sos_rounds: int = 15
    """Of its search; 0 leaves it out."""
    max_seconds: float = 60.0
    """Budget of each proof."""


QUICK = Config(
    plane=("inverted_pendulum",),
    large=("ducted_fan",),
    num_steps=300,
    sos_rounds=3,
    max_seconds=10.0,
)


def _plane(name: str, config: Config) -> dict:
    """A two-state system."""
    system = getattr(ly.systems, name)()
    start = time.perf_counter()
    # Its own budget, most of which is compiling: a proof that is cut short would compare nothing.
    result = ly.synthesize(system, key=jax.random.key(config.seed))
    seconds = time.perf_counter() - start
    lqr, sos = np.nan, np.nan
    f = system.closed_loop()
    if system.control_dim:
        _, f, proof = regulator_proof(system, result.V, config.max_seconds)
        lqr = proof.volume
    if config.sos_rounds:
        found = ly.sos(
            f, system.domain, degree=config.sos_degree, taylor_degree=5,
            num_rounds=config.sos_rounds,
        )  # fmt: skip
        sos = ly.verify(found.V, f, system.domain, max_seconds=config.max_seconds).volume
    boxes = sum(proof.num_boxes for proof in result.verification.proofs.values())
    return _row(system, result.verdict, result.volume, lqr, sos, boxes, seconds)


def _large(name: str, config: Config) -> dict:
    """A system of four or six states."""
    make, sees, radius = LARGE[name]
    system = make(radius=radius)
    start = time.perf_counter()
    candidate, _ = ly.grow(
        jax.random.key(config.seed), system, sees=sees, num_steps=config.num_steps
    )
    proof = ly.verify_candidate(candidate, system, max_seconds=config.max_seconds)
    seconds = time.perf_counter() - start
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    lqr = ly.verify_region(f, regulator.P, system.domain, max_seconds=config.max_seconds)
    boxes = len(proof.lo)
    return _row(system, proof.verdict, proof.volume, lqr.volume, np.nan, boxes, seconds)


def _row(system, verdict, ours, lqr, sos, boxes, seconds) -> dict:
    return {
        "system": system.name,
        "states": system.state_dim,
        "learned": verdict.value,
        "volume, learned": float(ours),
        "volume, LQR": float(lqr),
        "volume, SOS": float(sos),
        "learned over LQR": float(ours / lqr) if lqr else np.nan,
        "boxes": boxes,
        "seconds, learned and proved": seconds,
        "proved": "whole: strict, x* included" if verdict is ly.Verdict.PROVED else "nothing",
        "paper": "all but a ball, to δ" if system.state_dim == 2 else "relaxed numerically",
    }


def run(config: Config) -> dict:
    """One row a system."""
    rows = [_plane(name, config) for name in config.plane]
    rows += [_large(name, config) for name in config.large]
    return {"table": rows, "series": {}}


def plot(results: dict):
    """Certified volumes over LQR's."""
    rows = results["table"]
    figure, axes = plt.subplots(figsize=(8, 3.8), layout="constrained")
    place = np.arange(len(rows))
    for shift, key, colour, label in (
        (-0.25, "volume, learned", OURS, "learned"),
        (0.0, "volume, LQR", LQR, "LQR"),
        (0.25, "volume, SOS", "0.5", "sums of squares"),
    ):
        # A system without input has no LQR: its unit is what is learned.
        unit = [r["volume, LQR"] if r["volume, LQR"] > 0 else r["volume, learned"] for r in rows]
        height = np.array([row[key] or np.nan for row in rows], float) / np.array(unit, float)
        axes.bar(place + shift, height, 0.25, color=colour, label=label)
    axes.axhline(1.0, color="0.3", lw=0.8)
    axes.set_yscale("log")
    axes.set_xticks(place, [row["system"] for row in rows], rotation=20)
    axes.set_ylabel("certified volume over LQR's")
    axes.legend()
    return figure
