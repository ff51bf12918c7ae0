"""Conjecture 3.9 is false: two counterexamples, proved in exact rational arithmetic.

The draft conjectures that, under the conditions of Proposition 3.8,

    A = D(H - λ*I - α P_z*),        P_z = z z' / ‖z‖²

is strictly stable: H ≥ 0 irreducible, H z* = λ* z* with z* > 0, D diagonal and positive, α > 0. By
Perron–Frobenius such a λ* is the spectral radius, so every condition is a statement about rational
numbers that can be checked without rounding, and so is the number of eigenvalues of A in the right
half plane: the sign changes in the first column of Routh's array of det(s I - A).

`prove` checks all of it and takes nothing from the examples on trust.
"""

import dataclasses
import itertools
from fractions import Fraction

import numpy as np

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """Rational data of a candidate: all that Conjecture 3.9 speaks of.

        A = D(H - λ*I - α P_z*)

    Attributes:
      H: n rows of n fractions.
      z: n fractions, the claimed eigenvector, of any length.
      lam: the claimed eigenvalue.
      d: n fractions, the diagonal of D.
      alpha: α.

    Examples:
      >>> from klcontrol import counterexample
      >>> counterexample.arbitrary_weights().lam
      Fraction(1, 1)
    """

    H: Matrix
    z: tuple[Fraction, ...]
    lam: Fraction
    d: tuple[Fraction, ...]
    alpha: Fraction


@dataclasses.dataclass(frozen=True)
class Proof:
    """What was found, exactly, about a candidate.

        det(s I - A) = s^n + c_1 s^(n-1) + … + c_n

    Attributes:
      hypotheses: whether each hypothesis of Proposition 3.8 holds, by name.
      polynomial: 1, c_1, …, c_n.
      routh: first column of Routh's array; it ends early where an entry is zero.
      unstable: number of eigenvalues with positive real part; None where Routh's array has a zero
        in its first column and so decides nothing.
      refutes: all hypotheses hold, and some eigenvalue has a positive real part.

    Examples:
      >>> from klcontrol import counterexample
      >>> proof = counterexample.prove(counterexample.arbitrary_weights())
      >>> proof.refutes, proof.unstable
      (True, 2)
    """

    hypotheses: dict[str, bool]
    polynomial: tuple[Fraction, ...]
    routh: tuple[Fraction, ...]
    unstable: int | None
    refutes: bool


def _rational(rows) -> Matrix:
    return tuple(tuple(Fraction(v) for v in row) for row in rows)


def arbitrary_weights() -> Counterexample:
    """The smaller one: D any positive diagonal matrix, as Proposition 3.8 allows.

        H = [[0, 0, 10], [1/5000, 499/500, 0], [0, 1, 0]],   D = diag(1/500, 1, 1/500),   α = 1

    Args:

    Returns:
      `Counterexample`; two eigenvalues of A are 0.00221 ± 0.01327i.

    Raises:
      Nothing.

    Reference:
      Conjecture 3.9, which it refutes.

    Examples:
      >>> from klcontrol import counterexample
      >>> counterexample.prove(counterexample.arbitrary_weights()).refutes
      True
    """
    return Counterexample(
        H=_rational([[0, 0, 10], ["1/5000", "499/500", 0], [0, 1, 0]]),
        z=(Fraction(1), Fraction(1, 10), Fraction(1, 10)),
        lam=Fraction(1),
        d=(Fraction(1, 500), Fraction(1), Fraction(1, 500)),
        alpha=Fraction(1),
    )


