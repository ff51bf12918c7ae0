"""`materialise`: an array computed once, whatever XLA fuses.

A certificate is about the numbers that the caller sees. XLA may compute a cheap array twice, once
for each use, and round the two differently (a multiply-add fused here and not there). Nothing is
fused across a branch whose condition is only known at run time, so what passes through one has come
to memory; on the CPU an optimization barrier does not do that.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_batching.custom_vmap
def _through_branch(v: Array) -> Array:
    # What depends on a v that is NaN in its middle is NaN, so the other branch tells no lie.
    middle = v[..., v.shape[-1] // 2]
    return lax.cond(jnp.isnan(middle).all(), lambda v: jnp.full_like(v, jnp.nan), lambda v: v, v)


@_through_branch.def_vmap
def _through_branch_batched(axis_size, in_batched, v):
    return _through_branch(v), True


@jax.custom_jvp
def materialise(v: Array) -> Array:
    """The vector v, in memory; its derivative is the identity's."""
    return _through_branch(v)


@materialise.defjvp
def _materialise_jvp(primals, tangents):
    return materialise(*primals), tangents[0]
