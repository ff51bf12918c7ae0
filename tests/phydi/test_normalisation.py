"""Batch normalisation as x a + b against flax's own layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from phydi.normalisation import normalised

OPTIONS = {
    "usual": {},
    "other momentum and epsilon": {"momentum": 0.5, "epsilon": 0.3},
    "last axis by its number": {"axis": 3},
    "first axis": {"axis": 0},
    "no scale": {"use_scale": False},
    "no bias": {"use_bias": False},
    "two passes": {"use_fast_variance": False},
    "bfloat16": {"dtype": jnp.bfloat16},
}


def _layer(**options):
    norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0), **{"param_dtype": jnp.float64} | options)
    rng = np.random.default_rng(1)
    for name in ("scale", "bias", "mean", "var"):
        variable = getattr(norm, name)
        if variable is not None:
            variable[...] = jnp.asarray(rng.uniform(0.5, 2, 4), variable[...].dtype)
    return norm


def _pure(apply_fn, norm):
    """(parameters, x) -> y and the statistics after."""
    graph, parameters, other = nnx.split(norm, nnx.Param, ...)

    def call(parameters, x):
        layer = nnx.merge(graph, parameters, other, copy=True)
        y = apply_fn(layer, x)
        return y, nnx.to_pure_dict(nnx.state(layer, nnx.BatchStat))

    return call, parameters


def _images(*shape, offset=0.0):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape) + offset)


@pytest.mark.parametrize("name", OPTIONS)
def test_values_and_statistics_are_those_of_flax(name):
    norm, x = _layer(**OPTIONS[name]), _images(4, 3, 5, 4, offset=0.7)
    (ours, parameters), (theirs, _) = (
        _pure(f, norm) for f in (normalised, lambda layer, x: layer(x))
    )
    for call in (lambda f: f, jax.jit):
        (y, after), (expected, expected_after) = call(ours)(parameters, x), theirs(parameters, x)
        # A number of bfloat16 has eight digits.
        atol = 0.04 if "dtype" in OPTIONS[name] else 1e-12
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(
            np.asarray(y, float), np.asarray(expected, float), rtol=0, atol=atol
        )
        for key in ("mean", "var"):
            assert after[key].dtype == jnp.float32
            np.testing.assert_allclose(after[key], expected_after[key], rtol=2e-7)
            assert not np.allclose(after[key], getattr(norm, key)[...], atol=1e-3)


def test_derivatives_of_all_kinds_are_those_of_flax():
    norm, x = _layer(), _images(4, 3, 5, 4, offset=0.7)
    (ours, parameters), (theirs, _) = (
        _pure(f, norm) for f in (normalised, lambda layer, x: layer(x))
    )
    there = jax.tree.map(lambda v: jnp.cos(3 * v), (parameters, x))

    def derivatives(f):
        loss = lambda parameters, x: jnp.sum(jnp.sin(jax.nn.relu(f(parameters, x)[0])))  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        return {
            "gradient": gradient(parameters, x),
            "forward": jax.jvp(lambda *args: f(*args)[0], (parameters, x), there)[1],
            "second": jax.jvp(gradient, (parameters, x), there)[1],
            "batch": jax.vmap(gradient, (None, 0))(parameters, jnp.stack([x, 2 * x - 1])),
        }

    found, expected = (jax.jit(derivatives, static_argnums=0)(f) for f in (ours, theirs))
    for name in expected:
        for a, b in zip(*map(jax.tree.leaves, (found[name], expected[name])), strict=True):
            assert float(jnp.abs(b).max()) > 1e-3
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11, err_msg=name)


def test_in_evaluation_the_statistics_are_used_and_left():
    norm, x = _layer(), _images(2, 3, 3, 4)
    norm.eval()
    before = nnx.to_pure_dict(nnx.state(norm, nnx.BatchStat))
    y = normalised(norm, x)
    expected = (x - norm.mean[...]) / jnp.sqrt(norm.var[...] + norm.epsilon) * norm.scale[...]
    np.testing.assert_allclose(y, expected + norm.bias[...], rtol=0, atol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (before, nnx.to_pure_dict(nnx.state(norm))))):
        assert a.shape == b.shape
    np.testing.assert_array_equal(before["mean"], norm.mean[...])


def test_a_channel_far_from_zero_loses_no_more_than_with_flax():
    # Mean 1000 times the spread, in float32: E x² - mean² keeps one digit, in both.
    x = (_images(64, 4, 4, 4) * 1e-2 + 10).astype(jnp.float32)
    norm = _layer(param_dtype=jnp.float32, epsilon=1e-3)
    exact = nnx.clone(norm)
    exact.use_fast_variance, exact.dtype = False, jnp.float64
    expected = exact(x.astype(jnp.float64))
    theirs, ours = nnx.clone(norm)(x), normalised(norm, x)
    error, limit = (float(jnp.abs(y - expected).max()) for y in (ours, theirs))
    assert 0 < error < 2 * limit


def test_the_derivative_keeps_the_input_and_nothing_else_of_its_size():
    norm, x = _layer(), _images(4, 3, 5, 4)

    def kept(f):
        call, parameters = _pure(f, norm)
        back = jax.vjp(lambda *args: call(*args)[0], parameters, x)[1]
        return [v for v in jax.tree.leaves(back) if v.size == x.size]

    (only,) = kept(normalised)
    np.testing.assert_array_equal(only, x)
    assert len(kept(lambda layer, x: layer(x))) > 1
