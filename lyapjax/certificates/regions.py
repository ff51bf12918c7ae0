"""What the certificate of a region claims, and its check in ball arithmetic.

    V(x) = y'P y + ‖φ(x)‖²,    y = x - x* = R z:    V(x(0)) <= c   implies   x(t) → x*

With f = F y and φ = Φ y (see `slopes`) and the Jacobian Dφ from jets,

    V̇ = 2 (P y + Dφ'φ)'f = z'M z,    M = R'(2 P + 2 Φ'Dφ)'F R,

a form whose entries are known to first order in the first K coordinates of z, which the boxes cut,
for all values of the others: on a box

    M in C + Σ_k ε_k C_k ± S,    |ε_k| <= 1.

Each box [a, b] brings multipliers t >= 0, found by whoever made the certificate. The box is done if

    -M(z) + t_0 (|z|² - ρ s²) + Σ_j t_j (z_j - a_j s)(z_j - b_j s)

is positive definite in (z, s) for all these ε, where ρ is the greatest |z|² with V <= c on it; if
all t are 0, -M(z) in z. A box that is not done is cut, and its parts keep its t, a and b: what is
to be shown does not change, and M becomes sharper.

Besides: f and φ are exactly 0 at x*; R'P R is about the identity, which bounds |z| and shows that P
is positive definite; the ellipsoid {y'P y <= c} lies in the domain; and the boxes cover {V <= c}.
Then V falls along every trajectory from {V <= c}, which therefore stays, and tends to x*.
"""

import itertools
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

from lyapjax.certificates import forms
from lyapjax.certificates.certificate import inexact, read_program
from lyapjax.certificates.checking import (
    MAX_DEPTH,
    Budget,
    Failed,
    exact,
    give_up,
    is_definite,
    keep_time,
)
from lyapjax.certificates.covers import clean_cut
from lyapjax.certificates.forms import UNIT, ZERO, Form
from lyapjax.certificates.slopes import Slope, secants, tangents
from lyapjax.proofs.attraction import claimed_region
from lyapjax.readers.jets import UNKNOWN
from lyapjax.readers.program import JUMPS, KINKS


class Cell(NamedTuple):
    """x on a box of the coordinates that are cut and in the ball, and the least |z|² there."""

    place: list[Form]
    least: arb


