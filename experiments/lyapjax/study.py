"""Learn, prove and draw one system: what the figures of the paper have in common."""

import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import lyapjax as ly

OURS, LQR = "tab:blue", "tab:orange"
# What the paper proves of its systems.
PAPER = {
    "inverted_pendulum": "all but a ball, to δ",
    "path_following": "all but a ball, to δ",
    "ducted_fan": "relaxed numerically",
    "n_link_3": "relaxed numerically",
}


def trajectories(f, starts: np.ndarray, seconds: float, num_steps: int) -> np.ndarray:
    """(starts, steps + 1, n) by the classical Runge–Kutta method."""
    h = seconds / num_steps

    def step(x, _):
        a = f(x)
        b = f(x + h / 2 * a)
        c = f(x + h / 2 * b)
        x_next = x + h / 6 * (a + 2 * b + 2 * c + f(x + h * c))
        return x_next, x_next

    def one(x):
        return jnp.concatenate([x[None], jax.lax.scan(step, x, None, length=num_steps)[1]])

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(starts)))


def axis_names(system: ly.System) -> list[str]:
    """Names of the states, with units."""
    pairs = zip(system.state_names, system.state_units)
    return [f"{name} ({unit})" if unit else name for name, unit in pairs]


def papers_claim(system: ly.System) -> str | None:
    """What the paper proves of a system, None if it has none like it."""
    return next((claim for name, claim in PAPER.items() if system.name.startswith(name)), None)


def in_plane(system: ly.System, points: np.ndarray) -> np.ndarray:
    """Points of the first two coordinates as states, the others at the equilibrium."""
    x = np.tile(np.asarray(system.equilibrium[0]), (*points.shape[:-1], 1))
    x[..., :2] = points
    return x


def frame(system: ly.System) -> tuple[np.ndarray, np.ndarray]:
    """Corners of what is drawn of the first two coordinates: D, and a little around it."""
    lo, hi = (np.asarray(v)[:2] for v in (system.domain.lo, system.domain.hi))
    return lo - 0.03 * (hi - lo), hi + 0.03 * (hi - lo)


