"""Sums of Kronecker products against jnp.kron; known algebras against products by hand; ranks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phydi

pytestmark = pytest.mark.float32


def pair(n, p, q, taps=(), seed=0):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n, n)).astype(np.float32)
    return A, rng.normal(size=(n, *taps, p, q)).astype(np.float32)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_matrix_is_the_sum_of_kron(n, p, q):
    A, F = pair(n, p, q)
    exact = sum(np.kron(a.astype(float), f.astype(float)) for a, f in zip(A, F))
    np.testing.assert_allclose(phydi.kronecker_sum(A, F), exact, atol=3e-6 * n)


def test_a_convolution_kernel_is_the_sum_of_kron_at_every_tap():
    A, F = pair(3, 2, 4, (3, 2))
    H = phydi.kronecker_sum(A, F)
    assert H.shape == (3, 2, 6, 12)
    for tap in np.ndindex(3, 2):
        exact = sum(jnp.kron(a, f[tap]) for a, f in zip(A, F))
        np.testing.assert_allclose(H[tap], exact, atol=1e-5)


@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_the_rearranged_kernel_has_the_rank_of_the_number_of_terms(terms):
    A, F = pair(4, 5, 6)
    A[terms:] = 0
    H = np.asarray(phydi.kronecker_sum(A, F), float)
    rearranged = H.reshape(4, 5, 4, 6).transpose(0, 2, 1, 3).reshape(16, 30)
    values = np.linalg.svd(rearranged, compute_uv=False)
    assert values[terms - 1] > 0.1
    assert np.all(values[terms:] < 1e-5 * values[0])


def hamilton(p, q):
    """The quaternion product, written out."""
    a, b, c, d = p
    e, f, g, h = q
    return np.array(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ]
    )


def test_quaternions_by_hand_and_as_a_layer():
    rng = np.random.default_rng(1)
    A = phydi.multiplication_tensor(4)
    for _ in range(5):
        p, q = rng.integers(-9, 10, (2, 4)).astype(float)
        np.testing.assert_array_equal(phydi.hypercomplex_product(A, p, q), hamilton(p, q))
        H = phydi.kronecker_sum(A, p.reshape(4, 1, 1))
        np.testing.assert_array_equal(q @ np.asarray(H), hamilton(p, q))


@pytest.mark.parametrize(
    ("n", "algebra", "square"),
    [(2, "cayley-dickson", -1), (2, "split", 1), (2, "dual", 0), (4, "split", 1), (8, "dual", 0)],
)
def test_the_square_of_the_last_doubled_unit(n, algebra, square):
    A = phydi.multiplication_tensor(n, algebra=algebra)
    unit = jnp.zeros(n).at[n // 2].set(1)
    np.testing.assert_array_equal(
        phydi.hypercomplex_product(A, unit, unit), jnp.zeros(n).at[0].set(square)
    )


@pytest.mark.parametrize(
    ("n", "algebra"),
    [(4, "cayley-dickson"), (4, "split"), (4, "dual"), (8, "dual"), (5, "cyclic")],
)
def test_the_associative_ones_are_associative_and_have_a_unit(n, algebra):
    A = phydi.multiplication_tensor(n, algebra=algebra)
    x, y, z = np.random.default_rng(2).integers(-5, 6, (3, n)).astype(float)
    product = lambda x, y: phydi.hypercomplex_product(A, x, y)  # noqa: E731
    np.testing.assert_array_equal(product(product(x, y), z), product(x, product(y, z)))
    one = np.eye(n)[0]
    np.testing.assert_array_equal(product(one, x), x)
    np.testing.assert_array_equal(product(x, one), x)


def test_octonions_are_alternative_and_keep_norms_but_are_not_associative():
    A = phydi.multiplication_tensor(8)
    x, y, z = np.random.default_rng(3).integers(-5, 6, (3, 8)).astype(float)
    product = lambda x, y: np.asarray(phydi.hypercomplex_product(A, x, y))  # noqa: E731
    assert (product(x, y) ** 2).sum() == (x**2).sum() * (y**2).sum()
    np.testing.assert_array_equal(product(product(x, x), y), product(x, product(x, y)))
    assert np.any(product(product(x, y), z) != product(x, product(y, z)))


def test_the_cyclic_product_is_the_circular_convolution():
    x, y = np.random.default_rng(4).normal(size=(2, 7))
    A = phydi.multiplication_tensor(7, algebra="cyclic")
    exact = np.fft.ifft(np.fft.fft(x) * np.fft.fft(y)).real
    np.testing.assert_allclose(phydi.hypercomplex_product(A, x, y), exact, atol=1e-5)


@pytest.mark.parametrize("n", range(1, 10))
def test_cyclic_factors_are_exact_with_the_least_number_of_products(n):
    factors = phydi.cyclic_factors(n)
    exact = phydi.multiplication_tensor(n, algebra="cyclic")
    np.testing.assert_allclose(phydi.compose(*factors), exact, atol=1e-6)
    # Winograd: 2n less the number of irreducible real factors of z^n - 1, counted by its roots.
    roots = np.roots([1, *[0] * (n - 1), -1])
    irreducible = np.sum(roots.imag > -1e-9)
    assert factors.u.shape == (2 * n - irreducible, n)


@pytest.mark.parametrize(
    ("n", "algebra", "rank"),
    [(2, "cayley-dickson", 3), (2, "split", 2), (4, "split", 7), (4, "cayley-dickson", 8)],
)
def test_known_ranks_are_found_and_one_less_is_not(n, algebra, rank):
    A = phydi.multiplication_tensor(n, algebra=algebra)
    key = jax.random.key(0)
    factors, residual = phydi.factorize(key, A, rank)
    assert residual < 1e-6
    np.testing.assert_allclose(phydi.compose(*factors), A, atol=1e-5)
    assert phydi.factorize(key, A, rank - 1)[1] > 0.1


@pytest.mark.parametrize("n", [3, 4])
def test_random_tensors_have_the_generic_rank(n):
    key = jax.random.key(n)
    A = jax.random.normal(key, (n, n, n), jnp.float32)
    rank = phydi.generic_rank(n)
    assert phydi.factorize(key, A, rank)[1] < 1e-6
    assert phydi.factorize(key, A, rank - 1)[1] > 1e-3


def test_dual_numbers_have_no_nearest_tensor_of_rank_two():
    A = phydi.multiplication_tensor(2, algebra="dual")
    few, close = phydi.factorize(jax.random.key(0), A, 2, num_steps=50)
    many, closer = phydi.factorize(jax.random.key(0), A, 2, num_steps=400)
    assert 0 < closer < close
    assert max(abs(f).max() for f in many) > max(abs(f).max() for f in few)
    assert phydi.factorize(jax.random.key(0), A, 3)[1] < 1e-6


def test_generic_ranks():
    assert [phydi.generic_rank(n) for n in range(1, 6)] == [1, 2, 5, 7, 10]


def test_jit_vmap_and_gradient():
    A, F = pair(3, 2, 2)
    H = phydi.kronecker_sum(A, F)
    np.testing.assert_allclose(jax.jit(phydi.kronecker_sum)(A, F), H, atol=1e-5)
    batch = jax.vmap(phydi.kronecker_sum)(np.stack([A, 2 * A]), np.stack([F, F]))
    np.testing.assert_allclose(batch[1], 2 * H, atol=1e-5)
    # The derivative of the entries with respect to A[0, 1, 2] is F_0 in block (1, 2).
    slope = jax.jacobian(phydi.kronecker_sum)(jnp.asarray(A), F)[..., 0, 1, 2]
    exact = np.zeros((6, 6))
    exact[2:4, 4:6] = F[0]
    np.testing.assert_allclose(slope, exact, atol=1e-6)


def test_bad_input_is_named():
    A, F = pair(3, 2, 2)
    for call, match in (
        (lambda: phydi.kronecker_sum(A[:2], F), r"A: expected shape \(n, n, n\), got \(2, 3, 3\)"),
        (lambda: phydi.kronecker_sum(A, F[:2]), r"F: expected shape .* n = 3 as in A, got \(2, 2"),
        (lambda: phydi.kronecker_sum(A * 1j, F), "A: expected real floating numbers, got complex"),
        (lambda: phydi.multiplication_tensor(3), "n: expected a power of two .* any n"),
        (lambda: phydi.multiplication_tensor(1, algebra="dual"), "at least 2 for algebra='dual'"),
        (lambda: phydi.multiplication_tensor(2, algebra="x"), "algebra: expected one of cayley"),
        (lambda: phydi.multiplication_tensor(0), "n: expected an integer of at least 1, got 0"),
        (lambda: phydi.factorize(jax.random.key(0), A, 0), "rank: expected an integer"),
        (lambda: phydi.compose(F[0], F[0], F[0][:1]), r"u, v, w: expected one shape \(R, n\)"),
        (lambda: phydi.hypercomplex_product(A, A[0, 0], 1.0), "y: expected a last axis of n = 3"),
        (lambda: phydi.kronecker_matmul(A[0], A, F), "x: expected a last axis of n p = 6"),
        (lambda: phydi.kronecker_matmul(A[0], A, F, form="factored"), "A: expected Factors"),
        (lambda: phydi.kronecker_matmul(A[0], A, F, form="best"), "form: expected one of auto"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
