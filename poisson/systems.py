"""Tridiagonal systems in general: their shape, what can go wrong, and implicit derivatives.

A system of m unknowns is given by its three diagonals,

    a_(i-1) x_(i-1) + b_i x_i + c_i x_(i+1) = d_i,      a: (m-1,), b: (m,), c: (m-1,), d: (m,),

so that A = diag(b) + diag(a, -1) + diag(c, 1), as in the paper's equation (10). Each algorithm is a
function (a, b, c, d) -> (x, facts) of a system; `solve_system` wraps it with the checks, the
derivative and the status that all of them share.
"""

import enum
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Status(enum.IntEnum):
    """What became of a linear solve; `status.message` says what to do next.

    Attributes:
      message: one sentence, what happened and what to try.

    Examples:
      >>> import poisson
      >>> print(poisson.Status(1).message)
      solved without pivoting, but the matrix is not diagonally dominant: check the residual, ...
    """

    SOLVED = 0
    NOT_DOMINANT = 1
    ILL_CONDITIONED = 2
    SINGULAR = 3

    @property
    def message(self) -> str:
        """One sentence: what happened and what to try."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.SOLVED: "solved",
    Status.NOT_DOMINANT: (
        "solved without pivoting, but the matrix is not diagonally dominant: check the residual, "
        "or use a pivoting method (method='lapack')"
    ),
    Status.ILL_CONDITIONED: (
        "the matrix is singular to working precision, or its entries over- or underflow: x may "
        "have no correct digit; use float64, rescale or reformulate the problem"
    ),
    Status.SINGULAR: (
        "x is not finite: the matrix is singular, an elimination without pivoting met a zero pivot "
        "(try method='lapack'), or the input was not finite"
    ),
}


class LinearSolution(NamedTuple):
    """Solution of a tridiagonal system.

        A x = d

    Attributes:
      x: (m,) the solution.
      status: () int32, a `Status`.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> s = poisson.thomas(-jnp.ones(1), 2 * jnp.ones(2), -jnp.ones(1), jnp.ones(2))
      >>> s.x, poisson.Status(int(s.status)).name
      (Array([1., 1.], dtype=float64), 'SOLVED')
    """

    x: Array
    status: Array


def is_concrete(*values) -> bool:
    """Whether every value is known now, so that its entries can be checked."""
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def floating_array(name: str, value) -> Array:
    """`value` as a real floating array, integers promoted, anything else refused by name."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected real numbers, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        array = array.astype(jnp.result_type(float))
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def check_vector(name: str, value, minimum: int = 1) -> Array:
    """`value` as a finite floating vector of at least `minimum` entries."""
    array = floating_array(name, value)
    if array.ndim != 1 or array.shape[0] < minimum:
        raise ValueError(
            f"{name}: expected a vector of at least {minimum} entries, got shape {array.shape} "
            f"(use jax.vmap for batches)"
        )
    check_finite(name, array)
    return array


def check_scalar(name: str, value, minimum: float | None = None) -> Array:
    """`value` as a real number in JAX's widest floating type; finite, if that can be known."""
    array = floating_array(name, value)
    if array.ndim:
        raise ValueError(f"{name}: expected a number, got shape {array.shape}")
    if is_concrete(array):
        number = float(np.asarray(array))
        if not np.isfinite(number) or (minimum is not None and number < minimum):
            least = "" if minimum is None else f" of at least {minimum:g}"
            raise ValueError(f"{name}: expected a finite number{least}, got {number}")
    return array.astype(jnp.result_type(float))


def check_finite(name: str, array) -> None:
    """Refuse NaN and infinity by name and place, if the entries are known now."""
    if not is_concrete(array):
        return
    # By NumPy: inside a caller's jit even an operation on known numbers would be traced.
    values = np.asarray(array).ravel()
    finite = np.isfinite(values)
    if not finite.all():
        where = int(np.argmin(finite))
        value = values[where]
        raise ValueError(f"{name}: expected finite values, got {value} at index {where}")


def check_system(a, b, c, d) -> tuple[Array, Array, Array, Array]:
    """The four vectors in one dtype, or a ValueError that names the one which does not fit."""
    b = check_vector("b", b)
    m = b.shape[0]
    for name, value, length in (("a", a, m - 1), ("c", c, m - 1), ("d", d, m)):
        shape = jnp.shape(value)
        if shape != (length,):
            raise ValueError(
                f"{name}: expected shape ({length},) beside a diagonal b of {m}, got {shape}"
            )
    a, c, d = (floating_array(k, v) for k, v in (("a", a), ("c", c), ("d", d)))
    for name, value in (("a", a), ("c", c), ("d", d)):
        check_finite(name, value)
    dtype = jnp.result_type(a, b, c, d)
    return a.astype(dtype), b.astype(dtype), c.astype(dtype), d.astype(dtype)


