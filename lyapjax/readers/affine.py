"""Affine arithmetic in NumPy: how a quantity depends on the coordinates of a box, to first order.

    a(ε) ∈ c + Σ_k a_k ε_k + [-r, r]        for all ε ∈ [-1, 1]^K

with ε_k the place within the box along its k-th coordinate. What two quantities have in common is
not lost when they are combined, and the remainder r shrinks with the square of the box. Shapes: c
and r are arrays of a step's shape followed by the axis of the boxes (length 1 for what does not
depend on them); the a_k come first, (K, …), or None for a quantity without.

A function φ of one variable is φ(c) + φ'(c) δ ± max|φ''| h²/2, h = Σ|a_k| + r the reach of δ. NumPy
rounds every operation to nearest and fuses nothing; r grows by 2^-48 of all magnitudes at each
step, 16 times what the at most ten roundings of a step can lose, and by 2^-44 for elementary
functions, which are good to a few units in the last place (the tests measure it). What overflows or
has no real value becomes NaN or infinite, and nothing is ever concluded from those.
"""

from typing import NamedTuple

import numpy as np

EPS = 2.0**-48
FUNCTION_EPS = 2.0**-44
TINY = 1e-300
SLACK = 1e-9  # of h: what the derivatives of divided differences may be wrong by


class Affine(NamedTuple):
    """c + Σ a_k ε_k ± r."""

    c: np.ndarray
    a: np.ndarray | None
    r: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """h: how far from c it gets."""
        return self.r if self.a is None else (np.abs(self.a).sum(axis=0) + self.r) * (1 + EPS)

    @property
    def ends(self) -> tuple:
        """A lower and an upper bound."""
        h = self.reach + EPS * np.abs(self.c) + TINY
        return self.c - h, self.c + h

    @property
    def is_zero(self) -> bool:
        """Whether it is 0, exactly and everywhere."""
        return self.a is None and not self.c.any() and not self.r.any()


def point(value) -> Affine:
    """Numbers known exactly."""
    value = np.asarray(value, np.float64)
    return Affine(value, None, np.zeros(value.shape))


def between(lo, hi) -> Affine:
    """An interval, without dependence on the box."""
    c = 0.5 * lo + 0.5 * hi
    return Affine(c, None, np.maximum(hi - c, c - lo) * (1 + EPS) + TINY * (lo != hi))


