"""Linear bounds of a program over boxes: every step between two parallel planes (see `linear`).

Not of programs that jump or choose (`program.JUMPS`): the planes of a choice are those of one side
or the other, and rounding could make c choose one and r the other.

XLA fuses a step into each of its uses and computes it again there, and where a fusion ends in a
concatenation it computes one number after another. `apart` keeps elementary functions and
concatenations out of that, and half of the time is left (the bounds for `verify_shell` of six units
take 4,900 operations a box instead of 6,700, those of three layers of twenty 42,000 instead of
58,000).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import linear as ln
from lyapjax.readers.contractions import MAX_UNROLLED, letters
from lyapjax.readers.elementary import SLOPES, VALUES
from lyapjax.readers.enclosure import (
    MOVING,
    move,
    undefined,
)
from lyapjax.readers.intervals import INF, TINY
from lyapjax.readers.linear import Linear
from lyapjax.readers.program import Program

# Steps that are computed once, on their own.
APART = {"concatenate", "div", "tanh", "sech2", "sin", "cos", "exp", *VALUES}


def apart(fn, sure, *values):
    """fn(*values), fused with nothing before or after it: it is a branch of its own.

    `sure` is a condition that holds but that XLA cannot know of; else the result would be NaN.
    """
    if not isinstance(sure, jax.core.Tracer):
        return fn(*values)
    values = jax.tree.map(jnp.asarray, values)
    result = jax.eval_shape(fn, *values)

    def unknown(*_):
        return jax.tree.map(lambda v: jnp.full(v.shape, jnp.nan, v.dtype), result)

    return jax.lax.cond(sure, fn, unknown, *values)


def box(lo, hi) -> Linear:
    """The input: the coordinates of the boxes (n, batch)."""
    c = 0.5 * lo + 0.5 * hi
    half = jnp.maximum(hi - c, c - lo) * (1 + ln.EPS) + ln.FLUSHED
    good = (lo <= hi) & jnp.isfinite(half)
    half = jnp.where(good, half, INF)
    a = jnp.eye(lo.shape[0])[..., None] * jnp.where(good, half, 0.0)[:, None]
    return Linear(jnp.where(good, c, 0.0), a, ln.EPS * half + ln.FLUSHED)


def constant(value) -> Linear:
    """An array of numbers; NaN and infinities are unbounded, subnormal ones are flushed."""
    value = jnp.asarray(value, float)[..., None]
    return Linear(value, None, jnp.where(jnp.abs(value) < INF, ln.FLUSHED, jnp.nan))


def literal(value: float) -> Linear:
    """A number that the code has; only a subnormal one may be flushed."""
    return Linear(np.full(1, value), None, np.full(1, ln.FLUSHED * (0 < abs(value) < ln.FLUSHED)))


def _moved(step, shapes, values: list[Linear]) -> Linear:
    if step.op == "concatenate":
        batch = max(v.c.shape[-1] for v in values)
        n = max((v.a.shape[-2] for v in values if v.a is not None), default=None)
        values = [_full(v, s, batch, n) for v, s in zip(values, shapes)]
    else:
        values = [_full(v, s, v.c.shape[-1], None) for v, s in zip(values, shapes)]
    c, r = (move(step, shapes, [v[k] for v in values]) for k in (0, 2))
    a = None if values[0].a is None else move(step, shapes, [v.a for v in values])
    return Linear(c, a, r)


def _full(v: Linear, shape, batch: int, n: int | None) -> Linear:
    """With every array at its full shape; literals have none of their own."""
    c, r = (jnp.broadcast_to(x, (*shape, batch)) for x in (v.c, v.r))
    if v.a is None:
        return Linear(c, None if n is None else jnp.zeros((*shape, n, batch)), r)
    return Linear(c, jnp.broadcast_to(v.a, (*shape, *v.a.shape[-2:-1], v.a.shape[-1])), r)


def _factors(step, shapes, values):
    """Pairs of ranges to multiply, one for each k, shaped like the result; see `enclosure`."""
    lhs, rhs, lhs_batch, rhs_batch = step.params
    free = [
        [i for i in range(len(s)) if i not in c + b]
        for s, c, b in zip(shapes, (lhs, rhs), (lhs_batch, rhs_batch))
    ]
    count = int(np.prod([shapes[0][i] for i in lhs]))

    def rows(x, place, tail):
        shape, contracted = shapes[place], (lhs, rhs)[place]
        shared = (lhs_batch, rhs_batch)[place]
        order = [*contracted, *shared, *free[place], *range(len(shape), len(shape) + tail)]
        outer, ones = [shape[i] for i in free[place]], [1] * len(free[1 - place])
        outer = [*outer, *ones] if place == 0 else [*ones, *outer]
        sizes = [count, *(shape[i] for i in shared), *outer, *x.shape[len(shape) :]]
        return x.transpose(order).reshape(sizes)

    parts = []
    for place, v in enumerate(values):
        v = _full(v, shapes[place], v.c.shape[-1], None)
        a = None if v.a is None else rows(v.a, place, 2)
        parts.append((rows(v.c, place, 1), a, rows(v.r, place, 1)))
    return [
        tuple(Linear(c[k], None if a is None else a[k], r[k]) for c, a, r in parts)
        for k in range(count)
    ]


def _dot(step, shapes, values) -> Linear:
    count = int(np.prod([shapes[0][i] for i in step.params[0]]))
    if count == 0:
        return ln.point(np.zeros((*step.shape, 1)))
    if count <= MAX_UNROLLED and not any(v.c.shape[-1] == 1 for v in values):
        return ln.sum_of_products(_factors(step, shapes, values))
    return _long_dot(step, shapes, values, count)


def _long_dot(step, shapes, values, count: int) -> Linear:
    """A long contraction by matrix products; second order by |l_1||l_2| at once."""
    first, second, out = letters(step, shapes)

    def product(p, q, tails=("", "")):
        """Of arrays with these axes at the end; those of length 1 are left out."""
        ends = []
        arrays = []
        for x, tail in zip((p, q), tails):
            if x.shape[-1] == 1:
                x, tail = x[..., 0], tail.replace("z", "")
            ends.append(tail)
            arrays.append(x)
        last = max(ends, key=len)
        form = f"{first}{ends[0]},{second}{ends[1]}->{out}{last}"
        found = jnp.einsum(form, *arrays, precision=jax.lax.Precision.HIGHEST)
        return found if last.endswith("z") else found[..., None]

    x, y = (_full(v, s, v.c.shape[-1], None) for v, s in zip(values, shapes))
    h, g = x.reach, y.reach
    big, wide = jnp.abs(x.c), jnp.abs(y.c)
    c, a = product(x.c, y.c, ("z", "z")), None
    if y.a is not None:
        a = product(x.c, y.a, ("z", "yz"))
    if x.a is not None:
        a = ln.plus(a, product(x.a, y.c, ("yz", "z")))
    gamma = (count + 8) * ln.EPS
    # TINY, as gamma times a small number is flushed before it meets a large one.
    r = product(big + 6 * h, y.r + gamma * (wide + g) + TINY, ("z", "z"))
    r = r + product(x.r, wide + 6 * g, ("z", "z"))
    if x.a is not None and y.a is not None:
        r = r + product(x.spread, y.spread, ("z", "z"))
    return Linear(c, a, r * (1 + gamma) + count * ln.FLUSHED)


def _total(x: Linear, axes, count: int) -> Linear:
    axes = tuple(axes)
    a = None if x.a is None else jnp.sum(x.a, axis=axes)
    size = jnp.sum(jnp.abs(x.c) + x.reach, axis=axes)
    r = jnp.sum(x.r, axis=axes) + (count + 4) * ln.rounding(size)
    return Linear(jnp.sum(x.c, axis=axes), a, r)


def _reduced(step, shape, x: Linear) -> Linear:
    """Sums, products and extremes along axes."""
    x = _full(x, shape, x.c.shape[-1], None)
    if step.op == "cumsum":
        axis, reverse = step.params
        run = lambda v: jax.lax.cumsum(v, axis=axis, reverse=reverse)  # noqa: E731
        size = run(jnp.abs(x.c) + x.reach)
        r = run(x.r) + (shape[axis] + 4) * ln.rounding(size)
        return Linear(run(x.c), None if x.a is None else run(x.a), r)
    axes = step.params[0]
    count = int(np.prod([shape[i] for i in axes]))
    if step.op == "reduce_sum":
        return _total(x, axes, count)
    join = {"reduce_prod": ln.mul, "reduce_max": ln.maximum, "reduce_min": ln.minimum}[step.op]
    rest = [i for i in range(len(shape)) if i not in axes]

    def row(v, k):
        order = [*axes, *rest, *range(len(shape), v.ndim)]
        return v.transpose(order).reshape((count, *(v.shape[i] for i in order[len(axes) :])))[k]

    rows = [Linear(*(None if v is None else row(v, k) for v in x)) for k in range(count)]
    found = rows[0]
    for other in rows[1:]:
        found = join(found, other)
    return found


def read(step, shapes, values) -> Linear:
    """The planes of one step from those of its inputs."""
    op = step.op
    if op in MOVING:
        return _moved(step, shapes, values)
    if op == "dot":
        return _dot(step, shapes, values)
    if op.startswith("reduce_") or op == "cumsum":
        return _reduced(step, shapes[0], values[0])
    if op in ln.BINARY:
        return ln.BINARY[op](*values)
    if op == "div":
        return ln.mul(values[0], ln.reciprocal(values[1]))
    if op == "integer_pow":
        return ln.integer_pow(values[0], step.params[0])
    if op in ln.UNARY:
        return ln.UNARY[op](values[0])
    if op in VALUES:
        return ln.generic(values[0], VALUES[op], SLOPES[op])
    raise NotImplementedError(f"fn: no linear bounds of the operation {op!r}")


def evaluate_planes(program: Program, constants, lo, hi) -> tuple[list[Linear], object]:
    """The outputs over boxes (n, batch), and where the program may be undefined."""
    known, bad = [], False
    sure = lo[0, 0] <= hi[0, 0]
    for step in program.steps:
        shapes = [program.steps[i].shape for i in step.inputs]
        values = [known[i] for i in step.inputs]
        if step.op == "input":
            found = box(lo, hi)
        elif step.op == "constant":
            found = constant(constants[step.params[0]])
        elif step.op == "literal":
            found = literal(step.params[0])
        else:
            here = undefined(step, shapes, [v.ends for v in values])
            bad = bad if here is None else bad | here
            if step.op in APART and any(v.a is not None for v in values):
                found = apart(lambda *v, s=step, n=shapes: read(s, n, list(v)), sure, *values)
            else:
                found = read(step, shapes, values)
        known.append(found)
    return [known[k] for k in program.outputs], bad


def planes(program: Program, constants, lo, hi):
    """c (k, batch), a (k, n, batch) and r (k, batch) of k scalar outputs; r is inf if unknown."""
    (n, batch), sure = lo.shape, lo[0, 0] <= hi[0, 0]
    outputs, bad = evaluate_planes(program, constants, lo, hi)
    flat = np.zeros((n, 1))
    rows = [
        [
            jnp.broadcast_to(v.c, (batch,)),
            jnp.broadcast_to(flat if v.a is None else v.a, (n, batch)),
            jnp.broadcast_to(v.r, (batch,)),
        ]
        for v in outputs
    ]
    c, a, r = apart(lambda *rows: [jnp.stack(column) for column in zip(*rows)], sure, *rows)
    known = jnp.isfinite(c) & jnp.isfinite(r) & jnp.all(jnp.isfinite(a), axis=1) & ~bad
    a = jnp.where(known[:, None], a, 0.0)
    return jnp.where(known, c, 0.0), a, jnp.where(known, r, INF)
