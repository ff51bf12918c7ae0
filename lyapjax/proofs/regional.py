"""Branch and bound over the region of attraction of a V that is quadratic, or has features beside.

    V(x) = y'P y + ‖φ(x)‖²,    y = x - x*,  φ(x*) = 0

Let R R' = P⁻¹ and y = R z, so that V = |z|² + ‖φ‖². With the secant matrices of f and of the
gradient of ‖φ‖² (see `secants`), f = F z and ∇‖φ‖² = G z, the derivative is a quadratic form at
every point:

    V̇ = (2 P R z + G z)'F z = z'M(x) z,        M = (2 P R + G)'F

To be proved is V̇ < 0 where 0 < |z|² and V <= c. As nothing is divided by z, there is no hole
around the equilibrium to be closed by other means. On a box of z the form M is known to first order
with a remainder of second order, and `definite` decides it on the part of the ball inside the box.
That is what makes six states cheap: F depends on few coordinates only (for the ducted fan, on the
angle), and with R triangular in an order that begins with these, only as many z are ever cut; the
others are covered whole.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.proofs import processes
from lyapjax.proofs.checkpoint import state_of
from lyapjax.proofs.definite import Answer, negative
from lyapjax.proofs.proving import Verdict
from lyapjax.readers.affine import Affine
from lyapjax.readers.program import Program, trace
from lyapjax.readers.secants import Base, Plan, base_of, plan_of, secants

BATCH = 512
SMALLEST = 1e-5  # of the ellipsoid's extent: boxes are not cut below it
ROUNDING = 1e-14


class _Part(NamedTuple):
    """A program with what its secants need."""

    program: Program
    base: Base
    plan: Plan


class Form(NamedTuple):
    """V̇ as a quadratic form in z.

    `cut` is K: the form depends on the first K coordinates of z only; ‖φ‖² on the first `seen`.
    |z|² is V without features up to the factor 1 ± eta. `unit` is a typical rate of decay.
    """

    f: _Part
    features: _Part | None
    P: np.ndarray
    R: np.ndarray
    cut: int
    seen: int
    eta: float
    unit: float


def _part(fn: Callable, x: np.ndarray) -> _Part:
    program = trace(lambda y: fn(y), jnp.asarray(x), whole=True)
    base = base_of(program, x)
    return _Part(program, base, plan_of(program, base, x))


def form_of(f: Callable, P: np.ndarray, x: np.ndarray, features_fn: Callable | None) -> Form:
    """The form of a closed loop and a V."""
    n = len(P)
    part, extra = _part(f, x), None
    moving, reached = part.plan.moving[0], frozenset()
    if features_fn is not None:

        def squares(y):
            return jnp.sum(jnp.square(features_fn(y)))

        extra = _part(lambda y: (squares(y), jax.grad(squares)(y)), x)
        moving, reached = moving | extra.plan.moving[1], extra.plan.reached[0]
    if not reached <= moving:  # a φ that is linear in some coordinates
        reached = reached | moving
    order = sorted(range(n), key=lambda i: (i not in moving, i not in reached, i))
    R = np.zeros((n, n))
    R[order] = np.linalg.cholesky(np.linalg.inv(P)[np.ix_(order, order)])
    size = np.abs(R.T) @ np.abs(P) @ np.abs(R)
    eta = np.abs(R.T @ P @ R - np.eye(n)) + ROUNDING * n * size
    far = float(eta.sum(axis=1).max())
    if not far < 0.5:
        raise ValueError(f"P: expected better conditioned, got eigenvalues {np.linalg.eigvalsh(P)}")
    found = Form(part, extra, P, R, len(moving), len(reached), far, 1.0)
    middle = matrices(found, x, np.zeros((1, n)), np.zeros((1, n)))[0]
    return found._replace(unit=float(np.median(np.abs(np.linalg.eigvalsh(middle[0])))))


def linearisation(form: Form, x: np.ndarray) -> np.ndarray:
    """∂f/∂x at x*, in coordinates z, up to rounding."""
    n = len(x)
    place = Affine(x[:, None], np.zeros((1, n, 1)), np.zeros((n, 1)))
    F = secants(*form.f, place, form.R)[0].matrix.c[..., 0]
    return np.linalg.solve(form.R, F)


def matrices(form: Form, x: np.ndarray, lo: np.ndarray, hi: np.ndarray):
    """M on boxes (B, n) of z: C, C_k, S as in `definite`; a lower bound of ‖φ‖²; what is undefined.

    Coordinates that are not cut have no ε: their extent counts as a remainder, of which M sees
    nothing.
    """
    R, k = form.R, form.cut
    middle = 0.5 * (lo + hi)
    half = np.maximum(hi - middle, middle - lo) * (1 + ROUNDING)
    size = np.abs(x)[:, None] + np.abs(R) @ np.maximum(np.abs(lo), np.abs(hi)).T
    rest = np.abs(R[:, k:]) @ half[:, k:].T * (1 + ROUNDING) + ROUNDING * size
    still = (lo == hi).all(axis=1) & (middle == 0).all(axis=1)
    place = Affine(
        x[:, None] + R @ middle.T,
        R.T[:k, :, None] * half.T[:k, None, :],
        np.where(still, 0.0, rest),
    )

    def parts(v: Affine):
        return v.c.transpose(2, 0, 1), v.a.transpose(3, 0, 1, 2), v.r.transpose(2, 0, 1)

    (found,) = secants(*form.f, place, R)
    F, Fk, Fr = parts(found.matrix)
    A, bad, least = np.broadcast_to(R.T @ (2 * form.P), F.shape), found.bad, np.zeros(len(lo))
    error = np.abs(R.T) @ np.abs(2 * form.P) @ (np.abs(F) + np.abs(Fk).sum(axis=1) + Fr)
    C, Ck, S = A @ F, A[:, None] @ Fk, np.abs(A) @ Fr
    if form.features is not None:
        value, gradient = secants(*form.features, place, R)
        bad = bad | gradient.bad
        least = np.maximum(np.nan_to_num(value.value.ends[0], nan=0.0, posinf=0.0), 0.0)
        G, Gk, Gr = (v.swapaxes(-1, -2) for v in parts(gradient.matrix))
        reach_F, reach_G = np.abs(Fk).sum(axis=1) + Fr, np.abs(Gk).sum(axis=1) + Gr
        C, Ck = C + G @ F, Ck + G[:, None] @ Fk + Gk @ F[:, None]
        S = S + np.abs(G) @ Fr + Gr @ np.abs(F) + reach_G @ reach_F
        error = error + (np.abs(G) + reach_G) @ (np.abs(F) + reach_F)

    def symmetric(v):
        return 0.5 * (v + v.swapaxes(-1, -2))

    S = symmetric(S + 4 * ROUNDING * error) * (1 + ROUNDING)
    return symmetric(C), symmetric(Ck), S, least, bad


def squares(form: Form, level: float, least) -> np.ndarray:
    """The greatest |z|² with V <= level, where ‖φ‖² >= least."""
    return (level - least) * (1 + 4 * ROUNDING) / (1 - form.eta)


def least_squares(lo, hi) -> np.ndarray:
    """The least z_i² of boxes, (B, n), not above the true ones."""
    away = np.where((lo <= 0) & (hi >= 0), 0.0, np.minimum(np.abs(lo), np.abs(hi)))
    return away**2 * (1 - ROUNDING)


def counterexample(form: Form, x, level: float, z: np.ndarray):
    """One of the points z (B, n), drawn into the ball, with V̇ >= 0 and V <= level for certain."""
    z = z[np.isfinite(z).all(axis=1) & (np.sum(z**2, axis=1) > 0)]
    if not len(z):
        return None
    z = z * np.minimum(1, np.sqrt(level) * (1 - 1e-9) / np.linalg.norm(z, axis=1))[:, None]
    with np.errstate(all="ignore"):
        C, _, S, _, bad = matrices(form, x, z, z)
        slope = np.einsum("bi,bij,bj->b", z, C, z)
        slope -= np.einsum("bi,bij,bj->b", np.abs(z), S, np.abs(z)) * (1 + ROUNDING)
    slope = np.where(bad, -np.inf, slope)
    i = int(np.argmax(slope))
    if not slope[i] > 0:
        return None
    above = 0.0
    if form.features is not None:
        blank, near = np.zeros((form.cut, len(x), 1)), np.full((len(x), 1), ROUNDING)
        here = Affine((x + form.R @ z[i])[:, None], blank, near * (1 + np.abs(x[:, None])))
        above = float(secants(*form.features, here, form.R)[0].value.ends[1][0])
    if (z[i] @ z[i]) * (1 + form.eta) * (1 + ROUNDING) + above > level:
        return None
    return x + form.R @ z[i]


def _axes(form: Form, x, lo, hi, C, Ck, S, rho, answer: Answer, bad) -> np.ndarray:
    """Which coordinate of each box to cut: the one that adds most to what stands in the way."""
    n, k = lo.shape[1], form.cut
    weight = answer.weight[:, :n]
    blind = bad | ~np.isfinite(Ck).all(axis=(1, 2, 3)) | ~np.isfinite(S).all(axis=(1, 2))
    Ck = np.where(blind[:, None, None, None], 0.0, Ck)
    inner = Ck * weight[:, None, :, None] * weight[:, None, None, :]
    scores = np.abs(np.linalg.eigvalsh(inner)).max(axis=-1)
    spare = answer.multipliers[:, 1:] * (hi - lo)[:, :k] ** 2 / 4
    scores += spare / np.maximum(rho, 1e-300)[:, None] * answer.weight[:, n:] ** 2
    if k > 1:
        whole = np.einsum("bij,bi,bj->b", S, weight, weight)
        for j in range(k):
            low, high = lo.copy(), hi.copy()
            low[:, j] = high[:, j] = 0.5 * (lo[:, j] + hi[:, j])
            less = matrices(form, x, low, high)[2]
            scores[:, j] += whole - np.einsum("bij,bi,bj->b", less, weight, weight)
    scores = np.where(blind[:, None] | ~np.isfinite(scores), (hi - lo)[:, :k], scores)
    return np.argmax(np.where((hi - lo)[:, :k] > 0, scores, -np.inf), axis=1)


class Search(NamedTuple):
    """The outcome for one level: verdict, reason, counterexample, boxes bounded, and the proof."""

    verdict: Verdict
    reason: str
    point: np.ndarray | None
    num_boxes: int
    boxes: tuple


class Judged(NamedTuple):
    """What is known of a batch: the boxes that matter, made smaller; which are proved, and how.

    `points` are where it may fail; `axes_fn(open)` says which coordinates of the open boxes to cut,
    or None if cutting does not help.
    """

    lo: np.ndarray
    hi: np.ndarray
    proved: np.ndarray
    multipliers: np.ndarray
    points: np.ndarray
    axes_fn: Callable


def _shared(judge_fn: Callable) -> Callable:
    """`judge_fn`, each process for its share of the boxes; the same for all of them."""

    def judge(lo, hi) -> Judged | None:
        n, turn = lo.shape[1], processes.turn()
        found = judge_fn(lo[turn], hi[turn]) if len(lo[turn]) else None
        rows = np.zeros((0, 0))
        if found is not None:
            axes = np.full(len(found.lo), -1)
            if not found.proved.all():
                with np.errstate(all="ignore"):
                    chosen = found.axes_fn(~found.proved)
                axes[~found.proved] = -1 if chosen is None else chosen
            columns = found.lo, found.hi, found.points, found.proved, axes, found.multipliers
            rows = np.column_stack(columns)
        rows = np.concatenate([part for part in processes.gathered(rows) if len(part)] or [rows])
        if not len(rows):
            return None
        lo, hi, points, proved, axes, multipliers = np.split(
            rows, [n, 2 * n, 3 * n, 3 * n + 1, 3 * n + 2], axis=1
        )
        proved, axes = proved[:, 0] > 0, axes[:, 0].astype(int)

        def axes_fn(rest):
            return None if (axes[rest] < 0).all() else axes[rest]

        return Judged(lo, hi, proved, multipliers, points, axes_fn)

    return judge


def branch_and_bound(
    judge_fn: Callable,
    form: Form,
    x,
    level: float,
    max_boxes: int,
    deadline: float,
    tell=None,
    keep=None,
    known=None,
    *,
    batch: int,
    smallest: float,
) -> Search:
    """Branch and bound for one level; `judge_fn(lo, hi)` gives `Judged`, None if none matter.

    `keep(over, open, done, count)` is offered the state before each batch; `known` is a saved one
    to go on from. Boxes are not cut below `smallest` times the ellipsoid's extent. Several
    processes make the same search, and each judges its share of every batch.
    """
    n = len(x)
    if processes.several():
        judge_fn = _shared(judge_fn)
    top = np.sqrt(squares(form, level, 0.0)) * (1 + 1e-12)
    stack = [(np.full((1, n), -top), np.full((1, n), top))]
    count, done = 0, []
    if known is not None:
        stack, done, count = state_of(known)

    def unfinished() -> Search:
        what = f"{count} boxes" if count >= max_boxes else "the time given"
        return Search(Verdict.UNKNOWN, f"not finished within {what}", None, count, ())

    while stack:
        over = count >= max_boxes or processes.agreed(time.perf_counter() > deadline)
        if keep is not None:
            keep(over, stack, done, count)
        if over:
            return unfinished()
        lo, hi = stack.pop()
        if len(lo) > batch:
            stack.append((lo[batch:], hi[batch:]))
            lo, hi = lo[:batch], hi[:batch]
        count += len(lo)
        found = judge_fn(lo, hi)
        if found is None:
            continue
        good, rest = found.proved, ~found.proved
        done.append((found.lo[good], found.hi[good], found.multipliers[good]))
        if tell is not None:
            tell(count, sum(len(s[0]) for s in stack) + int(rest.sum()))
        if good.all():
            continue
        point = counterexample(form, x, level, found.points[rest])
        if point is not None:
            reason = f"V does not fall at {point.tolist()}"
            return Search(Verdict.REFUTED, reason, point, count, ())
        if count >= max_boxes and keep is None:
            return unfinished()  # where to cut is a question to a proof that goes on
        lo, hi = found.lo[rest], found.hi[rest]
        with np.errstate(all="ignore"):
            axis = found.axes_fn(rest)
        rows = np.arange(len(lo))
        if axis is None or ((hi - lo)[rows, axis] < smallest * top).any():
            i = 0 if axis is None else int(np.argmin((hi - lo)[rows, axis]))
            where = (x + form.R @ (0.5 * (lo + hi)[i])).tolist()
            reason = f"a smallest box is open, around {where}"
            return Search(Verdict.UNKNOWN, reason, None, count, ())
        middle = 0.5 * (lo + hi)[rows, axis]
        low, high = lo.copy(), hi.copy()
        low[rows, axis] = high[rows, axis] = middle
        stack.append((np.concatenate([lo, low]), np.concatenate([high, hi])))
    boxes = tuple(np.concatenate(v) for v in zip(*done)) if done else ()
    return Search(Verdict.PROVED, "", None, count, boxes)


def _judge(form: Form, x, level: float, lo, hi) -> Judged | None:
    """By secants. What lies outside of the ball is cut off: first without, then with features."""
    least = least_squares(lo, hi)
    room = squares(form, level, 0.0) - least.sum(axis=1)
    lo, hi, least, room = (v[room >= 0] for v in (lo, hi, least, room))
    if not len(lo):
        return None
    reach = np.sqrt(room[:, None] + least) * (1 + 1e-12)
    lo, hi = np.maximum(lo, -reach), np.minimum(hi, reach)
    lo, hi = np.minimum(lo, hi), np.maximum(lo, hi)
    with np.errstate(all="ignore"):
        C, Ck, S, above, bad = matrices(form, x, lo, hi)
    rho = squares(form, level, above)
    kept = (rho >= least_squares(lo, hi).sum(axis=1)) | bad
    lo, hi, C, Ck, S, rho, bad = (v[kept] for v in (lo, hi, C, Ck, S, rho, bad))
    if not len(lo):
        return None
    answer = negative(C, Ck, S, lo, hi, rho, form.unit)

    def axes(rest) -> np.ndarray | None:
        if not form.cut:
            return None
        left = Answer(*(v[rest] for v in answer))
        return _axes(form, x, *(v[rest] for v in (lo, hi, C, Ck, S, rho)), left, bad[rest])

    return Judged(lo, hi, answer.proved & ~bad, answer.multipliers, answer.point, axes)


def search(form: Form, x, level: float, *budget, **options) -> Search:
    """`branch_and_bound` by secants."""
    judge = partial(_judge, form, x, level)
    options = {"batch": BATCH, "smallest": SMALLEST, **options}
    return branch_and_bound(judge, form, x, level, *budget, **options)
