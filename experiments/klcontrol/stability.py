"""Stability: Conjecture 3.9 is false, how rare that is, and what it does to the algorithm.

The two counterexamples are proved in exact rational arithmetic. A search follows the gradient of
the spectral abscissa of D(H - λ*I - αP_z*) over a batch of three-state problems, D the invariant
law of Q; its best find is proved exactly too, and then KL-learning runs on it: by the global
clock it keeps swinging about the solution, by the local clock it converges. Random problems say
how thin the set is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import klcontrol
from klcontrol import counterexample


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the search, of the sample and of the runs."""

    seed: int = 0
    """Of everything random."""
    num_searches: int = 512
    """Starting points of the gradient search."""
    search_steps: int = 600
    """Steps of Adam."""
    num_random: int = 200_000
    """Random problems."""
    num_chains: int = 64
    """Chains of each run of the algorithm."""
    num_steps: int = 10_000_000
    """Steps of each chain."""


QUICK = Config(
    num_searches=64, search_steps=120, num_random=5_000, num_chains=8, num_steps=1_000_000
)
STATES = 3
# Ranges of the search, as logarithms: of entries of the policy, of z, of α.
RANGES = {"policy": 5.0, "z": 2.5, "alpha": 2.3}


def gain(k):
    """Small and slow, so that the ODE shows through the noise."""
    root = jnp.sqrt(1 + k / 200)
    return 0.05 / (root * jnp.sqrt(root))


def problem_of(theta: dict) -> tuple:
    """Policy, z and α from unconstrained parameters; H = diag(z) P diag(z)⁻¹ has λ* = 1."""
    bounded = {k: r * jnp.tanh(theta[k] / r) for k, r in RANGES.items()}
    return (
        jax.nn.softmax(bounded["policy"]),
        jax.nn.softmax(bounded["z"]),
        jnp.exp(bounded["alpha"]),
    )


def abscissa(theta: dict) -> jax.Array:
    """Largest real part of σ(D(H - I - αP_z)), D the invariant law of Q."""
    policy, z, alpha = problem_of(theta)
    n = z.shape[0]
    H = policy * z[:, None] / z
    d = klcontrol.invariant_law(H / H.sum(axis=1, keepdims=True))
    A = d[:, None] * (H - jnp.eye(n) - alpha * jnp.outer(z, z) / (z @ z))
    return jnp.max(jnp.linalg.eigvals(A).real)


def draw(key, count: int) -> dict:
    """Random parameters, spread over the ranges."""
    shapes = {"policy": (STATES, STATES), "z": (STATES,), "alpha": ()}
    keys = jax.random.split(key, len(shapes))
    return {
        name: 0.7 * RANGES[name] * jax.random.normal(k, (count, *shape))
        for k, (name, shape) in zip(keys, shapes.items())
    }


def search(key, count: int, steps: int) -> tuple[dict, jax.Array]:
    """Gradient ascent from random problems: last parameters and all abscissas (steps, count)."""
    optimiser = optax.adam(0.1)
    start = draw(key, count)

    @jax.jit
    def climb(theta):
        def step(carry, _):
            theta, state = carry
            value, slope = jax.vmap(jax.value_and_grad(abscissa))(theta)
            slope = jax.tree.map(lambda g: -jnp.nan_to_num(g), slope)
            change, state = optimiser.update(slope, state)
            return (optax.apply_updates(theta, change), state), value

        (theta, _), values = jax.lax.scan(step, (theta, optimiser.init(theta)), length=steps)
        return theta, values

    return climb(start)


def whole(estimate):
    """Keep z and λ: there are three states."""
    return estimate


def swings(problem, z, alpha: float, config: Config) -> dict:
    """How far KL-learning is from z* and λ* = 1 over time, by clock: root mean square of chains."""
    found = {}
    for clock in ("global", "local"):
        algorithm = klcontrol.kl_learning(alpha=alpha, clock=clock, gain_fn=gain)
        run = klcontrol.simulate(
            jax.random.key(config.seed),
            problem,
            algorithm,
            num_steps=config.num_steps,
            every=config.num_steps // 500,
            num_chains=config.num_chains,
            record_fn=whole,
        )
        error = np.abs(np.asarray(run.history.z) - z / z.sum()).sum(axis=-1)
        found[clock] = {
            "z": np.sqrt((error**2).mean(axis=1)),
            "lam": np.sqrt(((np.asarray(run.history.lam) - 1) ** 2).mean(axis=1)),
        }
    return found


