"""The optimizers against their rules written out in float64."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import phydi

pytestmark = pytest.mark.float32
START = {"alpha": np.float32([0.0]), "F": np.float32([1.0, -2.0, 3.0])}


def slopes_at(step):
    generator = np.random.default_rng(step)
    return {name: generator.normal(size=v.shape).astype(np.float32) for name, v in START.items()}


def descend(rule, num_steps=7):
    parameters = {name: jnp.asarray(v) for name, v in START.items()}
    memory = rule.init(parameters)
    for step in range(num_steps):
        updates, memory = rule.update(slopes_at(step), memory, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return parameters


def clipped(slopes, norm):
    size = np.sqrt(sum(np.sum(v.astype(float) ** 2) for v in slopes.values()))
    return {name: v.astype(float) * min(1, norm / size) for name, v in slopes.items()}


def test_sgd_is_torchs():
    options = {"momentum": 0.8, "weight_decay": 0.1, "alpha_learning_rate": 0.02, "clip_norm": 1.0}
    found = descend(phydi.sgd(0.3, **options))
    for name, rate in (("alpha", 0.02), ("F", 0.3)):
        value, m = START[name].astype(float), 0.0
        for step in range(7):
            m = 0.8 * m + clipped(slopes_at(step), 1.0)[name] + 0.1 * value
            value = value - rate * m
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_adagrad_is_torchs_and_decays_by_the_epoch():
    options = {"steps_per_epoch": 3, "decay": 0.5, "alpha_learning_rate": 0.02, "clip_norm": 0.5}
    found = descend(phydi.adagrad(0.3, **options))
    for name, rate in (("alpha", 0.02), ("F", 0.3)):
        value, s = START[name].astype(float), 0.0
        for step in range(7):
            g = clipped(slopes_at(step), 0.5)[name]
            s = s + g**2
            value = value - rate * 0.5 ** (step // 3) * g / (np.sqrt(s) + 1e-10)
        np.testing.assert_allclose(found[name], value, rtol=1e-4)


def test_adagrad_moves_by_the_learning_rate_however_small_the_gradient():
    rule = phydi.adagrad(0.25, steps_per_epoch=1, clip_norm=None)
    slopes = jnp.asarray([1e-7, -1e-5, 0.0], jnp.float32)
    update, _ = rule.update(slopes, rule.init(slopes))
    np.testing.assert_allclose(update, [-0.25, 0.25, 0.0], rtol=1e-3)


def test_bad_input_is_named():
    for call, match in (
        (lambda: phydi.sgd(0.0), "learning_rate: expected a positive number, got 0.0"),
        (lambda: phydi.sgd(alpha_learning_rate=-1.0), "alpha_learning_rate: expected a positive"),
        (lambda: phydi.sgd(momentum=1.0), r"momentum: expected a number in \[0, 1\)"),
        (lambda: phydi.sgd(weight_decay=-1.0), "weight_decay: expected a number of at least 0"),
        (lambda: phydi.adagrad(clip_norm=0.0, steps_per_epoch=1), "clip_norm: expected a positive"),
        (lambda: phydi.adagrad(steps_per_epoch=0), "steps_per_epoch: expected an integer"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
