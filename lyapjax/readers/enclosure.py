"""`enclose`: a sound interval enclosure of any JAX function, step by step through its program.

Each step of the program (see `program`) is read with the arithmetic of `intervals` and
`elementary`. The ends of a step are arrays of the step's shape, followed by one more axis where
many boxes are read at once: the last axis is the batch, so that every operation runs along
contiguous memory. What does not depend on the boxes (weights, tangent directions) has no such axis
and is computed once.

What is proved: for every x between lo and hi, the real number f(x) lies in the result, where f is
the function over the reals that the program describes. If some step has no real value for some
number it may be given (√ of a negative number, 1/0, a pole of tan), every result is unbounded.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.contractions import dot
from lyapjax.readers.elementary import UNDEFINED, VALUES
from lyapjax.readers.intervals import Interval, Range, each
from lyapjax.readers.program import Program, trace

MOVING = {"reshape", "broadcast", "transpose", "slice", "concatenate", "rev", "take"}
COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
ARITHMETIC = {
    **{"add": ia.add, "sub": ia.sub, "mul": ia.mul, "max": ia.maximum, "min": ia.minimum},
    **{"neg": ia.neg, "abs": ia.absolute, "square": ia.square, "sign": ia.sign},
}


def move(step, shapes, arrays):
    """A step that only moves entries, on arrays that may have more axes at the end.

    NumPy arrays stay NumPy arrays, so that known zeros can be seen while tracing.
    """
    x, rank, params = arrays[0], len(shapes[0]), step.params
    rest = x.shape[rank:]
    known = all(isinstance(v, np.ndarray) for v in arrays)
    if step.op == "reshape":
        return x.reshape(step.shape + rest)
    if step.op == "broadcast":
        axes = params[0] + tuple(len(step.shape) + i for i in range(len(rest)))
        if known:
            sizes = [1] * len(step.shape)
            for axis, size in zip(params[0], x.shape):
                sizes[axis] = size
            return np.broadcast_to(x.reshape(*sizes, *rest), step.shape + rest)
        return jax.lax.broadcast_in_dim(x, step.shape + rest, axes)
    if step.op == "transpose":
        return x.transpose(params[0] + tuple(range(rank, rank + len(rest))))
    if step.op == "slice":
        return x[tuple(slice(*bounds) for bounds in zip(*params))]
    if step.op == "rev":
        return np.flip(x, params[0]) if known else jnp.flip(x, params[0])
    if step.op == "concatenate":
        join = np.concatenate if known else jnp.concatenate
        return join(arrays, axis=params[0])
    shape, index = params
    index = np.asarray(index, np.int64)
    return x.reshape((-1, *rest))[index].reshape(shape + rest)


def lift(a: Range, rank: int, ndim: int) -> Range:
    """An array of fewer axes among those of more: new ones after the step's own."""
    if a.ndim < rank or a.ndim >= ndim or rank == 0:
        return a

    def wider(x):
        return x.reshape(x.shape[:rank] + (1,) * (ndim - a.ndim) + x.shape[rank:])

    lo = wider(a.lo)
    return a._replace(lo=lo, hi=lo if a.is_point else wider(a.hi))


def spread(a: Range, shape) -> Range:
    """Repeat the ends to one shape, keeping a point a point."""
    if np.shape(a.lo) == tuple(shape):
        return a
    known = isinstance(a.lo, (np.ndarray, float)) and isinstance(a.hi, (np.ndarray, float))
    repeat = np.broadcast_to if known else jnp.broadcast_to
    lo = repeat(a.lo, shape)
    return a._replace(lo=lo, hi=lo if a.is_point else repeat(a.hi, shape))


def compare(op: str, a: Range, b: Range) -> Range:
    """Certainly true, possibly true."""
    if op in ("gt", "ge"):
        a, b, op = b, a, {"gt": "lt", "ge": "le"}[op]
    if op == "lt":
        return Range(a.hi < b.lo, a.lo < b.hi)
    if op == "le":
        return Range(a.hi <= b.lo, a.lo <= b.hi)
    same = (a.lo == a.hi) & (b.lo == b.hi) & (a.lo == b.lo)
    meet = (a.lo <= b.hi) & (b.lo <= a.hi)
    return Range(same, meet) if op == "eq" else Range(~meet, ~same)


def choose(which: Range, first: Range, second: Range) -> Range:
    """`first` where the truth value is false, `second` where true, both where unknown."""
    both = ia.hull(first, second)
    lo = jnp.where(which.lo, second.lo, jnp.where(which.hi, both.lo, first.lo))
    hi = jnp.where(which.lo, second.hi, jnp.where(which.hi, both.hi, first.hi))
    return both._replace(lo=lo, hi=hi)


