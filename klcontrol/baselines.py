"""Q-learning of the same control problem: what general reinforcement learning would do.

The action at x is the successor y; it costs c(x) and is charged for straying from q, so that

    Q(x, y) = c(x) + V(y) - ρ,        V(x) = -log(Σ_y q(y|x) exp(-β Q(x, y)))/β = Φ(x).

Learned off-policy from the passive walk by relative value iteration: the average cost ρ is V of one
reference state. Unlike KL-learning it has to know q(·|x) to form V, keeps a number a transition
instead of a number a state, and works for O(d) a step. In return it learns logarithms, whose errors
are relative: where z* spans many digits, no digit is lost.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from klcontrol.dynamics import Neighbours, as_neighbours
from klcontrol.learning import default_gain
from klcontrol.problem import Problem
from klcontrol.sampling import alias_table, draw, threefry


class QState(NamedTuple):
    """What Q-learning knows.

        V(x) = -log(Σ_k p_k exp(-β Q(x, k)))/β

    Attributes:
      Q: (n, d) cost to come of moving to each successor, relative to ρ.
      visits: (n,) int32.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.zeros(2))
      >>> klcontrol.q_init(problem).Q.shape
      (2, 2)
    """

    Q: Array
    visits: Array


class QRun(NamedTuple):
    """What a run of Q-learning has found.

        λ = exp(-β ρ),    z ∝ exp(-β V)

    Attributes:
      z: (chains, n) estimates of z*, 1-normalised.
      lam: (chains,) estimates of λ*.
      history: (records, chains, n) z over time.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.zeros(2))
      >>> run = klcontrol.q_learning(jax.random.key(0), problem, num_steps=100, every=50)
      >>> run.history.shape
      (2, 1, 2)
    """

    z: Array
    lam: Array
    history: Array


def q_init(problem: Problem) -> QState:
    """The state before the first transition: Q = 0.

        Q(x, k) = 0

    Args:
      problem: `Problem` with entries.

    Returns:
      `QState`.

    Raises:
      ValueError: q is a function.

    Reference:
      Watkins (1989), the draft's [8].

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.q_init(klcontrol.Problem(jnp.ones((1, 1)), jnp.zeros(1))).visits.tolist()
      [0]
    """
    lists = as_neighbours(problem.q)
    return QState(jnp.zeros_like(lists.probabilities), jnp.zeros(problem.num_states, jnp.int32))


def q_step(problem: Problem, state: QState, x, x_next) -> QState:
    """The state after one more passive transition.

        Q(x, x') += g (c(x) + V(x') - V(0) - Q(x, x'))

    Args:
      problem: `Problem` whose q is `Neighbours` (an array is converted outside jit).
      state: `QState`.
      x: state that is left.
      x_next: state that is entered, a successor of x.

    Returns:
      `QState`; the gain is `default_gain` of the visits to x.

    Raises:
      ValueError: q is a function.

    Reference:
      Abounadi, Bertsekas and Borkar, Learning algorithms for Markov decision processes with average
      cost (2001): relative value iteration, V(0) → ρ*.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([1.0, 0.0]))
      >>> klcontrol.q_step(problem, klcontrol.q_init(problem), 0, 1).Q.tolist()
      [[0.0, 0.5], [0.0, 0.0]]
    """
    lists = as_neighbours(problem.q)
    gain = default_gain(state.visits[x].astype(state.Q.dtype))
    target = problem.cost[x] + _value(lists, problem.beta, state.Q, x_next)
    target = target - _value(lists, problem.beta, state.Q, 0)
    # A successor may occur twice in the list.
    change = jnp.where(lists.indices[x] == x_next, gain * (target - state.Q[x]), 0)
    return QState(state.Q.at[x].add(change), state.visits.at[x].add(1))


def q_learning(
    key, problem: Problem, *, num_steps: int, num_chains: int = 1, every: int | None = None
) -> QRun:
    """Q-learning from the passive walk of many chains.

        V(0) → ρ*,    V → Φ up to a constant

    Args:
      key: random key.
      problem: average-cost `Problem` with known entries.
      num_steps: steps of each chain, a multiple of `every`.
      num_chains: chains, which learn independently.
      every: steps between records; num_steps if None.

    Returns:
      `QRun`.

    Raises:
      ValueError: a problem until absorption, or numbers that do not fit.

    Reference:
      As `q_step`; the baseline of the draft's introduction of KL-learning.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> problem = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> run = klcontrol.q_learning(jax.random.key(0), problem, num_steps=4000, num_chains=8)
      >>> round(float(run.lam.mean()), 2)
      0.68
    """
    every = num_steps if every is None else every
    if problem.criterion != "average":
        raise ValueError("problem: q_learning is for average costs; use z_learning")
    if not isinstance(num_steps, int) or num_steps < 1 or every < 1 or num_steps % every:
        raise ValueError(
            f"num_steps: expected a positive multiple of every = {every}, got {num_steps}"
        )
    lists = as_neighbours(problem.q)
    words = jax.random.key_data(key).ravel()[:2]
    listed = Problem(lists, problem.cost, problem.beta)
    return _run(words, listed, alias_table(lists), num_steps // every, every, num_chains)


def _value(lists: Neighbours, beta, Q: Array, x) -> Array:
    return -jax.nn.logsumexp(-beta * Q[x], b=lists.probabilities[x], axis=-1) / beta


@partial(jax.jit, static_argnums=(3, 4, 5))
def _run(words, problem, table, records, every, num_chains) -> QRun:
    chain = jnp.arange(num_chains, dtype=jnp.uint32)
    n = problem.num_states
    starts = (jnp.arange(num_chains) * n // num_chains).astype(jnp.int32)
    state = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (num_chains, *leaf.shape)), q_init(problem)
    )
    learn = jax.vmap(partial(q_step, problem))

    def step(carry, _):
        state, x, t = carry
        word, _ = threefry((words[0], words[1]), t, chain)
        y = draw(table, x, word)
        return (learn(state, x, y), y, t + jnp.uint32(1)), None

    def values(Q):
        return jax.vmap(lambda x: _value(problem.q, problem.beta, Q, x))(jnp.arange(n))

    def record(carry, _):
        carry, _ = lax.scan(step, carry, length=every)
        return carry, jax.nn.softmax(-problem.beta * jax.vmap(values)(carry[0].Q))

    (state, _, _), history = lax.scan(record, (state, starts, jnp.uint32(0)), length=records)
    rho = jax.vmap(lambda Q: _value(problem.q, problem.beta, Q, 0))(state.Q)
    return QRun(history[-1], jnp.exp(-problem.beta * rho), history)
