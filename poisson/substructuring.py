"""The discrete Green's function of tridiag(-1, 2, -1), applied by exact substructuring.

With m unknowns at the points 1 … m of an interval of length T = m + 1 the inverse is known,

    G_ij = min(i, j) (T - max(i, j)) / T,        v_i = Σ_j G_ij d_j,

which is two prefix sums: v_i = ((T - i) Σ_(j≤i) j d_j + i Σ_(j>i) (T - j) d_j) / T. Every
coefficient is positive, so v carries a relative error of a few roundings of Σ G |d| at *each*
point: elimination loses digits in proportion to m, this does not.

Two full-length prefix sums would move the array through memory several times. In one dimension a
block decomposition is exact: cut the points into blocks of L = 32, the last point of each block
being a node of the coarse grid. Inside a block, at local positions l = 1 … L,

    v_l = Σ_k G^(L)_lk d_k + (1 - l/L) V_left + (l/L) V_right,

and the node values V solve the same problem on the coarse grid, its right-hand side the moments
Σ l d_l of the block on the left and Σ (L - l) d_l of the block on the right. So the algorithm is:
one product of (m/L, L) with a small matrix for the moments, itself on m/L unknowns, one product
with the L x L matrix G^(L), and an interpolation. All coefficients stay positive, memory is read
twice and written once, the products run on whatever multiplies matrices fast.

m need not be a multiple of L: the t = m mod L unknowns left over form a shorter block, which only
makes the last interval of the coarse grid shorter than the others. `rho` is the length of the last
interval in units of the others, an exact fraction known at trace time; T = m + rho.

In float32 each block's sums are compensated (double-single: a sum and its rounding error, by
Knuth's TwoSum), so that a coarser unit does not cost digits in the long sums.
"""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from poisson.systems import check_vector, solve_poisson

BLOCK = 32  # the widest product that is still bound by memory, not by arithmetic
DIRECT = 64  # up to here one dense product is as fast


def num_levels(m: int) -> int:
    """How many block decompositions m unknowns need before the dense product."""
    levels = 0
    while m > DIRECT:
        m, levels = m // BLOCK, levels + 1
    return levels


def error_constant(m: int) -> int:
    """K with |green(d) - A⁻¹d| <= K u / (1 - K u) · A⁻¹|d| at every point, u the unit roundoff.

    Every coefficient is positive and every entry of the result is a sum of products; so K counts
    the roundings on the longest path. A level has a moment (L products summed, a rounded weight,
    one more sum), and then either a local product (L) or an interpolation (a rounded weight, a
    product, two sums); the direct product sums DIRECT terms with weights of three roundings.
    Fused multiply-adds and any order of summation only make it less.
    """
    return num_levels(m) * (BLOCK + 12) + DIRECT + 4


