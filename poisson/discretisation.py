"""The 1-D Poisson equation on a uniform grid: points, right-hand sides, closed solutions.

The problem is `-u'' = f` on (0, 1) with `u(0) = left`, `u(1) = right`. The grid has n points
`x_i = i/N`, i = 0 … N, with N = n - 1 intervals of length `h = 1/N`. Because

    -u(x_(i-1)) + 2 u(x_i) - u(x_(i+1)) = ∫_(-h)^(h) (h - |t|) f(x_i + t) dt

holds exactly, every scheme here has the same matrix A = tridiag(-1, 2, -1) on the left and differs
only in the quadrature rule on the right:

    order 2:  h² f_i                                                  (the paper's scheme)
    order 4:  h² (1 + δ²/12) f_i = h² (f_(i-1) + 10 f_i + f_(i+1))/12  (Numerov, compact)
    order 6:  h² (1 + δ²/12 - δ⁴/240) f_i                              (five points)

where δ² is the second central difference. Next to the boundary order 6 takes δ⁴ f_1 from the linear
extrapolation 2 δ⁴f_2 - δ⁴f_3, which leaves the order of the error as it is.

Each rule has integer weights over a common denominator (1, 12, 240), which `weighted_source` uses,
so that the certificate can evaluate residuals without dividing first.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

DENOMINATOR = {2: 1, 4: 12, 6: 240}
MIN_POINTS = {2: 3, 4: 3, 6: 8}
# |error of the rule| <= h² · QUADRATURE_ERROR[order] · h^order · max|f^(order)|: L1 norms of the
# Peano kernels under the hat weight, which keep their sign at inner points.
QUADRATURE_ERROR = {2: 1 / 12, 4: 1 / 240, 6: 31 / 60480}
# The same constant at the two rows beside the boundary, where order 6 extrapolates: see the tests,
# which recompute both from the Peano kernels.
QUADRATURE_ERROR_EDGE = {2: 1 / 12, 4: 1 / 240, 6: 0.003655}


def check_num_points(n: int, minimum: int = 3) -> int:
    """`n` itself, if it is an integer that a grid can have."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise ValueError(f"n: expected an integer number of grid points, got {n!r}")
    if n < minimum:
        raise ValueError(f"n: expected at least {minimum} grid points, boundary included, got {n}")
    return int(n)


def _to_dtype(values: np.ndarray, dtype) -> jax.Array:
    # Evaluated in float64 on the host whatever the JAX configuration, then rounded once.
    return jnp.asarray(values, dtype=dtype or jax.dtypes.canonicalize_dtype(np.float64))


def grid(n: int, *, dtype=None) -> jax.Array:
    """The n grid points of [0, 1], boundary included.

        x_i = i / (n - 1),        each rounded once

    Args:
      n: number of points, at least 3.
      dtype: floating type of the result; the default is JAX's default float.

    Returns:
      Array of shape (n,).

    Raises:
      ValueError: `n` is not an integer of at least 3.

    Reference:
      Rustad & Falmår (2020), section II.A. Departure: h = 1/(n-1) throughout; the paper's text has
      n = 10^i, its runs n = 10^i + 1.

    Examples:
      >>> import poisson
      >>> poisson.grid(5)
      Array([0.  , 0.25, 0.5 , 0.75, 1.  ], dtype=float64)
    """
    n = check_num_points(n)
    return _to_dtype(np.arange(n) / (n - 1), dtype)


def source(n: int, *, dtype=None) -> jax.Array:
    """The paper's right-hand side on the grid.

        f(x_i) = 100 exp(-10 x_i)

    Args:
      n: number of points, at least 3.
      dtype: floating type of the result; the default is JAX's default float.

    Returns:
      Array of shape (n,), boundary points included.

    Raises:
      ValueError: `n` is not an integer of at least 3.

    Reference:
      Rustad & Falmår (2020), equation (1).

    Examples:
      >>> import poisson
      >>> float(poisson.source(5)[0])
      100.0
    """
    n = check_num_points(n)
    return _to_dtype(100 * np.exp(-10 * (np.arange(n) / (n - 1))), dtype)


def _exact(n: int) -> np.ndarray:
    N = n - 1
    i = np.arange(n)
    x, y = i / N, (N - i) / N
    left = -np.expm1(-10 * x) + x * math.expm1(-10)
    right = -y * math.expm1(-10) - math.exp(-10) * np.expm1(10 * y)
    return np.where(2 * i > N, right, left)


def exact_solution(n: int, *, dtype=None) -> jax.Array:
    """The solution of -u'' = 100 exp(-10 x), u(0) = u(1) = 0, on the grid, to full precision.

        u(x) = 1 - (1 - e^-10) x - e^(-10 x)

    Args:
      n: number of points, at least 3.
      dtype: floating type of the result; the default is JAX's default float.

    Returns:
      Array of shape (n,); a relative error of a few units in the last place at every point.

    Raises:
      ValueError: `n` is not an integer of at least 3.

    Reference:
      Rustad & Falmår (2020), equation (2). Departure: that form cancels near x = 1, so for x > 1/2
      this is y (1 - e^-10) - e^-10 expm1(10 y) with y = (N - i)/N, and below -expm1(-10 x) +
      x expm1(-10).

    Examples:
      >>> import poisson
      >>> float(poisson.exact_solution(3)[1])
      0.49328475...
    """
    n = check_num_points(n)
    return _to_dtype(_exact(n), dtype)


