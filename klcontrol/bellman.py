"""The Bellman equation in logarithms, and its linearisation, which is the controlled chain.

With φ = log z the equation λ z = H z reads, state by state,

    T(φ)_i - φ_i = ℓ,        T(φ)_i = -β c_i + log Σ_j q_ij exp(φ_j),        ℓ = log λ.

Three facts make everything else short.

1. Whatever φ is, the residual r = T(φ) - φ is the logarithm of (Hz)_i / z_i, so that
   min r <= ℓ* <= max r (Collatz–Wielandt), and r constant means solved.
2. The derivative of T is a stochastic matrix, the chain controlled by the policy of φ:
   P_ij = q_ij exp(φ_j) / Σ_k q_ik exp(φ_k). In coordinates relative to z = exp(φ), H is
   diag(e^r) P, which is well scaled near the solution, whatever the size of z: β c of several
   hundred neither underflows nor overflows, and an error in the sup norm there is a relative error
   of each z_i.
3. Newton's method on T(φ) - φ = ℓ is (I - P) δ + ℓ 1 = r, the evaluation of the policy P: it is
   policy iteration, and also inverse iteration with a moving shift.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from klcontrol.dynamics import Neighbours, apply
from klcontrol.problem import Problem

# Up to this range of φ, exponentials of single states lose no more than rounding does anyway.
NARROW = 8.0


def linearise(problem: Problem, phi: Array) -> tuple[Array, object]:
    """r = T(φ) - φ, (n,), and the policy of φ in the form of q (a function, if q is one).

    In the total criterion absorbing states have r = 0.
    """
    q, base = problem.q, -problem.beta * problem.cost
    if isinstance(q, (Neighbours, Array)):
        narrow = jnp.max(phi) - jnp.min(phi) <= NARROW
        policy, rise = lax.cond(narrow, _by_states, _by_transitions, q, phi)
        if isinstance(q, Neighbours):
            policy = Neighbours(q.indices, policy)
    else:
        # The function sees only q z, so the range of z is that of floating-point numbers.
        z = jnp.exp(phi - jnp.max(phi))
        total = q(z)
        rise = jnp.max(phi) - phi + jnp.log(total)
        policy = jax.tree_util.Partial(_controlled, q, z, total)
    return jnp.where(problem.absorbing, 0, base + rise), policy


def _by_states(q, phi: Array) -> tuple[Array, Array]:
    """The policy and log((qz)_i / z_i), by one exponential a state."""
    z = jnp.exp(phi - jnp.max(phi))
    weights = q.probabilities * z[q.indices] if isinstance(q, Neighbours) else q * z[None, :]
    total = jnp.sum(weights, axis=1)
    return weights / total[:, None], jnp.log(total / z)


def _by_transitions(q, phi: Array) -> tuple[Array, Array]:
    """The same by one exponential a transition: for any range of φ."""
    if isinstance(q, Neighbours):
        q, difference = q.probabilities, phi[q.indices] - phi[:, None]
    else:
        difference = phi[None, :] - phi[:, None]
    difference = jnp.where(q > 0, difference, -jnp.inf)
    top = jnp.max(difference, axis=1)
    weights = jnp.where(q > 0, q * jnp.exp(difference - top[:, None]), 0)
    total = jnp.sum(weights, axis=1)
    return weights / total[:, None], top + jnp.log(total)


def _controlled(q, z, total, w):
    return q(z * w) / total


def apply_policy(problem: Problem, policy, w: Array) -> Array:
    """P w; w is kept where the chain is absorbed."""
    return jnp.where(problem.absorbing, w, apply(policy, w))


def log_sum(phi: Array) -> Array:
    """log Σ exp(φ)."""
    top = jnp.max(phi)
    return top + jnp.log(jnp.sum(jnp.exp(phi - top)))


def normalise(problem: Problem, phi: Array) -> Array:
    """φ with Σ exp(φ) = 1; in the total criterion φ is 0 where the chain is absorbed already."""
    return phi if problem.criterion == "total" else phi - log_sum(phi)


def rounding_floor(problem: Problem, phi: Array) -> Array:
    """The width of r below which only rounding is left: φ itself is known to half a unit."""
    size = 4 + jnp.max(phi) - jnp.min(phi) + jnp.max(jnp.abs(problem.beta * problem.cost))
    return 4 * jnp.finfo(phi.dtype).eps * size
