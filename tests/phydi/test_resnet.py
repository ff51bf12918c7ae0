"""The residual networks: their shape, their start, their statistics, and what they count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from phydi.residual import INITS
from phydi.resnet import STAGES, widths_of
from tests.phydi.test_layers import normal

pytestmark = pytest.mark.float32


def abstract(depth, **options):
    return nnx.eval_shape(lambda: phydi.PHResNet(depth, rngs=nnx.Rngs(0), **options))


@functools.cache
def _small(depth, n, **options):
    return phydi.PHResNet(depth, n=n, width=1 / 16, rngs=nnx.Rngs(0), **options)


def small(depth=50, n=4, **options):
    # Drawing the parameters costs more than most tests.
    return nnx.clone(_small(depth, n, **options))


def num_parameters(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(
    ("depth", "n", "init"),
    [(18, 2, "phydi"), (18, 4, "phydi"), (34, 3, "standard"), (50, 4, "wkp"), (101, 2, "phydi"),
     (152, 3, "phydi"), (152, 4, "standard")],
)  # fmt: skip
def test_the_arithmetic_is_the_models(depth, n, init):
    found = phydi.count_parameters(depth, n=n, init=init)
    assert found["total"] == num_parameters(abstract(depth, n=n, init=init))
    narrow = phydi.count_parameters(depth, n=n, init=init, width=1 / 4)["total"]
    assert narrow == num_parameters(abstract(depth, n=n, init=init, width=1 / 4))


def test_the_released_code_counts_its_unused_biases():
    # 20 convolutions put out 4,800 channels: so many biases. 8 blocks: so many α.
    for n, released in ((2, 5_599_602), (4, 2_810_770)):
        model = num_parameters(abstract(18, n=n))
        assert model + 4800 == released
        assert phydi.count_parameters(18, n=n, unused_biases=True)["total"] == released
    # The real network, with its 3 channels of colour, by torchvision's shapes.
    kernels = 27 * 64 + 4 * 9 * 64**2 + sum(
        9 * (a * b + 3 * b * b) + a * b for a, b in ((64, 128), (128, 256), (256, 512))
    )  # fmt: skip
    assert phydi.count_parameters(18, n=None, init="standard")["kernels"] == kernels
    totals = [phydi.count_parameters(depth, n=None, init="standard")["total"] for depth in STAGES]
    # What torch counts for the usual networks for 32 × 32.
    assert totals == [11_173_962, 21_282_122, 23_520_842, 42_512_970, 58_156_618]


def test_the_widths_are_the_papers():
    assert widths_of(2) == widths_of(4) == (64, 128, 256, 512)
    assert widths_of(3) == (60, 120, 240, 516)
    assert widths_of(4, 1 / 64) == (4, 4, 4, 8)
    assert all(width % 5 == 0 for width in widths_of(5))


@pytest.mark.parametrize("depth", STAGES)
def test_layers_shapes_and_pixels(depth):
    model = abstract(depth, n=4)
    convolutions = 1 + 1  # the stem, and the dense head, which counts as a layer
    for stage in model.stages:
        per_block = 2 if depth in (18, 34) else 3
        convolutions += per_block * (stage.first is not None)
        convolutions += per_block * (0 if stage.rest is None else stage.rest.depth)
    assert convolutions == depth
    shapes = []
    graph, state = nnx.split(model)

    def stages(state, x):
        model = nnx.merge(graph, state)
        x = nnx.relu(model.stem_norm(model.stem(x)))
        for stage in model.stages:
            x = stage(x)
            shapes.append(x.shape)
        return model.head(x.mean((1, 2)))

    logits = jax.eval_shape(stages, state, jax.ShapeDtypeStruct((2, 32, 32, 4), jnp.float32))
    wide = 1 if depth in (18, 34) else 4
    assert shapes == [(2, s, s, wide * c) for s, c in ((32, 64), (16, 128), (8, 256), (4, 512))]
    assert logits.shape == (2, 10)


def reference_block(residual, x, init):
    """One block by flax's own layers with H written out, in training mode."""
    body = residual.block
    y = x
    for i, conv in enumerate(body.convs):
        strides = (conv.strides,) * 2
        y = jax.lax.conv_general_dilated(
            y, conv.kernel, strides, conv.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        axes = (0, 1, 2)
        y = (y - y.mean(axes)) / jnp.sqrt(y.var(axes) + 1e-5)
        if i + 1 < len(body.convs) or init == "phydi":
            y = jnp.maximum(y, 0)
    if residual.shortcut is not None:
        conv = residual.shortcut.layers[0]
        stride = conv.strides
        x = x[:, ::stride, ::stride] @ conv.kernel[0, 0]
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
    if init == "phydi":
        return x + residual.alpha[...] * y
    return jnp.maximum(x + y, 0)


@pytest.mark.parametrize(("depth", "init"), [(18, "standard"), (50, "phydi")])
def test_a_block_that_changes_the_shape_is_the_formula_of_the_released_code(depth, init):
    first = small(depth, init=init).stages[1].first
    if init == "phydi":
        first.alpha[...] = jnp.float32(0.7)
    channels = first.shortcut.layers[0].in_features
    x = normal(4, 8, 8, channels)
    np.testing.assert_allclose(first(x), reference_block(first, x, init), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_blocks_that_keep_the_shape_are_the_identity_at_the_start_bit_for_bit(depth):
    model = small(depth)
    for stage in model.stages[:2]:
        channels = stage.rest.blocks.block.convs[0].in_features
        x = normal(2, 5, 5, channels)
        y = nnx.jit(lambda m, x: m(x))(stage.rest, x)
        np.testing.assert_array_equal(np.asarray(y).view(int), np.asarray(x).view(int))
        # Not because the blocks are zero.
        assert float(jnp.abs(stage.rest.blocks.block.convs[0].F[...]).max()) > 0
    # Blocks with a shortcut are not, and the standard ones neither.
    assert all(stage.first is not None for stage in model.stages[1:])
    x = jnp.abs(normal(2, 5, 5, 4))
    assert np.any(small(18, init="standard").stages[0].rest(x) != x)


@pytest.mark.parametrize("remat", [False, True])
def test_statistics_and_gradients_inside_the_scan_are_those_of_the_loop(remat):
    stack = small(18, init="standard").stages[0].rest
    stack.remat = remat
    x, depth = normal(4, 6, 6, 4), 2
    graph, parameters, rest = nnx.split(stack, nnx.Param, ...)

    def looped(stack, x):
        graph, state = nnx.split(stack.blocks)
        statistics = []
        for i in range(depth):
            block = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))
            x = block(x)
            statistics.append(nnx.state(block, nnx.BatchStat))
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *statistics)

    def scanned(stack, x):
        return stack(x), nnx.state(stack.blocks, nnx.BatchStat)

    def loss(parameters, function):
        stack = nnx.merge(graph, parameters, jax.tree.map(lambda x: x, rest))
        y, statistics = function(stack, x)
        return jnp.sum(jnp.sin(y)), (y, statistics)

    slopes = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    for name, ours, theirs in zip(
        ("gradients", "results"), slopes(parameters, scanned), slopes(parameters, looped)
    ):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert np.any(a != 0), name
            scale = float(jnp.abs(b).max())
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def test_the_program_does_not_grow_with_the_depth():
    def size(depth):
        model = abstract(depth, n=4, width=1 / 16)
        graph, state = nnx.split(model)
        loss = lambda state, x: jnp.sum(nnx.merge(graph, state)(x))  # noqa: E731
        shape = jax.ShapeDtypeStruct((2, 32, 32, 4), jnp.float32)
        return len(str(jax.make_jaxpr(jax.grad(loss, allow_int=True))(state, shape)))

    assert size(152) < 1.02 * size(50)


