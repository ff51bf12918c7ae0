"""Finite horizons, and the policy that belongs to a value function."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from klcontrol.bellman import linearise
from klcontrol.problem import Problem, check_finite, floating_array


def finite_horizon(problem: Problem, num_steps: int, terminal=None) -> Array:
    """The optimal cost to go, for each number of steps left.

        Φ_t(i) = c_i - log(Σ_j q_ij exp(-β Φ_(t+1)(j))) / β,        Φ_T = terminal

    In logarithms, so that no horizon is too long. The optimal policy at time t is
    `optimal_policy(problem, value[t + 1])`.

    Args:
      problem: the problem; absorbing states cost nothing under either criterion.
      num_steps: T, a static integer.
      terminal: (n,) cost at the end; 0 by default.

    Returns:
      (T + 1, n) values: row t is Φ_t.

    Raises:
      ValueError: a negative number of steps, or terminal costs of another shape or not finite.

    Reference:
      The Bellman equation of the paper's section 2, for a horizon that it leaves out.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> klcontrol.finite_horizon(p, 1).tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    if not isinstance(num_steps, (int, np.integer)) or num_steps < 0:
        raise ValueError(f"num_steps: expected an integer of at least 0, got {num_steps!r}")
    if terminal is None:
        terminal = jnp.zeros_like(problem.cost)
    end = floating_array("terminal", terminal).astype(problem.cost.dtype)
    if end.shape != problem.cost.shape:
        raise ValueError(f"terminal: expected shape {problem.cost.shape}, got {end.shape}")
    check_finite("terminal", end)

    def step(phi, _):
        before = phi + linearise(problem, phi)[0]
        return before, before

    phi = -problem.beta * end
    _, earlier = lax.scan(step, phi, None, length=int(num_steps))
    return 0 - jnp.concatenate([earlier[::-1], phi[None]]) / problem.beta


def optimal_policy(problem: Problem, value) -> Any:
    """The transitions that are optimal if `value` is what the rest costs.

        p_ij = q_ij exp(-β Φ_j) / Σ_k q_ik exp(-β Φ_k)

    Args:
      problem: the problem.
      value: (n,) Φ.

    Returns:
      p in the form of q: an array, `Neighbours` in the order of q's, or a function w -> p w.

    Raises:
      ValueError: a value function of another shape.

    Reference:
      The paper's expression for p*, section 2, with λ* z*_i written as the sum it is.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> klcontrol.optimal_policy(p, jnp.array([0.0, jnp.log(3.0)])).round(6).tolist()
      [[0.75, 0.25], [0.75, 0.25]]
    """
    value = floating_array("value", value)
    if value.shape != problem.cost.shape:
        raise ValueError(f"value: expected shape {problem.cost.shape}, got {value.shape}")
    return linearise(problem, -problem.beta * value)[1]
