"""`verify_region`: a region of attraction proved by one inequality, in six dimensions and more.

    V(x) = (x - x*)'P (x - x*) + ‖φ(x)‖²,        V̇ < 0 where V <= c, but at x*

{V <= c} lies in the ellipsoid (x - x*)'P (x - x*) <= c, which is checked to lie inside the domain:
it is compact, and there is no boundary to look at. V falls along every trajectory from it, which
therefore stays, and -V̇ is positive on it but at x*: the trajectory tends to x*. There is no hole
around the equilibrium to be closed by another argument (see `regional` for how the inequality is
proved).

Against `verify`, which takes any V: the form is a restriction, and what it buys is that the ducted
fan takes tens of boxes instead of a million.
"""

import dataclasses
import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.proofs import processes, regional, sectors
from lyapjax.proofs.admissible import check_derivatives
from lyapjax.proofs.checkpoint import Checkpoint, packed, stamp, state_from, unpacked
from lyapjax.proofs.local import ellipsoid_inside
from lyapjax.proofs.proving import Verdict
from lyapjax.proofs.regional import Form, Search, form_of, linearisation
from lyapjax.proofs.regions import region_volume
from lyapjax.readers.program import JUMPS, KINKS, Program, trace
from lyapjax.systems.domains import Ball, Box
from lyapjax.systems.system import require_float64

NUM_DIRECTIONS = 4096
NUM_TRIES = 16
# By `regional` if the form depends on at most this many coordinates, else by `sectors`.
MOST_CUT = 2
# Boxes for each level until one is proved, and for those after it; of `sectors`, whose are large.
FIRST, MORE = 4_000, 1_000
FIRST_LARGE, MORE_LARGE = 1, 150


@dataclasses.dataclass(frozen=True)
class Region:
    """A region of attraction, and its proof.

        every trajectory from { x : V(x) <= level } tends to x*

    Attributes:
      verdict: PROVED; REFUTED if the level that was asked for has a counterexample; UNKNOWN.
      statement: what is proved, or was tried.
      reason: why it is not proved, else "".
      point: (n,) with V <= level and V̇ >= 0, proved in interval arithmetic; None unless REFUTED.
      level: c, nan if not proved.
      volume: of the region: a lower bound; 0 if not proved.
      num_boxes: boxes that were bounded, for all levels tried.
      seconds: wall-clock time.
      R: (n, n) coordinates of the boxes, x = x* + R z.
      lo: (N, n) lower corners of the boxes of the proof, in z.
      hi: (N, n) their upper corners.
      multipliers: (N, 1 + K) of the S-procedure on each box, zeros where none are needed; with
        sectors (N, 1 + n + p), see `lyapjax.proofs.sectors`.
      by_sectors: whether the boxes are those of `lyapjax.proofs.sectors`.
      functions: f and φ as programs, None for a φ that is not there.
      P: (n, n) as given.
      domain: as given.
      equilibrium: (n,) x*.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> r = ly.verify_region(lambda x: -x + x**3, jnp.eye(2), ly.Ball(2.0, (0.0, 0.0)))
      >>> r.verdict.value, round(r.level, 1)
      ('PROVED', 1.0)
    """

    verdict: Verdict
    statement: str
    reason: str
    point: np.ndarray | None
    level: float
    volume: float
    num_boxes: int
    seconds: float
    R: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    multipliers: np.ndarray
    by_sectors: bool
    functions: tuple[Program, Program | None]
    P: np.ndarray
    domain: Ball | Box
    equilibrium: np.ndarray

    @property
    def proved(self) -> bool:
        """Whether the statement holds."""
        return self.verdict is Verdict.PROVED


def claimed_region(level: float, with_features: bool, x: np.ndarray) -> str:
    """The statement that is proved, in words."""
    what = "(x - x*)'P(x - x*)" + (" + |φ(x)|²" if with_features else "")
    return f"every trajectory from {{V <= {level!r}}}, V = {what}, tends to {x.tolist()}"


