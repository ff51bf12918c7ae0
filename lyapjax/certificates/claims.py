"""What a certificate claims, as functions of balls or of spans: bounds on one box or on many."""

from collections.abc import Callable

import numpy as np
from flint import arb

from lyapjax.certificates.certificate import inexact, read_program
from lyapjax.certificates.checking import Failed
from lyapjax.proofs.obligations import claimed
from lyapjax.readers.ball import balls
from lyapjax.readers.jets import Jet, add, constant, evaluate_jets, mul, square, sub, variable
from lyapjax.readers.spans import SUPPORTED, Span
from lyapjax.systems.domains import Ball, Box


def _mean_value(jet_at: Callable, lo, hi):
    """A ball around a function on a box: its value and its mean value form, intersected.

    Of many boxes (N, n) a `Span`.
    """
    if np.ndim(lo) == 2:
        return _mean_values(jet_at, lo, hi)
    over = jet_at(balls(lo, hi))
    middle = 0.5 * lo + 0.5 * hi
    centre = jet_at(balls(middle))
    total = centre.value
    for g, x, m in zip(over.gradient, balls(lo, hi), middle.tolist()):
        total += g * (x - arb(m))
    if not total.is_finite():
        return over.value
    return total.intersection(over.value) if over.value.is_finite() else total


def _mean_values(jet_at: Callable, lo, hi) -> Span:
    x, middle = [Span(a, b) for a, b in zip(lo.T, hi.T)], (0.5 * lo + 0.5 * hi).T
    with np.errstate(all="ignore"):
        over, total = jet_at(x), Span.of(jet_at([Span(m) for m in middle]).value)
        for g, a, m in zip(over.gradient, x, middle):
            total = total + g * (a - Span(m))
        value = Span.of(over.value)
        # Either may be NaN, where it knows nothing.
        return Span(np.fmax(total.lo, value.lo), np.fmin(total.hi, value.hi))


def _below(value, number: float):
    """Whether a ball, or each entry of a span, is certainly less."""
    if isinstance(value, Span):
        return value.hi < number
    return bool(value < number)


def _above(value, number: float):
    """Whether a ball, or each entry of a span, is certainly greater."""
    if isinstance(value, Span):
        return value.lo > number
    return bool(value > number)


def either(*conditions: Callable) -> Callable:
    """(lo, hi) -> whether one of the conditions holds, tried in turn; of many boxes, for each."""

    def holds(lo, hi):
        if np.ndim(lo) == 1:
            return any(condition(lo, hi) for condition in conditions)
        held = np.zeros(len(lo), bool)
        for condition in conditions:
            rest = np.flatnonzero(~held)
            if len(rest):
                held[rest] = condition(lo[rest], hi[rest])
        return held

    return holds


class Claim:
    """The numbers and functions of a certificate, as exact balls."""

    def __init__(self, document: dict):
        self.V, self.f = (read_program(document[name]) for name in ("V", "f"))
        self.x = inexact(document["equilibrium"])
        self.n = len(self.x)
        numbers = inexact(document["domain"]["numbers"])
        self.is_ball = document["domain"]["kind"] == "ball"
        self.radius, self.centre = numbers[0], numbers[1:]
        self.lo, self.hi = numbers[: self.n], numbers[self.n :]
        if self.is_ball:
            ends = [
                [arb(c) + sign * arb(self.radius) for c in self.centre.tolist()] for sign in (-1, 1)
            ]
            self.lo = np.array([np.nextafter(float(v.lower()), -np.inf) for v in ends[0]])
            self.hi = np.array([np.nextafter(float(v.upper()), np.inf) for v in ends[1]])
        self.c1, self.c2 = (float.fromhex(document["levels"][key]) for key in ("c1", "c2"))
        local = document["local"]
        self.P = inexact(local["P"])
        if len(numbers) != (1 + self.n if self.is_ball else 2 * self.n):
            raise Failed(f"domain: expected numbers for {self.n} coordinates, got {len(numbers)}")
        if self.P.shape != (self.n, self.n):
            raise Failed(f"local: expected P of {self.n} rows and columns, got {self.P.shape}")
        self.level, self.core = (float.fromhex(local[key]) for key in ("level", "core"))

    @property
    def statement(self) -> str:
        """What the numbers claim, in words."""
        if self.is_ball:
            domain = Ball(float(self.radius), tuple(self.centre.tolist()))
        else:
            domain = Box(tuple(self.lo.tolist()), tuple(self.hi.tolist()))
        return claimed(self.c2, domain, self.x)

    def coordinates(self, x, order: int) -> list[Jet]:
        """x as jets."""
        return [variable(v, i, self.n, order) for i, v in enumerate(x)]

    def gauge(self, x) -> Jet:
        """‖x - centre‖² - radius²."""
        radius = constant(arb(self.radius) ** 2, self.n, 1)
        return sub(self._squares(x, self.centre), radius)

    def _squares(self, x, centre) -> Jet:
        total = constant(arb(0), self.n, 1)
        for jet, c in zip(self.coordinates(x, 1), centre.tolist()):
            total = add(total, square(sub(jet, constant(arb(c), self.n, 1))))
        return total

    def W(self, x) -> Jet:
        """(x - x*)'P(x - x*)."""
        away = self._away(x)
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            total = add(total, mul(constant(arb(self.P[i, i]), self.n, 1), square(away[i])))
            for j in range(i):
                both = arb(self.P[i, j]) + arb(self.P[j, i])
                term = mul(away[i], away[j])
                total = add(total, mul(constant(both, self.n, 1), term))
        return total

    def _away(self, x) -> list[Jet]:
        jets = self.coordinates(x, 1)
        return [sub(jet, constant(arb(c), self.n, 1)) for jet, c in zip(jets, self.x.tolist())]

    def V_of(self, x) -> Jet:
        """V."""
        return evaluate_jets(self.V, list(x), 1)[0].item()

    def slope_of_V(self, x) -> Jet:
        """V̇ = ∇V'f and its gradient ∇²V f + J'∇V."""
        v = evaluate_jets(self.V, list(x), 2)[0].item()
        f = evaluate_jets(self.f, list(x), 1)[0]
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            row = tuple(v.hessian[i * self.n : (i + 1) * self.n])
            total = add(total, mul(Jet(v.gradient[i], row), f[i]))
        return total

    def slope_of_W(self, x) -> Jet:
        """Ẇ / 2 = (x - x*)'P f."""
        f, away = evaluate_jets(self.f, list(x), 1)[0], self._away(x)
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            for j in range(self.n):
                p = constant(arb(self.P[i, j]), self.n, 1)
                total = add(total, mul(mul(p, away[j]), f[i]))
        return total

    def outside(self, lo, hi):
        """Whether a box, or each of many, is certainly outside of the ball."""
        if not self.is_ball:
            return False
        return _above(_mean_value(self.gauge, lo, hi), 0.0)

    def below(self, jet_at: Callable, number: float) -> Callable:
        """(lo, hi) -> whether a function is certainly less there."""
        return lambda lo, hi: _below(_mean_value(jet_at, lo, hi), number)

    def above(self, jet_at: Callable, number: float) -> Callable:
        """(lo, hi) -> whether a function is certainly greater there."""
        return lambda lo, hi: _above(_mean_value(jet_at, lo, hi), number)

    @property
    def is_plain(self) -> bool:
        """Whether plain intervals know all operations of V and f."""
        return (self.V.ops | self.f.ops) <= SUPPORTED
