"""Benchmark rows of `lyapjax`: learning, falsifying, and the whole of `synthesize`."""

import jax
import jax.numpy as jnp
import numpy as np

import lyapjax as ly
from experiments.bench import Contest, Row


def _falsify() -> Contest:
    """The search, beside as many plain samples as its gradient steps cost points."""
    system = ly.systems.inverted_pendulum()
    regulator = ly.lqr(system)
    V = ly.quadratic_lyapunov(regulator.P)
    f = system.closed_loop(ly.linear_controller(system, regulator.K * 0.6))
    key = jax.random.key(0)

    def ours():
        return ly.falsify(key, V, f, system.domain).violation[0]

    num = 250_000

    @jax.jit
    def sampled(V, f):
        x = system.domain.uniform(key, num)
        look = jax.lax.map(lambda x: ly.lie_derivative(V, f, x) / (x @ x), x, batch_size=4096)
        return jnp.max(jnp.where(jnp.linalg.norm(x, axis=1) >= 0.012, look, -jnp.inf))

    best, plain = float(ours()), float(sampled(V, f))
    shortfall = max(0.0, (plain - best) / abs(plain))  # the search must not be the worse one
    return Contest(ours, {f"{num} samples": lambda: sampled(V, f)}, shortfall, 1e-3)


def _seeds() -> Contest:
    """Sixteen learners by vmap against a loop."""
    system = ly.systems.inverted_pendulum()
    keys = jax.random.split(jax.random.key(0), 16)

    def one(key):
        return ly.learn(system, ly.initialise(key, system), max_rounds=1)[1].risk

    batch = jax.jit(jax.vmap(one))
    loop = np.stack([one(key) for key in keys])
    difference = float(np.max(np.abs(np.asarray(batch(keys)) - loop) / (1 + np.abs(loop))))
    peers = {"loop of learn": lambda: [one(key) for key in keys]}
    return Contest(lambda: batch(keys), peers, difference, 1e-9)


def _synthesize(name: str) -> Contest:
    """The whole, proof included, beside what the authors' own code took on such a machine."""
    system = getattr(ly.systems, name)()
    key = jax.random.key(0)
    result = ly.synthesize(system, key=key)
    if not result.proved:
        raise ValueError(f"{name}: not proved: {result.reason}")
    learned = {"learning alone": lambda: ly.learn(system, ly.initialise(key, system))[0]}
    return Contest(lambda: ly.synthesize(system, key=key).volume, learned, 0.0, 0.0)


def _region(name: str) -> Contest:
    """The largest region of LQR's V that is proved, beside the proof of one given level."""
    system = getattr(ly.systems, name)()
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))

    def ours():
        return ly.verify_region(f, regulator.P, system.domain)

    found = ours()
    if not found.proved:
        raise ValueError(f"{name}: not proved: {found.reason}")
    half = found.level / 2
    peers = {
        "half the level, given": lambda: (
            ly.verify_region(f, regulator.P, system.domain, level=half).level
        )
    }
    return Contest(lambda: ours().level, peers, 0.0, 0.0)


def rows(quick: bool) -> list[Row]:
    """The rows; the whole of `synthesize` is left out of the quick ones."""
    found = [Row("lyapjax falsify", None, _falsify), Row("lyapjax 16 seeds by vmap", None, _seeds)]
    for name in ("ducted_fan", "planar_quadrotor", "cart_pole"):
        title = f"lyapjax verify_region {name}, LQR, largest level"
        found.append(Row(title, None, lambda name=name: _region(name), rounds=3))
    if quick:
        return found
    return found + [
        Row(f"lyapjax synthesize {name}", None, lambda name=name: _synthesize(name), rounds=5)
        for name in ("inverted_pendulum", "path_following")
    ]
