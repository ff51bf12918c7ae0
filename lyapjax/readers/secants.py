"""Secant matrices: enclosures of F with f(x) - f(x*) = F(x) (x - x*), exactly, on a box.

Every step of the program carries, beside its interval over the box X, the interval rows of such an
F. At a product there is a choice,

    a b - a* b* = a Δb + b* Δa = b Δa + a* Δb,

and it decides what F depends on: with f(x*) = 0 much of the right-hand side of a mechanical system
is linear in most coordinates once a few of them (the angles) are known, and then F can be made to
depend on those few alone. Of the two, the one whose rows depend on fewer coordinates is taken. A
function of one variable contributes its divided difference

    [φ](a, a*) = (φ(a) - φ(a*)) / (a - a*),

which for sin, cos, tanh and arctan at a* = 0 is smooth in a, so that nothing is lost however far X
is from x*; otherwise it is the tighter of the quotient and of φ' over the hull of X and x*. Unlike
slopes over a box that holds x*, these become exact as X shrinks. All is computed in affine
arithmetic (see `affine`): F is known to first order in the place within the box, and its remainder
is of second order.

F is all that a proof about f near its equilibrium needs: x* itself is no exception, as nothing is
divided by x - x*. Everything is NumPy, on many boxes at once: compiled by XLA, an unrolled inverse
of a mass matrix is computed again for each of its uses.
"""

from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from lyapjax.readers import affine as aa
from lyapjax.readers.affine import Affine
from lyapjax.readers.ball import evaluate_balls
from lyapjax.readers.enclosure import COMPARISONS, MOVING
from lyapjax.readers.program import Program, Step
from lyapjax.readers.values import beside, dot, moved, total, value_of


class Base(NamedTuple):
    """The values of all steps at x*, and which of them are exactly 0."""

    values: tuple[Affine, ...]
    zero: tuple[bool, ...]


def base_of(program: Program, x: np.ndarray) -> Base:
    """The values of all steps at x*, from ball arithmetic."""
    places = tuple(k for k, step in enumerate(program.steps) if not _is_truth(step))
    whole = Program(program.steps, places, program.constants, None)
    found = dict(zip(places, evaluate_balls(whole, x)))
    values, zero = [], []
    for k, step in enumerate(program.steps):
        balls = found.get(k, np.full(step.shape, np.nan, object))
        lo, hi = (
            np.array([_end(v, side) for v in np.ravel(balls)]).reshape((*np.shape(balls), 1))
            for side in (-1, 1)
        )
        values.append(aa.between(lo, hi))
        zero.append(k in found and bool(np.all(lo == 0) and np.all(hi == 0)))
    return Base(tuple(values), tuple(zero))


def _is_truth(step: Step) -> bool:
    return step.op in {*COMPARISONS, "and", "or", "not", "truth", "truth_array"}


def _end(value, side: int) -> float:
    """A float below or above a ball, the number itself if it is one; NaN if it is not finite."""
    if isinstance(value, (int, float)) or not value.is_finite():
        return np.nan
    end = float(value.lower() if side < 0 else value.upper())
    return end if value == end else float(np.nextafter(end, side * np.inf))


class Rule(NamedTuple):
    """How rows are multiplied by what varies: here by affine arithmetic; `sectors` has another.

    `scale(times, factor, rows)` and `solve(M, rows)` return rows, `value(k, value, rows)` what is
    to be taken for the value of step k.
    """

    scale: Callable
    solve: Callable
    value: Callable


class _Here(NamedTuple):
    """What is known of a step: its pair, rows of F, and on which coordinates the rows depend."""

    value: Affine
    rows: list
    moving: frozenset

    @property
    def reached(self) -> frozenset:
        """The coordinates on which the value depends."""
        return frozenset(i for i, row in enumerate(self.rows) if row is not None)


def _scale(times: Callable, factor: Affine, rows: list) -> list:
    """The rows of factor Δ, Δ given by its rows; `times` is a product or a contraction."""
    return [None if row is None else times(factor, row) for row in rows]


def _plus(a: Affine | None, b: Affine | None) -> Affine | None:
    if a is None or b is None:
        return b if a is None else a
    return aa.add(a, b)


