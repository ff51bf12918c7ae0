"""Sums of Kronecker products, and the algebras that are behind them.

A hypercomplex layer of n components multiplies by (1), here oriented as flax's kernels are, which
map rows x of `in` numbers to rows x H of `out` numbers:

    H = Σ_i A_i ⊗ F_i,      A: (n, n, n),      F: (n, in/n, out/n),

    (x H)_b = Σ_i Σ_a A[i, a, b] x_a F_i       for the n parts x_a of x and (x H)_b of x H.

Read A as the structure constants of an algebra, e_i e_a = Σ_b A[i, a, b] e_b, and x H is the
product of the hypercomplex weight Σ_i F_i e_i with x = Σ_a x_a e_a, the weight on the left. With
the quaternions' A that is the Hamilton product; a layer that learns A learns its algebra. The
paper's H acts on columns: it is the transpose, of A_iᵀ and F_iᵀ.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from phydi.checking import as_floating, as_tensor, check_option, check_positive_integer

ALGEBRAS = ("cayley-dickson", "split", "dual", "cyclic")


def check_pair(A, F) -> tuple[Array, Array]:
    """A and F of one n, or a ValueError."""
    A, F = as_tensor("A", A), as_floating("F", F)
    if F.ndim < 3 or F.shape[0] != A.shape[0]:
        raise ValueError(
            f"F: expected shape (n, *taps, in/n, out/n) with n = {A.shape[0]} as in A, "
            f"got {F.shape}"
        )
    return A, F


def kronecker_sum(A, F) -> Array:
    """The sum of Kronecker products of n small matrices with n blocks or convolution kernels.

        H[..., a p + j, b q + k] = Σ_i A[i, a, b] F[i, ..., j, k]

    The Kronecker product is over the two axes of channels, the last ones, at each tap of a kernel.

    Args:
      A: (n, n, n) the matrices A_i.
      F: (n, *taps, p, q) the blocks F_i; `taps` is empty for a matrix, (3, 3) for a 3 × 3 kernel.

    Returns:
      (*taps, n p, n q), a kernel as flax lays it out.

    Raises:
      ValueError: shapes that do not fit.

    Reference:
      (1). Departure: for convolutions the released WKP layer reshapes the Kronecker product of a
      matrix with a four-axis array, which mixes channels with taps and is no Kronecker product.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> A, F = jnp.eye(2)[None].repeat(2, 0), jnp.arange(4.0).reshape(2, 1, 2)
      >>> phydi.kronecker_sum(A, F)
      Array([[2., 4., 0., 0.],
             [0., 0., 2., 4.]], dtype=...)
    """
    A, F = check_pair(A, F)
    n, taps, (p, q) = A.shape[0], F.shape[1:-2], F.shape[-2:]
    # Every block A[:, a, b] F as a row of its own, for what is moved then are whole rows of blocks.
    blocks = jnp.matmul(A.reshape(n, n * n).T, F.reshape(n, -1)).reshape(n, n, -1, p, q)
    return blocks.transpose(2, 0, 3, 1, 4).reshape(*taps, n * p, n * q)


def _doubled(table: np.ndarray, conjugate: np.ndarray, square: int) -> np.ndarray:
    """Cayley–Dickson: (a, b)(c, d) = (ac + square d*b, da + bc*)."""
    m = table.shape[0]
    found = np.zeros((2 * m, 2 * m, 2 * m))
    found[:m, :m, :m] = table
    found[m:, m:, :m] = square * np.einsum("jik,j->ijk", table, conjugate)
    found[:m, m:, m:] = np.einsum("jik->ijk", table)
    found[m:, :m, m:] = np.einsum("ijk,j->ijk", table, conjugate)
    return found


def _cayley_dickson(n: int, last: int = -1) -> np.ndarray:
    table, conjugate = np.ones((1, 1, 1)), np.ones(1)
    while table.shape[0] < n:
        square = last if 2 * table.shape[0] == n else -1
        table = _doubled(table, conjugate, square)
        conjugate = np.concatenate([conjugate, -np.ones_like(conjugate)])
    return table


def multiplication_tensor(n: int, *, algebra: str = "cayley-dickson") -> Array:
    """The structure constants of a known algebra of n dimensions.

        e_i e_a = Σ_b A[i, a, b] e_b

    `cayley-dickson`: real, complex, quaternion, octonion, sedenion … for n = 1, 2, 4, 8, 16 …;
    `split`: the same with +1 as the square of the unit doubled last (split-complex,
    split-quaternion …); `dual`: dual numbers over the algebra of n/2 dimensions (dual numbers, dual
    complex, dual quaternion for n = 2, 4, 8); `cyclic`: of any n, the group algebra of the cyclic
    group, whose product is the circular convolution.

    Args:
      n: the dimension.
      algebra: `cayley-dickson`, `split`, `dual` or `cyclic`.

    Returns:
      (n, n, n) of -1, 0 and 1.

    Raises:
      ValueError: an unknown algebra, or an n that it does not have.

    Reference:
      Section 2; Baez, The octonions, Bull. Amer. Math. Soc. 39 (2002), section 2.2.

    Examples:
      >>> import phydi
      >>> A = phydi.multiplication_tensor(4)
      >>> A[1, 2]  # i j = k
      Array([0., 0., 0., 1.], dtype=...)
    """
    n = check_positive_integer("n", n)
    check_option("algebra", algebra, ALGEBRAS)
    if algebra == "cyclic":
        i, a, b = np.indices((n, n, n))
        return jnp.asarray((i + a - b) % n == 0, float)
    least = 1 if algebra == "cayley-dickson" else 2
    if n & (n - 1) or n < least:
        raise ValueError(
            f"n: expected a power of two of at least {least} for algebra={algebra!r}, got {n}; "
            f"algebra='cyclic' has any n"
        )
    if algebra == "dual":
        half = _cayley_dickson(n // 2)
        dual = np.zeros((2, 2, 2))
        dual[0, 0, 0] = dual[0, 1, 1] = dual[1, 0, 1] = 1
        return jnp.asarray(np.einsum("iab,jcd->ijacbd", dual, half).reshape(n, n, n))
    return jnp.asarray(_cayley_dickson(n, 1 if algebra == "split" else -1))


def hypercomplex_product(A, x, y) -> Array:
    """The product of two hypercomplex numbers, by the structure constants of their algebra.

        (x y)_b = Σ_i Σ_a A[i, a, b] x_i y_a

    Args:
      A: (n, n, n) the structure constants.
      x: (..., n) left factors.
      y: (..., n) right factors; the leading axes broadcast.

    Returns:
      (..., n) the products.

    Raises:
      ValueError: a last axis that is not n.

    Reference:
      Section 2: with `multiplication_tensor(4)` this is the Hamilton product.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> A = phydi.multiplication_tensor(2)
      >>> z = phydi.hypercomplex_product(A, jnp.array([1.0, 2]), jnp.array([3.0, 4]))
      >>> complex(*z.tolist()) == (1 + 2j) * (3 + 4j)
      True
    """
    A, x, y = as_tensor("A", A), as_floating("x", x), as_floating("y", y)
    for name, value in (("x", x), ("y", y)):
        if value.ndim < 1 or value.shape[-1] != A.shape[0]:
            raise ValueError(
                f"{name}: expected a last axis of n = {A.shape[0]}, got shape {value.shape}"
            )
    return jnp.einsum("iab,...i,...a->...b", A, x, y)
