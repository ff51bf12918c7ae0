"""A program as a linear map with named factors, over one box, in ball arithmetic.

The replay's own reading of what `readers.sectors` does for the prover, of which it uses nothing.
With x - x* = R z, every entry of a program carries its value over the box and the ball |z|² <= ρ
and its change from x*, which is linear in z and in names w,

    a - a* = Σ_k g_k z_k + Σ_p g_p w_p,        w_p = d_p q_p,   |d_p| <= h_p,

q_p linear in z and w too. The g are balls of rounding only: wherever a factor that varies, within
c ± h, meets a change q, the product is c q + w with a new name. A factor times a product that is
named already, (g q) times the factor, is one product of a wider factor instead of two.

Products are read as in `slopes`; a function of one variable contributes its divided difference; the
solution of M a = b is C⁻¹ (b - Σ_j w_ij), w_ij = d_ij a_j, about the middle C of M. Which names
there are does not depend on the box: the multipliers of a certificate come in their order.
"""

from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

from lyapjax.certificates.checking import is_definite
from lyapjax.certificates.forms import UNIT, ZERO, curve
from lyapjax.certificates.ranges import divided_differences, values
from lyapjax.readers.jets import UNKNOWN, interpret
from lyapjax.readers.program import Program, Step

MAX, RECIPROCAL = (Step(op, (), params, ()) for op, params in (("max", ()), ("integer_pow", (-1,))))


class Linear(NamedTuple):
    """A linear function of (z, w): coefficients by column; if it is g q, g and those of q."""

    rows: dict[int, arb]
    product: tuple[arb, dict] | None = None


NOTHING = Linear({})


class Entry(NamedTuple):
    """An entry of a program.

    `change` is from x*; `rate` along trajectories, None where unknown; the value depends on the
    coordinates `reached`, the factors in the change on those of `moving`.
    """

    value: arb
    star: arb
    change: Linear
    rate: Linear | None
    reached: frozenset = frozenset()
    moving: frozenset = frozenset()


class Factor(NamedTuple):
    """w = d q, d = what varies - centre, |d| <= half, q by its coefficients."""

    rows: dict[int, arb]
    centre: arb
    half: arb


def plus(a: Linear, b: Linear) -> Linear:
    """a + b."""
    if not (a.rows and b.rows):
        return a if a.rows else b
    rows = {**a.rows, **{k: a.rows[k] + v if k in a.rows else v for k, v in b.rows.items()}}
    return Linear(rows)


def scaled(a: Linear, number: arb) -> Linear:
    """a times a number."""
    if number == 0 or not a.rows:
        return NOTHING
    product = None if a.product is None else (number * a.product[0], a.product[1])
    return Linear({k: number * v for k, v in a.rows.items()}, product)


