"""Test problems from the literature: discrete ill-posed problems and a blurred image.

The formulas are those of Hansen, Regularization Tools (Numerical Algorithms 6, 1994), where each is
traced to its source. All return NumPy arrays, so that they are the same in every configuration.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg


class TestProblem(NamedTuple):
    """A linear model with a known parameter.

        b = A x

    Attributes:
      A: (n, m) model matrix, or the map x -> A x.
      b: (n,) observations without noise.
      x: (m,) true parameter.

    Examples:
      >>> import chebyshev
      >>> chebyshev.problems.heat(90).A.shape
      (90, 90)
    """

    A: np.ndarray | Callable
    b: np.ndarray
    x: np.ndarray


def _size(name: str, n: int, multiple: int = 1) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 or n % multiple:
        what = "a positive integer" + (f", a multiple of {multiple}" if multiple > 1 else "")
        raise ValueError(f"{name}: expected {what}, got {n!r}")
    return int(n)


def heat(n: int, kappa: float = 1.0) -> TestProblem:
    """The inverse heat equation: a Volterra equation of the first kind.

        k(t) = t^(-3/2) / (2 kappa sqrt(pi)) exp(-1/(4 kappa² t))
        A_ij = h k((i - j + 1/2) h)        for i >= j

    with h = 1/n and A lower triangular; kappa = 1 is severely ill-posed, kappa = 5 well-posed.

    Args:
      n: number of unknowns.
      kappa: how well-posed it is.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive integer.

    Reference:
      Hansen (1994), heat, after Carasso (1982) and Eldén (1988).

    Examples:
      >>> import chebyshev
      >>> round(float(chebyshev.problems.heat(90).x.sum()), 8)
      8.05331923
    """
    n = _size("n", n)
    h = 1 / n
    t = (np.arange(n) + 0.5) * h
    kernel = h / (2 * kappa * np.sqrt(np.pi)) * t**-1.5 * np.exp(-1 / (4 * kappa**2 * t))
    A = scipy.linalg.toeplitz(kernel, np.zeros(n))
    tau = 20 * np.arange(1, n + 1) / n
    x = np.where(
        tau < 2,
        0.75 * tau**2 / 4,
        np.where(tau < 3, 0.75 + (tau - 2) * (3 - tau), 0.75 * np.exp(-2 * (tau - 3))),
    )
    x[n // 2 :] = 0
    return TestProblem(A, A @ x, x)


def _half_up(value: float) -> int:
    return int(np.floor(value + 0.5))


def _scene(N: int) -> np.ndarray:
    """The image of `blur`, N x N with grey values 0 … 4."""
    half, third, sixth, twelfth = (_half_up(N / k) for k in (2, 3, 6, 12))
    i, j = np.mgrid[1 : sixth + 1, 1 : third + 1]

    def ellipse(level):
        quarter = ((i / sixth) ** 2 + (j / third) ** 2 < level).astype(float)
        upper = np.hstack([quarter[:, ::-1], quarter])
        return np.vstack([upper[::-1], upper])

    X = np.zeros((3 * N, 3 * N))
    columns = slice(third - 1, third - 1 + 2 * third)
    X[2 : 2 + 2 * sixth, columns] = ellipse(1)
    X[sixth : 3 * sixth, columns] += 2 * ellipse(0.6)
    X[X == 3] = 2
    X[third + twelfth : 2 * third + twelfth, 1 : 1 + third] = 3 * np.triu(np.ones((third, third)))
    cross = np.zeros((2 * sixth + 1, 2 * sixth + 1))
    cross[sixth] = cross[:, sixth] = 4
    rows = slice(half + twelfth, half + twelfth + 2 * sixth + 1)
    X[rows, half : half + 2 * sixth + 1] = cross
    return X[:N, :N]


def blur(N: int, band: int = 3, sigma: float = 0.7) -> TestProblem:
    """An image blurred by a Gaussian point-spread function.

        A = T ⊗ T / (2 pi sigma²),        T = Toeplitz(exp(-j²/(2 sigma²)) for j < band, else 0)

    The image is N x N, its columns stacked into x.

    Args:
      N: side of the image.
      band: half bandwidth of T.
      sigma: standard deviation of the point-spread function, in pixels.

    Returns:
      `TestProblem` with m = N² unknowns.

    Raises:
      ValueError: `N` or `band` not a positive integer.

    Reference:
      Hansen (1994), blur, after Hanke & Hansen (1993).

    Examples:
      >>> import chebyshev
      >>> float(chebyshev.problems.blur(16, 4, 0.8).x.sum())
      143.0
    """
    N, band = _size("N", N), _size("band", band)
    T = _point_spread(N, band, sigma)
    A = np.kron(T, T) / (2 * np.pi * sigma**2)
    x = _scene(N).flatten("F")
    return TestProblem(A, A @ x, x)


def _point_spread(N: int, band: int, sigma: float) -> np.ndarray:
    j = np.arange(N)
    return scipy.linalg.toeplitz(np.where(j < band, np.exp(-(j**2) / (2 * sigma**2)), 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Kronecker:
    """The linear map of a Kronecker product, which is never formed.

        x -> (left ⊗ right) x

    A callable pytree: 4 N³ operations for an N x N image, where the matrix would take 2 N⁴.

    Attributes:
      left: (p, q) matrix.
      right: (r, s) matrix.

    Examples:
      >>> import numpy as np, chebyshev
      >>> A = chebyshev.problems.Kronecker(np.diag([1.0, 2.0]), np.diag([1.0, 10.0]))
      >>> A(np.ones(4)).tolist()
      [1.0, 10.0, 2.0, 20.0]
    """

    left: np.ndarray | jax.Array
    right: np.ndarray | jax.Array

    def __call__(self, x):
        """(left ⊗ right) x for x of shape (q s,)."""
        return (self.left @ x.reshape(self.left.shape[1], -1) @ self.right.T).ravel()


def blur_operator(N: int, band: int = 3, sigma: float = 0.7) -> TestProblem:
    """`blur` with A as a linear map instead of a matrix, for large images.

        A = T ⊗ T / (2 pi sigma²)

    Args:
      N: side of the image.
      band: half bandwidth of T.
      sigma: standard deviation of the point-spread function, in pixels.

    Returns:
      `TestProblem` whose A is a `Kronecker`.

    Raises:
      ValueError: `N` or `band` not a positive integer.

    Reference:
      Hansen (1994), blur.

    Examples:
      >>> import numpy as np, chebyshev
      >>> dense, large = chebyshev.problems.blur(8), chebyshev.problems.blur_operator(8)
      >>> bool(np.allclose(dense.A @ dense.x, large.A(large.x)))
      True
    """
    N, band = _size("N", N), _size("band", band)
    T = _point_spread(N, band, sigma)
    A = Kronecker(T / (2 * np.pi * sigma**2), T)
    x = _scene(N).flatten("F")
    return TestProblem(A, A(x), x)


def shaw(n: int) -> TestProblem:
    """One-dimensional image restoration.

        k(s, t) = (cos s + cos t)² (sin u / u)²,        u = pi (sin s + sin t)

    for s, t in [-pi/2, pi/2], by the midpoint rule;
    x(t) = 2 exp(-6 (t - 0.8)²) + exp(-2 (t + 0.5)²).

    Args:
      n: number of unknowns, even.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive even integer.

    Reference:
      Hansen (1994), shaw, after Shaw (1972).

    Examples:
      >>> import chebyshev
      >>> A = chebyshev.problems.shaw(20).A
      >>> bool(abs(A - A.T).max() < 1e-15)
      True
    """
    n = _size("n", n, 2)
    h = np.pi / n
    t = (np.arange(n) + 0.5) * h - np.pi / 2
    u = np.sin(t)[:, None] + np.sin(t)
    A = h * ((np.cos(t)[:, None] + np.cos(t)) * np.sinc(u)) ** 2
    x = 2 * np.exp(-6 * (t - 0.8) ** 2) + np.exp(-2 * (t + 0.5) ** 2)
    return TestProblem(A, A @ x, x)


def gravity(n: int, depth: float = 0.25) -> TestProblem:
    """One-dimensional gravity surveying: a mass at `depth`, its field at the surface.

        k(s, t) = depth / (depth² + (s - t)²)^(3/2),        s, t in [0, 1]

    by the midpoint rule; x(t) = sin(pi t) + sin(2 pi t)/2.

    Args:
      n: number of unknowns.
      depth: of the mass; deeper is worse posed.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive integer.

    Reference:
      Hansen (1994), gravity, after Wing & Zahrt (1991).

    Examples:
      >>> import chebyshev
      >>> bool((chebyshev.problems.gravity(10).A > 0).all())
      True
    """
    n = _size("n", n)
    t = (np.arange(n) + 0.5) / n
    A = depth / n / (depth**2 + (t[:, None] - t) ** 2) ** 1.5
    x = np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)
    return TestProblem(A, A @ x, x)


def foxgood(n: int) -> TestProblem:
    """Fox and Goodwin's equation, severely ill-posed.

        k(s, t) = sqrt(s² + t²),        s, t in [0, 1],        x(t) = t

    by the midpoint rule; b is that of the discrete model, A x.

    Args:
      n: number of unknowns.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive integer.

    Reference:
      Hansen (1994), foxgood, after Fox & Goodwin (1953).

    Examples:
      >>> import chebyshev
      >>> chebyshev.problems.foxgood(4).x.tolist()
      [0.125, 0.375, 0.625, 0.875]
    """
    n = _size("n", n)
    t = (np.arange(n) + 0.5) / n
    A = np.hypot(t[:, None], t) / n
    return TestProblem(A, A @ t, t)


def deriv2(n: int) -> TestProblem:
    """The second derivative, mildly ill-posed: its Green's function.

        k(s, t) = s (t - 1) if s < t, t (s - 1) otherwise,        s, t in [0, 1],        x(t) = t

    by the midpoint rule; b approximates (s³ - s)/6.

    Args:
      n: number of unknowns.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive integer.

    Reference:
      Hansen (1994), deriv2, after Delves & Mohamed (1985).

    Examples:
      >>> import chebyshev
      >>> bool((chebyshev.problems.deriv2(10).A < 0).all())
      True
    """
    n = _size("n", n)
    t = (np.arange(n) + 0.5) / n
    A = (np.minimum.outer(t, t) * (np.maximum.outer(t, t) - 1)) / n
    return TestProblem(A, A @ t, t)


def phillips(n: int) -> TestProblem:
    """Phillips's famous problem: a convolution.

        k(s, t) = φ(s - t),        φ(u) = 1 + cos(pi u/3) for |u| < 3, else 0,        x = φ

    for s, t in [-6, 6], by the midpoint rule.

    Args:
      n: number of unknowns, a multiple of 4.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive multiple of 4.

    Reference:
      Hansen (1994), phillips, after Phillips (1962).

    Examples:
      >>> import chebyshev
      >>> round(float(chebyshev.problems.phillips(40).x.max()), 2)
      1.99
    """
    n = _size("n", n, 4)
    h = 12 / n
    t = (np.arange(n) + 0.5) * h - 6

    def phi(u):
        return np.where(np.abs(u) < 3, 1 + np.cos(np.pi * u / 3), 0)

    A, x = h * phi(t[:, None] - t), phi(t)
    return TestProblem(A, A @ x, x)


def baart(n: int) -> TestProblem:
    """Baart's equation, severely ill-posed.

        k(s, t) = exp(s cos t),        s in [0, pi/2],  t in [0, pi],        x(t) = sin t

    by the midpoint rule; b approximates 2 sinh(s)/s.

    Args:
      n: number of unknowns.

    Returns:
      `TestProblem`.

    Raises:
      ValueError: `n` not a positive integer.

    Reference:
      Hansen (1994), baart, after Baart (1982).

    Examples:
      >>> import chebyshev
      >>> bool((chebyshev.problems.baart(10).b > 2).all())
      True
    """
    n = _size("n", n)
    s, t = ((np.arange(n) + 0.5) * length / n for length in (np.pi / 2, np.pi))
    A = np.pi / n * np.exp(s[:, None] * np.cos(t))
    x = np.sin(t)
    return TestProblem(A, A @ x, x)
