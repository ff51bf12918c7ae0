"""Test problems against the check values of ERRATA and against quadrature."""

import numpy as np
import pytest
import scipy.integrate

from chebyshev import problems


def test_heat_has_the_known_values():
    A, b, x = problems.heat(90, 1.0)
    assert x.sum() == pytest.approx(8.05331923, abs=1e-8)
    assert x @ x == pytest.approx(5.43809534, abs=1e-8)
    assert x.max() == pytest.approx(0.99691358, abs=1e-8)
    assert x.argmax() == 10
    assert np.linalg.norm(A, 2) == pytest.approx(0.35616829, abs=1e-8)
    assert (np.triu(A, 1) == 0).all()
    np.testing.assert_array_equal(b, A @ x)


def test_blur_has_the_known_values():
    A, _, x = problems.blur(16, 4, 0.8)
    assert x.sum() == 143
    assert x @ x == 421
    assert np.unique(x, return_counts=True)[1].tolist() == [198, 14, 16, 15, 13]
    assert np.linalg.cond(A) == pytest.approx(120.603, abs=1e-3)


def test_heat_is_a_quadrature_of_its_kernel():
    # Row sums approximate the integral of the kernel from 0 to the end of the row's interval.
    n = 400
    A = problems.heat(n).A
    for i in (100, 399):
        end = (i + 1) / n
        integral = scipy.integrate.quad(
            lambda t: t**-1.5 / (2 * np.sqrt(np.pi)) * np.exp(-1 / (4 * t)), 0, end
        )[0]
        assert A[i].sum() == pytest.approx(integral, rel=1e-3)


@pytest.mark.parametrize("name", ["shaw", "gravity", "foxgood"])
def test_the_others_are_quadratures_of_their_kernels(name):
    n = 200
    A, b, x = getattr(problems, name)(n)
    np.testing.assert_allclose(b, A @ x)
    if name == "shaw":
        ends, i, s = (-np.pi / 2, np.pi / 2), 30, (30.5) * np.pi / n - np.pi / 2

        def kernel(t):
            u = np.pi * (np.sin(s) + np.sin(t))
            return (np.cos(s) + np.cos(t)) ** 2 * (np.sin(u) / u) ** 2

        def truth(t):
            return 2 * np.exp(-6 * (t - 0.8) ** 2) + np.exp(-2 * (t + 0.5) ** 2)
    else:
        ends, i, s = (0, 1), 30, 30.5 / n

        def kernel(t):
            if name == "gravity":
                return 0.25 / (0.0625 + (s - t) ** 2) ** 1.5
            return np.sqrt(s * s + t * t)

        def truth(t):
            return t if name == "foxgood" else np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)

    integral = scipy.integrate.quad(lambda t: kernel(t) * truth(t), *ends)[0]
    assert b[i] == pytest.approx(integral, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "n"), [("heat", 0), ("shaw", 5), ("blur", 2.5), ("gravity", True), ("phillips", 6)]
)
def test_bad_sizes_are_named(name, n):
    with pytest.raises(ValueError, match=r"^[nN]: expected a positive integer"):
        getattr(problems, name)(n)


def test_deriv2_phillips_and_baart_have_their_closed_data():
    # Known integrals of kernel times solution; the midpoint rule is off by h².
    n = 400
    s = (np.arange(n) + 0.5) / n
    np.testing.assert_allclose(problems.deriv2(n).b, (s**3 - s) / 6, atol=1e-5)
    u = 12 * s - 6
    known = (6 - np.abs(u)) * (1 + np.cos(np.pi * u / 3) / 2)
    known += 9 / (2 * np.pi) * np.sin(np.pi * np.abs(u) / 3)
    np.testing.assert_allclose(problems.phillips(n).b, known, atol=1e-3)
    u = np.pi / 2 * s
    np.testing.assert_allclose(problems.baart(n).b, 2 * np.sinh(u) / u, rtol=1e-4)


def test_second_differences_undo_deriv2():
    A, b, x = problems.deriv2(200)
    np.testing.assert_allclose(np.diff(b, 2)[1:-1] * 200**2, x[2:-2], rtol=1e-9)
    np.testing.assert_array_equal(A, A.T)
