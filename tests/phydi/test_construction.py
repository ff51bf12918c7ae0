"""Networks drawn by one compiled program have the values of those drawn array by array."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from phydi import construction

pytestmark = pytest.mark.float32


class Pair(nnx.Module):
    """A dense layer and one that drops, which keeps a random key of its own."""

    def __init__(self, size: int, rngs: nnx.Rngs):
        self.linear = phydi.PHMLinear(size, size, n=2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def build(*, size: int, rngs: nnx.Rngs) -> tuple:
    """Two layers and a number."""
    return Pair(size, rngs), nnx.Linear(size, 3, rngs=rngs), size


def values(parts) -> list:
    """All arrays; keys as integers."""
    leaves = jax.tree.leaves(nnx.state(parts))
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [np.asarray(jax.random.key_data(x) if k else x) for x, k in zip(leaves, keys)]


def test_the_same_values_and_the_keys_move_on():
    rngs = [nnx.Rngs(3, dropout=4) for _ in range(2)]
    one, other = construction.constructed(build, rngs[0], size=6), build(size=6, rngs=rngs[1])
    assert one[2] == 6
    for a, b in zip(values(one[:2]), values(other[:2]), strict=True):
        # Operations are fused otherwise: the last bit may differ.
        np.testing.assert_allclose(a, b, rtol=5e-7, atol=0)
    np.testing.assert_array_equal(rngs[0].params.count[...], rngs[1].params.count[...])
    assert float(rngs[0].dropout.count[...]) > 0


def test_a_network_is_compiled_once_whatever_its_key():
    phydi.PHResNet(18, n=2, width=1 / 16, rngs=nnx.Rngs(0))
    before = construction._drawn._cache_size()
    first, second = (phydi.PHResNet(18, n=2, width=1 / 16, rngs=nnx.Rngs(k)) for k in (0, 1))
    assert construction._drawn._cache_size() == before
    assert not np.array_equal(first.head.kernel[...], second.head.kernel[...])


def test_within_the_callers_program():
    def parameters(fn, seed):
        return nnx.state(fn(nnx.Rngs(jax.random.key(seed)))[0], nnx.Param)

    plain = parameters(lambda rngs: build(size=4, rngs=rngs), 1)
    inside = partial(parameters, lambda rngs: construction.constructed(build, rngs, size=4))
    batch = jax.vmap(inside)(jnp.arange(2))
    for found in (jax.jit(inside)(1), jax.tree.map(lambda x: x[1], batch)):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    shapes = nnx.eval_shape(lambda: phydi.PHResNet(50, n=4, rngs=nnx.Rngs(0)))
    assert shapes.head.kernel.shape == (2048, 10)
