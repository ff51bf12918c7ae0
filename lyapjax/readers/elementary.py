"""Enclosures of the elementary functions, and of the derivatives that have a shape of their own.

A function that grows is evaluated at both ends; the others are cut where they turn. Each value is
widened by the function's margin (see `intervals`) and clipped to what the function can reach.
"""

import jax
import jax.numpy as jnp

from lyapjax.readers.intervals import (
    DEFAULT_FUNCTION_EPS,
    FUNCTION_EPS,
    INF,
    MAX_ANGLE,
    Range,
    add,
    down,
    magnitudes,
    mul,
    neg,
    reciprocal,
    rounded,
    same,
    square,
    up,
)

# Absolute margin of polynomials in tanh or logistic of degree at most 3, of size at most 2.
CURVE_MARGIN = 2.0**-44
HALF, ONE, TWO = same(0.5, 0.0), same(1.0, 0.0), same(2.0, 1.0)


def _growing(name: str, fn, least: float = -INF, most: float = INF, size=lambda s: INF):
    """The rule of a function that grows, with values in [least, most], |f(x)| <= 2^size(s)."""
    eps = FUNCTION_EPS.get(name, DEFAULT_FUNCTION_EPS)

    def rule(a: Range) -> Range:
        found = rounded(fn(a.lo), fn(a.hi), size(a.size), least >= 0, eps)
        lo = jnp.maximum(found.lo, least) if -INF < least < 0 else found.lo
        return found._replace(lo=lo, hi=jnp.minimum(found.hi, most) if most < INF else found.hi)

    return rule


def _constant(value: float):
    return lambda s: value


def _exp_size(s: float) -> float:
    """log2 of e^(2^s)."""
    return 2.0**s * 1.5 + 1 if s < 10 else INF


exp = _growing("exp", jnp.exp, 0.0, INF, _exp_size)
expm1 = _growing("expm1", jnp.expm1, -1.0, INF, _exp_size)
tanh = _growing("tanh", jnp.tanh, -1.0, 1.0, _constant(1.0))
logistic = _growing("logistic", jax.nn.sigmoid, 0.0, 1.0, _constant(1.0))
atan = _growing("atan", jnp.arctan, size=_constant(2.0))
sinh = _growing("sinh", jnp.sinh)
sqrt = _growing(
    "sqrt", lambda x: jnp.sqrt(jnp.maximum(x, 0.0)), 0.0, size=lambda s: max(s, 0.0) + 1
)
asin = _growing("asin", lambda x: jnp.arcsin(jnp.clip(x, -1.0, 1.0)), size=_constant(2.0))
_log = _growing("log", jnp.log)
_log1p = _growing("log1p", jnp.log1p)


def log(a: Range) -> Range:
    """The natural logarithm; from -inf if a reaches 0."""
    safe = Range(jnp.where(a.lo > 0, a.lo, 1.0), jnp.where(a.hi > 0, a.hi, 1.0))
    found = _log(safe)
    return Range(jnp.where(a.lo > 0, found.lo, -INF), jnp.where(a.hi > 0, found.hi, INF))


def log1p(a: Range) -> Range:
    """log(1 + a)."""
    safe = Range(jnp.where(a.lo > -1, a.lo, 0.0), jnp.where(a.hi > -1, a.hi, 0.0))
    found = _log1p(safe)
    return Range(jnp.where(a.lo > -1, found.lo, -INF), jnp.where(a.hi > -1, found.hi, INF))


def rsqrt(a: Range) -> Range:
    """1/√a."""
    return reciprocal(sqrt(a))


def acos(a: Range) -> Range:
    """The arc cosine, which falls."""
    eps = DEFAULT_FUNCTION_EPS
    lo, hi = jnp.clip(a.lo, -1.0, 1.0), jnp.clip(a.hi, -1.0, 1.0)
    return Range(jnp.maximum(down(jnp.arccos(hi), eps), 0.0), up(jnp.arccos(lo), eps))