def discrete_solution(n: int, *, order: int = 2, dtype=None) -> jax.Array:
    """The exact solution v of the *discrete* equations for the paper's right-hand side.

        v_i = C u(x_i),        C = (5 h / sinh 5 h)²

    for order 2, and (10 + 2 cosh 10 h)/12 times that for order 4: u consists of 1, x and e^(-10 x),
    on which both sides of the scheme act as multiplications. The relative discretisation error is
    C - 1 at every point; comparing a computed v with this array isolates rounding.

    Args:
      n: number of points, at least 3.
      order: 2 or 4 (order 6 changes its rule next to the boundary and has no such closed form).
      dtype: floating type of the result; the default is JAX's default float.

    Returns:
      Array of shape (n,).

    Raises:
      ValueError: `n` or `order` is not one of the above.

    Reference:
      Not in the paper, which compares with u only.

    Examples:
      >>> import numpy as np, poisson
      >>> v, u = poisson.discrete_solution(11), poisson.exact_solution(11)
      >>> round(float(poisson.relative_error(v, u)), 4)
      -1.1006
    """
    n = check_num_points(n)
    if order not in (2, 4):
        raise ValueError(f"order: expected 2 or 4, got {order!r}")
    z = 5 / (n - 1)
    factor = (z / math.sinh(z)) ** 2
    if order == 4:
        factor *= (10 + 2 * math.cosh(2 * z)) / 12
    return _to_dtype(factor * _exact(n), dtype)


def relative_error(v: jax.Array, u: jax.Array) -> jax.Array:
    """The paper's error measure ε: the largest relative error at an interior point, as a log10.

        ε = max_(0 < i < n-1) log10 |(v_i - u_i) / u_i|

    Args:
      v: computed values on the grid, shape (n,).
      u: reference values on the grid, shape (n,), not zero inside.

    Returns:
      Scalar; -inf if the two agree to the last bit.

    Raises:
      ValueError: `v` and `u` are not one-dimensional of one length n >= 3.

    Reference:
      Rustad & Falmår (2020), equation (9). Departure: the boundary points, where u = 0, are left
      out by definition.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> float(poisson.relative_error(jnp.array([0.0, 1.5, 0.0]), jnp.array([0.0, 1.0, 0.0])))
      -0.3010299956639812
    """
    v, u = jnp.asarray(v), jnp.asarray(u)
    if v.ndim != 1 or v.shape != u.shape or v.shape[0] < 3:
        raise ValueError(
            f"v, u: expected two arrays of one shape (n,) with n >= 3, got {v.shape}, {u.shape}"
        )
    v, u = v[1:-1], u[1:-1]
    return jnp.log10(jnp.max(jnp.abs((v - u) / u)))


def weighted_source(f, order: int, concatenate=jnp.concatenate):
    """DENOMINATOR[order] times the rule of `order` over h², inside: (n,) -> (n-2,)."""
    inner = f[1:-1]
    if order == 2:
        return inner
    if order == 4:
        return 10 * inner + (f[:-2] + f[2:])
    second = f[:-2] - 2 * inner + f[2:]
    fourth = second[:-2] - 2 * second[1:-1] + second[2:]
    fourth = concatenate([2 * fourth[:1] - fourth[1:2], fourth, 2 * fourth[-1:] - fourth[-2:-1]])
    return 240 * inner + (20 * second - fourth)


def right_hand_side(f: jax.Array, left, right, order: int) -> jax.Array:
    """d of the interior system A v = d: the rule of `order`, plus the boundary values."""
    N = f.shape[0] - 1
    scale = np.asarray(1.0 / (DENOMINATOR[order] * N * N), f.dtype)
    d = weighted_source(f, order) * scale
    return d.at[0].add(left).at[-1].add(right)


def discretisation_bound(n: int, order: int, derivative_bound) -> jax.Array:
    """max |u - v*| <= (1/8) C h^order max|f^(order)|, plus the two rows beside the boundary.

    ‖(A/h²)⁻¹‖∞ = 1/8 carries the inner rows; a row beside the boundary carries at most h² per unit.
    """
    h = 1.0 / (n - 1)
    inner = QUADRATURE_ERROR[order] / 8
    edge = 2 * h * h * (QUADRATURE_ERROR_EDGE[order] - QUADRATURE_ERROR[order])
    # Half the powers at a time: in float32 h^6 alone would underflow.
    half = h ** (order // 2)
    return derivative_bound * ((inner + edge) * (1 + 1e-6) * half) * half
