"""The value of a step in affine arithmetic: NumPy, on many boxes along the last axis."""

import numpy as np

from lyapjax.readers import affine as aa
from lyapjax.readers.affine import Affine
from lyapjax.readers.enclosure import MOVING, move


def _move(step, shapes, arrays) -> np.ndarray:
    """A step that only moves entries, on arrays with the axis of the boxes at the end."""
    batch = max(v.shape[-1] for v in arrays)
    return move(step, shapes, [np.broadcast_to(v, (*s, batch)) for v, s in zip(arrays, shapes)])


def moved(step, shapes, parts: list[Affine]) -> Affine:
    """A step that only moves entries, of affine forms."""
    c, r = (_move(step, shapes, list(arrays)) for arrays in zip(*((p.c, p.r) for p in parts)))
    count = max(0 if p.a is None else len(p.a) for p in parts)
    if not count:
        return Affine(c, None, r)
    blank = [np.zeros((*shape, 1)) for shape in shapes]
    rows = [
        _move(step, shapes, [z if p.a is None else p.a[k] for p, z in zip(parts, blank)])
        for k in range(count)
    ]
    return Affine(c, np.stack(rows), r)


def dot(step, shapes, x: Affine, y: Affine) -> Affine:
    """A contraction, as a sum of products."""
    lhs, rhs, lhs_batch, rhs_batch = step.params
    if lhs_batch or rhs_batch:
        raise NotImplementedError("fn: no secants of products with batch dimensions")

    def rows(value, shape, contracted, place):
        free = [i for i in range(len(shape)) if i not in contracted]
        sizes = [int(np.prod([shape[i] for i in some])) for some in (free, contracted)]
        sizes.insert(1 - place, 1)

        def turn(v):
            v = np.broadcast_to(v, (*shape, v.shape[-1])).transpose(
                [*free, *contracted, len(shape)]
            )
            return v.reshape(*sizes, v.shape[-1])

        some = value.a is not None and len(value.a) > 0
        a = np.stack([turn(v) for v in value.a]) if some else None
        return Affine(turn(value.c), a, turn(value.r))

    found = aa.mul(rows(x, shapes[0], lhs, 0), rows(y, shapes[1], rhs, 1))
    found = aa.total(found, (2,))
    shape = (*step.shape, found.c.shape[-1])
    a = None if found.a is None else found.a.reshape((len(found.a), *step.shape, -1))
    return Affine(found.c.reshape(shape), a, found.r.reshape(shape))


def beside(rows: list[Affine]) -> Affine:
    """Vectors (n, B) as the columns of a matrix (n, m, B)."""
    batch = max(v.c.shape[-1] for v in rows)
    count = max(0 if v.a is None else len(v.a) for v in rows)
    n = max(v.c.shape[0] for v in rows)

    def joined(parts):
        return np.stack([np.broadcast_to(v, (*v.shape[:-2], n, batch)) for v in parts], axis=-2)

    blank = np.zeros((count, n, 1))
    a = joined([blank if v.a is None else v.a for v in rows]) if count else None
    return Affine(joined([v.c for v in rows]), a, joined([v.r for v in rows]))


def total(step, shapes, a: Affine) -> Affine:
    """reduce_sum."""
    c, r = (np.broadcast_to(v, (*shapes[0], v.shape[-1])) for v in (a.c, a.r))
    rest = None if a.a is None else np.broadcast_to(a.a, (len(a.a), *shapes[0], a.a.shape[-1]))
    return aa.total(Affine(c, rest, r), tuple(step.params[0]))


def value_of(step, shapes, values: list[Affine]) -> Affine:
    """The pair of one step."""
    if step.op in MOVING:
        return moved(step, shapes, values)
    if step.op in aa.BINARY:
        return aa.BINARY[step.op](*values)
    if step.op in aa.UNARY:
        return aa.UNARY[step.op](values[0])
    if step.op == "div":
        return aa.mul(values[0], aa.reciprocal(values[1]))
    if step.op == "dot":
        return dot(step, shapes, *values)
    if step.op == "solve":
        found = aa.solve(values[0], beside([values[1]]))
        return Affine(found.c[:, 0], None if found.a is None else found.a[:, :, 0], found.r[:, 0])
    if step.op == "integer_pow":
        return aa.integer_pow(values[0], step.params[0])
    if step.op == "reduce_sum":
        return total(step, shapes, values[0])
    raise NotImplementedError(f"fn: no secants of the operation {step.op!r}")
