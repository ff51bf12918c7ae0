"""One entry point for general tridiagonal systems: `tridiagonal_solve` chooses the method."""

from jax import Array, lax

from poisson.partitioning import layout, partition, solve_in_parts
from poisson.pivoting import dense_lu, eliminate_pivoted, lapack
from poisson.recurrences import thomas
from poisson.systems import LinearSolution, solve_system

METHODS = {"thomas": thomas, "partition": partition, "lapack": lapack, "dense_lu": dense_lu}
PARTITION_FROM = 1 << 13  # below, the two cost about the same, and LAPACK needs no condition


def _auto(a: Array, b: Array, c: Array, d: Array):
    m = b.shape[0]
    if m < PARTITION_FROM:
        return eliminate_pivoted(a, b, c, d)
    # Whether the matrix is dominant is known only after it has been read; so is then x.
    x, facts = solve_in_parts(a, b, c, d, *layout(m, None))
    return lax.cond(facts.dominant, lambda: (x, facts), lambda: eliminate_pivoted(a, b, c, d))


def tridiagonal_solve(a, b, c, d, *, method: str = "auto") -> LinearSolution:
    """Solve a general tridiagonal system by the method named, or by the best one for it.

        A x = d,        A = diag(b) + diag(a, -1) + diag(c, 1)

    Args:
      a: (m-1,) sub-diagonal.
      b: (m,) diagonal.
      c: (m-1,) super-diagonal.
      d: (m,) right-hand side. Batches by `jax.vmap`.
      method: "thomas", "partition" (no pivoting), "lapack", "dense_lu" (pivoting), or "auto":
        LAPACK's pivoting elimination below 8,192 unknowns; from there on `partition`, and
        LAPACK's if the matrix turns out not to be diagonally dominant (under `vmap` both are
        computed, so name a method there).

    Returns:
      `LinearSolution` with x of shape (m,) and a status; `Status(int(s.status)).message` says
      what to do.

    Raises:
      ValueError: an unknown method; a length, a dtype or a non-finite entry, by the argument's
        name.

    Reference:
      Rustad & Falmår (2020), equation (10).

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> one = jnp.ones(4)
      >>> d = jnp.array([1.0, 2, 3, 4, 6])
      >>> poisson.tridiagonal_solve(-one, 2 * jnp.ones(5), -one, d).x.round(12)
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    if method == "auto":
        return solve_system(_auto, a, b, c, d, pivoted=True)
    if method not in METHODS:
        raise ValueError(f"method: expected 'auto' or one of {sorted(METHODS)}, got {method!r}")
    return METHODS[method](a, b, c, d)
