"""Sums of squares: the classical baseline, proved by the verifier for the system as it is.

Polynomial Lyapunov functions of growing degree for Van der Pol's oscillator, whose whole region is
known (area 13.72), and for the pendulum under LQR, whose sine is replaced by a Taylor polynomial in
the search and is itself again in the proof. The paper reports that its SOS results, for polynomial
approximations, did not pass its own check; these do, or the table says UNKNOWN.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import Progress

import lyapjax as ly
from experiments.lyapjax.study import axis_names, trajectories

TRUE_AREA = 13.72


@dataclasses.dataclass(frozen=True)
class Config:
    """Degrees and rounds."""

    degrees: tuple[int, ...] = (2, 4, 6)
    """Of V."""
    taylor_degree: int = 5
    """Of what stands for the pendulum's sine in the search."""
    num_rounds: int = 15
    """Of the alternation between V and its multipliers."""
    max_seconds: float = 120.0
    """Budget of a proof."""
    num_grid: int = 201
    """Points of the plots along an axis."""


QUICK = Config(degrees=(2, 4), num_rounds=4, num_grid=101)


def _systems() -> dict:
    pendulum = ly.systems.inverted_pendulum()
    van_der_pol = ly.systems.van_der_pol()
    gain = ly.linear_controller(pendulum, ly.lqr(pendulum).K)
    return {
        "van_der_pol": (van_der_pol, van_der_pol.closed_loop(), TRUE_AREA),
        "pendulum under LQR": (pendulum, pendulum.closed_loop(gain), None),
    }


def run(config: Config) -> dict:
    """Search and proof for each system and degree."""
    rows, series = [], {}
    systems = _systems()
    with Progress(transient=True) as progress:
        bar = progress.add_task("sos", total=len(systems) * len(config.degrees))
        for name, (system, f, true_area) in systems.items():
            domain = system.domain
            series[name] = {"lo": domain.lo, "hi": domain.hi, "levels": {}}
            series[name]["names"] = axis_names(system)
            for degree in config.degrees:
                progress.update(bar, description=f"{name}, degree {degree}")
                start = time.perf_counter()
                found = ly.sos(
                    f, domain, degree=degree, taylor_degree=config.taylor_degree,
                    num_rounds=config.num_rounds,
                )  # fmt: skip
                searched = time.perf_counter() - start
                proof = ly.verify(found.V, f, domain, max_seconds=config.max_seconds)
                rows.append(
                    {
                        "quantity": f"{name}, degree {degree}: certified area",
                        "paper": None,
                        "here": proof.volume,
                        "verdict": proof.verdict.value,
                        "share of the true region": true_area and proof.volume / true_area,
                        "level proved, 1 in the search": proof.level,
                        "rounds": len(found.volumes),
                        "seconds of search": searched,
                        "seconds of proof, compiling included": proof.seconds,
                    }
                )
                lo, hi = np.asarray(domain.lo), np.asarray(domain.hi)
                axes = [np.linspace(a, b, config.num_grid) for a, b in zip(lo, hi)]
                points = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
                values = jax.jit(lambda x, V=found.V: jax.lax.map(V, x, batch_size=1024))
                values = np.asarray(values(jnp.asarray(points))).reshape((config.num_grid,) * 2)
                level = proof.level if np.isfinite(proof.level) else None
                series[name]["levels"][degree] = {"V": values, "level": level}
                progress.advance(bar)
    # Against the flow the limit cycle attracts.
    back = systems["van_der_pol"][1]
    cycle = trajectories(lambda x: -back(x), np.array([[1.0, 0.0]]), 40.0, 8000)[0, -1400:]
    series["van_der_pol"]["cycle"] = cycle
    return {"table": rows, "series": series}


def plot(results: dict):
    """The proved level sets of each degree."""
    series = results["series"]
    figure, panels = plt.subplots(1, len(series), figsize=(11, 4.6), layout="constrained")
    for panel, (name, s) in zip(panels, series.items()):
        for number, (degree, found) in enumerate(s["levels"].items()):
            if found["level"] is None:
                continue
            values = np.array(found["V"], float)
            axes = [np.linspace(a, b, len(values)) for a, b in zip(s["lo"], s["hi"])]
            colour = f"C{number}"
            panel.contour(*axes, values, [found["level"]], colors=colour)
            panel.plot([], [], color=colour, label=f"degree {degree}")
        if "cycle" in s:
            panel.plot(*np.array(s["cycle"], float).T, color="0.5", ls="--", label="limit cycle")
        panel.set_xlim(s["lo"][0], s["hi"][0])
        panel.set_ylim(s["lo"][1], s["hi"][1])
        panel.set_xlabel(s["names"][0])
        panel.set_ylabel(s["names"][1])
        panel.set_title(name)
        panel.legend(loc="upper right")
    return figure
