"""Initialisation that keeps the variance of the signal, forwards and backwards.

Let A and F be independent, the entries of F of mean 0 and variance s², uncorrelated. Then H has
mean 0 and

    Var(H[a p + j, b q + k] | A) = s² Σ_i A[i, a, b]²,      Var(H) = n Var(A) s².

So with n Var(A) = 1 the layer's H has the variance of F, and F is drawn as the blocks of what
`kernel_init` would give the real layer of that shape: whatever initialiser is good for the real
layer, with its fan in and out, gives H the same variance.

That is an average over A: for normal A the variance of a block is s² χ²_n / n, which spreads by
√(2/n), and differs from block to block. `isometric` leaves nothing to chance. For given x and A,

    E_F ‖(x H)_b‖² = s² q Σ_i ‖Σ_a A[i, a, b] x_a‖²  =  s² q ‖x‖²        for every b and every x

if and only if the n × n matrices A[:, :, b] are orthogonal (i the row), and likewise the gradient
g Hᵀ has E ‖(g Hᵀ)_a‖² = s² p ‖g‖² if the A[:, a, :] are. The cyclic algebra has both: all of its
slices are permutations. Signs drawn for each entry and an orthogonal mixing of i keep that.

The released code draws A and F by torch's Xavier rule, which reads a tensor's first two axes as
channels and the others as taps: Var(A) = 1/n², and with T taps of the kernel

    Var(F) = 2 / (T in (1 + out/n²)),      Var(H) = 2 / (n T in (1 + out/n²)),

which is n (1 + out/n²) times smaller than He's 2 / (T in): 132 times for n = 4, 512 channels out.
Batch normalisation hides that; a network without it starts near zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from phydi.checking import check_positive_integer
from phydi.low_rank import Factors, cyclic_factors, cyclic_rank


def draw_blocks(key, kernel_init: Callable, n: int, shape: tuple[int, ...], dtype) -> Array:
    """F: (n, *taps, p, q), blocks of what `kernel_init` gives a real kernel of `shape`."""
    *taps, size_in, size_out = shape
    kernel = jnp.asarray(kernel_init(key, shape, dtype))
    parts = kernel.reshape(*taps, n, size_in // n, n, size_out // n)
    return jnp.moveaxis(parts[..., 0, :, :, :], -2, 0)


def isometric(key, shape, dtype=jnp.float32) -> Array:
    """Multiplication tensors that keep the variance exactly, whatever the input.

        A[i, a, b] = Σ_j Q[i, j] ± [j = b - a mod n],      Q orthogonal and uniformly distributed

    Args:
      key: a random key.
      shape: (n, n, n).
      dtype: of the result.

    Returns:
      (n, n, n) the tensor A.

    Raises:
      ValueError: a shape that is not (n, n, n).

    Reference:
      The module's derivation. Departure: the paper says nothing of the initial A.

    Examples:
      >>> import jax, jax.numpy as jnp, phydi
      >>> A = phydi.isometric(jax.random.key(0), (3, 3, 3))
      >>> bool(jnp.allclose(jnp.sum(A**2, axis=0), 1, atol=1e-5))
      True
    """
    n = shape[0]
    if tuple(shape) != (n, n, n):
        raise ValueError(f"shape: expected (n, n, n), got {tuple(shape)}")
    first, second = jax.random.split(key)
    j, a, b = jnp.indices(shape)
    signed = ((j + a - b) % n == 0) * jax.random.rademacher(first, shape, dtype)
    Q = jax.random.orthogonal(second, n, dtype=jnp.promote_types(dtype, jnp.float32))
    return jnp.einsum("ij,jab->iab", Q, signed).astype(dtype)


def isometric_factors(key, shape, dtype=jnp.float32) -> Array:
    """The same for factors of rank R: the cyclic algebra's, rotated and with signs.

        Σ_r u_r ⊗ v_r ⊗ w_r = A with orthogonal slices,      R >= 2n - ⌊n/2⌋ - 1

    Further terms start with w_r = 0, so that they are there to be learnt. A smaller R cannot do it:
    then the factors are normal, scaled so that the mean of the variances of all blocks is right.

    Args:
      key: a random key.
      shape: (3, R, n).
      dtype: of the result.

    Returns:
      (3, R, n) the factors u, v, w, stacked.

    Raises:
      ValueError: a shape that is not (3, R, n).

    Reference:
      The module's derivation; `cyclic_factors`.

    Examples:
      >>> import jax, jax.numpy as jnp, phydi
      >>> u, v, w = phydi.isometric_factors(jax.random.key(0), (3, 7, 4))
      >>> A = phydi.compose(u, v, w)
      >>> bool(jnp.allclose(jnp.sum(A**2, axis=0), 1, atol=1e-5))
      True
    """
    if len(shape) != 3 or shape[0] != 3:
        raise ValueError(f"shape: expected (3, R, n), got {tuple(shape)}")
    _, rank, n = shape
    work = jnp.promote_types(dtype, jnp.float32)
    keys = jax.random.split(key, 3)
    if rank < cyclic_rank(n):
        factors = jax.random.normal(keys[0], shape, work)
        A = jnp.einsum("ri,ra,rb->iab", *factors)
        factors = factors * (n / jnp.linalg.norm(A)) ** (1 / 3)
        return factors.astype(dtype)
    known = cyclic_factors(n)
    signs = jax.random.rademacher(keys[0], (2, n), work)
    u = known.u.astype(work) @ jax.random.orthogonal(keys[1], n, dtype=work)
    factors = Factors(u, known.v * signs[0], known.w * signs[1])
    # Equal norms of the three factors of a term, so that none learns faster than the others.
    norms = jnp.stack([jnp.linalg.norm(f, axis=1, keepdims=True) for f in factors])
    factors = jnp.stack(factors) / norms * jnp.prod(norms, axis=0) ** (1 / 3)
    more = jax.random.normal(keys[2], (3, rank - cyclic_rank(n), n), work) * n**-0.5
    return jnp.concatenate([factors, more.at[2].set(0)], axis=1).astype(dtype)


def gaussian(key, shape, dtype=jnp.float32) -> Array:
    """Normal multiplication tensors of variance 1/n: the variance is kept on the average.

        A[i, a, b] ~ N(0, 1/n)

    Args:
      key: a random key.
      shape: (n, n, n).
      dtype: of the result.

    Returns:
      (n, n, n) the tensor A.

    Raises:
      ValueError: nothing.

    Reference:
      The module's derivation.

    Examples:
      >>> import jax, phydi
      >>> phydi.gaussian(jax.random.key(0), (2, 2, 2)).shape
      (2, 2, 2)
    """
    return jax.random.normal(key, shape, dtype) * jnp.asarray(shape[0] ** -0.5, dtype)


def released_algebra(key, shape, dtype=jnp.float32) -> Array:
    """The released code's multiplication tensors: torch's Xavier rule.

        A[i, a, b] ~ U(-√3/n, √3/n),      Var(A) = 1/n²

    Args:
      key: a random key.
      shape: (n, n, n).
      dtype: of the result.

    Returns:
      (n, n, n) the tensor A.

    Raises:
      ValueError: nothing.

    Reference:
      The released layers; the module says what it makes of Var(H).

    Examples:
      >>> import jax, phydi
      >>> A = phydi.released_algebra(jax.random.key(0), (4, 4, 4))
      >>> bool(abs(A).max() <= 3**0.5 / 4)
      True
    """
    bound = 3**0.5 / shape[0]
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def released_kernel(n: int) -> Callable:
    """The released code's blocks F: torch's Xavier rule on a tensor of more than two axes.

        Var(F) = 2 / (T in (1 + out/n²))      for T taps

    Args:
      n: the number of components.

    Returns:
      An initialiser `(key, (*taps, in, out), dtype)`, for `kernel_init`.

    Raises:
      ValueError: n is not a positive integer.

    Reference:
      The released layers; the module says what it makes of Var(H).

    Examples:
      >>> import jax, phydi
      >>> bound = (6 / (9 * 64 * (1 + 64 / 16))) ** 0.5
      >>> F = phydi.released_kernel(4)(jax.random.key(0), (3, 3, 64, 64))
      >>> bool(0.99 * bound < abs(F).max() <= bound)
      True
    """
    n = check_positive_integer("n", n)

    def init(key, shape, dtype=jnp.float32):
        *taps, size_in, size_out = shape
        num_taps = 1
        for tap in taps:
            num_taps *= tap
        bound = (6 / (num_taps * size_in * (1 + size_out / n**2))) ** 0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
