"""Sectors: a program as a linear map with bounded factors, each of them a variable of its own.

Where secants multiply a row of F by an enclosure of a factor that varies, here the product gets a
name. With q the difference that is multiplied, d = factor - its centre and |d| <= h on the box,

    factor q = centre q + w,        w = d q,        w² <= h² q².

So every output is linear in (z, w) with coefficients that do not vary at all, and what is known of
the w are quadratic inequalities, for the S-procedure to combine (see `lyapjax.proofs.sectors`). An
equation M a = b with M = its centre C + [d_ij] is treated likewise, a = C⁻¹ (b - Σ_j w_ij) with
w_ij = d_ij a_j: the inverse is never enclosed. What matters is that nothing is added up in absolute
value, so that one box can be the whole region: the first order of F is not used, and that is the
price for many small boxes.

A difference that is linear in z is bounded on the part of the ball that is in the box.
"""

from typing import NamedTuple

import numpy as np

from lyapjax.readers import affine as aa
from lyapjax.readers.affine import Affine
from lyapjax.readers.program import Program
from lyapjax.readers.secants import Base, Plan, Rule, run
from lyapjax.readers.values import beside

EXACT = 1e-13  # of a factor: what varies by no more is multiplied as it is
ROUNDING = 1e-13


class Sectors(NamedTuple):
    """Δ outputs = F (z, w), and the w: w_p = d_p q_p with q = Q (z, w), |d| <= h.

    Attributes:
      rows: for each output a list of columns (size, B), as values and radii; None is 0.
      differences: for each w the columns of its q, values and radii (B,).
      half: (p, B) h.
      bad: (B,) where nothing is known.
    """

    rows: list
    differences: list
    half: np.ndarray
    bad: np.ndarray


def sectors(
    program: Program, base: Base, plan: Plan, x: np.ndarray, R: np.ndarray, place: tuple
) -> Sectors:
    """Read a program on boxes; `place` is (lo, hi, ρ): a <= z <= b and |z|² <= ρ, (B, n) and (B,).

    NotImplementedError for a contraction of two factors that both vary.
    """
    lo, hi, rho = place
    batch, n = lo.shape
    found: list = []

    def ranges(rows) -> Affine:
        """A difference that is linear in z, on the box and in the ball."""
        parts = np.broadcast_arrays(*(np.zeros(1) if g is None else g.c for g in rows[:n]))
        g = np.broadcast_to(np.stack(parts, axis=-1), (batch, n))
        low, high = -_greatest(-g, lo, hi, rho), _greatest(g, lo, hi, rho)
        return Affine(0.5 * (low + high), None, 0.5 * (high - low) + ROUNDING * abs(high - low))

    def value(k: int, known: Affine, rows) -> Affine:
        """The value of a step, from its difference if that is linear in z, and exactly known."""
        shape, start = program.steps[k].shape, base.values[k]
        if any(row is not None for row in rows[n:]):
            return known
        if any(g is not None and (g.r > EXACT * (1 + np.abs(g.c))).any() for g in rows):
            return known
        columns = [None if g is None else _flat(g, shape) for g in rows[:n]]
        size = int(np.prod(shape))
        each = [
            ranges([None if g is None else Affine(g.c[e], None, g.r[e]) for g in columns])
            for e in range(size)
        ]
        c, r = (np.stack(v).reshape(*shape, batch) for v in zip(*((v.c, v.r) for v in each)))
        # The rows are exact up to EXACT of what they are multiplied with, |z_k| <= sqrt(ρ).
        slack = np.zeros((size, batch))
        for g in columns:
            slack += 0.0 if g is None else (np.abs(g.c) + 1) * np.sqrt(rho) * 2 * EXACT
        r = r + start.r + slack.reshape(*shape, batch) + ROUNDING * (np.abs(start.c) + np.abs(c))
        tight = Affine(start.c + c, None, r)
        return aa.chosen(tight.r < known.reach, tight.r >= known.reach, tight, known)

    def name(difference: list, centre, reach: np.ndarray) -> int:
        """A new w: its column."""
        found.append([difference, reach, centre])
        return n + len(found) - 1

    def origin(rows: list) -> tuple | None:
        """(g, q) if the difference is g q, a product made by `scale` with nothing added since."""
        some = [k for k, row in enumerate(rows) if k >= n and row is not None]
        if len(some) != 1 or np.any(rows[some[0]].c != 1) or np.any(rows[some[0]].r != 0):
            return None
        difference, reach, centre = found[some[0] - n]
        for k in range(max(len(difference), len(rows))):
            q, row = (v[k] if k < len(v) else None for v in (difference, rows))
            made = None if q is None or centre is None else aa.mul(aa.point(centre), q)
            if k != some[0] and not _same(made, row):
                return None
        return Affine(centre, None, reach), difference

    def scale(times, factor: Affine, rows: list) -> list:
        if (factor.reach <= EXACT * np.abs(factor.c)).all() or all(row is None for row in rows):
            return [None if row is None else times(factor, row) for row in rows]
        if times is not aa.mul:
            raise NotImplementedError("fn: no sectors of a contraction of two varying factors")
        factor = Affine(factor.c, None, factor.reach)
        shapes = [row.c.shape[:-1] for row in rows if row is not None]
        shape = np.broadcast_shapes(factor.c.shape[:-1], *shapes)
        known = origin(rows) if shape == () else None
        if known is not None:
            # A factor times g q is (factor g) q: one w instead of two.
            factor, rows = aa.mul(factor, known[0]), known[1]
        result = [None if row is None else aa.mul(aa.point(factor.c), row) for row in rows]
        flat, full = _flat(factor, shape), [None if g is None else _flat(g, shape) for g in rows]
        for e in range(len(flat.c)):
            parts = [None if g is None else Affine(g.c[e], None, g.r[e]) for g in full]
            reach = flat.r[e] + aa.EPS * np.abs(flat.c[e])
            k = name(parts, flat.c[e], reach)
            result += [None] * (k + 1 - len(result))
            result[k] = aa.point(_one(len(flat.c), e).reshape(*shape, 1))
        return result

    def solve(M: Affine, rows: list) -> list:
        count = len(M.c)
        M = Affine(M.c, None, M.reach)
        reach = np.broadcast_to(M.r + aa.EPS * np.abs(M.c), (count, count, batch))
        exact = (M.r <= EXACT * np.abs(M.c)).all(axis=-1)
        made = []
        for i in range(count):
            for j in range(count):
                if not exact[i, j]:
                    made.append((i, j, name([], None, reach[i, j])))
        rows = rows + [None] * (n + len(found) - len(rows))
        for i, _, k in made:
            rows[k] = aa.point(-_one(count, i))
        some = [k for k, row in enumerate(rows) if row is not None]
        centre = Affine(M.c, None, np.where(exact[:, :, None], M.r, 0.0))
        joined = aa.solve(centre, beside([rows[k] for k in some]))
        for place, k in enumerate(some):
            rows[k] = Affine(joined.c[:, place], None, joined.r[:, place])
        for _, j, k in made:
            found[k - n][0] = [None if g is None else Affine(g.c[j], None, g.r[j]) for g in rows]
        return rows

    each = [ranges(list(map(aa.point, row[:, None]))) for row in R]
    c, r = np.stack([v.c for v in each]), np.stack([v.r for v in each])
    error = ROUNDING * (np.abs(x)[:, None] + np.abs(R).sum(axis=1)[:, None] * np.sqrt(rho))
    inputs = Affine(x[:, None] + c, None, r + error)
    known, bad, _ = run(program, base, inputs, R, plan.forms, Rule(scale, solve, value))
    rows = [
        [None if g is None else _flat(g, program.steps[k].shape) for g in known[k].rows]
        for k in program.outputs
    ]
    used = _used([row for output in rows for row in _places(output, n)], found, n)
    keep = [*range(n), *(n + p for p in used)]

    def kept(columns: list) -> list:
        return [columns[k] if k < len(columns) else None for k in keep]

    half = np.zeros((len(used), batch))
    for row, p in enumerate(used):
        half[row] = found[p][1]
    return Sectors(
        [kept(output) for output in rows],
        [kept(found[p][0]) for p in used],
        half,
        bad | ~np.isfinite(half).all(axis=0),
    )


