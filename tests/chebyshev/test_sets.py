"""Sets: what they contain, how they combine, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import chebyshev
from chebyshev.geometry import Geometry, scaled

RNG = np.random.default_rng(0)


def mixed(m: int = 5):
    """One set of every kind."""
    rng = np.random.default_rng(m)
    A, L = rng.normal(size=(m + 2, m)), rng.normal(size=(3, m))
    F = rng.normal(size=(2, m, m))
    return (
        chebyshev.noise_ball(A, rng.normal(size=m + 2), 7.0)
        & chebyshev.slab(rng.normal(size=m), -1.0, 2.0)
        & chebyshev.box(-rng.uniform(1, 2, m), rng.uniform(1, 2, m))
        & chebyshev.norm_ball(L, 3.0, rng.normal(size=m))
        & chebyshev.ellipsoids(F.transpose(0, 2, 1) @ F, rng.normal(size=(2, m)), -9 * np.ones(2))
        & chebyshev.ellipsoid(F[0].T @ F[0] + np.eye(m), rng.normal(size=m))
        & chebyshev.slab(rng.normal(size=m), -3.0, 3.0)
    )


def test_names_follow_the_order_of_the_constraints():
    assert mixed(2).names == (
        *("noise_ball", "norm_ball", "ellipsoid[0]", "ellipsoid[1]", "ellipsoid"),
        *("box[0]", "box[1]", "slab", "slab"),
    )


def test_geometry_equals_dense_matrices():
    sets = mixed()
    problem = scaled(sets)
    geometry = Geometry(problem, sets.coordinates)
    m, k = sets.dim, len(sets.names)
    unit = jnp.eye(k)
    Q = np.stack([geometry.combine(unit[i]) for i in range(k)])
    x = jnp.asarray(RNG.normal(size=m))
    # f_i from the dense matrices, from the geometry, and from the sets in their own units.
    dense = np.einsum("i,kij,j->k", x, Q, x) + 2 * problem.g @ x + problem.d
    np.testing.assert_allclose(geometry.values(x), dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(problem.scale * dense, sets.values(x), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(geometry.gradients(x), Q @ x + problem.g, atol=1e-12)
    np.testing.assert_allclose(
        jax.jacobian(geometry.values)(x), 2 * geometry.gradients(x), atol=1e-11
    )
    W, Z = (X @ X.T + np.eye(m) for X in RNG.normal(size=(2, m, m)))
    W, Z = jnp.asarray(W), jnp.asarray(Z)
    np.testing.assert_allclose(geometry.inner(W), np.einsum("kij,ij->k", Q, W), rtol=1e-12)
    T = np.einsum("aij,jk,bkl,li->ab", Q, W, Q, Z)
    np.testing.assert_allclose(geometry.schur(W, Z), T, rtol=1e-11)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_membership_means_what_the_constructors_say(seed):
    rng = np.random.default_rng(seed)
    m = 3
    A, y, rho = rng.normal(size=(4, m)), rng.normal(size=4), rng.uniform(1, 9)
    lo, hi, a = -rng.uniform(0, 1, m), rng.uniform(0, 1, m), rng.normal(size=m)
    P = np.diag(rng.uniform(0.5, 2, m))
    sets = (
        chebyshev.noise_ball(A, y, rho)
        & chebyshev.ellipsoid(P, lo)
        & chebyshev.box(lo, hi)
        & chebyshev.slab(a, -0.5, 0.5)
    )
    for x in rng.normal(size=(20, m)) * 0.7:
        inside = [
            np.sum((A @ x - y) ** 2) <= rho,
            (x - lo) @ np.linalg.solve(P, x - lo) <= 1,
            *((lo <= x) & (x <= hi)),
            -0.5 <= a @ x <= 0.5,
        ]
        assert (np.asarray(sets.values(jnp.asarray(x))) <= 0).tolist() == inside


def test_simplex_like_is_the_papers_description():
    sets = chebyshev.simplex_like(2.0, 3)
    x = jnp.array([0.5, -0.1, 2.5])
    np.testing.assert_allclose(sets.values(x), [*(x * (x - 2.0)), jnp.sum(x) ** 2 - 4], atol=1e-12)


def test_rho_from_a_standard_deviation_covers_the_truth_as_often_as_said():
    A = RNG.normal(size=(20, 3))
    ball = chebyshev.noise_ball(A, np.zeros(20), sd=0.5, confidence=0.9)
    noise = 0.5 * RNG.normal(size=(20_000, 20))
    share = np.mean(np.sum(noise**2, axis=1) <= float(ball.scale[0]))
    assert abs(share - 0.9) < 0.01
    expected = 0.25 * scipy.stats.chi2.ppf(0.9, 20)
    assert float(ball.scale[0]) == pytest.approx(expected)


def test_sets_are_pytrees():
    sets = mixed()
    leaves, structure = jax.tree.flatten(sets)
    again = jax.tree.unflatten(structure, leaves)
    assert again.names == sets.names
    # Under jit and vmap the numbers are traced, and what is static stays.
    values = jax.jit(jax.vmap(lambda y: chebyshev.noise_ball(jnp.eye(2), y, 1.0).values(y)))
    assert values(jnp.ones((3, 2))).tolist() == [[-1.0]] * 3


def test_bad_input_is_named():
    eye, one = np.eye(2), np.ones(2)
    for call, match in (
        (lambda: chebyshev.noise_ball(eye, np.ones(3), 1.0), r"y: expected shape \(2,\), got"),
        (lambda: chebyshev.noise_ball(eye, one, 0.0), "rho: expected a positive number, got 0.0"),
        (lambda: chebyshev.noise_ball(eye, one), "rho: expected either rho or sd"),
        (lambda: chebyshev.noise_ball(eye, one, 1.0, sd=1.0), "rho: expected either rho or sd"),
        (lambda: chebyshev.noise_ball(eye, one, sd=1.0, confidence=1.5), "confidence: expected"),
        (lambda: chebyshev.noise_ball(eye, one * np.nan, 1.0), "y: expected finite values"),
        (lambda: chebyshev.simplex_like(1j, 2), "eta: expected real numbers, got complex"),
        (lambda: chebyshev.box(one, one - [0, 1]), "lo: expected lo < hi, got lo = 1.0, hi = 1.0"),
        (lambda: chebyshev.box([0, 1], [1, 0]), "lo: expected lo < hi, .* at index 1"),
        (lambda: chebyshev.box(one, np.ones(3)), "hi: expected shape"),
        (lambda: chebyshev.slab(0 * one, 0.0, 1.0), "a: expected a normal other than zero"),
        (lambda: chebyshev.slab(one, 1.0, 0.0), "lo: expected lo < hi"),
        (lambda: chebyshev.simplex_like(-1.0, 2), "eta: expected a positive number"),
        (lambda: chebyshev.simplex_like(1.0, 0), "dim: expected at least 1"),
        (lambda: chebyshev.norm_ball(eye, -1.0), "eta: expected a positive number"),
        (lambda: chebyshev.ellipsoid(-eye, one), "P: expected positive definite, got the eig.* -1"),
        (
            lambda: chebyshev.ellipsoids(np.diag([1.0, -0.5])[None], one[None], -one[:1]),
            r"Q\[0\] has the eigenvalue -0.5",
        ),
        (
            lambda: chebyshev.ellipsoids(np.triu(np.ones((2, 2)))[None], one[None], -one[:1]),
            r"Q: expected symmetric .* matrices, Q\[0\]",
        ),
        (
            lambda: chebyshev.ellipsoids(eye[None], 0 * one[None], one[:1]),
            r"d: ellipsoid\[0\] is empty or a point: min f = 1",
        ),
        (
            lambda: chebyshev.box(0 * one, one) & chebyshev.box(np.zeros(3), np.ones(3)),
            r"sets: expected one dimension, got 2 \(box\[0\]\) and 3",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
