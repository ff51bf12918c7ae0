"""Methods that pivot, from the libraries that XLA calls: safe for every non-singular matrix."""

import jax.numpy as jnp
from jax import Array, lax

from poisson.systems import LinearSolution, check_vector, solve_system, with_facts


@with_facts
def eliminate_pivoted(a: Array, b: Array, c: Array, d: Array) -> Array:
    """x by the tridiagonal solver that XLA calls."""
    return lax.linalg.tridiagonal_solve(jnp.pad(a, (1, 0)), b, jnp.pad(c, (0, 1)), d[:, None])[:, 0]


def lapack(a, b, c, d) -> LinearSolution:
    """Solve a general tridiagonal system by elimination with partial pivoting.

        A x = d,        A = diag(b) + diag(a, -1) + diag(c, 1)

    LAPACK's gtsv on CPU, cuSPARSE's gtsv2 on GPU. On TPU, XLA has no pivoting tridiagonal solver
    and runs Thomas's algorithm.

    Args:
      a: (m-1,) sub-diagonal.
      b: (m,) diagonal.
      c: (m-1,) super-diagonal.
      d: (m,) right-hand side. Batches by `jax.vmap`.

    Returns:
      `LinearSolution` with x of shape (m,) and a status.

    Raises:
      ValueError: a length, a dtype or a non-finite entry, by the argument's name.

    Reference:
      Anderson et al., LAPACK Users' Guide, xGTSV. The paper has no pivoting tridiagonal method.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> one = jnp.ones(2)
      >>> poisson.lapack(one, jnp.array([0.0, 1.0, 1.0]), one, jnp.array([1.0, 2.0, 3.0])).x
      Array([-1.,  1.,  2.], dtype=float64)
    """
    return solve_system(eliminate_pivoted, a, b, c, d, pivoted=True)


@with_facts
def _dense_lu(a: Array, b: Array, c: Array, d: Array) -> Array:
    matrix = jnp.diag(b) + jnp.diag(a, -1) + jnp.diag(c, 1)
    return jnp.linalg.solve(matrix, d)


def dense_lu_bytes(m: int, dtype=jnp.float64) -> int:
    """Memory that `dense_lu` needs: the matrix and its factors."""
    return 2 * m * m * jnp.dtype(dtype).itemsize


def dense_lu(a, b, c, d, *, max_bytes: int = 4 << 30) -> LinearSolution:
    """Solve a tridiagonal system as if it were dense, by LU with partial pivoting.

        P A = L U,        L y = P d,        U x = y

    (2/3) m³ operations and 2 m² numbers of memory. The paper's slow method, kept for comparison.

    Args:
      a: (m-1,) sub-diagonal.
      b: (m,) diagonal.
      c: (m-1,) super-diagonal.
      d: (m,) right-hand side. Batches by `jax.vmap`.
      max_bytes: refuse before allocating more than this; 4 GiB by default.

    Returns:
      `LinearSolution` with x of shape (m,) and a status.

    Raises:
      ValueError: a length, a dtype or a non-finite entry, by the argument's name; a matrix larger
        than `max_bytes`.

    Reference:
      Rustad & Falmår (2020), section III.C. Departure: the two triangular solves cost 2 m²
      operations together, not 4 m.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> one = jnp.ones(4)
      >>> poisson.dense_lu(-one, 2 * jnp.ones(5), -one, jnp.array([1.0, 2, 3, 4, 6])).x.round(12)
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    b = check_vector("b", b)
    needed = dense_lu_bytes(b.shape[0], b.dtype)
    if needed > max_bytes:
        raise ValueError(
            f"b: a dense matrix of {b.shape[0]} rows and its factors take "
            f"{needed / 2**30:.1f} GiB, more than max_bytes = {max_bytes / 2**30:.1f} GiB; "
            f"use lapack, thomas or partition"
        )
    return solve_system(_dense_lu, a, b, c, d, pivoted=True)
