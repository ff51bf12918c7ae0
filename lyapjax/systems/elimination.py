"""`solve`: a mass matrix on the left of the equations, as scalars that every checker reads.

Matrix factorisations are not among the primitives that have an enclosure; products and quotients
are. Written out, an inverse is enclosed far too widely by arithmetics that see one operation at a
time, so the call keeps its name: a checker may read it whole instead, as secants do, for which
M a = b is a linear system with coefficients that vary (see `lyapjax.readers.secants`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

WHOLE = "lyapjax_systems_solve"  # the name of the call in a jaxpr


def eliminate(M: Sequence[Sequence], b: Sequence) -> list:
    """x of M x = b, M symmetric positive definite, by L D L' on scalars of any kind."""
    n = len(b)
    L: list[list] = [[None] * n for _ in range(n)]
    D: list = []
    for i in range(n):
        for j in range(i):
            rest = sum((L[i][k] * L[j][k] * D[k] for k in range(j)), 0.0)
            L[i][j] = (M[i][j] - rest) / D[j]
        D.append(M[i][i] - sum((L[i][k] * L[i][k] * D[k] for k in range(i)), 0.0))
    y: list = []
    for i in range(n):
        y.append(b[i] - sum((L[i][k] * y[k] for k in range(i)), 0.0))
    x: list = [None] * n
    for i in reversed(range(n)):
        x[i] = y[i] / D[i] - sum((L[k][i] * x[k] for k in range(i + 1, n)), 0.0)
    return x


def _whole(M: Array, b: Array) -> Array:
    n = len(b)
    rows = [[M[i, j] for j in range(n)] for i in range(n)]
    return jnp.stack(eliminate(rows, [b[i] for i in range(n)]))


_whole.__name__ = WHOLE
_compiled = jax.jit(_whole)


def solve(M: Array, b: Array) -> Array:
    """The accelerations of a mechanical system, for use in the f of a `System`.

        M a = b

    Args:
      M: (n, n) symmetric positive definite wherever the system is defined.
      b: (n,).

    Returns:
      (n,) a, by L D L' written out in scalars.

    Raises:
      ValueError: shapes that do not fit.

    Reference:
      Golub & Van Loan, Matrix Computations, section 4.1.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> ly.systems.solve(jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([3.0, 0.0])).tolist()
      [2.0, -1.0]
    """
    if jnp.ndim(b) != 1 or jnp.shape(M) != (len(b), len(b)):
        raise ValueError(
            f"M: expected shape (n, n) for b of shape (n,), got {jnp.shape(M)} and {jnp.shape(b)}"
        )
    return _compiled(M, b)
