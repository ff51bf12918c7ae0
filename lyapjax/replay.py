"""`replay`: a certificate is checked again in ball arithmetic, without the prover's bounds.

What it shares with the prover is the reading of steps in balls (`ball`) and the extent of an
ellipsoid (`local.reach`), both in Arb; no floating-point bound, no XLA, no derivative of JAX.

What is checked, for the functions, levels and boxes in the file:

    digests   every part is what it was when the certificate was written
    statement its words are those that the numbers give
    local     f(x*) = 0; P is positive definite; P J + J'P is negative definite for all slopes J
              of f on a box around {W <= core}; Ẇ < 0 where core <= W <= level; {W <= level} in D
    core      V > c1 on D where W >= level
    boundary  V > c2 on ∂D
    shell     V̇ < 0 on D where c1 <= V <= c2

For each of the last, the boxes must cover the region (decided by comparisons of floats alone), and
on each box the inequality must hold by its value, by its mean value form or, where neither is sharp
enough, on all parts of a finer division. V̇ and its gradient come from the jets of V and f: the
derivatives are formed here, not by JAX.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat, ctx

from lyapjax.ball import BITS, balls
from lyapjax.certificate import BOXES, PARTS, Certificate, digests, inexact, read_program
from lyapjax.domains import Ball, Box
from lyapjax.jets import Jet, add, constant, evaluate_jets, mul, square, sub, variable
from lyapjax.local import reach
from lyapjax.obligations import claimed
from lyapjax.proving import Verdict

MAX_DEPTH = 12


class Replay(NamedTuple):
    """What a replay found.

    Attributes:
      verdict: PROVED if every obligation holds, else UNKNOWN.
      reason: the first obligation that failed, and where; "" if none did.
      statement: what the certificate claims.
      num_boxes: boxes that were checked, divisions included.
      seconds: wall-clock time.

    Examples:
      >>> import lyapjax as ly
      >>> V, f, D = lambda x: x @ x, lambda x: -x, ly.Ball(1.0, (0.0, 0.0))
      >>> found = ly.replay(ly.certificate(V, f, D, ly.verify(V, f, D)))
      >>> found.verdict.value, found.reason
      ('PROVED', '')
    """

    verdict: Verdict
    reason: str
    statement: str
    num_boxes: int
    seconds: float


class _Failed(Exception):
    """An obligation that does not hold, as far as can be told."""


def is_covered(lo: np.ndarray, hi: np.ndarray, los: np.ndarray, his: np.ndarray) -> bool:
    """Whether boxes cover a box: by cutting it where no box is cut, down to single ones.

    Sufficient, and also necessary for boxes that came from cutting.
    """
    work = [(lo, hi, los, his)]
    while work:
        lo, hi, los, his = work.pop()
        if ((los <= lo) & (his >= hi)).all(axis=1).any():
            continue
        meets = np.where(lo < hi, (los < hi) & (his > lo), (los <= lo) & (his >= hi)).all(axis=1)
        los, his = los[meets], his[meets]
        cut = _clean_cut(lo, hi, los, his)
        if cut is None:
            return False
        axis, at = cut
        left, right = los[:, axis] < at, his[:, axis] > at
        middle_hi, middle_lo = hi.copy(), lo.copy()
        middle_hi[axis] = middle_lo[axis] = at
        work += [(lo, middle_hi, los[left], his[left]), (middle_lo, hi, los[right], his[right])]
    return True


def _clean_cut(lo, hi, los, his) -> tuple[int, float] | None:
    """A plane through the box that no box crosses; halves first, as they were made."""
    middle = 0.5 * lo + 0.5 * hi
    for axis in range(len(lo)):
        places = los[:, axis]
        places = np.unique(places[(places > lo[axis]) & (places < hi[axis])])
        nearest = places[np.argsort(np.abs(places - middle[axis]), kind="stable")]
        for at in nearest.tolist():
            if not ((los[:, axis] < at) & (his[:, axis] > at)).any():
                return axis, at
    return None


def _mean_value(jet_at: Callable, lo, hi) -> arb:
    """A ball around a function on a box: its value and its mean value form, intersected."""
    over = jet_at(balls(lo, hi))
    middle = 0.5 * lo + 0.5 * hi
    centre = jet_at(balls(middle))
    total = centre.value
    for g, x, m in zip(over.gradient, balls(lo, hi), middle.tolist()):
        total += g * (x - arb(m))
    if not total.is_finite():
        return over.value
    return total.intersection(over.value) if over.value.is_finite() else total


def _check(name: str, los, his, holds: Callable, deadline: float) -> int:
    """Check `holds(lo, hi)` on every box, or on its parts; the number of boxes looked at."""
    work = [(lo, hi, 0) for lo, hi in zip(los, his)]
    count = 0
    while work:
        lo, hi, depth = work.pop()
        count += 1
        if holds(lo, hi):
            continue
        if depth >= MAX_DEPTH:
            raise _Failed(f"{name}: the box from {lo.tolist()} to {hi.tolist()} is not proved")
        if time.perf_counter() > deadline:
            raise _Failed(f"{name}: the time is over")
        axis = int(np.argmax(hi - lo))
        at = 0.5 * lo[axis] + 0.5 * hi[axis]
        below, above = hi.copy(), lo.copy()
        below[axis] = above[axis] = at
        work += [(lo, below, depth + 1), (above, hi, depth + 1)]
    return count


def _exact(values: np.ndarray) -> arb_mat:
    return arb_mat(*values.shape, [arb(v) for v in values.ravel().tolist()])


def _is_definite(matrix: arb_mat) -> bool:
    """Proof that a symmetric matrix of balls is positive definite, by Gershgorin's circles.

    After a congruence that takes its middle to about the identity.
    """
    n = matrix.nrows()
    middle = np.array([float(v.mid()) for v in matrix.entries()]).reshape(n, n)
    try:
        R = _exact(np.linalg.inv(np.linalg.cholesky(middle)))
    except np.linalg.LinAlgError:
        return False
    image = R * matrix * R.transpose()
    for i in range(n):
        others = sum((abs(image[i, j]) for j in range(n) if j != i), arb(0))
        if not image[i, i] > others:
            return False
    return True


class Claim:
    """The numbers and functions of a certificate, as exact balls."""

    def __init__(self, document: dict):
        self.V, self.f = (read_program(document[name]) for name in ("V", "f"))
        self.x = inexact(document["equilibrium"])
        self.n = len(self.x)
        numbers = inexact(document["domain"]["numbers"])
        self.is_ball = document["domain"]["kind"] == "ball"
        self.radius, self.centre = numbers[0], numbers[1:]
        self.lo, self.hi = numbers[: self.n], numbers[self.n :]
        if self.is_ball:
            ends = [
                [arb(c) + sign * arb(self.radius) for c in self.centre.tolist()] for sign in (-1, 1)
            ]
            self.lo = np.array([np.nextafter(float(v.lower()), -np.inf) for v in ends[0]])
            self.hi = np.array([np.nextafter(float(v.upper()), np.inf) for v in ends[1]])
        self.c1, self.c2 = (float.fromhex(document["levels"][key]) for key in ("c1", "c2"))
        local = document["local"]
        self.P = inexact(local["P"])
        self.level, self.core = (float.fromhex(local[key]) for key in ("level", "core"))

    @property
    def statement(self) -> str:
        """What the numbers claim, in words."""
        if self.is_ball:
            domain = Ball(float(self.radius), tuple(self.centre.tolist()))
        else:
            domain = Box(tuple(self.lo.tolist()), tuple(self.hi.tolist()))
        return claimed(self.c2, domain, self.x)

    def coordinates(self, x, order: int) -> list[Jet]:
        """x as jets."""
        return [variable(v, i, self.n, order) for i, v in enumerate(x)]

    def gauge(self, x) -> Jet:
        """‖x - centre‖² - radius²."""
        radius = constant(arb(self.radius) ** 2, self.n, 1)
        return sub(self._squares(x, self.centre), radius)

    def _squares(self, x, centre) -> Jet:
        total = constant(arb(0), self.n, 1)
        for jet, c in zip(self.coordinates(x, 1), centre.tolist()):
            total = add(total, square(sub(jet, constant(arb(c), self.n, 1))))
        return total

    def W(self, x) -> Jet:
        """(x - x*)'P(x - x*)."""
        away = self._away(x)
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            total = add(total, mul(constant(arb(self.P[i, i]), self.n, 1), square(away[i])))
            for j in range(i):
                both = arb(self.P[i, j]) + arb(self.P[j, i])
                term = mul(away[i], away[j])
                total = add(total, mul(constant(both, self.n, 1), term))
        return total

    def _away(self, x) -> list[Jet]:
        jets = self.coordinates(x, 1)
        return [sub(jet, constant(arb(c), self.n, 1)) for jet, c in zip(jets, self.x.tolist())]

    def V_of(self, x) -> Jet:
        """V."""
        return evaluate_jets(self.V, list(x), 1)[0].item()

    def slope_of_V(self, x) -> Jet:
        """V̇ = ∇V'f and its gradient ∇²V f + J'∇V."""
        v = evaluate_jets(self.V, list(x), 2)[0].item()
        f = evaluate_jets(self.f, list(x), 1)[0]
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            row = tuple(v.hessian[i * self.n : (i + 1) * self.n])
            total = add(total, mul(Jet(v.gradient[i], row), f[i]))
        return total

    def slope_of_W(self, x) -> Jet:
        """Ẇ / 2 = (x - x*)'P f."""
        f, away = evaluate_jets(self.f, list(x), 1)[0], self._away(x)
        total = constant(arb(0), self.n, 1)
        for i in range(self.n):
            for j in range(self.n):
                p = constant(arb(self.P[i, j]), self.n, 1)
                total = add(total, mul(mul(p, away[j]), f[i]))
        return total

    def outside(self, lo, hi) -> bool:
        """Whether a box is certainly outside of the ball."""
        return self.is_ball and bool(_mean_value(self.gauge, lo, hi) > 0)