def invariant_weights(alpha=1) -> Counterexample:
    """The stronger one: D is the invariant law of Q itself, as in the algorithm.

        H = [[0.999, 1e-5, 0], [0, 0, 100], [1, 0, 0]],   Q = H with its rows divided by their sums

    Args:
      alpha: α, converted to a fraction; unstable from about 0.3 to about 30.

    Returns:
      `Counterexample` whose d is the invariant law of Q, solved for exactly.

    Raises:
      ValueError: alpha is no number.

    Reference:
      Conjecture 3.9, which it refutes for the weights that Algorithm 3.3 has.

    Examples:
      >>> from klcontrol import counterexample
      >>> [counterexample.prove(counterexample.invariant_weights(a)).refutes for a in ("1/10", 1)]
      [False, True]
    """
    H = _rational([["999/1000", "1/100000", 0], [0, 0, 100], [1, 0, 0]])
    q = tuple(tuple(v / sum(row) for v in row) for row in H)
    z = (Fraction(1, 100), Fraction(1), Fraction(1, 100))
    try:
        alpha = Fraction(alpha)
    except (TypeError, ValueError) as error:
        raise ValueError(f"alpha: expected a rational number, got {alpha!r}") from error
    return Counterexample(H, z, Fraction(1), _invariant_law(q), alpha)


def from_policy(policy, z, alpha) -> Counterexample:
    """The candidate that an optimal policy and a vector make, D the invariant law of its Q.

        H = diag(z) P diag(z)⁻¹,    λ* = 1,    Q = H with its rows divided by their sums

    Every irreducible H with λ* = 1 is of this form, so a search can range over all of them. Floats
    are taken as the rational numbers they are, and the rows of `policy` divided by their sums.

    Args:
      policy: n rows of n nonnegative numbers, irreducible.
      z: n positive numbers.
      alpha: α.

    Returns:
      `Counterexample`, whose hypotheses hold exactly but for the sign of alpha.

    Raises:
      ValueError: an entry that is no finite number, or a row or z that is not positive.

    Reference:
      Section 2: p*_ij = h_ij z*_j / (λ* z*_i).

    Examples:
      >>> from klcontrol import counterexample
      >>> counterexample.prove(counterexample.from_policy([[1, 1], [1, 0]], [1, 3], 1)).unstable
      0
    """
    try:
        P, z, alpha = _rational(policy), tuple(map(Fraction, z)), Fraction(alpha)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"policy, z, alpha: expected finite numbers: {error}") from error
    if not all(v > 0 for v in z) or not all(sum(row) > 0 for row in P):
        raise ValueError("policy, z: expected rows with a positive sum, and a positive z")
    P = [[v / sum(row) for v in row] for row in P]
    H = tuple(tuple(v * z[i] / z[j] for j, v in enumerate(row)) for i, row in enumerate(P))
    q = tuple(tuple(v / sum(row) for v in row) for row in H)
    return Counterexample(H, z, Fraction(1), _invariant_law(q), alpha)


def prove(candidate: Counterexample) -> Proof:
    """Decide exactly whether a candidate refutes Conjecture 3.9.

        hypotheses of Proposition 3.8,  and  Routh's array of det(s I - A) changes sign

    Args:
      candidate: `Counterexample`; nothing in it is taken for granted.

    Returns:
      `Proof`. Nothing in it has been rounded.

    Raises:
      ValueError: the shapes do not fit, by the field's name.

    Reference:
      Proposition 3.8 and Conjecture 3.9.

    Examples:
      >>> import dataclasses
      >>> from klcontrol import counterexample
      >>> good = counterexample.arbitrary_weights()
      >>> counterexample.prove(dataclasses.replace(good, lam=2 * good.lam)).refutes
      False
    """
    H, z, n = candidate.H, candidate.z, len(candidate.H)
    for name, lengths in (
        ("H", [len(row) for row in H]),
        ("z", [len(z)]),
        ("d", [len(candidate.d)]),
    ):
        if set(lengths) != {n}:
            raise ValueError(f"{name}: expected {n} entries beside {n} rows of H, got {lengths}")
    product = [sum(h * v for h, v in zip(row, z)) for row in H]
    hypotheses = {
        "H is nonnegative": all(v >= 0 for row in H for v in row),
        "H is irreducible": _irreducible(H),
        "H z = lam z": product == [candidate.lam * v for v in z],
        "z is positive": all(v > 0 for v in z),
        "D is positive": all(v > 0 for v in candidate.d),
        "alpha is positive": candidate.alpha > 0,
    }
    polynomial = _characteristic_polynomial(_matrix(candidate)) if any(z) else (Fraction(1),)
    routh = _routh_column(polynomial)
    decided = len(routh) == n + 1
    unstable = sum(a * b < 0 for a, b in itertools.pairwise(routh)) if decided else None
    return Proof(
        hypotheses, polynomial, routh, unstable, all(hypotheses.values()) and bool(unstable)
    )


