"""The identity at the start, bit for bit, and what else PHYDI promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from phydi.residual import add
from tests.phydi.test_layers import count_products, normal

pytestmark = pytest.mark.float32


class Block(nnx.Module):
    """Two layers and an activation between."""

    def __init__(self, width: int, rngs: nnx.Rngs, **options):
        self.first = phydi.PHMLinear(width, 2 * width, n=2, **options, rngs=rngs)
        self.second = phydi.PHMLinear(2 * width, width, n=2, **options, rngs=rngs)

    def __call__(self, x, shift=0.0):
        return self.second(nnx.relu(self.first(x))) + shift


def block(rngs):
    return Block(4, rngs, form="built", use_bias=False)


def bits(x):
    return np.asarray(x).view(np.int32)


AWKWARD = np.array([[-0.0, 0.0, 1e-42, -3.0], [1e-40, -1e38, 1.0, -1e-45]], np.float32)


@pytest.mark.parametrize("remat", [False, True])
def test_a_stack_is_the_identity_bit_for_bit(remat):
    stack = phydi.ResidualStack(block, 40, remat=remat, rngs=nnx.Rngs(0))
    x = np.concatenate([AWKWARD, normal(20, 4)])
    np.testing.assert_array_equal(bits(nnx.jit(lambda m, x: m(x))(stack, x)), bits(x))
    # Not because the blocks are zero.
    assert abs(stack.blocks.block.first.F[...]).min() > 0
    values = phydi.jacobian_spectrum(stack, jnp.asarray(x[-1]))
    np.testing.assert_array_equal(values, np.ones(4, np.float32))


def test_blocks_of_convolutions_and_attention_too():
    convolutions = phydi.Residual(phydi.PHConv(4, 4, (3, 3), n=4, rngs=nnx.Rngs(0)))
    x = normal(2, 5, 5, 4)
    np.testing.assert_array_equal(bits(convolutions(x)), bits(x))
    attention = phydi.PHMultiHeadAttention(2, 4, n=2, decode=False, rngs=nnx.Rngs(0))
    x = normal(2, 3, 4)
    np.testing.assert_array_equal(bits(phydi.Residual(attention)(x, is_causal=True)), bits(x))


def test_the_sum_is_the_sum_where_the_change_is_not_zero():
    x = jnp.asarray([1.0, -0.0, 2.0], jnp.float32)
    change = jnp.asarray([2.0, 0.0, -2.0], jnp.float32)
    np.testing.assert_array_equal(bits(add(x, change)), bits(np.float32([3.0, -0.0, 0.0])))
    slopes = jax.grad(lambda x, change: jnp.sum(add(x, change) * x), (0, 1))(x, change)
    np.testing.assert_array_equal(slopes[0], 2 * x + change)
    np.testing.assert_array_equal(slopes[1], x)
    assert np.isnan(add(x, x * jnp.nan)).all()


def test_at_the_start_only_alpha_learns_and_by_the_right_amount():
    layer = phydi.Residual(Block(4, nnx.Rngs(0)))
    x, g = normal(3, 4), normal(3, 4, seed=1)
    graph, state = nnx.split(layer, nnx.Param)
    slopes = jax.grad(lambda state: jnp.sum(nnx.merge(graph, state)(x) * g))(state)
    slopes = nnx.to_pure_dict(slopes)
    exact = jnp.sum(layer.block(x) * g)
    assert float(slopes["alpha"]) == pytest.approx(float(exact), rel=1e-5)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slopes["block"]))


def test_a_scanned_stack_is_the_loop_over_its_blocks():
    stack = phydi.ResidualStack(block, 5, rngs=nnx.Rngs(0))
    stack.blocks.alpha[...] = jnp.linspace(-1, 1, 5, dtype=jnp.float32)
    x, shift = normal(3, 4), normal(4, seed=1)
    graph, state = nnx.split(stack.blocks)
    y = x
    for i in range(5):
        y = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))(y, shift)
    np.testing.assert_allclose(stack(x, shift), y, atol=1e-5)
    # The blocks are drawn independently.
    first = stack.blocks.block.first.F[...]
    assert len(np.unique(first[:, 0, 0, 0])) == 5


def gradient_jaxpr(depth, remat):
    stack = phydi.ResidualStack(block, depth, remat=remat, rngs=nnx.Rngs(0))
    graph, state = nnx.split(stack)

    def loss(state, x):
        return jnp.sum(nnx.merge(graph, state)(x) ** 2)

    return jax.make_jaxpr(jax.grad(loss))(state, jnp.ones((33, 4))), (loss, state)


def test_the_program_does_not_grow_with_the_depth_and_builds_h_once():
    plain, _ = gradient_jaxpr(3, False)
    shallow, (loss, state) = gradient_jaxpr(3, True)
    deep, _ = gradient_jaxpr(96, True)
    assert len(str(deep)) < 1.05 * len(str(shallow))
    # H (32 numbers) of two layers, and the gradients with respect to them: not one more for remat.
    assert count_products(plain.jaxpr, 32) == count_products(shallow.jaxpr, 32) == 4
    x = normal(33, 4)
    state = jax.tree.map(lambda leaf: leaf + 0.1, state)
    graph = nnx.split(phydi.ResidualStack(block, 3, rngs=nnx.Rngs(0)))[0]
    other = jax.grad(lambda s: jnp.sum(nnx.merge(graph, s)(x) ** 2))(state)
    for a, b in zip(jax.tree.leaves(jax.grad(loss)(state, x)), jax.tree.leaves(other)):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("remat", [False, True])
def test_dropout_keys_move_on_and_differ_between_blocks(remat):
    def make(rngs):
        return nnx.Dropout(0.5, rngs=rngs)

    stack = phydi.ResidualStack(make, 3, init="standard", remat=remat, rngs=nnx.Rngs(0))
    x = jnp.ones(64, jnp.float32)
    first, second = stack(x), stack(x)
    assert np.any(first != second)
    # Each block multiplies by 1 or 3: were their keys the same, there would be only 1 and 27.
    assert set(np.unique(first)) == {1.0, 3.0, 9.0, 27.0}
    np.testing.assert_array_equal(stack.blocks.block.rngs.count[...], [2, 2, 2])


def test_wkp_and_fixup_are_what_they_say():
    x = normal(3, 4)
    plain = Block(4, nnx.Rngs(0))
    wkp = phydi.Residual(Block(4, nnx.Rngs(0)), init="wkp")
    np.testing.assert_allclose(wkp(x), x + plain(x), atol=1e-5)
    m = wkp.block.first.multiplication
    np.testing.assert_array_equal(m.weights[...], np.ones(2))
    before, m.weights[...] = wkp.block.first.kernel, jnp.asarray([3.0, 1.0], jnp.float32)
    first = jnp.kron(m.A[0], wkp.block.first.F[0])
    np.testing.assert_allclose(wkp.block.first.kernel - before, 2 * first, atol=1e-5)
    fixup = phydi.Residual(Block(4, nnx.Rngs(0)), init="fixup", depth=16)
    np.testing.assert_array_equal(fixup(x), x)
    np.testing.assert_allclose(fixup.block.first.F[...], plain.first.F[...] / 4, rtol=1e-6)
    assert np.all(fixup.block.second.F[...] == 0)
    standard = phydi.Residual(Block(4, nnx.Rngs(0)), init="standard")
    np.testing.assert_array_equal(standard(x), x + plain(x))


def test_one_alpha_can_be_shared():
    alpha = nnx.Param(jnp.zeros(()))
    pair = nnx.List([phydi.Residual(Block(4, nnx.Rngs(i)), alpha=alpha) for i in range(2)])
    alpha[...] = 1.0
    x = normal(3, 4)
    np.testing.assert_allclose(pair[1](x), x + pair[1].block(x), atol=1e-5)
    assert len(jax.tree.leaves(nnx.state(pair, nnx.Param))) == 2 * 6 + 1


def test_the_spectrum_of_known_maps():
    M = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    exact = np.linalg.svd(M.astype(float), compute_uv=False)
    for matrix in (M, M.T):
        found = phydi.jacobian_spectrum(lambda x, m=matrix: m @ x, jnp.ones(matrix.shape[1]))
        np.testing.assert_allclose(found, exact, rtol=1e-5)
    rounded = phydi.jacobian_spectrum(
        lambda x: jnp.array([3, -2], x.dtype) * x, jnp.ones(2, "bfloat16")
    )
    np.testing.assert_array_equal(rounded, [3, 2])
    points = normal(5, 4)
    batch = jax.vmap(lambda x: phydi.jacobian_spectrum(jnp.sin, x))(points)
    np.testing.assert_allclose(batch, -np.sort(-np.abs(np.cos(points))), rtol=1e-5)


def test_bad_input_is_named():
    narrow = phydi.PHMLinear(4, 2, n=2, rngs=nnx.Rngs(0))
    for call, match in (
        (lambda: phydi.Residual(narrow, init="zero"), "init: expected one of phydi, standard"),
        (lambda: phydi.Residual(narrow)(jnp.ones((3, 4))), r"block: expected to keep the shape"),
        (lambda: phydi.Residual(nnx.relu, init="wkp"), "block: expected hypercomplex layers"),
        (lambda: phydi.Residual(nnx.relu, init="fixup"), "block: expected dense or convolution"),
        (lambda: phydi.Residual(narrow, init="fixup", depth=0), "depth: expected an integer"),
        (
            lambda: phydi.Residual(narrow, init="standard", alpha=nnx.Param(jnp.zeros(()))),
            "alpha: expected None for init='standard'",
        ),
        (lambda: phydi.ResidualStack(block, 0, rngs=nnx.Rngs(0)), "depth: expected an integer"),
        (lambda: phydi.jacobian_spectrum(jnp.sin, 1j), "x: expected real floating numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
