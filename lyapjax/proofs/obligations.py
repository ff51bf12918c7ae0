"""`verify`: the whole proof that every trajectory from a level set converges to the equilibrium.

For a closed loop dx/dt = f(x), a continuously differentiable V, a domain D (ball or box) and levels
c1 < c2, with the ellipsoid E = {W <= w} of the local certificate (see `local`):

1. V̇ < 0 on {x ∈ D : c1 <= V(x) <= c2}        ("shell")
2. V > c2 on ∂D                                ("boundary")
3. V > c1 on {x ∈ D : W(x) >= w}, so {V <= c1} lies inside E       ("core")
   and W decreases on E without x*                                ("local")

Conclusion: let x(0) ∈ D with V(x(0)) <= c2. While x(t) is in the shell V falls, so it stays below
c2, and by 2 the trajectory cannot reach ∂D. The shell is compact and V̇ continuous, so V̇ <= -η there
for some η > 0, and V is bounded below on D: the trajectory leaves the shell in finite time, which
it can only do to {V < c1}, inside E by 3. From there W decreases to 0: x(t) → x*. Nothing is asked
of V's value at x*, nor that it be positive: networks whose V(x*) is not the minimum can be proved.
All inequalities are strict, none is relaxed, and none is checked at samples.

All of it is read from one program of V, V̇, W, Ẇ and the place in D (see `statements`), which is
compiled once. The levels are guessed from samples and then proved; guesses that fail are lowered.
Trajectories exist because f is continuous: f is refused if it has operations that may jump, V if it
has some without a derivative.
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from lyapjax.learning.conditions import lie_derivative
from lyapjax.proofs.admissible import check, program_at
from lyapjax.proofs.checkpoint import States, stamp
from lyapjax.proofs.local import LocalCertificate, local_certificate, quadratic, weights
from lyapjax.proofs.proving import Proof, Verdict, prove_statement
from lyapjax.proofs.regions import (
    beyond,
    certified_volume,
    corners,
    faces,
    gauges,
    samples,
    volume_reader,
)
from lyapjax.proofs.statements import Statement, program_of
from lyapjax.readers.ball import evaluate_balls
from lyapjax.readers.compiled import make_forms
from lyapjax.systems.domains import Ball, Box

NUM_TRIES = 12
NUM_FORMS = 4


@dataclasses.dataclass(frozen=True)
class Verification:
    """What is proved of V and f.

    Attributes:
      verdict: PROVED; REFUTED if a statement that was asked for has a counterexample; UNKNOWN.
      statement: what is proved, in words; of an UNKNOWN, what was tried.
      reason: why it is not proved, else "".
      point: (n,) counterexample, checked in ball arithmetic; None unless REFUTED.
      level: c2: every trajectory that starts in D where V <= c2 converges; nan if not proved.
      inner_level: c1.
      local: the ellipsoid around the equilibrium, None if there is none.
      proofs: the `Proof` of each obligation, by its name.
      volume: of {V <= c2} in D: a proved lower bound; 0 if not proved.
      seconds: wall-clock time.
      estimate: of the same volume, from 8192 samples: not proved, and to about 1% only.

    Examples:
      >>> import lyapjax as ly
      >>> r = ly.verify(lambda x: x @ x, lambda x: -x, ly.Ball(1.0, (0.0, 0.0)))
      >>> sorted(r.proofs)
      ['boundary', 'core', 'shell']
    """

    verdict: Verdict
    statement: str
    reason: str
    point: np.ndarray | None
    level: float
    inner_level: float
    local: LocalCertificate | None
    proofs: dict[str, Proof]
    volume: float
    seconds: float
    estimate: float = 0.0


def claimed(level: float, domain: Ball | Box, x: np.ndarray) -> str:
    """What a proof for that level says, in words."""
    return f"every trajectory from {{V <= {float(level)!r}}} in {domain} tends to {x.tolist()}"


def _quantities(numbers, y):
    """V, V̇, W, Ẇ and, for a ball, the place in D: all that the obligations are about."""
    V, f, P, x, domain = numbers
    push = 2.0 * ((P @ (y - x)) @ f(y))
    return V(y), lie_derivative(V, f, y), quadratic(P, x)(y), push, *beyond(domain, y)


class Obligations:
    """The obligations of one V and f as statements about one program.

    "core", "boundary", "shell", and "ring": Ẇ < 0 between two levels of W
    """

    def __init__(self, V: Callable, f: Callable, P: np.ndarray, x: np.ndarray, domain: Ball | Box):
        self.program = program_of(_quantities, (V, f, P, x, gauges(domain)), len(x))
        self.inside = [(1.0, 4, 0.0)] if isinstance(domain, Ball) else []

    def of(self, margin: tuple, *where: tuple) -> Statement:
        """The statement of a margin on a region, forms (sign, index, offset) each."""
        return Statement(self.program, make_forms([margin, *where], NUM_FORMS))

    def core(self, c1: float, level: float) -> Statement:
        """V > c1 on D where W >= level."""
        return self.of((-1.0, 0, c1), (-1.0, 2, level), *self.inside)

    def boundary(self, c2: float) -> Statement:
        """V > c2 on ∂D."""
        return self.of((-1.0, 0, c2), *self.inside, *((-s, i, b) for s, i, b in self.inside))

    def shell(self, c1: float, c2: float) -> Statement:
        """V̇ < 0 on D where c1 <= V <= c2."""
        return self.of((1.0, 1, 0.0), (-1.0, 0, c1), (1.0, 0, -c2), *self.inside)

    def ring(self, P, least, most, lo, hi, **budget) -> Proof:
        """Ẇ < 0 where least <= W <= most."""
        statement = self.of((1.0, 3, 0.0), (-1.0, 2, least), (1.0, 2, -most))
        return prove_statement(statement, lo[None], hi[None], **budget)


def prepare(V: Callable, f: Callable, domain: Ball | Box, equilibrium=None) -> None:
    """Begin to compile, in threads, what `verify` needs of functions of this structure.

    Nothing is returned; `verify` of functions that differ by their numbers only finds it done.
    """
    x = check(V, f, domain, equilibrium)
    P = weights(f, x)
    P = np.eye(len(x)) if P is None else P
    Obligations(V, f, P, x, domain).core(1.0, 1.0).prepared(*corners(domain))
    volume_reader(V, domain)


def verify(
    V: Callable,
    f: Callable,
    domain: Ball | Box,
    equilibrium=None,
    *,
    level: float | None = None,
    max_boxes: int = 2_000_000,
    max_seconds: float = 60.0,
    callback_fn: Callable[[str, float, int], None] | None = None,
    checkpoint=None,
) -> Verification:
    """Prove that every trajectory from a level set of V converges to the equilibrium.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    by the obligations 1 to 3 of `lyapjax.proofs.obligations`, each a strict inequality proved
    on every point of its region. Runs on the host.

    Args:
      V: (n,) -> () continuously differentiable function of the primitives that `enclose` knows.
      f: (n,) -> (n,) closed loop, continuous.
      domain: `Ball` or `Box` with the equilibrium inside.
      equilibrium: (n,) x* with f(x*) = 0 exactly; the origin by default.
      level: c2; by default the largest that can be proved, to about 1%.
      max_boxes: of each obligation.
      max_seconds: for all of it, compilation not counted.
      callback_fn: called with (obligation, share proved, boxes) after each batch.
      checkpoint: a path; every half minute, and when a budget is over, what is proved and what is
        open is written there, and a call with a file there goes on from it. The file is removed
        when the outcome is PROVED or REFUTED.

    Returns:
      `Verification`.

    Raises:
      ValueError: a V without a derivative, an f that may jump, wrong shapes, float32, a
        checkpoint of another proof.
      NotImplementedError: a primitive without a rule, by its name.

    Reference:
      Chang, Roohi & Gao, Proposition 1 and Definition 7. Departure: the paper checks V >= 0 and
      V̇ <= 0 off a ball, which proves neither convergence to x* nor that trajectories stay (ERRATA).

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> f = lambda x: jnp.stack([-x[1], x[0] - (1 - x[0] ** 2) * x[1]])
      >>> P = jnp.array([[1.5, -0.5], [-0.5, 1.0]])
      >>> r = ly.verify(lambda x: x @ P @ x, f, ly.Ball(2.0, (0.0, 0.0)))
      >>> r.verdict.value, r.level > 2.0, r.volume > 5.0
      ('PROVED', True, True)
    """
    start = time.perf_counter()
    x = check(V, f, domain, equilibrium)
    proofs: dict[str, Proof] = {}
    spent, states = [0.0], None

    def left() -> float:
        return max(max_seconds - spent[0], 0.0)

    def attempt(name: str, statement: Statement, lo, hi) -> Proof:
        tell = None if callback_fn is None else (lambda *state: callback_fn(name, *state))
        proofs[name] = prove_statement(
            statement,
            lo,
            hi,
            max_boxes=max_boxes,
            max_seconds=left(),
            callback_fn=tell,
            keeper_fn=None if states is None else states.of,
        )
        spent[0] += proofs[name].seconds
        return proofs[name]

    def outcome(verdict, statement, reason="", point=None, levels=(np.nan, np.nan), volumes=(0, 0)):
        volume, estimate = volumes
        if states is not None and verdict is not Verdict.UNKNOWN:
            states.file.remove()
        seconds = time.perf_counter() - start
        return Verification(
            verdict, statement, reason, point, *levels, local, proofs, volume, seconds, estimate
        )

    def value(point) -> float:
        return float(evaluate_balls(program_at(V, len(x)), np.asarray(point))[0][()].mid())

    goal = f"every trajectory from {{V <= c2}} in {domain} tends to {x.tolist()}"
    P = weights(f, x)
    if P is None:
        local, reason = local_certificate(f, x, domain, grow=False)
        return outcome(Verdict.UNKNOWN, goal, reason or "the linearisation at x* is not stable")
    obligations, reader = Obligations(V, f, P, x, domain), volume_reader(V, domain)
    if checkpoint is not None:
        states = States(checkpoint, stamp(obligations.program, repr(domain), x, level))
    lo, hi = (v[None] for v in corners(domain))
    obligations.core(1.0, 1.0).prepared(lo, hi)
    points, values, slopes, edge = samples(V, f, domain)
    local, reason = local_certificate(
        f, x, domain, ring_fn=obligations.ring, max_boxes=200_000, max_seconds=left() / 4
    )
    if local is None:
        return outcome(Verdict.UNKNOWN, goal, reason)
    sizes = np.einsum("ni,ij,nj->n", points - x, local.P, points - x)
    base = value(x)
    far = np.append(values[sizes >= local.level], edge.min())
    c1 = base + 0.95 * (float(far.min()) - base)
    bad = values[(slopes >= 0) & (values >= c1)]
    bound = min([edge.min(), *bad])
    c2 = float(level) if level is not None else base + 0.995 * (float(bound) - base)

    # 3: {V <= c1} inside the ellipsoid.
    for _ in range(NUM_TRIES):
        proof = attempt("core", obligations.core(c1, local.level), lo, hi)
        if proof.proved:
            break
        lower = c1 if proof.point is None else value(proof.point)
        c1 = base + 0.8 * (min(c1, lower) - base)
    if not proofs["core"].proved:
        reason = f"{{V <= c1}} could not be proved to lie in the ellipsoid: {proofs['core'].reason}"
        return outcome(Verdict.UNKNOWN, goal, reason)

    # 2 and 1, for the largest c2.
    for _ in range(NUM_TRIES if level is None else 1):
        proof = attempt("boundary", obligations.boundary(c2), *faces(domain))
        if proof.proved:
            proof = attempt("shell", obligations.shell(c1, c2), lo, hi)
            if proof.proved:
                volume = certified_volume(V, c2, domain, reader=reader)
                volumes = volume, float(np.mean(values <= c2)) * domain.volume
                levels = c2, min(c1, c2)
                found = claimed(c2, domain, x)
                return outcome(Verdict.PROVED, found, levels=levels, volumes=volumes)
        if level is not None or left() <= 0:
            break
        step = 0.9
        if proof.point is not None:
            c2, step = min(c2, value(proof.point)), 0.99
        c2 = base + step * (c2 - base)
        if c2 <= base:
            break
    names = [name for name in ("shell", "boundary") if name in proofs and not proofs[name].proved]
    name = names[0] if names else "shell"
    reason = f"{name}: {proofs[name].reason if name in proofs else 'not reached'}"
    refuted = level is not None and proofs[name].verdict is Verdict.REFUTED
    verdict = Verdict.REFUTED if refuted else Verdict.UNKNOWN
    return outcome(verdict, goal, reason, proofs[name].point if refuted else None)