class RegionClaim:
    """The numbers and functions of a certificate of a region."""

    def __init__(self, document: dict):
        features = document["features"]
        self.f = read_program(document["f"])
        self.features = None if features is None else read_program(features)
        self.x = inexact(document["equilibrium"])
        n = len(self.x)
        self.star = [arb(v) for v in self.x.tolist()]
        self.P, self.R = (exact(inexact(document[name])) for name in ("P", "R"))
        self.c = float.fromhex(document["level"])
        self.is_ball = document["domain"]["kind"] == "ball"
        self.numbers = [arb(v) for v in inexact(document["domain"]["numbers"]).tolist()]
        if (self.P - self.P.transpose()).tolist() != [[0] * n] * n or not 0 < self.c < np.inf:
            raise Failed("form: P is not symmetric, or the level not positive")
        # (1 - η) |z|² <= y'P y, by Gershgorin's circles.
        image = self.R.transpose() * self.P * self.R
        rows = [sum((abs(image[i, j] - (i == j)) for j in range(n)), ZERO) for i in range(n)]
        self.share = arb((1 - max(arb(v.upper()) for v in rows)).lower())
        if not self.share > 0:
            raise Failed("form: R'P R is not about the identity")
        self.rho = arb((arb(self.c) / self.share).upper())
        self.is_plain = False  # there is no reading of it in plain intervals

    @property
    def statement(self) -> str:
        """What the numbers claim, in words."""
        return claimed_region(self.c, self.features is not None, self.x)

    def cell(self, lo: np.ndarray, hi: np.ndarray) -> Cell:
        """The cell of a box."""
        middle = [arb(v) for v in (0.5 * lo + 0.5 * hi).tolist()]
        half = [(arb(b) - m).max(m - arb(a)) for a, b, m in zip(lo.tolist(), hi.tolist(), middle)]
        least = sum((v**2 for v in _least(lo, hi)), ZERO)
        rest = arb((self.rho - least).upper()).max(ZERO).sqrt() * UNIT
        place, k = [], len(middle)
        for row, at in zip(self.R.tolist(), self.star):
            c = sum((r * m for r, m in zip(row, middle)), at)
            r = sum((v * rest for v in row[k:] if v != 0), ZERO)
            place.append(Form(c, tuple(v * h for v, h in zip(row, half)), r))
        return Cell(place, least)

    def clipped(self, lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """What of a box lies in the ball, or a little more; None if nothing does."""
        least = _least(lo, hi)
        room = self.rho - sum((v**2 for v in least), ZERO)
        if room < 0:
            return None
        reach = np.array([_above(arb((room + v**2).upper()).max(ZERO).sqrt()) for v in least])
        return np.maximum(lo, -reach), np.minimum(hi, reach)

    def room(self, cell: Cell) -> arb:
        """The greatest |z|² with V <= c on a cell."""
        if self.features is None:
            return self.rho
        values = [v.value.range for v in secants(self.features, cell.place, self.star)]
        if not all(v.is_finite() for v in values):
            return self.rho
        square = sum((arb(v.abs_lower()) ** 2 for v in values), ZERO)
        return arb(((arb(self.c) - square) / self.share).upper())

    def form(self, cell: Cell) -> tuple[arb_mat, list[arb_mat]]:
        """C ± S and the C_k of M over a cell."""
        n, width = len(self.x), len(cell.place[0].a)
        blank = 0 * self.P
        R = _Matrices(self.R, [blank] * width, blank)
        # R'P is about the inverse of R, and triangular if R is: it comes before the rest.
        A = _Matrices(2 * (self.R.transpose() * self.P), [blank] * width, blank)
        if self.features is not None:
            outer = _times(_matrices(secants(self.features, cell.place, self.star), n), R)
            inner = _matrices(tangents(self.features, cell.place), n)
            extra = _times(_Matrices(*_transposed(outer)), inner)
            parts = [2 * part for part in extra.parts]
            A = _Matrices(A.c + 2 * extra.c, parts, 2 * extra.r)
        M = _times(A, _times(_matrices(secants(self.f, cell.place, self.star), n), R))
        return _symmetric(M.c + M.r), [_symmetric(part) for part in M.parts]


def _symmetric(inner: arb_mat) -> arb_mat:
    return (inner + inner.transpose()) / 2


class _Matrices(NamedTuple):
    """A matrix of forms, as c + Σ ε_k parts_k + r."""

    c: arb_mat
    parts: list[arb_mat]
    r: arb_mat

    @property
    def spread(self) -> arb_mat:
        """What it may differ from c."""
        return sum((part * UNIT for part in self.parts), self.r)


def _matrices(found: list[Slope], n: int) -> _Matrices:
    """The rows of entries; not finite if an entry may be undefined."""
    width = len(found[0].value.a)
    zero = forms.number(0, width)
    known = all(entry.value.range.is_finite() for entry in found)
    blank = zero if known else zero._replace(r=UNKNOWN)
    rows = [[forms.add(e.rows.get(i, zero), blank) for i in range(n)] for e in found]
    parts = [arb_mat([[v.a[k] for v in row] for row in rows]) for k in range(width)]
    return _Matrices(
        arb_mat([[v.c for v in row] for row in rows]),
        parts,
        arb_mat([[v.r for v in row] for row in rows]),
    )


def _transposed(x: _Matrices) -> tuple:
    return x.c.transpose(), [part.transpose() for part in x.parts], x.r.transpose()


def _times(x: _Matrices, y: _Matrices) -> _Matrices:
    parts = [x.c * q + p * y.c for p, q in zip(x.parts, y.parts, strict=True)]
    return _Matrices(x.c * y.c, parts, x.c * y.r + x.r * y.c + x.spread * y.spread)


def _least(lo: np.ndarray, hi: np.ndarray) -> list[arb]:
    """The least |z_j| on a box."""
    across = (lo <= 0) & (hi >= 0)
    return [arb(v) for v in np.where(across, 0.0, np.minimum(abs(lo), abs(hi))).tolist()]


def _falls(claim: RegionClaim, cell: Cell, T: arb_mat | None) -> tuple[bool, np.ndarray]:
    """Whether V̇ < 0 is shown on a cell; if not, how much each coordinate stands in the way."""
    n, k = len(claim.x), len(cell.place[0].a)
    M, parts = claim.form(cell)
    for signs in itertools.product((-1, 1), repeat=k):
        N = -sum((sign * part for sign, part in zip(signs, parts)), M)
        if T is not None:
            rows = [[*row, ZERO] for row in N.tolist()]
            N = arb_mat([*rows, [ZERO] * (n + 1)]) + T
        if not is_definite(N):
            break
    else:
        return True, np.zeros(k)
    # What is of second order is shared out by the squares of the widths.
    width = np.array([sum(float(v.a[k].abs_upper()) for v in cell.place) for k in range(k)])
    rest = sum(float(v.rad()) for v in M.entries())
    scores = [sum(float(abs(v).mid()) for v in p.entries()) for p in parts]
    return False, np.array(scores) + 0.1 * rest * width**2 / max(np.sum(width**2), 1e-300)


def constraints(n: int, rho: arb, lo, hi, multipliers: list) -> arb_mat | None:
    """t_0 (|z|² - ρ s²) + Σ_j t_j (z_j - a_j s)(z_j - b_j s) in (z, s); None if all t are 0."""
    if not any(multipliers):
        return None
    T = arb_mat(n + 1, n + 1)
    first, *others = (arb(t) for t in multipliers)
    for i in range(n):
        T[i, i] = first
    T[n, n] = -first * rho
    for j, (t, a, b) in enumerate(zip(others, lo.tolist(), hi.tolist())):
        T[j, j] += t
        T[j, n] = T[n, j] = -t * (arb(a) + arb(b)) / 2
        T[n, n] += t * arb(a) * arb(b)
    return T


def smooth(claim: RegionClaim) -> None:
    """f and φ are 0 at x*, and smooth enough; else `Failed`."""
    n = len(claim.x)
    if claim.f.steps[claim.f.outputs[0]].shape != (n,):
        raise Failed(f"functions: f has not {n} entries")
    place = [forms.number(v, 0) for v in claim.star]
    for name, program in (("f", claim.f), ("φ", claim.features)):
        if program is None:
            continue
        if program.ops & (JUMPS if name == "f" else JUMPS | KINKS):
            raise Failed(f"functions: {name} may jump or have kinks")
        if not all(entry.star == 0 for entry in secants(program, place, claim.star)):
            raise Failed(f"functions: {name}(x*) is not 0")


def _functions(claim: RegionClaim, boxes, budget: Budget) -> int:
    """The arrays fit together; f and φ are as they have to be."""
    n, (lo, hi, multipliers) = len(claim.x), boxes
    k = lo.shape[-1]
    if not (
        k <= n and lo.shape == hi.shape == (len(lo), k) and multipliers.shape == (len(lo), 1 + k)
    ):
        raise Failed("functions: the boxes have not the shapes of each other")
    smooth(claim)
    return 0


def _inside(claim: RegionClaim, boxes, budget: Budget) -> int:
    """{y'P y <= c} lies in the interior of the domain."""
    n = len(claim.x)
    if claim.is_ball:
        radius, *centre = claim.numbers
        away = sum(((a - b) ** 2 for a, b in zip(claim.star, centre, strict=True)), ZERO).sqrt()
        room = radius - away
        share = room**2 / claim.rho
        identity = arb_mat([[share * (i == j) for j in range(n)] for i in range(n)])
        if room > 0 and is_definite(identity - claim.R.transpose() * claim.R):
            return 0
        raise Failed("inside: the ellipsoid may leave the domain")
    lo, hi = claim.numbers[:n], claim.numbers[n:]
    for row, at, low, high in zip(claim.R.tolist(), claim.star, lo, hi, strict=True):
        reach = (claim.rho * sum((r**2 for r in row), ZERO)).sqrt()
        if not (at - reach > low and at + reach < high):
            raise Failed("inside: the ellipsoid may leave the domain")
    return 0


def _cover(claim: RegionClaim, boxes, budget: Budget) -> int:
    """The boxes cover {V <= c}, in the coordinates that are cut."""
    los, his, _ = boxes
    k = los.shape[1]
    top = np.full(k, _above(claim.rho.sqrt()))
    work, count = [(-top, top, los, his, 0)], 0
    while work:
        lo, hi, los, his, depth = work.pop()
        if (part := claim.clipped(lo, hi)) is None:
            continue
        lo, hi = part
        if ((los <= lo) & (his >= hi)).all(axis=1).any():
            continue
        meets = np.where(lo < hi, (los < hi) & (his > lo), (los <= lo) & (his >= hi)).all(axis=1)
        los, his = los[meets], his[meets]
        cut = clean_cut(lo, hi, los, his)
        if cut is None:
            count += 1
            cell = claim.cell(lo, hi)
            if not len(los) and claim.room(cell) < cell.least:
                continue
            keep_time("cover", budget)
            if depth >= MAX_DEPTH or not k:
                raise Failed(f"cover: no box holds what is around {(0.5 * (lo + hi)).tolist()}")
            axis = int(np.argmax(hi - lo))
            cut = axis, 0.5 * lo[axis] + 0.5 * hi[axis]
            depth += 1
        axis, at = cut
        below, above = hi.copy(), lo.copy()
        below[axis] = above[axis] = at
        left, right = los[:, axis] < at, his[:, axis] > at
        work.append((lo, below, los[left], his[left], depth))
        work.append((above, hi, los[right], his[right], depth))
    return count


def _above(value: arb) -> float:
    return float(np.nextafter(float(value.upper()), np.inf))


def _falling(claim: RegionClaim, boxes, budget: Budget) -> int:
    """V̇ < 0 on every box, but at x*."""
    count, k = 0, boxes[0].shape[1]
    if not ((boxes[2] >= 0) & (boxes[2] < np.inf)).all():
        raise Failed("falling: a multiplier is not a number >= 0")
    for lo, hi, multipliers in zip(*boxes[:2], boxes[2].tolist()):
        work = [(lo, hi, 0)]
        while work:
            keep_time("falling", budget)
            low, high, depth = work.pop()
            if (part := claim.clipped(low, high)) is None:
                continue
            (low, high), count = part, count + 1
            cell = claim.cell(low, high)
            rho = claim.room(cell)
            if rho < cell.least:
                continue
            T = constraints(len(claim.x), rho, lo, hi, multipliers)
            done, scores = _falls(claim, cell, T)
            if done:
                continue
            give_up("falling", low, high, depth if k else MAX_DEPTH)
            widths = np.where(np.isfinite(scores), scores, 0.0) if scores.all() else high - low
            axis = int(np.argmax(widths))
            below, above = high.copy(), low.copy()
            below[axis] = above[axis] = 0.5 * low[axis] + 0.5 * high[axis]
            work += [(low, below, depth + 1), (above, high, depth + 1)]
    return count


OBLIGATIONS = {
    "functions": _functions,
    "inside": _inside,
    "cover": _cover,
    "falling": _falling,
}