class Reading:
    """Reads programs on the part of a ball in a box, and keeps what it named."""

    def __init__(self, R: arb_mat, star: list[arb], lo: np.ndarray, hi: np.ndarray, rho: arb):
        self.R, self.star, self.n = R, star, len(star)
        self.lo, self.hi, self.rho = lo, hi, rho
        self.factors: list[Factor] = []
        self.is_known = True  # every value is a number

    def entries(self, program: Program, rates: list[Linear] | None = None) -> list[Entry]:
        """The entries of the output; with those of x along trajectories, their rates too."""
        start = []
        for i, star in enumerate(self.star):
            change = Linear({k: self.R[i, k] for k in range(self.n) if self.R[i, k] != 0})
            rate = None if rates is None else rates[i]
            value = star + self.range(change)
            start.append(Entry(value, star, change, rate, frozenset([i])))

        def number(v: float) -> Entry:
            return Entry(arb(v), arb(v), NOTHING, None if rates is None else NOTHING)

        return list(interpret(program, start, number, self.apply, self.solve)[0].ravel())

    def range(self, a: Linear) -> arb:
        """The values of a function of z alone."""
        g = [a.rows.get(k, ZERO) for k in range(self.n)]
        high, low = self.greatest(g), -self.greatest([-v for v in g])
        return arb(low.lower()).union(arb(high.upper()))

    def greatest(self, g: list[arb]) -> arb:
        """An upper bound of g'z where lo <= z <= hi and |z|² <= ρ.

        For every μ > 0 that is Σ_k max (g_k z_k - μ z_k²) + μ ρ, the maxima over [lo_k, hi_k]: at
        an end where g_k/(2 μ) is beyond it, and not above g_k²/(4 μ) in any case.
        """
        slope, rho = np.array([float(v.mid()) for v in g]), float(self.rho.mid())
        mu = max(np.linalg.norm(slope), 1e-300) / (2 * np.sqrt(rho))
        for spread in (20.0, 1.0, 0.04):
            some = mu * np.exp(np.linspace(-spread, spread, 61))[:, None]
            z = np.clip(slope / (2 * some), self.lo, self.hi)
            value = (slope * z - some * z * z).sum(axis=1) + some[:, 0] * rho
            mu = float(some[np.argmin(value), 0])
        mu, total, box = arb(mu), arb(mu) * self.rho, ZERO
        for v, a, b in zip(g, self.lo.tolist(), self.hi.tolist()):
            top, (a, b) = v / (2 * mu), (arb(a), arb(b))
            end = a if top < a else b if top > b else None
            total += v * top / 2 if end is None else v * end - mu * end**2
            box += (v * a).max(v * b)
        return total.min(box)

    def times(self, factor: arb, a: Linear) -> Linear:
        """A factor that varies times a linear function."""
        if not a.rows:
            return NOTHING
        rows = a.rows
        if a.product is not None:
            factor, rows = factor * a.product[0], a.product[1]
        centre = factor.mid()
        column = self.n + len(self.factors)
        self.factors.append(Factor(rows, centre, arb(abs(factor - centre).upper())))
        found = {k: centre * v for k, v in rows.items()} | {column: arb(1)}
        return Linear(found, (factor, rows))

    def made(self, entry: Entry) -> Entry:
        """An entry whose value is cut down to what its change allows, if that is known."""
        self.is_known &= bool(entry.value.is_finite())
        rows = entry.change.rows
        if not self.is_known or not rows or any(k >= self.n for k in rows):
            return entry
        allowed = entry.star + self.range(entry.change)
        if not entry.value.overlaps(allowed):
            return entry  # there is nothing of the ball in the box
        return entry._replace(value=entry.value.intersection(allowed))

    def apply(self, step: Step, *entries: Entry) -> Entry:
        """One elementwise step."""
        op = step.op
        if op == "add":
            found = self._sum(*entries)
        elif op == "sub":
            found = self._sum(entries[0], _negative(entries[1]))
        elif op == "neg":
            found = _negative(*entries)
        elif op == "mul":
            found = self._product(*entries)
        elif op == "div":
            found = self._quotient(*entries)
        elif op == "abs":
            found = self._extreme(MAX, entries[0], _negative(entries[0]))
        elif op in ("max", "min"):
            found = self._extreme(step, *entries)
        else:
            found = self._function(step, *entries)
        return self.made(found)

    def _sum(self, a: Entry, b: Entry) -> Entry:
        rate = None if a.rate is None else plus(a.rate, b.rate)
        change, reached = plus(a.change, b.change), a.reached | b.reached
        value, star = a.value + b.value, a.star + b.star
        return Entry(value, star, change, rate, reached, a.moving | b.moving)

    def by(self, factor: Entry, a: Linear) -> Linear:
        """The value of an entry times a linear function."""
        return self.times(factor.value, a) if factor.reached else scaled(a, factor.star)

    def _product(self, a: Entry, b: Entry) -> Entry:
        """a b - a* b* = a Δb + b* Δa: of the two forms the one that depends on fewer places."""
        choices = []
        for kept, other in ((a, b), (b, a)):
            is_zero = other.star == 0  # of balls, != is no negation of ==
            first, second = bool(other.reached), bool(kept.reached) and not is_zero
            needed = kept.reached | other.moving if first else frozenset()
            needed |= kept.moving if second else frozenset()
            choices.append((len(needed), first + second, kept, other, needed))
        *_, kept, other, needed = min(choices, key=lambda c: c[:2])
        change = plus(self.by(kept, other.change), scaled(kept.change, other.star))
        rate = None
        if a.rate is not None:
            rate = plus(self.by(a, b.rate), self.by(b, a.rate))
        reached = a.reached | b.reached
        return Entry(a.value * b.value, a.star * b.star, change, rate, reached, needed)

    def _quotient(self, a: Entry, b: Entry) -> Entry:
        """a/b - a*/b* = (Δa - (a*/b*) Δb) / b."""
        inverse = self._function(RECIPROCAL, b._replace(rate=None))
        star = a.star * inverse.star
        change = self.by(inverse, plus(a.change, scaled(b.change, -star)))
        rate = None
        if a.rate is not None:
            ratio = Entry(-a.value * inverse.value, -star, NOTHING, None, a.reached | b.reached)
            rate = self.by(inverse, plus(a.rate, self.by(ratio, b.rate)))
        moving = a.moving | b.moving | b.reached
        return Entry(a.value * inverse.value, star, change, rate, a.reached | b.reached, moving)

    def _extreme(self, step: Step, a: Entry, b: Entry) -> Entry:
        """max or min: λ Δa + (1 - λ) Δb with 0 <= λ <= 1. Kinks have no rate."""
        larger = step.op == "max"
        high, low = (a, b) if larger else (b, a)
        first = high.value > low.value and high.star >= low.star
        second = high.value < low.value and high.star <= low.star
        share = arb(int(first)) if first or second else (1 + UNIT) / 2
        pairs = (a.value, b.value), (a.star, b.star)
        value, star = (p.max(q) if larger else p.min(q) for p, q in pairs)
        reached = a.reached | b.reached
        change = b.change
        if reached:
            gap = plus(a.change, scaled(b.change, arb(-1)))
            change = plus(self.times(share, gap), b.change)
        return Entry(value, star, change, None, reached, a.moving | b.moving | reached)

    def _function(self, step: Step, a: Entry) -> Entry:
        """A function of one variable."""
        star = curve(step, a.star)[0]
        if not a.reached:
            return Entry(star, star, NOTHING, None if a.rate is None else NOTHING)
        if not a.value.is_finite():
            self.is_known = False
        value = values(lambda v: curve(step, v)[0], lambda v: curve(step, v)[1], a.value)
        change = self.times(divided_differences(step, a.value, a.star), a.change)
        rate = None
        if a.rate is not None:
            slope = values(lambda v: curve(step, v)[1], lambda v: curve(step, v)[2], a.value)
            rate = self.times(slope, a.rate)
        return Entry(value, star, change, rate, a.reached, a.moving | a.reached)

    def solve(self, M: np.ndarray, b: np.ndarray) -> list[Entry]:
        """a of M a = b, by the lower triangle of M, as `systems.solve` reads it.

        M over the box is C + D, C positive definite. If |C⁻¹ D| v < v for some v > 0, every matrix
        of that kind is regular; as they are connected, M is positive definite everywhere.
        """
        n = len(b)
        M = [[M[max(i, j), min(i, j)] for j in range(n)] for i in range(n)]
        star, right = arb_mat(n, 1), [entry.change for entry in b]
        if not all(entry.star == 0 for entry in b):
            there = arb_mat([[v.star for v in row] for row in M])
            star = there.inv() * arb_mat([[entry.star] for entry in b])
        C = arb_mat([[v.value.mid() if v.reached else v.value for v in row] for row in M])
        D = arb_mat([[v.value for v in row] for row in M]) - C
        start, used = len(self.factors), []
        for i, row in enumerate(M):
            for j, entry in enumerate(row):
                right[i] = plus(right[i], scaled(entry.change, -star[j, 0]))
                if entry.reached:
                    column = self.n + len(self.factors)
                    right[i] = plus(right[i], Linear({column: arb(-1)}))
                    self.factors.append(Factor({}, C[i, j], arb(abs(D[i, j]).upper())))
                    used.append(j)
        reached = frozenset().union(*(v.reached for row in (*M, b) for v in row))
        moving = frozenset().union(*(v.moving for row in (*M, b) for v in row))
        moving |= frozenset().union(*(v.reached for row in M for v in row))
        if not (is_definite(C) and all(v.is_finite() for v in D.entries())):
            self.is_known = False
            return [Entry(UNKNOWN, star[i, 0], NOTHING, None, reached, moving) for i in range(n)]
        inverse = C.inv()
        columns = sorted(set().union(*(a.rows for a in right)))
        image = inverse * arb_mat([[a.rows.get(k, ZERO) for k in columns] for a in right])
        changes = [Linear(dict(zip(columns, row))) for row in image.tolist()]
        for p, j in enumerate(used):
            self.factors[start + p] = self.factors[start + p]._replace(rows=changes[j].rows)
        middle = inverse * arb_mat([[entry.value] for entry in b])
        reach = _solution_reach(inverse * D, middle)
        entries = []
        for i in range(n):
            value = UNKNOWN if reach is None else middle[i, 0] + reach[i] * UNIT
            entry = Entry(value, star[i, 0], changes[i], None, reached, moving)
            entries.append(self.made(entry))
        return entries


