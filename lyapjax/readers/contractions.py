"""Contractions, such as matrix products, in intervals: written out, or by midpoints and radii."""

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.intervals import Range, each

# Contractions up to this length are written out as products; longer ones use matrix products of
# midpoints and radii, which are wider (by at most 1/2 for two wide factors) but much faster.
MAX_UNROLLED = 8


def letters(step, shapes) -> tuple[str, str, str]:
    """The axes of both factors and of the result as letters of `einsum`; y and z are free."""
    lhs, rhs, lhs_batch, rhs_batch = step.params
    free = iter("abcdefghijklmnopqrstuvwx")
    first, second = ([next(free) for _ in shape] for shape in shapes)
    for i, j in [*zip(lhs, rhs), *zip(lhs_batch, rhs_batch)]:
        second[j] = first[i]
    out = [first[i] for i in lhs_batch]
    out += [s for i, s in enumerate(first) if i not in lhs + lhs_batch]
    out += [s for i, s in enumerate(second) if i not in rhs + rhs_batch]
    return "".join(first), "".join(second), "".join(out)


def factors(shapes, step, a: Range, b: Range):
    """The factors of a dot as ranges, one pair for each k, that multiply to the result's shape."""
    lhs, rhs, lhs_batch, rhs_batch = step.params
    most = max(v.ndim - len(s) for v, s in zip((a, b), shapes))
    pieces = []
    for value, shape, contracted, shared in (
        (a, shapes[0], lhs, lhs_batch),
        (b, shapes[1], rhs, rhs_batch),
    ):
        free = [i for i in range(len(shape)) if i not in contracted + shared]
        pieces.append((value, shape, contracted, shared, free))
    num_free = [len(piece[-1]) for piece in pieces]
    rows = []
    for place, (value, shape, contracted, shared, free) in enumerate(pieces):
        rest = np.shape(value.lo)[len(shape) :]
        order = [*contracted, *shared, *free, *range(len(shape), len(shape) + len(rest))]
        count = int(np.prod([shape[i] for i in contracted]))
        ones = [1] * num_free[1 - place]
        outer = [shape[i] for i in free]
        outer = [*outer, *ones] if place == 0 else [*ones, *outer]
        tail = [1] * (most - len(rest)) + [*rest]
        sizes = [count, *(shape[i] for i in shared), *outer, *tail]
        rows.append(each(lambda x, o=order, s=sizes: x[0].transpose(o).reshape(s), [value]))
    for k in range(count):
        yield tuple(each(lambda x, k=k: x[0][k], [row]) for row in rows)


def dot(step, shapes, a: Range, b: Range) -> Range:
    """Σ_k a_k b_k: products written out, or midpoints and radii with matrix products."""
    count = int(np.prod([shapes[0][i] for i in step.params[0]]))
    if count > MAX_UNROLLED:
        return long_dot(step, shapes, a, b, count)
    if count == 0:
        return ia.same(np.zeros(step.shape), 0.0)
    return ia.sum_of_products(list(factors(shapes, step, a, b)))


def long_dot(step, shapes, a: Range, b: Range, count: int) -> Range:
    """A long contraction: |a b - A B| <= |A| s + r (|B| + s), A, B midpoints and r, s radii.

    An unbounded entry has the midpoint NaN, which no product forgets; it becomes the whole line.
    """
    first, second, out = letters(step, shapes)
    # The batch is z; y, the coordinate of a derivative, comes before it.
    last = ["yz"[2 - (v.ndim - len(s)) :] for v, s in zip((a, b), shapes)]
    form = f"{first}{last[0]},{second}{last[1]}->{out}{max(last, key=len)}"

    def product(p, q):
        return jnp.einsum(form, p, q, precision=jax.lax.Precision.HIGHEST)

    def middle(v: Range):
        bounded = (v.lo >= -ia.MAX) & (v.hi <= ia.MAX)
        if v.is_point:
            return jnp.where(bounded, v.lo, jnp.nan), None
        m = 0.5 * v.lo + 0.5 * v.hi
        m = jnp.where(bounded, m, jnp.nan)
        return m, ia.up(jnp.maximum(v.hi - m, m - v.lo))

    (A, r), (B, s) = middle(a), middle(b)
    gamma = (count + 8) * 2.0**-51
    reach = gamma * jnp.abs(B) if s is None else s + gamma * jnp.abs(B)
    error = product(jnp.abs(A), reach)
    if r is not None:
        error = error + product(r, jnp.abs(B) if s is None else jnp.abs(B) + s)
    # The error's own rounding, and flushed terms.
    error = error * (1 + 4 * gamma) + 8 * (count + 1) * ia.TINY
    centre = product(A, B)
    lo, hi = ia.down(centre - error), ia.up(centre + error)
    good = error <= ia.MAX / 4
    size = a.size + b.size + np.log2(count) + 2
    return Range(jnp.where(good, lo, -ia.INF), jnp.where(good, hi, ia.INF), size)
