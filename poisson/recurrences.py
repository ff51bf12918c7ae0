"""The paper's two elimination algorithms, one unknown after the other by `lax.scan`.

General (equations 13 to 15): forward

    α_i = c_i / (b_i - a_(i-1) α_(i-1)),   ρ_i = (d_i - a_(i-1) ρ_(i-1)) / (b_i - a_(i-1) α_(i-1)),

then backward x_i = ρ_i - α_i x_(i+1). The two divisions share their denominator: 8 operations an
unknown. Specialised (section III.B) for tridiag(-1, 2, -1), where α_i = -i/(i+1): with those
fractions stored, 4 operations an unknown.

A scan runs one step after the other; these are the methods to study, not the fast ones.
"""

import jax.numpy as jnp
from jax import Array, lax

from poisson.systems import LinearSolution, solve_poisson, solve_system, with_facts


def eliminate(below: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """α and ρ of all rows along axis 0; trailing axes are systems side by side."""

    def step(carry, row):
        alpha, rho = carry
        a, b, c, d = row
        pivot = b - a * alpha  # divided by, not inverted: the inverse could be flushed to zero
        carry = c / pivot, (d - a * rho) / pivot
        return carry, carry

    zero = jnp.zeros_like(b[0])
    return lax.scan(step, (zero, zero), (below, b, c, d))[1]


def substitute(alpha: Array, rho: Array, after: Array) -> Array:
    """x_i = ρ_i - α_i x_(i+1) backwards along axis 0, from the unknown `after` the last row."""

    def step(x, row):
        alpha, rho = row
        x = rho - alpha * x
        return x, x

    return lax.scan(step, after, (alpha, rho), reverse=True)[1]


@with_facts
def _thomas(a: Array, b: Array, c: Array, d: Array) -> Array:
    alpha, rho = eliminate(jnp.pad(a, (1, 0)), b, jnp.pad(c, (0, 1)), d)
    return substitute(alpha, rho, jnp.zeros((), b.dtype))


def thomas(a, b, c, d) -> LinearSolution:
    """Solve a general tridiagonal system by Gaussian elimination without pivoting (Thomas).

        A x = d,        A = diag(b) + diag(a, -1) + diag(c, 1)

    8 operations an unknown.

    It does not pivot: reliable for diagonally dominant, symmetric positive definite and M-matrices;
    for others `status` says NOT_DOMINANT or SINGULAR, and `lapack` or `dense_lu`, which pivot, are
    the methods to use.

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
      Rustad & Falmår (2020), equations (13) to (15). Departure: 8 m operations, not 11 m; every
      element is set, and c has m - 1 entries.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> one = jnp.ones(4)
      >>> poisson.thomas(-one, 2 * jnp.ones(5), -one, jnp.array([1.0, 2, 3, 4, 6])).x
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    return solve_system(_thomas, a, b, c, d, pivoted=False)


def _toeplitz(d: Array) -> Array:
    i = jnp.arange(1, d.shape[0] + 1, dtype=d.dtype)
    fraction = i / (i + 1)

    def forward(v, row):
        fraction, d = row
        v = fraction * (d + v)
        return v, v

    zero = jnp.zeros((), d.dtype)
    _, v = lax.scan(forward, zero, (fraction, d))

    def backward(x, row):
        fraction, v = row
        x = v + fraction * x
        return x, x

    return lax.scan(backward, zero, (fraction, v), reverse=True)[1]


def toeplitz(d) -> Array:
    """Solve tridiag(-1, 2, -1) v = d by the paper's specialised recurrence.

        v_i <- i/(i+1) (d_i + v_(i-1))        forward
        v_i <- v_i + i/(i+1) v_(i+1)          backward

    4 operations an unknown once the fractions are stored.

    Args:
      d: (m,) right-hand side at the interior points: h² f plus the boundary values at the ends.
        Batches by `jax.vmap`.

    Returns:
      Array of shape (m,).

    Raises:
      ValueError: `d` is not a finite floating vector.

    Reference:
      Rustad & Falmår (2020), section III.B. Departure: i/(i+1) is a floating division (copied
      literally, the listing divides integers), and v is set at every point.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> poisson.toeplitz(jnp.array([1.0, 2.0, 3.0, 4.0, 6.0])).round(12)
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    return solve_poisson(_toeplitz, d)
