"""Operation counts against operations that are counted."""

import pytest

import poisson


class Counted:
    """A number that counts the operations done with it."""

    operations = 0

    def __init__(self, value):
        self.value = value

    def _with(self, other, function):
        Counted.operations += 1
        return Counted(function(self.value, getattr(other, "value", other)))

    def __add__(self, other):
        return self._with(other, lambda x, y: x + y)

    def __sub__(self, other):
        return self._with(other, lambda x, y: x - y)

    def __mul__(self, other):
        return self._with(other, lambda x, y: x * y)

    def __truediv__(self, other):
        return self._with(other, lambda x, y: x / y)


def general(m):
    """The paper's general algorithm with a shared denominator, on counted numbers."""
    a, b, c, d = Counted(-1.0), Counted(2.0), Counted(-1.0), Counted(1.0)
    alpha, rho = [c / b], [d / b]
    for i in range(1, m):
        pivot = b - a * alpha[-1]
        if i < m - 1:
            alpha.append(c / pivot)
        rho.append((d - a * rho[-1]) / pivot)
    x = [rho[-1]]
    for i in reversed(range(m - 1)):
        x.append(rho[i] - alpha[i] * x[-1])
    return [v.value for v in reversed(x)]


def special(m):
    """The paper's listing with stored fractions, on counted numbers."""
    v = [Counted(1.0) for _ in range(m)]
    fraction = [(i + 1) / (i + 2) for i in range(m)]
    v[0] = v[0] * fraction[0]
    for i in range(1, m):
        v[i] = (v[i] + v[i - 1]) * fraction[i]
    for i in reversed(range(m - 1)):
        v[i] = v[i] + v[i + 1] * fraction[i]
    return [x.value for x in v]


@pytest.mark.parametrize("m", [1, 2, 3, 10, 77])
@pytest.mark.parametrize(("method", "algorithm"), [("thomas", general), ("toeplitz", special)])
def test_counts_are_exact(method, algorithm, m):
    Counted.operations = 0
    x = algorithm(m)
    expected = [(i + 1) * (m - i) / 2 for i in range(m)]
    assert x == pytest.approx(expected)
    count = Counted.operations - (m == 1 and method == "thomas")  # one unknown needs no α
    assert count == poisson.flops(method, m + 2)


def test_leading_orders_and_bad_method():
    assert poisson.flops("dense_lu", 1002) == round(2e9 / 3) + 2 * 10**6
    assert 70 < poisson.flops("green", 10**6 + 2) / 10**6 < 76
    with pytest.raises(ValueError, match="method: expected one of"):
        poisson.flops("cholesky", 10)
    with pytest.raises(ValueError, match="n: expected at least 3"):
        poisson.flops("thomas", 2)
