"""Convolutions and their derivatives against JAX's own, and how they are compiled for the CPU."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import phydi
from phydi import cpu_convolution
from phydi.gradients import conv_general_dilated

ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA for the CPU")
LAST = ("NHWC", "HWIO", "NHWC")
CASES = {
    "3 by 3": ((4, 6, 7, 3), (3, 3, 3, 6), (1, 1), [(1, 1), (1, 1)], {}),
    "even kernel": ((4, 6, 7, 3), (2, 3, 3, 6), (1, 1), "SAME", {}),
    "uneven and negative padding": ((4, 6, 7, 3), (3, 3, 3, 6), (1, 1), [(0, 2), (3, -1)], {}),
    "1 by 1": ((4, 6, 7, 3), (1, 1, 3, 6), (1, 1), "VALID", {"precision": "highest"}),
    "many channels": ((2, 5, 4, 130), (3, 2, 130, 4), (1, 1), "SAME", {}),
    "strides": ((5, 8, 7, 3), (3, 3, 3, 6), (2, 2), [(1, 1), (1, 1)], {}),
    "strides of 1 by 1": ((5, 8, 7, 3), (1, 1, 3, 6), (2, 3), "VALID", {}),
    "strides beyond the kernel": ((3, 9, 8, 2), (2, 1, 2, 4), (3, 2), [(2, 0), (0, 1)], {}),
    "dilations": (
        (4, 6, 7, 3),
        (3, 2, 3, 6),
        (1, 2),
        [(1, 1), (0, 2)],
        {"rhs_dilation": (2, 1), "lhs_dilation": (1, 2)},
    ),
    "strides and dilations of one axis each": (
        (4, 7, 6, 3),
        (3, 2, 3, 3),
        (1, 2),
        [(2, 1), (0, 1)],
        {"rhs_dilation": (2, 3)},
    ),
    "three dimensions": (
        (3, 4, 3, 5, 2),
        (2, 3, 2, 2, 3),
        (1, 1, 1),
        "SAME",
        {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")},
    ),
    # More channels before than after: taps shared between the images and the gradient.
    "fewer channels after": (
        (4, 7, 8, 6),
        (3, 3, 6, 3),
        (1, 2),
        [(3, -1), (0, 2)],
        {"rhs_dilation": (2, 3)},
    ),
    "fewer channels after, three dimensions": (
        (3, 4, 3, 5, 4),
        (2, 3, 3, 4, 2),
        (1, 1, 2),
        [(0, 1), (2, 1), (1, 1)],
        {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC"), "rhs_dilation": (2, 1, 1)},
    ),
    "groups": ((4, 6, 7, 6), (3, 3, 3, 4), (2, 1), "SAME", {"feature_group_count": 2}),
    "channels first": (
        (4, 3, 6, 7),
        (6, 3, 3, 3),
        (2, 1),
        "SAME",
        {"dimension_numbers": ("NCHW", "OIHW", "NCHW")},
    ),
    "one dimension": (
        (4, 9, 3),
        (3, 3, 5),
        (2,),
        "SAME",
        {"dimension_numbers": ("NWC", "WIO", "NWC")},
    ),
}


def _derivatives(convolve, x, K):
    """The value, both gradients, forward mode, forward over reverse, and a batch of gradients."""

    def loss(x, K):
        return jnp.sum(jnp.sin(convolve(x, K)))

    gradient = jax.grad(loss, (0, 1))
    there = (jnp.cos(x), jnp.sin(3 * K))
    return {
        "value": convolve(x, K),
        "gradient": gradient(x, K),
        "forward": jax.jvp(convolve, (x, K), there)[1],
        "forward over reverse": jax.jvp(gradient, (x, K), there)[1],
        "batch": jax.vmap(gradient)(jnp.stack([x, 2 * x]), jnp.stack([K, -K])),
    }


@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_all_kinds_are_those_of_jax(case, monkeypatch):
    monkeypatch.setattr(cpu_convolution, "BLOCK", 700)  # a few images, and some that remain
    image, kernel, strides, padding, options = CASES[case]
    options = {"dimension_numbers": LAST, **options}
    rng = np.random.default_rng(0)
    x, K = (jnp.asarray(rng.normal(size=size)) for size in (image, kernel))
    ours, theirs = (
        jax.jit(
            functools.partial(_derivatives, lambda x, K, f=f: f(x, K, strides, padding, **options))
        )
        for f in (conv_general_dilated, lax.conv_general_dilated)
    )
    found, expected = ours(x, K), theirs(x, K)
    for name in expected:
        for a, b in zip(*map(jax.tree.leaves, (found[name], expected[name]))):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11, err_msg=name)
    # Not inside jit, too.
    y = conv_general_dilated(x, K, strides, padding, **options)
    np.testing.assert_allclose(y, expected["value"], rtol=0, atol=1e-12)


def _network(x, K):
    """Convolutions in a scan, each computed again in the backward pass."""

    @jax.checkpoint
    def layer(x, _):
        y = conv_general_dilated(x, K, (1, 1), "SAME", dimension_numbers=LAST)
        return jnp.tanh(y), None

    return jnp.sum(lax.scan(layer, x, None, length=3)[0] ** 2)


def test_forward_and_reverse_mode_agree_with_differences_through_scan_and_remat():
    rng = np.random.default_rng(0)
    x, K, dx, dK = (
        jnp.asarray(0.3 * rng.normal(size=size)) for size in 2 * ((2, 4, 3, 2), (3, 3, 2, 2))
    )
    along = jax.jit(lambda t: _network(x + t * dx, K + t * dK))
    forward = jax.jvp(along, (0.0,), (1.0,))[1]
    reverse = jax.grad(along)(0.0)
    step = 1e-5
    difference = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(forward, difference, rtol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12)
    second = jax.grad(jax.grad(along))(0.0)
    difference = (jax.grad(along)(step) - jax.grad(along)(-step)) / (2 * step)
    np.testing.assert_allclose(second, difference, rtol=1e-7)


def test_the_jacobian_of_a_layer_is_the_same_by_columns_and_by_rows():
    layer = phydi.PHConv(2, 4, (3, 3), 2, n=2, rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 2)), jnp.float32)
    columns, rows = jax.jacfwd(layer)(x), jax.jacrev(layer)(x)
    np.testing.assert_allclose(columns, rows, rtol=0, atol=1e-6)
    assert np.linalg.matrix_rank(columns.reshape(24, 40)) == 24


def test_gradients_in_shard_map_with_its_checks():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    x, K = jnp.ones((2, 4, 4, 3)), jnp.ones((3, 3, 3, 2))

    def loss(x, K):
        y = conv_general_dilated(x, K, (2, 2), "SAME", dimension_numbers=LAST)
        return lax.psum(jnp.sum(y**2), "data")

    spread = jax.shard_map(
        loss,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
    )

    def alone(x, K):
        y = lax.conv_general_dilated(x, K, (2, 2), "SAME", dimension_numbers=LAST)
        return jnp.sum(y**2)

    for found, expected in zip(*(jax.grad(f, (0, 1))(x, K) for f in (spread, alone))):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


TWO_DEVICES = """
import re, jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from phydi.gradients import conv_general_dilated
assert len(jax.devices()) == 2
rng = np.random.default_rng(0)
x, K = (jnp.asarray(rng.normal(size=size)) for size in ((8, 6, 6, 3), (3, 3, 3, 4)))

