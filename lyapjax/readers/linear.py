"""Linear bounds in XLA: two parallel planes over a box, between which a quantity lies.

    a(ε) ∈ c + Σ_k a_k ε_k + [-r, r]        for all ε ∈ [-1, 1]^n

with ε_k the place within the box along its k-th coordinate: the linear relaxations of CROWN and
auto_LiRPA, carried forwards, with one slope for both sides. What is of second order goes into r,
after as much of it as has a known sign has been moved into c: (Σ a_k ε_k)² lies between 0 and its
largest value, and φ(c + δ) = φ(c) + φ'(c) δ + φ''(c) δ²/2 + …, where δ² does too.

Shapes: c and r are a step's shape followed by the axis of the boxes (length 1 for what does not
depend on them), a has the axis of the coordinates before that one; None for a quantity without.

**Rounding.** XLA errs by at most 2 u of each operation's result (see `intervals`), and it may
compute a number several times with different errors. So the claim above is made for *any versions*
of c, a and r together: then two versions of c, or of Σ a_k ε_k, are at most 2 r apart. r grows at
each step by EPS = 2^-48 = 32 u of the magnitudes that enter, for the step's own roundings (at most
ten), by 2^-44 for elementary functions (whose margins in `intervals` are 2^-46), and by what it
costs if a derivative is taken at another version of c than the value: multiples of |φ''| r h, of
third order. Nothing is chosen by comparing numbers, as c could be of one choice and r of another.
What overflows or has no real value makes r infinite or NaN, of which nothing is concluded;
functions with bounded values forget such an r, but then a step before it was `undefined`, or has a
real value after all.

**Small numbers.** A result below μ = 2^-1022 is flushed to zero, and so is a subnormal number that
comes from outside: an error of at most μ a time, whatever the inputs are. Each step adds
FLUSHED = 2^32 μ to r, a sum of products one for each product. That covers what is lost in c, in a
and in r themselves: for n coordinates, in fewer than 4 n² + 8 n + 32 operations a product. What is
lost *before* a product with a number of any size is another matter. It is covered by a term with
that factor: FUNCTION_EPS in the curves (for `exp` and `reciprocal` see there), `rounding` of what a
kink shares out, the r of a slope in `generic`, TINY in long contractions. So numbers need no lower
limit: the claim holds for weights of 1e-19, and of 5e-324.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers.intervals import INF, Range

EPS = 2.0**-48
FUNCTION_EPS = 2.0**-44
FLUSHED = 2.0**-990
LEAST = 2.0**-970  # FUNCTION_EPS of it is 2^8 μ


class Linear(NamedTuple):
    """c + Σ a_k ε_k ± r."""

    c: jax.Array
    a: jax.Array | None
    r: jax.Array

    @property
    def spread(self):
        """Σ|a_k|."""
        if self.a is None:
            return 0.0
        return _over(jnp.abs(self.a))

    @property
    def reach(self):
        """h: how far from c it gets."""
        return (self.spread + self.r) * (1 + EPS)

    @property
    def ends(self) -> Range:
        """A lower and an upper bound, infinite if there is none."""
        h = self.reach + EPS * jnp.abs(self.c) + FLUSHED
        lo, hi = self.c - h, self.c + h
        return Range(jnp.where(lo > -INF, lo, -INF), jnp.where(hi < INF, hi, INF))


def _over(a):
    """The sum over the coordinates, written out so that it is fused."""
    total = a[..., 0, :]
    for k in range(1, a.shape[-2]):
        total = total + a[..., k, :]
    return total


def point(value) -> Linear:
    """Numbers known exactly, of a step's shape and one axis more."""
    return Linear(value, None, np.zeros(1))