def _product(step, shapes, a: _Here, b: _Here, at: list[Affine], zero: list[bool], chosen, scale):
    """The rows of a product or contraction, by the chosen form, and which was chosen.

    If none is, by the form that depends on fewer coordinates.
    """

    def times(k: int):
        """The product of a factor in place k with a row in the other place."""
        if step.op == "mul":
            return aa.mul
        return lambda p, q: dot(step, shapes, *((p, q) if k == 0 else (q, p)))

    choices = []
    for k in (0, 1):
        kept, other = (a, b)[k], (a, b)[1 - k]
        first = bool(other.reached)
        second = bool(kept.reached) and not zero[1 - k]
        needed = (kept.reached | other.moving) if first else frozenset()
        needed |= kept.moving if second else frozenset()
        choices.append((len(needed), first + second, k, needed, second))
    best = min(choices, key=lambda c: c[:2]) if chosen is None else choices[chosen]
    _, _, k, needed, second = best
    kept, other = (a, b)[k], (a, b)[1 - k]
    rows = scale(times(k), kept.value, other.rows)
    if second:
        rest = _scale(times(1 - k), at[1 - k], kept.rows)
        rows = [_plus(*pair) for pair in zip_longest(rows, rest)]
    return [None if row is None or row.is_zero else row for row in rows], needed, k


def _solve(M: Affine, rows: list) -> list:
    """The rows of M⁻¹ Δ, Δ given by its rows, all at once."""
    some = [k for k, row in enumerate(rows) if row is not None]
    found = aa.solve(M, beside([rows[k] for k in some]))
    for place, k in enumerate(some):
        a = None if found.a is None else found.a[:, :, place]
        rows[k] = Affine(found.c[:, place], a, found.r[:, place])
    return rows


PLAIN = Rule(_scale, _solve, lambda k, value, rows: value)


def _first(op: str, inputs: list[_Here], at: list[Affine]) -> Affine:
    """λ in Δ max(a, b) = λ Δa + (1 - λ) Δb: 1 or 0 if one is taken at both ends, or any between."""
    (a, b), (a0, b0) = ([h.value.ends for h in inputs], [v.ends for v in at])
    above = (a[0] >= b[1]) & (a0[0] >= b0[1])
    below = (b[0] >= a[1]) & (b0[0] >= a0[1])
    first, second = (above, below) if op == "max" else (below, above)
    return Affine(np.where(first, 1.0, np.where(second, 0.0, 0.5)), None, 0.5 * ~(first | second))


def _rows(step, shapes, inputs: list[_Here], at: list[Affine], zero: list[bool], chosen, rule):
    """Rows of F for one step, the coordinates on which they depend, and the form of a product."""
    op, columns = step.op, list(zip_longest(*(h.rows for h in inputs)))
    moving = frozenset().union(*(h.moving for h in inputs))
    every = frozenset().union(*(h.reached for h in inputs))
    if not every:
        return [None] * len(columns), frozenset(), None
    if op in MOVING:
        blank = [aa.point(np.zeros((*shape, 1))) for shape in shapes]
        rows = []
        for parts in columns:
            parts = [z if g is None else g for g, z in zip(parts, blank)]
            row = moved(step, shapes, parts)
            rows.append(None if row.is_zero else row)
        return rows, moving, None
    if op in ("add", "sub"):
        turn = aa.neg if op == "sub" else (lambda g: g)
        return [_plus(p, None if q is None else turn(q)) for p, q in columns], moving, None
    if op == "neg":
        return [None if g is None else aa.neg(g) for (g,) in columns], moving, None
    if op in ("mul", "dot"):
        return _product(step, shapes, *inputs, at, zero, chosen, rule.scale)
    if op == "reduce_sum":
        return [None if g is None else total(step, shapes, g) for (g,) in columns], moving, None
    if op == "solve":
        # M a = b: Δa = M⁻¹ (Δb - ΔM a*)
        rows, needed = [row for _, row in columns], inputs[1].moving
        if not zero[1]:
            start = aa.neg(aa.solve(at[0], beside([at[1]])))
            turned = Affine(start.c[None, :, 0], None, start.r[None, :, 0])
            for k, (row, _) in enumerate(columns):
                row = None if row is None else aa.total(aa.mul(row, turned), (1,))
                rows[k] = _plus(rows[k], row)
            needed = moving
        return rule.solve(inputs[0].value, rows), needed | inputs[0].reached, None
    # What is left is a factor that varies times a difference: Δ(step) = factor Δ + rest
    rest: list = []
    if op == "div":
        # Δ(a/b) = (Δa - (a*/b*) Δb) / b
        factor, moving = aa.reciprocal(inputs[1].value), moving | inputs[1].reached
        rows = [p for p, _ in columns]
        if not zero[0]:
            ratio = aa.neg(aa.mul(at[0], aa.reciprocal(at[1])))
            rows = [_plus(p, None if q is None else aa.mul(ratio, q)) for p, q in columns]
    elif op in ("max", "min"):
        factor, moving = _first(op, inputs, at), moving | every
        rows = [_plus(p, None if q is None else aa.neg(q)) for p, q in columns]
        rest = inputs[1].rows
    elif op == "integer_pow" and step.params[0] > 0:
        power, a, factor, moving = step.params[0], inputs[0].value, None, moving | every
        for k in range(power):
            if k == power - 1 or not zero[0]:
                term = aa.mul(aa.integer_pow(a, k), aa.integer_pow(at[0], power - 1 - k))
                factor = _plus(factor, term)
        rows = inputs[0].rows
    elif op in {*aa.SLOPES, "square", "abs"}:
        factor = aa.divided_difference(op, inputs[0].value, at[0], is_zero=zero[0])
        rows, moving = inputs[0].rows, moving | every
    else:
        raise NotImplementedError(f"fn: no secants of the operation {op!r}")
    rows = rule.scale(aa.mul, factor, rows)
    return [_plus(*pair) for pair in zip_longest(rows, rest)], moving, None


