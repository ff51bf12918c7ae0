"""JAX's convolution as an operation of our own, computed otherwise on the CPU.

The operation has JAX's own rules for shapes, derivatives and batches: of any order, in forward and
reverse mode, under any transformation. What they lead to are convolutions again, with their axes in
another order, and these are ours, too. Only the program for the CPU differs: `cpu_convolution`.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax import Array, lax
from jax.extend.core import Literal, Primitive
from jax.interpreters import ad, batching, mlir

from phydi import cpu_convolution

_THEIRS = lax.conv_general_dilated_p
_OURS = Primitive("ph_conv_general_dilated")


def conv_general_dilated(
    lhs, rhs, window_strides, padding, lhs_dilation=None, rhs_dilation=None, **options
) -> Array:
    """`lax.conv_general_dilated`, whose gradients are fast on the CPU, also inside loops.

        y[b, s, o] = Σ_t Σ_c x[b, s + t, c] K[t, c, o]

    The arguments are those of `jax.lax.conv_general_dilated`.
    """
    options |= {"lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    convolve = partial(
        lax.conv_general_dilated, window_strides=window_strides, padding=padding, **options
    )
    return _with_ours(convolve)(lhs, rhs)


def _with_ours(function: Callable) -> Callable:
    """The function with our convolution wherever it has JAX's, for a function of few operations."""

    def call(*args):
        closed = jax.make_jaxpr(function)(*args)
        if not closed.jaxpr.outvars:  # a symbolic zero: there are no images
            return function(*args)
        values = dict(zip(closed.jaxpr.constvars, closed.consts))
        values |= dict(zip(closed.jaxpr.invars, args))
        read = lambda v: v.val if isinstance(v, Literal) else values[v]  # noqa: E731
        for equation in closed.jaxpr.eqns:
            operation = _OURS if equation.primitive is _THEIRS else equation.primitive
            found = operation.bind(*map(read, equation.invars), **equation.params)
            found = found if operation.multiple_results else [found]
            values.update(zip(equation.outvars, found))
        (result,) = closed.jaxpr.outvars
        return read(result)

    return call


def _transpose_of_lhs(g, x, K, **params):
    rule, x = ad.get_primitive_transpose(_THEIRS), ad.UndefinedPrimal(x.aval)
    return _with_ours(lambda g, K: rule(g, x, K, **params)[0])(g, K)


def _transpose_of_rhs(g, x, K, **params):
    rule, K = ad.get_primitive_transpose(_THEIRS), ad.UndefinedPrimal(K.aval)
    return _with_ours(lambda g, x: rule(g, x, K, **params)[1])(g, x)


def _batch(axis, args, axes, **params):
    axis_of_result = None

    def rule(*args):
        nonlocal axis_of_result
        batcher = batching.fancy_primitive_batchers[_THEIRS]
        result, axis_of_result = batcher(axis, args, axes, **params)
        return result

    return _with_ours(rule)(*args), axis_of_result


@partial(jax.jit, static_argnames="params")
def _at_once(x, K, params):
    return _OURS.bind(x, K, **dict(params))


def _lower_for_cpu(ctx, x, K, **params):
    # What XLA distributes over devices is left whole: blocks of images would be sent around.
    context = ctx.module_context.axis_context
    whole = isinstance(context, mlir.ShardingContext) and (context.num_devices or 1) > 1
    lower = mlir.lower_fun(partial(cpu_convolution.convolve, whole=whole), multiple_results=False)
    return lower(ctx, x, K, **params)


_OURS.def_impl(lambda x, K, **params: _at_once(x, K, params=tuple(sorted(params.items()))))
_OURS.def_effectful_abstract_eval(_THEIRS.abstract_eval)
ad.defbilinear(_OURS, _transpose_of_lhs, _transpose_of_rhs)
batching.fancy_primitive_batchers[_OURS] = _batch
mlir.register_lowering(_OURS, mlir.lower_fun(_THEIRS.bind, multiple_results=False))
mlir.register_lowering(_OURS, _lower_for_cpu, platform="cpu")
