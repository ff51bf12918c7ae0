"""The local certificate: an ellipsoid around the equilibrium from which everything converges to it.

Let f(x*) = 0, W(x) = (x - x*)'P(x - x*) with P positive definite, and X a box around x*. Along the
segment from x* to x the mean value theorem gives f(x) = J (x - x*), where row i of J is a gradient
(or difference quotient) of f_i in X, so J lies in the interval matrix [J] of slopes over X. Then

    Ẇ(x) = (x - x*)'(P J + J'P)(x - x*) < 0    for x ≠ x* in X

if P J + J'P is negative definite for every J in [J]. Nothing is linearised: [J] holds over all of
the box. Every ellipsoid {W <= w} inside X then is positively invariant, and all of it converges
to x*. The ellipsoid is made larger by branch and bound: Ẇ < 0 on {w0 <= W <= w1}.

Definiteness and f(x*) = 0 are decided in ball arithmetic; the slopes come from `bounds`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flint import arb, arb_mat, ctx

from lyapjax.proofs.proving import Proof, prove
from lyapjax.proofs.statements import program_of
from lyapjax.readers.ball import BITS, evaluate_balls, from_ends
from lyapjax.readers.program import Program
from lyapjax.readers.ranges import Reader
from lyapjax.systems.domains import Ball, Box

MAX_HALVINGS = 60


class LocalCertificate(NamedTuple):
    """An ellipsoid that converges to the equilibrium, proved.

        { x : (x - x*)'P(x - x*) <= level }

    Attributes:
      P: (n, n) symmetric positive definite.
      level: w > 0.
      core: w0 <= w, up to which the interval matrix alone is the proof.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> r = ly.verify(lambda x: x @ x, lambda x: -x + x**3, ly.Ball(0.9, (0.0, 0.0)))
      >>> bool(r.local.level > 0)
      True
    """

    P: np.ndarray
    level: float
    core: float


def _definite(matrix: arb_mat) -> bool:
    """Whether a symmetric matrix of balls is positive definite: by its pivots."""
    n = matrix.nrows()
    rows = [[matrix[i, j] for j in range(n)] for i in range(n)]
    for k in range(n):
        if not rows[k][k] > 0:
            return False
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            for j in range(k + 1, n):
                rows[i][j] = rows[i][j] - factor * rows[k][j]
    return True


def _exact(values) -> arb_mat:
    values = np.asarray(values, float)
    return arb_mat(*values.shape, [arb(v) for v in values.ravel().tolist()])


def _entries(f: Callable, x):
    """The entries of f(x), each a number."""
    found = f(x)
    return tuple(found[i] for i in range(found.shape[0]))


def program_of_entries(f: Callable, n: int) -> Program:
    """f as a program of n scalar outputs."""
    return program_of(_entries, f, n)


def is_equilibrium(f: Callable, x: np.ndarray) -> bool:
    """Whether f(x) is exactly 0, in ball arithmetic."""
    outputs = evaluate_balls(program_of_entries(f, len(x)), x)
    return all(v[()] == 0 for v in outputs)


def weights(f: Callable, x: np.ndarray) -> np.ndarray | None:
    """P of the Lyapunov equation A'P + P A = -I of the linearisation, None if A is not stable."""
    return _weights(_slopes(f, x), x)


def _weights(slopes: Callable, x: np.ndarray) -> np.ndarray | None:
    A = slopes(x, x).mean(axis=-1)
    if not np.isfinite(A).all() or np.linalg.eigvals(A).real.max() >= 0:
        return None
    P = scipy.linalg.solve_continuous_lyapunov(A.T, -np.eye(len(x)))
    P = 0.5 * (P + P.T)
    return P / np.abs(P).max()


def _slopes(f: Callable, x: np.ndarray) -> Callable:
    """(lo, hi) -> [J] over a box, (n, n, 2) lower and upper ends; NaN where f may be undefined."""
    read = Reader(program_of_entries(f, len(x)), of_slopes=True, few=True)
    return lambda lo, hi: read(lo[None], hi[None])[..., 0]


def _decreases(P: np.ndarray, ends: np.ndarray) -> bool:
    """Whether -(P J + J'P) is positive definite for all J between the ends."""
    n = len(P)
    if not np.isfinite(ends).all():
        return False
    J = arb_mat(n, n, [from_ends(*pair) for pair in ends.reshape(-1, 2).tolist()])
    product = _exact(P) * J
    matrix = -(product + product.transpose())
    middle = np.array([float(v.mid()) for v in matrix.entries()]).reshape(n, n)
    try:
        factor = np.linalg.cholesky(middle)
    except np.linalg.LinAlgError:
        return False
    # A congruence to about the identity keeps definiteness and makes the pivots sharp.
    R = _exact(np.linalg.inv(factor))
    return _definite(R * matrix * R.transpose())


def reach(P: np.ndarray, level: float) -> np.ndarray:
    """Half the extent of {W <= level} along each coordinate, not less than the true one."""
    old, ctx.prec = ctx.prec, BITS
    try:
        inverse = _exact(P).inv()
        found = [(arb(level) * inverse[i, i]).sqrt().upper() for i in range(len(P))]
        return np.array([np.nextafter(float(v), np.inf) * (1 + 1e-14) for v in found])
    finally:
        ctx.prec = old


def inside(domain: Ball | Box, x: np.ndarray, half: np.ndarray) -> bool:
    """Whether the box x ± half lies in the interior of the domain, by a safe margin."""
    away = np.abs(x - np.asarray(domain.centre)) + half
    if isinstance(domain, Ball):
        return bool(np.linalg.norm(away) < domain.radius * (1 - 1e-12))
    lo, hi = np.asarray(domain.lo), np.asarray(domain.hi)
    margin = 1e-12 * (hi - lo)
    return bool(np.all(x - half > lo + margin) and np.all(x + half < hi - margin))


def ellipsoid_inside(domain: Ball | Box, x: np.ndarray, P: np.ndarray, level: float) -> bool:
    """Whether {W <= level} lies in the interior of the domain, in ball arithmetic."""
    if isinstance(domain, Box):
        return inside(domain, x, reach(P, level))
    with ctx.workprec(BITS):
        away = zip(x.tolist(), domain.centre)
        room = arb(domain.radius) - sum(((arb(a) - arb(b)) ** 2 for a, b in away), arb(0)).sqrt()
        shares = arb_mat(np.eye(len(x)).tolist()) * (arb(level) / room**2)
        return bool(room > 0) and _definite(_exact(P) - shares)


def quadratic(P: np.ndarray, x: np.ndarray) -> Callable:
    """W, as a JAX function; P symmetric."""
    return lambda y: (y - x) @ (P @ (y - x))


def local_certificate(
    f: Callable,
    x: np.ndarray,
    domain: Ball | Box,
    *,
    grow: bool = True,
    ring_fn: Callable | None = None,
    **budget,
) -> tuple[LocalCertificate | None, str]:
    """The largest ellipsoid that is proved to converge to x, or the reason why there is none.

    It is made larger than the interval matrix allows by
    `ring_fn(P, least, most, lo, hi, **budget)`, which tries to prove Ẇ < 0 where
    least <= W <= most; by default with a program of its own.
    """
    if not is_equilibrium(f, x):
        return None, "f(x*) is not exactly 0 in ball arithmetic; write f such that it is"
    slopes = _slopes(f, x)
    P = _weights(slopes, x)
    if P is None:
        return None, "the linearisation at x* is not stable"
    old, ctx.prec = ctx.prec, BITS
    try:
        if not _definite(_exact(P)):
            return None, "the solution of the linearised Lyapunov equation is not positive definite"
        level = _largest_level(P, x, domain)
        if level == 0:
            return None, "x* is too close to the boundary of the domain; enlarge or move the domain"
        for _ in range(MAX_HALVINGS):
            half = reach(P, level)
            lo, hi = np.nextafter(x - half, -np.inf), np.nextafter(x + half, np.inf)
            if _decreases(P, slopes(lo, hi)):
                break
            level *= 0.25
        else:
            return None, "no ellipsoid around x* is proved: the slopes of f vary too much"
    finally:
        ctx.prec = old
    found = LocalCertificate(P, level, level)
    if not grow:
        return found, ""
    ring_fn = ring_prover(f, x) if ring_fn is None else ring_fn
    return enlarged(x, domain, found, ring_fn, **budget), ""


def _largest_level(P, x, domain) -> float:
    """A level whose bounding box just fits the domain; 0 if x is too close to its boundary."""
    if not inside(domain, x, reach(P, 0.0)):
        return 0.0
    level = 1.0
    while inside(domain, x, reach(P, level)):
        level *= 4.0
    while not inside(domain, x, reach(P, level)):
        level *= 0.9
    return level


def ring_prover(f: Callable, x: np.ndarray) -> Callable:
    """A proof of Ẇ < 0 between two levels of W, from f alone."""

    def ring(P, least, most, lo, hi, **budget) -> Proof:
        W, matrix = quadratic(P, x), jnp.asarray(P)
        # Numbers that change are constants of the program, so this is compiled once.
        ends = jnp.asarray([least]), jnp.asarray([most])
        return prove(
            lambda y: 2.0 * ((matrix @ (y - x)) @ f(y)),
            lo,
            hi,
            where_fn=lambda y: jnp.concatenate([ends[0] - W(y), W(y) - ends[1]]),
            **budget,
        )

    return ring


def enlarged(x, domain, found: LocalCertificate, ring_fn: Callable, **budget) -> LocalCertificate:
    """The certificate with the largest level, up to a factor, that branch and bound proves."""
    top = _largest_level(found.P, x, domain)
    level, target = found.level, top
    for _ in range(8):
        if target <= level * 1.2:
            break
        half = reach(found.P, target)
        lo, hi = np.nextafter(x - half, -np.inf), np.nextafter(x + half, np.inf)
        proof = ring_fn(found.P, level, target, lo, hi, **budget)
        if proof.proved:
            level = target
            target = min(4 * level, top)
        elif proof.point is not None:
            d = proof.point - x
            target = min(0.9 * float(d @ found.P @ d), 0.7 * target)
        else:
            target = 0.5 * target
        if level == top:
            break
    return found._replace(level=level)
