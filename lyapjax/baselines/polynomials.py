"""Polynomials of several variables: Taylor's, and the linear maps of sums of squares.

A polynomial is a vector of coefficients over the monomials of a `Basis`. Products with a known
polynomial, Lie derivatives and Gram forms are then sparse matrices, which CVXPY takes as they are.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array


def monomials(n: int, least: int, most: int) -> tuple[tuple[int, ...], ...]:
    """The exponents of all monomials of n variables with degrees from least to most."""
    found = []
    for degree in range(least, most + 1):
        for chosen in itertools.combinations_with_replacement(range(n), degree):
            found.append(tuple(chosen.count(i) for i in range(n)))
    return tuple(found)


class Basis:
    """The monomials of n variables up to a degree, and where each stands."""

    def __init__(self, n: int, most: int, least: int = 0):
        self.n, self.most = n, most
        self.exponents = monomials(n, least, most)
        self.place = {exponent: k for k, exponent in enumerate(self.exponents)}

    def __len__(self) -> int:
        return len(self.exponents)

    def times(self, polynomial: dict, target: "Basis") -> scipy.sparse.csr_matrix:
        """The matrix of p -> p times a known polynomial, from this basis to another."""
        rows, columns, values = [], [], []
        for column, exponent in enumerate(self.exponents):
            for other, value in polynomial.items():
                rows.append(target.place[tuple(a + b for a, b in zip(exponent, other))])
                columns.append(column)
                values.append(value)
        return _sparse(rows, columns, values, (len(target), len(self)))

    def derivative(self, field: list[dict], target: "Basis") -> scipy.sparse.csr_matrix:
        """The matrix of p -> ∇p · f."""
        rows, columns, values = [], [], []
        for column, exponent in enumerate(self.exponents):
            for i, component in enumerate(field):
                if not exponent[i]:
                    continue
                lower = tuple(e - (i == j) for j, e in enumerate(exponent))
                for other, value in component.items():
                    rows.append(target.place[tuple(a + b for a, b in zip(lower, other))])
                    columns.append(column)
                    values.append(exponent[i] * value)
        return _sparse(rows, columns, values, (len(target), len(self)))

    def gram(self, target: "Basis") -> scipy.sparse.csr_matrix:
        """The matrix of Q, column by column, -> z'Qz for the monomials z of this basis."""
        count = len(self)
        rows, columns = [], []
        for j, right in enumerate(self.exponents):
            for i, left in enumerate(self.exponents):
                rows.append(target.place[tuple(a + b for a, b in zip(left, right))])
                columns.append(j * count + i)
        return _sparse(rows, columns, np.ones(len(rows)), (len(target), count * count))

    def vector(self, polynomial: dict) -> np.ndarray:
        """Coefficients in this basis."""
        found = np.zeros(len(self))
        for exponent, value in polynomial.items():
            found[self.place[exponent]] += value
        return found

    def terms(self, coefficients) -> dict:
        """The polynomial with these coefficients, without its zeros."""
        return {e: float(c) for e, c in zip(self.exponents, coefficients) if c != 0}


def _sparse(rows, columns, values, shape) -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix((values, (rows, columns)), shape=shape)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficients", "center", "scale"],
    meta_fields=["exponents"],
)
@dataclasses.dataclass(frozen=True)
class Polynomial:
    """A polynomial as a JAX function, for every checker to read.

        p(x) = Σ_α c_α y^α,      y = T (x - centre)

    Attributes:
      coefficients: (N,) c.
      center: (n,) where it is expanded.
      scale: (n, n) T, or None for the identity.
      exponents: the N exponents α, tuples of n integers.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> p = ly.Polynomial(jnp.array([1.0, 2.0]), jnp.zeros(2), None, ((2, 0), (1, 1)))
      >>> float(p(jnp.array([3.0, 1.0])))
      15.0
    """

    coefficients: Array
    center: Array
    scale: Array | None
    exponents: tuple[tuple[int, ...], ...]

    def __call__(self, x: Array) -> Array:
        """p at (n,) x."""
        y = x - self.center
        y = y if self.scale is None else self.scale @ y
        exponents = np.asarray(self.exponents)
        # All powers at once, then n products of vectors: few steps for whoever reads the program.
        powers = jnp.stack([y**e for e in range(exponents.max() + 1)])
        columns = (powers[exponents[:, i], i] for i in range(exponents.shape[1]))
        return functools.reduce(jnp.multiply, columns) @ self.coefficients


def taylor(fn, x: np.ndarray, degree: int) -> list[dict]:
    """The Taylor polynomials about x of the components of a JAX function of (n,) vectors.

    f(x + y) = Σ_α ∂^α f(x) / α! y^α + O(|y|^(degree + 1)): exact for polynomials of that degree.
    """
    n = len(x)
    x = jnp.asarray(x)
    found: list[dict] = [{} for _ in range(jax.eval_shape(fn, x).shape[0])]
    derivative = fn
    for order in range(degree + 1):
        tensor = np.asarray(jax.jit(derivative)(x))
        for exponent in monomials(n, order, order):
            index = tuple(i for i, e in enumerate(exponent) for _ in range(e))
            weight = math.prod(math.factorial(e) for e in exponent)
            for component, value in zip(found, tensor[(slice(None), *index)]):
                if value != 0:
                    component[exponent] = float(value) / weight
        derivative = jax.jacfwd(derivative)
    return found


def substitute(field: list[dict], matrix: np.ndarray) -> list[dict]:
    """f(y) with y = M z, as polynomials of z, then M⁻¹ f: the field in the coordinates z."""
    n = matrix.shape[0]
    most = max((sum(e) for component in field for e in component), default=0)
    powers: dict = {tuple([0] * n): {tuple([0] * n): 1.0}}
    rows = [
        {tuple(int(j == k) for k in range(n)): matrix[i, j] for j in range(n)} for i in range(n)
    ]
    for exponent in monomials(n, 1, most):
        i = next(k for k, e in enumerate(exponent) if e)
        lower = tuple(e - (k == i) for k, e in enumerate(exponent))
        powers[exponent] = multiply(powers[lower], rows[i])
    replaced = []
    for component in field:
        total: dict = {}
        for exponent, value in component.items():
            for other, factor in powers[exponent].items():
                total[other] = total.get(other, 0.0) + value * factor
        replaced.append(total)
    inverse = np.linalg.inv(matrix)
    found = []
    for row in inverse:
        total = {}
        for weight, component in zip(row, replaced):
            for exponent, value in component.items():
                total[exponent] = total.get(exponent, 0.0) + weight * value
        found.append(total)
    return found


def multiply(a: dict, b: dict) -> dict:
    """The product of two polynomials."""
    found: dict = {}
    for left, x in a.items():
        for right, y in b.items():
            exponent = tuple(p + q for p, q in zip(left, right))
            found[exponent] = found.get(exponent, 0.0) + x * y
    return found
