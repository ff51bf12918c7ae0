"""Conjecture 3.9 is refuted exactly; wrong candidates are not, whatever is wrong with them."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from flint import acb_mat, fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st

from klcontrol import counterexample as ce


def balls(candidate):
    """Eigenvalues of A in ball arithmetic, enclosed one by one."""
    n = len(candidate.H)
    square = sum(v * v for v in candidate.z)

    def entry(i, j):
        h = candidate.H[i][j] - (candidate.lam if i == j else 0)
        value = candidate.d[i] * (h - candidate.alpha * candidate.z[i] * candidate.z[j] / square)
        return fmpq(value.numerator, value.denominator)

    matrix = fmpq_mat(n, n, [entry(i, j) for i in range(n) for j in range(n)])
    return acb_mat(matrix).eig(multiple=True)


@pytest.mark.parametrize("candidate", [ce.arbitrary_weights(), ce.invariant_weights()])
def test_both_refute_the_conjecture_and_ball_arithmetic_agrees(candidate):
    proof = ce.prove(candidate)
    assert all(proof.hypotheses.values())
    assert proof.refutes
    assert proof.unstable == 2
    assert sum(bool(value.real > 0) for value in balls(candidate)) == 2
    assert all(isinstance(v, Fraction) for v in (*proof.polynomial, *proof.routh))


def test_the_published_eigenvalues():
    values = np.linalg.eigvals(ce.as_arrays(ce.arbitrary_weights())["A"])
    top = values[np.argmax(values.real)]
    assert top.real == pytest.approx(0.00221, abs=5e-6)
    assert abs(top.imag) == pytest.approx(0.01327, abs=5e-6)


def test_the_routh_product_test_of_a_cubic_fails_for_the_first():
    _, a, b, c = ce.prove(ce.arbitrary_weights()).polynomial
    assert a > 0
    assert c > 0
    assert a * b < c


@pytest.mark.parametrize(
    ("alpha", "unstable"), [("1/10", 0), (100, 0), ("2/5", 2), (1, 2), (20, 2)]
)
def test_the_second_is_unstable_in_between_only(alpha, unstable):
    proof = ce.prove(ce.invariant_weights(alpha))
    assert proof.unstable == unstable
    assert proof.refutes == (unstable > 0)


def test_the_weights_of_the_second_are_the_invariant_law_exactly():
    candidate = ce.invariant_weights()
    q = [[v / sum(row) for v in row] for row in candidate.H]
    d = candidate.d
    assert sum(d) == 1
    assert all(sum(d[i] * q[i][j] for i in range(3)) == d[j] for j in range(3))


WRONG = {
    "H is nonnegative": lambda c: {"H": _put(c.H, 0, 0, Fraction(-1))},
    "H is irreducible": lambda c: {"H": (*c.H[:2], (Fraction(0),) * 3)},
    "H z = lam z": lambda c: {"H": _put(c.H, 1, 1, c.H[1][1] + Fraction(1, 10**30))},
    "z is positive": lambda c: {"z": tuple(-v for v in c.z)},
    "D is positive": lambda c: {"d": (-c.d[0], *c.d[1:])},
    "alpha is positive": lambda c: {"alpha": -c.alpha},
}


def _put(H, i, j, value):
    rows = [list(row) for row in H]
    rows[i][j] = value
    return tuple(map(tuple, rows))


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("candidate", [ce.arbitrary_weights(), ce.invariant_weights()])
def test_a_candidate_with_one_hypothesis_broken_refutes_nothing(candidate, name):
    proof = ce.prove(dataclasses.replace(candidate, **WRONG[name](candidate)))
    assert not proof.hypotheses[name]
    assert not proof.refutes


def test_equal_weights_are_stable_as_proposition_3_8_says():
    candidate = dataclasses.replace(ce.arbitrary_weights(), d=(Fraction(1),) * 3)
    proof = ce.prove(candidate)
    assert all(proof.hypotheses.values())
    assert proof.unstable == 0


def test_a_zero_in_the_first_column_decides_nothing():
    # H = [[0, 1], [1, 0]], z = (1, 1) and α = -4 make the trace of A zero.
    one = Fraction(1)
    zero_trace = ce.Counterexample(
        ((0 * one, one), (one, 0 * one)), (one, one), one, (one, one), Fraction(-2)
    )
    proof = ce.prove(zero_trace)
    assert proof.polynomial[1] == 0
    assert proof.unstable is None
    assert not proof.refutes


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(2, 4))
def test_the_count_is_that_of_ball_arithmetic(data, n):
    numbers = st.fractions(min_value=0, max_value=3, max_denominator=20)
    H = tuple(tuple(data.draw(numbers) for _ in range(n)) for _ in range(n))
    z = tuple(data.draw(numbers) + 1 for _ in range(n))
    d = tuple(data.draw(numbers) + Fraction(1, 100) for _ in range(n))
    candidate = ce.Counterexample(H, z, data.draw(numbers), d, data.draw(numbers))
    proof = ce.prove(candidate)
    if proof.unstable is None:
        return
    values = balls(candidate)
    if any(v.real.contains(0) for v in values):
        return
    assert proof.unstable == sum(bool(v.real > 0) for v in values)


@pytest.mark.parametrize(("field", "value"), [("z", (Fraction(1),)), ("d", (Fraction(1),) * 4)])
def test_shapes_are_checked_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected 3 entries"):
        ce.prove(dataclasses.replace(ce.arbitrary_weights(), **{field: value}))


def test_alpha_must_be_a_number():
    with pytest.raises(ValueError, match="alpha: expected a rational number"):
        ce.invariant_weights("much")


def test_any_policy_makes_a_candidate_whose_hypotheses_hold_exactly():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        candidate = ce.from_policy(rng.uniform(0.1, 1, (n, n)), rng.uniform(0.1, 9, n), 0.3)
        assert all(ce.prove(candidate).hypotheses.values())
        assert sum(candidate.d) == 1


def test_a_policy_with_bad_numbers_is_refused():
    with pytest.raises(ValueError, match="expected finite numbers"):
        ce.from_policy([[float("nan"), 1], [1, 1]], [1, 1], 1)
    with pytest.raises(ValueError, match="a positive z"):
        ce.from_policy([[1, 1], [1, 1]], [1, 0], 1)