def as_arrays(candidate: Counterexample) -> dict[str, np.ndarray]:
    """The numbers of a candidate in float64, to draw and to simulate.

        q_ij = h_ij / Σ_k h_ik,      c_i = -log Σ_k h_ik,      β = 1

    Args:
      candidate: `Counterexample`.

    Returns:
      H (n, n), q (n, n), cost (n,), z (n,) of unit 2-norm, d (n,), and A (n, n), by name.

    Raises:
      Nothing.

    Reference:
      The definition of H in section 2, read backwards.

    Examples:
      >>> from klcontrol import counterexample
      >>> arrays = counterexample.as_arrays(counterexample.invariant_weights())
      >>> arrays["q"].sum(axis=1).round(12).tolist()
      [1.0, 1.0, 1.0]
    """
    H = np.array(candidate.H, dtype=float)
    z = np.array(candidate.z, dtype=float)
    sums = H.sum(axis=1)
    return {
        "H": H,
        "q": H / sums[:, None],
        "cost": -np.log(sums),
        "z": z / np.linalg.norm(z),
        "d": np.array(candidate.d, dtype=float),
        "A": np.array(_matrix(candidate), dtype=float),
    }


def _matrix(c: Counterexample) -> Matrix:
    """A = D(H - λI - αP_z)."""
    square = sum(v * v for v in c.z)
    return tuple(
        tuple(
            c.d[i] * (h - (c.lam if i == j else 0) - c.alpha * c.z[i] * c.z[j] / square)
            for j, h in enumerate(row)
        )
        for i, row in enumerate(c.H)
    )


def _irreducible(H: Matrix) -> bool:
    """Whether every state leads to every other, by reachability from and to the first."""
    n = len(H)

    def reached(edge) -> set[int]:
        found, frontier = {0}, [0]
        while frontier:
            i = frontier.pop()
            new = [j for j in range(n) if edge(i, j) and j not in found]
            found.update(new)
            frontier += new
        return found

    return len(reached(lambda i, j: H[i][j] != 0)) == len(reached(lambda i, j: H[j][i] != 0)) == n


def _characteristic_polynomial(A: Matrix) -> tuple[Fraction, ...]:
    """1, c_1, …, c_n of det(s I - A), by Faddeev and LeVerrier."""
    n = len(A)
    identity = [[Fraction(i == j) for j in range(n)] for i in range(n)]
    M, coefficients = identity, [Fraction(1)]
    for k in range(1, n + 1):
        AM = [[sum(A[i][m] * M[m][j] for m in range(n)) for j in range(n)] for i in range(n)]
        c = -sum(AM[i][i] for i in range(n)) / k
        coefficients.append(c)
        M = [[AM[i][j] + c * identity[i][j] for j in range(n)] for i in range(n)]
    return tuple(coefficients)


def _routh_column(polynomial: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """First column of Routh's array, up to the first zero in it."""
    upper, lower = list(polynomial[::2]), list(polynomial[1::2])
    column = [upper[0]]
    while lower and lower[0] != 0:
        column.append(lower[0])
        padded = [*lower, Fraction(0)]
        following = [
            upper[k + 1] - upper[0] * padded[k + 1] / lower[0] for k in range(len(upper) - 1)
        ]
        upper, lower = lower, following
    return tuple(column)


def _invariant_law(q: Matrix) -> tuple[Fraction, ...]:
    """The law d with d'q = d', by elimination; q irreducible."""
    n = len(q)
    # The equations (q' - I) d = 0, the last replaced by Σ d = 1.
    rows = [[q[j][i] - (i == j) for j in range(n)] + [Fraction(0)] for i in range(n - 1)]
    rows.append([Fraction(1)] * (n + 1))
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k] != 0)
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [v / rows[k][k] for v in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [v - rows[i][k] * w for v, w in zip(rows[i], rows[k])]
    return tuple(row[n] for row in rows)