@pytest.mark.parametrize("init", ["wkp", pytest.param("phydi", marks=pytest.mark.slow)])
def test_materialized_networks_put_out_the_same(init):
    model = small(18, init=init)
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda x: x + 0.1 * normal(*x.shape), state))
    images = normal(3, 8, 8, 4)
    model(images)  # so that the statistics are not at their start
    model.eval()
    plain = phydi.materialize(model)
    np.testing.assert_allclose(plain(images), model(images), rtol=1e-3, atol=1e-3)
    names = {type(part).__name__ for _, part in nnx.iter_modules(plain)}
    assert "PHConv" not in names
    assert "Conv" in names


@pytest.mark.slow
def test_every_start_and_form_learns():
    images, labels = normal(8, 8, 8, 4), jnp.arange(8) % 3
    for options in [{"init": init} for init in INITS] + [{"rank": 7}, {"remat": True}]:
        model = small(18, **options)
        model.stages = nnx.List(model.stages[:2])  # all kinds of blocks, half the compiling
        model.head = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
        state, step = phydi.make_step(model, phydi.classification_loss, phydi.sgd(0.02))
        step, losses = jax.jit(step), []
        for _ in range(24):
            state, totals = step(state, {"image": images, "label": labels})
            losses.append(float(totals["loss"][0]) / 8)
        assert losses[-1] < 0.8 * losses[0], (options, losses)


def test_fixup_has_no_normalisation_within_its_blocks_and_starts_as_its_shortcuts():
    model = small(18, init="fixup")
    assert not model.stages[0].rest.blocks.block.norms
    x = jnp.abs(normal(2, 5, 5, 4))
    np.testing.assert_array_equal(model.stages[0].rest(x), x)
    # 8 blocks in the network, two layers each: the first is scaled by 8^(-1/2).
    plain = small(18, init="standard")
    ratio = model.stages[0].rest.blocks.block.convs[0].F[...]
    ratio = ratio / plain.stages[0].rest.blocks.block.convs[0].F[...]
    np.testing.assert_allclose(ratio, 8**-0.5, rtol=1e-5)


def test_bad_input_is_named():
    for call, match in (
        (lambda: small(20), "depth: expected one of 18, 34, 50, 101, 152, got 20"),
        (lambda: small(18, init="zero"), "init: expected one of phydi, standard"),
        (lambda: small(18, n=0), "n: expected an integer of at least 1"),
        (lambda: small(18, num_classes=0), "num_classes: expected an integer"),
        (lambda: widths_of(4, 0.0), "width: expected a positive number"),
        (
            lambda: small(18)(jnp.zeros((2, 32, 32, 3))),
            r"images: expected \(batch, height, width, 4\), got \(2, 32, 32, 3\)",
        ),
        (lambda: phydi.count_parameters(18, n=4, init="fixup"), "init: expected one of phydi"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
