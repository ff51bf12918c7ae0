"""What the certificate of a region proved by sectors claims of each box, and its check.

The claim is that of `regions`, and so are three of its obligations. With f and ∇‖φ‖²'f read as in
`factors`, on a box [a, b] in the ball |z|² <= ρ

    V̇ = 2 (P y)'f + 2 φ'φ̇ = ζ'C ζ,        ζ = (z, w),    w_p = d_p q_p(ζ),  |d_p| <= h_p,

C and the q known but for rounding. φ̇ is the rate along trajectories, formed here by the rules of
differentiation. The box brings t >= 0, and is done if

    -ζ'C ζ + t_0 (|z|² - ρ s²) + Σ_j t_j (z_j - a_j s)(z_j - b_j s) + Σ_p t_p (w_p² - h_p² q_p²)

is positive definite in (ζ, s); if t_0 and all t_j are 0, in ζ. The t come from `witness`, which is
given the boxes of a proof and looks for multipliers that prove the inequality as it is read here:
where it finds none the box is cut. A replay believes none of it.
"""

from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

from lyapjax.certificates import regions
from lyapjax.certificates.checking import MAX_DEPTH, Budget, Failed, give_up, is_definite, keep_time
from lyapjax.certificates.factors import Factor, Linear, Reading
from lyapjax.certificates.regions import RegionClaim, constraints
from lyapjax.proofs.sectors import Inequality

BATCH = 32


class Reduced(NamedTuple):
    """V̇ as a form of ζ = (z, w) on a box, and what is known of the w."""

    C: arb_mat
    Q: arb_mat
    half: list[arb]


def reduced(claim: RegionClaim, lo: np.ndarray, hi: np.ndarray) -> Reduced | None:
    """The form on the part of the ball in a box; None if something may be undefined there."""
    n = len(claim.x)
    reading = Reading(claim.R, claim.star, lo, hi, claim.rho)
    f = [entry.change for entry in reading.entries(claim.f)]
    outer = 2 * (claim.P * claim.R)
    pairs = [(Linear(dict(enumerate(row))), v) for row, v in zip(outer.tolist(), f)]
    if claim.features is not None:
        for entry in reading.entries(claim.features, f):
            twice = {k: 2 * v for k, v in entry.change.rows.items()}
            pairs.append((Linear(twice), entry.rate))
    if not reading.is_known or any(rate is None for _, rate in pairs):
        return None
    names = _needed(pairs, reading.factors, n)
    columns = {k: k for k in range(n)} | {n + p: n + i for i, p in enumerate(names)}
    left, right = (_matrix([pair[side].rows for pair in pairs], columns) for side in (0, 1))
    C = left.transpose() * right
    some = [reading.factors[p] for p in names]
    Q = _matrix([factor.rows for factor in some], columns)
    return Reduced((C + C.transpose()) / 2, Q, [factor.half for factor in some])


def _needed(pairs: list, factors: list[Factor], n: int) -> list[int]:
    """The names in a form, and those that their q need."""
    stack = [k - n for pair in pairs for side in pair for k in side.rows if k >= n]
    found: set[int] = set()
    while stack:
        p = stack.pop()
        if p not in found:
            found.add(p)
            stack.extend(k - n for k in factors[p].rows if k >= n)
    return sorted(found)


def _matrix(rows: list[dict], columns: dict[int, int]) -> arb_mat:
    """Rows by column as a matrix."""
    found = arb_mat(len(rows), len(columns))
    for i, row in enumerate(rows):
        for k, v in row.items():
            found[i, columns[k]] = v
    return found


def falls(claim: RegionClaim, form: Reduced, lo, hi, multipliers: list[float]) -> bool:
    """Whether the multipliers prove V̇ < 0 on a box."""
    n, m = len(claim.x), form.C.nrows()
    p = m - n
    weights = [arb(t) for t in multipliers[1 + n :]]
    spread = arb_mat(p, m)
    for i, (t, h) in enumerate(zip(weights, form.half, strict=True)):
        for k in range(m):
            spread[i, k] = t * h**2 * form.Q[i, k]
    N = -form.C - form.Q.transpose() * spread
    for i, t in enumerate(weights):
        N[n + i, n + i] += t
    T = constraints(n, claim.rho, lo, hi, multipliers[: 1 + n])
    if T is not None:
        N = _bordered(N)
        places = [*range(n), m]
        for i, a in enumerate(places):
            for j, b in enumerate(places):
                N[a, b] += T[i, j]
    return is_definite(N)