def truth(op: str, values: list[Range]) -> Range:
    """and, or, not of truth values."""
    if op == "not":
        return Range(~values[0].hi, ~values[0].lo)
    join = jnp.logical_and if op == "and" else jnp.logical_or
    return Range(*(join(x, y) for x, y in zip(values[0][:2], values[1][:2])))


def read(step, shapes, values: list[Range], divisor: float = ia.INF) -> Range:
    """The enclosure of one step from those of its inputs.

    `divisor` bounds the reciprocal, as log2, where the second input is a checked constant.
    """
    op = step.op
    if op in MOVING:
        if op == "concatenate":
            batch = max((v.lo.shape[len(s) :] for v, s in zip(values, shapes)), key=len)
            values = [lift(v, len(s), len(s) + len(batch)) for v, s in zip(values, shapes)]
            values = [spread(v, (*s, *batch)) for v, s in zip(values, shapes)]
        return each(lambda arrays: move(step, shapes, arrays), values)
    if op == "dot":
        return dot(step, shapes, *values)
    if op in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "cumsum"):
        return reduce(step, shapes[0], values[0])
    ndim = max(v.ndim for v in values)
    values = [lift(v, len(s), ndim) for v, s in zip(values, shapes)]
    if op in ARITHMETIC:
        return ARITHMETIC[op](*values)
    if op in VALUES:
        return VALUES[op](values[0])
    if op in COMPARISONS:
        return compare(op, *values)
    if op in ("and", "or", "not"):
        return truth(op, values)
    if op == "select":
        return choose(*values)
    if op == "indicator":
        return Range(*(jnp.where(v, 1.0, 0.0) for v in values[0][:2]), 1.0, True)
    if op == "div":
        return ia.div(*values, divisor)
    if op == "integer_pow":
        return ia.integer_pow(values[0], step.params[0])
    raise NotImplementedError(f"fn: no enclosure of the operation {op!r}")


def reduce(step, shape, a: Range) -> Range:
    """Sums, products and extremes along axes."""
    if step.op == "cumsum":
        axis, reverse = step.params

        def running(x):
            # Each sum by itself: one order of additions is as good as another for the bound.
            return jax.lax.cumsum(x, axis=axis, reverse=reverse)

        size = a.size + np.log2(max(shape[axis], 1)) + 1
        ends = running(a.lo), running(a.hi), running(ia.largest(a))
        return ia.outward(*ends, shape[axis], size, a.positive)
    axes = step.params[0]
    count = int(np.prod([shape[i] for i in axes]))
    if step.op == "reduce_sum":
        return ia.total(a, axes, count)
    if step.op == "reduce_prod":
        order = [*axes, *(i for i in range(a.ndim) if i not in axes)]
        rest = tuple(a.lo.shape[i] for i in order[len(axes) :])
        rows = each(lambda x: x[0].transpose(order).reshape((count, *rest)), [a])
        found = ia.same(jnp.ones(rest), 0.0)
        for k in range(count):
            found = ia.mul(found, each(lambda x, k=k: x[0][k], [rows]))
        return found
    largest = jnp.max if step.op == "reduce_max" else jnp.min
    return a._replace(lo=largest(a.lo, axis=axes), hi=largest(a.hi, axis=axes))


def undefined(step, shapes, values: list[Range]):
    """Where a step may have no real value, one truth value a box; None if it always has one."""
    if step.op in UNDEFINED:
        bad, shape = UNDEFINED[step.op](values[0]), shapes[0]
    elif step.op == "div":
        bad, shape = ia.has_zero(values[1]), shapes[1]
    elif step.op == "integer_pow" and step.params[0] < 0:
        bad, shape = ia.has_zero(values[0]), shapes[0]
    else:
        return None
    return jnp.any(bad, axis=tuple(range(len(shape))))


def leaf(constants, inputs, step) -> Range | None:
    """The value of a step without inputs."""
    size = inputs[0].size if inputs else ia.INF
    if step.op == "input":
        return inputs[step.params[0]]
    if step.op == "constant":
        return ia.point(constants[step.params[0]], size)
    if step.op == "literal":
        return ia.same(np.float64(step.params[0]), 0.0)
    if step.op == "truth":
        return ia.same(np.full(step.shape, step.params[0]))
    if step.op == "truth_array":
        return ia.same(np.asarray(step.params[1], bool).reshape(step.params[0]))
    return None


def divisor_size(program: Program, step, values) -> float:
    """log2 of what bounds 1/b in a/b, if b is a constant that was checked; else inf."""
    if step.op != "div":
        return ia.INF
    k = step.inputs[1]
    while program.steps[k].op in MOVING and len(program.steps[k].inputs) == 1:
        k = program.steps[k].inputs[0]
    return values[1].size if program.steps[k].op == "constant" else ia.INF


