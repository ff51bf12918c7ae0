"""Tightness: the relaxed radius over the exact one, for random sets, real and complex.

In R^2 and R^3 the exact centre comes from the boundary. Over C^m with two ellipsoids the relaxation
is exact: two admissible points are constructed a diameter of the ball apart, which proves it case
by case. Simplices cut by a slab are shown with and without the products of their sides.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import chebyshev


@dataclasses.dataclass(frozen=True)
class Config:
    """How many sets."""

    num_sets: int = 100
    """Random sets of each kind."""


QUICK = Config(num_sets=5)


def _complex(rng, *shape) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def _ellipsoids(rng, m: int, k: int, draw) -> chebyshev.Ellipsoids:
    """k ellipsoids that all hold the origin."""
    sets = None
    for _ in range(k):
        F, center = draw(rng, m, m), draw(rng, m)
        radius = np.linalg.norm(F @ center) * rng.uniform(1.05, 2)
        one = chebyshev.norm_ball(F, radius, center)
        sets = one if sets is None else sets & one
    return sets


def _real(rng, *shape) -> np.ndarray:
    return rng.normal(size=shape)


def _with_sides(rng, m: int) -> chebyshev.Ellipsoids:
    slab = chebyshev.slab(rng.uniform(0, 1, m), -1.0, rng.uniform(0.3, 0.6))
    return slab & chebyshev.simplex_like(1.0, m)


def half_distance_over_c(sets: chebyshev.Ellipsoids, solution: chebyshev.Solution) -> float:
    """Half the distance of two admissible points of two ellipsoids over C^m.

    With W = ww* and x of the relaxation, x ± e^(iθ) w: θ makes the slope of f_1 along w vanish, and
    with it that of f_2. Shrunk until both are admissible, rounding and all.
    """
    m = sets.dim // 2
    W = np.asarray(solution.W)
    W = W[:m, :m] + W[m:, m:] + 1j * (W[m:, :m] - W[:m, m:])
    values, vectors = np.linalg.eigh(W)
    x, w = np.asarray(sets.from_real(solution.primal_x)), np.sqrt(values[-1]) * vectors[:, -1]
    F, t = (np.asarray(a[0]) for a in (sets.factors, sets.targets))
    n = F.shape[0] // 2
    F, t = F[:n, :m] + 1j * F[n:, :m], t[:n] + 1j * t[n:]
    w = w * 1j * np.exp(-1j * np.angle(np.vdot(F.conj().T @ (F @ x - t), w)))
    for shrink in (1, *(1 - np.geomspace(1e-10, 1e-2, 17))):
        ends = [np.asarray(sets.values(x + sign * shrink * w)) for sign in (1, -1)]
        if max(end.max() for end in ends) <= 0:
            return float(shrink * np.linalg.norm(w))
    return 0.0


def run(config: Config) -> dict:
    """Ratios by kind of set."""
    ratios: dict[str, list[float]] = {}

    def note(kind: str, value: float) -> None:
        ratios.setdefault(kind, []).append(value)

    for seed in track(range(config.num_sets), "sets"):
        rng = np.random.default_rng(seed)
        for m, k in ((2, 2), (2, 3), (3, 2), (3, 4)):
            sets = _ellipsoids(rng, m, k, _real)
            exact = chebyshev.chebyshev_center_exact(sets, rtol=1e-5).radius
            note(f"R{m}, {k} ellipsoids", float(chebyshev.rcc(sets).radius) / exact)
        for m in (2, 4):
            sets = _ellipsoids(rng, m, 2, _complex)
            solution = chebyshev.rcc(sets, rtol=1e-11)
            radius = half_distance_over_c(sets, solution)
            note(f"C{m}, 2 ellipsoids", float(solution.radius) / radius)
        sets = _with_sides(rng, 3)
        exact = chebyshev.chebyshev_center_exact(sets, rtol=1e-5).radius
        note("R3, simplex and slab", float(chebyshev.rcc(sets).radius) / exact)
        tight = chebyshev.rcc(sets, cuts="rlt")
        note("R3, simplex and slab, with cuts", float(tight.radius) / exact)
    rows = [
        {
            "quantity": f"relaxed / exact radius, {kind}: median",
            "paper": 1.0 if kind.startswith("C") else None,
            "here": float(np.median(values)),
            "90% quantile": float(np.quantile(values, 0.9)),
            "largest": max(values),
        }
        for kind, values in ratios.items()
    ]
    return {"table": rows, "series": ratios}


def plot(results: dict):
    """One box a kind."""
    series = results["series"]
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    axes.boxplot(list(series.values()), orientation="horizontal", whis=(0, 100), widths=0.6)
    axes.set_yticks(range(1, len(series) + 1), list(series))
    axes.axvline(1, color="0.7", lw=1)
    axes.invert_yaxis()
    axes.set_xlabel("relaxed / exact radius")
    figure.tight_layout()
    return figure
