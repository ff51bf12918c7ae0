"""The exact solution of the discrete equations, in rational arithmetic on the host.

What floating-point results are judged by: no rounding anywhere, and nothing shared with the
solvers but the weights of the rules. Every floating-point number is an integer over a power of two,
so the two prefix sums of the Green's function are sums of integers.
"""

from fractions import Fraction

import numpy as np

from poisson.certificate import check_order
from poisson.discretisation import DENOMINATOR, MIN_POINTS, weighted_source
from poisson.systems import check_scalar, check_vector


def rational_solution(f, *, left=0.0, right=0.0, order: int = 2) -> list[Fraction]:
    """The exact solution v* of the discrete equations for the given floating-point numbers.

        N² (-v_(i-1) + 2 v_i - v_(i+1)) = f_i

    or the rule of `order` applied to f, without rounding.

    Args:
      f: (n,) right-hand side at the grid points, boundary included; concrete values.
      left: u(0).
      right: u(1).
      order: 2, 4 or 6.

    Returns:
      List of n `fractions.Fraction`. About 15 seconds for a million points.

    Raises:
      ValueError: a shape, dtype, order or non-finite f, by the argument's name.

    Reference:
      Not in the paper.

    Examples:
      >>> import poisson
      >>> poisson.rational_solution([0.0, 1.0, 3.0, 0.0])
      [Fraction(0, 1), Fraction(5, 27), Fraction(7, 27), Fraction(0, 1)]
    """
    order = check_order(order)
    check_vector("f", f, MIN_POINTS[order])
    values = np.asarray(f)  # not JAX's copy, which without x64 would be rounded
    N = len(values) - 1
    ratios = [float(v).as_integer_ratio() for v in values]
    unit = max(q for _, q in ratios)
    integers = np.array([p * (unit // q) for p, q in ratios], dtype=object)
    rule = weighted_source(integers, order, concatenate=np.concatenate)

    scale = DENOMINATOR[order] * unit * N**3  # (A/h²)⁻¹ has N³ below, the rule its denominator
    for name, value in (("left", left), ("right", right)):
        check_scalar(name, value)
    left, right = Fraction(float(left)), Fraction(float(right))
    above = sum((N - j) * r for j, r in enumerate(rule, 1))
    below = 0
    v = [left]
    for i, r in enumerate(rule, 1):
        below += i * r
        above -= (N - i) * r
        inner = Fraction((N - i) * below + i * above, scale)
        v.append(inner + (left * (N - i) + right * i) / N if left or right else inner)
    return [*v, right]