def _negative(a: Entry) -> Entry:
    minus = arb(-1)
    rate = None if a.rate is None else scaled(a.rate, minus)
    return a._replace(value=-a.value, star=-a.star, change=scaled(a.change, minus), rate=rate)


def _solution_reach(E: arb_mat, middle: arb_mat) -> list[arb] | None:
    """How far a = middle - E a may be from the middle, entry by entry; None if not known.

    With |E| v <= κ v, κ < 1, and |middle| <= μ v, it is |a| <= v μ/(1 - κ).
    """
    n = E.nrows()
    size = arb_mat([[arb(abs(E[i, j]).upper()) for j in range(n)] for i in range(n)])
    rough = np.array([float(v) for v in size.entries()]).reshape(n, n)
    if not np.isfinite(rough).all():
        return None
    try:
        v = np.linalg.solve(np.eye(n) - rough, np.ones(n))
    except np.linalg.LinAlgError:
        return None
    if not ((v > 0) & np.isfinite(v)).all():
        return None
    v = arb_mat([[arb(a)] for a in v.tolist()])
    image = size * v
    share = _most([image[i, 0] / v[i, 0] for i in range(n)])
    if not share < 1:
        return None
    most = _most([abs(middle[i, 0]) / v[i, 0] for i in range(n)])
    return [image[i, 0] * most / (1 - share) for i in range(n)]


def _most(values: list[arb]) -> arb:
    found = values[0]
    for value in values[1:]:
        found = found.max(value)
    return arb(found.upper())
