"""What KL-learning follows: the ODE (7), and the laws by which chains visit their states.

With gains that fall slowly the algorithm follows

    z' = f(z, λ) = (I - P_z) D(H - λI) z,        λ' = g(z, λ) = α <z, D(H - λI) z>,

P_z = z z'/‖z‖², D = diag(d) with d the law by which states are visited: the invariant law of q by
the global clock, nearly equal by the local one. Whether it converges is the matter of
`klcontrol.equilibrium`. The functions here are dense: for problems of up to some thousand states.
Wherever `weights` is None, d is the invariant law.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.ode import odeint

from klcontrol.dynamics import as_dense, is_concrete
from klcontrol.problem import Problem, floating_array
from klcontrol.solver import solve


def invariant_law(q) -> Array:
    """The invariant law of an irreducible chain.

        Σ_i d_i q_ij = d_j,    Σ d = 1

    Args:
      q: passive dynamics with entries, or a policy.

    Returns:
      (n,) d. Differentiable in q.

    Raises:
      ValueError: q is a function.

    Reference:
      D of Lemma 3.4.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.invariant_law(jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(3).tolist()
      [0.667, 0.333]
    """
    q = as_dense(q)
    n = q.shape[0]
    # (I - q' + 1 1'/n) d = 1/n: not singular for an irreducible q, and Σ d = 1 follows.
    return jnp.linalg.solve(jnp.eye(n, dtype=q.dtype) - q.T + 1 / n, jnp.full(n, 1 / n, q.dtype))


def detailed_balance(q, law=None) -> Array:
    """How far a chain is from detailed balance.

        max_ij |d_i q_ij - d_j q_ji|

    Args:
      q: passive dynamics with entries, or a policy.
      law: (n,) d; the invariant law if None.

    Returns:
      () the largest difference: zero up to rounding for a reversible chain.

    Raises:
      ValueError: q is a function.

    Reference:
      Proposition 2.1.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> ring = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
      >>> round(float(klcontrol.detailed_balance(ring)), 3)
      0.333
    """
    q = as_dense(q)
    flow_ = (invariant_law(q) if law is None else jnp.asarray(law))[:, None] * q
    return jnp.max(jnp.abs(flow_ - flow_.T))


def controlled_law(problem: Problem) -> Array:
    """The invariant law under optimal control, where q satisfies detailed balance.

        p_i ∝ q_i exp(β c_i) (z*_i)²

    Args:
      problem: average-cost `Problem` whose q satisfies detailed balance.

    Returns:
      (n,) p.

    Raises:
      ValueError: q does not satisfy detailed balance (checked where its entries are known).

    Reference:
      Proposition 2.1. It holds only under detailed balance; otherwise take
      `invariant_law(solve(problem).policy)`.

    Examples:
      >>> import klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> bool(abs(klcontrol.controlled_law(closed.problem) - closed.invariant).max() < 1e-12)
      True
    """
    q = as_dense(problem.q)
    law = invariant_law(q)
    if is_concrete(law):
        off = float(detailed_balance(q, law))
        if off > 1e-8 * float(law.max()):
            raise ValueError(
                f"problem: q does not satisfy detailed balance (off by {off:.2g}), so Proposition "
                "2.1 does not apply: use invariant_law(solve(problem).policy)"
            )
    # In logarithms: exp(βc) z² overflows and underflows long before the law does.
    logs = jnp.log(law) + problem.beta * problem.cost - 2 * problem.beta * solve(problem).value
    return jax.nn.softmax(logs)


def drift(problem: Problem, z, lam, alpha, *, weights=None) -> tuple[Array, Array]:
    """The right-hand sides of the ODE.

        f(z, λ) = (I - P_z) D(H - λI) z,        g(z, λ) = α <z, D(H - λI) z>

    Args:
      problem: `Problem` with entries.
      z: (n,).
      lam: λ.
      alpha: α.
      weights: (n,) diagonal of D; the invariant law if None.

    Returns:
      f (n,) and g ().

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      (5) and (6).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> z = jnp.exp(-closed.value)
      >>> f, g = klcontrol.drift(closed.problem, z / jnp.linalg.norm(z), closed.lam, 1.0)
      >>> bool(abs(f).max() < 1e-12 and abs(g) < 1e-12)
      True
    """
    H, d = matrices(problem, weights)
    return _drift(H, d, jnp.asarray(z), lam, alpha)


def flow(problem: Problem, z, lam, alpha, times, *, weights=None, rtol: float = 1e-8):
    """The solution of the ODE from given values.

        z' = f(z, λ),    λ' = g(z, λ)

    Args:
      problem: `Problem` with entries.
      z: (n,) z at the first time; its length is kept.
      lam: λ at the first time.
      alpha: α.
      times: (T,) increasing times.
      weights: (n,) diagonal of D; the invariant law if None.
      rtol: relative accuracy of the integrator (Dormand and Prince's method).

    Returns:
      z (T, n) and λ (T,).

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      (7).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> z, lam = klcontrol.flow(
      ...     closed.problem, jnp.ones(2) / jnp.sqrt(2), 1.0, 1.0, jnp.linspace(0, 200.0, 3)
      ... )
      >>> bool(abs(lam[-1] - closed.lam) < 1e-6)
      True
    """
    H, d = matrices(problem, weights)

    def rate(state, _):
        return _drift(H, d, *state, alpha)

    start = (jnp.asarray(z, H.dtype), jnp.asarray(lam, H.dtype))
    return odeint(rate, start, jnp.asarray(times, H.dtype), rtol=rtol, atol=rtol * 1e-2)


def _drift(H, d, z, lam, alpha) -> tuple[Array, Array]:
    pull = d * (H @ z - lam * z)
    along = z @ pull
    return pull - z * along / (z @ z), alpha * along


def matrices(problem: Problem, weights) -> tuple[Array, Array]:
    """H and d, the diagonal of D: `weights`, or the invariant law if None."""
    q = as_dense(problem.q)
    H = jnp.exp(-problem.beta * problem.cost)[:, None] * q
    if weights is None:
        return H, invariant_law(q)
    d = floating_array("weights", weights).astype(H.dtype)
    if d.shape != problem.cost.shape:
        raise ValueError(f"weights: expected shape {problem.cost.shape}, got {d.shape}")
    if is_concrete(d) and not (np.isfinite(np.asarray(d)) & (np.asarray(d) > 0)).all():
        raise ValueError(f"weights: expected positive, finite numbers, got {np.asarray(d)}")
    return H, d