def _positions(size: int, length: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """j and length - j for j = 1 … size, in float64."""
    j = np.arange(1, size + 1)
    return j.astype(np.float64), np.array([float(length - int(k)) for k in j])


def _local_matrix(size: int, length: Fraction) -> np.ndarray:
    """Green's function of a block: `size` unknowns at 1 … size of an interval of `length`."""
    j, rest = _positions(size, length)
    return np.minimum.outer(j, j) * np.minimum.outer(rest, rest) / float(length)


def _plain(block: Array, size: int, length: Fraction) -> Array:
    """G d for each row of `block`, (…, width) with `size` <= width unknowns that count."""
    matrix = np.zeros((block.shape[-1],) * 2)
    matrix[:size, :size] = _local_matrix(size, length)
    return jnp.matmul(block, matrix.astype(block.dtype), precision=lax.Precision.HIGHEST)


def _plain_moments(block: Array, length: Fraction) -> tuple[Array, Array]:
    """Σ j d_j and Σ (length - j) d_j of each row."""
    weights = np.stack(_positions(block.shape[-1], length), axis=1).astype(block.dtype)
    moments = jnp.matmul(block, weights, precision=lax.Precision.HIGHEST)
    return moments[..., 0], moments[..., 1]


def two_sum(x: Array, y: Array) -> tuple[Array, Array]:
    """x + y as a rounded sum and its exact error (Knuth)."""
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _compensated_prefix(terms: Array, *, reverse: bool) -> tuple[Array, Array]:
    """Prefix sums along the last axis as pairs (sum, accumulated error)."""

    def step(carry, term):
        total, error = carry
        total, new = two_sum(total, term)
        carry = total, error + new
        return carry, carry

    rows = jnp.moveaxis(terms, -1, 0)
    zero = jnp.zeros_like(rows[0])
    _, (total, error) = lax.scan(step, (zero, zero), rows, reverse=reverse)
    return jnp.moveaxis(total, 0, -1), jnp.moveaxis(error, 0, -1)


def _compensated_sums(block: Array, length: Fraction):
    j, rest = (w.astype(block.dtype) for w in _positions(block.shape[-1], length))
    return _compensated_prefix(block * j, reverse=False), _compensated_prefix(
        block * rest, reverse=True
    )


def _compensated(block: Array, size: int, length: Fraction) -> Array:
    """As `_plain`, by the two prefix sums in double-single."""
    (below, below_error), (above, above_error) = _compensated_sums(block[..., :size], length)
    j, rest = _positions(size, length)
    # Σ over j > i: shift by one so that the point itself counts once, on the lower side.
    shift = [(0, 0)] * (block.ndim - 1) + [(0, 1)]
    above, above_error = (jnp.pad(s[..., 1:], shift) for s in (above, above_error))
    lower = (rest / float(length)).astype(block.dtype)
    upper = (j / float(length)).astype(block.dtype)
    v = (lower * below + upper * above) + (lower * below_error + upper * above_error)
    return jnp.pad(v, [(0, 0)] * (block.ndim - 1) + [(0, block.shape[-1] - size)])


def _compensated_moments(block: Array, length: Fraction) -> tuple[Array, Array]:
    (below, below_error), (above, above_error) = _compensated_sums(block, length)
    return below[..., -1] + below_error[..., -1], above[..., 0] + above_error[..., 0]


def _apply(d: Array, rho: Fraction, compensated: bool) -> Array:
    local, moments = (
        (_compensated, _compensated_moments) if compensated else (_plain, _plain_moments)
    )
    m = d.shape[0]
    if m <= DIRECT:
        return local(d, m, m + rho)
    blocks, left_over = divmod(m, BLOCK)
    last = left_over + rho  # the length of the interval behind the last node
    main, tail = d[: blocks * BLOCK].reshape(blocks, BLOCK), d[blocks * BLOCK :]

    # A block's own moments count from its left node; those of the block behind from its right node.
    below, above = moments(main, Fraction(BLOCK))
    beyond = (
        moments(tail, last)[1] * np.asarray(BLOCK / last, d.dtype)
        if left_over
        else jnp.zeros((), d.dtype)
    )
    node = _apply(below + jnp.append(above[1:], beyond), last / BLOCK, compensated)

    left = jnp.pad(node[:-1], (1, 0))
    fraction = (np.arange(1, BLOCK + 1) / BLOCK).astype(d.dtype)
    v = local(main, BLOCK - 1, Fraction(BLOCK))
    v = v + left[:, None] * (1 - fraction)[None] + node[:, None] * fraction[None]
    if not left_over:
        return v.reshape(-1)
    slope = (_positions(left_over, last)[1] / float(last)).astype(d.dtype)
    return jnp.concatenate([v.reshape(-1), local(tail, left_over, last) + slope * node[-1]])


def apply_green(d: Array, compensated: bool) -> Array:
    """tridiag(-1, 2, -1)⁻¹ d, without checks or derivative."""
    return _apply(d, Fraction(1), compensated)


def green(d, *, compensated: bool | None = None) -> Array:
    """Solve tridiag(-1, 2, -1) v = d by its Green's function: fast, and accurate at every size.

        v_i = Σ_j G_ij d_j,        G_ij = min(i, j) (m + 1 - max(i, j)) / (m + 1)

    All coefficients are positive. The error at each point is at most 70 to 250 units of roundoff
    of Σ_j G_ij |d_j| for any m below 10^7; in practice, two to five.

    Args:
      d: (m,) right-hand side at the interior points: h² f plus the boundary values at the ends.
        Batches by `jax.vmap`.
      compensated: sum in double-single arithmetic. None means: in float32, not in float64.

    Returns:
      Array of shape (m,).

    Raises:
      ValueError: `d` is not a finite floating vector.

    Reference:
      Not in the paper, which stops at its section III.B. The inverse of this matrix is classical.
      Departure: two prefix sums over the whole array, reorganised as exact substructuring (see the
      module's text), which is a matrix product and reads memory twice.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> poisson.green(jnp.array([1.0, 2.0, 3.0, 4.0, 6.0])).round(12)
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    d = check_vector("d", d)
    if compensated is None:
        compensated = d.dtype == jnp.float32
    return solve_poisson(apply_green, d, options=(bool(compensated),))