def _check(f, P, domain, equilibrium, level, features_fn):
    """P, x* and the form; ValueErrors for what no proof can be made of."""
    require_float64("verify_region")
    if not isinstance(domain, (Ball, Box)):
        raise ValueError(f"domain: expected a Ball or a Box, got {domain!r}")
    n = domain.dim
    P = np.asarray(P, float)
    x = np.zeros(n) if equilibrium is None else np.asarray(equilibrium, float)
    if x.shape != (n,) or not np.isfinite(x).all():
        raise ValueError(f"equilibrium: expected {n} finite numbers, got {equilibrium!r}")
    if not float(domain.gauge(jnp.asarray(x))) < 1:
        raise ValueError(f"equilibrium: expected a point inside the domain, got {x.tolist()}")
    if P.shape != (n, n) or not np.isfinite(P).all() or (P != P.T).any():
        raise ValueError(f"P: expected a symmetric matrix of shape ({n}, {n}), got {P.tolist()}")
    if not np.linalg.eigvalsh(P)[0] > 1e-9 * np.abs(P).max():
        raise ValueError(f"P: expected positive definite, got eigenvalues {np.linalg.eigvalsh(P)}")
    if level is not None and not 0 < level < np.inf:
        raise ValueError(f"level: expected a positive number, got {level!r}")
    shape = getattr(jax.eval_shape(f, jnp.asarray(x)), "shape", None)
    if shape != (n,):
        raise ValueError(f"f: expected a result of shape ({n},), got {shape}")
    given = {"f": f} if features_fn is None else {"f": f, "features_fn": features_fn}
    for name, fn in given.items():
        bad = trace(fn, jnp.asarray(x)).ops & (JUMPS if name == "f" else JUMPS | KINKS)
        if bad:
            raise ValueError(f"{name}: expected a smooth function, got {sorted(bad)}")
    if features_fn is not None:
        check_derivatives("features_fn", features_fn, n)
    form = form_of(f, P, x, features_fn)
    parts = {"f": form.f} if features_fn is None else {"f": form.f, "features_fn": form.features}
    for name, part in parts.items():
        program = part.program
        if not all(part.base.zero[k] for k in program.outputs):
            raise ValueError(
                f"{name}: expected exactly 0 at x* = {x.tolist()}; write it such that it is"
            )
    return P, x, form


def largest_level(P: np.ndarray, x: np.ndarray, domain: Ball | Box) -> float:
    """A level whose ellipsoid lies inside the domain: the largest, up to a part in 10⁹.

    Or in fewer, where P is ill-conditioned: that it lies inside is decided in ball arithmetic.
    """
    if isinstance(domain, Ball):
        # Largest distance from the centre: |x - centre| + sqrt(level / least eigenvalue).
        room = domain.radius - np.linalg.norm(x - np.asarray(domain.centre))
        about = float(room**2 * np.linalg.eigvalsh(P)[0])
    else:
        lo, hi = np.asarray(domain.lo), np.asarray(domain.hi)
        room = np.minimum(x - lo, hi - x)
        about = float(np.min(room**2 / np.diag(np.linalg.inv(P))))
    for digits in range(9, 0, -1):
        level = about * (1 - 10.0**-digits)
        if ellipsoid_inside(domain, x, P, level):
            return level
    raise ValueError(
        f"equilibrium: expected a point well inside the domain, got {x.tolist()} in {domain}; "
        "enlarge or move the domain"
    )


