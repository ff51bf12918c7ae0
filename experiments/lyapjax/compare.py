"""All systems: certified regions of what is learned, of LQR and of sums of squares, side by side.

The paper's figures 3 to 5 with proofs: sections of the level sets through x*, and their volumes.
Two-state systems by `synthesize` and `verify`, the others by `grow` and `verify_region`. Everything
in the table is proved whole: convergence from the level set to x*, strictly, without a hole. Sums
of squares are of degree 2 beyond two states, under LQR's gain, with a Taylor polynomial for f in
the search and f itself in the proof. Every system that has ended is kept in a folder: a run that
was stopped goes on with the others.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import Progress

import lyapjax as ly
from experiments.lyapjax.hovering import CASES
from experiments.lyapjax.study import LQR, OURS, axis_names, papers_claim, regulator_proof
from experiments.resuming import kept, place
from lyapjax.growth import value

SOS = "tab:green"
COLOURS = {"learned": OURS, "LQR": LQR, "SOS": SOS}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which systems, and how long."""

    plane: tuple[str, ...] = ("inverted_pendulum", "path_following", "van_der_pol")
    """Two-state systems, by their names in `lyapjax.systems`."""
    large: tuple[str, ...] = tuple(CASES)
    """Of four and six states, by their names in `CASES`."""
    seed: int = 0
    """Of the learners."""
    num_steps: int = 1500
    """Of `grow`."""
    sos_rounds: int = 12
    """Of the search by sums of squares; 0 leaves it out."""
    max_seconds: float = 60.0
    """Budget of each proof."""
    num_grid: int = 101
    """Points of the sections along an axis."""
    cells: Path | None = Path("results/lyapjax/cells")
    """Folder of the systems that have ended; None to forget them."""


QUICK = Config(
    plane=("inverted_pendulum",),
    large=("ducted fan",),
    num_steps=300,
    sos_rounds=3,
    max_seconds=10.0,
    num_grid=51,
    cells=None,
)


def _plane(name: str, config: Config) -> dict:
    """A two-state system."""
    system = getattr(ly.systems, name)()
    start = time.perf_counter()
    # Its own budget, most of which is compiling: a proof that is cut short would compare nothing.
    result = ly.synthesize(system, key=jax.random.key(config.seed))
    seconds = time.perf_counter() - start
    regions = {"learned": (result.V, result)}
    f = system.closed_loop()
    if system.control_dim:
        V, f, proof = regulator_proof(system, result.V, config.max_seconds)
        regions["LQR"] = V, proof
    if config.sos_rounds:
        found = ly.sos(f, system.domain, degree=4, taylor_degree=5, num_rounds=config.sos_rounds)
        proof = ly.verify(found.V, f, system.domain, max_seconds=config.max_seconds)
        regions["SOS"] = found.V, proof
    boxes = sum(proof.num_boxes for proof in result.verification.proofs.values())
    domain = system.domain
    axes = [np.linspace(a, b, config.num_grid) for a, b in zip(domain.lo, domain.hi)]
    return _compared(system, regions, boxes, seconds, (0, 1), axes)


def _large(name: str, config: Config) -> dict:
    """A system of four or six states."""
    make, radius, sees, plane, _ = CASES[name]
    system = make(radius=radius)
    at, domain, budget = system.equilibrium[0], system.domain, config.max_seconds
    start = time.perf_counter()
    candidate, _ = ly.grow(
        jax.random.key(config.seed), system, sees=sees, num_steps=config.num_steps
    )
    ours = ly.verify_candidate(candidate, system, max_seconds=budget)
    seconds = time.perf_counter() - start
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    quadratic = {"LQR": regulator.P}
    if config.sos_rounds:
        found = ly.sos(f, domain, at, degree=2, taylor_degree=3, num_rounds=config.sos_rounds)
        quadratic["SOS"] = found.P
    regions = {"learned": (lambda x: value(candidate, jnp.asarray(at), x), ours)}
    for which, P in quadratic.items():
        proof = ly.verify_region(f, P, domain, at, max_seconds=budget)
        regions[which] = ly.quadratic_lyapunov(P, at), proof
    reach = np.zeros(2)
    for _, proof in regions.values():
        if proof.proved:
            section = np.linalg.inv(proof.P[np.ix_(plane, plane)])
            reach = np.maximum(reach, 1.1 * np.sqrt(proof.level * np.diag(section)))
    axes = [at[i] + np.linspace(-r, r, config.num_grid) for i, r in zip(plane, reach)]
    return _compared(system, regions, len(ours.lo), seconds, plane, axes)


