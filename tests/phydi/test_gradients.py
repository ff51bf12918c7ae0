"""The gradients of a convolution against JAX's own, and how they are compiled inside a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import phydi
from phydi.gradients import CHANNELS_LAST, conv_general_dilated

CASES = [
    ((3, 3), [(1, 1), (1, 1)], {}),
    ((2, 3), "SAME", {}),
    ((3, 2), "VALID", {}),
    ((3, 3), [(0, 2), (3, 1)], {}),
    ((1, 1), [(0, 0), (0, 0)], {"precision": "highest"}),
    ((3, 3), "SAME", {"rhs_dilation": (2, 2)}),  # from here on JAX's own
    ((3, 3), "SAME", {"feature_group_count": 3}),
]


@pytest.mark.parametrize(("size", "padding", "options"), CASES)
def test_gradients_are_those_of_jax(size, padding, options):
    rng = np.random.default_rng(0)
    channels = 3 // options.get("feature_group_count", 1)
    x = jnp.asarray(rng.normal(size=(4, 6, 7, 3)))
    K = jnp.asarray(rng.normal(size=(*size, channels, 6)))
    options = {"dimension_numbers": CHANNELS_LAST, **options}

    def gradients(convolve):
        def loss(x, K):
            return jnp.sum(jnp.sin(convolve(x, K, (1, 1), padding, **options)))

        return jax.grad(loss, (0, 1))

    ours, theirs = gradients(conv_general_dilated), gradients(lax.conv_general_dilated)
    for a, b in zip(ours(x, K), theirs(x, K)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    batch = jax.vmap(ours)(jnp.stack([x, 2 * x]), jnp.stack([K, -K]))
    for a, b in zip(jax.tree.map(lambda v: v[1], batch), theirs(2 * x, -K)):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    again = [jax.grad(_squared, argnums=1)(f, x, K) for f in (ours, theirs)]
    np.testing.assert_allclose(*again, rtol=0, atol=1e-9)


def _squared(gradients, x, K):
    return sum(jnp.sum(v**2) for v in gradients(x, K))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's compiler for the CPU")
@pytest.mark.parametrize("rank", [None, 7])
def test_no_convolution_of_a_scanned_stage_is_left_in_an_order_without_a_kernel(rank):
    # With JAX's own gradients the loops over blocks hold four, each a hundred times slower.
    model = phydi.PHResNet(34, n=4, width=1 / 8, rank=rank, rngs=nnx.Rngs(0))
    image = jnp.zeros((4, 32, 32, 4), jnp.float32)
    batch = {"image": image, "label": jnp.zeros(4, int)}
    state, step = phydi.make_step(model, phydi.classification_loss, phydi.sgd(0.01))
    text = jax.jit(step).lower(state, batch).compile().as_text()
    found = [line for line in text.splitlines() if " convolution(" in line]
    assert len(found) > 30
    assert not [line for line in found if "dim_labels=b01f_01io->b01f" not in line]