def _local(claim: Claim, boxes, deadline: float) -> int:
    """The ellipsoid converges to the equilibrium."""
    f = evaluate_jets(claim.f, balls(claim.x).tolist(), 1)[0]
    if not all(jet.value == 0 for jet in f):
        raise _Failed("local: f(x*) is not 0")
    if not (0 < claim.core <= claim.level):
        raise _Failed("local: the levels are not 0 < core <= level")
    if not (claim.P == claim.P.T).all() or not _is_definite(_exact(claim.P)):
        raise _Failed("local: P is not symmetric and positive definite")

    def around(level: float) -> tuple[np.ndarray, np.ndarray]:
        half = reach(claim.P, level)
        return np.nextafter(claim.x - half, -np.inf), np.nextafter(claim.x + half, np.inf)

    lo, hi = around(claim.core)
    slopes = evaluate_jets(claim.f, balls(lo, hi).tolist(), 1)[0]
    J = arb_mat([list(jet.gradient) for jet in slopes])
    product = _exact(claim.P) * J
    if not _is_definite(-(product + product.transpose())):
        raise _Failed("local: P J + J'P is not negative definite around x*")
    lo, hi = around(claim.level)
    if claim.is_ball:
        # The farthest corner.
        far = np.maximum(np.abs(lo - claim.centre), np.abs(hi - claim.centre)) * (1 + 1e-15)
        if not sum((arb(v) ** 2 for v in far.tolist()), arb(0)) < arb(claim.radius) ** 2:
            raise _Failed("local: {W <= level} is not inside the domain")
    elif not ((lo > claim.lo) & (hi < claim.hi)).all():
        raise _Failed("local: {W <= level} is not inside the domain")
    if claim.level == claim.core:
        return 0
    if not is_covered(lo, hi, *boxes):
        raise _Failed("local: the boxes do not cover {W <= level}")

    def holds(lo, hi) -> bool:
        w = _mean_value(claim.W, lo, hi)
        if w < claim.core or w > claim.level:
            return True
        return bool(_mean_value(claim.slope_of_W, lo, hi) < 0)

    return _check("local", *boxes, holds, deadline)


