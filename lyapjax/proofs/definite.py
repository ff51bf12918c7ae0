"""Is a quadratic form with varying coefficients negative on the part of a ball inside a box?

For symmetric matrices [M] = { C + Σ ε_k C_k + E : |ε_k| <= 1, |E| <= S }, a box [a, b] and a
squared radius ρ, the claim is

    z'M z < 0    for every M in [M] and every z ≠ 0 with a <= z <= b, |z|² <= ρ.

Sufficient (the S-procedure): multipliers t_j >= 0 such that, with the last coordinate s = r fixed,

    -z'M z - t_0 (ρ - |z|²) - Σ_j t_j (b_j - z_j)(z_j - a_j) > 0    for all (z, s) ≠ 0

as a quadratic form in (z, s), for then z'M z < 0 where all the parentheses are >= 0. Any
multipliers prove it, however they were found; they are sought by Newton's method on a barrier. What
counts is a factorisation L D L' at the end for each corner of the ε (an affine family is definite
if it is at its corners), with room for S and every rounding error. Without multipliers the form is
-[M] itself, and then z = 0 is no exception.
"""

import itertools
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-12  # of each diagonal entry; L D L' of m <= 20 rows errs by less than 1e-13 of it,
# of more rows by m² 2^-53
NUM_NEWTON = 60
STIFFEST = 1e4
HOPELESS = 5.0  # remainders beyond this many units are cut, not searched


class Answer(NamedTuple):
    """For each box: whether it is proved, and what was learned about where it is not.

    Attributes:
      proved: (B,).
      multipliers: (B, 1 + k) t_0 for the ball, then for the k coordinates that have some.
      point: (B, n) where the form is largest, roughly; a candidate for a counterexample.
      weight: (B, n + 1) scale of each coordinate in the barrier's metric, for branching.
    """

    proved: np.ndarray
    multipliers: np.ndarray
    point: np.ndarray
    weight: np.ndarray


def has_positive_pivots(A: np.ndarray) -> np.ndarray:
    """Whether L D L' of symmetric matrices (B, m, m) runs with positive pivots; destroys A."""
    good = np.ones(len(A), bool)
    A = np.ascontiguousarray(A.transpose(1, 2, 0))
    with np.errstate(all="ignore"):
        for k in range(len(A)):
            good &= A[k, k] > 0
            column = A[k + 1 :, k]
            A[k + 1 :, k + 1 :] -= column[:, None] * (column / A[k, k])[None]
    return good


