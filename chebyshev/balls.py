"""The constraints in Arb's balls, and positive definiteness proved there."""

import numpy as np
import scipy.linalg
from flint import arb, arb_mat, ctx

from chebyshev.sets import Ellipsoids

BITS = 64


def ball_column(values) -> arb_mat:
    """A vector of floats, each exact, as a column."""
    return arb_mat([[arb(v)] for v in np.asarray(values).tolist()])


def ball_matrix(values) -> arb_mat:
    """A matrix of floats, each exact."""
    values = np.asarray(values)
    return arb_mat(*values.shape, [arb(v) for v in values.ravel().tolist()])


def up(x: arb) -> float:
    """A float that is not below x."""
    return float(np.nextafter(float(x.upper()), np.inf)) if x.is_finite() else float("inf")


def down(x: arb) -> float:
    """A float that is not above x."""
    return float(np.nextafter(float(x.lower()), -np.inf)) if x.is_finite() else float("-inf")


class Exact:
    """The constraints in ball arithmetic, from the numbers that the user's sets hold."""

    def __init__(self, sets: Ellipsoids, cuts: np.ndarray):
        self.m = sets.dim
        self.coordinates = sets.coordinates
        self.factors = [ball_matrix(F) for F in sets.factors]
        self.targets = [ball_column(t) for t in sets.targets]
        self.linear = [ball_column(v) for v in sets.linear]
        self.constant = [arb(c) for c in sets.constant.tolist()]
        self.normals = [ball_column(v) for v in sets.normals]

        def pairs(lo, hi):
            return [(arb(a), arb(b)) for a, b in zip(lo.tolist(), hi.tolist())]

        self.bounds = pairs(sets.lo, sets.hi)
        self.slab_bounds = pairs(sets.slab_lo, sets.slab_hi)
        self.cuts = [self._product(i, j) for i, j in cuts.tolist()]

    def _form(self, number: int) -> tuple[arb_mat, arb]:
        """u and b of the linear form b - u'x >= 0 of that number, in units of its half width."""
        j, lower_side = divmod(number, 2)
        if j < len(self.bounds):
            v, (lo, hi) = arb_mat(self.m, 1), self.bounds[j]
            v[self.coordinates[j], 0] = 1
        else:
            j -= len(self.bounds)
            v, (lo, hi) = self.normals[j], self.slab_bounds[j]
        half = (hi - lo) / 2
        return (v * (-1 / half), -lo / half) if lower_side else (v * (1 / half), hi / half)

    def _product(self, i: int, j: int) -> tuple[arb_mat, arb, arb_mat, arb] | None:
        """The two forms of a cut; None where none is in use."""
        return None if i < 0 else (*self._form(i), *self._form(j))

    def values_and_gradients(self, x: arb_mat) -> tuple[list[arb], list[arb_mat]]:
        """f_i(x), and Q_i x + g_i as columns."""
        values, gradients = [], []
        for F, t, h, c in zip(self.factors, self.targets, self.linear, self.constant):
            miss = F * x - t
            square = (miss.transpose() * miss)[0, 0]
            values.append(square + 2 * (h.transpose() * x)[0, 0] + c)
            gradients.append(F.transpose() * miss + h)
        for j, (lo, hi) in zip(self.coordinates, self.bounds):
            values.append((x[j, 0] - lo) * (x[j, 0] - hi))
            gradient = arb_mat(self.m, 1)
            gradient[j, 0] = x[j, 0] - (lo + hi) / 2
            gradients.append(gradient)
        for v, (lo, hi) in zip(self.normals, self.slab_bounds):
            along = (v.transpose() * x)[0, 0]
            values.append((along - lo) * (along - hi))
            gradients.append(v * (along - (lo + hi) / 2))
        for cut in self.cuts:
            if cut is None:
                values.append(arb(-1))
                gradients.append(arb_mat(self.m, 1))
                continue
            u, a, v, b = cut
            r, s = a - (u.transpose() * x)[0, 0], b - (v.transpose() * x)[0, 0]
            values.append(-r * s)
            gradients.append((u * s + v * r) * (arb(1) / 2))
        return values, gradients

    def combine(self, alpha) -> arb_mat:
        """Σ α_i Q_i."""
        alpha = [arb(float(a)) for a in alpha]
        total = arb_mat(self.m, self.m)
        for a, F in zip(alpha, self.factors):
            total += (F.transpose() * F) * a
        first = len(self.factors)
        for a, j in zip(alpha[first:], self.coordinates):
            total[j, j] += a
        first += len(self.coordinates)
        for a, v in zip(alpha[first:], self.normals):
            total += (v * v.transpose()) * a
        used = [(a, cut) for a, cut in zip(alpha[first + len(self.normals) :], self.cuts) if cut]
        if used:
            # Σ α (u v' + v u')/2 as one product of matrices.
            left = arb_mat([(u * a).entries() for a, (u, *_) in used])
            right = arb_mat([v.entries() for _, (_, _, v, _) in used])
            product = left.transpose() * right
            total -= (product + product.transpose()) * (arb(1) / 2)
        return total

    def traces_of_square(self, L: arb_mat) -> list[arb]:
        """tr(Q_i L L')."""

        def square(entries):
            return sum((v * v for v in entries), arb(0))

        found = [square((F * L).entries()) for F in self.factors]
        found += [square(L[j, i] for i in range(self.m)) for j in self.coordinates]
        found += [square((v.transpose() * L).entries()) for v in self.normals]
        for cut in self.cuts:
            if cut is None:
                found.append(arb(0))
            else:
                u, _, v, _ = cut
                pair = (u.transpose() * L).entries(), (v.transpose() * L).entries()
                found.append(-sum((a * b for a, b in zip(*pair)), arb(0)))
        return found


