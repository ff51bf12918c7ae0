"""Ways to multiply by a sum of Kronecker products: build it, contract without it, or in R products.

For B rows x, with p = in/n and q = out/n, in multiply-adds:

    built         n³ p q  for H, then B n² p q
    contracted    B n³ min(p, q)  for mixing the parts of x or of the result by A, then B n² p q,
                  as one product with F as it lies in memory
    factored      R (n p q + B n (p + q))  for mixing, then B R p q       (rank R, see `low_rank`)

so contracting is cheaper for fewer than max(p, q) rows, as in generating text token by token; it
never holds the n² p q numbers of H, but n times the activations.
"""

import math

import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from phydi.algebra import check_pair, kronecker_sum
from phydi.checking import as_floating, check_option
from phydi.low_rank import Factors

FORMS = ("auto", "built", "contracted", "factored")
# Rematerialised stacks save what has this name, so that no step builds H a second time.
KERNEL_NAME = "ph_kernel"
# R products of smaller blocks take longer than the one of all n². Rank 7 against 16, forward and
# backward on two CPU cores: convolutions of 3 × 3 take 1.35 times as long for blocks of 64 and 0.7
# for 128; dense layers 1.4 times as long for 128, 0.82 for 256 and 0.85 for 512.
SMALLEST_BLOCK, SMALLEST_DENSE_BLOCK = 128, 256


def named_kernel(A: Array, F: Array) -> Array:
    """H, under the name by which rematerialisation knows it."""
    return checkpoint_name(kronecker_sum(A, F), KERNEL_NAME)


def choose_form(form: str, num_rows: int, p: int, q: int, rank: int | None, taps: int = 1) -> str:
    """The cheapest form, where `auto` leaves the choice."""
    if form != "auto":
        return form
    is_small = num_rows < taps * max(p, q)
    if rank is not None:
        smallest = SMALLEST_DENSE_BLOCK if taps == 1 else SMALLEST_BLOCK
        return "factored" if is_small or min(p, q) >= smallest else "built"
    return "contracted" if is_small else "built"


def contract(x: Array, A: Array, F: Array, precision=None) -> Array:
    """x H without H: one product with F, the mixing by A on its cheaper side."""
    n, p, q = F.shape
    rows = x.shape[:-1]
    x = x.reshape(-1, n, p)
    if p <= q:
        mixed = jnp.einsum("iab,xap->xbip", A, x, precision=precision)
        y = jnp.einsum("xbip,ipq->xbq", mixed, F, precision=precision)
    else:
        products = jnp.einsum("xap,ipq->xaiq", x, F, precision=precision)
        y = jnp.einsum("iab,xaiq->xbq", A, products, precision=precision)
    return y.reshape(*rows, n * q)


def factored(x: Array, factors: Factors, F: Array, precision=None) -> Array:
    """x H as R products of blocks."""
    n, p, q = F.shape
    u, v, w = factors
    rows = x.shape[:-1]
    x = jnp.einsum("ra,xap->rxp", v, x.reshape(-1, n, p), precision=precision)
    G = jnp.einsum("ri,ipq->rpq", u, F, precision=precision)
    products = jnp.einsum("rxp,rpq->rxq", x, G, precision=precision)
    y = jnp.einsum("rb,rxq->xbq", w, products, precision=precision)
    return y.reshape(*rows, n * q)


def kronecker_matmul(x, A, F, *, form: str = "auto", precision=None) -> Array:
    """The product with a sum of Kronecker products, which need not be built.

        x H = x Σ_i A_i ⊗ F_i

    Args:
      x: (..., n p) rows.
      A: (n, n, n) the matrices A_i, or `Factors` of them.
      F: (n, p, q) the blocks F_i.
      form: `built`, `contracted`, `factored` (with `Factors` only), or `auto`: the one with the
        fewest operations for so many rows.
      precision: as in `jax.lax.dot`.

    Returns:
      (..., n q).

    Raises:
      ValueError: shapes that do not fit, an unknown form, or `factored` without factors.

    Reference:
      (1); the operation counts are in the module.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> A = phydi.multiplication_tensor(2)  # (3 + 4i)(1 + 2i)
      >>> phydi.kronecker_matmul(jnp.array([1.0, 2.0]), A, jnp.array([[[3.0]], [[4.0]]]))
      Array([-5., 10.], dtype=...)
    """
    check_option("form", form, FORMS)
    factors = Factors(*A) if isinstance(A, tuple) else None
    if factors is not None:
        A = jnp.einsum("ri,ra,rb->iab", *factors)
    elif form == "factored":
        raise ValueError("A: expected Factors (u, v, w) for form='factored', got a tensor")
    A, F = check_pair(A, F)
    x = as_floating("x", x)
    n, p, q = F.shape
    if x.ndim < 1 or x.shape[-1] != n * p:
        raise ValueError(f"x: expected a last axis of n p = {n * p}, got shape {x.shape}")
    rank = None if factors is None else factors.u.shape[0]
    form = choose_form(form, math.prod(x.shape[:-1]), p, q, rank)
    if form == "built":
        return jnp.matmul(x, named_kernel(A, F), precision=precision)
    if form == "factored":
        return factored(x, factors, F, precision)
    return contract(x, A, F, precision)
