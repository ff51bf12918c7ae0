"""The relaxed centre of one noise ball and a box, for as many unknowns as an image has pixels.

With x measured from the middle of the box and h its half widths, (15) is

    maximise tr W    subject to    tr(A'A W) + ‖A x - r‖² <= ρ,    W_ii + x_i² <= h_i²,    W ⪰ 0,

and W = V V' with a V of few columns loses nothing where the optimum has low rank, as it has here:
4 for the 256 pixels of `blur(16)` (Burer & Monteiro 2003). Each row of [V, x, slack] then lies on a
sphere of radius h_i, the coupling constraint is left to an augmented Lagrangian with multiplier
α_0, and every step costs a few applications of A and A' to a few vectors.

The method is a heuristic for the primal problem, and need not be more: at its end

    α_i = ⟨row i, gradient of row i⟩ / h_i²

are multipliers, and for *any* α >= 0, S = α_0 A'A + diag(α_1 …) and λ = λ_min(S), every admissible
x lies within sqrt(value(α)/λ) of the estimate, for (17) is homogeneous in α. `certified_radius`
proves it, by a Cholesky factorisation whose rounding is accounted for.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.experimental.sparse.linalg import lobpcg_standard

from chebyshev.constructors import as_array, as_positive, check_order
from chebyshev.interior_point import Status

SMALL = 200  # unknowns up to which eigenvalues are computed from a matrix


class LargeSolution(NamedTuple):
    """A relaxed Chebyshev centre that was computed without matrices.

        every admissible x lies within `radius` of `x`, as far as `eigenvalue` is right

    Attributes:
      x: (m,) the estimate (16).
      alpha: (1 + m,) multipliers: of the noise ball, then of the box.
      value: () the squared radius: value (17) over the smallest eigenvalue found.
      radius: () its square root; `certified_radius` proves one.
      primal: () tr W.
      gap: () (value - primal) / value, the primal value less its infeasibility.
      infeasibility: () (tr(A'A W) + ‖A x - y‖²) / ρ - 1 of the last iterate.
      eigenvalue: () smallest eigenvalue of Σ α_i Q_i, 1 at the optimum: an estimate.
      status: () int32, a `Status`.
      num_steps: () int32, steps of the quasi-Newton method.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> s = chebyshev.rcc_matrix_free(lambda x: x, jnp.ones(8), 1.0, -jnp.ones(8), jnp.ones(8))
      >>> chebyshev.Status(int(s.status)).name
      'CONVERGED'
    """

    x: Array
    alpha: Array
    value: Array
    radius: Array
    primal: Array
    gap: Array
    infeasibility: Array
    eigenvalue: Array
    status: Array
    num_steps: Array


class _Data(NamedTuple):
    """Observations and box, measured from its middle."""

    r: Array  # y - A middle
    rho: Array
    half: Array
    middle: Array


def _rows(data: _Data, U: Array) -> Array:
    """[V, x, slack]: the rows of U, scaled onto their spheres."""
    return data.half[:, None] * U / jnp.linalg.norm(U, axis=1, keepdims=True)


def _parts(forward_fn, data: _Data, Y: Array) -> tuple[Array, Array]:
    """tr W and the violation of the noise ball."""
    image = jax.vmap(forward_fn, 1, 1)(Y[:, :-1])
    misfit = jnp.sum(image[:, :-1] ** 2) + jnp.sum((image[:, -1] - data.r) ** 2)
    return jnp.sum(Y[:, :-2] ** 2), misfit - data.rho


def _ascend(forward_fn, data: _Data, U, alpha0, penalty, num_steps: int):
    """L-BFGS on the augmented Lagrangian."""

    def loss(U):
        value, violation = _parts(forward_fn, data, _rows(data, U))
        return -value + penalty / 2 * jnp.maximum(violation + alpha0 / penalty, 0) ** 2

    optimizer = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(_, carry):
        U, state = carry
        value, gradient = value_and_grad(U, state=state)
        updates, state = optimizer.update(
            gradient, state, U, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(U, updates), state

    U, _ = lax.fori_loop(0, num_steps, step, (U, optimizer.init(U)))
    U = U / jnp.linalg.norm(U, axis=1, keepdims=True)
    _, violation = _parts(forward_fn, data, _rows(data, U))
    return U, jnp.maximum(alpha0 + penalty * violation, 0)


def _normal(forward_fn, m: int) -> Callable[[Array], Array]:
    """x -> A'A x."""
    transpose = jax.linear_transpose(forward_fn, jnp.zeros(m))
    return lambda x: transpose(forward_fn(x))[0]


def _smallest_eigenvalue(apply, V: Array) -> Array:
    """Of S, an estimate from below: by LOBPCG, less the residual; of small ones, exactly."""
    m = V.shape[0]
    if m <= SMALL:
        return jnp.linalg.eigvalsh(jax.vmap(apply, 1, 1)(jnp.eye(m)))[0]
    vector = jnp.ones(m)
    for _ in range(20):
        vector = apply(vector)
        top = jnp.linalg.norm(vector)
        vector = vector / top
    # The columns of V nearly span the eigenvectors of the smallest eigenvalues, and a few others
    # look elsewhere. LOBPCG finds the largest of a matrix, so it gets S turned around.
    others = jax.random.normal(jax.random.key(1), (m, 4))
    start = jnp.concatenate([V[:, : m // 5 - 5], others], axis=1)

    def turned(X):
        return 1.5 * top * X - jax.vmap(apply, 1, 1)(X)

    largest, vectors, _ = lobpcg_standard(turned, start, m=200)
    first = vectors[:, :1]
    residual = jnp.linalg.norm(turned(first) - largest[0] * first)
    return 1.5 * top - largest[0] - residual


def _dual(forward_fn, data: _Data, U, alpha0):
    """Multipliers, smallest eigenvalue of S, x and the bound of the squared radius."""
    m = data.half.shape[0]
    normal = _normal(forward_fn, m)
    Y = _rows(data, U)

    def lagrangian(Y):
        value, violation = _parts(forward_fn, data, Y)
        return value - alpha0 * violation

    along = jnp.sum(Y * jax.grad(lagrangian)(Y), axis=1) / 2
    a = jnp.maximum(along / data.half**2, 0)

    def apply(x):
        return alpha0 * normal(x) + a * x

    eigenvalue = _smallest_eigenvalue(apply, Y[:, :-2])
    g = alpha0 * jax.linear_transpose(forward_fn, jnp.zeros(m))(data.r)[0]
    x, _ = jax.scipy.sparse.linalg.cg(apply, g, tol=1e-12, maxiter=1000)
    bound = g @ x - alpha0 * (data.r @ data.r - data.rho) + a @ data.half**2
    return jnp.append(alpha0, a), eigenvalue, x, bound / eigenvalue


@partial(jax.jit, static_argnums=(3, 4, 5))
def _solve(forward_fn, data: _Data, rtol, rank, num_steps, max_rounds) -> LargeSolution:
    m = data.half.shape[0]
    U = jax.random.normal(jax.random.key(0), (m, rank + 2))
    alpha0 = 0.1 * jnp.sum(data.half**2) / data.rho
    penalty = 3 * alpha0 / data.rho
    worst = jnp.asarray(jnp.inf)
    first = jnp.zeros(1 + m), jnp.asarray(0.0), jnp.zeros(m), worst

    def go_on(carry):
        _, _, _, gap, num_rounds = carry
        return ~(gap <= rtol) & (num_rounds < max_rounds)

    def improve(carry):
        U, alpha0, best, _, num_rounds = carry
        U, alpha0 = _ascend(forward_fn, data, U, alpha0, penalty, num_steps)
        found = _dual(forward_fn, data, U, alpha0)
        found = (*found[:-1], jnp.where(found[1] > 0, found[-1], jnp.inf))
        better = found[-1] < best[-1]
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
        primal, violation = _parts(forward_fn, data, _rows(data, U))
        # tr W of an infeasible iterate is too large, to first order by α_0 times its violation;
        # that is only believed of small ones.
        gap = (best[-1] - primal + alpha0 * jnp.maximum(violation, 0)) / best[-1]
        small = (violation <= jnp.sqrt(rtol) * data.rho) & (gap >= -rtol)
        return U, alpha0, best, jnp.where(small, gap, jnp.inf), num_rounds + 1

    U, _, best, gap, num_rounds = lax.while_loop(go_on, improve, (U, alpha0, first, worst, 0))
    alpha, eigenvalue, x, value = best
    primal, violation = _parts(forward_fn, data, _rows(data, U))
    status = jnp.where(gap <= rtol, Status.CONVERGED, Status.MAX_STEPS)
    usable = jnp.isfinite(value) & (value > 0)
    status = jnp.where(usable, status, Status.FAILED).astype(jnp.int32)
    value = jnp.where(usable, value, jnp.nan)
    infeasibility = violation / data.rho
    return LargeSolution(
        *(jnp.where(usable, data.middle + x, jnp.nan), alpha, value, jnp.sqrt(value)),
        *(primal, gap, infeasibility, eigenvalue, status, num_rounds * num_steps),
    )


def rcc_matrix_free(
    forward_fn,
    y,
    rho,
    lo,
    hi,
    *,
    rank: int = 24,
    rtol: float = 1e-2,
    num_steps: int = 100,
    max_rounds: int = 20,
) -> LargeSolution:
    """The relaxed Chebyshev centre of one noise ball and a box, without any matrix.

        { x : ‖A x - y‖² <= ρ, lo <= x <= hi }

    For thousands of unknowns, where `rcc` would hold and factor m × m matrices. The radius it
    returns is an estimate, `certified_radius` proves one. Deterministic: the start is random, with
    a fixed key. Composes with `jit`; batches by `jax.lax.map`.

    Args:
      forward_fn: x -> A x, linear, in JAX; its transpose is taken automatically. A callable pytree,
        such as `problems.blur_operator(64).A`, may carry arrays that change without retracing.
      y: (n,) observations.
      rho: bound of the squared norm of the noise.
      lo: (m,) lower bounds.
      hi: (m,) upper bounds, above them.
      rank: columns of V; too few and the gap stays open.
      rtol: relative gap to stop at.
      num_steps: quasi-Newton steps between two looks at the gap.
      max_rounds: most such looks.

    Returns:
      `LargeSolution`.

    Raises:
      ValueError: shapes that do not match; NaN; `rho` not positive; lo >= hi; float64 is off.

    Reference:
      Eldar, Beck & Teboulle, (15) to (17); Burer & Monteiro, A nonlinear programming algorithm for
      solving semidefinite programs via low-rank factorization, Math. Programming 95 (2003).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> ones = jnp.ones(8)
      >>> s = chebyshev.rcc_matrix_free(lambda x: 2 * x, ones, 1.0, -ones, ones, rtol=1e-3)
      >>> round(float(s.radius), 2)
      0.5
    """
    lo = as_array("lo", lo, 1)
    hi = as_array("hi", hi, 1, lo.shape)
    check_order("lo", lo, hi)
    y, rho = as_array("y", y, 1), as_positive("rho", rho)
    for name, number in (("rank", rank), ("num_steps", num_steps), ("max_rounds", max_rounds)):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number!r}")
    if not rtol > 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol!r}")
    is_pytree = not jax.tree_util.all_leaves([forward_fn])
    forward_fn = forward_fn if is_pytree else jax.tree_util.Partial(forward_fn)
    middle = (lo + hi) / 2
    image = jax.eval_shape(forward_fn, middle)
    if image.shape != y.shape or image.dtype != jnp.float64:
        raise ValueError(
            f"forward_fn: expected to map shape {lo.shape} to {y.shape} in float64, got "
            f"{image.shape} in {image.dtype}"
        )
    data = _Data(y - forward_fn(middle), rho, (hi - lo) / 2, middle)
    return _solve(forward_fn, data, rtol, min(rank, lo.shape[0]), num_steps, max_rounds)
