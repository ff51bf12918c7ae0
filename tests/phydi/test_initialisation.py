"""Variances: exact identities of the slices, and statistics against the derivation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi

pytestmark = pytest.mark.float32


@partial(jax.jit, static_argnums=(0, 1, 2))
def tensors(n, rank, num):
    """Multiplication tensors as the layers draw them."""

    def draw(key):
        if rank is None:
            return phydi.isometric(key, (n, n, n))
        return phydi.compose(*phydi.isometric_factors(key, (3, rank, n)))

    return jax.lax.map(draw, jax.random.split(jax.random.key(n), num))


@pytest.mark.parametrize(
    ("n", "rank"), [(1, None), (2, None), (3, None), (4, None), (2, 2), (3, 5), (4, 7)]
)
def test_all_slices_of_an_isometric_tensor_are_orthogonal(n, rank):
    eye = np.broadcast_to(np.eye(n), (5, n, n, n))
    A = np.asarray(tensors(n, rank, 5), float)
    np.testing.assert_allclose(np.einsum("siab,siAb->sbaA", A, A), eye, atol=2e-6)
    np.testing.assert_allclose(np.einsum("siab,siaB->sabB", A, A), eye, atol=2e-6)


def test_entries_have_mean_zero_and_variance_one_over_n():
    A = np.asarray(tensors(3, None, 4000))
    # 4000 draws: the mean of each entry is within 5 standard errors.
    assert np.abs(A.mean(0)).max() < 5 * (1 / 3 / 4000) ** 0.5
    np.testing.assert_allclose(A.var(0), 1 / 3, atol=0.05)


def test_too_small_a_rank_keeps_the_mean_of_the_variances():
    A = np.asarray(tensors(4, 3, 6))
    np.testing.assert_allclose((A**2).sum(1).mean((1, 2)), 1, rtol=1e-5)
    spare = phydi.isometric_factors(jax.random.key(0), (3, 9, 4))
    assert np.all(spare[2, 5:] == 0)
    assert np.all(spare[:2, 5:] != 0)


@pytest.mark.parametrize("init", [phydi.isometric, phydi.gaussian])
def test_h_has_the_variance_of_the_real_kernel(init):
    real = nnx.initializers.lecun_normal()(jax.random.key(9), (240, 240))
    variances = []
    for seed in range(10):
        layer = phydi.PHMLinear(240, 240, n=4, algebra_init=init, rngs=nnx.Rngs(seed))
        variances.append(float(jnp.var(layer.kernel)))
    # Both on average; the isometric one every time, up to the 14400 draws of F.
    spread = np.std(variances) / np.mean(variances)
    assert np.mean(variances) == pytest.approx(float(real.var()), rel=0.12)
    assert spread < 0.02 if init is phydi.isometric else spread > 0.05


@pytest.mark.parametrize("options", [{}, {"rank": 7}, {"algebra": "cayley-dickson"}])
def test_signals_and_gradients_keep_their_size_whatever_the_input(options):
    # All the signal in one component: what a mean over A cannot promise.
    x = jnp.zeros((1, 256)).at[0, :64].set(1.0)
    forwards, backwards = [], []
    for seed in range(20):
        layer = phydi.PHMLinear(256, 256, n=4, **options, rngs=nnx.Rngs(seed))
        forwards.append(layer(x).reshape(4, 64))
        backwards.append((x @ layer.kernel.T).reshape(4, 64))
    for values in (forwards, backwards):
        parts = np.mean(np.square(values), axis=(0, 2))
        # E = 64/256 a number, each the square of a normal variable: 20 · 64 draws of them.
        np.testing.assert_allclose(parts, 0.25, rtol=5 * (2 / 1280) ** 0.5)


@pytest.mark.parametrize(("n", "taps"), [(2, ()), (4, (3, 3))])
def test_the_released_rule_has_the_variance_of_its_derivation(n, taps):
    options = {
        "n": n,
        "algebra_init": phydi.released_algebra,
        "kernel_init": phydi.released_kernel(n),
    }
    found = []
    for seed in range(20):
        rngs = nnx.Rngs(seed)
        if taps:
            layer = phydi.PHConv(32, 64, taps, **options, rngs=rngs)
        else:
            layer = phydi.PHMLinear(32, 64, **options, rngs=rngs)
        found.append(float(jnp.var(layer.kernel)))
    predicted = 2 / (n * np.prod(taps) * 32 * (1 + 64 / n**2))
    # Var(ΣA²/n³) over n³ uniform entries: relative 0.9/√(n³), over 20 layers.
    assert np.mean(found) == pytest.approx(predicted, rel=5 * 0.9 / n**1.5 / 20**0.5)


def test_torch_reads_the_released_tensors_so():
    # torch's rule: fan_in = size(1)·rest, fan_out = size(0)·rest, variance 2/(fan_in + fan_out).
    n, size_in, size_out, taps = 4, 32, 64, 9
    sizes = (n, size_out // n, size_in // n * taps)
    variance = 2 / (sizes[1] * sizes[2] + sizes[0] * sizes[2])
    F = phydi.released_kernel(n)(jax.random.key(0), (3, 3, size_in, size_out))
    assert float(abs(F).max()) == pytest.approx((3 * variance) ** 0.5, rel=1e-3)
    assert float(F.var()) == pytest.approx(variance, rel=0.02)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"shape: expected \(n, n, n\), got \(2, 3, 3\)"):
        phydi.isometric(jax.random.key(0), (2, 3, 3))
    with pytest.raises(ValueError, match=r"shape: expected \(3, R, n\), got \(2, 3, 3\)"):
        phydi.isometric_factors(jax.random.key(0), (2, 3, 3))