def between(a: Range) -> Linear:
    """An interval, without dependence on the box."""
    c = 0.5 * a.lo + 0.5 * a.hi
    good = jnp.isfinite(a.lo) & jnp.isfinite(a.hi)
    r = jnp.maximum(a.hi - c, c - a.lo) * (1 + EPS) + rounding(jnp.abs(c))
    return Linear(jnp.where(good, c, 0.0), None, jnp.where(good, r, INF))


def scale(x, a):
    """x a, for a factor per entry and coefficients per entry and coordinate."""
    return None if a is None else x[..., None, :] * a


def plus(a, b):
    """The sum of coefficients, either of which may be none."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def rounding(size):
    """What a step on magnitudes of this sum may lose."""
    return EPS * size + FLUSHED


def neg(x: Linear) -> Linear:
    """-x, exact."""
    return Linear(-x.c, None if x.a is None else -x.a, x.r)


def add(x: Linear, y: Linear) -> Linear:
    """x + y."""
    c, a = x.c + y.c, plus(x.a, y.a)
    # Of the results alone: other versions of the inputs are within their r.
    size = jnp.abs(c) + (0.0 if a is None else _over(jnp.abs(a)))
    return Linear(c, a, (x.r + y.r) * (1 + EPS) + rounding(size))


def sub(x: Linear, y: Linear) -> Linear:
    """x - y."""
    return add(x, neg(y))


def mul(x: Linear, y: Linear) -> Linear:
    """x y."""
    return sum_of_products([(x, y)])


def sum_of_products(pairs: list[tuple[Linear, Linear]]) -> Linear:
    """Σ_k x_k y_k; terms of second order are collected before their size is taken."""
    c, a, second, r = 0.0, None, None, 0.0
    for x, y in pairs:
        h, g = x.reach, y.reach
        c = c + x.c * y.c
        a = plus(a, plus(scale(x.c, y.a), scale(y.c, x.a)))
        big, wide = jnp.abs(x.c), jnp.abs(y.c)
        # The terms of third order: once for themselves, the rest for other versions of c and a.
        r = r + y.r * (big + 6 * h) + x.r * (wide + 6 * g) + rounding((big + h) * (wide + g))
        if x.a is not None and y.a is not None:
            here = outer(x.a, y.a)
            second = here if second is None else [p + q for p, q in zip(second, here)]
    if second is not None:
        n = next(x.a.shape[-2] for x, y in pairs if x.a is not None and y.a is not None)
        shift, half = 0.0, 0.0
        for q in second[:n]:  # those of ε_k², which is between 0 and 1
            shift, half = shift + 0.5 * q, half + 0.5 * jnp.abs(q)
        for q in second[n:]:
            half = half + jnp.abs(q)
        c, r = c + shift, r + half * (1 + EPS)
    return Linear(c, a, r * (1 + EPS))


def outer(a, b) -> list:
    """The coefficients of (Σ a_k ε_k)(Σ b_k ε_k): of each ε_k², then of each ε_j ε_k."""
    n = max(a.shape[-2], b.shape[-2])
    rows = [[v[..., min(k, v.shape[-2] - 1), :] for k in range(n)] for v in (a, b)]
    found = [p * q for p, q in zip(*rows)]
    for j in range(n):
        for k in range(j):
            found.append(rows[0][j] * rows[1][k] + rows[0][k] * rows[1][j])
    return found


def square(x: Linear) -> Linear:
    """x²: the square of what varies lies in [0, h²]."""
    h = x.reach
    half, size = 0.5 * h * h, jnp.abs(x.c)
    r = 2 * size * x.r + half + 8 * x.r * h + rounding((size + h) ** 2)
    return Linear(x.c * x.c + half, scale(2 * x.c, x.a), r)


def curve(x: Linear, value, first, second, turn, error) -> Linear:
    """φ(x) by Taylor's theorem, from φ, φ', φ'' at c and a bound of the third derivative.

    `error` bounds what the three are wrong by, times 1, h and h²; `turn` holds over the reach.
    """
    h = x.reach
    bent = 0.25 * second * h * h
    # For derivatives taken at another version of c, and for another h in one of two `bent`.
    mixed = (4 * jnp.abs(second) + 6 * turn * h) * x.r * h
    rest = jnp.abs(bent) + turn * (h * h * h) / 6
    r = (jnp.abs(first) * x.r + rest + mixed) * (1 + EPS) + error + FLUSHED
    return Linear(value + bent, scale(first, x.a), r)


def bounded_curve(x: Linear, value, first, second, turn, least: float, most: float) -> Linear:
    """`curve` for |φ|, |φ'|, |φ''| <= 2; over a wide reach all that is said is least <= φ <= most.

    In between a mean of the two, with a weight that is continuous: a choice could turn out one way
    for c and another way for r.
    """
    h, half = x.reach, 0.5 * (most - least)
    found = curve(x, value, first, second, turn, FUNCTION_EPS * (1 + h * (2 + h)))
    weight = jnp.clip(2.0 - h / half, 0.0, 1.0)
    weight = jnp.where(weight > 0, weight, 0.0)  # also where h is NaN
    # Two versions of h are within 2 r of each other.
    near = jnp.where(h + 2 * x.r > half, 20.0 * x.r, 0.0)
    r = jnp.where(weight > 0, weight * found.r + near, 0.0) + (1.0 - weight) * half
    c = value + weight * (found.c - value) + (1.0 - weight) * (0.5 * (most + least) - value)
    return Linear(c, scale(weight, found.a), r * (1 + EPS) + FUNCTION_EPS)


def _hyperbolic(x: Linear):
    """tanh and sech² at c, and a bound of sech² between x and any version of c.

    (log sech²)' = -2 tanh, so within k it grows by at most e^(2k), and for k <= 2 that is at most
    1 + 2k + 2k² + 5.21 k³: the rest of the series, divided by k³, grows with k, and is 5.2 at 2.
    """
    t, k = jnp.tanh(x.c), x.reach + 2 * x.r
    s = (1 - t) * (1 + t)
    most = (s + FUNCTION_EPS) * (1 + k * (2 + k * (2 + 5.21 * k)))
    return t, s, jnp.where(k <= 2.0, most, 2.0)


def tanh(x: Linear) -> Linear:
    """tanh; its third derivative, (6 tanh² - 2) sech², is at most 2, and at most 4 sech²."""
    t, s, most = _hyperbolic(x)
    return bounded_curve(x, t, s, -2 * t * s, jnp.minimum(4 * most, 2.0), -1.0, 1.0)


def sech2(x: Linear) -> Linear:
    """1 - tanh²; its third, 8 tanh (2 - 3 tanh²) sech², is at most 4.1, and at most 8 sech²."""
    t, s, most = _hyperbolic(x)
    turn = jnp.minimum(8 * most, 4.1)
    return bounded_curve(x, s, -2 * t * s, (6 * t * t - 2) * s, turn, 0.0, 1.0)


def sin(x: Linear) -> Linear:
    """The sine."""
    s, c = jnp.sin(x.c), jnp.cos(x.c)
    return bounded_curve(x, s, c, -s, 1.0, -1.0, 1.0)


def cos(x: Linear) -> Linear:
    """The cosine."""
    s, c = jnp.sin(x.c), jnp.cos(x.c)
    return bounded_curve(x, c, -s, -c, 1.0, -1.0, 1.0)


def exp(x: Linear) -> Linear:
    """The exponential function.

    `most` bounds it between x and any version of c, and is at least LEAST: FUNCTION_EPS of it
    covers a value that was flushed, and what was flushed before a product with h² or `most`.
    """
    h = x.reach
    value, far = jnp.exp(x.c), h + 2 * x.r
    most = jnp.exp(x.c + far + EPS * (jnp.abs(x.c) + far)) * (1 + 4 * FUNCTION_EPS) + LEAST
    return curve(x, value, value, value, most, FUNCTION_EPS * most * (1 + h * (2 + h)))


def reciprocal(x: Linear) -> Linear:
    """1/x = 1/c - δ/c² + δ²/c³ - δ³/(c³ x), δ = x - c; unbounded where the planes let x be 0.

    In ratios to c, as the powers of 1/c may be too small for a float. `far` bounds 1/|x| between x
    and any version of c, and is at least LEAST: FUNCTION_EPS of it covers a value that was flushed,
    and a ratio that was before a product with 1/c. Two versions of 1/c² are at most 4 r far³ apart,
    two of h²/c³ at most 4 r h far³ + 6 r h² far⁴.
    """
    h = x.reach
    away = jnp.abs(x.c) * (1 - EPS) - (h + x.r)
    far = (1 + EPS) / jnp.where(away > 0, away, jnp.nan) + LEAST
    value = 1 / x.c
    size = jnp.abs(value)
    q, bent = h * far, 0.5 * (h * size) * (h * size)
    third = q * q * q + (9 + 9 * q) * q * (x.r * far)
    r = (size * (size * x.r) + size * bent + far * third) * (1 + EPS)
    error = FUNCTION_EPS * far * (1 + q) * (1 + q)
    return Linear(value + value * bent, scale(-value, scale(value, x.a)), r + error + FLUSHED)


def generic(x: Linear, value_fn, slope_fn) -> Linear:
    """φ(x), from intervals of φ at c and of φ' over the reach, other versions of c included."""
    base, steep = between(value_fn(Range(x.c, x.c))), between(slope_fn(x._replace(r=2 * x.r).ends))
    h = x.reach
    r = base.r + jnp.abs(steep.c) * x.r + steep.r * h
    size = jnp.abs(base.c) + jnp.abs(steep.c) * h
    return Linear(base.c, scale(steep.c, x.a), r * (1 + EPS) + 4 * rounding(size))


