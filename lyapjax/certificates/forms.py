"""Numbers on a box to first order, in ball arithmetic.

    v(ε) in c + Σ_k a_k ε_k + r,    |ε_k| <= 1

c and the a_k are balls of rounding only, r is a ball for what is of second order. As what is linear
cancels where it should, the bounds of a quotient of polynomials (a mass matrix inverted) are those
of its curvature, not of its terms. The replay's own arithmetic: the prover's is in floats.
"""

from typing import NamedTuple

from flint import arb

from lyapjax.readers import jets
from lyapjax.readers.jets import UNKNOWN, Jet
from lyapjax.readers.program import Step

UNIT = arb(0, 1)  # [-1, 1]
ZERO = arb(0)


class Form(NamedTuple):
    """c + Σ a_k ε_k + r."""

    c: arb
    a: tuple
    r: arb

    @property
    def spread(self) -> arb:
        """What it may differ from c, and 0: Taylor's formula is about c."""
        return sum((abs(v) for v in self.a), ZERO) * UNIT + self.r.union(ZERO)

    @property
    def range(self) -> arb:
        """All its values."""
        return self.c + self.spread


def number(value, width: int) -> Form:
    """A number, with places for `width` coefficients."""
    return Form(arb(value), (ZERO,) * width, ZERO)


def add(x: Form, y: Form) -> Form:
    """x + y."""
    return Form(x.c + y.c, tuple(p + q for p, q in zip(x.a, y.a)), x.r + y.r)


def scaled(x: Form, factor) -> Form:
    """x times a number."""
    return Form(factor * x.c, tuple(factor * v for v in x.a), factor * x.r)


def mul(x: Form, y: Form) -> Form:
    """x y."""
    a = tuple(x.c * q + y.c * p for p, q in zip(x.a, y.a))
    return Form(x.c * y.c, a, x.c * y.r + y.c * x.r + x.spread * y.spread)


def curve(step: Step, v: arb) -> tuple[arb, arb, arb]:
    """φ, φ' and φ'' of a function of one variable."""
    found = jets.operation(step, Jet(v, (arb(1),), (ZERO,)))
    return found.value, found.gradient[0], found.hessian[0]


def function(step: Step, x: Form) -> Form:
    """φ(x), to first order about c: the rest is φ''/2 over the range times the spread squared."""
    spread, (value, slope, _) = x.spread, curve(step, x.c)
    bend = curve(step, x.c + spread)[2] * jets.square(Jet(spread, ())).value / 2
    return Form(value, tuple(slope * v for v in x.a), slope * x.r + bend)


def linear(value: arb, slope: arb, x: Form) -> Form:
    """value + slope (x - c), for every slope in a ball."""
    middle = slope.mid()
    rest = middle * x.r + (slope - middle) * x.spread
    return Form(value, tuple(middle * v for v in x.a), rest)


def derivative(step: Step, x: Form) -> Form:
    """φ'(x)."""
    return linear(curve(step, x.c)[1], curve(step, x.range)[2], x)


def meet(one: arb, other: arb) -> arb:
    """What is in both, where both say something."""
    if not (one.is_finite() and other.is_finite()):
        return one if one.is_finite() else other
    return one.intersection(other)


def divided_difference(step: Step, x: Form, star: arb) -> Form:
    """φ[x, x*] = (φ(x) - φ(x*)) / (x - x*), where φ is twice differentiable between the two.

    It is a mean of φ' between x* and x, and changes with x at the rate

        φ[x, x, x*] = (φ'(x) - φ[x, x*]) / (x - x*) = φ''(ξ) / 2;

    of mean and quotient both are computed and intersected.
    """
    whole = x.range
    if not (whole.is_finite() and star.is_finite()):
        return Form(UNKNOWN, x.a, UNKNOWN)
    _, mean, bend = curve(step, whole.union(star))
    here, slope, _ = curve(step, whole)
    at_star, rate, gap = curve(step, star)[0], bend / 2, whole - star
    centre = curve(step, x.c.union(star))[1]
    if not (x.c - star).contains(0):
        centre = meet(centre, (curve(step, x.c)[0] - at_star) / (x.c - star))
    if not gap.contains(0):
        found = meet(mean, centre + rate * x.spread)
        found = meet(found, (here - at_star) / gap)
        rate = meet(rate, (slope - found) / gap)
    return linear(centre, rate, x)
