"""`verify_shell`: the paper's own statement, V > 0 and V̇ < 0 off a small ball, made strict."""

import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from lyapjax.learning.conditions import lie_derivative
from lyapjax.proofs.admissible import check
from lyapjax.proofs.checkpoint import States, stamp
from lyapjax.proofs.obligations import Verification
from lyapjax.proofs.proving import Verdict, prove_statement
from lyapjax.proofs.regions import beyond, corners, gauges
from lyapjax.proofs.statements import Statement, program_of
from lyapjax.readers.compiled import make_forms
from lyapjax.systems.domains import Ball


def _quantities(numbers, y):
    """V, V̇, and how far outside of the outer and of the inner ball."""
    V, f, ball, inner = numbers
    hole = jnp.sum(jnp.square(y - ball[0])) - jnp.square(inner)[0]
    return V(y), lie_derivative(V, f, y), *beyond(ball, y), hole


def verify_shell(
    V: Callable,
    f: Callable,
    inner: float,
    outer: float,
    centre=None,
    *,
    max_boxes: int = 2_000_000,
    max_seconds: float = 60.0,
    checkpoint=None,
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
      checkpoint: a path for what is proved and what is open, as of `verify`.

    Returns:
      `Verification` with the proofs "positive" and "decrease".

    Raises:
      ValueError: radii that are not 0 < inner < outer, a checkpoint of another proof.
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
    domain = Ball(outer, tuple(x))
    check(V, f, domain, x)
    program = program_of(_quantities, (V, f, gauges(domain), np.asarray([inner])), len(x))
    states = None if checkpoint is None else States(checkpoint, stamp(program, inner, repr(domain)))
    lo, hi = (v[None] for v in corners(domain))
    ring = (1.0, 2, 0.0), (-1.0, 3, 0.0)
    proofs, verdict, reason, point = {}, Verdict.PROVED, "", None
    for name, margin in (("positive", (-1.0, 0, 0.0)), ("decrease", (1.0, 1, 0.0))):
        left = max(max_seconds - sum(p.seconds for p in proofs.values()), 0.0)
        statement = Statement(program, make_forms([margin, *ring]))
        proof = prove_statement(
            statement,
            lo,
            hi,
            max_boxes=max_boxes,
            max_seconds=left,
            keeper_fn=None if states is None else states.of,
        )
        proofs[name] = proof
        if not proof.proved:
            verdict, reason, point = proof.verdict, f"{name}: {proof.reason}", proof.point
            break
    if states is not None and verdict is not Verdict.UNKNOWN:
        states.file.remove()
    statement = f"V > 0 and V̇ < 0 where {inner} <= ‖x - {x.tolist()}‖ <= {outer}"
    seconds = time.perf_counter() - start
    return Verification(
        verdict, statement, reason, point, np.nan, np.nan, None, proofs, 0.0, seconds
    )