def _compared(system, regions: dict, boxes: int, seconds: float, plane, axes) -> dict:
    """A row of the table, and the sections of the proved level sets."""
    volumes = {which: float(proof.volume) for which, (_, proof) in regions.items()}
    verdict = regions["learned"][1].verdict
    lqr, sos = (volumes.get(which, np.nan) for which in ("LQR", "SOS"))
    row = {
        "system": system.name,
        "states": system.state_dim,
        "learned": verdict.value,
        "volume, learned": volumes["learned"],
        "volume, LQR": lqr,
        "volume, SOS": sos,
        "learned over LQR": volumes["learned"] / lqr if lqr else np.nan,
        "share of the domain": volumes["learned"] / system.domain.volume,
        "boxes": boxes,
        "seconds, learned and proved": seconds,
        "proved here": "whole: strict, x* included" if verdict is ly.Verdict.PROVED else "nothing",
        "proved in the paper": papers_claim(system),
    }
    i, j = plane
    points = np.tile(np.asarray(system.equilibrium[0]), (len(axes[0]) * len(axes[1]), 1))
    points[:, i], points[:, j] = (v.ravel() for v in np.meshgrid(*axes))
    sections = {}
    for which, (V, proof) in regions.items():
        if proof.verdict is ly.Verdict.PROVED:
            look = jax.jit(lambda x, V=V: jax.lax.map(V, x, batch_size=1024))
            values = np.asarray(look(jnp.asarray(points))).reshape(len(axes[1]), len(axes[0]))
            sections[which] = values / float(proof.level)
    names = axis_names(system)
    return {
        "row": row,
        "section": {"x": axes[0], "y": axes[1], "names": [names[i], names[j]], "V": sections},
    }


def run(config: Config) -> dict:
    """One row and one section a system."""
    # What another system is, or where cells lie, makes no difference to one.
    settings = dataclasses.replace(config, plane=(), large=(), cells=None)
    todo = [*((_plane, name) for name in config.plane), *((_large, name) for name in config.large)]
    found = {}
    with Progress(transient=True) as progress:
        bar = progress.add_task("compare", total=len(todo))
        for study, name in todo:
            progress.update(bar, description=name)
            path = place(config.cells, "lyapjax", f"compare {name}", settings)
            found[name] = kept(path, partial(study, name, config))
            progress.advance(bar)
    return {
        "table": [one["row"] for one in found.values()],
        "series": {name: one["section"] for name, one in found.items()},
    }


def _bars(panel, rows: list[dict]) -> None:
    """Certified volumes over LQR's."""
    place = np.arange(len(rows))
    # A system without input has no LQR: its unit is what is learned.
    unit = [r["volume, LQR"] or r["volume, learned"] for r in rows]
    for shift, (which, colour) in zip((-0.25, 0.0, 0.25), COLOURS.items()):
        volumes = np.array([row[f"volume, {which}"] or np.nan for row in rows], float)
        panel.bar(place + shift, volumes / np.array(unit, float), 0.25, color=colour, label=which)
    panel.axhline(1.0, color="0.3", lw=0.8)
    panel.set_yscale("log")
    panel.set_xticks(place, [row["system"] for row in rows], rotation=35, ha="right", fontsize=8)
    panel.set_title("certified volume over LQR's")
    panel.legend(fontsize=8)


def plot(results: dict):
    """Certified volumes, and sections of the proved level sets."""
    sections = results["series"]
    columns = min(3, 1 + len(sections))
    count = -(-(1 + len(sections)) // columns)
    figure, panels = plt.subplots(
        count, columns, figsize=(4.4 * columns, 3.8 * count), layout="constrained", squeeze=False
    )
    panels = panels.ravel()
    _bars(panels[0], results["table"])
    for panel, (name, section) in zip(panels[1:], sections.items()):
        for which, values in section["V"].items():
            axes = (np.array(section[k], float) for k in "xy")
            panel.contour(*axes, np.array(values, float), [1.0], colors=COLOURS[which])
        panel.set_xlabel(section["names"][0])
        panel.set_ylabel(section["names"][1])
        panel.set_title(name.replace("_", " "))
    for panel in panels[1 + len(sections) :]:
        panel.set_axis_off()
    return figure