def cosh(a: Range) -> Range:
    """The hyperbolic cosine, least at 0."""
    least, most = magnitudes(a)
    eps = FUNCTION_EPS["cosh"]
    lo, hi = jnp.maximum(down(jnp.cosh(least), eps), 1.0), up(jnp.cosh(most), eps)
    return Range(lo, hi, INF, True)


def _holds_multiple(lo, hi, offset: float, period: float):
    """Whether offset + k period lies in [lo, hi] for an integer k; true if in doubt.

    The quotients err by less than 2^-50 (|t| + 1), offset and period included.
    """
    first, last = (lo - offset) * (1 / period), (hi - offset) * (1 / period)
    first = first - (jnp.abs(first) + 1) * 2.0**-48
    last = last + (jnp.abs(last) + 1) * 2.0**-48
    return jnp.floor(last) >= first


def _wave(fn, top: float):
    """The rule of sin or cos, which is 1 at `top` and -1 half a period later."""
    pi = 3.141592653589793

    def rule(a: Range) -> Range:
        known = (a.lo >= -MAX_ANGLE) & (a.hi <= MAX_ANGLE)
        lo = jnp.where(known, a.lo, 0.0)
        hi = lo if a.is_point else jnp.where(known, a.hi, 0.0)
        left, right = fn(lo), fn(hi)
        eps = DEFAULT_FUNCTION_EPS
        least, most, *_ = rounded(jnp.minimum(left, right), jnp.maximum(left, right), 1.0, eps=eps)
        if a.is_point:  # a wave does not turn at one point
            return Range(
                jnp.where(known, jnp.maximum(least, -1.0), -1.0),
                jnp.where(known, jnp.minimum(most, 1.0), 1.0),
                1.0,
            )
        bottom = _holds_multiple(lo, hi, top + pi, 2 * pi) | ~known
        peak = _holds_multiple(lo, hi, top, 2 * pi) | ~known
        return Range(
            jnp.where(bottom, -1.0, jnp.maximum(least, -1.0)),
            jnp.where(peak, 1.0, jnp.minimum(most, 1.0)),
            1.0,
        )

    return rule


sin = _wave(jnp.sin, 1.5707963267948966)
cos = _wave(jnp.cos, 0.0)


def has_pole(a: Range):
    """Whether tan has a pole in the interval, or may have."""
    known = (a.lo >= -MAX_ANGLE) & (a.hi <= MAX_ANGLE)
    lo, hi = jnp.where(known, a.lo, 0.0), jnp.where(known, a.hi, 0.0)
    return _holds_multiple(lo, hi, 1.5707963267948966, 3.141592653589793) | ~known


def tan(a: Range) -> Range:
    """The tangent, which grows between its poles."""
    pole = has_pole(a)
    lo, hi = jnp.where(pole, 0.0, a.lo), jnp.where(pole, 0.0, a.hi)
    eps = DEFAULT_FUNCTION_EPS
    return Range(
        jnp.where(pole, -INF, down(jnp.tan(lo), eps)), jnp.where(pole, INF, up(jnp.tan(hi), eps))
    )


def _curve(lo, hi, polynomial, turns) -> Range:
    """A polynomial over [lo, hi]: its ends, and its extreme values where it turns.

    `turns` holds (where, least, most): what is added if that place may lie inside.
    """
    left, right = polynomial(lo), polynomial(hi)
    least, most = jnp.minimum(left, right), jnp.maximum(left, right)
    for place, value in turns:
        inside = (lo - 2.0**-44 <= place) & (hi + 2.0**-44 >= place)
        least = jnp.where(inside, jnp.minimum(least, value), least)
        most = jnp.where(inside, jnp.maximum(most, value), most)
    return Range(least - CURVE_MARGIN, most + CURVE_MARGIN, 1.0)


def sech2(a: Range) -> Range:
    """1 - tanh², the derivative of tanh: 1 at 0, falling to both sides."""
    lo, hi = jnp.tanh(a.lo), jnp.tanh(a.hi)
    found = _curve(lo, hi, lambda t: (1 - t) * (1 + t), [(0.0, 1.0)])
    return Range(jnp.maximum(found.lo, 0.0), jnp.minimum(found.hi, 1.0), 1.0, True)


