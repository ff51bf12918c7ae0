"""Intervals of many boxes at once in plain NumPy, with rounding bounds that are proved.

A `Span` has the ends of one number on many boxes. It knows the operations that `jets` needs, so
that a certificate of many boxes is replayed by arrays where ball arithmetic takes milliseconds a
box. It shares nothing with the prover's intervals, and rests on one assumption only: IEEE 754
addition, subtraction, multiplication, division and square root, rounded to nearest, as NumPy's
ufuncs do them, one at a time.

**Rounding.** Let z be the rounded result of one operation and d = |z| 2^-52 + 2^-1072. Then d is at
least one unit in the last place of z, so that z - d, rounded, is at most the float before z, which
is at most the exact result; likewise z + d.

**Elementary functions** are made of these operations. With r the reduced argument,

    eˣ = 2ⁿ e^r,  r = x - n ln 2,  |r| <= 0.36;     sin, cos by r = x - n π/2,  |r| <= 0.79

ln 2 and π/2 are intervals between neighbouring floats, and e^r, sin r, cos r are Taylor polynomials
evaluated in this arithmetic plus a bound of Lagrange's remainder: 0.36¹⁶ e^0.36 / 16! < 1e-20,
0.79²¹ / 21! < 1e-21 and 0.79²⁰ / 20! < 1e-20. The others follow: tanh x = 1 - 2/(e^2x + 1), ….

NaN means that nothing is known; it is never below or above anything, and no operation forgets it.
"""

import math

import numpy as np
from flint import arb

LIMIT = 700.0  # of arguments of exp
FAR = 2.0**20  # beyond it nothing is said of sin and cos
SUPPORTED = {
    *("add", "sub", "mul", "div", "neg", "square", "integer_pow", "sqrt", "rsqrt"),
    *("exp", "expm1", "tanh", "sech2", "logistic", "dlogistic", "sin", "cos", "tan"),
    *("input", "constant", "literal", "dot", "reduce_sum", "reduce_prod"),
    *("reshape", "broadcast", "transpose", "slice", "concatenate", "rev", "take"),
}


def _down(z):
    return z - (np.abs(z) * 2.0**-52 + 2.0**-1072)


def _up(z):
    return z + (np.abs(z) * 2.0**-52 + 2.0**-1072)


