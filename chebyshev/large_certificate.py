"""A proved radius for thousands of unknowns: floating-point arithmetic with its errors bounded.

For any α >= 0, S = α_0 A'A + diag(a) ⪰ λ I, any x̃ and r = Σ α_i (Q_i x̃ + g_i), every admissible x
has 0 >= Σ α_i f_i(x), so

    ‖x - x̃‖ <= (‖r‖ + sqrt(‖r‖² - λ Σ α_i f_i(x̃))) / λ.

Ball arithmetic would take too long for m² = 10^7 entries. Instead classical bounds are added up: a
product of inner length n, in any order of summation and with or without fused operations, is off
by at most γ_n |A'||A| with γ_n = n u / (1 - n u), and if a Cholesky factorisation of B in floating
point runs to its end, then λ_min(B) >= -γ_(m+1) / (1 - γ_(m+1)) tr B (Rump 2006). A is the matrix
whose columns `forward_fn` returns for unit vectors, each number exact.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from chebyshev.constructors import as_array, as_positive, check_order

UNIT = 2.0**-53
SLACK = 1 + 1e-10  # covers the rounding of the error bounds themselves, sums of positive numbers
COLUMNS = 256


def _gamma(n: int) -> float:
    return n * UNIT / (1 - n * UNIT)


def _dense(forward_fn, m: int, y: np.ndarray) -> np.ndarray:
    """The columns of A, some at a time."""
    image = jax.eval_shape(forward_fn, jnp.zeros(m))
    if image.dtype != jnp.float64:
        raise ValueError(f"forward_fn: expected float64 results, got {image.dtype}")
    if image.shape != y.shape:
        raise ValueError(f"forward_fn: expected to map ({m},) to {y.shape}, got {image.shape}")
    if np.asarray(forward_fn(jnp.zeros(m))).any():
        raise ValueError("forward_fn: expected a linear map, but it does not map 0 to 0")
    columns = jax.jit(lambda E: jax.vmap(forward_fn)(E))
    blocks = []
    for first in range(0, m, COLUMNS):
        unit = np.zeros((min(COLUMNS, m - first), m))
        unit[np.arange(len(unit)), first + np.arange(len(unit))] = 1
        blocks.append(np.asarray(columns(jnp.asarray(unit))))
    return np.ascontiguousarray(np.concatenate(blocks).T)


def _smallest_eigenvalue(S: np.ndarray) -> float:
    """An estimate, by inverse iteration; 0 if S is not positive definite."""
    try:
        factor = scipy.linalg.cho_factor(S, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return 0.0
    inverse = scipy.sparse.linalg.LinearOperator(
        S.shape, lambda v: scipy.linalg.cho_solve(factor, v, check_finite=False)
    )
    count = min(6, len(S) - 1)
    if count < 1:
        return float(S[0, 0])
    start = np.random.default_rng(0).normal(size=len(S))
    found = scipy.sparse.linalg.eigsh(
        inverse, k=count, v0=start, tol=1e-8, return_eigenvectors=False
    )
    return float(1 / found.max())


def proved_eigenvalue(gram: np.ndarray, error: float, a: np.ndarray) -> float:
    """λ > 0 with G + diag(a) ⪰ λ I for every symmetric G within `error` of `gram` in the 2-norm.

    0 if none could be proved.
    """
    m = len(a)
    diagonal = np.diagonal(gram) + a
    S = gram.copy()
    np.fill_diagonal(S, diagonal)
    estimate = _smallest_eigenvalue(S)
    trace = np.sum(np.abs(diagonal)) * SLACK
    rounding = 4 * UNIT * (np.max(np.abs(diagonal)) + estimate)
    error = (error + rounding + _gamma(m + 2) / (1 - 2 * _gamma(m + 2)) * trace) * SLACK
    for margin in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        shift = estimate * (1 - margin)
        np.copyto(S, gram)
        np.fill_diagonal(S, diagonal - shift)
        try:
            scipy.linalg.cholesky(S, lower=True, overwrite_a=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            continue
        return max((shift - error) * (1 - 4 * UNIT), 0.0)
    return 0.0


def certified_radius(forward_fn, y, rho, lo, hi, x, alpha) -> float:
    """A proved radius of a ball around x that holds every admissible parameter.

        ‖A x' - y‖² <= ρ and lo <= x' <= hi    imply    ‖x' - x‖ <= radius

    Runs on the host and holds three m × m matrices: 0.4 GB and some ten seconds for m = 4096.

    Args:
      forward_fn: x -> A x, linear; A is what it returns for unit vectors.
      y: (n,) observations.
      rho: bound of the squared norm of the noise.
      lo: (m,) lower bounds.
      hi: (m,) upper bounds.
      x: (m,) the estimate, from any method.
      alpha: (1 + m,) multipliers of the noise ball and the box, not negative, from any method:
        those of `rcc_matrix_free`, or of `rcc`.

    Returns:
      The radius; inf if none could be proved.

    Raises:
      ValueError: shapes that do not match; a map that is not linear or not in float64; NaN; a
        negative multiplier; `rho` not positive; lo >= hi.

    Reference:
      Rump, Verification of positive definiteness, BIT 46 (2006); Higham, Accuracy and Stability of
      Numerical Algorithms, 2nd ed., sections 3.5 and 10.1.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> ones = jnp.ones(8)
      >>> data = (lambda x: 2 * x, ones, 1.0, -ones, ones)
      >>> s = chebyshev.rcc_matrix_free(*data, rtol=1e-3)
      >>> round(chebyshev.certified_radius(*data, s.x, s.alpha), 2)
      0.5
    """
    lo = as_array("lo", lo, 1)
    hi = as_array("hi", hi, 1, lo.shape)
    check_order("lo", lo, hi)
    x = as_array("x", x, 1, lo.shape)
    alpha = as_array("alpha", alpha, 1, (1 + lo.shape[0],))
    y, rho = np.asarray(as_array("y", y, 1)), float(as_positive("rho", rho))
    lo, hi, x, alpha = (np.asarray(v) for v in (lo, hi, x, alpha))
    if (alpha < 0).any():
        i = int(np.argmin(alpha))
        raise ValueError(f"alpha: expected no negative multiplier, got {alpha[i]} at index {i}")
    alpha0, a = float(alpha[0]), alpha[1:]
    A = _dense(forward_fn, len(x), y)
    n, m = A.shape
    gram = A.T @ A
    gram *= alpha0
    size = np.abs(A)
    # The 2-norm of a symmetric matrix is at most its largest absolute row sum.
    rows = alpha0 * np.max(size.T @ np.sum(size, axis=1)) * SLACK
    eigenvalue = proved_eigenvalue(gram, _gamma(n + 2) * rows, a)
    if not eigenvalue > 0:
        return float("inf")
    miss = A @ x - y
    miss_error = _gamma(m + 2) * (size @ np.abs(x) + np.abs(y)) * SLACK
    squares = np.sum(np.maximum(np.abs(miss) - miss_error, 0) ** 2)
    misfit = squares * (1 - _gamma(n + 6))
    inside = a * (x - lo) * (hi - x)
    # -Σ α_i f_i(x̃), from above.
    positive = alpha0 * rho + np.sum(np.maximum(inside, 0))
    negative = alpha0 * misfit - np.sum(np.minimum(inside, 0))
    rounding = _gamma(m + 8) * (positive + negative)
    value = positive - negative + rounding * SLACK
    r = alpha0 * (A.T @ miss) + a * (x - (lo + hi) / 2)
    r_error = alpha0 * (size.T @ (miss_error + _gamma(n + 3) * np.abs(miss)))
    r_error += _gamma(6) * (np.abs(r) + a * (np.abs(x) + np.abs(lo) + np.abs(hi)))
    norm = np.linalg.norm(np.abs(r) + r_error * SLACK) * SLACK
    under = max(norm**2 * SLACK + eigenvalue * max(value, 0.0) * (1 + 4 * UNIT), 0.0)
    return float((norm + np.sqrt(under)) / eigenvalue * (1 + 16 * UNIT))