class Secants(NamedTuple):
    """Enclosures over boxes: f(x) = f(x*) + F z, x - x* = R z.

    `value` is of shape (*shape, B), `matrix` (*shape, n, B), both with K coefficients; `bad` (B,)
    says where nothing is known.
    """

    value: Affine
    matrix: Affine
    bad: np.ndarray


class Plan(NamedTuple):
    """The form chosen for each product; on which coordinates each output and its F depend."""

    forms: tuple
    moving: tuple[frozenset, ...]
    reached: tuple[frozenset, ...]


def plan_of(program: Program, base: Base, x: np.ndarray) -> Plan:
    """Choose the forms: by tracing once, in the coordinates x themselves, close to x*."""
    n = len(x)
    probe = Affine(x[:, None], 1e-6 * np.eye(n)[:, :, None], np.zeros((n, 1)))
    known, _, forms = run(program, base, probe, np.eye(n), [None] * len(program.steps))
    outputs = [known[k] for k in program.outputs]
    return Plan(tuple(forms), tuple(v.moving for v in outputs), tuple(v.reached for v in outputs))


def secants(program: Program, base: Base, plan: Plan, x: Affine, R: np.ndarray) -> list[Secants]:
    """The secants of every output over boxes, x of shape (n, B) with K coefficients."""
    known, bad, _ = run(program, base, x, R, plan.forms)
    return [_finished(program, k, known[k], bad, len(x.a)) for k in program.outputs]


def run(program: Program, base: Base, x: Affine, R: np.ndarray, forms, rule: Rule = PLAIN):
    """All steps: what is known of each, where nothing is, and the forms of the products."""
    n, batch = x.c.shape
    known: list[_Here] = []
    bad, chosen = np.zeros(batch, bool), []
    with np.errstate(all="ignore"):
        for k, step in enumerate(program.steps):
            here, form = _Here(base.values[k], [None] * n, frozenset()), None
            if step.op == "input":
                seeds = [aa.point(column[:, None]) for column in R.T]
                here = _Here(x, seeds, frozenset())
            elif step.inputs:
                inputs = [known[i] for i in step.inputs]
                shapes = [program.steps[i].shape for i in step.inputs]
                if any(h.reached for h in inputs):
                    at = [base.values[i] for i in step.inputs]
                    zero = [base.zero[i] for i in step.inputs]
                    value = value_of(step, shapes, [h.value for h in inputs])
                    rows, moving, form = _rows(step, shapes, inputs, at, zero, forms[k], rule)
                    here = _Here(rule.value(k, value, rows), rows, moving)
            known.append(here)
            chosen.append(form)
            finite = np.isfinite(here.value.c) & np.isfinite(here.value.reach)
            bad |= ~finite.all(axis=tuple(range(finite.ndim - 1)))
    return known, bad, chosen


def _finished(program: Program, k: int, here: _Here, bad, count: int) -> Secants:
    """One output with every array at its full shape."""
    shape = (*program.steps[k].shape, len(bad))

    def full(v: Affine | None) -> Affine:
        v = aa.point(np.zeros(1)) if v is None else v
        a = np.zeros((count, 1)) if v.a is None else v.a
        a = a.reshape((count, *(1,) * (len(shape) + 1 - a.ndim), *a.shape[1:]))
        ends = (np.broadcast_to(u, shape) for u in (v.c, v.r))
        return Affine(next(ends), np.broadcast_to(a, (count, *shape)), next(ends))

    rows = [full(row) for row in here.rows]
    matrix = Affine(
        np.stack([v.c for v in rows], axis=-2),
        np.stack([v.a for v in rows], axis=-2),
        np.stack([v.r for v in rows], axis=-2),
    )
    return Secants(full(here.value), matrix, bad)
