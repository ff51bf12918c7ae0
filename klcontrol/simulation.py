"""Whole runs: many chains that sample their own steps and learn from them, fast.

A scan carries every chain one step on: random words, made for a stretch of steps at once; a draw
from an alias table; an O(1) update of the learner. On the CPU chains are grouped into blocks
whose state fits the cache, and blocks run in threads, one a core; within a caller's `jit` they
are one batch. Grouping changes nothing but the rounding of sums: chain b at time t always draws
the same word.

History is thinned inside the scan: memory is that of the records, never of the steps.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from klcontrol.dynamics import is_concrete
from klcontrol.learning import Algorithm, Estimate, LearnerState, kl_learning
from klcontrol.problem import Problem
from klcontrol.sampling import AliasTable, alias_table, draw, threefry

# Pairs of steps whose words are made at once.
STRETCH = 32
# Bytes of v a block: above half a megabyte XLA splits single operations between threads, which
# costs more than it brings. Where that leaves few chains, many chains amortise it instead.
BLOCK_BYTES = 480 * 1024
FEWEST, MOST = 128, 1024


class RunState(NamedTuple):
    """Everything a run needs to go on.

        chain b at time t draws word (t, b) of the key

    Attributes:
      learner: `LearnerState` with a leading axis of chains.
      x: (chains,) current states.
      steps: () uint32, pairs of steps so far.
      chain: (chains,) uint32, the chains' numbers.
      key: (2,) uint32.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.zeros(2))
      >>> run = klcontrol.simulate(jax.random.key(0), problem, num_steps=100, every=50)
      >>> int(run.state.steps), run.state.x.shape
      (50, (1,))
    """

    learner: LearnerState
    x: Array
    steps: Array
    chain: Array
    key: Array


class Run(NamedTuple):
    """What a run has learned.

        history[k] = record_fn(estimate after (k + 1) every steps)

    Attributes:
      z: (chains, n) estimates of z*.
      lam: (chains,) estimates of λ*.
      history: pytree of arrays (records, chains, …).
      state: `RunState`, to go on from.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.zeros(2))
      >>> run = klcontrol.simulate(jax.random.key(0), problem, num_steps=100, num_chains=3)
      >>> run.z.shape, run.history.shape
      ((3, 2), (50, 3))
    """

    z: Array
    lam: Array
    history: Any
    state: RunState


def lam_of(estimate: Estimate) -> Array:
    """The record that is kept by default: λ."""
    return estimate.lam


def simulate(
    key,
    problem: Problem,
    algorithm: Algorithm | None = None,
    *,
    num_steps: int,
    num_chains: int = 1,
    every: int | None = None,
    record_fn: Callable[[Estimate], Any] | None = None,
    table: AliasTable | None = None,
    block: int | None = None,
) -> Run:
    """Let chains move by the passive dynamics and learn.

        x' ~ q(·|x),    state = algorithm.step(state, x, c(x), x')

    Chains start in states spread evenly over the state space. Under the total criterion a chain
    that is absorbed starts anew in a state chosen evenly among the others.

    Args:
      key: random key.
      problem: `Problem` whose q has entries.
      algorithm: `kl_learning(beta=problem.beta)` if None. Its beta counts, not the problem's.
      num_steps: steps of each chain, a multiple of `every`.
      num_chains: chains, which learn independently.
      every: steps between records, even; a hundredth of num_steps, about, if None. The length of z
        is computed anew at each record.
      record_fn: what to keep of an `Estimate` of one chain; λ if None. Give a named function: each
        new lambda compiles anew.
      table: `alias_table(problem.q)`, if at hand; needed where q is traced.
      block: chains a block; chosen by the size of the problem if None.

    Returns:
      `Run`; averages over chains (`run.lam.mean()`, `run.z.mean(0)`) are the better estimates.

    Raises:
      ValueError: a number of steps that does not fit, or a q that cannot be sampled, by name.

    Reference:
      Algorithm 3.3. Departure: many chains, and states to start in other than the first.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> run = klcontrol.simulate(jax.random.key(0), problem, num_steps=4000, num_chains=32)
      >>> round(float(run.lam.mean()), 2)  # λ* = (1 + exp(-1))/2
      0.68
    """
    if not isinstance(num_chains, int) or num_chains < 1:
        raise ValueError(f"num_chains: expected a positive integer, got {num_chains!r}")
    if algorithm is None:
        if not is_concrete(problem.beta):
            raise ValueError("algorithm: give kl_learning(beta=…), since problem.beta is traced")
        algorithm = kl_learning(beta=float(problem.beta))
    _check_algorithm(algorithm)
    n = problem.num_states
    data = jnp.ravel(_key_words(key))
    lam = jnp.exp(-algorithm.beta * jnp.mean(problem.cost))
    first = algorithm.init(n, lam=lam, dtype=problem.cost.dtype)
    learner = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)), first)
    chain = jnp.arange(num_chains, dtype=jnp.uint32)
    start = (np.arange(num_chains) * n // num_chains).astype(np.int32)
    state = RunState(learner, jnp.asarray(start), jnp.uint32(0), chain, data)
    return resume(
        state,
        problem,
        algorithm,
        num_steps=num_steps,
        every=every,
        record_fn=record_fn,
        table=table,
        block=block,
    )


def resume(
    state: RunState,
    problem: Problem,
    algorithm: Algorithm,
    *,
    num_steps: int,
    every: int | None = None,
    record_fn: Callable[[Estimate], Any] | None = None,
    table: AliasTable | None = None,
    block: int | None = None,
) -> Run:
    """Go on from where a run ended, bit for bit as if it had never stopped.

        resume(simulate(a steps).state, b steps) = simulate(a + b steps)      for the same `every`

    Args:
      state: `Run.state`, as it was or from a file.
      problem: as before.
      algorithm: as before.
      num_steps: further steps of each chain, a multiple of `every`.
      every: steps between records, even.
      record_fn: what to keep of an `Estimate` of one chain; λ if None.
      table: `alias_table(problem.q)`, if at hand.
      block: chains a block.

    Returns:
      `Run` of the further steps.

    Raises:
      ValueError: as `simulate`.

    Reference:
      Algorithm 3.3.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> whole = klcontrol.simulate(jax.random.key(0), problem, num_steps=400, every=100)
      >>> half = klcontrol.simulate(jax.random.key(0), problem, num_steps=200, every=100)
      >>> algorithm = klcontrol.kl_learning()
      >>> rest = klcontrol.resume(half.state, problem, algorithm, num_steps=200, every=100)
      >>> bool((rest.z == whole.z).all())
      True
    """
    _check_algorithm(algorithm)
    records, every = _records(num_steps, every)
    table = alias_table(problem.q) if table is None else table
    chains, n = state.learner.v.shape
    if n != problem.num_states:
        raise ValueError(f"state: expected {problem.num_states} states, got {n}")
    weights = jnp.exp(-algorithm.beta * problem.cost)
    run = partial(
        _block,
        algorithm=algorithm,
        records=records,
        every=every,
        record_fn=lam_of if record_fn is None else record_fn,
    )
    data = (table, weights, _restarts(problem))
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    state = jax.tree.map(jnp.asarray, state)  # it may come from a file
    if not is_concrete(*jax.tree.leaves((state, data))):
        return run(state, data)
    whole = chains if not _on_cpu(state) else block_size(chains, n, weights.dtype.itemsize, cpus)
    size = block or whole
    if chains <= size:
        return run(state, data)
    pieces = [_part(state, slice(i, i + size)) for i in range(0, chains, size)]
    with ThreadPoolExecutor(min(cpus, len(pieces))) as pool:
        runs = list(pool.map(lambda piece: jax.block_until_ready(run(piece, data)), pieces))
    return Run(
        jnp.concatenate([r.z for r in runs]),
        jnp.concatenate([r.lam for r in runs]),
        jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *[r.history for r in runs]),
        RunState(
            jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[r.state.learner for r in runs]),
            jnp.concatenate([r.state.x for r in runs]),
            runs[0].state.steps,
            state.chain,
            state.key,
        ),
    )


def block_size(chains: int, num_states: int, itemsize: int, cpus: int) -> int:
    """Chains a block: v below `BLOCK_BYTES` where that leaves enough, and work for every core."""
    fit = BLOCK_BYTES // (num_states * itemsize)
    most = min(fit, MOST) if fit >= FEWEST else MOST
    blocks = max(-(-chains // most), min(cpus, chains // FEWEST), 1)
    if blocks > cpus:
        blocks = -(-blocks // cpus) * cpus
    return -(-chains // blocks)


@partial(jax.jit, static_argnames=("algorithm", "records", "every", "record_fn"))
def _block(state: RunState, data, *, algorithm, records, every, record_fn) -> Run:
    """One block of chains."""
    table, weights, restarts = data
    key = (state.key[0], state.key[1])
    stretch = _largest_divisor(every // 2, STRETCH)
    update = jax.vmap(algorithm.update)

    def move(learner, x, word):
        y = draw(table, x, word)
        seen = y
        if restarts is not None:
            # An absorbed chain starts anew elsewhere; what it learns is that nothing happens.
            ended, starts = restarts[0][x], restarts[1]
            seen = jnp.where(ended, x, y)
            y = jnp.where(ended, starts[(word % jnp.uint32(starts.shape[0])).astype(jnp.int32)], y)
        at = seen if algorithm.cost_at == "next" else x
        weight = weights.at[at].get(mode="promise_in_bounds")
        return update(learner, x, weight, seen), y

    def pair(carry, words):
        for word in words:
            carry = move(*carry, word)
        return carry, None

    def stretch_of_steps(carry, _):
        learner, x, steps = carry
        times = steps + jnp.arange(stretch, dtype=jnp.uint32)
        words = threefry(key, times[:, None], state.chain[None])
        (learner, x), _ = lax.scan(pair, (learner, x), words)
        return (learner, x, steps + jnp.uint32(stretch)), None

    def record(carry, _):
        carry, _ = lax.scan(stretch_of_steps, carry, length=every // (2 * stretch))
        learner = jax.vmap(algorithm.refresh)(carry[0])
        return (learner, *carry[1:]), jax.vmap(lambda s: record_fn(algorithm.estimate(s)))(learner)

    carry = (state.learner, state.x, state.steps)
    (learner, x, steps), history = lax.scan(record, carry, length=records)
    estimates = jax.vmap(algorithm.estimate)(learner)
    end = RunState(learner, x, steps, state.chain, state.key)
    return Run(estimates.z, estimates.lam, history, end)


def _restarts(problem: Problem) -> tuple[Array, Array] | None:
    """Which states absorb, and the others; None under the average criterion."""
    if problem.criterion == "average":
        return None
    if not is_concrete(*jax.tree.leaves(problem)):
        raise ValueError("problem: which states absorb must be known; simulate outside jit")
    absorbing = np.asarray(problem.absorbing)
    if absorbing.all():
        raise ValueError("problem: every state is absorbing, so there is nothing to learn")
    return jnp.asarray(absorbing), jnp.asarray(np.flatnonzero(~absorbing).astype(np.int32))


def _check_algorithm(algorithm) -> None:
    if not isinstance(algorithm, Algorithm):
        raise ValueError(f"algorithm: expected an Algorithm, got {type(algorithm).__name__}")


def _records(num_steps, every) -> tuple[int, int]:
    """Number of records and steps between them, or a ValueError."""
    if not isinstance(num_steps, int) or num_steps < 2:
        raise ValueError(f"num_steps: expected an integer of at least 2, got {num_steps!r}")
    if every is None:
        # An even divisor near a hundredth.
        candidates = [d for d in range(2, num_steps + 1, 2) if num_steps % d == 0][:100_000]
        if not candidates:
            raise ValueError(f"num_steps: expected an even number, got {num_steps}")
        every = min(candidates, key=lambda d: abs(np.log(100 * d / num_steps)))
    if not isinstance(every, int) or every < 2 or every % 2:
        raise ValueError(f"every: expected an even number of steps, got {every!r}")
    if num_steps % every:
        raise ValueError(f"num_steps: expected a multiple of every = {every}, got {num_steps}")
    return num_steps // every, every


def _largest_divisor(number: int, limit: int) -> int:
    return next(d for d in range(min(limit, number), 0, -1) if number % d == 0)


def _key_words(key) -> Array:
    """The first two 32-bit words of a key, new style or old."""
    try:
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        data = jnp.ravel(jax.random.key_data(key) if typed else key)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"key: expected a random key of jax.random.key, got {key!r}") from error
    if data.dtype != jnp.uint32 or data.shape[0] < 2:
        raise ValueError(f"key: expected a random key, got an array {data.dtype}{data.shape}")
    return data[:2]


def _part(state: RunState, where: slice) -> RunState:
    learner = jax.tree.map(lambda leaf: leaf[where], state.learner)
    return RunState(learner, state.x[where], state.steps, state.chain[where], state.key)


def _on_cpu(state: RunState) -> bool:
    return all(device.platform == "cpu" for device in state.x.devices())