def positive_part(x: Linear) -> Linear:
    """max(x, 0): between λ x and λ x + μ, with the λ for which μ is least."""
    h, size = x.reach, jnp.abs(x.c)
    lo, hi = x.c - h - EPS * size, x.c + h + EPS * size
    below, above = jnp.maximum(-lo, 0.0), jnp.maximum(hi, 0.0)
    share = jnp.clip(above / jnp.maximum(above + below, FLUSHED), 0.0, 1.0)
    rest = 0.5 * (1 + EPS) * jnp.maximum((1 - share) * above, share * below)
    # Two versions of λ h and μ are within 8 r of each other, if there is a kink at all.
    near = jnp.where(size <= h + 4 * x.r, 8 * x.r, 0.0)
    r = share * x.r + rest + near + rounding(size + h)
    return Linear(share * x.c + rest, scale(share, x.a), r)


def maximum(x: Linear, y: Linear) -> Linear:
    """max(x, y) = y + max(x - y, 0)."""
    return add(y, positive_part(sub(x, y)))


def minimum(x: Linear, y: Linear) -> Linear:
    """min(x, y)."""
    return neg(maximum(neg(x), neg(y)))


def absolute(x: Linear) -> Linear:
    """|x| = 2 max(x, 0) - x."""
    part = positive_part(x)
    return sub(add(part, part), x)


def integer_pow(x: Linear, n: int) -> Linear:
    """xⁿ."""
    if n < 0:
        return reciprocal(integer_pow(x, -n))
    if n == 0:
        return point(jnp.ones_like(x.c))
    half = integer_pow(x, n // 2) if n > 1 else x
    return x if n == 1 else mul(square(half), x) if n % 2 else square(half)


UNARY = {
    **{"tanh": tanh, "sech2": sech2, "sin": sin, "cos": cos, "exp": exp, "square": square},
    **{"neg": neg, "abs": absolute},
}
BINARY = {"add": add, "sub": sub, "mul": mul, "max": maximum, "min": minimum}
