"""`replay`: a certificate is checked again in ball arithmetic, without the prover's bounds.

Ball arithmetic takes a millisecond a box. A certificate of very many boxes is checked on all of
them by plain NumPy intervals whose rounding is proved (`spans`), and on some, drawn at random, in
balls too.

What it shares with the prover is the reading of steps in balls (`ball`) and the extent of an
ellipsoid (`local.reach`), both in Arb; no floating-point bound, no XLA, no derivative of JAX.

What is checked, for the functions, levels and boxes in a file of a proof by `verify` (for those of
`verify_region` see `regions` and `sectors`):

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

from lyapjax.certificates import regions, sectors
from lyapjax.certificates.certificate import FORMAT, REGION, SECTORS, Certificate, digests
from lyapjax.certificates.checking import Budget, Failed, exact, give_up, is_definite, keep_time
from lyapjax.certificates.claims import Claim, either
from lyapjax.certificates.covers import is_covered
from lyapjax.proofs.local import reach
from lyapjax.proofs.proving import Verdict
from lyapjax.readers.ball import BITS, balls
from lyapjax.readers.jets import evaluate_jets

AT_ONCE = 4096  # boxes in one array
NUM_DRAWN = 1000  # boxes that are checked in balls too, where arrays have checked all


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


def _check(name: str, los, his, holds: Callable, budget: Budget) -> int:
    """Check `holds(lo, hi)` on every box, or on its parts; the number of boxes looked at."""
    count, num = 0, budget.num_balls
    if num is not None and len(los) > num:
        count = _check_all(name, los, his, holds, budget)
        chosen = np.random.default_rng(0).choice(len(los), min(num, NUM_DRAWN), replace=False)
        los, his = los[chosen], his[chosen]
    work = [(lo, hi, 0) for lo, hi in zip(los, his)]
    while work:
        keep_time(name, budget)
        lo, hi, depth = work.pop()
        count += 1
        if holds(lo, hi):
            continue
        give_up(name, lo, hi, depth)
        axis = int(np.argmax(hi - lo))
        at = 0.5 * lo[axis] + 0.5 * hi[axis]
        below, above = hi.copy(), lo.copy()
        below[axis] = above[axis] = at
        work += [(lo, below, depth + 1), (above, hi, depth + 1)]
    return count


def _check_all(name: str, los, his, holds: Callable, budget: Budget) -> int:
    """`_check` by arrays."""
    work = [(los, his, 0)]
    count = 0
    while work:
        keep_time(name, budget)
        lo, hi, depth = work.pop()
        if len(lo) > AT_ONCE:
            work.append((lo[AT_ONCE:], hi[AT_ONCE:], depth))
            lo, hi = lo[:AT_ONCE], hi[:AT_ONCE]
        count += len(lo)
        left = ~holds(lo, hi)
        if not left.any():
            continue
        lo, hi = lo[left], hi[left]
        give_up(name, lo[0], hi[0], depth)
        rows, axis = np.arange(len(lo)), np.argmax(hi - lo, axis=1)
        at = 0.5 * lo[rows, axis] + 0.5 * hi[rows, axis]
        below, above = hi.copy(), lo.copy()
        below[rows, axis] = above[rows, axis] = at
        work.append((np.concatenate([lo, above]), np.concatenate([below, hi]), depth + 1))
    return count


def _local(claim: Claim, boxes, budget: Budget) -> int:
    """The ellipsoid converges to the equilibrium."""
    f = evaluate_jets(claim.f, balls(claim.x).tolist(), 1)[0]
    if not all(jet.value == 0 for jet in f):
        raise Failed("local: f(x*) is not 0")
    if not (0 < claim.core <= claim.level):
        raise Failed("local: the levels are not 0 < core <= level")
    if not (claim.P == claim.P.T).all() or not is_definite(exact(claim.P)):
        raise Failed("local: P is not symmetric and positive definite")

    def around(level: float) -> tuple[np.ndarray, np.ndarray]:
        half = reach(claim.P, level)
        return np.nextafter(claim.x - half, -np.inf), np.nextafter(claim.x + half, np.inf)

    lo, hi = around(claim.core)
    slopes = evaluate_jets(claim.f, balls(lo, hi).tolist(), 1)[0]
    J = arb_mat([list(jet.gradient) for jet in slopes])
    product = exact(claim.P) * J
    if not is_definite(-(product + product.transpose())):
        raise Failed("local: P J + J'P is not negative definite around x*")
    lo, hi = around(claim.level)
    if claim.is_ball:
        # The farthest corner.
        far = np.maximum(np.abs(lo - claim.centre), np.abs(hi - claim.centre)) * (1 + 1e-15)
        if not sum((arb(v) ** 2 for v in far.tolist()), arb(0)) < arb(claim.radius) ** 2:
            raise Failed("local: {W <= level} is not inside the domain")
    elif not ((lo > claim.lo) & (hi < claim.hi)).all():
        raise Failed("local: {W <= level} is not inside the domain")
    if claim.level == claim.core:
        return 0
    if not is_covered(lo, hi, *boxes):
        raise Failed("local: the boxes do not cover {W <= level}")

    holds = either(
        claim.below(claim.W, claim.core),
        claim.above(claim.W, claim.level),
        claim.below(claim.slope_of_W, 0.0),
    )
    return _check("local", *boxes, holds, budget)


def _core(claim: Claim, boxes, budget: Budget) -> int:
    """{V <= c1} lies in the ellipsoid."""
    if not is_covered(claim.lo, claim.hi, *boxes):
        raise Failed("core: the boxes do not cover the domain")

    holds = either(
        claim.above(claim.V_of, claim.c1), claim.below(claim.W, claim.level), claim.outside
    )
    return _check("core", *boxes, holds, budget)


def _boundary(claim: Claim, boxes, budget: Budget) -> int:
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
            raise Failed("boundary: the boxes do not cover the boundary of the domain")

    within = [claim.below(claim.gauge, 0.0)] if claim.is_ball else []
    holds = either(claim.outside, *within, claim.above(claim.V_of, claim.c2))
    return _check("boundary", *boxes, holds, budget)


def _shell(claim: Claim, boxes, budget: Budget) -> int:
    """V falls between the levels."""
    if claim.c1 >= claim.c2:
        return 0  # then {V <= c2} lies in the ellipsoid
    if not is_covered(claim.lo, claim.hi, *boxes):
        raise Failed("shell: the boxes do not cover the domain")

    holds = either(
        claim.below(claim.V_of, claim.c1),
        claim.above(claim.V_of, claim.c2),
        claim.outside,
        claim.below(claim.slope_of_V, 0.0),
    )
    return _check("shell", *boxes, holds, budget)


OBLIGATIONS = {"local": _local, "core": _core, "boundary": _boundary, "shell": _shell}
KINDS = {
    FORMAT: (Claim, OBLIGATIONS),
    REGION: (regions.RegionClaim, regions.OBLIGATIONS),
    SECTORS: (regions.RegionClaim, sectors.OBLIGATIONS),
}


def replay(
    proof, *, max_seconds: float = 600.0, num_balls: int = 100_000, callback_fn=None
) -> Replay:
    """Check a certificate again, by arithmetic that shares nothing with the prover.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    Args:
      proof: a `Certificate`, or the path of a file that one was saved to.
      max_seconds: for all of it; some milliseconds a box in balls, microseconds in arrays.
      num_balls: an obligation of more boxes is checked on all of them by plain NumPy intervals, and
        in ball arithmetic on 1000 of them. Functions with kinks or logarithms are always checked in
        balls.
      callback_fn: called with (obligation, number of boxes) when one has been checked.

    Returns:
      `Replay`.

    Raises:
      ValueError: a file that is no certificate.
      NotImplementedError: an operation without a derivative in balls, by its name.

    Reference:
      See `lyapjax.proofs.obligations` for why the obligations imply the statement.

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
        reads, obligations = KINDS[found.document["format"]]
        claim = reads(found.document)
        if found.statement != claim.statement:
            raise Failed(f"statement: the numbers say: {claim.statement}")
        budget = Budget(start + max_seconds, num_balls if claim.is_plain else None)
        for name, check in obligations.items():
            number = check(claim, found.boxes.get(name, found.boxes.get("region")), budget)
            count += number
            if callback_fn is not None:
                callback_fn(name, number)
    except Failed as failure:
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
        raise Failed(f"digest: a part is missing: {error}") from error
    if changed:
        what = " and ".join(changed)
        raise Failed(f"digest: the {what} were changed after the certificate was written")
