"""Tighter enclosures: slopes over a box, and the mean value form.

Every step carries, beside its interval, intervals of its partial derivatives over the box (forward
differentiation in interval arithmetic; over a kink, of all difference quotients). With G the
enclosure of the gradient over the box X and c any point of X,

    f(x) ∈ f(c) + Σ_i G_i (x_i - c_i)        for all x in X,

which errs by O(width²) where the plain enclosure errs by O(width). c is Baumann's centre: the one
for which the upper bound of the first output is least; where f is monotone in x_i it is the end of
X_i at which f is largest, so that nothing is lost at all in that direction.

A derivative that is known to be 0 (x_2 does not depend on x_1) is None and costs nothing.
"""

import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.elementary import SLOPES
from lyapjax.readers.enclosure import (
    COMPARISONS,
    MOVING,
    divisor_size,
    dot,
    each,
    evaluate,
    leaf,
    lift,
    move,
    read,
    reduce,
    spread,
    undefined,
)
from lyapjax.readers.intervals import Range
from lyapjax.readers.program import Program

UNKNOWN = (-ia.INF, ia.INF)


def _known(g: Range | None, number: float) -> bool:
    """Whether a derivative is this number everywhere, as far as tracing can tell."""
    known = g is not None and g.is_point and isinstance(g.lo, (np.ndarray, np.floating, float))
    return known and bool(np.all(g.lo == number))


def scaled(factor: Range, g: Range | None, shape) -> Range | None:
    """factor g, elementwise, for arrays of one shape, batched or not."""
    if g is None:
        return None
    if _known(g, 1.0):
        return factor
    ndim = max(factor.ndim, g.ndim)
    return ia.mul(lift(factor, len(shape), ndim), lift(g, len(shape), ndim))


def plus(a: Range | None, b: Range | None, shape) -> Range | None:
    """a + b."""
    if a is None or b is None:
        return b if a is None else a
    ndim = max(a.ndim, b.ndim)
    return ia.add(lift(a, len(shape), ndim), lift(b, len(shape), ndim))


def _full(a: Range, shape) -> Range:
    """Literals have no shape of their own; give them that of the step."""
    return spread(a, shape) if a.ndim < len(shape) else a


def _opposite(g: Range | None) -> Range | None:
    return None if g is None else ia.neg(g)


def moved(step, shapes, parts):
    """The derivative of a step that only moves entries."""
    if all(g is None for g in parts):
        return None
    if step.op == "concatenate":
        zeros = [np.zeros(shape) for shape in shapes]
        parts = [ia.same(z, 0.0) if g is None else g for g, z in zip(parts, zeros)]
        batch = max((g.lo.shape[len(s) :] for g, s in zip(parts, shapes)), key=len)
        if batch:
            parts = [lift(g, len(s), len(s) + len(batch)) for g, s in zip(parts, shapes)]
            tails = [np.shape(g.lo)[len(s) :] for g, s in zip(parts, shapes)]
            batch = np.broadcast_shapes(*tails)
            parts = [spread(g, (*s, *batch)) for g, s in zip(parts, shapes)]
    found = each(lambda arrays: move(step, shapes, arrays), parts)
    return None if _known(found, 0.0) else found


def product(a, b, ga, gb, shape):
    """a gb + b ga."""
    if ga is None or gb is None:
        return scaled(a, gb, shape) if ga is None else scaled(b, ga, shape)
    ndim = max(v.ndim for v in (a, b, ga, gb))
    a, b, ga, gb = (lift(_full(v, shape), len(shape), ndim) for v in (a, b, ga, gb))
    return ia.sum_of_products([(a, gb), (b, ga)])


def larger(op, a, b, ga, gb, shape):
    """The slope of max or min: that of the one taken, or any between the two."""
    if ga is None and gb is None:
        return None
    zero = ia.same(np.zeros(shape), 0.0)
    ga, gb = ga or zero, gb or zero
    ndim = max(v.ndim for v in (a, b, ga, gb))
    a, b, ga, gb = (lift(_full(v, shape), len(shape), ndim) for v in (a, b, ga, gb))
    if op == "min":
        a, b = b, a  # a is taken where b is certainly not below it
    first, second = a.lo >= b.hi, b.lo >= a.hi
    both = ia.hull(ga, gb)
    ends = zip(ga[:2], gb[:2], both[:2])
    return Range(*(jnp.where(first, x, jnp.where(second, y, z)) for x, y, z in ends), both.size)