def is_positive_definite(matrix: arb_mat) -> bool:
    """Proof by Gershgorin's circles after an approximate congruence to the identity."""
    m = matrix.nrows()
    middle = np.array([float(v) for v in matrix.entries()]).reshape(m, m)
    try:
        factor = scipy.linalg.cholesky(middle, lower=True)
    except (scipy.linalg.LinAlgError, ValueError):
        return False
    R = ball_matrix(scipy.linalg.solve_triangular(factor, np.eye(m), lower=True))
    image = R * matrix * R.transpose()
    for i in range(m):
        row = [image[i, j] for j in range(m)]
        others = sum((abs(v) for j, v in enumerate(row) if j != i), arb(0))
        if not row[i] > others:
            return False
    return True


def is_inside(sets: Ellipsoids, x: np.ndarray) -> bool:
    """Whether f_i(x) < 0 for all i, proved."""
    old, ctx.prec = ctx.prec, BITS
    try:
        values, _ = Exact(sets, np.zeros((0, 2), int)).values_and_gradients(ball_column(x))
        return all(value < 0 for value in values)
    finally:
        ctx.prec = old


def proved_infimum(sets: Ellipsoids, alpha: np.ndarray, x: np.ndarray) -> float:
    """A proved lower bound of inf Σ α_i f_i, near its value at x; -inf if none could be proved."""
    old, ctx.prec = ctx.prec, BITS
    try:
        exact = Exact(sets, np.zeros((0, 2), int))
        total = exact.combine(alpha)
        middle = np.array([float(v) for v in total.entries()]).reshape(exact.m, exact.m)
        lowest = arb(0.5 * float(np.linalg.eigvalsh(middle)[0]))
        shift = arb_mat(exact.m, exact.m)
        for i in range(exact.m):
            shift[i, i] = lowest
        if not lowest > 0 or not is_positive_definite(total - shift):
            return float("-inf")
        values, gradients = exact.values_and_gradients(ball_column(x))
        r = arb_mat(exact.m, 1)
        for a, gradient in zip(alpha.tolist(), gradients):
            r += gradient * arb(a)
        value = sum((arb(a) * f for a, f in zip(alpha.tolist(), values)), arb(0))
        return down(value - (r.transpose() * r)[0, 0] / lowest)
    finally:
        ctx.prec = old
