"""(log z*, log λ*) with implicit derivatives.

Differentiating T(φ; θ)_i - φ_i = ℓ in a parameter θ (costs, q, β) gives, with P the optimal policy,

    (I - P) dφ + dℓ 1 = ∂T/∂θ dθ,        so that  dℓ = π·(∂T/∂θ dθ)

for the invariant law π of P, which is the left eigenvector of H times the right one. The system is
solved with one more row that makes the sum of dφ zero; its transpose gives gradients. P is that of
the solution, itself differentiable, so that derivatives of any order are right.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from klcontrol.bellman import linearise
from klcontrol.dynamics import apply, as_dense
from klcontrol.iterations import Iterate, middle
from klcontrol.problem import Problem

# Up to this many states derivatives are solved for by a dense factorisation.
DENSE_STATES = 1500


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def principal(iterate_fn, problem: Problem) -> tuple[Iterate, Array]:
    """The iterate that `iterate_fn(problem)` finds, and ℓ, the middle of its residual."""
    found = iterate_fn(problem)
    return found, middle(problem, found)


@principal.defjvp
def _principal_jvp(iterate_fn, primals, tangents):
    (problem,), (dproblem,) = primals, tangents
    found, level = principal(iterate_fn, problem)
    _, dr = jax.jvp(lambda p: linearise(p, found.phi)[0], (problem,), (dproblem,))
    dphi, dlevel = _solve_bordered(problem, found.phi, dr)
    zeros = jnp.zeros_like(found.residual)
    steps = jnp.zeros(found.steps.shape, jax.dtypes.float0)
    return (found, level), (Iterate(dphi, zeros, steps), dlevel)


def _solve_bordered(problem: Problem, phi: Array, r: Array) -> tuple[Array, Array]:
    """(δ, ℓ) with (I - P) δ + ℓ 1 = r and Σ δ = 0; ℓ = 0 and δ = 0 at the end, if total."""
    _, policy = linearise(problem, phi)
    n = r.shape[0]
    absorbing = problem.absorbing
    total = problem.criterion == "total"

    def multiply(x):
        delta, level = x[:n], x[n]
        if total:
            moved = apply(policy, jnp.where(absorbing, 0, delta))
            return jnp.append(delta - jnp.where(absorbing, 0, moved), level)
        return jnp.append(delta - apply(policy, delta) + level, jnp.sum(delta))

    def solve(product, b):
        solution, _ = jax.scipy.sparse.linalg.gmres(
            product, b, tol=1e-12, atol=0, restart=60, maxiter=100, solve_method="batched"
        )
        return solution

    b = jnp.append(jnp.where(absorbing, 0, r), 0)
    if n <= DENSE_STATES and not callable(policy):
        P = as_dense(policy)
        if total:
            P = jnp.where(absorbing[:, None] | absorbing[None, :], 0, P)
            x = jnp.append(jnp.linalg.solve(jnp.eye(n, dtype=P.dtype) - P, b[:n]), 0)
        else:
            side = jnp.ones((n, 1), P.dtype)
            corner = jnp.zeros((1, 1), P.dtype)
            x = jnp.linalg.solve(
                jnp.block([[jnp.eye(n, dtype=P.dtype) - P, side], [side.T, corner]]), b
            )
    else:
        x = lax.custom_linear_solve(multiply, b, solve, transpose_solve=solve)
    return x[:n], x[n]