def _first_violation(f, form: Form, x, features_fn, top: float) -> float:
    """About the least V <= top at which V̇ >= 0, from samples; only a guess."""
    P, R = jnp.asarray(form.P), jnp.asarray(form.R)

    def V(y):
        away = y - x
        extra = 0.0 if features_fn is None else jnp.sum(jnp.square(features_fn(y)))
        return away @ (P @ away) + extra

    @jax.jit
    def look(z):
        def one(z):
            y = x + R @ z
            value, slope = jax.jvp(V, (y,), (f(y),))
            return jnp.where((slope >= 0) & (z @ z > 0), value, jnp.inf)

        return jax.lax.map(one, z, batch_size=4096)

    rng = np.random.default_rng(0)
    z = rng.normal(size=(NUM_DIRECTIONS * 4, len(x)))
    z *= (
        np.sqrt(top)
        * np.sqrt(rng.uniform(0.01, 1, (len(z), 1)))
        / np.linalg.norm(z, axis=1, keepdims=True)
    )
    values = np.asarray(look(jnp.asarray(z)))
    best, spread = np.inf, 0.2
    for _ in range(40):
        best = min(best, float(values.min()))
        if not np.isfinite(best):
            return best
        order = np.argsort(values)[:64]
        seeds = z[order][np.isfinite(values[order])]
        z = np.repeat(seeds, NUM_DIRECTIONS // len(seeds) + 1, axis=0)
        size = spread * np.linalg.norm(z, axis=1, keepdims=True)
        z = (z + size * rng.normal(size=z.shape) / np.sqrt(len(x))) * (
            1 - spread * rng.uniform(0, 0.3, (len(z), 1))
        )
        z[: len(seeds)] = seeds
        z = np.resize(z, (NUM_DIRECTIONS, len(x)))
        values = np.asarray(look(jnp.asarray(z)))
        spread *= 0.85
    return best


def verify_region(
    f: Callable,
    P,
    domain: Ball | Box,
    equilibrium=None,
    *,
    features_fn: Callable | None = None,
    level: float | None = None,
    max_boxes: int = 200_000,
    max_seconds: float = 60.0,
    callback_fn: Callable[[float, int, int], None] | None = None,
    checkpoint=None,
) -> Region:
    """Prove the region of attraction of a quadratic V, or of one with features beside.

        V(x) = (x - x*)'P (x - x*) + ‖φ(x)‖²:    V(x(0)) <= c   implies   x(t) → x*

    Strict, without a hole at x*, nothing relaxed. Runs on the host, without compiled code.

    Args:
      f: (n,) -> (n,) closed loop, smooth, f(x*) = 0 exactly.
      P: (n, n) symmetric positive definite.
      domain: `Ball` or `Box` in which the region must lie.
      equilibrium: (n,) x*; the origin by default.
      features_fn: (n,) -> (p,) φ, smooth, φ(x*) = 0 exactly; none by default.
      level: c; by default the largest that is proved, to about 1%.
      max_boxes: for each level tried.
      max_seconds: for all of it.
      callback_fn: called with (level, boxes bounded, boxes open) after each batch.
      checkpoint: a path; every half minute, and when the budget is over, the state is written
        there, and a call with a file there goes on from it, to the same level and boxes. The file
        is removed when the search has ended. Not where several processes share the boxes.

    Returns:
      `Region`.

    Raises:
      ValueError: an f or φ that is not exactly 0 at x* or may have kinks, a P that is not positive
        definite, wrong shapes, float32, a checkpoint of another proof.
      NotImplementedError: an operation without secants, by its name.

    Reference:
      Chang, Roohi & Gao, section 4: six states, "numerically relaxed" there. The S-procedure:
      Boyd, El Ghaoui, Feron & Balakrishnan, Linear Matrix Inequalities, section 2.6.

    Examples:
      >>> import lyapjax as ly
      >>> fan = ly.systems.ducted_fan()
      >>> lqr = ly.lqr(fan)
      >>> f = fan.closed_loop(ly.linear_controller(fan, lqr.K))
      >>> proof = ly.verify_region(f, lqr.P, fan.domain, level=0.3)
      >>> proof.verdict.value, proof.num_boxes < 100
      ('PROVED', True)
    """
    start = time.perf_counter()
    P, x, form = _check(f, P, domain, equilibrium, level, features_fn)
    level = None if level is None else float(level)  # as its words and its file have it
    phi = None if features_fn is None else trace(features_fn, jnp.asarray(x))
    claim = (form.f.program, phi), P, domain, x
    top = largest_level(P, x, domain)
    count, best, last = 0, None, None
    large = form.cut > MOST_CUT and sectors.is_readable(form, x)
    search = sectors.search if large else regional.search
    first, more = (FIRST_LARGE, MORE_LARGE) if large else (FIRST, MORE)

    def finish(verdict, reason="", point=None):
        seconds = time.perf_counter() - start
        if best is None:
            says, empty = claimed_region(level or "c", phi is not None, x), np.zeros((0, len(x)))
            return Region(
                verdict, says, reason, point, np.nan, 0.0, count, seconds,
                form.R, empty, empty, np.zeros((0, 1 + form.cut)), large, *claim,
            )  # fmt: skip
        c, found = best
        says = claimed_region(c, phi is not None, x)
        return Region(
            Verdict.PROVED, says, "", None, c, region_volume(form, x, c), count, seconds,
            form.R, *found.boxes, large, *claim,
        )  # fmt: skip

    if level is not None and level > top:
        return finish(
            Verdict.UNKNOWN, f"{{V <= {level}}} may leave the domain; at most {top:g} fits"
        )
    if np.linalg.eigvals(linearisation(form, x)).real.max() >= 0:
        return finish(Verdict.UNKNOWN, "the linearisation at x* is not stable")
    keeper, known = None, None
    if checkpoint is not None or processes.several():
        what = stamp(*claim[0], P, x, repr(domain), level)
        processes.check(what, checkpoint)
    if checkpoint is not None:
        keeper = Checkpoint(checkpoint, what)
        known = keeper.load()
    if known is not None:
        tries, target, high, budget, count, reached, bounded = known["levels"].tolist()
        tries, budget, count = int(tries), int(budget), int(count)
        if reached > 0:
            boxes = unpacked("best", known)[0]
            best = reached, Search(Verdict.PROVED, "", None, int(bounded), boxes)
    else:
        tries, target, budget = 1 if level is not None else NUM_TRIES, level or top, max_boxes
        if level is None:
            target = min(top, 0.97 * _first_violation(f, form, x, features_fn, top))
            budget = min(max_boxes, first)
        high = target
    deadline = start + max_seconds

    def keep(over: bool, *state) -> None:
        late = over and (level is not None or time.perf_counter() > deadline)
        if not (late or keeper.is_due):
            return
        reached, bounded = (0.0, 0) if best is None else (best[0], best[1].num_boxes)
        levels = np.array([tries, target, high, budget, count, reached, bounded])
        proved = {} if best is None else packed("best", [best[1].boxes])
        keeper.save({**state_from(*state), **proved, "levels": levels})

    while tries:
        tell = None if callback_fn is None else (lambda *s, c=target: callback_fn(c, *s))
        allowed = max_boxes if level is not None else budget
        keeping = None if keeper is None else keep
        last = search(form, x, target, allowed, deadline, tell, keeping, known)
        known = None
        if time.perf_counter() > deadline and last.verdict is Verdict.UNKNOWN:
            keeper = None  # the state in the file is where to go on
        count, tries = count + last.num_boxes, tries - 1
        if last.verdict is Verdict.PROVED:
            best = target, last
            # Close to the largest level the boxes needed grow without bound.
            budget = min(max_boxes, max(more, 10 * last.num_boxes))
        elif best is not None or not large:
            high = target
        elif tries <= NUM_TRIES // 2:
            budget = min(max_boxes, 2 * budget)  # a V that falls too slowly for one box
        if best is not None and best[0] >= 0.99 * high:
            break
        if processes.agreed(time.perf_counter() > deadline):
            break
        target = 0.7 * target if best is None else math.sqrt(best[0] * high)
    if keeper is not None and (level is None or last.verdict is not Verdict.UNKNOWN):
        keeper.remove()
    refuted = level is not None and last.verdict is Verdict.REFUTED
    verdict = Verdict.REFUTED if refuted else Verdict.UNKNOWN
    return finish(verdict, last.reason, last.point if refuted else None)
