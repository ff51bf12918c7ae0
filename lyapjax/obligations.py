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

The levels are guessed from samples and then proved; guesses that fail are lowered. Trajectories
exist because f is continuous: f is refused if it has operations that may jump, V if it has some
without a derivative.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.conditions import lie_derivative
from lyapjax.domains import Ball, Box
from lyapjax.local import LocalCertificate, local_certificate, quadratic
from lyapjax.program import JUMPS, KINKS, trace
from lyapjax.proving import Proof, Verdict, bounds_of, prove

NUM_SAMPLES = 8192
NUM_TRIES = 12
MAX_OPEN = 100_000


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


def corners(domain: Ball | Box) -> tuple[np.ndarray, np.ndarray]:
    """A box that holds the domain, whatever the rounding of its corners."""
    lo, hi = np.asarray(domain.lo), np.asarray(domain.hi)
    if isinstance(domain, Box):
        return lo, hi
    return np.nextafter(np.nextafter(lo, -np.inf), -np.inf), np.nextafter(
        np.nextafter(hi, np.inf), np.inf
    )


def outside(domain: Ball | Box) -> Callable:
    """x -> (k,) array that is at most 0 exactly on the domain (a box needs none: k = 0)."""
    if isinstance(domain, Box):
        return lambda x: jnp.zeros(0)
    centre, radius = jnp.asarray(domain.centre), jnp.asarray([domain.radius])
    return lambda x: jnp.sum(jnp.square(x - centre), keepdims=True) - jnp.square(radius)


def boundary(domain: Ball | Box) -> tuple[np.ndarray, np.ndarray, Callable]:
    """Boxes and a restriction that describe ∂D."""
    lo, hi = corners(domain)
    if isinstance(domain, Ball):
        rest = outside(domain)

        def sphere(x):
            return jnp.concatenate([rest(x), -rest(x)])

        return lo[None], hi[None], sphere
    n = len(lo)
    low, high = np.tile(lo, (2 * n, 1)), np.tile(hi, (2 * n, 1))
    for i in range(n):
        high[2 * i, i] = lo[i]
        low[2 * i + 1, i] = hi[i]
    return low, high, lambda x: jnp.zeros(0)


def custom_rules(fn: Callable, n: int) -> set[str]:
    """The calls in fn whose derivative is what somebody says it is."""
    found, stack = set(), [jax.make_jaxpr(fn)(jnp.zeros(n)).jaxpr]
    while stack:
        for eqn in stack.pop().eqns:
            if eqn.primitive.name.startswith("custom_") or eqn.primitive.name == "stop_gradient":
                found.add(eqn.primitive.name)
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(value):
                    stack.append(getattr(value, "jaxpr", value))
    return found


def _is_jaxpr(value) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _check(V: Callable, f: Callable, domain, equilibrium) -> np.ndarray:
    """The equilibrium; ValueErrors for what no proof can be made of."""
    if not isinstance(domain, (Ball, Box)):
        raise ValueError(f"domain: expected a Ball or a Box, got {domain!r}")
    n = domain.dim
    x = np.zeros(n) if equilibrium is None else np.asarray(equilibrium, float)
    if x.shape != (n,) or not np.isfinite(x).all():
        raise ValueError(f"equilibrium: expected {n} finite numbers, got {equilibrium!r}")
    if not float(domain.gauge(jnp.asarray(x))) < 1:
        raise ValueError(f"equilibrium: expected a point inside the domain, got {x.tolist()}")
    custom = custom_rules(V, n)
    if custom:
        raise ValueError(
            f"V: expected derivatives that follow from its values, got {sorted(custom)}: write V "
            "without custom derivative rules and stop_gradient"
        )
    for name, fn, shape in (("V", V, ()), ("f", f, (n,))):
        program = trace(fn, jnp.zeros(n))
        shapes = [program.steps[k].shape for k in program.outputs]
        if shapes != [shape]:
            raise ValueError(f"{name}: expected a result of shape {shape}, got {shapes}")
        jumps = program.ops & (JUMPS | KINKS if name == "V" else JUMPS)
        if jumps:
            what = "a derivative everywhere" if name == "V" else "continuity"
            raise ValueError(
                f"{name}: expected {what}, got operations that may break it: {sorted(jumps)}"
            )
    return x


def claimed(level: float, domain: Ball | Box, x: np.ndarray) -> str:
    """What a proof for that level says, in words."""
    return f"every trajectory from {{V <= {float(level)!r}}} in {domain} tends to {x.tolist()}"


