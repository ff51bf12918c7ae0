"""A rigorous bound on the error of a computed solution, from its residual.

Let v* be the exact solution of the discrete equations for the given floating-point numbers f, left
and right, and v any array with the right boundary values. With r = f - (A v)/h² (in the units of
f), v* - v = (A/h²)⁻¹ r exactly. The obvious bound ‖(A/h²)⁻¹‖∞ max|r| = max|r|/8 is useless for fine
grids: rounding v once already puts u N² max|v| into r, so the bound would grow like N² where the
error does not. What makes it sharp is that r is known far better than it is small:

1. r is computed with its own rounding bounded. Differences of neighbours and their sum are taken as
   error-free transformations, and N² times them as products of short pieces that are exact, so that
   only the last subtractions round. Each of those is bounded by u times its own result (a running
   error analysis): |computed r - r| <= μ.
2. w = (A/h²)⁻¹ r is then applied by the Green's function, whose error is at most K u (A/h²)⁻¹|r|
   (`substructuring.error_constant`).
3. The matrix is an M-matrix with (A/h²)⁻¹ 1 = x(1 - x)/2, so every sum with absolute values is
   bounded by its largest term times x(1 - x)/2, and that by 1/8.

Together, at every point,

    |v_i - v*_i| <= |w_i| + (K' u max|r| + max μ) x_i (1 - x_i)/2,

where the second part is of second order in u: about N² u² K'. In float64 it stays below the first
up to N of about 10^7; beyond that the bound holds but is no longer sharp.

The residual shares nothing with the solvers but f: they sum, it differences. Nothing here relies on
a product *not* being fused into an addition, which XLA does as it likes: f and u are materialised
first, and products are exact.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from poisson.discretisation import (
    DENOMINATOR,
    MIN_POINTS,
    discretisation_bound,
    weighted_source,
)
from poisson.materialising import materialise
from poisson.substructuring import apply_green, error_constant, two_sum
from poisson.systems import check_scalar, check_vector

# Roundings of `weighted_source` on the longest path, times the sum of its weights' magnitudes.
RULE_ROUNDING = {2: 0, 4: 4 * 12, 6: 10 * 368}


class Certificate(NamedTuple):
    """What is proved about a computed solution.

        |u_i - v*_i| <= algebraic_i,        max |v*_i - u(x_i)| <= discretisation

    with v* the exact solution of the discrete equations, and u(x) that of the differential equation
    for an f that takes exactly the given values at the grid points.

    Attributes:
      algebraic: (n,) bound at each point, in the units of u; inf where nothing is proved.
      discretisation: () bound for all points, inf if no bound on a derivative was given.
      residual: () max |f - A u/h²| as computed, in the units of f.

    Examples:
      >>> import poisson
      >>> c = poisson.solve(poisson.source(101), derivative_bound=1e4).certificate
      >>> bool(c.algebraic.max() < 1e-15), float(c.discretisation)
      (True, 0.01041...)
    """

    algebraic: Array
    discretisation: Array
    residual: Array


def _split(x: Array) -> tuple[Array, Array]:
    """x as the exact sum of a head and a tail, each with half the significand, by masking bits."""
    integer, low = (jnp.uint64, 26) if x.dtype == jnp.float64 else (jnp.uint32, 12)
    bits = lax.bitcast_convert_type(x, integer)
    keep = ~((1 << low) - 1) & int(jnp.iinfo(integer).max)
    head = lax.bitcast_convert_type(bits & jnp.asarray(keep, integer), x.dtype)
    return head, x - head


def _pieces(number: int, bits: int) -> list[int]:
    """`number` as a sum of integers of at most `bits` significant bits, largest first."""
    pieces = []
    while number:
        shift = max(number.bit_length() - bits, 0)
        pieces.append((number >> shift) << shift)
        number -= pieces[-1]
    return pieces


def _residual(f: Array, u: Array, order: int, tiny: float) -> tuple[Array, Array]:
    """r at the interior points and a bound μ on its own rounding, both (n-2,).

    Any number below `tiny` may be flushed to zero, an input too.
    """
    N = f.shape[0] - 1
    unit = float(jnp.finfo(u.dtype).eps) / 2
    below, below_error = two_sum(u[1:-1], -u[:-2])
    above, above_error = two_sum(u[1:-1], -u[2:])
    difference, error = two_sum(below, above)
    minor = (below_error + above_error) + error  # difference + minor = 2 u_i - u_(i-1) - u_(i+1)
    minor_bound = jnp.abs(below_error) + jnp.abs(above_error) + jnp.abs(error)

    scale = DENOMINATOR[order] * N * N
    head, tail = _split(difference)
    rest = weighted_source(f, order)
    rounding = jnp.zeros_like(rest)
    for piece in _pieces(scale, 26 if u.dtype == jnp.float64 else 12):
        for part in (head, tail):
            # The product is exact, so fusing it into the subtraction changes nothing.
            rest = rest - part * np.asarray(piece, u.dtype)
            rounding = rounding + jnp.abs(rest)
    rest = rest - minor * float(scale)
    rounding = unit * (rounding + jnp.abs(rest)) + 8 * unit * float(scale) * minor_bound
    rounding = rounding + RULE_ROUNDING[order] * unit * jnp.max(jnp.abs(f))
    rounding = 1.001 * rounding + 1000 * tiny * float(scale)
    weight = 1 / DENOMINATOR[order]
    return rest * weight, rounding * weight * (1 + 4 * unit) + 4 * unit * weight * jnp.abs(rest)


@partial(jax.jit, static_argnames=("order", "tiny"))
def _certify(f, u, ends, derivative_bound, order: int, tiny: float) -> Certificate:
    n = f.shape[0]
    N = n - 1
    f, u, ends = materialise(f), materialise(u), materialise(ends)
    unit = float(jnp.finfo(u.dtype).eps) / 2
    r, rounding = _residual(f, u, order, tiny)
    largest = jnp.max(jnp.abs(r))
    w = apply_green(r / float(N * N), compensated=False)
    K = (error_constant(n - 2) + 8) * unit
    i = jnp.arange(1, N, dtype=u.dtype)
    # N - i as the reverse of i: in float32 beyond 2^24 a difference could be zero.
    profile = (i / N) * (i[::-1] / N) / 2 * (1 + 8 * unit)
    second_order = K / (1 - K) * largest + jnp.max(rounding)
    algebraic = 1.001 * (jnp.abs(w) + second_order * profile)
    difference = jnp.abs(jnp.stack([u[0], u[-1]]) - ends)
    # Subtraction of equal numbers is exact, so right boundary values have no error at all.
    flushed = jnp.where(jnp.abs(ends) < tiny, tiny, 0)
    ends = jnp.where(difference > 0, difference * (1 + 4 * unit) + tiny, flushed)
    # A wrong boundary value is an error of the boundary, and at most as much inside.
    algebraic = (algebraic + jnp.max(ends)) * (1 + 4 * unit) + 4 * tiny
    algebraic = jnp.concatenate([ends[:1], algebraic, ends[1:]])
    algebraic = jnp.where(jnp.isfinite(algebraic), algebraic, jnp.inf)
    if derivative_bound is None:
        return Certificate(algebraic, jnp.asarray(jnp.inf, u.dtype), largest)
    discretisation = discretisation_bound(n, order, derivative_bound.astype(u.dtype)) + tiny
    discretisation = jnp.where(jnp.isnan(discretisation), jnp.inf, discretisation)
    return Certificate(algebraic, discretisation, largest)


def certify(f, u, *, left=0.0, right=0.0, order: int = 2, derivative_bound=None) -> Certificate:
    """Bound the error of a computed solution of -u'' = f, whatever computed it.

        |u_i - v*_i| <= |(A/h²)⁻¹ r|_i + (γ max|r| + max μ) x_i (1 - x_i)/2
        max |v*_i - u(x_i)| <= C h^order max|f^(order)| / 8        (h² max|f''| / 96 for order 2)

    with r the residual, μ the bound on its rounding and γ the relative error of applying the
    Green's function, about 3e-14.

    In float64 (whenever JAX has it switched on, also for float32 input, which is exact in float64)
    the first bound is within a few per cent of the true error up to a million points. In float32
    alone it holds, but is sharp to about a thousand points only: switch on x64 for more.

    Args:
      f: (n,) right-hand side at the grid points, boundary included, as given to `solve`.
      u: (n,) computed solution.
      left: value of the solution at x = 0.
      right: value of the solution at x = 1.
      order: 2, 4 or 6: the scheme that u solves.
      derivative_bound: an upper bound of max |f''| (order 2), |f''''| (order 4) or the sixth
        derivative (order 6) over [0, 1]; without one the second bound is inf.

    Returns:
      `Certificate`, without derivatives. NaN or infinity in u gives inf, never a bound.

    Raises:
      ValueError: a shape, dtype, order or non-finite f, by the argument's name.

    Reference:
      Not in the paper. The matrix's inverse and the error-free transformations: Higham, Accuracy
      and Stability of Numerical Algorithms, chapters 4 and 9.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> u = jnp.array([0.0, 0.25, 0.0])
      >>> c = poisson.certify(jnp.full(3, 2.0), u)
      >>> float(c.residual), bool(c.algebraic[1] < 1e-30)
      (0.0, True)
    """
    order = check_order(order)
    for name, value in (("f", f), ("u", u)):
        if getattr(value, "dtype", None) == np.float64 and not jax.config.jax_enable_x64:
            raise ValueError(
                f"{name}: float64 values would be rounded before they are certified; switch x64 on "
                'before JAX is used: jax.config.update("jax_enable_x64", True)'
            )
    f = check_vector("f", f, MIN_POINTS[order])
    u = jnp.asarray(u)
    if u.shape != f.shape or not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(f"u: expected floating values of shape {f.shape}, got {u.dtype}{u.shape}")
    ends = jnp.stack([check_scalar("left", left), check_scalar("right", right)])
    if derivative_bound is not None:
        derivative_bound = check_scalar("derivative_bound", derivative_bound, minimum=0)
    dtype = jnp.result_type(float)
    tiny = max(float(jnp.finfo(v.dtype).tiny) for v in (f, u))
    values = lax.stop_gradient((f.astype(dtype), u.astype(dtype), ends, derivative_bound))
    return _certify(*values, order=order, tiny=tiny)


def check_order(order: int) -> int:
    """`order`, if it is one of the schemes."""
    if not isinstance(order, (int, np.integer)) or order not in DENOMINATOR:
        raise ValueError(f"order: expected one of {tuple(DENOMINATOR)}, got {order!r}")
    return int(order)