class Span:
    """The ends of a number on many boxes, (N,) or numbers."""

    __slots__ = ("hi", "lo")
    __array_ufunc__ = None  # NumPy leaves the operators to this class

    def __init__(self, lo, hi=None):
        self.lo = lo
        self.hi = lo if hi is None else hi

    @staticmethod
    def of(value) -> "Span":
        """A number, or a ball, as a span that holds it."""
        if isinstance(value, Span):
            return value
        if isinstance(value, arb):
            if not value.is_finite():
                return Span(np.nan)
            middle = float(value.mid())
            if value == middle:
                return Span(middle)
            low, high = float(value.lower()), float(value.upper())
            return Span(math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
        if isinstance(value, int) and abs(value) > 2**53:
            raise ValueError(f"value: expected an integer that is a float, got {value}")
        return Span(value if isinstance(value, np.ndarray) else float(value))

    @property
    def is_point(self) -> bool:
        """Whether both ends are one object."""
        return self.lo is self.hi

    def is_finite(self) -> bool:
        """True: where nothing is known the ends say so."""
        return True

    def contains(self, number) -> bool:
        """False: a division by what may be 0 gives NaN."""
        return False

    def __add__(self, other):
        """Sum."""
        other = Span.of(other)
        return Span(_down(self.lo + other.lo), _up(self.hi + other.hi))

    __radd__ = __add__

    def __sub__(self, other):
        """Difference."""
        other = Span.of(other)
        return Span(_down(self.lo - other.hi), _up(self.hi - other.lo))

    def __rsub__(self, other):
        """Difference."""
        return Span.of(other) - self

    def __neg__(self):
        """Opposite, exact."""
        return Span(-self.hi, -self.lo)

    def __mul__(self, other):
        """Product."""
        other = Span.of(other)
        if other.is_point:
            ends = self.lo * other.lo, self.hi * other.lo
        elif self.is_point:
            ends = self.lo * other.lo, self.lo * other.hi
        else:
            ends = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        lo = hi = ends[0]
        for end in ends[1:]:
            lo, hi = np.minimum(lo, end), np.maximum(hi, end)
        return Span(_down(lo), _up(hi))

    __rmul__ = __mul__

    def reciprocal(self) -> "Span":
        """1/x; NaN where x may be 0."""
        good = (self.lo > 0) | (self.hi < 0)
        lo, hi = np.where(good, self.lo, np.nan), np.where(good, self.hi, np.nan)
        return Span(_down(1.0 / hi), _up(1.0 / lo))

    def __truediv__(self, other):
        """Quotient."""
        return self * Span.of(other).reciprocal()

    def __rtruediv__(self, other):
        """Quotient."""
        return Span.of(other) * self.reciprocal()

    def __lt__(self, other) -> bool:
        """Whether it is less on all boxes."""
        return bool(np.all(self.hi < Span.of(other).lo))

    def __gt__(self, other) -> bool:
        """Whether it is greater on all boxes."""
        return bool(np.all(self.lo > Span.of(other).hi))

    def cos(self):
        """Cosine."""
        return self.apply("cos")

    def sin(self):
        """Sine."""
        return self.apply("sin")

    def exp(self):
        """Exponential."""
        return self.apply("exp")

    def rsqrt(self):
        """1/√x."""
        return self.apply("rsqrt")

    def size(self) -> tuple:
        """The least and the greatest |x|."""
        low, high = np.abs(self.lo), np.abs(self.hi)
        across = (self.lo <= 0) & (self.hi >= 0)
        return np.where(across, 0.0 * low, np.minimum(low, high)), np.maximum(low, high)

    def power(self, n: int) -> "Span":
        """xⁿ for n > 0, even powers never negative."""
        if n % 2 == 0:
            least, most = self.size()
            low, high = _times(Span(least), n), _times(Span(most), n)
            return Span(np.maximum(low.lo, 0.0), high.hi)
        return Span(_times(Span(self.lo), n).lo, _times(Span(self.hi), n).hi)

    def integer_pow(self, n: int) -> "Span":
        """xⁿ for an integer n."""
        if n == 0:
            return Span(1.0)
        return self.power(n) if n > 0 else self.power(-n).reciprocal()

    def apply(self, name: str) -> "Span":
        """A function by its name."""
        if name == "square":
            return self.power(2)
        if name == "neg":
            return -self
        if name in WAVES:
            return _wave(name, self)
        if name in BELLS:
            least, most = self.size()
            return Span(BELLS[name](most).lo, BELLS[name](least).hi)
        if name == "tan":
            # Increasing as long as the cosine keeps its sign.
            cosine = _wave("cos", self)
            good = (cosine.lo > 0) | (cosine.hi < 0)
            lo, hi = (_trigonometry(np.where(good, v, np.nan)) for v in (self.lo, self.hi))
            return Span((lo[0] / lo[1]).lo, (hi[0] / hi[1]).hi)
        if name == "rsqrt":
            return self.apply("sqrt").reciprocal()
        if name == "sqrt":
            # Where a part is below 0 nothing is known, of neither end.
            lo, hi = (np.where(self.lo >= 0, v, np.nan) for v in (self.lo, self.hi))
            return Span(_sqrt(lo).lo, _sqrt(hi).hi)
        if name not in GROWING:
            raise NotImplementedError(f"fn: no plain interval of the operation {name!r}")
        return Span(GROWING[name](self.lo).lo, GROWING[name](self.hi).hi)


def _times(x: Span, n: int) -> Span:
    found = x
    for _ in range(n - 1):
        found = found * x
    return found


LN2 = Span(0.6931471805599453, math.nextafter(0.6931471805599453, 1.0))
HALF_PI = Span(1.5707963267948966, math.nextafter(1.5707963267948966, 2.0))
INVERSE_FACTORIALS = [Span(1.0) / Span(float(math.factorial(k))) for k in range(21)]


def _series(square: Span, terms: list[int], signs: float) -> Span:
    """Σ_k (±1)^k square^k / terms[k]!, by Horner's rule."""
    found = INVERSE_FACTORIALS[terms[-1]]
    for k in reversed(terms[:-1]):
        found = INVERSE_FACTORIALS[k] + (found * square) * signs
    return found


def exp(x) -> Span:
    """eˣ at floats."""
    near = np.clip(x, -LIMIT, LIMIT)
    n = np.rint(near * 1.4426950408889634)
    r = Span(near) - LN2 * Span(n)
    small = (r.lo >= -0.36) & (r.hi <= 0.36)
    r = Span(np.where(small, r.lo, np.nan), np.where(small, r.hi, np.nan))
    found = _series(r, list(range(16)), 1.0) + Span(-1e-20, 1e-20)
    low, high = np.ldexp(found.lo, _whole(n)), np.ldexp(found.hi, _whole(n))
    return Span(np.where(x < -LIMIT, 0.0, low), np.where(x > LIMIT, np.inf, high))


def _whole(n):
    return np.where(np.isnan(n), 0, n).astype(np.int64)


def _trigonometry(x) -> tuple[Span, Span]:
    """sin and cos at floats."""
    known = np.abs(x) <= FAR
    x = np.where(known, x, np.nan)
    n = np.rint(x * 0.6366197723675814)
    r = Span(x) - HALF_PI * Span(n)
    small = (r.lo >= -0.79) & (r.hi <= 0.79)
    r = Span(np.where(small, r.lo, np.nan), np.where(small, r.hi, np.nan))
    square = r.power(2)
    sine = r * _series(square, list(range(1, 20, 2)), -1.0) + Span(-1e-21, 1e-21)
    cosine = _series(square, list(range(0, 19, 2)), -1.0) + Span(-1e-20, 1e-20)
    turn = _whole(n) % 4

    def pick(*cases):
        lo, hi = (np.choose(turn, [getattr(c, end) for c in cases]) for end in ("lo", "hi"))
        return Span(np.maximum(lo, -1.0), np.minimum(hi, 1.0))

    return pick(sine, cosine, -sine, -cosine), pick(cosine, -sine, -cosine, sine)


WAVES = {"sin": (0, 1.5707963267948966), "cos": (1, 0.0)}


def _wave(name: str, a: Span) -> Span:
    """sin or cos over spans: from the ends, and ±1 where it turns inside, or may."""
    which, top = WAVES[name]
    left, right = _trigonometry(a.lo)[which], _trigonometry(a.hi)[which]
    lo, hi = np.minimum(left.lo, right.lo), np.maximum(left.hi, right.hi)
    if a.is_point:
        return Span(lo, hi)

    def turns(offset):
        # The quotients are within 1e-9 (1 + |quotient|) of the exact ones.
        first, last = ((v - offset) / 6.283185307179586 for v in (a.lo, a.hi))
        first = first - 1e-9 * (1 + np.abs(first))
        return np.floor(last + 1e-9 * (1 + np.abs(last))) >= first

    lo = np.where(turns(top + 3.141592653589793), -1.0 + 0.0 * lo, lo)
    return Span(lo, np.where(turns(top), 1.0 + 0.0 * hi, hi))


def _tanh(x) -> Span:
    found = 1.0 - 2.0 / (exp(2.0 * x) + 1.0)
    return Span(np.maximum(found.lo, -1.0), np.minimum(found.hi, 1.0))


def _sech2(x) -> Span:
    small = exp(-2.0 * np.abs(x))
    found = (4.0 * small) / (1.0 + small).power(2)
    return Span(np.maximum(found.lo, 0.0), np.minimum(found.hi, 1.0))


def _dlogistic(x) -> Span:
    return _sech2(0.5 * x) * 0.25


def _logistic(x) -> Span:
    found = 1.0 / (1.0 + exp(-x))
    return Span(np.maximum(found.lo, 0.0), np.minimum(found.hi, 1.0))


def _sqrt(x) -> Span:
    root = np.sqrt(x)
    return Span(np.maximum(_down(root), 0.0), _up(root))


GROWING = {
    "exp": exp,
    "expm1": lambda x: exp(x) - 1.0,
    "tanh": _tanh,
    "logistic": _logistic,
}
# Even, and falling from 0 to both sides.
BELLS = {"sech2": _sech2, "dlogistic": _dlogistic}