def _core(claim: Claim, boxes, deadline: float) -> int:
    """{V <= c1} lies in the ellipsoid."""
    if not is_covered(claim.lo, claim.hi, *boxes):
        raise _Failed("core: the boxes do not cover the domain")

    def holds(lo, hi) -> bool:
        if _mean_value(claim.V_of, lo, hi) > claim.c1:
            return True
        return bool(_mean_value(claim.W, lo, hi) < claim.level) or claim.outside(lo, hi)

    return _check("core", *boxes, holds, deadline)


def _boundary(claim: Claim, boxes, deadline: float) -> int:
    """The level set stays inside."""
    faces = [(claim.lo, claim.hi)]
    if not claim.is_ball:
        faces = []
        for i in range(claim.n):
            for end in (claim.lo, claim.hi):
                lo, hi = claim.lo.copy(), claim.hi.copy()
                lo[i] = hi[i] = end[i]
                faces.append((lo, hi))
    for lo, hi in faces:
        flat = lo == hi
        there = ((boxes[0] <= lo) & (boxes[1] >= hi))[:, flat].all(axis=1)
        if not is_covered(lo, hi, boxes[0][there], boxes[1][there]):
            raise _Failed("boundary: the boxes do not cover the boundary of the domain")

    def holds(lo, hi) -> bool:
        if claim.is_ball and not _mean_value(claim.gauge, lo, hi).contains(0):
            return True
        return bool(_mean_value(claim.V_of, lo, hi) > claim.c2)

    return _check("boundary", *boxes, holds, deadline)


