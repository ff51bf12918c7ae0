"""Initial values of a whole network, drawn by one compiled program.

Drawn one array at a time, every shape costs a compilation of each operation on the way, most of all
of the random numbers themselves: half a minute for a residual network. One program of all of them,
compiled without optimisation, takes a third of that and gives the same values up to rounding.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

# What is run once need not be fast: with optimisation, ten arrays of normal numbers take six times
# as long to compile, and save a fraction of a second.
_ONCE = {"xla_backend_optimization_level": 0}


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=_ONCE)
def _drawn(build: Callable, options: tuple, graph, keys):
    rngs = nnx.merge(graph, keys)
    return nnx.split((build(rngs=rngs, **dict(options)), rngs))


def constructed(build: Callable, rngs: nnx.Rngs, **options):
    """`build(rngs=rngs, **options)`, compiled; the same function and options compile once."""
    graph, keys = nnx.split(rngs)
    # Within another program, or with keys of a batch, there is nothing to compile by itself.
    if any(isinstance(leaf, jax.core.Tracer) for leaf in [jnp.zeros(()), *jax.tree.leaves(keys)]):
        return build(rngs=rngs, **options)
    parts, after = nnx.merge(*_drawn(build, tuple(options.items()), graph, keys))
    nnx.update(rngs, nnx.state(after))
    return parts
