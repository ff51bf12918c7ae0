"""Every general method through one sweep: exact oracles, transformations, status, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import poisson
from poisson.systems import matvec
from tests.poisson.conftest import dense, distance, random_system, rational_thomas

METHODS = ["thomas", "partition", "lapack", "dense_lu", "auto"]
pytestmark = pytest.mark.float32


def run(method, *system, **options):
    """A method by name."""
    if method == "auto":
        return poisson.tridiagonal_solve(*system)
    return getattr(poisson, method)(*system, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("m", [1, 2, 3, 5, 31, 32, 33, 64, 65, 200])
def test_against_rational_elimination(method, m, dtype):
    system = random_system(m, seed=m, dtype=dtype)
    x, status = run(method, *system)
    assert x.dtype == dtype
    exact = rational_thomas(*system)
    # A dominant matrix with margin 1 … : ‖A⁻¹‖ <= 1 if b >= 3, here a few; so errors of some units.
    scale = max(abs(float(v)) for v in exact)
    assert distance(x, exact).max() <= 200 * float(jnp.finfo(dtype).eps) * scale
    assert int(status) == poisson.Status.SOLVED


@pytest.mark.parametrize("method", METHODS)
def test_the_papers_own_example(method, dtype):
    b = jnp.full(5, 2, dtype)
    off = jnp.full(4, -1, dtype)
    x, status = run(method, off, b, off, jnp.array([1, 2, 3, 4, 6], dtype))
    np.testing.assert_allclose(x, [6, 11, 14, 14, 10], rtol=10 * jnp.finfo(dtype).eps)
    assert int(status) == poisson.Status.SOLVED


@pytest.mark.parametrize("m", [8191, 8192, 65536, 65537, 65568, 140_001])
def test_large_systems_across_chunk_edges(m):
    system = random_system(m, seed=m)
    a, b, c, d = (np.asarray(v, np.float64) for v in system)
    bands = np.zeros((3, m))
    bands[0, 1:], bands[1], bands[2, :-1] = c, b, a
    expected = scipy.linalg.solve_banded((1, 1), bands, d)
    tolerance = 1e-13 if system[1].dtype == jnp.float64 else 1e-4
    for method in ("partition", "auto", "thomas"):
        x, status = run(method, *system)
        np.testing.assert_allclose(x, expected, atol=tolerance, rtol=0)
        assert int(status) == poisson.Status.SOLVED


@pytest.mark.parametrize("num_parts", [1, 2, 7, 50, 99, 100])
def test_partition_does_not_depend_on_the_parts(num_parts):
    system = random_system(100, seed=1)
    x = poisson.partition(*system, num_parts=num_parts).x
    expected = np.linalg.solve(dense(*system[:3]), np.asarray(system[3], np.float64))
    tolerance = 1e-13 if x.dtype == jnp.float64 else 1e-5
    np.testing.assert_allclose(x, expected, atol=tolerance)


@pytest.mark.parametrize("num_parts", [0, -3, 101, "2", 2.5, True])
def test_partition_names_a_bad_number_of_parts(num_parts):
    with pytest.raises(ValueError, match="num_parts: expected 1 to m = 100"):
        poisson.partition(*random_system(100, seed=1), num_parts=num_parts)


@pytest.mark.parametrize("method", METHODS)
def test_jit_vmap_and_eager_agree(method):
    systems = [random_system(40, seed) for seed in range(3)]
    stacked = tuple(jnp.stack(v) for v in zip(*systems))

    def call(*system):
        return run(method, *system)

    eager = jnp.stack([call(*s).x for s in systems])
    eps = float(jnp.finfo(eager.dtype).eps)
    np.testing.assert_allclose(jax.jit(call)(*systems[0]).x, eager[0], rtol=50 * eps, atol=50 * eps)
    batched = jax.jit(jax.vmap(call))(*stacked)
    np.testing.assert_allclose(batched.x, eager, rtol=50 * eps, atol=50 * eps)
    assert batched.status.shape == (3,)
    # One matrix, many right-hand sides.
    shared = jax.vmap(call, in_axes=(None, None, None, 0))(*systems[0][:3], stacked[3])
    np.testing.assert_allclose(shared.x[0], eager[0], rtol=50 * eps, atol=50 * eps)


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_are_those_of_the_inverse(method):
    a, b, c, d = random_system(12, seed=3)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=12), b.dtype)

    def value(*system):
        return weights @ run(method, *system).x

    ga, gb, gc, gd = jax.grad(value, argnums=(0, 1, 2, 3))(a, b, c, d)
    inverse = np.linalg.inv(dense(a, b, c))
    x, adjoint = inverse @ np.asarray(d, float), inverse.T @ np.asarray(weights, float)
    tolerance = 1e-12 if b.dtype == jnp.float64 else 2e-5
    np.testing.assert_allclose(gd, adjoint, atol=tolerance)
    np.testing.assert_allclose(gb, -adjoint * x, atol=tolerance)
    np.testing.assert_allclose(ga, -adjoint[1:] * x[:-1], atol=tolerance)
    np.testing.assert_allclose(gc, -adjoint[:-1] * x[1:], atol=tolerance)
    # Forward mode, the same numbers.
    tangents = tuple(jnp.ones_like(v) for v in (a, b, c, d))
    _, forward = jax.jvp(value, (a, b, c, d), tangents)
    assert float(forward) == pytest.approx(
        float(sum(jnp.sum(g) for g in (ga, gb, gc, gd))), abs=100 * tolerance
    )


@pytest.mark.parametrize("method", ["thomas", "partition", "lapack"])
def test_the_adjoint_is_a_solve_not_an_unrolled_loop(method):
    # Reverse mode through a scan would store its carries: implicit derivatives need no more than
    # the solution, so the residuals of the backward pass do not contain a second axis of length m.
    system = random_system(64, seed=0)
    _, pullback = jax.vjp(lambda d: run(method, *system[:3], d).x, system[3])
    stored = sum(leaf.size for leaf in jax.tree.leaves(pullback) if hasattr(leaf, "size"))
    assert stored <= 8 * 64


@pytest.mark.parametrize("method", METHODS)
def test_the_second_call_does_not_retrace(method):
    traces = []

    @jax.jit
    def call(*system):
        traces.append(None)
        return run(method, *system)

    call(*random_system(20, seed=0))
    call(*random_system(20, seed=1))
    assert len(traces) == 1


@pytest.mark.parametrize("method", METHODS)
def test_singular_matrices_are_said(method):
    one = jnp.ones(3)
    # Neumann: rows sum to zero.
    b = jnp.array([1.0, 2.0, 2.0, 1.0])
    status = run(method, -one, b, -one, jnp.array([1.0, 2.0, 3.0, 5.0])).status
    assert poisson.Status(int(status)) in (
        poisson.Status.SINGULAR,
        poisson.Status.ILL_CONDITIONED,
    )
    # The same with entries that round: the last pivot is rounding, not zero.
    status = run(method, -one / 3, b / 3 + 1e-17, -one / 3, jnp.array([1.0, 2.0, 3.0, 5.0])).status
    assert int(status) in (poisson.Status.SINGULAR, poisson.Status.ILL_CONDITIONED)


def test_without_pivoting_a_zero_pivot_is_said_and_pivoting_solves_it():
    one = jnp.ones(2)
    system = one, jnp.array([0.0, 1.0, 1.0]), one, jnp.array([1.0, 2.0, 3.0])
    thomas = poisson.thomas(*system)
    assert poisson.Status(int(thomas.status)) == poisson.Status.SINGULAR
    assert "pivot" in poisson.Status.SINGULAR.message
    assert "lapack" in poisson.Status.NOT_DOMINANT.message
    for method in ("lapack", "dense_lu", "auto"):
        x, status = run(method, *system)
        np.testing.assert_allclose(x, [-1, 1, 2], atol=1e-6)
        assert int(status) == poisson.Status.SOLVED


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("method", ["thomas", "partition"])
def test_the_status_does_not_depend_on_units(method, scale):
    a, b, c, d = random_system(50, seed=0)
    assert int(run(method, scale * a, scale * b, scale * c, d).status) == poisson.Status.SOLVED
    weak = run(method, scale * a, scale * b / 4, scale * c, d).status
    assert int(weak) == poisson.Status.NOT_DOMINANT


def test_auto_falls_back_to_pivoting_for_large_systems_that_are_not_dominant():
    m = 10_000
    a, b, c, d = random_system(m, seed=0, dominance=0.0)
    b = b.at[0].set(0)  # Thomas and partition meet a zero pivot at once
    assert int(poisson.partition(a, b, c, d).status) == poisson.Status.SINGULAR
    x, _ = jax.jit(poisson.tridiagonal_solve)(a, b, c, d)
    residual = matvec(a, b, c, x) - d
    eps = float(jnp.finfo(x.dtype).eps)
    assert float(jnp.max(jnp.abs(residual))) <= 100 * eps * float(jnp.max(jnp.abs(x)))


def test_graded_matrices_are_no_false_alarm():
    # A Dirichlet condition by penalty: rows of very different size.
    zero = jnp.zeros(1)
    x, status = poisson.lapack(zero, jnp.array([1.0, 1e20]), zero, jnp.ones(2))
    assert int(status) == poisson.Status.SOLVED
    np.testing.assert_allclose(x, [1, 1e-20], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_what_overflows_or_is_flushed_is_not_called_solved(method):
    huge = float(jnp.finfo(jnp.result_type(float)).max) / 2
    b = jnp.full(3, huge)
    x, status = run(method, jnp.zeros(2), b, jnp.zeros(2), b)
    right = np.allclose(x, 1)
    assert right or int(status) != poisson.Status.SOLVED


def test_nan_input_is_never_solved():
    a, b, c, d = random_system(10, seed=0)
    for method in METHODS:
        status = jax.jit(lambda *s, method=method: run(method, *s).status)(a, b, c, d * jnp.nan)
        assert int(status) == poisson.Status.SINGULAR


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_named(method):
    a, b, c, d = random_system(6, seed=0)
    with pytest.raises(ValueError, match=r"a: expected shape \(5,\)"):
        run(method, b, b, c, d)
    with pytest.raises(ValueError, match=r"c: expected shape \(5,\)"):
        run(method, a, b, c[:-1], d)
    with pytest.raises(ValueError, match=r"d: expected shape \(6,\)"):
        run(method, a, b, c, d[:, None])
    with pytest.raises(ValueError, match=r"b: expected a vector .* got shape \(6, 1\)"):
        run(method, a, b[:, None], c, d)
    with pytest.raises(ValueError, match="d: expected finite values, got nan at index 2"):
        run(method, a, b, c, d.at[2].set(jnp.nan))
    with pytest.raises(ValueError, match="a: expected float32 or float64, got complex"):
        run(method, a + 0j, b, c, d)


def test_unknown_method_and_too_large_dense_matrix():
    system = random_system(6, seed=0)
    with pytest.raises(ValueError, match="method: expected 'auto' or one of"):
        poisson.tridiagonal_solve(*system, method="gauss")
    with pytest.raises(ValueError, match=r"b: a dense matrix of 6 rows .* more than max_bytes"):
        poisson.dense_lu(*system, max_bytes=100)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([2, 3, 29, 60]), st.integers(0, 2**31), st.sampled_from([1, 2, 5, 13, 60]))
def test_partition_equals_thomas_on_random_systems(m, seed, num_parts):
    system = random_system(m, seed)
    x = poisson.partition(*system, num_parts=min(num_parts, m)).x
    y = poisson.thomas(*system).x
    tolerance = 1e-12 if x.dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(x, y, atol=tolerance)
