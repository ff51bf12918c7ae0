"""`synthesize`: learn, falsify, verify, until the proof closes or the budget is spent."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lyapjax.certificates.certificate import Certificate
from lyapjax.certificates.writing import certificate
from lyapjax.learning.checkpoint import load, save, stamp
from lyapjax.learning.learner import (
    History,
    LearnerState,
    LearnerStatus,
    add_counterexamples,
    initialise,
    learn,
)
from lyapjax.learning.objective import DEFAULT, Recipe
from lyapjax.proofs.obligations import Verification, prepare, verify
from lyapjax.proofs.proving import Verdict
from lyapjax.systems.system import System

MORE_ROUNDS = 20  # of learning, after a proof that did not close
KEPT_ROUNDS = 10  # between two checkpoints
ENOUGH = 0.8  # a proof for this share of the level that was learned ends the search


@dataclasses.dataclass(frozen=True)
class Result:
    """A controller, a Lyapunov function, and what is proved of them.

        x(0) ∈ D, V(x(0)) <= level   implies   x(t) → x*

    Attributes:
      system: the system.
      V: the Lyapunov function, a module.
      u: the controller, a module.
      verdict: PROVED, or UNKNOWN with a reason.
      reason: why not proved, and what to try; "" if proved.
      verification: of this V and u, the best of all tries.
      state: of the learner, to go on from.
      histories: of the learner, one a try.
      seconds: wall-clock time by part: "learn", "verify", "total".

    Examples:
      >>> import jax, lyapjax as ly
      >>> result = ly.synthesize(ly.systems.double_integrator(), key=jax.random.key(0))
      >>> result.verdict.value, result.volume > 0.8 * result.system.domain.volume
      ('PROVED', True)
    """

    system: System
    V: Callable
    u: Callable
    verdict: Verdict
    reason: str
    verification: Verification
    state: LearnerState
    histories: tuple[History, ...]
    seconds: dict[str, float]

    @property
    def proved(self) -> bool:
        """Whether the whole proof closed."""
        return self.verdict is Verdict.PROVED

    @property
    def level(self) -> float:
        """c2: every trajectory from {V <= c2} converges; NaN if nothing is proved."""
        return self.verification.level

    @property
    def volume(self) -> float:
        """A proved lower bound of the volume of the region of attraction; 0 if none is."""
        return self.verification.volume

    @functools.cached_property
    def certificate(self) -> Certificate:
        """The proof, to be saved and replayed; made when first asked for. ValueError if UNKNOWN."""
        return certificate(
            self.V,
            self.system.closed_loop(self.u),
            self.system.domain,
            self.verification,
            np.asarray(self.system.equilibrium[0]),
            name=self.system.name,
        )


def _witnesses(found: Verification) -> np.ndarray:
    """Points at which the proof failed: refuted, or in the middle of the hardest box."""
    points = []
    for proof in found.proofs.values():
        if proof.point is not None:
            points.append(np.asarray(proof.point))
        elif not proof.proved and proof.hardest is not None:
            lo, hi = proof.hardest
            points.append((np.asarray(lo) + np.asarray(hi)) / 2)
    return np.array([p for p in points if np.isfinite(p).all()])


def _advice(state: LearnerState, found: Verification | None) -> str:
    status = LearnerStatus(int(state.status))
    if found is None:
        return f"nothing was verified: {status.message}"
    if status is LearnerStatus.CLEAN:
        return f"{found.reason}; the falsifier finds nothing: give more time, or a larger margin"
    return f"{found.reason}; {status.message}"


def _learned(
    system: System, state: LearnerState, recipe: Recipe, rounds: int, keep: Callable | None
) -> tuple[LearnerState, History]:
    """`learn`; with `keep` a few rounds at a time, the state being kept after each time."""
    if keep is None:
        return learn(system, state, recipe=recipe, max_rounds=rounds)
    rows, done = [], 0
    while not rows or (done < rounds and int(state.status) == LearnerStatus.RUNNING):
        # Always as many, so that one program serves all.
        state, history = learn(system, state, recipe=recipe, max_rounds=KEPT_ROUNDS)
        rows.append(history)
        done += KEPT_ROUNDS
        keep(state)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), *rows)


def synthesize(
    system: System,
    *,
    key: Array,
    recipe: Recipe = DEFAULT,
    start: str = "lqr",
    state: LearnerState | None = None,
    max_tries: int = 5,
    max_boxes: int = 2_000_000,
    max_seconds: float = 300.0,
    checkpoint=None,
    callback_fn: Callable[[str, int, float], None] | None = None,
) -> Result:
    """Find a controller and a proof that it is stable.

        u, V, c2:  x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    Learns until the falsifier finds no counterexample, then verifies. If the proof does not close,
    the points where it failed go into the learner's buffer, and learning goes on; a run that is not
    finite starts again from another key. The best proof of all tries is returned. A key, and the
    versions of the libraries, determine the controller up to what the time budget cuts off.

    Args:
      system: the system.
      key: of everything random.
      recipe: how to learn.
      start: "lqr" or "random", see `initialise`.
      state: of a learner to go on from, instead of a new one.
      max_tries: most proofs tried.
      max_boxes: of each obligation of a proof.
      max_seconds: for all of it, compilation included; learning is not cut short.
      checkpoint: path of a file to which the learner's state is written every few rounds. If it
        exists, learning goes on from it, bit for bit as if it had not been interrupted.
      callback_fn: called with (part, try, seconds so far) after each part; with the part
        "checkpoint" whenever one has been written.

    Returns:
      `Result`. A budget that is spent is the verdict UNKNOWN with its reason, never an error.

    Raises:
      ValueError: a linearisation that cannot be stabilised, a recipe that does not fit the state,
        budgets that are not positive, a checkpoint of another run.

    Reference:
      Chang, Roohi & Gao, Algorithm 1, MAIN. Departure: the falsifier of the loop is a gradient
      search; what stops the loop is a proof of convergence to x* itself (`verify`).

    Examples:
      >>> import jax, lyapjax as ly
      >>> result = ly.synthesize(ly.systems.double_integrator(), key=jax.random.key(1))
      >>> result.proved, result.reason
      (True, '')
    """
    if not isinstance(system, System):
        raise ValueError(f"system: expected a System, got {type(system).__name__}")
    for name, value in (("max_tries", max_tries), ("max_seconds", max_seconds)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    begin = time.perf_counter()
    spent = {"learn": 0.0, "verify": 0.0, "total": 0.0}

    def timed(part, number, call):
        """The result of `call`, its seconds counted under `part`."""
        since = time.perf_counter()
        value = jax.block_until_ready(call())
        spent[part] += time.perf_counter() - since
        spent["total"] = time.perf_counter() - begin
        if callback_fn is not None:
            callback_fn(part, number, spent["total"])
        return value

    if state is None:
        state = initialise(key, system, recipe=recipe, start=start)
    written = stamp(system, recipe, start, key)
    if checkpoint is not None:
        state = load(checkpoint, state, written) or state

    def keep(state: LearnerState, number: int) -> None:
        if checkpoint is not None:
            save(checkpoint, state, written)
            if callback_fn is not None:
                callback_fn("checkpoint", number, time.perf_counter() - begin)

    at = jnp.asarray(system.equilibrium[0])
    # The verifier's programs compile in threads while the learner's compiles here.
    prepare(state.V, system.closed_loop(state.u), system.domain, at)
    best, histories = None, []
    for number in range(max_tries):
        left = max(recipe.num_rounds - int(state.num_rounds), 0)
        rounds = left + MORE_ROUNDS
        state, history = timed(
            "learn",
            number,
            lambda state=state, rounds=rounds, number=number: _learned(
                system,
                state,
                recipe,
                rounds,
                None if checkpoint is None else lambda state: keep(state, number),
            ),
        )
        histories.append(history)
        if int(state.status) == LearnerStatus.NOT_FINITE:
            again = jax.random.fold_in(key, number + 1)
            state = initialise(again, system, recipe=recipe, start=start)
            continue
        budget = max_seconds - (time.perf_counter() - begin)
        if budget <= 0:
            break
        found = timed(
            "verify",
            number,
            lambda state=state, budget=budget: verify(
                state.V,
                system.closed_loop(state.u),
                system.domain,
                at,
                max_boxes=max_boxes,
                max_seconds=budget,
            ),
        )
        if best is None or found.volume > best[0].volume:
            best = found, state
        if found.verdict is Verdict.PROVED and found.level >= ENOUGH:
            break
        if time.perf_counter() - begin >= max_seconds:
            break
        points = _witnesses(found)
        size = state.counterexamples.shape[0]
        if len(points):
            state = add_counterexamples(state, jnp.asarray(points[:size]))
        state = state._replace(status=jnp.int32(LearnerStatus.RUNNING))
        keep(state, number)
    if best is None:
        found = Verification(
            Verdict.UNKNOWN, f"convergence of {system.name}", _advice(state, None), None,
            np.nan, np.nan, None, {}, 0.0, 0.0,
        )  # fmt: skip
        best = found, state
    found, chosen = best
    proved = found.verdict is Verdict.PROVED
    spent["total"] = time.perf_counter() - begin
    return Result(
        system,
        chosen.V,
        chosen.u,
        Verdict.PROVED if proved else Verdict.UNKNOWN,
        "" if proved else _advice(chosen, found),
        found,
        state,
        tuple(histories),
        spent,
    )