def _samples(V, slope, domain):
    """Points of the domain, V and V̇ there, and V on the boundary: only for guesses."""
    inner = np.asarray(domain.uniform(jax.random.key(1), NUM_SAMPLES))
    edge = np.asarray(domain.boundary(jax.random.key(2), NUM_SAMPLES))
    program = trace(lambda x: (V(x), slope(x)), jnp.zeros(domain.dim))
    values, slopes = bounds_of(program, inner, inner)[:, 0]
    values, slopes = (np.where(np.isfinite(v), v, np.inf) for v in (values, slopes))
    return inner, values, slopes, bounds_of(program, edge, edge)[0, 0]


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
) -> Verification:
    """Prove that every trajectory from a level set of V converges to the equilibrium.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    by the obligations 1 to 3 of `lyapjax.obligations`, each a strict inequality proved on every
    point of its region. Runs on the host.

    Args:
      V: (n,) -> () continuously differentiable function of the primitives that `enclose` knows.
      f: (n,) -> (n,) closed loop, continuous.
      domain: `Ball` or `Box` with the equilibrium inside.
      equilibrium: (n,) x* with f(x*) = 0 exactly; the origin by default.
      level: c2; by default the largest that can be proved, to about 1%.
      max_boxes: of each obligation.
      max_seconds: for all of it, compilation not counted.
      callback_fn: called with (obligation, share proved, boxes) after each batch.

    Returns:
      `Verification`.

    Raises:
      ValueError: a V without a derivative, an f that may jump, wrong shapes, float32.
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
    x = _check(V, f, domain, equilibrium)
    proofs: dict[str, Proof] = {}

    spent = [0.0]

    def left() -> float:
        return max(max_seconds - spent[0], 0.0)

    def attempt(name, margin_fn, lo, hi, where_fn) -> Proof:
        tell = None if callback_fn is None else (lambda *state: callback_fn(name, *state))
        proofs[name] = prove(
            margin_fn,
            lo,
            hi,
            where_fn=where_fn,
            max_boxes=max_boxes,
            max_seconds=left(),
            callback_fn=tell,
        )
        spent[0] += proofs[name].seconds
        return proofs[name]

    def outcome(verdict, statement, reason="", point=None, levels=(np.nan, np.nan), volume=0.0):
        seconds = time.perf_counter() - start
        return Verification(
            verdict, statement, reason, point, *levels, local, proofs, volume, seconds
        )

    goal = f"every trajectory from {{V <= c2}} in {domain} tends to {x.tolist()}"
    local, reason = local_certificate(f, x, domain, max_boxes=200_000, max_seconds=left() / 4)
    if local is None:
        return outcome(Verdict.UNKNOWN, goal, reason)

    def slope(y):
        return lie_derivative(V, f, y)

    W, rest = quadratic(local.P, x), outside(domain)
    points, values, slopes, edge = _samples(V, slope, domain)
    sizes = np.einsum("ni,ij,nj->n", points - x, local.P, points - x)
    base = float(V(jnp.asarray(x)))
    far = np.append(values[sizes >= local.level], edge.min())
    c1 = base + 0.95 * (float(far.min()) - base)
    bad = values[(slopes >= 0) & (values >= c1)]
    bound = min([edge.min(), *bad])
    c2 = float(level) if level is not None else base + 0.995 * (float(bound) - base)
    lo, hi = corners(domain)
    w = jnp.asarray([local.level])

    # 3: {V <= c1} inside the ellipsoid.
    for _ in range(NUM_TRIES):
        number = jnp.asarray(c1)
        proof = attempt(
            "core",
            lambda y, c=number: c - V(y),
            lo,
            hi,
            lambda y: jnp.concatenate([w - W(y), rest(y)]),
        )
        if proof.proved:
            break
        lower = c1 if proof.point is None else float(V(jnp.asarray(proof.point)))
        c1 = base + 0.8 * (min(c1, lower) - base)
    if not proofs["core"].proved:
        reason = f"{{V <= c1}} could not be proved to lie in the ellipsoid: {proofs['core'].reason}"
        return outcome(Verdict.UNKNOWN, goal, reason)

    # 2 and 1, for the largest c2.
    edge_lo, edge_hi, sphere = boundary(domain)
    for _ in range(NUM_TRIES if level is None else 1):
        top = jnp.asarray(c2)
        proof = attempt("boundary", lambda y, c=top: c - V(y), edge_lo, edge_hi, sphere)
        if proof.proved:
            ends = jnp.asarray([c1]), jnp.asarray([c2])
            proof = attempt(
                "shell",
                slope,
                lo,
                hi,
                lambda y, e=ends: jnp.concatenate([e[0] - V(y), V(y) - e[1], rest(y)]),
            )
            if proof.proved:
                volume = certified_volume(V, c2, domain)
                found = claimed(c2, domain, x)
                levels = c2, min(c1, c2)
                return outcome(Verdict.PROVED, found, levels=levels, volume=volume)
        if level is not None or left() <= 0:
            break
        step = 0.9
        if proof.point is not None:
            there = float(V(jnp.asarray(proof.point)))
            c2, step = min(c2, there), 0.99
        c2 = base + step * (c2 - base)
        if c2 <= base:
            break
    names = [name for name in ("shell", "boundary") if name in proofs and not proofs[name].proved]
    name = names[0] if names else "shell"
    reason = f"{name}: {proofs[name].reason if name in proofs else 'not reached'}"
    refuted = level is not None and proofs[name].verdict is Verdict.REFUTED
    verdict = Verdict.REFUTED if refuted else Verdict.UNKNOWN
    return outcome(verdict, goal, reason, proofs[name].point if refuted else None)


def certified_volume(V: Callable, level: float, domain: Ball | Box, *, num_rounds: int = 5):
    """A proved lower bound of the volume of {x ∈ D : V(x) <= level}: of the boxes inside it.

    Boxes that are neither inside nor outside are cut in all directions, `num_rounds` times.
    """
    lo, hi = (v[None] for v in corners(domain))
    rest, top = outside(domain), jnp.asarray([level])

    def both(y):
        found = jnp.concatenate([jnp.ravel(V(y)) - top, rest(y)])
        return tuple(found[i] for i in range(found.shape[0]))

    program, volume = trace(both, jnp.zeros(lo.shape[1])), 0.0
    first = int(np.ceil(12 / lo.shape[1]))
    for turn in range(first + num_rounds):
        for i in range(lo.shape[1]):
            middle = 0.5 * lo[:, i] + 0.5 * hi[:, i]
            below, above = hi.copy(), lo.copy()
            below[:, i], above[:, i] = middle, middle
            lo, hi = np.concatenate([lo, above]), np.concatenate([below, hi])
        if turn < first - 1:
            continue
        ends = bounds_of(program, lo, hi)
        lower, upper = ends[:, 0], ends[:, 1]
        inside = (upper <= 0).all(axis=0)
        # The rounding of the widths, products and sums is far below 1e-9 of them.
        volume += float(np.prod(hi[inside] - lo[inside], axis=1).sum()) * (1 - 1e-9)
        open_ = ~inside & (lower <= 0).all(axis=0)
        lo, hi = lo[open_], hi[open_]
        if not open_.any() or len(lo) > MAX_OPEN:
            break
    return volume * (1 - 1e-9)


def verify_shell(
    V: Callable,
    f: Callable,
    inner: float,
    outer: float,
    centre=None,
    *,
    max_boxes: int = 2_000_000,
    max_seconds: float = 60.0,
) -> Verification:
    """The paper's own statement, made strict: V > 0 and V̇ < 0 off a small ball.

        V(x) > 0 and V̇(x) < 0   for inner <= ‖x - centre‖ <= outer

    It proves neither convergence to the equilibrium nor that trajectories stay in the ball: a level
    set must also lie inside, and the hole be closed. `verify` proves that.

    Args:
      V: (n,) -> () function.
      f: (n,) -> (n,) closed loop.
      inner: ε, a radius (Table 1 of the paper lists its square).
      outer: r.
      centre: (n,) the equilibrium; two zeros by default.
      max_boxes: of each of the two inequalities.
      max_seconds: for both.

    Returns:
      `Verification` with the proofs "positive" and "decrease".

    Raises:
      ValueError: radii that are not 0 < inner < outer.
      NotImplementedError: a primitive without a rule, by its name.

    Reference:
      Chang, Roohi & Gao, Definition 5. Departure: strict and exact; theirs is V >= 0, V̇ <= 0 up to
      δ (ERRATA).

    Examples:
      >>> import lyapjax as ly
      >>> r = ly.verify_shell(lambda x: x @ x, lambda x: -x, 0.1, 1.0)
      >>> r.verdict.value, r.statement
      ('PROVED', 'V > 0 and V̇ < 0 where 0.1 <= ‖x - [0.0, 0.0]‖ <= 1.0')
    """
    start = time.perf_counter()
    if not 0 < inner < outer:
        raise ValueError(f"inner: expected 0 < inner < outer, got {inner} and {outer}")
    x = np.zeros(2) if centre is None else np.asarray(centre, float)
    domain, hole = Ball(outer, tuple(x)), Ball(inner, tuple(x))
    _check(V, f, domain, x)
    lo, hi = corners(domain)

    def ring(y):
        return jnp.concatenate([outside(domain)(y), -outside(hole)(y)])

    proofs, verdict, reason, point = {}, Verdict.PROVED, "", None
    margins = {"positive": lambda y: -V(y), "decrease": lambda y: lie_derivative(V, f, y)}
    for name, margin_fn in margins.items():
        left = max(max_seconds - sum(p.seconds for p in proofs.values()), 0.0)
        proof = prove(margin_fn, lo, hi, where_fn=ring, max_boxes=max_boxes, max_seconds=left)
        proofs[name] = proof
        if not proof.proved:
            verdict, reason, point = proof.verdict, f"{name}: {proof.reason}", proof.point
            break
    statement = f"V > 0 and V̇ < 0 where {inner} <= ‖x - {x.tolist()}‖ <= {outer}"
    seconds = time.perf_counter() - start
    return Verification(
        verdict, statement, reason, point, np.nan, np.nan, None, proofs, 0.0, seconds
    )
