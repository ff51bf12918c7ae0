"""certify: encloses the value of other solvers, holds for any guess, refuses nonsense."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_mat

import chebyshev
from chebyshev.balls import is_positive_definite
from tests.chebyshev.test_relaxation import heat_sets, small_sets


@pytest.mark.parametrize("alpha", [2, 10])
def test_heat_is_enclosed_to_the_goal(alpha):
    sets, _ = heat_sets(alpha)
    solution = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, solution)
    assert proof.gap <= 1e-8
    assert proof.lower <= {2: 244.52865116, 10: 5393.287211}[alpha] * (1 + 1e-8)
    assert proof.upper >= {2: 244.52865116, 10: 5393.287211}[alpha] * (1 - 1e-8)
    assert proof.radius == pytest.approx(float(solution.radius), rel=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_the_enclosure_holds_what_cvxpy_finds(seed):
    sets = small_sets(seed)
    solution = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, solution)
    value, x = chebyshev.certify(sets, solution, backend="cvxpy")
    assert proof.lower <= proof.upper
    assert proof.gap <= 1e-8
    assert value == pytest.approx(proof.upper, rel=1e-6)
    np.testing.assert_allclose(x, solution.x, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_for_bad_guesses_too(seed):
    # α, W and x are only guesses: whatever they are, the bounds must hold.
    sets = small_sets(seed)
    good = chebyshev.rcc(sets)
    rng = np.random.default_rng(seed)
    value = float(good.value)
    for _ in range(5):
        bad = good._replace(
            alpha=good.alpha * rng.uniform(0.9, 2, good.alpha.shape),
            x=good.x + 0.1 * rng.normal(size=4),
            W=good.W * rng.uniform(0.1, 3),
        )
        proof = chebyshev.certify(sets, bad)
        assert proof.lower <= value * (1 + 1e-9)
        assert proof.upper >= value * (1 - 1e-9)
        # The radius is about the estimate given, which need not be the best.
        points = rng.normal(size=(200, 4))
        for point in points:
            if bool((sets.values(jnp.asarray(point)) <= 0).all()):
                assert np.linalg.norm(point - bad.x) <= proof.radius


def test_multipliers_that_are_not_feasible_prove_nothing():
    sets = small_sets(0)
    solution = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, solution._replace(alpha=0.5 * solution.alpha))
    assert proof.upper == float("inf")
    assert proof.gap == float("inf")


def test_nan_proves_nothing():
    sets = small_sets(0)
    solution = chebyshev.rcc(sets)
    proof = chebyshev.certify(sets, solution._replace(x=solution.x * jnp.nan))
    assert (proof.lower, proof.upper, proof.radius) == (0.0, float("inf"), float("inf"))


def test_a_box_is_enclosed_exactly():
    lo, hi = np.array([0.0, 1.0, -2.0]), np.array([2.0, 5.0, 1.0])
    sets = chebyshev.box(lo, hi)
    proof = chebyshev.certify(sets, chebyshev.rcc(sets))
    exact = sum(Fraction(float(h - l)) ** 2 / 4 for l, h in zip(lo, hi))
    assert Fraction(proof.lower) <= exact <= Fraction(proof.upper)
    assert exact <= Fraction(proof.radius) ** 2


@pytest.mark.parametrize("shift", [1e-3, 0.0, -1e-14, -1e-10])
def test_positive_definiteness_is_proved_of_definite_matrices_only(shift):
    rng = np.random.default_rng(0)
    for _ in range(10):
        # Integers: singular exactly, then shifted.
        v = rng.integers(-5, 5, size=(6, 5)).astype(float)
        matrix = arb_mat(6, 6, [arb(x) for x in (v @ v.T).ravel().tolist()])
        for i in range(6):
            matrix[i, i] += arb(shift)
        assert is_positive_definite(matrix) == (shift > 0)


def test_bad_input_is_named():
    sets = small_sets(0)
    solution = chebyshev.rcc(sets)
    with pytest.raises(ValueError, match="backend: expected 'arb' or 'cvxpy'"):
        chebyshev.certify(sets, solution, backend="dreal")
    with pytest.raises(ValueError, match=r"solution: expected x of shape \(4,\)"):
        chebyshev.certify(sets, chebyshev.rcc(small_sets(0, m=3)))