def is_positive(A: np.ndarray, S: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Proof that every symmetric matrix within S >= 0 of A is positive definite.

    |x'E x| <= Σ_ij S_ij |x_i| |x_j| <= Σ_i x_i² (S v)_i / v_i for any v > 0; `scale` is v.
    """
    m = A.shape[-1]
    moved = np.einsum("bij,bj->bi", S, scale) / scale
    diagonal = np.einsum("bii->bi", A)
    rounding = ROUNDING * max(1.0, (m / 20) ** 2)
    lower = diagonal - moved * (1 + ROUNDING) - np.abs(diagonal) * rounding
    A = A.copy()
    A[:, np.arange(m), np.arange(m)] = lower
    finite = np.isfinite(A).all(axis=(1, 2))
    return has_positive_pivots(np.where(finite[:, None, None], A, -1.0)) & finite


def places(lo, hi, rho, size, slabs):
    """(B, 1 + k, m, m) forms -(ρ - |z|²) and -(b - z)(z - a), with the last coordinate s = size."""
    batch, n = lo.shape
    A = np.zeros((batch, 1 + len(slabs), n + 1, n + 1))
    A[:, 0, np.arange(n), np.arange(n)] = 1.0
    A[:, 0, n, n] = -rho / size**2
    for k, j in enumerate(slabs):
        a, b = lo[:, j], hi[:, j]
        A[:, k + 1, j, j] = 1.0
        A[:, k + 1, j, n] = A[:, k + 1, n, j] = -0.5 * (a + b) / size
        A[:, k + 1, n, n] = a * b / size**2
    return A


def multipliers_of(N0, A, unit):
    """Multipliers for which N0 + Σ t_j A_j is positive definite, or nearly, by Newton's method.

    Minimises μ e - log det(N0 + Σ t_j A_j + e unit I) - Σ log t_j with a rising μ, e the violation.
    The damped steps 1/(1 + λ) of a self-concordant function never leave its domain.
    """
    batch, count, m, _ = A.shape
    identity = np.broadcast_to(np.eye(m) * unit, (batch, 1, m, m))
    A = np.concatenate([A, identity], axis=1)
    t = np.full((batch, count + 1), 0.3 * unit)
    t[:, 0] = 0.1 * unit
    N = N0 + np.einsum("bk,bkij->bij", t[:, :count], A[:, :count])
    t[:, count] = 1.0 + np.maximum(0.0, -np.linalg.eigvalsh(N)[:, 0] / unit) * 1.5
    best, X, mu = t.copy(), None, np.full(batch, 5.0 * m)
    flat = A.reshape(batch, count + 1, m * m)
    index, every = np.arange(count), np.arange(count + 1)
    active = np.arange(batch)
    result = np.zeros((batch, m, m))
    for _ in range(NUM_NEWTON):
        now = t[active]
        N = N0[active] + (now[:, None] @ flat[active]).reshape(-1, m, m)
        X = np.linalg.inv(N)
        result[active] = X
        XA = X[:, None] @ A[active]
        gradient = -np.trace(XA, axis1=2, axis2=3)
        H = XA.reshape(len(active), count + 1, -1) @ XA.transpose(0, 1, 3, 2).reshape(
            len(active), count + 1, -1
        ).transpose(0, 2, 1)
        gradient[:, count] += mu[active]
        gradient[:, :count] -= 1 / now[:, :count]
        H[:, index, index] += 1 / now[:, :count] ** 2
        # Boxes beyond rescue make singular systems; they must not stop the others.
        H[:, every, every] *= 1 + 1e-10
        H[:, every, every] += 1e-30
        sound = np.isfinite(H).all(axis=(1, 2)) & np.isfinite(gradient).all(axis=1)
        H[~sound], gradient[~sound] = np.eye(count + 1), np.nan
        step = -np.linalg.solve(H, gradient[..., None])[..., 0]
        decrement = np.sqrt(np.maximum(-np.sum(gradient * step, axis=1), 0.0))
        now = now + step / (1 + decrement)[:, None]
        t[active] = now
        # Stiffer only where this problem is nearly solved: from afar the steps are short.
        mu[active] = np.where(decrement < 1, np.minimum(5 * mu[active], STIFFEST), mu[active])
        # Done where the violation is gone; hopeless where it cannot go any more.
        best[active] = now
        active = active[(now[:, count] > -0.02) & np.isfinite(now).all(axis=1)]
        if not len(active):
            break
    return best[:, :count], best[:, count], result


def _corners(count: int) -> np.ndarray:
    """All sign patterns."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=count))).reshape(2**count, count)


def at_corners(N, Ck, S, scale) -> np.ndarray:
    """Whether N - Σ ε_k C_k is positive definite within S for all ε; N may be larger than C."""
    n, good = Ck.shape[-1], np.ones(len(N), bool)
    error = np.zeros_like(N)
    error[:, :n, :n] = 1e-15 * np.abs(Ck).sum(axis=1)
    error += S
    for signs in _corners(Ck.shape[1]):
        rest = np.flatnonzero(good)
        if not len(rest):
            break
        here = N[rest].copy()
        here[:, :n, :n] -= np.einsum("k,bkij->bij", signs, Ck[rest])
        good[rest] = is_positive(here, error[rest], scale[rest])
    return good


def _spread(Ck, scale):
    """Diagonals that bound Σ ε_k C_k in the metric of `scale`, for the search only."""
    n = Ck.shape[-1]
    inner = Ck * scale[:, None, :n, None] * scale[:, None, None, :n]
    values, vectors = np.linalg.eigh(inner)
    whole = (vectors * np.abs(values)[..., None, :]) @ vectors.swapaxes(-1, -2)
    return whole.sum(axis=1) / scale[:, :n, None] / scale[:, None, :n]


def negative(C, Ck, S, lo, hi, rho, unit: float) -> Answer:
    """Whether z'M z < 0 on boxes (B, n) within balls, for M in C + Σ ε_k C_k ± S.

    C and S are (B, n, n), Ck is (B, K, n, n); the first K coordinates are the cut ones, whose
    bounds get multipliers. `unit` is a typical size of -M.
    """
    batch, n = lo.shape
    slabs = range(Ck.shape[1])
    scale = 1 / np.sqrt(np.maximum(-np.einsum("bii->bi", C), 1e-3 * unit))
    finite = np.isfinite(C + S).all(axis=(1, 2)) & np.isfinite(Ck).all(axis=(1, 2, 3))
    plain = np.zeros(batch, bool)
    multipliers = np.zeros((batch, 1 + len(slabs)))
    point, weight = 0.5 * (lo + hi), np.ones((batch, n + 1))
    rest = np.flatnonzero(finite)
    plain[rest] = at_corners(-C[rest], Ck[rest], S[rest], scale[rest])
    # Multipliers are not worth looking for where the remainder alone is many times the form.
    with np.errstate(all="ignore"):
        excess = np.einsum("bij,bi,bj->b", S, scale, scale) + np.einsum(
            "bkii,bi->b", np.abs(Ck), scale**2
        )
    rest = np.flatnonzero(~plain & finite & (excess < HOPELESS))
    if not len(rest):
        return Answer(plain, multipliers, point, weight)
    lo, hi, rho, C, Ck, S = (v[rest] for v in (lo, hi, rho, C, Ck, S))
    size = np.sqrt(np.maximum(rho, 1e-300))
    A = places(lo, hi, rho, size, slabs)
    N0 = np.zeros((len(rest), n + 1, n + 1))
    N0[:, :n, :n] = -C
    wide = np.zeros_like(N0)
    wide[:, :n, :n] = S
    guess = np.concatenate([scale[rest], np.ones((len(rest), 1)) / np.sqrt(unit)], axis=1)
    index = np.arange(n + 1)
    for _ in range(2):
        N = N0.copy()
        N[:, :n, :n] -= _spread(Ck, guess)
        N[:, index, index] -= np.einsum("bij,bj->bi", wide, guess) / guess
        t, _, X = multipliers_of(N, A, unit)
        guess = np.sqrt(np.maximum(np.einsum("bii->bi", X), 1e-300))
    t = np.maximum(np.where(np.isfinite(t), t, 0.0), 0.0)
    N = N0 + np.einsum("bk,bkij->bij", t, A)
    # Roundings of the entries of N and of its forms.
    error = wide + 1e-14 * (np.abs(N0) + np.einsum("bk,bkij->bij", t, np.abs(A)))
    plain[rest] = at_corners(N, Ck, error, guess)
    multipliers[rest] = t
    with np.errstate(all="ignore"):
        place = X[:, :n, n] / X[:, n, n][:, None] * size[:, None]
    point[rest] = np.clip(np.where(np.isfinite(place), place, 0.0), lo, hi)
    weight[rest] = guess
    return Answer(plain, multipliers, point, weight)