def evaluate(program: Program, constants, inputs) -> tuple[list[Range], object]:
    """All steps of a program for inputs of shape (shape) or (shape, batch).

    If the sizes of the inputs are finite, the constants were checked to be as tame as they.
    Returns the outputs, and where the program may be undefined (a truth value a box).
    """
    known: list[Range] = []
    bad = False
    for step in program.steps:
        value = leaf(constants, inputs, step)
        if value is None:
            shapes = [program.steps[i].shape for i in step.inputs]
            values = [known[i] for i in step.inputs]
            here = undefined(step, shapes, values)
            bad = bad if here is None else bad | here
            value = read(step, shapes, values, divisor_size(program, step, values))
        known.append(value)
    return [known[k] for k in program.outputs], bad


def enclose(fn: Callable) -> Callable:
    """A function that encloses fn over boxes.

        enclose(fn)(lo, hi) ∋ fn(x)   for all lo <= x <= hi

    A function transformation like `jax.vmap`: the result composes with `jit`, `vmap` (many boxes)
    and `jvp`. Derivatives of V are functions too: enclose `lambda x: jax.jvp(V, (x,), (f(x),))[1]`.

    Args:
      fn: JAX function of one array or pytree of arrays, float64, made of the supported primitives:
        arithmetic, matrix products, tanh, logistic, sin, cos, tan, inverse and hyperbolic
        functions, exp, log, powers, roots, abs, min, max, clip, where, comparisons, reductions,
        cumsum, all that only moves entries, calls, and scans of fixed length.

    Returns:
      Function of (lo, hi), each like fn's argument, that returns fn's result with an `Interval` in
      place of each array. Unbounded where fn has no real value somewhere in the box.

    Raises:
      ValueError: when called: float32, lo and hi of different shapes, lo > hi or NaN.
      NotImplementedError: when called: a primitive without a rule, by its name.

    Reference:
      Moore, Kearfott & Cloud, Introduction to Interval Analysis. The paper uses dReal instead.

    Examples:
      >>> import jax, jax.numpy as jnp, lyapjax as ly
      >>> slope = ly.enclose(jax.grad(lambda x: jnp.sin(x[0]) * x[1]))
      >>> out = slope(jnp.array([0.0, 1.0]), jnp.array([0.1, 2.0]))
      >>> out.lo.round(3).tolist(), out.hi.round(3).tolist()
      ([0.995, -0.0], [2.0, 0.1])
    """

    def enclosed(lo, hi):
        flat, tree, upper = _checked(lo, hi)
        program = trace(lambda *args: fn(jax.tree.unflatten(tree, args)), *flat)
        inputs = [ia.box(a, b) for a, b in zip(flat, upper)]
        outputs, bad = evaluate(program, program.constants, inputs)
        results = []
        for value, k in zip(outputs, program.outputs):
            shape = program.steps[k].shape
            if value.lo.dtype == bool:
                lower, higher = jnp.asarray(value.lo & ~bad), jnp.asarray(value.hi | bad)
            else:
                lower = jnp.where(bad, -ia.INF, value.lo)
                higher = jnp.where(bad, ia.INF, value.hi)
            results.append(Interval(*(jnp.broadcast_to(v, shape) for v in (lower, higher))))
        return jax.tree.unflatten(program.tree, results)

    return enclosed


def _checked(lo, hi):
    """The leaves of lo and hi, if they are the ends of boxes."""
    flat, tree = jax.tree.flatten(lo)
    upper, other = jax.tree.flatten(hi)
    if tree != other:
        raise ValueError(f"hi: expected the structure of lo, {tree}, got {other}")
    found = []
    for a, b in zip(flat, upper):
        for name, value in (("lo", a), ("hi", b)):
            dtype = getattr(value, "dtype", np.dtype(float))
            if dtype != np.float64 or not jax.config.jax_enable_x64:
                raise ValueError(
                    f"{name}: expected float64, got {dtype}; proofs need float64: "
                    'jax.config.update("jax_enable_x64", True)'
                )
        if np.shape(a) != np.shape(b):
            raise ValueError(f"hi: expected the shape of lo, {np.shape(a)}, got {np.shape(b)}")
        concrete = not any(isinstance(v, jax.core.Tracer) for v in (a, b))
        if concrete and not np.all(np.asarray(a) <= np.asarray(b)):
            raise ValueError("lo: expected lo <= hi everywhere, and no NaN")
        found.append((jnp.asarray(a), jnp.asarray(b)))
    return [a for a, _ in found], tree, [b for _, b in found]