def chosen(which, ga, gb, shape):
    """The slope of select; across an unknown choice there may be a jump, so any."""
    zero = ia.same(np.zeros(shape), 0.0)
    ga, gb = ga or zero, gb or zero
    ndim = max(v.ndim for v in (which, ga, gb))
    which, ga, gb = (lift(_full(v, shape), len(shape), ndim) for v in (which, ga, gb))
    ends = zip(ga[:2], gb[:2], UNKNOWN)
    return Range(*(jnp.where(which.lo, y, jnp.where(which.hi, u, x)) for x, y, u in ends))


def extreme(step, shape, a: Range, g: Range | None) -> Range | None:
    """The slope of a maximum along axes: of any entry that may be the largest."""
    if g is None:
        return None
    if step.op == "reduce_min":
        a = ia.neg(a)
    axes = step.params[0]
    ndim = max(a.ndim, g.ndim)
    a, g = lift(a, len(shape), ndim), lift(g, len(shape), ndim)
    taken = a.hi >= jnp.max(a.lo, axis=axes, keepdims=True)
    lo = jnp.min(jnp.where(taken, g.lo, ia.INF), axis=axes)
    return Range(lo, jnp.max(jnp.where(taken, g.hi, -ia.INF), axis=axes), g.size)


def whole_product(step, shape, a: Range, g: Range | None) -> Range | None:
    """The slope of a product along axes, by Π_{j≠i}: taken apart entry by entry."""
    if g is None:
        return None
    axes, ndim = step.params[0], max(a.ndim, g.ndim)
    a, g = lift(a, len(shape), ndim), lift(g, len(shape), ndim)
    order = [*axes, *(i for i in range(ndim) if i not in axes)]
    count = int(np.prod([shape[i] for i in axes]))

    def row(v, k):
        rest = [np.shape(v.lo)[i] for i in order[len(axes) :]]
        return each(lambda x: x[0].transpose(order).reshape((count, *rest))[k], [v])

    value, slope = None, None
    for k in range(count):
        x, d = row(a, k), row(g, k)
        slope = d if value is None else product(value, x, slope, d, step.shape)
        value = x if value is None else ia.mul(value, x)
    return slope


def slope(step, shapes, values, value, grads):
    """The partial derivatives of a step from those of its inputs, None for 0."""
    op, shape = step.op, step.shape
    if op == "indicator":
        return _jump(values[0])
    if op == "select" and not isinstance(values[0].lo, np.ndarray):
        # The choice depends on x, even between constants.
        return chosen(values[0], grads[1], grads[2], shape)
    if all(g is None for g in grads) or op in COMPARISONS or op in ("and", "or", "not"):
        return None
    if op in MOVING:
        return moved(step, shapes, grads)
    if op in ("add", "sub"):
        last = grads[1] if op == "add" else _opposite(grads[1])
        return plus(*(g if g is None else _full(g, shape) for g in (grads[0], last)), shape)
    if op == "neg":
        return _opposite(grads[0])
    if op == "mul":
        return product(*values, *grads, shape)
    if op == "div":
        b = ia.reciprocal(_full(values[1], shape))
        carried = _opposite(scaled(value, grads[1], shape))
        return scaled(b, plus(grads[0], carried, shape), shape)
    if op == "dot":
        parts = [
            None if g is None else dot(step, shapes, *pair)
            for g, pair in zip(grads, ((grads[0], values[1]), (values[0], grads[1])))
        ]
        return plus(*parts, shape)
    if op in ("max", "min"):
        return larger(op, *values, *grads, shape)
    if op == "select":
        return chosen(values[0], grads[1], grads[2], shape)
    if op in ("reduce_sum", "cumsum"):
        return reduce(step, shapes[0], grads[0])
    if op in ("reduce_max", "reduce_min"):
        return extreme(step, shapes[0], values[0], grads[0])
    if op == "reduce_prod":
        return whole_product(step, shapes[0], values[0], grads[0])
    if op == "integer_pow":
        n = step.params[0]
        if n == 0:
            return None
        number = ia.same(np.float64(n), np.log2(abs(n)))
        factor = ia.mul(number, ia.integer_pow(values[0], n - 1))
        return scaled(factor, grads[0], shape)
    return scaled(SLOPES[op](values[0]), grads[0], shape)