def _bordered(N: arb_mat) -> arb_mat:
    """A matrix with a row and a column of zeros."""
    m = N.nrows()
    rows = [[*row, arb(0)] for row in N.tolist()]
    return arb_mat([*rows, [arb(0)] * (m + 1)])


def _functions(claim: RegionClaim, boxes, budget: Budget) -> int:
    """The arrays fit together; f and φ as in `regions`."""
    n, (lo, hi, multipliers) = len(claim.x), boxes
    fits = lo.shape == hi.shape == (len(multipliers), n) and multipliers.ndim == 2
    if not (fits and multipliers.shape[1] >= 1 + n):
        raise Failed("functions: the boxes have not the shapes of each other")
    regions.smooth(claim)
    return 0


def _falling(claim: RegionClaim, boxes, budget: Budget) -> int:
    """V̇ < 0 on every box, but at x*."""
    los, his, multipliers = boxes
    if not ((multipliers >= 0) & (multipliers < np.inf)).all():
        raise Failed("falling: a multiplier is not a number >= 0")
    n, count = len(claim.x), 0
    for lo, hi, row in zip(los, his, multipliers.tolist()):
        keep_time("falling", budget)
        if (part := claim.clipped(lo, hi)) is None:
            continue
        count += 1
        form = reduced(claim, *part)
        if form is not None and len(form.half) != len(row) - 1 - n:
            raise Failed(f"falling: expected {len(form.half)} factors, got {len(row) - 1 - n}")
        if form is None or not falls(claim, form, lo, hi, row):
            give_up("falling", lo, hi, MAX_DEPTH)  # the parts of a box have other middles
    return count


OBLIGATIONS = regions.OBLIGATIONS | {"functions": _functions, "falling": _falling}


def witness(claim: RegionClaim, los: np.ndarray, his: np.ndarray):
    """Boxes with multipliers that prove V̇ < 0 as it is read here, from the boxes of a proof.

    ValueError if there are none for a box and its parts.
    """
    work = [(lo, hi, 0) for lo, hi in zip(los, his)]
    found, unit = [], None
    while work:
        batch, work = work[-BATCH:], work[:-BATCH]
        parts = [(box, claim.clipped(*box[:2])) for box in batch]
        parts = [(box, part, reduced(claim, *part)) for box, part in parts if part is not None]
        known = [(box, part, form) for box, part, form in parts if form is not None]
        left = [box for box, _, form in parts if form is None]
        if known:
            n = len(claim.x)
            lo, hi = (np.stack([box[side] for box, _, _ in known]) for side in (0, 1))
            form = inexact([form for _, _, form in known], lo, hi, float(claim.rho.upper()))
            if unit is None:
                unit = float(np.median(np.abs(np.linalg.eigvalsh(form.C[0, :n, :n]))))
            proved, t, _, _ = form.prove(unit)
            found += [(a, b, row) for a, b, row, good in zip(lo, hi, t, proved) if good]
            left += [box for (box, _, _), good in zip(known, proved) if not good]
        for lo, hi, depth in left:
            if depth >= MAX_DEPTH:
                raise ValueError(
                    f"region: no multipliers were found in balls for the box from {lo.tolist()} "
                    f"to {hi.tolist()}; ask `verify_region` for a smaller level"
                )
            axis = int(np.argmax(hi - lo))
            below, above = hi.copy(), lo.copy()
            below[axis] = above[axis] = 0.5 * lo[axis] + 0.5 * hi[axis]
            work += [(lo, below, depth + 1), (above, hi, depth + 1)]
    return tuple(np.stack(v) for v in zip(*found))


def inexact(forms: list[Reduced], lo, hi, rho: float) -> Inequality:
    """The inequalities of boxes in floats."""

    def floats(values) -> np.ndarray:
        entries = np.array([[float(v.mid()) for v in m.entries()] for m in values])
        return entries.reshape(len(forms), values[0].nrows(), values[0].ncols())

    C, q = floats([form.C for form in forms]), floats([form.Q for form in forms])
    half = np.array([[float(h.upper()) for h in form.half] for form in forms])
    half = half.reshape(len(forms), -1)
    bad = np.zeros(len(forms), bool)
    return Inequality(C, 0 * C, q, 0 * q, half, lo, hi, np.full(len(forms), rho), bad)