def _places(columns: list, n: int) -> list[int]:
    """Which w have a column that is not 0."""
    return [k - n for k, row in enumerate(columns) if k >= n and row is not None]


def _same(a: Affine | None, b: Affine | None) -> bool:
    """Whether two rows are equal, None being 0."""
    a, b = (aa.point(np.zeros(1)) if v is None else v for v in (a, b))
    return bool(np.all(a.c == b.c) and np.all(a.r == b.r))


def _used(start: list[int], found: list, n: int) -> list[int]:
    """The w that these need, or that the differences of those need."""
    needed, stack = set(), start
    while stack:
        p = stack.pop()
        if p not in needed:
            needed.add(p)
            stack.extend(_places(found[p][0], n))
    return sorted(needed)


def _greatest(g, lo, hi, rho) -> np.ndarray:
    """An upper bound of g'z where lo <= z <= hi and |z|² <= ρ, (B, n) and (B,).

    For every λ > 0 that is Σ_k max (g_k z_k - z_k²/(2 λ)) + ρ/(2 λ), each maximum over an interval
    and attained where z_k = λ g_k is clipped to it; the best λ has |z|² = ρ.
    """
    scale = np.sqrt(rho) / np.maximum(np.linalg.norm(g, axis=1), 1e-300)
    least = np.full(len(rho), np.inf)
    for _ in range(5):
        z = np.clip(scale[:, None] * g, lo, hi)
        most = g * z - z * z / (2 * scale[:, None])
        size = (np.abs(g * z) + z * z / (2 * scale[:, None])).sum(axis=1) + rho / (2 * scale)
        found = most.sum(axis=1) + rho / (2 * scale)
        # The clipped z may be off by rounding, of which the maximum sees the square.
        least = np.fmin(least, found + ROUNDING * size)
        free = z == scale[:, None] * g
        left = rho - np.where(free, 0.0, z * z).sum(axis=1)
        slope = np.where(free, g * g, 0.0).sum(axis=1)
        better = np.sqrt(np.maximum(left, 1e-6 * rho) / np.maximum(slope, 1e-300))
        scale = np.clip(better, 1e-3 * scale, 1e3 * scale)
    box = np.maximum(g * lo, g * hi)
    return np.fmin(least, box.sum(axis=1) + ROUNDING * np.abs(box).sum(axis=1))


def _one(size: int, place: int) -> np.ndarray:
    """A unit vector as a column."""
    column = np.zeros((size, 1))
    column[place] = 1.0
    return column


def _flat(v: Affine, shape: tuple) -> Affine:
    """An array of this shape as a vector, the boxes at the end."""
    size = int(np.prod(shape))
    c, r = (np.broadcast_to(u, (*shape, u.shape[-1])).reshape(size, -1) for u in (v.c, v.r))
    return Affine(c, None, r)