def evaluate_slopes(program: Program, constants, x: Range):
    """All steps for one batched input (n, batch): outputs, their partial derivatives, undefined.

    The derivatives of a step are one range of its shape followed by (n, batch), all coordinates at
    once (either may be 1 where nothing changes along it), or None if they are known to be 0.
    """
    n = x.lo.shape[0]
    unit = ia.same(np.eye(n)[..., None], 0.0)
    known, grads, bad = [], [], False
    for step in program.steps:
        value, here = leaf(constants, [x], step), None
        if step.op == "input":
            here = unit
        elif value is None:
            shapes = [program.steps[i].shape for i in step.inputs]
            values = [known[i] for i in step.inputs]
            wrong = undefined(step, shapes, values)
            bad = bad if wrong is None else bad | wrong
            value = read(step, shapes, values, divisor_size(program, step, values))
            here = slope(step, shapes, values, value, [grads[k] for k in step.inputs])
        known.append(value)
        grads.append(here)
    outputs = program.outputs
    return [known[k] for k in outputs], [grads[k] for k in outputs], bad


def _jump(which: Range) -> Range | None:
    """The slope of a number that is 0 or 1: any, where it is not known which."""
    if isinstance(which.lo, np.ndarray):
        return None
    unknown = which.lo != which.hi
    return Range(jnp.where(unknown, -ia.INF, 0.0), jnp.where(unknown, ia.INF, 0.0))


def best_centre(lo, hi, slopes):
    """Baumann's centre for the upper bound: where the two ends of the mean value form agree.

    `slopes` holds the ends of the partial derivatives, (n, batch) each.
    """
    below, above = jnp.minimum(slopes[0], 0.0), jnp.maximum(slopes[1], 0.0)
    width = above - below
    good = (width > 0) & (width <= ia.MAX)
    weight = jnp.where(good, above / jnp.where(good, width, 1.0), 0.5)
    # Any point of the box will do; rounding must not leave it.
    return jnp.clip(lo + jnp.clip(weight, 0.0, 1.0) * (hi - lo), lo, hi)


def mean_value(value: Range, slopes: Range, centre, x: Range) -> Range:
    """f(c) + Σ_i G_i (X_i - c_i), intersected with nothing yet."""
    pairs = []
    for i in range(x.lo.shape[0]):
        step = ia.rounded(x.lo[i] - centre[i], x.hi[i] - centre[i], x.size + 1)
        pairs.append((slopes._replace(lo=slopes.lo[i], hi=slopes.hi[i]), step))
    return ia.sum_of_products(pairs, value)


def first_stage(program: Program, constants, x: Range):
    """Plain bounds (k, 2, batch) and slopes (k, 2, n, batch) of k outputs, and where undefined.

    The two stages are compiled apart: XLA would otherwise compute much of the first again inside
    the second, for each of its uses.
    """
    values, grads, bad = evaluate_slopes(program, constants, x)
    n, batch = x.lo.shape
    ends = jnp.stack([jnp.stack(spread(v, (batch,))[:2]) for v in values])
    zero = ia.same(np.zeros((n, batch)), 0.0)
    rows = [zero if g is None else spread(g, (n, batch)) for g in grads]
    slopes = jnp.stack([jnp.stack([jnp.asarray(v) for v in g[:2]]) for g in rows])
    return ends, slopes, jnp.broadcast_to(bad, (batch,))


def second_stage(program: Program, constants, x: Range, first, centre):
    """Bounds (k, 2, batch) of k outputs, plain or mean value form, whichever is tighter.

    Also the enclosures at the centres, of the same shape, and where the program may be undefined.
    """
    ends, slopes, bad = first
    middle, worse = evaluate(program, constants, [Range(centre, centre, x.size)])
    bad = bad | worse
    found, centres = [], []
    for (lo, hi), row, value in zip(ends, slopes, middle):
        value = spread(value, bad.shape)
        tight = mean_value(value, Range(*row), centre, x)
        lower, upper = jnp.maximum(lo, tight.lo), jnp.minimum(hi, tight.hi)
        found.append(jnp.stack([jnp.where(bad, -ia.INF, lower), jnp.where(bad, ia.INF, upper)]))
        centres.append(jnp.stack(value[:2]))
    return jnp.stack(found), jnp.stack(centres), bad