def matvec(a: Array, b: Array, c: Array, x: Array) -> Array:
    """A x for the tridiagonal matrix of the diagonals a, b, c."""
    return b * x + jnp.pad(c * x[1:], (0, 1)) + jnp.pad(a * x[:-1], (1, 0))


class Facts(NamedTuple):
    """What a status is made of: three numbers, each a maximum over the rows.

    excess: |a_(i-1)| + |c_i| - |b_i|, not positive if the matrix is diagonally dominant;
    ratio: |d_i| / (|a_(i-1)| + |b_i| + |c_i|), which A x = d keeps below max|x|; size: |x_i|.
    """

    excess: Array
    ratio: Array
    size: Array

    @property
    def dominant(self) -> Array:
        """Whether no pivoting is needed (false for NaN)."""
        return self.excess <= 0


def row_facts(below: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """Excess and ratio of each row."""
    beside, diagonal = jnp.abs(below) + jnp.abs(c), jnp.abs(b)
    return beside - diagonal, jnp.abs(d) / (beside + diagonal)


def with_facts(algorithm: Callable) -> Callable:
    """`algorithm(a, b, c, d) -> x` as one that returns (x, facts)."""

    def wrapped(a, b, c, d, *options):
        x = algorithm(a, b, c, d, *options)
        rows = row_facts(jnp.pad(a, (1, 0)), b, jnp.pad(c, (0, 1)), d)
        return x, Facts(*(jnp.max(column) for column in (*rows, jnp.abs(x))))

    return wrapped


def status_from(facts: Facts, *, pivoted: bool) -> Array:
    """The `Status` that the facts amount to.

    If every |d_i| is below 8 u times its row's size times max|x|, then A is within 8 u of a
    singular matrix, row by row: singular to working precision. If some |d_i| is above its row's
    size times max|x|, then x is no solution: something has overflowed or been flushed to zero.
    """
    unit = jnp.finfo(facts.size.dtype).eps / 2
    status = jnp.where(facts.dominant | pivoted, Status.SOLVED, Status.NOT_DOMINANT)
    ill = (facts.ratio < 8 * unit * facts.size) | (facts.ratio > 1.01 * facts.size)
    status = jnp.where(ill, Status.ILL_CONDITIONED, status)
    return jnp.where(jnp.isfinite(facts.size), status, Status.SINGULAR).astype(jnp.int32)


@partial(jax.jit, static_argnames=("algorithm", "options", "pivoted"))
def _solve_system(algorithm, options, pivoted, a, b, c, d):
    x, facts = lax.custom_linear_solve(
        lambda x: matvec(a, b, c, x),
        d,
        lambda _, rhs: algorithm(a, b, c, rhs, *options),
        lambda _, rhs: algorithm(c, b, a, rhs, *options),
        has_aux=True,
    )
    return LinearSolution(x, status_from(lax.stop_gradient(facts), pivoted=pivoted))


def solve_system(
    algorithm: Callable, a, b, c, d, *, pivoted: bool, options: tuple = ()
) -> LinearSolution:
    """Run `algorithm(a, b, c, d, *options) -> (x, facts)` with checks and implicit derivative.

    The derivative solves with A or Aᵀ by the same algorithm; it never differentiates the loops.
    """
    return _solve_system(algorithm, options, pivoted, *check_system(a, b, c, d))


def poisson_diagonals(m: int, dtype) -> tuple[Array, Array, Array]:
    """The diagonals of tridiag(-1, 2, -1) with m unknowns."""
    off = jnp.full(m - 1, -1, dtype)
    return off, jnp.full(m, 2, dtype), off


@partial(jax.jit, static_argnames=("algorithm", "options"))
def _solve_poisson(algorithm, options, d):
    return lax.custom_linear_solve(
        lambda x: 2 * x - jnp.pad(x[1:], (0, 1)) - jnp.pad(x[:-1], (1, 0)),
        d,
        lambda _, rhs: algorithm(rhs, *options),
        symmetric=True,
    )


def solve_poisson(algorithm: Callable, d, *, options: tuple = ()) -> Array:
    """Run `algorithm(d, *options) -> x` for tridiag(-1, 2, -1), likewise; it is never singular."""
    return _solve_poisson(algorithm, options, check_vector("d", d))
