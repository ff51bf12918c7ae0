"""The constraints as the solver sees them: divided by their scales, products in cheapest form.

A quadratic is a matrix Q_i; a slab is a vector v_i with Q_i = v_i v_i', for a box a multiple of a
unit vector, so that its products cost nothing. A cut is a product of two linear forms that are not
negative on the set, (a - u'x)(b - v'x) >= 0, so Q_i = -(u v' + v u')/2: indefinite, which harms
neither the dual, as long as Σ α_i Q_i ⪰ I, nor the method.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import cho_solve

from chebyshev.sets import Ellipsoids


class Scaled(NamedTuple):
    """The constraints divided by their scales: f_i(0) = d_i, and Q_i as matrices or by vectors."""

    Q: Array  # (p, m, m)
    weight: Array  # (b,): v = weight_j e_j
    rows: Array  # (q, m): v
    left: Array  # (c, m): -u of the cuts
    right: Array  # (c, m): v of the cuts
    g: Array  # (k, m)
    d: Array  # (k,)
    scale: Array  # (k,)


def scaled(sets: Ellipsoids) -> Scaled:
    """The constraints of `sets` in units of their scales."""
    Q = [F.T @ F / s for F, s in zip(sets.factors, sets.scale)]
    shift = [F.T @ t for F, t in zip(sets.factors, sets.targets)]
    g = sets.linear - jnp.array(shift).reshape(sets.linear.shape)
    d = sets.constant + jnp.array([t @ t for t in sets.targets])
    half, middle = (sets.hi - sets.lo) / 2, (sets.hi + sets.lo) / 2
    slab_half, slab_middle = (sets.slab_hi - sets.slab_lo) / 2, (sets.slab_hi + sets.slab_lo) / 2
    box_g = jnp.zeros((half.shape[0], sets.dim))
    if sets.coordinates:
        index = jnp.array(sets.coordinates)
        box_g = box_g.at[jnp.arange(half.shape[0]), index].set(-middle / half**2)
    rows = sets.normals / slab_half[:, None]
    slab_g = -rows * (slab_middle / slab_half)[:, None]
    return Scaled(
        jnp.stack(Q) if Q else jnp.zeros((0, sets.dim, sets.dim)),
        1 / half,
        rows,
        *(jnp.zeros((0, sets.dim)),) * 2,
        jnp.concatenate([g / sets.scale[:, None], box_g, slab_g]),
        jnp.concatenate(
            [d / sets.scale, (middle / half) ** 2 - 1, (slab_middle / slab_half) ** 2 - 1]
        ),
        jnp.concatenate([sets.scale, half**2, slab_half**2]),
    )


def frame(sets: Ellipsoids) -> tuple[Array, Array]:
    """A point in the middle of the constraints, and a length of the size of their intersection.

    Measured from there in that unit, nothing cancels and the squared radius is of order one,
    whatever the size of the data and wherever they lie. Neither carries derivatives: the solution
    does not depend on where it is measured from.
    """
    return _frame(jax.tree.map(lax.stop_gradient, sets))


@jax.custom_batching.sequential_vmap  # batched factorisations: see `interior_point.optimum`
def _frame(sets: Ellipsoids) -> tuple[Array, Array]:
    m = sets.dim
    half = jnp.concatenate([(sets.hi - sets.lo) / 2, (sets.slab_hi - sets.slab_lo) / 2])
    middle = jnp.concatenate([(sets.hi + sets.lo) / 2, (sets.slab_hi + sets.slab_lo) / 2])
    sides = jnp.concatenate([jnp.eye(m)[jnp.array(sets.coordinates, int)], sets.normals])
    rows = [F / jnp.sqrt(s) for F, s in zip(sets.factors, sets.scale)]
    right = [t / jnp.sqrt(s) for t, s in zip(sets.targets, sets.scale)]
    A = jnp.concatenate([*rows, sides / half[:, None]])
    b = jnp.concatenate([*right, middle / half])
    pull = jnp.sum(sets.linear / sets.scale[:, None], axis=0)
    # minimise ‖A x - b‖² + 2 pull'x, refined: only near its solution does nothing cancel.
    total = A.T @ A
    diagonal = jnp.diagonal(total)
    scale = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    factor = jnp.linalg.cholesky(scale[:, None] * total * scale + 1e-12 * jnp.eye(m))
    origin = jnp.zeros(m)
    for _ in range(3):
        slope = A.T @ (b - A @ origin) - pull
        origin = origin + scale * cho_solve((factor, True), scale * slope)
    unit = 1 / jnp.sqrt(jnp.min(diagonal))
    usable = jnp.isfinite(unit) & jnp.isfinite(origin).all()
    return jnp.where(usable, origin, 0.0), jnp.where(usable, unit, 1.0)


def smallest_eigenvalue(total: Array) -> tuple[Array, Array]:
    """A lower bound of the smallest eigenvalue, and whether it is positive to working precision.

    Of the matrix with unit diagonal, so that units of single coordinates do not matter.
    """
    diagonal = jnp.diagonal(total)
    scale = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    lowest = jnp.linalg.eigvalsh(scale[:, None] * total * scale)[0]
    return lowest * jnp.min(diagonal), (lowest > 1e-13) & jnp.all(diagonal > 0)


class Geometry:
    """Products with the matrices Q_i, each in its cheapest form."""

    def __init__(self, problem: Scaled, coordinates: tuple[int, ...]):
        self.problem = problem
        self.p, self.m, _ = problem.Q.shape
        self.b = len(coordinates)
        self.whole = coordinates == tuple(range(self.m))
        self.index = jnp.array(coordinates, int)

    def _take(self, X: Array) -> Array:
        return X if self.whole else X[self.index]

    def along(self, X: Array) -> Array:
        """V X: one row for each v."""
        weight = self.problem.weight.reshape(-1, *[1] * (X.ndim - 1))
        return jnp.concatenate([weight * self._take(X), self.problem.rows @ X])

    def combine(self, alpha: Array) -> Array:
        """Σ α_i Q_i."""
        problem, last = self.problem, self.p + self.b + self.problem.rows.shape[0]
        quadratics, boxes, slabs, cuts = jnp.split(alpha, [self.p, self.p + self.b, last])
        total = jnp.einsum("p,pij->ij", quadratics, problem.Q)
        total = total + (problem.rows.T * slabs) @ problem.rows
        product = (problem.left.T * cuts) @ problem.right
        total = total + (product + product.T) / 2
        return total.at[self.index, self.index].add(boxes * self.problem.weight**2)

    def inner(self, S: Array) -> Array:
        """tr(Q_i S), S symmetric."""
        rows = self.problem.rows
        return jnp.concatenate(
            [
                jnp.sum(self.problem.Q * S, axis=(1, 2)),
                self.problem.weight**2 * self._take(jnp.diagonal(S)),
                jnp.sum((rows @ S) * rows, axis=1),
                jnp.sum((self.problem.left @ S) * self.problem.right, axis=1),
            ]
        )

    def squares(self, x: Array) -> Array:
        """x'Q_i x."""
        quadratics = jnp.einsum("i,pij,j->p", x, self.problem.Q, x)
        cuts = (self.problem.left @ x) * (self.problem.right @ x)
        return jnp.concatenate([quadratics, self.along(x) ** 2, cuts])

    def values(self, x: Array) -> Array:
        """f_i(x)."""
        return self.squares(x) + 2 * self.problem.g @ x + self.problem.d

    def gradients(self, x: Array) -> Array:
        """Q_i x + g_i, (k, m): half the gradients of f_i."""
        along = self.along(x)
        boxes = jnp.zeros((self.b, self.m))
        boxes = boxes.at[jnp.arange(self.b), self.index].set(self.problem.weight * along[: self.b])
        slabs = self.problem.rows * along[self.b :, None]
        left, right = self.problem.left, self.problem.right
        cuts = (left * (right @ x)[:, None] + right * (left @ x)[:, None]) / 2
        return jnp.concatenate([self.problem.Q @ x, boxes, slabs, cuts]) + self.problem.g

    def schur(self, W: Array, inverse: Array) -> Array:
        """T_ij = tr(Q_i W Q_j Z⁻¹)."""
        found = self._schur_of_vectors(W, inverse)
        if not self.p:
            return found
        products = [W @ Q @ inverse for Q in self.problem.Q]
        left = jnp.stack([self.inner((X + X.T) / 2) for X in products], axis=1)  # (k, p)
        return jnp.concatenate([left, jnp.concatenate([left[self.p :].T, found])], axis=1)

    def _schur_of_vectors(self, W: Array, inverse: Array) -> Array:
        """T for slabs and cuts."""
        VW, VZ = self.along(W), self.along(inverse)
        slabs = self.along(VW.T) * self.along(VZ.T)
        left, right = self.problem.left, self.problem.right
        if not left.shape[0]:
            return slabs
        # Q = (l r' + r l')/2 for a cut, v v' for a slab.
        mixed = ((left @ VW.T) * (right @ VZ.T) + (right @ VW.T) * (left @ VZ.T)) / 2
        (LWL, LWR, RWR), (LZL, LZR, RZR) = (
            (left @ X @ left.T, left @ X @ right.T, right @ X @ right.T) for X in (W, inverse)
        )
        cuts = (LWR * LZR.T + LWR.T * LZR + LWL * RZR + RWR * LZL) / 4
        return jnp.block([[slabs, mixed.T], [mixed, cuts]])
