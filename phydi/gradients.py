"""A convolution whose gradients are convolutions that XLA's CPU compiler runs fast in a loop, too.

The gradients of a convolution are convolutions with their axes in another order. XLA for CPU brings
these into the order that its fast kernels read, but only in a program's outermost computation: in
the body of a scan they are left as they are and run in plain loops, some hundred times slower. So
here they are written in that order to begin with.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs, rhs, window_strides, padding, lhs_dilation=None, rhs_dilation=None, **options
) -> Array:
    """`lax.conv_general_dilated`, with gradients that are fast inside loops on the CPU.

        ∂L/∂x = g * flip(K)',    ∂L/∂K = x' * g

    Its own gradients are used for images of two dimensions with their channels last and steps of 1,
    and only in reverse mode (`jax.grad`, `jax.vjp`); everything else is JAX's.
    """
    options = {name: option for name, option in options.items() if option is not None}
    axes = (lhs.ndim, rhs.ndim)
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, options.get("dimension_numbers"))
    last = axes == (4, 4) and numbers == lax.conv_dimension_numbers(
        lhs.shape, rhs.shape, CHANNELS_LAST
    )
    ones = [window_strides, lhs_dilation or (1, 1), rhs_dilation or (1, 1)]
    known = {"dimension_numbers", "feature_group_count", "precision"}
    plain = all(set(v) == {1} for v in ones) and options.get("feature_group_count", 1) == 1
    if not (last and plain and set(options) <= known):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, **options
        )
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], (1, 1), padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    return _convolve(lhs, rhs, padding, options.get("precision"))


def _lax(x, K, padding, precision) -> Array:
    return lax.conv_general_dilated(
        x, K, (1, 1), padding, dimension_numbers=CHANNELS_LAST, precision=precision
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, K, padding, precision) -> Array:
    return _lax(x, K, padding, precision)


def _forward(x, K, padding, precision):
    return _lax(x, K, padding, precision), (x, K)


def _backward(padding, precision, saved, g):
    def in_order(x, K, g):
        turned = jnp.flip(K, (0, 1)).transpose(0, 1, 3, 2)
        outside = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(K.shape, padding)]
        of_x = _lax(g, turned, outside, precision)
        # Channels as images, images as channels, and g as the kernel.
        of_K = _lax(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), padding, precision)
        return of_x, of_K.transpose(1, 2, 0, 3)

    def as_jax_does(x, K, g):
        return jax.vjp(lambda x, K: _lax(x, K, padding, precision), x, K)[1](g)

    return lax.platform_dependent(*saved, g, cpu=in_order, default=as_jax_does)


_convolve.defvjp(_forward, _backward)
