"""Secant matrices in ball arithmetic: F with f(x) - f(x*) = F(x) (x - x*), over a box.

The replay's own reading of what `readers.secants` does for the prover, of which it uses nothing.
Every entry of the program carries, as forms of first order in the place within the box,

    a(x),  a* at x*,  and the rows F_i with a - a* = Σ_i F_i (x - x*)_i.

A product has two forms, a b - a* b* = a Δb + b* Δa = b Δa + a* Δb; any choice is right, and the one
is taken whose rows depend on fewer coordinates. A function of one variable contributes its divided
difference. With the values over the box in place of those at x* the same rules give the Jacobian.
"""

import functools
from typing import NamedTuple

from flint import arb

from lyapjax.certificates import forms
from lyapjax.certificates.forms import Form
from lyapjax.readers.jets import UNKNOWN, interpret
from lyapjax.readers.program import Program, Step

MAX, NEG, RECIPROCAL = (
    Step(op, (), params, ()) for op, params in (("max", ()), ("neg", ()), ("integer_pow", (-1,)))
)


class Slope(NamedTuple):
    """An entry of a program; its rows that are not zero, by coordinate; `moving` guides choices.

    `star` is None where the rows are those of the Jacobian.
    """

    value: Form
    star: arb | None
    rows: dict[int, Form]
    moving: frozenset

    @property
    def reached(self) -> frozenset:
        """The coordinates on which the value depends."""
        return frozenset(self.rows)


def secants(program: Program, place: list[Form], star: list[arb]) -> list[Slope]:
    """The entries of the program's output: x in `place`, x* in `star`."""
    return _run(program, place, star)


def tangents(program: Program, place: list[Form]) -> list[Slope]:
    """The same with the rows of the Jacobian."""
    return _run(program, place, [None] * len(place))


def _run(program: Program, place: list[Form], star: list) -> list[Slope]:
    width = len(place[0].a)
    one, is_tangent = forms.number(1, width), star[0] is None

    def number(v: float) -> Slope:
        return Slope(forms.number(v, width), None if is_tangent else arb(v), {}, frozenset())

    start = [Slope(x, s, {i: one}, frozenset()) for i, (x, s) in enumerate(zip(place, star))]
    return list(interpret(program, start, number, _apply)[0].ravel())


def _apply(step: Step, *entries: Slope) -> Slope:
    """One elementwise step."""
    op = step.op
    if op == "add":
        return _sum(*entries)
    if op == "neg":
        return _scaled(entries[0], -1)
    if op == "sub":
        return _sum(entries[0], _scaled(entries[1], -1))
    if op == "mul":
        return _product(*entries)
    if op == "div":
        return _product(entries[0], _function(RECIPROCAL, entries[1]))
    if op == "abs":
        return _extreme(MAX, entries[0], _scaled(entries[0], -1))
    if op in ("max", "min"):
        return _extreme(step, *entries)
    return _function(step, *entries)


def _scaled(a: Slope, factor) -> Slope:
    rows = {i: forms.scaled(row, factor) for i, row in a.rows.items()}
    star = None if a.star is None else factor * a.star
    return Slope(forms.scaled(a.value, factor), star, rows, a.moving)


def _joined(some: dict, more: dict) -> dict:
    """The sums of rows."""
    return {**some, **{i: forms.add(some[i], v) if i in some else v for i, v in more.items()}}


def _sum(a: Slope, b: Slope) -> Slope:
    star = None if a.star is None else a.star + b.star
    return Slope(forms.add(a.value, b.value), star, _joined(a.rows, b.rows), a.moving | b.moving)


def _product(a: Slope, b: Slope) -> Slope:
    value = forms.mul(a.value, b.value)
    if a.star is None:
        rows = _joined(_times(a.value, b.rows), _times(b.value, a.rows))
        return Slope(value, None, rows, frozenset())
    choices = []
    for kept, other in ((a, b), (b, a)):
        is_zero = other.star == 0  # of balls, != is no negation of ==
        first, second = bool(other.rows), bool(kept.rows) and not is_zero
        needed = kept.reached | other.moving if first else frozenset()
        needed |= kept.moving if second else frozenset()
        choices.append((len(needed), first + second, kept, other, needed, second))
    *_, kept, other, needed, second = min(choices, key=lambda c: c[:2])
    rows = _times(kept.value, other.rows)
    if second:
        rows = _joined(rows, _scaled(kept, other.star).rows)
    return Slope(value, a.star * b.star, rows, needed)


def _times(factor: Form, rows: dict) -> dict:
    return {i: forms.mul(factor, row) for i, row in rows.items()}


def _extreme(step: Step, a: Slope, b: Slope) -> Slope:
    """max or min: the one that is above, or below, at both ends; else any mean of the two.

    Kinks have no derivative, and no Jacobian.
    """
    larger = step.op == "max"
    for one, other in ((a, b), (b, a)):
        high, low = (one, other) if larger else (other, one)
        if high.value.range > low.value.range and (a.star is None or high.star > low.star):
            return one
    if a.star is None:
        return Slope(Form(UNKNOWN, a.value.a, UNKNOWN), None, a.rows, a.moving)
    ends = (v.value.range for v in (a, b))
    star = functools.reduce(arb.max if larger else arb.min, (a.star, b.star))
    value = functools.reduce(arb.max if larger else arb.min, ends)
    blank, rows = forms.number(0, len(a.value.a)), {}
    for i in a.reached | b.reached:
        hull = a.rows.get(i, blank).range.union(b.rows.get(i, blank).range)
        rows[i] = blank._replace(r=hull)
    moving = a.moving | b.moving | a.reached | b.reached
    return Slope(blank._replace(r=value), star, rows, moving)


def _function(step: Step, a: Slope) -> Slope:
    """A function of one variable."""
    value = forms.function(step, a.value)
    if a.star is None:
        star, factor = None, forms.derivative(step, a.value)
    else:
        star = forms.curve(step, a.star)[0]
        if step == RECIPROCAL:
            factor = forms.scaled(value, -star)  # 1/b - 1/b* = -Δb / (b b*)
        else:
            factor = forms.divided_difference(step, a.value, a.star)
    rows = _times(factor, a.rows)
    return Slope(value, star, rows, a.moving | a.reached)