def gradient(f):
    convolve = lambda x, K: f(x, K, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.jit(jax.grad(lambda x, K: jnp.sum(jnp.sin(convolve(x, K))), (0, 1)))

expected = gradient(lax.conv_general_dilated)(x, K)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        images = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        kernel = jax.device_put(K, NamedSharding(mesh, PartitionSpec()))
        step = gradient(conv_general_dilated).lower(images, kernel).compile()
        for a, b in zip(step(images, kernel), expected):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
        sent = re.findall(r" (all-[a-z]+|collective-[a-z]+)\\(", step.as_text())
        assert set(sent) == {"all-reduce"}, sent
"""


@ON_CPU
def test_two_devices_send_each_other_the_gradients_of_kernels_alone():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.float32
def test_gradients_in_bfloat16_are_summed_in_float32():
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.uniform(size=(64, 8, 8, 2)), jnp.bfloat16) for _ in range(2))
    K = jnp.zeros((3, 3, 2, 2), jnp.bfloat16)

    def slope(x, K, g):
        convolve = functools.partial(conv_general_dilated, dimension_numbers=LAST)
        return jax.vjp(lambda K: convolve(x, K, (1, 1), "SAME"), K)[1](g)[0]

    found = np.asarray(jax.jit(slope)(x, K, g), float)
    exact = np.asarray(jax.jit(slope)(*(v.astype(jnp.float32) for v in (x, K, g))), float)
    # One rounding: sums of 4,096 terms in bfloat16 would stop growing at 256 times a term.
    np.testing.assert_allclose(found, exact, rtol=2.0**-8)


@pytest.mark.float32
def test_other_machines_get_the_program_of_jax():
    x, K = jnp.ones((2, 4, 4, 3), jnp.float32), jnp.ones((3, 3, 3, 2), jnp.float32)

    def texts(convolve):
        def loss(x, K):
            return jnp.sum(convolve(x, K, (2, 2), "SAME", dimension_numbers=LAST) ** 2)

        exported = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=["cuda"])(x, K)
        return re.findall(r"stablehlo\.convolution\(.*", exported.mlir_module())

    ours, theirs = texts(conv_general_dilated), texts(lax.conv_general_dilated)
    strip = functools.partial(re.sub, r"%\w+|loc\(.*\)", "")
    assert list(map(strip, ours)) == list(map(strip, theirs))
    assert len(ours) == 3


def _compiled(function, *args) -> list[str]:
    text = jax.jit(function).lower(*args).compile().as_text()
    return [line for line in text.splitlines() if re.search(r" (convolution|dot)\(", line)]


def _is_slow(line: str) -> bool:
    in_order = re.search(r"dim_labels=b(\d*)f_\1io->b\1f", line)
    return " convolution(" in line and (not in_order or "lhs_dilate" in line)


@ON_CPU
@pytest.mark.parametrize("rank", [None, 7])
def test_no_convolution_of_a_stage_is_left_in_an_order_without_a_kernel(rank):
    # With JAX's own gradients the loop over its blocks holds four, each a hundred times slower.
    stage = phydi.PHResNet(34, n=4, width=1 / 8, rank=rank, rngs=nnx.Rngs(0)).stages[1]
    graph, parameters, other = nnx.split(stage, nnx.Param, ...)

    def loss(parameters, images):
        return jnp.sum(nnx.merge(graph, parameters, other, copy=True)(images) ** 2)

    found = _compiled(jax.grad(loss, (0, 1)), parameters, jnp.ones((4, 16, 16, 8), jnp.float32))
    assert len(found) > 9
    assert not list(filter(_is_slow, found))


@ON_CPU
def test_a_strided_layer_in_a_scan_of_the_user_is_left_in_no_slow_order():
    layer = phydi.PHConv(8, 8, (3, 3), 2, n=2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    images = jnp.ones((3, 2, 9, 9, 8))

    def loss(state, images):
        convolve = nnx.merge(graph, state)
        return lax.scan(lambda total, x: (total + jnp.sum(convolve(x) ** 2), None), 0.0, images)[0]

    found = _compiled(jax.grad(loss, (0, 1)), state, images)
    assert len(found) > 3
    assert not list(filter(_is_slow, found))
