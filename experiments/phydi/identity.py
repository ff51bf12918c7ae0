"""Identity: the singular values of a deep stack's Jacobian, at the start and as it learns.

Residual blocks of two hypercomplex layers with a ReLU between, scanned over, learn the sine of a
random linear map of normal inputs with Adam. All starts draw the same weights. `post` and `pre` are
the standard start with a LayerNorm after each sum, or before each block; after a LayerNorm one
singular value is 0, up to rounding. The paper argues
with dynamical isometry and shows no spectrum; here it is, the median, smallest and largest singular
value over several inputs. What was cut: everything; this is a toy that runs in seconds.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import phydi
from phydi.residual import INITS, Residual, Stack

STARTS = (*INITS, "post", "pre")


@dataclasses.dataclass(frozen=True)
class Config:
    """The stack, and how long it learns."""

    depth: int = 48
    """Residual blocks in a row."""
    width: int = 16
    """Features."""
    n: int = 4
    """Components of the hypercomplex layers."""
    steps: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    """After how many steps to look."""
    learning_rate: float = 1e-3
    """Of Adam."""
    batch_size: int = 64
    """Inputs a step, new ones each time."""
    num_points: int = 16
    """Inputs at which to take the Jacobian."""
    seed: int = 0
    """Of weights, inputs and targets."""


QUICK = Config(depth=6, width=8, steps=(0, 1, 3), num_points=4)


class Block(nnx.Module):
    """Two hypercomplex layers with a ReLU between, and perhaps a norm before them."""

    def __init__(self, width: int, n: int, has_norm: bool, rngs: nnx.Rngs):
        self.first = phydi.PHMLinear(width, width, n=n, rngs=rngs)
        self.second = phydi.PHMLinear(width, width, n=n, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs) if has_norm else None

    def __call__(self, x):
        """Apply them."""
        x = x if self.norm is None else self.norm(x)
        return self.second(nnx.relu(self.first(x)))


def _stack(config: Config, start: str) -> Stack:
    def make(rngs):
        block = Block(config.width, config.n, start == "pre", rngs)
        after = nnx.LayerNorm(config.width, rngs=rngs) if start == "post" else None
        init = start if start in INITS else "standard"
        return Residual(block, init=init, depth=config.depth, after=after)

    return Stack(make, config.depth, rngs=nnx.Rngs(config.seed))


def _learn(config: Config, start: str) -> list[tuple[float, np.ndarray]]:
    """Loss and singular values after each of `config.steps`."""
    stack = _stack(config, start)
    graph, state = nnx.split(stack)
    key, first, second = jax.random.split(jax.random.key(config.seed), 3)
    target = jax.random.orthogonal(first, config.width)
    points = jax.random.normal(second, (config.num_points, config.width))
    optimizer = optax.adam(config.learning_rate)

    def loss(state, x):
        return jnp.mean((nnx.merge(graph, state)(x) - jnp.sin(x @ target)) ** 2)

    @jax.jit
    def step(state, memory, key):
        x = jax.random.normal(key, (config.batch_size, config.width))
        slopes = jax.grad(loss)(state, x)
        updates, memory = optimizer.update(slopes, memory)
        return optax.apply_updates(state, updates), memory

    @jax.jit
    def look(state):
        spectrum = partial(phydi.jacobian_spectrum, nnx.merge(graph, state))
        return loss(state, points), jax.vmap(spectrum)(points)

    memory, found = optimizer.init(state), []
    for number in range(config.steps[-1] + 1):
        if number in config.steps:
            found.append(tuple(np.asarray(value) for value in look(state)))
        key, now = jax.random.split(key)
        state, memory = step(state, memory, now)
    return found


def run(config: Config) -> dict:
    """Loss and spectrum for each of the starts."""
    rows, series = [], {"step": list(config.steps)}
    for start in STARTS:
        found = _learn(config, start)
        values = np.stack([spectrum.ravel() for _, spectrum in found])
        series[start] = {
            "smallest": values.min(1).tolist(),
            "median": np.median(values, 1).tolist(),
            "largest": values.max(1).tolist(),
            "loss": [float(loss) for loss, _ in found],
        }
        for number, value, (loss, _) in zip(config.steps, values, found):
            rows.append(
                {
                    "quantity": f"{start}, step {number}: largest singular value",
                    "paper": 1.0 if start == "phydi" and number == 0 else None,
                    "here": float(value.max()),
                    "smallest": float(value.min()),
                    "median": float(np.median(value)),
                    "loss": float(loss),
                }
            )
    return {"table": rows, "series": series}


def plot(results: dict):
    """A band from the smallest to the largest singular value for each start."""
    series = results["series"]
    steps = np.asarray(series["step"], float)
    figure, axes = plt.subplots(1, len(STARTS), figsize=(13, 3), sharey=True)
    for axis, start in zip(axes, STARTS):
        band = series[start]
        axis.fill_between(steps, band["smallest"], band["largest"], alpha=0.3, lw=0)
        axis.plot(steps, band["median"])
        axis.axhline(1, color="0.7", lw=1)
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(0, steps[-1])
        axis.set_yscale("log")
        axis.set_title(start)
        axis.set_xlabel("step")
    axes[0].set_ylabel("singular values")
    figure.tight_layout()
    return figure
