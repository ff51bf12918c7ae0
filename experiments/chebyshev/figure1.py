"""Figure 1: three ellipsoids in the plane, the Chebyshev circle and its relaxation.

The smallest circle that holds the intersection, found by its boundary, beside the circle of the
relaxed centre. The paper does not give its ellipsoids; these are ours.
"""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np

import chebyshev


@dataclasses.dataclass(frozen=True)
class Config:
    """The ellipsoids: half axes, angle and centre of each."""

    half_axes: tuple[tuple[float, float], ...] = ((2.0, 0.9), (1.0, 2.2), (2.4, 0.8))
    """Half axes."""
    degrees: tuple[float, ...] = (0.0, 15.0, 60.0)
    """Angle of the first half axis."""
    centers: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.6, 0.5), (0.3, 0.0))
    """Centres."""


QUICK = Config()


def _shapes(config: Config):
    for axes, degree, center in zip(config.half_axes, config.degrees, config.centers):
        angle = np.deg2rad(degree)
        R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        yield R * np.array(axes), np.array(center)


def run(config: Config) -> dict:
    """Both centres, both radii, and what is needed to draw them."""
    shapes = list(_shapes(config))
    first, *others = (chebyshev.ellipsoid(S @ S.T, center) for S, center in shapes)
    sets = first
    for other in others:
        sets = sets & other
    exact = chebyshev.chebyshev_center_exact(sets)
    relaxed = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, relaxed)
    turn = np.linspace(0, 2 * np.pi, 401)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    return {
        "table": [
            {"quantity": "Chebyshev radius", "paper": None, "here": exact.radius},
            {"quantity": "relaxed radius", "paper": None, "here": float(relaxed.radius)},
            {
                "quantity": "relaxed / exact radius",
                "paper": None,
                "here": float(relaxed.radius) / exact.radius,
            },
            {"quantity": "proved radius", "paper": None, "here": proof.radius},
            {
                "quantity": "distance of the centres",
                "paper": None,
                "here": float(np.linalg.norm(relaxed.x - exact.x)),
            },
        ],
        "series": {
            "ellipses": [(S @ circle + center[:, None]) for S, center in shapes],
            "exact": [*exact.x, exact.radius],
            "relaxed": [*np.asarray(relaxed.x), float(relaxed.radius)],
            "touching": exact.points,
        },
    }


def plot(results: dict):
    """The set, the two circles and their centres."""
    s = results["series"]
    figure, axes = plt.subplots(figsize=(5.2, 5))
    inside = np.inf
    grid = np.stack(np.meshgrid(*[np.linspace(-2.5, 2.5, 500)] * 2))
    for ellipse in np.asarray(s["ellipses"]):
        axes.plot(*ellipse, color="0.6", lw=1)
        # The unit circle's image: 401 points a turn, so point 0, 100 and 200 are quarters.
        center = (ellipse[:, 0] + ellipse[:, 200]) / 2
        basis = np.stack([ellipse[:, 0] - center, ellipse[:, 100] - center], axis=1)
        local = np.einsum("ij,jab->iab", np.linalg.inv(basis), grid - center[:, None, None])
        inside = np.minimum(inside, 1 - np.sum(local**2, axis=0))
    axes.contourf(*grid, inside, levels=[0, np.inf], colors=["#9ecae1"])
    for name, colour in (("exact", "C2"), ("relaxed", "C3")):
        x, y, radius = s[name]
        label = "Chebyshev centre" if name == "exact" else "relaxed centre"
        axes.add_patch(plt.Circle((x, y), radius, fill=False, color=colour, lw=1.6))
        axes.plot(x, y, "o", color=colour, label=f"{label}, radius {radius:.3f}")
    axes.plot(*np.asarray(s["touching"]).T, "k.", label="points on the exact circle")
    axes.set(aspect="equal", xlim=(-1.6, 1.9), ylim=(-1.7, 1.8))
    axes.legend(fontsize=8, loc="lower right")
    return figure