def run(config: Config) -> dict:
    """Proofs, search, sample and runs."""
    rows, series = [], {}
    alphas = np.geomspace(0.03, 300, 60)
    for name, candidate in (
        ("D arbitrary", counterexample.arbitrary_weights()),
        ("D invariant law", counterexample.invariant_weights()),
    ):
        proof = counterexample.prove(candidate)
        arrays = counterexample.as_arrays(candidate)
        problem = klcontrol.Problem(arrays["q"], arrays["cost"])
        slope = np.outer(arrays["d"] * arrays["z"], arrays["z"])  # A falls by this a unit of α
        level = arrays["A"] + float(candidate.alpha) * slope
        spectrum = [np.linalg.eigvals(level - a * slope).real.max() for a in alphas]
        series[name] = {"alpha": alphas, "abscissa": np.array(spectrum) / arrays["d"].max()}
        unstable = alphas[np.array(spectrum) > 0]
        conditions = klcontrol.sufficient_conditions(problem, 1.0, weights=arrays["d"])
        holding = [name for name, condition in conditions.items() if condition.holds]
        rows.append(
            {
                "quantity": f"counterexample, {name}: unstable eigenvalues, exactly",
                "paper": 0,
                "here": proof.unstable,
                "hypotheses hold": all(proof.hypotheses.values()),
                "unstable for α in": f"{unstable.min():.2g} … {unstable.max():.2g}",
                "conditions that hold": ", ".join(holding) or "none",
            }
        )
    key_search, key_random = jax.random.split(jax.random.key(config.seed))
    theta, values = search(key_search, config.num_searches, config.search_steps)
    final = np.nan_to_num(np.asarray(values[-1]), nan=-1.0)
    best = int(final.argmax())
    policy, z, alpha = problem_of(jax.tree.map(lambda leaf: leaf[best], theta))
    candidate = counterexample.from_policy(
        np.asarray(policy).tolist(), np.asarray(z).tolist(), float(alpha)
    )
    proof = counterexample.prove(candidate)
    arrays = counterexample.as_arrays(candidate)
    problem = klcontrol.Problem(arrays["q"], arrays["cost"])
    sample = jax.jit(lambda theta: jax.lax.map(abscissa, theta, batch_size=1000))
    random = np.asarray(sample(draw(key_random, config.num_random)))
    series["search"] = np.asarray(values)[:, np.argsort(-final)[:20]]
    rows += [
        {
            "quantity": "searches that end unstable (%)",
            "paper": 0,
            "here": 100 * float((final > 1e-9).mean()),
            "at the start (%)": 100 * float((np.asarray(values[0]) > 1e-9).mean()),
        },
        {
            "quantity": "best find: spectral abscissa",
            "paper": None,
            "here": float(final[best]),
            "proved exactly": proof.refutes,
            "α": float(alpha),
        },
        {
            "quantity": f"unstable among {config.num_random} random problems (%)",
            "paper": 0,
            "here": 100 * float((random > 1e-12).mean()),
        },
    ]
    series["swings"] = swings(problem, arrays["z"], float(alpha), config)
    for clock, found in series["swings"].items():
        last, before = (np.split(found["z"], 10)[i] for i in (-1, 1))
        rows.append(
            {
                "quantity": f"KL-learning on the best find, {clock} clock: rms error of z, end",
                "paper": None,
                "here": float(np.sqrt((last**2).mean())),
                "after a tenth": float(np.sqrt((before**2).mean())),
                "rms error of λ": float(np.sqrt((found["lam"][-50:] ** 2).mean())),
            }
        )
    times = np.linspace(0, 1500, 1500)
    start = arrays["z"] * np.array([1.05, 1, 1])
    start = start / np.linalg.norm(start)
    for name, weights in (("portrait, global", None), ("portrait, local", np.full(3, 1 / 3))):
        zs, lams = klcontrol.flow(problem, start, 1.0, float(alpha), times, weights=weights)
        series[name] = {"z": np.asarray(zs[:, 0]), "lam": np.asarray(lams)}
    return {
        "table": rows,
        "series": series,
        "notes": [
            "The paper has no counterexample and conjectures that there is none, hence the zeros.",
            "How rare instability is depends on the distribution of random problems (`draw`).",
        ],
    }


def plot(results: dict):
    """Abscissa over α; the search; the ODE's orbits; λ over time by clock."""
    s = results["series"]
    figure, panels = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    axes = panels[0, 0]
    for name in ("D arbitrary", "D invariant law"):
        axes.semilogx(s[name]["alpha"], s[name]["abscissa"], label=name)
    axes.axhline(0, color="k", lw=0.7)
    axes.set_yscale("symlog", linthresh=1e-5)
    axes.set(xlabel="α", ylabel="spectral abscissa / max d", title="the two counterexamples")
    axes.legend(fontsize=8)
    axes = panels[0, 1]
    axes.plot(np.array(s["search"]), lw=0.8)
    axes.axhline(0, color="k", lw=0.7)
    axes.set(xlabel="step", ylabel="spectral abscissa", title="gradient search, best 20")
    axes.set_ylim(-0.02, None)
    axes = panels[1, 0]
    for name in ("portrait, global", "portrait, local"):
        axes.plot(s[name]["z"], s[name]["lam"], lw=0.8, label=name.removeprefix("portrait, "))
        axes.plot(s[name]["z"][:1], s[name]["lam"][:1], "k.", ms=5)
    axes.set(xlabel="first entry of z", ylabel="λ", title="the ODE on the best find")
    axes.legend(fontsize=8)
    axes = panels[1, 1]
    for clock, found in s["swings"].items():
        error = np.array(found["z"])
        axes.semilogy(np.linspace(0, 1, len(error)), error, lw=0.9, label=f"{clock} clock")
    axes.set(xlabel="share of the steps", ylabel="rms of ‖z - z*‖₁")
    axes.set_title("KL-learning on the best find")
    axes.legend(fontsize=8)
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    return figure
