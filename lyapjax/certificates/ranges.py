"""The values of a function of one variable on a range: sharp to second order, exact if monotone."""

from collections.abc import Callable

from flint import arb

from lyapjax.certificates.forms import UNIT, ZERO, curve, meet
from lyapjax.readers.jets import UNKNOWN
from lyapjax.readers.program import Step

NUM_PIECES = 8  # that a range is divided into


def _ends(whole: arb) -> list[arb]:
    """Where a range is divided, its ends included."""
    low, high = arb(whole.lower()), arb(whole.upper())
    return [*(low + (high - low) * k / NUM_PIECES for k in range(NUM_PIECES)), high]


def values(at: Callable, slope: Callable, whole: arb) -> arb:
    """The values of a function on a range, from values at ends of parts and slopes on them.

    Within a part a value is above the larger end by no more than a rise from it, or a fall to it,
    over the width of the part: by nothing where the function is monotone.
    """
    if not whole.is_finite():
        return UNKNOWN
    if whole.rad() < 1e-20:
        return at(whole)
    found, (first, *rest) = None, _ends(whole)
    here = at(first)
    for a, b in zip((first, *rest), rest):
        rate = slope(a.union(b))
        one, here = here, at(b)
        rise, fall = (arb(v.upper()).max(ZERO) for v in (rate, -rate))
        beyond = rise.min(fall) * (b - a)
        part = one.union(here) + beyond * UNIT
        if not (part.is_finite() and rate.is_finite()):
            return UNKNOWN
        found = part if found is None else found.union(part)
    return found


def divided_differences(step: Step, whole: arb, star: arb) -> arb:
    """φ[x, x*] over a range of x, a mean of φ' between the two.

    It changes with x at the rate φ[x, x, x*] = (φ'(x) - φ[x, x*]) / (x - x*) = φ''(ξ)/2.
    """
    there = curve(step, star)[0]

    def at(v: arb) -> arb:
        if (v - star).contains(0) or abs(v - star) < 1e-9:
            return curve(step, v.union(star))[1]
        return (curve(step, v)[0] - there) / (v - star)

    def rate(v: arb) -> arb:
        _, mean, bend = curve(step, v.union(star))
        if (v - star).contains(0):
            return bend / 2
        value, slope, _ = curve(step, v)
        found = meet(mean, (value - there) / (v - star))
        return meet(bend / 2, (slope - found) / (v - star))

    return values(at, rate, whole) if star.is_finite() else UNKNOWN
