"""Branch and bound with sectors: for closed loops that are nonlinear in many coordinates.

With f = F (z, w) and w_p = d_p q_p, |d_p| <= h_p, q_p = Q_p (z, w) (see `lyapjax.readers.sectors`;
for features likewise ∇‖φ‖² = G (z, w), with w of its own), V̇ is a quadratic form of constant
coefficients,

    V̇ = (2 P R z + G (z, w))'F (z, w) = ζ'C ζ,        ζ = (z, w),

and on a box within the ball |z|² <= ρ it is negative if for some multipliers t >= 0

    -ζ'C ζ - t_0 (ρ s² - |z|²) - Σ_j t_j (b_j s - z_j)(z_j - a_j s)
           - Σ_p t_p (h_p² q_p² - w_p²) > 0,

with s = 1.

One such inequality, with as many rows as there are states and factors, often holds on the whole
region where enclosures of secants need thousands of boxes: nothing is bounded by itself, and for n
links neither their inverse mass matrix.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from lyapjax.proofs.definite import is_positive, multipliers_of, places
from lyapjax.proofs.regional import (
    ROUNDING,
    Form,
    Judged,
    Search,
    branch_and_bound,
    least_squares,
    squares,
)
from lyapjax.readers.sectors import sectors

BATCH = 32
HUGE = 1e12  # nothing is concluded from numbers of this size
SMALLEST = 1e-4  # of the ellipsoid's extent


def _columns(rows, size: int, index, shape) -> tuple[np.ndarray, np.ndarray]:
    """(B, size, m) values and radii of a list of columns, put at the given places."""
    c = np.zeros((shape[0], size, shape[1]))
    r = np.zeros_like(c)
    for k, row in zip(index, rows):
        if row is not None:
            c[:, :, k] = np.broadcast_to(row.c, (size, shape[0])).T
            r[:, :, k] = np.broadcast_to(row.r, (size, shape[0])).T
    return c, r


class Inequality(NamedTuple):
    """What is to be definite on each box of a batch: C ± S, with q ± radius and h of each w.

    `bad` says where nothing is known.
    """

    C: np.ndarray
    S: np.ndarray
    q: np.ndarray
    q_error: np.ndarray
    half: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    rho: np.ndarray
    bad: np.ndarray

    def forms(self):
        """(B, 1 + n + p, m + 1, m + 1): what the multipliers multiply, and the radii of it."""
        batch, n = self.lo.shape
        p, m = self.q.shape[1:]
        A = np.zeros((batch, 1 + n + p, m + 1, m + 1))
        corner = np.ix_([*range(n), m], [*range(n), m])
        A[(slice(None), slice(0, 1 + n), *corner)] = places(
            self.lo, self.hi, self.rho, np.ones(batch), range(n)
        )
        E = np.zeros_like(A[:, 1 + n :])
        q, e = self.q, self.q_error
        h = (self.half**2)[:, :, None, None]
        A[:, 1 + n :, :m, :m] = -h * q[:, :, :, None] * q[:, :, None, :]
        cross = (np.abs(q) + e)[:, :, :, None] * e[:, :, None, :]
        E[:, :, :m, :m] = h * (cross + cross.swapaxes(-1, -2))
        index = np.arange(p)
        A[:, 1 + n + index, n + index, n + index] += 1.0
        return A, E

    def scales(self, unit: float) -> np.ndarray:
        """(B, m + 1) sizes of ζ and s at which the multipliers are all of one magnitude.

        A w must neither be small beside what it adds to V̇ nor large beside h q.
        """
        batch, n = self.lo.shape
        inner = self.half[:, :, None] * np.abs(self.q[:, :, n:])
        own = small = self.half * np.linalg.norm(self.q[:, :, :n], axis=2)
        direct = cross = np.linalg.norm(self.C[:, n:, :n], axis=2)
        for _ in range(3):  # a w may work through others only
            small = own + (inner @ small[:, :, None])[:, :, 0]
            cross = direct + (inner.swapaxes(1, 2) @ cross[:, :, None])[:, :, 0]
        middle = np.sqrt(np.maximum(small * unit / np.maximum(cross, 1e-9 * unit), 1e-12))
        one = np.ones((batch, n))
        return np.concatenate([one, middle, 1 / np.sqrt(np.maximum(self.rho, 1e-300))[:, None]], 1)

    def negative(self, t, A, E, scale) -> np.ndarray:
        """Whether the multipliers t (B, 1 + n + p) prove it; `A` and `E` are those of `forms`."""
        m, n = self.q.shape[2], self.lo.shape[1]
        N = np.einsum("bk,bkij->bij", t, A)
        # As many terms are added up, each with roundings of its own.
        rounding = (t.shape[1] + 20) * 2.0**-52
        error = rounding * np.einsum("bk,bkij->bij", t, np.abs(A))
        error += np.einsum("bk,bkij->bij", t[:, 1 + n :], E)
        N[:, :m, :m] -= self.C
        error[:, :m, :m] += self.S + 1e-14 * np.abs(self.C)
        # Without multipliers of the box and the ball there is no s, and z = 0 is no exception.
        free = ~t[:, : 1 + n].any(axis=1)
        N[free, m, m] = 1.0
        good = (t >= 0).all(axis=1) & np.isfinite(t).all(axis=1) & ~self.bad
        return good & is_positive(N, error, scale)

    def prove(self, unit: float):
        """(proved, multipliers, point, weight of each w): by Newton's method, then checked.

        First without the box itself, which the h know; then, where the box is cut, with it.
        """
        batch, n = self.lo.shape
        m, (A, E), d = self.q.shape[2], self.forms(), self.scales(unit)
        t, X = np.zeros(A.shape[:2]), np.zeros((batch, m + 1, m + 1))
        proved = np.zeros(batch, bool)
        for first, size in ((1 + n, m), (0, m + 1)):
            rest = ~proved & ~self.bad
            if first == 0:
                rest &= (self.lo != -self.hi).any(axis=1)
            if not rest.any():
                continue
            twice = d[rest, :size, None] * d[rest, None, :size]
            scaled = A[rest, first:, :size, :size] * twice[:, None]
            norm = np.maximum(np.abs(scaled).max(axis=(2, 3)), 1e-300)
            N0 = np.zeros((rest.sum(), size, size))
            N0[:, :m, :m] = -self.C[rest]
            found, _, inverse = multipliers_of(N0 * twice, scaled / norm[:, :, None, None], unit)
            t[rest, first:] = np.maximum(np.where(np.isfinite(found), found, 0.0), 0.0) / norm
            X[rest, :size, :size] = np.where(np.isfinite(inverse), inverse, 0.0)
            spread = np.sqrt(np.maximum(np.einsum("bii->bi", X), 1e-300))
            proved[rest] = self.negative(t, A, E, spread * d)[rest]
        with np.errstate(all="ignore"):
            place = X[:, :n, m] / (X[:, m, m] * d[:, m])[:, None]
        point = np.clip(np.where(np.isfinite(place), place, 0.0), self.lo, self.hi)
        q = self.q * d[:, None, :m]
        weight = t[:, 1 + n :] * np.einsum("bpi,bij,bpj->bp", q, X[:, :m, :m], q)
        return proved, t, point, weight


def inequality(form: Form, x, lo, hi, rho) -> Inequality:
    """The inequality on boxes (B, n) in balls |z|² <= ρ, from `readers.sectors`."""
    batch, n = lo.shape
    parts = [form.f] if form.features is None else [form.f, form.features]
    found = [sectors(*part, x, form.R, (lo, hi, rho)) for part in parts]
    counts = [len(v.half) for v in found]
    m = n + sum(counts)
    bad = np.any([v.bad for v in found], axis=0)
    half = np.concatenate([v.half for v in found]).T
    blocks, starts = [], np.cumsum([n, *counts])
    for v, start, count in zip(found, starts, counts):
        index = [*range(n), *range(start, start + count)]
        q = [_columns([g and g._replace(c=g.c[None], r=g.r[None]) for g in row], 1, index,
                      (batch, m)) for row in v.differences]  # fmt: skip
        output = _columns(v.rows[-1], n, index, (batch, m))
        blocks.append((output, q))
    none = np.zeros((batch, 0, m))
    q, q_error = (
        np.concatenate([none, *(q[k] for _, rows in blocks for q in rows)], axis=1) for k in (0, 1)
    )
    F, Fr = blocks[0][0]
    T = np.zeros((batch, n, m))
    T[:, :, :n], Tr = 2 * form.P @ form.R, np.zeros((batch, n, m))
    Tr[:, :, :n] = 2 * n * ROUNDING * np.abs(form.P) @ np.abs(form.R)
    if form.features is not None:
        G, Gr = blocks[1][0]
        T, Tr = T + G, Tr + Gr + ROUNDING * np.abs(G)
    T, Tr = (v.swapaxes(-1, -2) for v in (T, Tr))
    C = T @ F
    S = np.abs(T) @ Fr + Tr @ (np.abs(F) + Fr) + n * ROUNDING * (np.abs(T) @ np.abs(F))
    C, S = 0.5 * (C + C.swapaxes(-1, -2)), 0.5 * (S + S.swapaxes(-1, -2))
    size = np.abs(C).sum(axis=(1, 2)) + S.sum(axis=(1, 2)) + half.sum(axis=1)
    bad |= ~(size + np.abs(q).sum(axis=(1, 2)) < HUGE)
    return Inequality(C, S, q, q_error, half, lo, hi, rho, bad)


def _axes(form: Form, x, problem: Inequality, weight) -> np.ndarray:
    """Which coordinate of each box to cut: the one that narrows the factors that matter most."""
    lo, hi = problem.lo, problem.hi
    n = lo.shape[1]
    scores = np.zeros(lo.shape)
    least = least_squares(lo, hi)
    reach = np.sqrt(np.maximum(problem.rho[:, None] - least.sum(axis=1, keepdims=True) + least, 0))
    first, last = np.maximum(lo, -reach), np.minimum(hi, reach)  # what is in the ball
    for j in range(n):
        # Nearly without this coordinate: an even function does not gain from being cut at 0.
        a, b, low, high = first[:, j], last[:, j], lo.copy(), hi.copy()
        low[:, j], high[:, j] = 0.51 * a + 0.49 * b, 0.49 * a + 0.51 * b
        half = inequality(form, x, low, high, problem.rho).half
        with np.errstate(all="ignore"):
            scores[:, j] = np.nan_to_num(weight * (problem.half**2 - half**2)).sum(axis=1)
    scores = np.where((scores > 0).any(axis=1)[:, None], scores, hi - lo)
    return np.argmax(np.where(hi - lo > 0, scores, -np.inf), axis=1)


def is_readable(form: Form, x) -> bool:
    """Whether the programs have sectors: no contraction of two factors that both vary."""
    point = np.full((1, len(x)), 1e-3)
    try:
        inequality(form, x, -point, point, np.array([1e-6]))
    except NotImplementedError:
        return False
    return True


def _judge(form: Form, x, level: float, lo, hi) -> Judged | None:
    """By sectors."""
    rho = np.full(len(lo), squares(form, level, 0.0))
    kept = rho >= least_squares(lo, hi).sum(axis=1)
    lo, hi, rho = lo[kept], hi[kept], rho[kept]
    if not len(lo):
        return None
    with np.errstate(all="ignore"):
        problem = inequality(form, x, lo, hi, rho)
        proved, t, points, weight = problem.prove(form.unit)
    return Judged(lo, hi, proved, t, points, lambda rest: _axes(form, x, problem, weight)[rest])


def search(form: Form, x, level: float, *budget, **options) -> Search:
    """`branch_and_bound` by sectors."""
    judge = partial(_judge, form, x, level)
    options = {"batch": BATCH, "smallest": SMALLEST, **options}
    return branch_and_bound(judge, form, x, level, *budget, **options)