def _shell(claim: Claim, boxes, deadline: float) -> int:
    """V falls between the levels."""
    if claim.c1 >= claim.c2:
        return 0  # then {V <= c2} lies in the ellipsoid
    if not is_covered(claim.lo, claim.hi, *boxes):
        raise _Failed("shell: the boxes do not cover the domain")

    def holds(lo, hi) -> bool:
        v = _mean_value(claim.V_of, lo, hi)
        if v < claim.c1 or v > claim.c2 or claim.outside(lo, hi):
            return True
        return bool(_mean_value(claim.slope_of_V, lo, hi) < 0)

    return _check("shell", *boxes, holds, deadline)


OBLIGATIONS = {"local": _local, "core": _core, "boundary": _boundary, "shell": _shell}


def replay(proof, *, max_seconds: float = 600.0, callback_fn=None) -> Replay:
    """Check a certificate again, by arithmetic that shares nothing with the prover.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    Args:
      proof: a `Certificate`, or the path of a file that one was saved to.
      max_seconds: for all of it; some milliseconds a box.
      callback_fn: called with (obligation, number of boxes) when one has been checked.

    Returns:
      `Replay`.

    Raises:
      ValueError: a file that is no certificate.
      NotImplementedError: an operation without a derivative in balls, by its name.

    Reference:
      See `lyapjax.obligations` for why the obligations imply the statement.

    Examples:
      >>> import lyapjax as ly
      >>> V, f, D = lambda x: x @ x, lambda x: -x, ly.Ball(1.0, (0.0, 0.0))
      >>> c = ly.certificate(V, f, D, ly.verify(V, f, D))
      >>> c.document["levels"]["c2"] = (2.0).hex()
      >>> ly.replay(c).reason
      'digest: the levels were changed after the certificate was written'
    """
    start = time.perf_counter()
    found = proof if isinstance(proof, Certificate) else Certificate.load(proof)
    old, ctx.prec = ctx.prec, BITS
    verdict, reason, count = Verdict.PROVED, "", 0
    try:
        _check_digests(found)
        claim = Claim(found.document)
        if found.statement != claim.statement:
            raise _Failed(f"statement: the numbers say: {claim.statement}")
        for name, check in OBLIGATIONS.items():
            number = check(claim, found.boxes[name], start + max_seconds)
            count += number
            if callback_fn is not None:
                callback_fn(name, number)
    except _Failed as failure:
        verdict, reason = Verdict.UNKNOWN, str(failure)
    finally:
        ctx.prec = old
    statement = found.document.get("statement", "")
    return Replay(verdict, reason, statement, count, time.perf_counter() - start)


def _check_digests(proof: Certificate) -> None:
    try:
        now, then = digests(proof.document, proof.boxes), proof.document["digests"]
        changed = [name for name in now if now[name] != then[name]]
    except (KeyError, TypeError, AttributeError) as error:
        raise _Failed(f"digest: a part is missing: {error}") from error
    if set(now) != {*PARTS, *(f"boxes {name}" for name in BOXES)} or changed:
        what = " and ".join(changed)
        raise _Failed(f"digest: the {what} were changed after the certificate was written")