def _sum(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _rounding(size):
    """What a step on magnitudes of this sum may lose; nothing on zeros."""
    return EPS * size + TINY * (size > 0)


def neg(x: Affine) -> Affine:
    """-x, exact."""
    return Affine(-x.c, None if x.a is None else -x.a, x.r)


def add(x: Affine, y: Affine) -> Affine:
    """x + y."""
    a = _sum(*_aligned(x, y))
    size = np.abs(x.c) + np.abs(y.c) + x.reach + y.reach
    return Affine(x.c + y.c, a, x.r + y.r + _rounding(size))


def _aligned(x: Affine, y: Affine):
    """Their coefficients, with as many dimensions as the result."""
    ndim = max(x.c.ndim, y.c.ndim)
    return (
        None if v.a is None
        else v.a.reshape((len(v.a), *(1,) * (ndim - v.c.ndim), *v.a.shape[1:]))
        for v in (x, y)
    )  # fmt: skip


def sub(x: Affine, y: Affine) -> Affine:
    """x - y."""
    return add(x, neg(y))


def mul(x: Affine, y: Affine) -> Affine:
    """x y."""
    h, g = x.reach, y.reach
    p, q = _aligned(x, y)
    a = _sum(None if q is None else x.c * q, None if p is None else y.c * p)
    size_x, size_y = np.abs(x.c), np.abs(y.c)
    r = size_x * y.r + size_y * x.r + h * g + _rounding((size_x + h) * (size_y + g))
    # A product too small for a float is not 0, a product with 0 is.
    r = r + TINY * ((size_x + h > 0) & (size_y + g > 0))
    return Affine(x.c * y.c, a, r)


def total(x: Affine, axes: tuple[int, ...]) -> Affine:
    """The sum over some axes."""
    count = int(np.prod([x.c.shape[i] for i in axes]))
    a = None if x.a is None else x.a.sum(axis=tuple(i + 1 for i in axes))
    size = (np.abs(x.c) + x.reach).sum(axis=axes)
    return Affine(x.c.sum(axis=axes), a, x.r.sum(axis=axes) + _rounding(count * size))


def solve(M: Affine, b: Affine) -> Affine:
    """X of M X = b, M symmetric (n, n, B), b (n, m, B); NaN unless M is positive definite.

    With A the inverse of M's centre and G = A M - I, a place D away from X0 = A c(b) satisfies

        D = A b - X0 - G X0 - G D,

    known to first order but for G D, whose size solves |D| <= |the others| + |G| |D|. That there is
    such a D shows every M regular, and, as the centre is, positive definite.
    """
    batch = max(v.c.shape[-1] for v in (M, b))
    n, m = b.c.shape[:2]
    count = max(0 if v.a is None else len(v.a) for v in (M, b))

    def last(v, shape):
        """The boxes first, for products of matrices."""
        return np.moveaxis(np.broadcast_to(v, (*v.shape[:-3], *shape, batch)), -1, 0)

    def rows(v, shape):
        return last(np.zeros((count, *shape, 1)) if v.a is None else v.a, shape)

    Mc, Mr, Ma = last(M.c, (n, n)), last(M.r, (n, n)), rows(M, (n, n))
    bc, br, ba = last(b.c, (n, m)), last(b.r, (n, m)), rows(b, (n, m))
    good = np.isfinite(Mc + Mr).all(axis=(1, 2)) & np.isfinite(Ma).all(axis=(1, 2, 3))
    modes = np.linalg.eigvalsh(np.where(good[:, None, None], Mc, -np.eye(n)))
    good &= modes[:, 0] > 1e-12 * modes[:, -1]
    A = np.linalg.inv(np.where(good[:, None, None], Mc, np.eye(n)))
    X, size = A @ bc, np.abs(A)
    G, tilt = A[:, None] @ Ma, A[:, None] @ ba
    whole_M, whole_b = np.abs(Mc) + np.abs(Ma).sum(axis=1), np.abs(bc) + np.abs(ba).sum(axis=1)
    Gr = np.abs(A @ Mc - np.eye(n)) + size @ Mr + n * EPS * (size @ whole_M)
    a = tilt - G @ X[:, None]
    whole_G = np.abs(G).sum(axis=1) + Gr
    r = size @ br + Gr @ np.abs(X) + n * EPS * (size @ whole_b + whole_G @ np.abs(X)) + TINY
    reach = (np.abs(a).sum(axis=1) + r) * (1 + EPS)
    left = np.eye(n) - whole_G
    good &= np.abs(np.linalg.det(left)) > 1e-100
    D = np.linalg.solve(np.where(good[:, None, None], left, np.eye(n)), reach) * (1 + 1e-6)
    # Any D > 0 with |others| + |G| D < D is a bound: the spectral radius of |G| is below 1 then.
    good &= ((D > 0) & ((reach + whole_G @ D) * (1 + n * EPS) < D)).all(axis=(1, 2))
    r = np.where(good[:, None, None], (r + whole_G @ D) * (1 + n * EPS), np.nan)
    X, a, r = (np.moveaxis(v, 0, -1) for v in (X, a, r))
    return Affine(X, a if count else None, r)


def _curve(
    fn, slope, bend, *, top=None, falls=0.0, rises=0.0, slack: float = 0.0, floor: float = 0.0
):
    """The rule of a function from its value, derivative, and bound of |φ''| from (c, h).

    `top` is an upper bound of φ'' itself: where it is below 0, what is of second order lies on one
    side, and the centre moves there. `falls` is how far an even φ falls to both sides of 0,
    `rises` how far a φ rises: its range, wanted where nothing is known to first order, is exact
    then. `slack` bounds an error of the derivative, `floor` one of the value, beside the relative
    ones.
    """

    def rule(x: Affine) -> Affine:
        h = x.reach
        value, tilt = fn(x.c), slope(x.c)
        size = np.abs(value) + np.abs(tilt) * h
        second = 0.5 * bend(x.c, h) * h * h * (1 + EPS)
        if top is not None:
            upper = np.clip(0.5 * top(x.c, h) * h * h, -second, second)
            above = np.maximum(upper + EPS * second, 0.0)
            value, second = value + 0.5 * (above - second), 0.5 * (above + second) * (1 + EPS)
        r = np.abs(tilt) * x.r + second
        r = r + FUNCTION_EPS * (size + h) + slack * h + floor + TINY
        if (falls or rises) and x.a is None:
            far = np.abs(x.c) + h * (1 + EPS)
            ends = x.c - h * (1 + EPS), x.c + h * (1 + EPS)
            if falls:
                ends = np.minimum(far, falls), np.maximum(np.abs(x.c) - h, 0.0)
            least, most = fn(ends[0]), fn(ends[1])
            half = 0.5 * (most - least) + FUNCTION_EPS * (1 + np.abs(most) + np.abs(least)) + floor
            better = (far < max(falls, rises)) & (half < r)
            value, r = np.where(better, 0.5 * (most + least), value), np.where(better, half, r)
        return Affine(value, None if x.a is None else tilt * x.a, r)

    return rule


def _where_away(c, h):
    """The distance of the range from 0; NaN if it holds 0."""
    away = np.abs(c) - h * (1 + EPS)
    return np.where(away > 0, away, np.nan)


def _positive(c, h):
    """The least value of the range; NaN if it is not above 0."""
    least = c - h * (1 + EPS)
    return np.where(least > 0, least, np.nan)


reciprocal = _curve(
    lambda c: 1 / c, lambda c: -1 / (c * c), lambda c, h: 2.0001 / _where_away(c, h) ** 3
)
exp = _curve(np.exp, np.exp, lambda c, h: 1.0001 * np.exp(c + h))
log = _curve(np.log, lambda c: 1 / c, lambda c, h: 1.0001 / _positive(c, h) ** 2)
sqrt = _curve(np.sqrt, lambda c: 0.5 / np.sqrt(c), lambda c, h: 0.2501 / _positive(c, h) ** 1.5)
sin = _curve(np.sin, np.cos, lambda c, h: np.minimum(np.abs(c) + h, 1.0), rises=1.57)


def _least_cos(c, h):
    """A lower bound of cos between 0 and ±(|c| + h)."""
    return np.cos(np.minimum(np.abs(c) + h, np.pi)) - 1e-12


cos = _curve(
    np.cos,
    lambda c: -np.sin(c),
    lambda c, h: 1.0,
    top=lambda c, h: -_least_cos(c, h),
    falls=np.pi,
)


def _sech2(c):
    size = np.tanh(c)
    return (1 - size) * (1 + size)


tanh = _curve(np.tanh, _sech2, lambda c, h: 0.77, rises=np.inf)
# 1 - tanh² and its derivative have absolute errors of a few units of 2^-53.
sech2 = _curve(
    _sech2, lambda c: -2 * np.tanh(c) * _sech2(c), lambda c, h: 2.0, falls=np.inf, floor=2.0**-44
)
atan = _curve(np.arctan, lambda c: 1 / (1 + c * c), lambda c, h: 0.65, rises=np.inf)


def tan(x: Affine) -> Affine:
    """sin x / cos x."""
    return mul(sin(x), reciprocal(cos(x)))


def logistic(x: Affine) -> Affine:
    """(1 + tanh(x/2))/2."""
    half = point(np.array([0.5]))
    return mul(half, add(point(np.array([1.0])), tanh(mul(half, x))))


def square(x: Affine) -> Affine:
    """x²: the square of what varies lies in [0, h²]."""
    h = x.reach
    half = 0.5 * h * h
    r = 2 * np.abs(x.c) * x.r + half + EPS * (np.abs(x.c) + h) ** 2 + TINY
    return Affine(x.c * x.c + half, None if x.a is None else 2 * x.c * x.a, r)


def maximum(x: Affine, y: Affine) -> Affine:
    """max(x, y)."""
    (a, b), (c, d) = x.ends, y.ends
    return chosen(a >= d, c >= b, x, y, between(np.maximum(a, c), np.maximum(b, d)))


def minimum(x: Affine, y: Affine) -> Affine:
    """min(x, y)."""
    return neg(maximum(neg(x), neg(y)))


def chosen(first, second, x: Affine, y: Affine, rest: Affine | None = None) -> Affine:
    """x where first, y where second, `rest` or both elsewhere."""
    if rest is None:
        (a, b), (c, d) = x.ends, y.ends
        rest = between(np.minimum(a, c), np.maximum(b, d))

    def pick(p, q, r):
        return np.where(first, p, np.where(second, q, r))

    p, q = _aligned(x, y)
    some = p is not None or q is not None
    a = pick(0.0 if p is None else p, 0.0 if q is None else q, 0.0) if some else None
    return Affine(pick(x.c, y.c, rest.c), a, pick(x.r, y.r, rest.r))


def absolute(x: Affine) -> Affine:
    """|x|."""
    return maximum(x, neg(x))


def integer_pow(x: Affine, n: int) -> Affine:
    """xⁿ."""
    if n < 0:
        return reciprocal(integer_pow(x, -n))
    if n == 0:
        return point(np.ones((*x.c.shape[:-1], 1)))
    half = integer_pow(x, n // 2) if n > 1 else x
    return x if n == 1 else mul(square(half), x) if n % 2 else square(half)


def _ratio(fn, slope, near, bend: float, top=None, falls=np.inf):
    """φ(a)/a for an odd φ with φ'(0) = 1; `near` is its derivative close to 0."""

    def value(c):
        far = np.abs(c) > 1e-8
        safe = np.where(far, c, 1.0)
        return np.where(far, fn(safe) / safe, 1.0)

    def tilt(c):
        far = np.abs(c) > 1e-2
        safe = np.where(far, c, 1.0)
        return np.where(far, (safe * slope(safe) - fn(safe)) / (safe * safe), near(c))

    return _curve(value, tilt, lambda c, h: bend, top=top, falls=falls, slack=SLACK)


def _versine(c):
    far = np.abs(c) > 1e-8
    safe = np.where(far, c, 1.0)
    return np.where(far, -2 * np.sin(0.5 * safe) ** 2 / safe, -0.5 * c)


def _versine_slope(c):
    far = np.abs(c) > 1e-2
    safe = np.where(far, c, 1.0)
    there = (2 * np.sin(0.5 * safe) ** 2 - safe * np.sin(safe)) / (safe * safe)
    return np.where(far, there, -0.5 + c * c / 8 - c**4 / 144)


# Divided differences at 0: (φ(a) - φ(0))/a is the mean of φ' between 0 and a, so that its second
# derivative is at most a third of the greatest |φ'''|.
AT_ZERO = {
    # (sin a / a)'' is the mean of -t² cos(t a) for t in [0, 1].
    "sin": _ratio(
        *(np.sin, np.cos, lambda c: -c / 3 + c**3 / 30, 0.3334),
        top=lambda c, h: -_least_cos(c, h) / 3.0,
        falls=4.4,
    ),
    "cos": _curve(_versine, _versine_slope, lambda c, h: 0.3334, slack=SLACK),
    "tanh": _ratio(np.tanh, _sech2, lambda c: -2 * c / 3 + 8 * c**3 / 15, 0.6667),
    "atan": _ratio(np.arctan, lambda c: 1 / (1 + c * c), lambda c: -2 * c / 3 + 0.8 * c**3, 0.6667),
}
ONE, TWO = point(np.ones(1)), point(np.full(1, 2.0))
UNARY = {
    **{"exp": exp, "log": log, "sqrt": sqrt, "sin": sin, "cos": cos, "tan": tan, "tanh": tanh},
    **{"sech2": sech2, "atan": atan, "logistic": logistic, "square": square, "abs": absolute},
    **{"neg": neg},
}
BINARY = {"add": add, "sub": sub, "mul": mul, "max": maximum, "min": minimum}
# Derivatives, to enclose difference quotients by the mean value theorem.
SLOPES = {
    "exp": exp,
    "log": reciprocal,
    "sqrt": lambda x: reciprocal(mul(TWO, sqrt(x))),
    "sin": cos,
    "cos": lambda x: neg(sin(x)),
    "tan": lambda x: add(ONE, square(tan(x))),
    "tanh": sech2,
    "sech2": lambda x: neg(mul(TWO, mul(tanh(x), sech2(x)))),
    "atan": lambda x: reciprocal(add(ONE, square(x))),
    "logistic": lambda x: mul(logistic(x), sub(ONE, logistic(x))),
}


def divided_difference(op: str, x: Affine, at: Affine, *, is_zero: bool) -> Affine:
    """(φ(x) - φ(x*))/(x - x*), for x* in `at`, exactly 0 if `is_zero`."""
    if op == "square":
        return add(x, at)
    if is_zero and op in AT_ZERO:
        return AT_ZERO[op](x)
    (lo, hi), (low, high) = x.ends, at.ends
    hull = between(np.minimum(lo, low), np.maximum(hi, high))
    if op == "abs":
        one = np.ones_like(lo)
        ends = np.where(hull.ends[0] >= 0, one, -one), np.where(hull.ends[1] <= 0, -one, one)
        return between(*ends)
    slope = SLOPES[op](hull)
    apart = (hi < low) | (lo > high)
    run = sub(x, at)
    run = Affine(np.where(apart, run.c, np.nan), run.a, run.r)
    quotient = mul(sub(UNARY[op](x), UNARY[op](at)), reciprocal(run))
    better = quotient.reach < slope.reach  # False where NaN
    return chosen(better, ~better, quotient, slope, slope)
