"""What any policy costs, and where it goes: expected costs with KL included, and rollouts.

A policy p is given in the form of q: an array, or `Neighbours` with q's own lists. Its cost per
step in state i is

    k_i = c_i + KL(p_i ‖ q_i) / β,        KL(p_i ‖ q_i) = Σ_j p_ij log(p_ij / q_ij),

and its value solves the Poisson equation v = k - ρ + p v (average), or v = k + p v with v = 0
where the chain is absorbed (total). The linear system is sparse and solved on the host.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax import Array, lax

from klcontrol.dynamics import Neighbours, is_concrete
from klcontrol.problem import Problem


class PolicyCost(NamedTuple):
    """What a policy costs.

        v_i = k_i - ρ + Σ_j p_ij v_j

    Attributes:
      rho: () average cost per step, KL included; 0 under the total criterion.
      value: (n,) v: average criterion, normalised as Φ is (Σ exp(-β v) = 1); total criterion, the
        expected cost until absorption.
      step_cost: (n,) k.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> float(klcontrol.policy_cost(p, p.q).rho)
      0.5
    """

    rho: Array
    value: Array
    step_cost: Array


class Rollout(NamedTuple):
    """A trajectory under a policy.

        states[t + 1] ~ p(·|states[t]),        costs[t] = k of states[t]

    Attributes:
      states: (num_steps + 1,) integers.
      costs: (num_steps,) cost of each step, KL included.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.eye(2)[::-1], jnp.array([1.0, 0.0]))
      >>> run = klcontrol.rollout(jax.random.key(0), p, p.q, 0, num_steps=3)
      >>> run.states.tolist(), run.costs.tolist()
      ([0, 1, 0, 1], [1.0, 0.0, 1.0])
    """

    states: Array
    costs: Array


def _lists(problem: Problem, policy) -> tuple[Array, Array, Array]:
    """Successors, p and q of each state in lists of one length."""
    if callable(problem.q) or callable(policy):
        raise ValueError("policy: expected entries of p and q, got a function")
    if isinstance(problem.q, Neighbours) != isinstance(policy, Neighbours):
        raise ValueError(
            f"policy: expected the form of q, {type(problem.q).__name__}, got "
            f"{type(policy).__name__}"
        )
    if isinstance(policy, Neighbours):
        indices, p, q = policy.indices, policy.probabilities, problem.q.probabilities
        same = not is_concrete(indices, problem.q.indices) or np.array_equal(
            indices, problem.q.indices
        )
        if p.shape != q.shape or not same:
            raise ValueError("policy: expected the lists of q, with other probabilities")
        return indices, p, q
    p, q = jnp.asarray(policy), problem.q
    if p.shape != q.shape:
        raise ValueError(f"policy: expected shape {q.shape}, got {p.shape}")
    return jnp.broadcast_to(jnp.arange(q.shape[0]), q.shape), p, q


def step_cost(problem: Problem, policy: Any) -> Array:
    """The expected cost of one step from each state under a policy, KL included.

        k_i = c_i + Σ_j p_ij log(p_ij / q_ij) / β

    Args:
      problem: the problem.
      policy: p in the form of q; of `Neighbours`, each entry of a list counts by itself.

    Returns:
      (n,) k; infinite where p moves to where q cannot.

    Raises:
      ValueError: a policy of another form or shape.

    Reference:
      The paper's section 2, the cost of a transition.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.zeros(2))
      >>> klcontrol.step_cost(p, jnp.array([[1.0, 0.0], [0.5, 0.5]])).round(6).tolist()
      [0.693147, 0.0]
    """
    _, p, q = _lists(problem, policy)
    used = p > 0
    ratio = jnp.where(used, p, 1) / jnp.where(used, q, 1)
    return problem.cost + jnp.sum(jnp.where(used, p * jnp.log(ratio), 0), axis=1) / problem.beta


def policy_cost(problem: Problem, policy: Any) -> PolicyCost:
    """The cost of any policy: per step in the long run, or until absorption.

        v = k - ρ + p v

    Runs on the host, by a sparse factorisation; for the optimal policy v = Φ and ρ = ρ*.

    Args:
      problem: the problem, concrete.
      policy: p in the form of q.

    Returns:
      `PolicyCost`; infinite where p moves to where q cannot.

    Raises:
      ValueError: a policy of another form or shape, rows that do not sum to one, or a chain under p
        that falls apart (average) or is never absorbed (total).

    Reference:
      Puterman, Markov Decision Processes, sections 7.1 and 8.2.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> s = klcontrol.solve(p)
      >>> bool(abs(klcontrol.policy_cost(p, s.policy).rho - s.rho) < 1e-12)
      True
    """
    if not is_concrete(*jax.tree.leaves((problem, policy))):
        raise ValueError("policy: policy_cost runs outside jit; step_cost works inside")
    indices, p, _ = _lists(problem, policy)
    n = problem.num_states
    sums = np.asarray(p).sum(axis=1)
    if not (np.abs(sums - 1) <= 1e-8).all():
        state = int(np.argmax(np.abs(sums - 1)))
        raise ValueError(f"policy: the row of state {state} sums to {sums[state]:.9g}, expected 1")
    k = np.asarray(step_cost(problem, policy))
    rows = np.repeat(np.arange(n), indices.shape[1])
    entries = np.asarray(p, float).ravel(), (rows, np.asarray(indices).ravel())
    P = scipy.sparse.csr_array(entries, shape=(n, n))
    identity = scipy.sparse.eye_array(n, format="csr")
    beta = float(problem.beta)
    if problem.criterion == "total":
        open_ = ~np.asarray(problem.absorbing)
        system = (identity - P)[open_][:, open_].tocsc()
        value = np.zeros(n)
        value[open_] = _solve(system, k[open_], "is never absorbed")
        return PolicyCost(jnp.zeros(()), jnp.asarray(value), jnp.asarray(k))
    # v_0 = 0 makes room for ρ in its column: (I - p) v + ρ 1 = k.
    system = (identity - P).tolil()
    system[:, [0]] = np.ones((n, 1))
    found = _solve(system.tocsc(), k, "falls apart into several")
    rho, value = found[0], np.append(0.0, found[1:])
    least = value.min()
    value = value - least + np.log(np.sum(np.exp(-beta * (value - least)))) / beta
    return PolicyCost(jnp.asarray(rho), jnp.asarray(value), jnp.asarray(k))


def _solve(system, right: np.ndarray, trouble: str) -> np.ndarray:
    if not np.isfinite(right).all():
        return np.full(len(right), np.inf)
    try:
        found = scipy.sparse.linalg.splu(system).solve(right)
    except RuntimeError:
        found = np.full(len(right), np.nan)
    if not np.isfinite(found).all():
        raise ValueError(f"policy: the chain under it {trouble}, so its cost is not defined")
    return found


def rollout(key: Array, problem: Problem, policy: Any, start, *, num_steps: int) -> Rollout:
    """A trajectory under a policy; many by `jax.vmap` over keys and starts.

        states[t + 1] ~ p(·|states[t])

    Args:
      key: random key.
      problem: the problem.
      policy: p in the form of q.
      start: () first state.
      num_steps: steps.

    Returns:
      `Rollout`.

    Raises:
      ValueError: a policy of another form or shape; `num_steps` below 1.

    Reference:
      None; simulation.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> run = klcontrol.rollout(jax.random.key(0), p, p.q, 0, num_steps=10_000)
      >>> abs(float(run.costs.mean()) - 0.5) < 0.02
      True
    """
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps: expected a positive integer, got {num_steps!r}")
    indices, p, _ = _lists(problem, policy)
    k = step_cost(problem, policy)
    totals = jnp.cumsum(p, axis=1)

    def step(state, u):
        row = totals[state]
        # Scaled by the row's own total, so that rounding never selects a padded entry.
        place = jnp.searchsorted(row, u * row[-1], side="right")
        return indices[state, place].astype(start.dtype), state

    start = jnp.asarray(start)
    last, states = lax.scan(step, start, jax.random.uniform(key, (num_steps,), k.dtype))
    return Rollout(jnp.append(states, last), k[states])
