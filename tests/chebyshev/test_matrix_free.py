"""The matrix-free method: agrees with the dense one, and its proof holds whatever it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_mat
from hypothesis import given, settings
from hypothesis import strategies as st

import chebyshev
from chebyshev import Status
from chebyshev.large_certificate import proved_eigenvalue


def image(N: int, seed: int = 0):
    """A blurred image: arguments of both methods, the sets, and the truth."""
    problem = chebyshev.problems.blur_operator(N, 4, 0.8)
    w = 0.05 * np.random.default_rng(seed).normal(size=N * N)
    y, rho = problem.b + w, 1.3 * w @ w
    lo, hi = np.zeros(N * N), np.full(N * N, 4.0)
    dense = chebyshev.problems.blur(N, 4, 0.8).A
    sets = chebyshev.noise_ball(dense, y, rho) & chebyshev.box(lo, hi)
    return (problem.A, y, rho, lo, hi), sets, problem.x


@pytest.mark.parametrize("seed", range(2))
def test_it_agrees_with_the_interior_point_method(seed):
    data, sets, truth = image(10, seed)
    dense = chebyshev.rcc(sets)
    large = chebyshev.rcc_matrix_free(*data, rank=12, rtol=2e-3)
    assert int(large.status) == Status.CONVERGED
    assert float(large.value) == pytest.approx(float(dense.value), rel=2e-3)
    radius = chebyshev.certified_radius(*data, large.x, large.alpha)
    assert float(dense.radius) * (1 - 1e-9) <= radius <= float(dense.radius) * 1.002
    assert np.linalg.norm(truth - large.x) <= radius
    # Near the optimum the estimates agree as the square root of the gap.
    assert np.linalg.norm(large.x - dense.x) <= 0.1 * float(dense.radius)


def test_the_proof_is_sharp_at_the_optimum_of_the_other_method():
    data, sets, _ = image(10)
    dense = chebyshev.rcc(sets)
    radius = chebyshev.certified_radius(*data, dense.x, dense.alpha)
    proof = chebyshev.certify(sets, dense)
    assert np.sqrt(proof.lower) <= radius <= float(dense.radius) * (1 + 1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_holds_for_any_multipliers_and_any_estimate(seed):
    rng = np.random.default_rng(seed)
    m = 5
    A, center = rng.normal(size=(6, m)), rng.uniform(-0.3, 0.3, m)
    y, rho = A @ center + 0.3 * rng.normal(size=6), 4.0
    lo, hi = -rng.uniform(0.5, 1, m), rng.uniform(0.5, 1, m)
    points = rng.uniform(lo, hi, size=(4000, m))
    points = points[np.sum((points @ A.T - y) ** 2, axis=1) <= rho]
    assert len(points) > 100
    for _ in range(4):
        x = rng.uniform(lo, hi)
        alpha = rng.uniform(0, 2, m + 1) * rng.integers(0, 2, m + 1)
        radius = chebyshev.certified_radius(lambda v: jnp.asarray(A) @ v, y, rho, lo, hi, x, alpha)
        assert np.linalg.norm(points - x, axis=1).max() <= radius


def test_multipliers_that_bound_nothing_give_infinity():
    data, _, _ = image(4)
    assert chebyshev.certified_radius(*data, np.ones(16), np.zeros(17)) == float("inf")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 7), st.sampled_from([0.0, 1e-12, 1e-3]))
def test_the_eigenvalue_is_a_lower_bound_in_ball_arithmetic(seed, m, error):
    rng = np.random.default_rng(seed)
    F = rng.integers(-3, 4, size=(m + 1, m)).astype(float)
    gram, a = F.T @ F, rng.uniform(0, 1, m) * rng.integers(0, 2, m)
    found = proved_eigenvalue(gram, error, a)
    if found == 0:
        return
    # G - error I + diag(a) - λ I is positive semidefinite: all leading minors, in balls.
    shifted = [[arb(v) for v in row] for row in gram]
    for i in range(m):
        shifted[i][i] += arb(a[i]) - arb(found) - arb(error)
    for size in range(1, m + 1):
        minor = arb_mat([row[:size] for row in shifted[:size]]).det()
        assert not minor < 0
    exact = np.linalg.eigvalsh(gram + np.diag(a))[0]
    assert found >= (exact - error) * (1 - 1e-6) - 1e-9


def test_singular_matrices_are_never_proved_definite():
    rng = np.random.default_rng(0)
    for _ in range(30):
        F = rng.integers(-5, 6, size=(4, 6)).astype(float)
        assert proved_eigenvalue(F.T @ F, 0.0, np.zeros(6)) == 0
        # One entry of the diagonal cannot lift a kernel of two dimensions either.
        assert proved_eigenvalue(F.T @ F, 0.0, np.eye(6)[0]) == 0


def test_the_operator_is_the_matrix():
    dense = chebyshev.problems.blur(7, 3, 0.7)
    large = chebyshev.problems.blur_operator(7, 3, 0.7)
    columns = np.stack([large.A(row) for row in np.eye(49)], axis=1)
    np.testing.assert_allclose(columns, dense.A, rtol=1e-14)
    rng = np.random.default_rng(0)
    left, right, x = rng.normal(size=(2, 3)), rng.normal(size=(4, 5)), rng.normal(size=15)
    product = chebyshev.problems.Kronecker(left, right)
    np.testing.assert_allclose(product(x), np.kron(left, right) @ x, atol=1e-13)


def test_arrays_in_the_operator_do_not_retrace_and_functions_work():
    traces = []

    @jax.tree_util.Partial
    def note(x):
        traces.append(None)
        return 2 * x

    ones = jnp.ones(6)
    chebyshev.rcc_matrix_free(note, ones, 1.0, -ones, ones)
    first = len(traces)
    chebyshev.rcc_matrix_free(note, 0.5 * ones, 2.0, -ones, 2 * ones)
    assert len(traces) <= first + 2  # the shape check looks at it, the solver does not
    scaled = jax.tree_util.Partial(lambda c, x: c * x, jnp.asarray(2.0))
    a = chebyshev.rcc_matrix_free(scaled, ones, 1.0, -ones, ones)
    b = jax.jit(lambda y: chebyshev.rcc_matrix_free(lambda x: 2 * x, y, 1.0, -ones, ones))(ones)
    np.testing.assert_allclose(a.x, b.x, atol=1e-6)


def test_a_map_in_float32_or_of_another_shape_proves_nothing():
    # In float32 the products would err by more than the bounds allow for: 52 of 200 were wrong.
    single = jnp.asarray(np.diag(np.geomspace(1e-2, 1e-6, 6)), jnp.float32)
    big = np.full(6, 1e9)
    ask = (np.zeros(6), 1.0, -big, big, np.zeros(6), np.eye(7)[0])
    for forward_fn, match in (
        (lambda x: single @ x.astype(jnp.float32), "forward_fn: expected float64 results"),
        (lambda x: x[:1], r"forward_fn: expected to map \(6,\) to \(6,\), got \(1,\)"),
        (lambda x: x + 1, "forward_fn: expected a linear map"),
    ):
        with pytest.raises(ValueError, match=match):
            chebyshev.certified_radius(forward_fn, *ask)


@pytest.mark.parametrize("seed", [0, 8, 15, 21, 23])
def test_converged_means_near_the_optimum_also_for_badly_scaled_columns(seed):
    rng = np.random.default_rng(seed)
    m = 8 + seed % 5
    A = rng.normal(size=(m, m)) * 10 ** rng.uniform(-3, 1, m)
    lo, hi = -rng.uniform(0.5, 3, m), rng.uniform(0.5, 3, m)
    y = A @ rng.uniform(lo, hi) + 0.1 * rng.normal(size=m)
    data = (jax.tree_util.Partial(jnp.matmul, jnp.asarray(A)), y, 0.02 * m, lo, hi)
    sets = chebyshev.noise_ball(A, y, 0.02 * m) & chebyshev.box(lo, hi)
    dense, large = chebyshev.rcc(sets), chebyshev.rcc_matrix_free(*data)
    # The value is a dual one whatever the status.
    assert float(large.value) >= float(dense.value) * (1 - 1e-6)
    if int(large.status) == Status.CONVERGED:
        assert float(large.value) <= float(dense.value) * 1.03
    radius = chebyshev.certified_radius(*data, large.x, large.alpha)
    assert radius >= float(dense.radius) * (1 - 1e-6)


def test_bad_input_is_named():
    ones = np.ones(4)
    good = (lambda x: x, ones, 1.0, -ones, ones)
    for change, match in (
        ({"y": np.ones(3)}, r"forward_fn: expected to map shape \(4,\) to \(3,\)"),
        ({"rho": 0.0}, "rho: expected a positive number"),
        ({"lo": ones}, "lo: expected lo < hi"),
        ({"hi": np.ones(3)}, "hi: expected shape"),
        ({"y": np.full(4, np.nan)}, "y: expected finite values"),
        ({"rank": 0}, "rank: expected at least 1"),
        ({"rtol": -1.0}, "rtol: expected a positive number"),
    ):
        arguments = dict(zip(("forward_fn", "y", "rho", "lo", "hi"), good)) | change
        with pytest.raises(ValueError, match=match):
            chebyshev.rcc_matrix_free(**arguments)
    with pytest.raises(
        ValueError, match=r"alpha: expected no negative multiplier, got -1\.0 at index 2"
    ):
        chebyshev.certified_radius(*good, ones, np.array([1.0, 1, -1, 1, 1]))
    with pytest.raises(ValueError, match=r"alpha: expected shape \(5,\)"):
        chebyshev.certified_radius(*good, ones, ones)
