"""Least squares and its variants against NumPy, closed forms and CVXPY."""

import jax.numpy as jnp
import numpy as np
import pytest

import chebyshev
from chebyshev import Status
from tests.chebyshev.test_relaxation import blur_sets, heat_sets, small_sets


def test_ls_and_tikhonov_against_normal_equations():
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(8, 3)), rng.normal(size=8)
    sets = chebyshev.noise_ball(A, y, 100.0)
    np.testing.assert_allclose(chebyshev.ls(sets).x, np.linalg.lstsq(A, y)[0], atol=1e-12)
    L = rng.normal(size=(2, 3))
    expected = np.linalg.solve(A.T @ A + 0.7 * L.T @ L, A.T @ y)
    np.testing.assert_allclose(chebyshev.tikhonov(sets, 0.7, L).x, expected, atol=1e-12)


@pytest.mark.parametrize(("seed", "error"), [(0, 10.17), (1, 8.93), (2, 22.30)])
def test_cls_of_blur_agrees_with_cvxpy(seed, error):
    sets, x = blur_sets(seed)
    estimate = chebyshev.cls(sets)
    assert int(estimate.status) == Status.CONVERGED
    assert float(jnp.sum((estimate.x - x) ** 2)) == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("alpha", [2, 10])
def test_cls_of_heat_is_at_least_as_good_as_cvxpys(alpha):
    # The last entries are unobservable, so the estimates differ; what is minimised must not.
    sets, _ = heat_sets(alpha)
    ours, theirs = chebyshev.cls(sets), chebyshev.cls(sets, backend="cvxpy")
    assert float(ours.data_error) <= float(theirs.data_error) * (1 + 1e-6)
    assert float((sets.values(ours.x)[1:] / sets.scale[0]).max()) < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_cls_of_small_sets_agrees_with_cvxpy(seed):
    sets = small_sets(seed) & chebyshev.norm_ball(np.eye(4), 0.4)
    ours, theirs = chebyshev.cls(sets), chebyshev.cls(sets, backend="cvxpy")
    assert int(ours.status) == Status.CONVERGED
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-5)


def test_rls_satisfies_the_secular_equation():
    rng = np.random.default_rng(3)
    A, y = rng.normal(size=(6, 4)), 5 * rng.normal(size=6)
    estimate = chebyshev.rls(chebyshev.noise_ball(A, y, 1.0), 0.5)
    assert float(jnp.linalg.norm(estimate.x)) == pytest.approx(0.5, rel=1e-6)
    # A'(y - A x) = λ x with one λ > 0.
    ratio = A.T @ (y - A @ np.asarray(estimate.x)) / np.asarray(estimate.x)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert ratio[0] > 0


def test_bad_input_is_named():
    box = chebyshev.box(np.zeros(2), np.ones(2))
    ball = chebyshev.noise_ball(np.eye(2), np.ones(2), 1.0)
    for call, match in (
        (lambda: chebyshev.ls(box), "sets: expected one noise_ball"),
        (lambda: chebyshev.cls(ball & ball & box), "sets: expected one noise_ball.*are 2"),
        (lambda: chebyshev.cls(ball & box, rtol=-1.0), "rtol: expected a positive number"),
        (lambda: chebyshev.tikhonov(ball, 1.0, np.eye(3)), "L: expected a matrix"),
        (lambda: chebyshev.cls(ball), "sets: expected a constraint besides the noise ball"),
        (lambda: chebyshev.cls(ball & box, backend="scs"), "backend: expected 'native'"),
        (lambda: chebyshev.tikhonov(ball, 0.0), "weight: expected a positive number"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