def dsech2(a: Range) -> Range:
    """-2 tanh sech², the derivative of sech²; it turns where tanh² = 1/3."""
    lo, hi = jnp.tanh(a.lo), jnp.tanh(a.hi)
    place, most = 0.5773502691896258, 0.769800358919501
    return _curve(lo, hi, lambda t: 2 * t * (t * t - 1), [(-place, most), (place, -most)])


def dlogistic(a: Range) -> Range:
    """s (1 - s), the derivative of the logistic function."""
    lo, hi = jax.nn.sigmoid(a.lo), jax.nn.sigmoid(a.hi)
    found = _curve(lo, hi, lambda s: s * (1 - s), [(0.5, 0.25)])
    return Range(jnp.maximum(found.lo, 0.0), jnp.minimum(found.hi, 0.25), 1.0, True)


def ddlogistic(a: Range) -> Range:
    """s (1 - s) (1 - 2 s); it turns at s = 1/2 ± 1/√12."""
    lo, hi = jax.nn.sigmoid(a.lo), jax.nn.sigmoid(a.hi)
    low, high, most = 0.21132486540518712, 0.7886751345948129, 0.09622504486493763
    return _curve(lo, hi, lambda s: s * (1 - s) * (1 - 2 * s), [(low, most), (high, -most)])


def _step_slope(a: Range) -> Range:
    """0, and any number where a jump may lie: not used to bound differences across it."""
    known = (a.lo > 0) | (a.hi < 0)
    return Range(jnp.where(known, 0.0, -INF), jnp.where(known, 0.0, INF))


def _abs_slope(a: Range) -> Range:
    return Range(jnp.where(a.lo >= 0, 1.0, -1.0), jnp.where(a.hi <= 0, -1.0, 1.0), 1.0)


VALUES = {
    **{"exp": exp, "expm1": expm1, "tanh": tanh, "logistic": logistic, "atan": atan},
    **{"sinh": sinh, "cosh": cosh, "sqrt": sqrt, "rsqrt": rsqrt, "asin": asin, "acos": acos},
    **{"log": log, "log1p": log1p, "sin": sin, "cos": cos, "tan": tan},
    **{"sech2": sech2, "dlogistic": dlogistic},
}
# Enclosures of the derivative; over a kink, of all slopes between two points.
SLOPES = {
    "exp": exp,
    "expm1": exp,
    "tanh": sech2,
    "sech2": dsech2,
    "logistic": dlogistic,
    "dlogistic": ddlogistic,
    "sin": cos,
    "cos": lambda a: neg(sin(a)),
    "tan": lambda a: add(ONE, square(tan(a))),
    "atan": lambda a: reciprocal(add(ONE, square(a))),
    "sinh": cosh,
    "cosh": sinh,
    "sqrt": lambda a: mul(HALF, rsqrt(a)),
    "rsqrt": lambda a: neg(mul(HALF, mul(rsqrt(a), reciprocal(a)))),
    "log": reciprocal,
    "log1p": lambda a: reciprocal(add(ONE, a)),
    "asin": lambda a: rsqrt(_one_minus_square(a)),
    "acos": lambda a: neg(rsqrt(_one_minus_square(a))),
    "abs": _abs_slope,
    "sign": _step_slope,
    "square": lambda a: mul(TWO, a),
    "neg": lambda a: neg(ONE),
}


def _one_minus_square(a: Range) -> Range:
    found = add(ONE, neg(square(a)))
    return Range(jnp.maximum(found.lo, 0.0), jnp.maximum(found.hi, 0.0), found.size, True)


# Where an operation has no real value, for some number of the interval.
UNDEFINED = {
    "sqrt": lambda a: a.lo < 0,
    "rsqrt": lambda a: a.lo <= 0,
    "log": lambda a: a.lo <= 0,
    "log1p": lambda a: a.lo <= -1,
    "asin": lambda a: (a.lo < -1) | (a.hi > 1),
    "acos": lambda a: (a.lo < -1) | (a.hi > 1),
    "tan": has_pole,
}
