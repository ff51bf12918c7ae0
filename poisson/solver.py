"""`solve`: from values of f on a grid to the solution, with its certificate."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from poisson.certificate import Certificate, certify, check_order
from poisson.discretisation import MIN_POINTS, right_hand_side
from poisson.materialising import materialise
from poisson.recurrences import toeplitz
from poisson.substructuring import green
from poisson.systems import Status, check_scalar, check_vector, poisson_diagonals
from poisson.tridiagonal import METHODS as GENERAL
from poisson.tridiagonal import tridiagonal_solve

SPECIAL = {"green": green, "toeplitz": toeplitz}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stats:
    """How a solution was computed.

    Attributes:
      status: () int32, a `Status`.
      method: the method that ran, "auto" resolved.
      order: order of the scheme.
      num_points: number of grid points.

    Examples:
      >>> import poisson
      >>> poisson.solve(poisson.source(11)).stats.method
      'green'
    """

    status: Array
    method: str = dataclasses.field(metadata={"static": True})
    order: int = dataclasses.field(metadata={"static": True})
    num_points: int = dataclasses.field(metadata={"static": True})


class Solution(NamedTuple):
    """Solution of -u'' = f on a uniform grid.

        (-u_(i-1) + 2 u_i - u_(i+1)) / h² = f_i,        u_0 = left,  u_N = right

    Attributes:
      x: (n,) grid points, to a unit in the last place (`poisson.grid` rounds once).
      u: (n,) solution, boundary included.
      residual: () max |f - A u/h²| in the units of f. Rounding u alone leaves about
        4e-16 N² max|u|; the certificate says what that is worth.
      certificate: `Certificate`.
      stats: `Stats`.

    Examples:
      >>> import poisson
      >>> poisson.solve(poisson.source(11)).u.shape
      (11,)
    """

    x: Array
    u: Array
    residual: Array
    certificate: Certificate
    stats: Stats


@partial(jax.jit, static_argnames=("method", "order"))
def _solve(f: Array, ends: Array, derivative_bound, method: str, order: int):
    n = f.shape[0]
    f, ends = materialise(f), materialise(ends)
    left, right = ends.astype(f.dtype)
    d = right_hand_side(f, left, right, order)
    if method in SPECIAL:
        v = SPECIAL[method](d)
        status = jnp.where(jnp.isfinite(v).all(), Status.SOLVED, Status.SINGULAR)
    else:
        v, status = tridiagonal_solve(*poisson_diagonals(n - 2, f.dtype), d, method=method)
    u = materialise(jnp.concatenate([left[None], v, right[None]]))
    # The boundary values as given: rounding them to f's type is an error that the bound includes.
    proof = certify(
        f, u, left=ends[0], right=ends[1], order=order, derivative_bound=derivative_bound
    )
    stats = Stats(lax.stop_gradient(status).astype(jnp.int32), method, order, n)
    x = jnp.arange(n, dtype=f.dtype) / (n - 1)
    return Solution(x, u, proof.residual, proof, stats)


def solve(
    f,
    *,
    left=0.0,
    right=0.0,
    method: str = "auto",
    order: int = 2,
    derivative_bound=None,
) -> Solution:
    """Solve -u'' = f on (0, 1) with u(0) = left, u(1) = right, and certify the result.

        (-v_(i-1) + 2 v_i - v_(i+1)) / h² = f_i,        h = 1/(n-1)

    for order 2; orders 4 and 6 replace f_i by compact combinations of its neighbours
    (`poisson.discretisation`).

    Pure and differentiable in f, left and right (the adjoint is one more solve); batches by
    `jax.vmap`. If the certificate is not used under `jit`, it is not computed.

    Args:
      f: (n,) right-hand side at all grid points, boundary included; n at least 3 (8 for order 6).
        Order 2 does not look at the two boundary values.
      left: u(0).
      right: u(1).
      method: "auto" is "green"; others "toeplitz", "thomas", "partition", "lapack", "dense_lu".
      order: 2 (the paper's), 4 (Numerov's compact scheme) or 6.
      derivative_bound: an upper bound of max |f''|, |f''''| or the sixth derivative, by order; with
        it the certificate bounds the discretisation error too.

    Returns:
      `Solution`.

    Raises:
      ValueError: fewer points than the scheme needs, non-finite f, an unknown method or order.

    Reference:
      Rustad & Falmår (2020), equations (3) to (5). Departure: any boundary values; schemes of order
      4 and 6; by default not an elimination, but the discrete Green's function.

    Examples:
      >>> import poisson
      >>> s = poisson.solve(poisson.source(1001))
      >>> round(float(poisson.relative_error(s.u, poisson.exact_solution(1001))), 4)
      -5.0792
    """
    order = check_order(order)
    f = check_vector("f", f, MIN_POINTS[order])
    name = "green" if method == "auto" else method
    if not isinstance(name, str) or (name not in SPECIAL and name not in GENERAL):
        known = sorted([*SPECIAL, *GENERAL])
        raise ValueError(f"method: expected 'auto' or one of {known}, got {method!r}")
    ends = jnp.stack([check_scalar("left", left), check_scalar("right", right)])
    if derivative_bound is not None:
        derivative_bound = check_scalar("derivative_bound", derivative_bound, minimum=0)
    return _solve(f, ends, derivative_bound, name, order)