def grid(system: ly.System, V, f, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """V, V̇ and the gauge of D, at most 1 inside, on a grid of the first two coordinates."""
    axes = [np.linspace(a, b, num) for a, b in zip(*frame(system))]
    plane = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    x = jnp.asarray(in_plane(system, plane))
    look = jax.jit(jax.vmap(lambda x: (V(x), ly.lie_derivative(V, f, x))))
    rows = [look(part) for part in jnp.array_split(x, 4)]  # see `lyapjax.learning.falsifier.BATCH`
    values = (np.concatenate([np.asarray(row[k]) for row in rows]) for k in range(2))
    return tuple(v.reshape(num, num) for v in (*values, np.asarray(system.domain.gauge(x))))


def checked(proof: ly.Region, path: Path | None) -> tuple[str, float, float]:
    """What a replay says of the certificate of a proof, and the seconds of writing and replaying.

    The file is read again in any case; without a path it is not kept.
    """
    if not proof.proved:
        return "nothing to replay", np.nan, np.nan
    start = time.perf_counter()
    certificate = ly.region_certificate(proof)
    with tempfile.TemporaryDirectory() as folder:
        path = path or Path(folder) / "certificate.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = certificate.save(path)
        seconds = time.perf_counter() - start
        replay = ly.replay(file)
    return f"{replay.verdict.value} {replay.reason}".strip(), seconds, replay.seconds


def regulator_proof(system: ly.System, like: ly.StructuredLyapunov, max_seconds: float):
    """LQR's own quadratic function and controller, and what the same verifier proves of them.

    V gets the sizes of `like`, with features that are zero: so what is compiled is used again.
    """
    regulator = ly.lqr(system)
    P = regulator.P / np.linalg.eigvalsh(regulator.P)[0]
    R = np.linalg.cholesky(P - like.epsilon * np.eye(len(P))).T
    weights, biases = (
        [jnp.zeros_like(v[...]) for v in part] for part in (like.weights, like.biases)
    )
    V = ly.StructuredLyapunov(
        weights, biases, jnp.zeros_like(like.A[...]), R,
        equilibrium=system.equilibrium[0], epsilon=like.epsilon,
    )  # fmt: skip
    u = ly.LinearController(regulator.K, equilibrium=system.equilibrium)
    if system.input_bounds is not None:
        u = ly.linear_controller(system, regulator.K)
    f = system.closed_loop(u)
    return V, f, ly.verify(V, f, system.domain, max_seconds=max_seconds)


def study(
    system: ly.System, *, recipe: ly.Recipe, seed: int, max_seconds: float, seconds: float,
    num_grid: int, paper_area: float | None,
) -> dict:  # fmt: skip
    """Everything that the table and the figure of a system need."""
    result = ly.synthesize(system, key=jax.random.key(seed), recipe=recipe, max_seconds=max_seconds)
    f = system.closed_loop(result.u)
    V_lqr, f_lqr, proof_lqr = regulator_proof(system, result.V, max_seconds)
    V, slope, gauge = grid(system, result.V, f, num_grid)
    values_lqr, _, _ = grid(system, V_lqr, f_lqr, num_grid)
    # From points of the proved level set's edge, seen from the equilibrium.
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    at, hi = (np.asarray(v)[:2] for v in (system.equilibrium[0], system.domain.hi))
    away = np.stack([np.cos(angle), np.sin(angle)], 1) * (hi - at)
    scales = np.linspace(0.02, 1, 200)
    rays = in_plane(system, at + scales[:, None, None] * away)
    inner = jax.vmap(jax.vmap(result.V))(jnp.asarray(rays))
    level = result.level if result.proved else 1.0
    last = np.maximum(np.sum(np.cumprod(np.asarray(inner) <= level, axis=0), axis=0) - 1, 0)
    starts = rays[last, np.arange(len(away))]
    state, history = result.state, result.histories[0]
    added = np.asarray(history.counterexamples)
    rounds = np.isfinite(np.asarray(history.coverage))
    area = system.domain.volume
    rows = [
        {"quantity": "whole proof", "paper": None, "here": result.verdict.value},
        {"quantity": "certified area", "paper": paper_area, "here": result.volume},
        {"quantity": "area, by samples", "paper": None, "here": result.verification.estimate},
        {"quantity": "share of the domain", "paper": None, "here": result.volume / area},
        {"quantity": "LQR: certified area", "paper": None, "here": proof_lqr.volume},
        {"quantity": "counterexamples", "paper": None, "here": int(state.num_found)},
        {"quantity": "seconds of learning", "paper": None, "here": result.seconds["learn"]},
        {"quantity": "seconds of proving", "paper": None, "here": result.seconds["verify"]},
    ]
    boxes = {name: proof.num_boxes for name, proof in result.verification.proofs.items()}
    rows.append({"quantity": "boxes", "paper": None, "here": sum(boxes.values())})
    return {
        "table": rows,
        "series": {
            "lo": frame(system)[0],
            "hi": frame(system)[1],
            "names": axis_names(system),
            "V": V,
            "slope": slope,
            "gauge": gauge,
            "V_lqr": values_lqr,
            "level": level,
            "level_lqr": float(proof_lqr.level),
            "risk": np.asarray(history.risk)[rounds].ravel(),
            "coverage": np.asarray(history.coverage)[rounds],
            "counterexamples": [
                [i, *point[:2]] for i, some in enumerate(added) for point in some
                if np.isfinite(point).all()
            ],
            "ours": trajectories(f, starts, seconds, 400)[:, ::2],
            "lqr": trajectories(f_lqr, starts, seconds, 400)[:, ::2],
        },
        "notes": [
            *([result.reason] if result.reason else []),
            "Boxes: " + ", ".join(f"{number:,} for {name}" for name, number in boxes.items()) + ".",
        ],
    }  # fmt: skip


def _axes(panel, series, title):
    panel.set_xlim(series["lo"][0], series["hi"][0])
    panel.set_ylim(series["lo"][1], series["hi"][1])
    panel.set_xlabel(series["names"][0])
    panel.set_ylabel(series["names"][1])
    panel.set_title(title)


def _levels(panel, series, values=None):
    """The level sets in D, ours and LQR's, if they are finite; below them an image of `values`."""
    x, y = (np.linspace(a, b, len(series["V"])) for a, b in zip(series["lo"], series["hi"]))
    gauge = np.array(series["gauge"], float)
    drawn = []
    if values is not None:
        # A little more than D, which the clip takes off again: the edge is then no staircase.
        shown = np.where(gauge <= 1 + 4 / len(x), values, np.nan)
        drawn.append(
            panel.pcolormesh(x, y, shown, cmap="viridis", shading="gouraud", rasterized=True)
        )
        drawn[0].set_clim(np.nanmin(values[gauge <= 1]), np.nanmax(values[gauge <= 1]))
    for name, level, colour in (("V", "level", OURS), ("V_lqr", "level_lqr", LQR)):
        V, height = np.array(series[name], float), np.float64(series[level])
        if np.isfinite(height) and np.nanmin(V) < height < np.nanmax(V):
            drawn.append(panel.contour(x, y, V, [height], colors=colour))
    edge = panel.contour(x, y, gauge, [1.0], colors="0.5", linewidths=0.8)
    for artist in drawn:
        artist.set_clip_path(edge.get_paths()[0], panel.transData)
    return drawn[0] if values is not None else None


def draw(results: dict):
    """V, V̇, the course of learning, and trajectories with and without it."""
    s = results["series"]
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    for panel, name, title in ((a, "V", "V"), (b, "slope", "dV/dt along trajectories")):
        values = np.array(s[name], float)
        if name == "slope":
            values = np.sign(values) * np.log10(1 + np.abs(values))
            title += ", sign · log10(1 + |·|)"
        figure.colorbar(_levels(panel, s, values), ax=panel)
        _axes(panel, s, title)
    points = np.array(s["counterexamples"], float).reshape(-1, 3)
    if len(points):
        dots = a.scatter(points[:, 1], points[:, 2], c=points[:, 0], s=9, cmap="autumn")
        figure.colorbar(dots, ax=a, label="counterexamples by round")
    a.plot([], [], color=OURS, label="proved level set")
    a.plot([], [], color=LQR, label="of LQR")
    a.legend(loc="upper right")
    risk = np.array(s["risk"], float)
    c.plot(risk, lw=0.6, color="0.4", label="risk")
    per = max(len(risk) // max(len(s["coverage"]), 1), 1)
    c.plot(per * (1 + np.arange(len(s["coverage"]))), s["coverage"], label="share of D covered")
    count = np.bincount(points[:, 0].astype(int), minlength=len(s["coverage"]))
    if most := count.max(initial=0):
        label = f"new counterexamples / {most}"
        c.step(per * (1 + np.arange(len(count))), count / most, lw=0.8, label=label)
    c.set_ylim(-1.2, 2)
    c.set_xlabel("step of Adam")
    c.set_title("learning")
    c.legend()
    _levels(d, s)
    for name, colour, label in (("lqr", LQR, "LQR"), ("ours", OURS, "learned")):
        for k, path in enumerate(np.array(s[name], float)):
            d.plot(*path.T[:2], color=colour, lw=0.9, label=label if k == 0 else None)
    _axes(d, s, "trajectories from the edge of the region")
    d.legend(loc="upper right")
    return figure
