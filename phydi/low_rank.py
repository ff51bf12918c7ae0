"""Multiplication tensors as sums of few products: fewer operations, not only fewer parameters.

    A[i, a, b] = Σ_r u[r, i] v[r, a] w[r, b],      r = 1 … R

turns the layer of `algebra` into R products of blocks instead of n²,

    G_r = Σ_i u[r, i] F_i,      x_r = Σ_a v[r, a] x_a,      (x H)_b = Σ_r w[r, b] x_r G_r.

The smallest such R is the rank of A. All but a set of measure zero of the tensors over C have the
rank ⌈n³ / (3n - 2)⌉, but 5 for n = 3; over R that is the smallest of the ranks that random tensors
have with positive probability (2 and 3 for n = 2). Algebras are special: n for split-complex, 3 for
complex (Gauss' trick), 8 for quaternions (Howell & Lafon), 7 for split-quaternions, which are the
2 × 2 matrices (Strassen), and 2n less the number of irreducible real factors of zⁿ - 1 for the
cyclic ones (Winograd), which `cyclic_factors` attains in closed form.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from phydi.checking import as_tensor, check_key, check_positive_integer


class Factors(NamedTuple):
    """A multiplication tensor of rank R.

        A[i, a, b] = Σ_r u[r, i] v[r, a] w[r, b]

    Attributes:
      u: (R, n) which blocks F_i make the r-th product.
      v: (R, n) which parts of the input.
      w: (R, n) to which parts of the output it goes.

    Examples:
      >>> import phydi
      >>> phydi.cyclic_factors(3).u.shape  # four products instead of nine
      (4, 3)
    """

    u: Array
    v: Array
    w: Array


def generic_rank(n: int) -> int:
    """The rank of almost every complex n × n × n tensor, the least typical rank of real ones.

        ⌈n³ / (3n - 2)⌉, but 5 for n = 3

    Args:
      n: the dimension.

    Returns:
      R: 1, 2, 5, 7, 10 … for n = 1, 2, 3, 4, 5 …

    Raises:
      ValueError: n is not a positive integer.

    Reference:
      Lickteig, Typical tensorial rank, Linear Algebra Appl. 69 (1985); Strassen, Rank and optimal
      computation of generic tensors, Linear Algebra Appl. 52 (1983).

    Examples:
      >>> import phydi
      >>> [phydi.generic_rank(n) for n in (1, 2, 3, 4, 8)]
      [1, 2, 5, 7, 24]
    """
    n = check_positive_integer("n", n)
    return 5 if n == 3 else -(-(n**3) // (3 * n - 2))


def cyclic_rank(n: int) -> int:
    """The rank of the cyclic algebra over the reals: 2n less the real factors of zⁿ - 1."""
    return 2 * n - (n // 2 + 1)


def cyclic_factors(n: int) -> Factors:
    """The cyclic algebra by the real Fourier transform and Gauss' trick, with the fewest products.

        y = x * f,      ŷ_k = x̂_k f̂_k,      (a + bi)(c + di) from ac, bd and (a + b)(c + d)

    A real frequency costs one product, a pair of conjugate complex ones three.

    Args:
      n: the dimension.

    Returns:
      `Factors` of rank 2n - ⌊n/2⌋ - 1: 1, 2, 4, 5, 7 … for n = 1, 2, 3, 4, 5 …

    Raises:
      ValueError: n is not a positive integer.

    Reference:
      Winograd, On computing the discrete Fourier transform, Math. Comp. 32 (1978): no fewer do.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> A = phydi.compose(*phydi.cyclic_factors(4))
      >>> bool(jnp.allclose(A, phydi.multiplication_tensor(4, algebra="cyclic"), atol=1e-6))
      True
    """
    n = check_positive_integer("n", n)
    position = np.arange(n)
    left, out = [], []
    for k in range(n // 2 + 1):
        angle = 2 * np.pi * k * position / n
        c, s = np.cos(angle), np.sin(angle)
        if 2 * k in (0, n):
            left.append(c)
            out.append(c / n)
            continue
        # x̂ = a + bi = x·c - i x·s, and y gets 2/n Re(ŷ e^(iθ)) from the products ac, bd and
        # (a + b)(c + d): Re ŷ = ac - bd, Im ŷ = (a + b)(c + d) - ac - bd.
        left += [c, -s, c - s]
        out += [(c + s) * 2 / n, (s - c) * 2 / n, -s * 2 / n]
    u, w = jnp.asarray(np.array(left), float), jnp.asarray(np.array(out), float)
    return Factors(u, u, w)


def compose(u, v, w) -> Array:
    """The tensor of given factors.

        A[i, a, b] = Σ_r u[r, i] v[r, a] w[r, b]

    Args:
      u: (R, n).
      v: (R, n).
      w: (R, n).

    Returns:
      (n, n, n).

    Raises:
      ValueError: the shapes differ.

    Reference:
      Kolda & Bader, Tensor decompositions and applications, SIAM Review 51 (2009), (3.2).

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> phydi.compose(jnp.ones((1, 2)), jnp.ones((1, 2)), 3 * jnp.ones((1, 2)))[0, 1]
      Array([3., 3.], dtype=...)
    """
    shapes = [jnp.shape(factor) for factor in (u, v, w)]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"u, v, w: expected one shape (R, n), got {shapes}")
    return jnp.einsum("ri,ra,rb->iab", u, v, w)


def _unpack(z: Array, rank: int, n: int) -> Factors:
    return Factors(*z.reshape(3, rank, n))


@partial(jax.jit, static_argnames=("rank", "num_starts", "num_steps"))
def _factorize(key, A, rank, num_starts, num_steps):
    n, dtype = A.shape[0], A.dtype
    scale = jnp.maximum(jnp.linalg.norm(A), jnp.finfo(dtype).tiny)
    target = A / scale
    eps = jnp.finfo(dtype).eps

    def misfit(z):
        return (compose(*_unpack(z, rank, n)) - target).ravel()

    def step(carry, _):
        # Levenberg–Marquardt: the damping goes down after success and up after failure.
        z, damping, cost = carry
        residual, J = misfit(z), jax.jacfwd(misfit)(z)
        gram = J @ J.T + (damping + 8 * eps) * jnp.eye(n**3, dtype=dtype)
        factor = jax.scipy.linalg.cho_factor(gram, lower=True)
        new = z - J.T @ jax.scipy.linalg.cho_solve(factor, residual)
        new_cost = jnp.sum(misfit(new) ** 2)
        better = new_cost < cost
        z, cost = jnp.where(better, new, z), jnp.where(better, new_cost, cost)
        damping = jnp.clip(jnp.where(better, damping / 3, damping * 4), eps, 1e3)
        return (z, damping, cost), None

    def descend(key):
        z = jax.random.normal(key, (3 * rank * n,), dtype) * (rank * n * n) ** (-1 / 6)
        start = z, jnp.asarray(0.1, dtype), jnp.sum(misfit(z) ** 2)
        (z, _, cost), _ = lax.scan(step, start, None, length=num_steps)
        return z, jnp.where(jnp.isnan(cost), jnp.inf, cost)

    # One after the other: batched loops over factorisations can wait for ever on the CPU.
    zs, costs = lax.map(descend, jax.random.split(key, num_starts))
    best = jnp.argmin(costs)
    factors = _unpack(zs[best] * jnp.cbrt(scale), rank, n)
    return factors, jnp.sqrt(costs[best])


def factorize(
    key, A, rank: int, *, num_starts: int = 8, num_steps: int = 200
) -> tuple[Factors, Array]:
    """Factors of a given tensor, by damped Gauss–Newton steps from random starts.

        minimise ‖A - Σ_r u_r ⊗ v_r ⊗ w_r‖

    A search that can fail: below the rank the residual stays away from zero, and where there is no
    nearest tensor of that rank (dual numbers, rank 2) the factors grow without bound. Look at it.

    Args:
      key: a random key.
      A: (n, n, n) the tensor.
      rank: the number R of terms.
      num_starts: random starts, of which the best is returned.
      num_steps: steps from each.

    Returns:
      `Factors` and () the residual ‖A - Σ …‖ / ‖A‖.

    Raises:
      ValueError: A is no cube; `rank`, `num_starts` or `num_steps` is not positive.

    Reference:
      Kolda & Bader, Tensor decompositions and applications, SIAM Review 51 (2009), section 3.

    Examples:
      >>> import jax, phydi
      >>> A = phydi.multiplication_tensor(2)  # Gauss: three real products make a complex one
      >>> [bool(phydi.factorize(jax.random.key(0), A, rank)[1] < 1e-5) for rank in (2, 3)]
      [False, True]
    """
    check_key(key)
    A = as_tensor("A", A)
    rank = check_positive_integer("rank", rank)
    num_starts = check_positive_integer("num_starts", num_starts)
    return _factorize(key, A, rank, num_starts, check_positive_integer("num_steps", num_steps))
