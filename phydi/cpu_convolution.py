"""Convolutions in the forms that XLA's CPU compiler runs fast.

XLA for CPU has fast convolutions for images (batch, *space, in), kernels (*space, in, out) and
results (batch, *space, out). It brings others into that order, but only in a program's outermost
computation: in the body of a scan they are left in plain loops, a hundred times slower. The
gradients of a convolution are such others, and have more structure than their order shows:

    ∂L/∂K         a kernel as large as the image, a result as small as a kernel: a product of
                  matrices, with the pixels of all images as the axis that is summed over
    ∂L/∂x         of a convolution with strides: g with zeros between its pixels; each class of
                  pixels of the result sees its own part of the kernel, and no zeros

All else is brought into the order above.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# How many numbers of shifted images are written at once: what stays in the cache until it is read.
BLOCK = 5 << 18


def convolve(lhs: Array, rhs: Array, *, whole: bool = False, **params) -> Array:
    """`lax.conv_general_dilated_p` on the CPU.

    Args:
      lhs: the images, in the order that `params` say.
      rhs: the kernel.
      whole: whether to leave the images together, rather than take a few at a time.
      **params: of that operation.

    Returns:
      The result that it has.
    """
    theirs = partial(lax.conv_general_dilated_p.bind, **params)
    sharding = params["out_sharding"]
    distributed = sharding and not sharding.mesh.empty
    if not jnp.issubdtype(lhs.dtype, jnp.floating) or distributed or 0 in lhs.shape:
        return theirs(lhs, rhs)
    images, kernels, results = params["dimension_numbers"]
    result = jax.eval_shape(theirs, lhs, rhs)
    space = [result.shape[axis] for axis in results[2:]]
    taps = math.prod(rhs.shape[axis] for axis in kernels[2:])
    undilated = set(params["lhs_dilation"]) <= {1}
    ungrouped = params["feature_group_count"] == params["batch_group_count"] == 1
    simple = undilated and ungrouped and not whole
    if simple and math.prod(space) < taps:
        x = lhs.transpose(images[1], *images[2:], images[0])
        g = rhs.transpose(kernels[1], *kernels[2:], kernels[0])
        y = _as_products(x, g, space, result.dtype, params)
        return y.transpose(np.argsort((results[1], *results[2:], results[0])))
    x = lhs.transpose(images[0], *images[2:], images[1])
    K = rhs.transpose(*kernels[2:], kernels[1], kernels[0])
    at_every_pixel = set(params["window_strides"]) == set(params["rhs_dilation"]) == {1}
    if simple and taps > 1:
        y = _as_product(x, K, space, result.dtype, params)
    elif not undilated and at_every_pixel and params["batch_group_count"] == 1:
        y = _in_parts(x, K, space, params)
    else:
        y = _in_order(x, K, params)
    return y.transpose(np.argsort((results[0], *results[2:], results[1])))


def _in_order(x: Array, K: Array, params, **changes) -> Array:
    last, axes = x.ndim - 1, tuple(range(1, x.ndim - 1))
    images, kernel = (0, last, *axes), (last, last - 1, *range(last - 1))
    numbers = lax.ConvDimensionNumbers(images, kernel, images)
    return lax.conv_general_dilated_p.bind(
        x, K, **params | {"dimension_numbers": numbers} | changes
    )


def _shifted(x: Array, taps, space, strides, dilations) -> Array:
    """(pixels of the result, taps · channels): x at dilations · pixel + strides · tap."""
    columns = []
    for tap in itertools.product(*map(range, taps)):
        start = [t * step for t, step in zip(tap, strides)]
        end = [s + (k - 1) * d + 1 for s, k, d in zip(start, space, dilations)]
        end = (len(x), *end, x.shape[-1])
        columns.append(lax.slice(x, (0, *start, 0), end, (1, *dilations, 1)))
    return jnp.concatenate(columns, -1).reshape(-1, len(columns) * x.shape[-1])


def _shifted_along_last(x: Array, taps: int, width: int, padding, stride: int, dilation: int):
    """The same along the last axis of space alone: the other axes stay as they are."""
    others = x.ndim - 3
    padded = _padded(x, ((0, 0),) * others + (padding,))
    ones, space = (1,) * others, (*x.shape[1:-2], width)
    return _shifted(padded, (*ones, taps), space, (*ones, stride), (*ones, dilation))


def _padded(x: Array, padding) -> Array:
    pads = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _placed(x: Array, starts, sizes) -> Array:
    """x in frames of other sizes along all axes of space but the last, from `starts` on.

    What lies outside is left out, and the rest of the frames is zero.
    """
    ends = [size - length - start for start, size, length in zip(starts, sizes, x.shape[1:])]
    pads = [(0, 0, 0), *((start, end, 0) for start, end in zip(starts, ends))]
    return lax.pad(x, jnp.zeros((), x.dtype), [*pads, (0, 0, 0), (0, 0, 0)])


def _over_blocks(add_fn, start, num_images: int, numbers_of_one: int):
    """`add_fn(first, size, state)` for blocks of images of so many shifted numbers, in order."""
    size = min(num_images, max(1, BLOCK // max(1, numbers_of_one)))
    # Somewhat fewer, if that leaves no rest, for which the program has all of it again.
    size = next((d for d in range(size, size // 2, -1) if num_images % d == 0), size)
    count = num_images // size
    if count == 1:
        state = add_fn(0, size, start)
    else:
        state = lax.fori_loop(0, count, lambda k, state: add_fn(k * size, size, state), start)
    rest = num_images - count * size
    return add_fn(count * size, rest, state) if rest else state


def _as_products(x: Array, g: Array, space, dtype, params) -> Array:
    """Σ_b Σ_s x[b, s + t, c] g[b, s, o] as (o, t, c)."""
    pixels, c, o = g.shape[1:-1], x.shape[-1], g.shape[-1]
    last, others = space[-1], math.prod(space[:-1])
    # What is transposed is written twice.
    in_two = set(params["rhs_dilation"][:-1]) <= {1} and (
        last * c + 2 * others * o < others * last * c + 2 * o
    )
    arrange = _rows_in_two_halves if in_two else _rows_side_by_side
    height, width = (others * o, last * c) if in_two else (o, others * last * c)
    sum_dtype = jnp.promote_types(dtype, jnp.float32)

    def add(first, size, total):
        some, of_them = (lax.dynamic_slice_in_dim(v, first, size) for v in (x, g))
        rows, columns = arrange(some, of_them, space, params)
        # The smaller matrix is the one to be transposed, before: products of transposed matrices
        # are slower.
        rows = lax.optimization_barrier(rows.reshape(-1, height).T)
        return total + _matmul(rows, columns.reshape(-1, width), sum_dtype, params)

    total = jnp.zeros((height, width), sum_dtype)
    total = _over_blocks(add, total, len(x), math.prod(pixels) * max(height, width))
    total = total.astype(dtype)
    if in_two:
        total = jnp.moveaxis(total.reshape(*space[:-1], o, last, c), len(space) - 1, 0)
    return total.reshape(o, *space, c)


def _rows_side_by_side(x: Array, g: Array, space, params) -> tuple[Array, Array]:
    """g, and the images shifted by every tap."""
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    padded = _padded(x, params["padding"])
    return g, _shifted(padded, space, g.shape[1:-1], strides, dilations)


def _rows_in_two_halves(x: Array, g: Array, space, params) -> tuple[Array, Array]:
    """g shifted by the taps of all axes but the last, back, and the images by those of the last."""
    *paddings, pad = params["padding"]
    *others, last = space
    before, strides, dilations = x.shape[1:-2], params["window_strides"], params["rhs_dilation"]
    shifted = _shifted_along_last(x, last, g.shape[-2], pad, strides[-1], dilations[-1])
    moved = []
    for tap in itertools.product(*map(range, others)):
        starts = [t * step - low for t, step, (low, _) in zip(tap, strides, paddings)]
        moved.append(_placed(g, starts, before))
    return jnp.concatenate(moved, -1), shifted


def _as_product(x: Array, K: Array, space, dtype, params) -> Array:
    """Σ_t Σ_c x[b, s + t, c] K[t, c, o] as (b, s, o)."""
    *taps, c, o = K.shape
    columns = math.prod(taps) * c
    # Numbers to a pixel that are written besides the result: each shifted image twice.
    others = math.prod(taps[:-1])
    in_two = (
        set(params["window_strides"][:-1]) <= {1} and 2 * taps[-1] * c + others * o < 2 * columns
    )
    if in_two:
        multiply = partial(_in_two_halves, K=K, space=space, dtype=dtype, params=params)
        columns = max(taps[-1] * c, others * o)
    else:
        multiply = partial(_side_by_side, K=K, space=space, dtype=dtype, params=params)

    def add(first, size, y):
        result = multiply(lax.dynamic_slice_in_dim(x, first, size))
        return lax.dynamic_update_slice_in_dim(y, result, first, 0)

    start = jnp.zeros((len(x), *space, o), dtype)
    return _over_blocks(add, start, len(x), math.prod(space) * columns)


def _side_by_side(x: Array, K: Array, space, dtype, params) -> Array:
    """The images shifted by every tap, times the kernel."""
    *taps, _, o = K.shape
    dilations, strides = params["rhs_dilation"], params["window_strides"]
    shifted = _shifted(_padded(x, params["padding"]), taps, space, dilations, strides)
    y = _matmul(shifted, K.reshape(-1, o), dtype, params)
    return y.reshape(len(x), *space, o)


def _in_two_halves(x: Array, K: Array, space, dtype, params) -> Array:
    """The images shifted along their last axis, times the kernel; results shifted along the others.

    For 3 × 3 taps 3 images are written before the product and 3 after it, instead of 9 before.
    """
    *taps, c, o = K.shape
    *others, last = taps
    before = x.shape[1:-2]
    paddings, dilations = params["padding"], params["rhs_dilation"]
    stride = params["window_strides"][-1]
    shifted = _shifted_along_last(x, last, space[-1], paddings[-1], dilations[-1], stride)
    kernel = jnp.moveaxis(K, (-3, -2), (0, 1)).reshape(last * c, -1)
    # What is added has more digits than the result, as within a product.
    products = _matmul(shifted, kernel, jnp.promote_types(dtype, jnp.float32), params)
    products = products.reshape(len(x), *before, space[-1], -1)
    y = 0
    for i, tap in enumerate(itertools.product(*map(range, others))):
        starts = [low - t * d for t, d, (low, _) in zip(tap, dilations, paddings)]
        y += _placed(products[..., i * o : (i + 1) * o], starts, space[:-1])
    return y.astype(dtype)


def _matmul(a: Array, b: Array, dtype, params) -> Array:
    return jnp.matmul(a, b, precision=params["precision"], preferred_element_type=dtype)


def _in_parts(x: Array, K: Array, space, params) -> Array:
    """A convolution with zeros between the pixels of x, one class of the result's at a time.

    The pixel d q + r of the result sees the taps k = d l + (low - r) mod d of the kernel alone, and
    these see the pixels q + l - shift of x.
    """
    dilations = params["lhs_dilation"]
    counts = [-(-s // d) for s, d in zip(space, dilations)]
    ones = (1,) * len(space)

    def part(remainders):
        firsts, pads = [], []
        for axis, r in enumerate(remainders):
            d, (low, _) = dilations[axis], params["padding"][axis]
            first = (low - r) % d
            shift = (low - r - first) // d
            taps = len(range(first, K.shape[axis], d))
            firsts.append(first)
            pads.append((shift, counts[axis] + taps - 1 - x.shape[1 + axis] - shift))
        some = K[tuple(slice(first, None, d) for first, d in zip(firsts, dilations))]
        if not some.size:
            return jnp.zeros((len(x), *counts, K.shape[-1]), dtype)
        return _in_order(x, some, params, padding=tuple(pads), lhs_dilation=ones)

    dtype = params["preferred_element_type"] or jnp.result_type(x, K)
    parts = [part(r) for r in itertools.product(*map(range, dilations))]
    y = jnp.stack(parts).reshape(*dilations, len(x), *counts, K.shape[-1])
    n = len(space)
    between = [axis for k in range(n) for axis in (n + 1 + k, k)]
    y = y.transpose(n, *between, 2 * n + 1)
    y = y.reshape(len(x), *(c * d for c, d in zip(counts, dilations)), K.shape[-1])
    return y[(slice(None), *(slice(s) for s in space))]
