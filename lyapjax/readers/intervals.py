"""Interval arithmetic on pairs of arrays, rounded outward by more than XLA's worst error.

An interval [lo, hi] holds every real value that an expression takes; each operation below maps
enclosures to an enclosure. Rounding modes cannot be switched inside XLA, so every computed end is
moved outward:

    down(z) = z - (|z| EPS + TINY),        up(z) = z + (|z| EPS + TINY)

with EPS = 2^-50, eight times the unit roundoff u, and TINY = 2^-1020. Why this is enough:

- XLA's +, -, *, / and sqrt err by at most u |z|, and by 2 u |z| where it divides by a constant by
  multiplying with the rounded inverse. It may fuse a product into the sum that follows, which
  replaces two roundings by one, and may compute z twice, once fused and once not: each of the two
  is within 2 u |z| of the exact value, and the last subtraction adds u |z|. 8 u covers all of it.
- Results below 2^-1022 are flushed to zero, and so are subnormal operands: an error of at most
  2^-1022 a time, a quarter of TINY. After `up` an upper end is never a positive subnormal number
  (it would be raised beyond 2^-1022), so what a flushed operand loses is on the safe side.
- Sums of n terms, in any order and association, err by at most n u Σ|terms|; the bound used is
  4 (n + 4) u Σ|terms|, with a TINY for each term.
- exp, log, tanh, sin, … are not correctly rounded. Their margins are in `FUNCTION_EPS`: at least
  eight times the largest error met on 2·10⁶ points in each of several ranges (7.7 u for tanh, 1.1 u
  for sin, 240 u for log1p, 500 u for sinh); the tests measure them again, in ball arithmetic.

Invariants, so that NaN never arises: lo is in [-inf, MAX], hi in [-MAX, inf]; an unbounded end is
an infinity; 0 times an unbounded end is 0, because what the interval holds are real numbers. Where
an operation has no real value, `undefined` says so, and the whole enclosure is given up.

A `Range` also carries what is known before any number is: a bound 2^size of its magnitude, and
whether it is never negative. Most quantities of a proof are known to stay far below the largest
float (tanh by 1, the rest by the size of boxes and weights), and then nothing can overflow and the
guards against infinities, half of the work, are left out.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

EPS = 2.0**-50
TINY = 2.0**-1020
MAX = float(np.finfo(np.float64).max)
INF = float("inf")
# Relative margins of the elementary functions, in place of EPS.
FUNCTION_EPS = {"log1p": 2.0**-42, "sinh": 2.0**-41, "cosh": 2.0**-41}
DEFAULT_FUNCTION_EPS = 2.0**-46
# A magnitude known to stay below 2^SAFE cannot overflow in one more operation.
SAFE = 900.0
# Boxes and constants that are zero or within 2^±TAME are read without guards (see `statements`).
TAME = 60.0
# Beyond this size the place of an argument within the period is not looked for.
MAX_ANGLE = 2.0**20


class Interval(NamedTuple):
    """All numbers between two arrays, entry by entry.

        [lo, hi] = { x : lo <= x <= hi }

    For truth values, lo is "certainly true" and hi "possibly true".

    Attributes:
      lo: lower ends, -inf where unbounded.
      hi: upper ends, inf where unbounded.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> wide = ly.enclose(lambda x: x * x - x)(jnp.zeros(1), jnp.ones(1))
      >>> bool(wide.lo[0] <= -0.25), bool(wide.hi[0] >= 0)
      (True, True)
    """

    lo: Array
    hi: Array


class Range(NamedTuple):
    """An interval on the way: with a bound 2^size of every |x|, and whether x >= 0 always.

    lo and hi are the same object where the number is known exactly.
    """

    lo: Array
    hi: Array
    size: float = INF
    positive: bool = False

    @property
    def is_point(self) -> bool:
        """Whether the ends are one array: a number known exactly."""
        return self.lo is self.hi

    @property
    def ndim(self) -> int:
        """Of the ends."""
        return np.ndim(self.lo)


def each(fn: Callable, values: list[Range]) -> Range:
    """fn of the lower and of the upper ends, which keeps a point a point."""
    lo = fn([v.lo for v in values])
    hi = lo if all(v.is_point for v in values) else fn([v.hi for v in values])
    return Range(lo, hi, max(v.size for v in values), all(v.positive for v in values))


def same(value, size: float = INF) -> Range:
    """A number known exactly."""
    positive = isinstance(value, (int, float, np.ndarray, np.floating)) and bool(np.all(value >= 0))
    return Range(value, value, size, positive)


def down(z, eps: float = EPS):
    """A lower bound of what z was computed for."""
    z = jnp.minimum(z, MAX)
    return z - (jnp.abs(z) * eps + TINY)


def up(z, eps: float = EPS):
    """An upper bound of what z was computed for."""
    z = jnp.maximum(z, -MAX)
    return z + (jnp.abs(z) * eps + TINY)


def rounded(lo, hi, size: float = INF, positive: bool = False, eps: float = EPS) -> Range:
    """The range of computed ends, moved outward."""
    if size <= SAFE:
        lo, hi = lo - (jnp.abs(lo) * eps + TINY), hi + (jnp.abs(hi) * eps + TINY)
    else:
        lo, hi = down(lo, eps), up(hi, eps)
    return Range(jnp.maximum(lo, 0.0) if positive else lo, hi, size, positive)


def point(value, size: float = INF) -> Range:
    """A finite number as a range; NaN, infinities and subnormal numbers are enclosed."""
    if isinstance(value, jax.core.Tracer):
        if size <= SAFE:  # checked before: zero, or of a tame size
            return Range(value, value, size)
        found = box(value, value)
        infinite = jnp.abs(value) == INF
        return Range(jnp.where(infinite, -INF, found.lo), jnp.where(infinite, INF, found.hi))
    value = np.asarray(value, np.float64)
    small = np.abs(value) < TINY
    tame = np.isfinite(value) & ~small | (value == 0)
    if np.all(tame):
        # A bound of the magnitude that does not depend on the number, for equal compiled code.
        return Range(value, value, size, bool(np.all(value >= 0)))
    lo = np.where(tame, value, np.where(small, -TINY, -INF))
    return Range(lo, np.where(tame, value, np.where(small, TINY, INF)))


def box(lo, hi, size: float = INF) -> Range:
    """The range between two given arrays; NaN and reversed ends become unbounded."""
    lo, hi = jnp.asarray(lo), jnp.asarray(hi)
    good = lo <= hi
    lower = jnp.where(good, jnp.where(jnp.abs(lo) < TINY, _below(lo), jnp.minimum(lo, MAX)), -INF)
    upper = jnp.where(good, jnp.where(jnp.abs(hi) < TINY, -_below(-hi), jnp.maximum(hi, -MAX)), INF)
    return Range(lower, upper, size)


def _below(value):
    """0 or -TINY, whichever is not above a number of less than TINY.

    Zero must stay zero: a box that starts at the equilibrium must not cross it. Comparisons take
    subnormal numbers for zero, and so does what the compiler makes of the plain test of the bits,
    `bits << 1 == 0`; signed comparisons of the bits it leaves alone.
    """
    bits = jax.lax.bitcast_convert_type(value, jnp.int64)
    return jnp.where((bits < 0) & (bits != jnp.iinfo(jnp.int64).min), -TINY, 0.0)


def hull(a: Range, b: Range) -> Range:
    """The smallest range that holds both."""
    size = max(a.size, b.size)
    positive = a.positive and b.positive
    return Range(jnp.minimum(a.lo, b.lo), jnp.maximum(a.hi, b.hi), size, positive)


def has_zero(a: Range):
    """Whether 0 is in the range."""
    return (a.lo <= 0) & (a.hi >= 0)


def add(a: Range, b: Range) -> Range:
    """a + b."""
    size = max(a.size, b.size) + 1
    return rounded(a.lo + b.lo, a.hi + b.hi, size, a.positive and b.positive)


def sub(a: Range, b: Range) -> Range:
    """a - b."""
    return rounded(a.lo - b.hi, a.hi - b.lo, max(a.size, b.size) + 1)


def neg(a: Range) -> Range:
    """-a, exact."""
    lo = -a.hi
    return Range(lo, lo if a.is_point else -a.lo, a.size)


def raw_mul(a: Range, b: Range) -> tuple:
    """The ends of a b before rounding outward."""
    tame = a.size + b.size <= SAFE

    def times(x, y):
        z = x * y
        # 0 times infinity is 0: what a range holds are real numbers.
        return z if tame else jnp.where(z != z, 0.0, z)

    if a.is_point and b.is_point:
        z = a.lo * b.lo
        return z, z
    if b.is_point:
        a, b = b, a
    if a.is_point:
        x, y = times(a.lo, b.lo), times(a.lo, b.hi)
        return (x, y) if a.positive else (jnp.minimum(x, y), jnp.maximum(x, y))
    if a.positive and b.positive:
        return times(a.lo, b.lo), times(a.hi, b.hi)
    if b.positive:
        a, b = b, a
    if a.positive:
        least = times(jnp.where(b.lo < 0, a.hi, a.lo), b.lo)
        return least, times(jnp.where(b.hi > 0, a.hi, a.lo), b.hi)
    ends = [times(x, y) for x in a[:2] for y in b[:2]]
    lo = jnp.minimum(jnp.minimum(ends[0], ends[1]), jnp.minimum(ends[2], ends[3]))
    return lo, jnp.maximum(jnp.maximum(ends[0], ends[1]), jnp.maximum(ends[2], ends[3]))


def mul(a: Range, b: Range) -> Range:
    """a b."""
    return rounded(*raw_mul(a, b), a.size + b.size, a.positive and b.positive)


def largest(a: Range):
    """The largest |x|."""
    return jnp.abs(a.hi) if a.is_point else jnp.maximum(jnp.abs(a.lo), jnp.abs(a.hi))


def sum_of_products(pairs: list[tuple[Range, Range]], extra: Range | None = None) -> Range:
    """Σ a_k b_k (+ a term), rounded outward once."""
    ends = [raw_mul(a, b) for a, b in pairs]
    size = max(a.size + b.size for a, b in pairs)
    positive = all(a.positive and b.positive for a, b in pairs)
    magnitude = [jnp.maximum(jnp.abs(lo), jnp.abs(hi)) for lo, hi in ends]
    for k, (a, b) in enumerate(pairs):
        if a.is_point != b.is_point:
            magnitude[k] = jnp.abs(a.lo) * largest(b) if a.is_point else largest(a) * jnp.abs(b.lo)
    if extra is not None:
        ends, magnitude = [*ends, extra[:2]], [*magnitude, largest(extra)]
        size, positive = max(size, extra.size), positive and extra.positive
    lo, hi, total = ends[0][0], ends[0][1], magnitude[0]
    for (below, above), more in zip(ends[1:], magnitude[1:]):
        lo, hi, total = lo + below, hi + above, total + more
    count = len(ends)
    return outward(lo, hi, total, count, size + np.log2(count) + 1, positive)


def magnitudes(a: Range) -> tuple:
    """The smallest and the largest |x| of a range."""
    low, high = jnp.abs(a.lo), jnp.abs(a.hi)
    if a.is_point:
        return low, low
    return jnp.where(has_zero(a), 0.0, jnp.minimum(low, high)), jnp.maximum(low, high)


def square(a: Range) -> Range:
    """a², where both factors are the same number."""
    least, most = magnitudes(a)
    return rounded(least * least, most * most, 2 * a.size, True)


def reciprocal(a: Range, size: float = INF) -> Range:
    """1/a; all numbers if a holds 0. `size` is known of constants that were checked."""
    pole = has_zero(a)
    lo, hi = jnp.where(pole, 1.0, a.lo), jnp.where(pole, 1.0, a.hi)
    found = rounded(1 / hi, 1 / lo, size, a.positive)
    return Range(jnp.where(pole, -INF, found.lo), jnp.where(pole, INF, found.hi), size)


def div(a: Range, b: Range, size: float = INF) -> Range:
    """a / b."""
    return mul(a, reciprocal(b, size))


def integer_pow(a: Range, n: int) -> Range:
    """aⁿ for an integer n, negative too."""
    if n == 0:
        return same(jnp.ones_like(a.lo), 0)
    if n == 1:
        return a
    if n < 0:
        return reciprocal(integer_pow(a, -n))
    # lax.integer_pow makes fewer than n products, each with its rounding.
    eps, size = EPS * n, a.size * n if a.size > 0 else a.size
    if n % 2:
        return rounded(_power(a.lo, n), _power(a.hi, n), size, a.positive, eps)
    least, most = magnitudes(a)
    return rounded(_power(least, n), _power(most, n), size, True, eps)


def _power(x, n: int):
    return jax.lax.integer_pow(jnp.asarray(x), n)


def maximum(a: Range, b: Range) -> Range:
    """max(a, b), exact."""
    lo, hi = jnp.maximum(a.lo, b.lo), jnp.maximum(a.hi, b.hi)
    return Range(lo, hi, max(a.size, b.size), a.positive or b.positive)


def minimum(a: Range, b: Range) -> Range:
    """min(a, b), exact."""
    lo, hi = jnp.minimum(a.lo, b.lo), jnp.minimum(a.hi, b.hi)
    return Range(lo, hi, max(a.size, b.size), a.positive and b.positive)


def absolute(a: Range) -> Range:
    """|a|, exact."""
    return Range(*magnitudes(a), a.size, True)


def sign(a: Range) -> Range:
    """-1, 0 or 1."""
    return Range(
        jnp.where(a.lo > 0, 1.0, jnp.where(a.lo < 0, -1.0, 0.0)),
        jnp.where(a.hi > 0, 1.0, jnp.where(a.hi < 0, -1.0, 0.0)),
        0.0,
        a.positive,
    )


def total(a: Range, axes: tuple[int, ...], count: int) -> Range:
    """The sum over some axes, `count` terms each."""
    lo, hi = jnp.sum(a.lo, axis=axes), jnp.sum(a.hi, axis=axes)
    size = a.size + np.log2(max(count, 1)) + 1
    return outward(lo, hi, jnp.sum(largest(a), axis=axes), count, size, a.positive)


def outward(lo, hi, magnitude, count: int, size: float = INF, positive: bool = False) -> Range:
    """Sums of `count` terms, with `magnitude` the sum of theirs, rounded outward."""
    error = magnitude * ((count + 4) * 2.0**-51) + count * TINY
    lo, hi = lo - error, hi + error
    if size > SAFE:
        # Where the magnitude is infinite the ends may be any number, also NaN.
        bounded = magnitude <= MAX
        lo, hi = jnp.where(bounded, lo, -INF), jnp.where(bounded, hi, INF)
    return Range(jnp.maximum(lo, 0.0) if positive else lo, hi, size, positive)
