"""The exact centre: brute force over supports, closed forms, theorems, and the relaxation above."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chebyshev
from tests.chebyshev.test_complex import two_ellipsoids


def brute_force(points):
    """The smallest ball over all circumscribed balls of at most m + 1 points."""
    best = np.inf
    for size in range(1, points.shape[1] + 2):
        for chosen in combinations(range(len(points)), size):
            some = points[list(chosen)]
            edges = some[1:] - some[0]
            gram = edges @ edges.T
            if size > 1 and np.linalg.matrix_rank(gram) < size - 1:
                continue
            center = some[0]
            if size > 1:
                center = center + np.linalg.solve(2 * gram, np.diag(gram)) @ edges
            best = min(best, np.sqrt(np.max(np.sum((points - center) ** 2, axis=1))))
    return best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 9), st.booleans(), st.booleans())
def test_finite_sets_against_brute_force(seed, m, count, on_a_sphere, on_a_grid):
    # On spheres and grids many subsets are cocircular or collinear: the degenerate cases.
    points = np.random.default_rng(seed).normal(size=(count, m))
    if on_a_sphere:
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    if on_a_grid:
        points = np.round(points)
    found = chebyshev.chebyshev_center_exact(points)
    assert found.radius == pytest.approx(brute_force(points), rel=1e-7, abs=1e-12)
    assert found.lower <= found.radius * (1 + 1e-12)
    assert found.lower == pytest.approx(found.radius, rel=1e-6, abs=1e-12)
    assert np.linalg.norm(points - found.x, axis=1).max() <= found.radius * (1 + 1e-12)


def test_many_points_in_eight_dimensions_by_the_conditions_of_optimality():
    points = np.random.default_rng(0).normal(size=(2000, 8))
    found = chebyshev.chebyshev_center_exact(points)
    distance = np.linalg.norm(found.points - found.x, axis=1)
    np.testing.assert_allclose(distance, found.radius, rtol=1e-12)
    # The centre is a convex combination of the points on the sphere.
    system = np.vstack([found.points.T, np.ones(len(found.points))])
    weights = np.linalg.lstsq(system, np.append(found.x, 1.0), rcond=None)[0]
    assert weights.min() >= -1e-10
    np.testing.assert_allclose(system @ weights, np.append(found.x, 1.0), atol=1e-10)


def test_lenses_and_simplices_have_closed_forms():
    for distance in (0.4, 1.0, 1.6):
        lens = chebyshev.norm_ball(np.eye(2), 1.0)
        lens = lens & chebyshev.norm_ball(np.eye(2), 1.0, [distance, 0.0])
        found = chebyshev.chebyshev_center_exact(lens)
        np.testing.assert_allclose(found.x, [distance / 2, 0], atol=1e-6)
        assert found.radius == pytest.approx(np.sqrt(1 - distance**2 / 4), rel=1e-6)
    triangle = chebyshev.chebyshev_center_exact(chebyshev.simplex_like(1.0, 2))
    np.testing.assert_allclose(triangle.x, [0.5, 0.5], atol=1e-5)
    assert triangle.radius == pytest.approx(np.sqrt(0.5), rel=1e-6)
    tetrahedron = chebyshev.chebyshev_center_exact(chebyshev.simplex_like(1.0, 3))
    np.testing.assert_allclose(tetrahedron.x, np.full(3, 1 / 3), atol=1e-5)
    assert tetrahedron.radius == pytest.approx(np.sqrt(2 / 3), rel=1e-6)
    interval = chebyshev.norm_ball(np.eye(1), 1.0) & chebyshev.slab([2.0], 1.0, 4.0)
    found = chebyshev.chebyshev_center_exact(interval)
    np.testing.assert_allclose([found.x[0], found.radius], [0.75, 0.25], atol=1e-9)


def random_body(seed: int, m: int):
    """Three ellipsoids with a common inner point."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(3, m, m))
    first, *others = (
        chebyshev.ellipsoid(F @ F.T + 0.2 * np.eye(m), 0.2 * v)
        for F, v in zip(factors, rng.normal(size=(3, m)))
    )
    return first & others[0] & others[1]


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_held_and_the_relaxation_is_never_smaller(seed, m):
    sets = random_body(seed, m)
    found = chebyshev.chebyshev_center_exact(sets)
    assert 0 <= found.radius - found.lower <= 1e-6 * found.radius
    # The points that prove the lower bound are in the set, and their smallest ball is this one.
    assert float(jax.vmap(sets.values)(jnp.asarray(found.points)).max()) <= 1e-12
    alone = chebyshev.chebyshev_center_exact(found.points)
    assert alone.radius == pytest.approx(found.lower, rel=1e-9)
    rng = np.random.default_rng(seed)
    points = found.x + found.radius * rng.uniform(-1, 1, size=(40_000, m))
    inside = np.asarray(jax.vmap(sets.values)(jnp.asarray(points)) <= 0).all(axis=1)
    assert inside.sum() > 100
    assert np.linalg.norm(points[inside] - found.x, axis=1).max() <= found.radius
    assert float(chebyshev.rcc(sets).radius) >= found.lower * (1 - 1e-9)


def test_few_balls_are_exact_by_the_relaxation():
    # Two balls in R^3 meet in a lens: the closed form again, where the boundary is not searched.
    lens = chebyshev.norm_ball(np.eye(3), 1.0)
    lens = lens & chebyshev.norm_ball(np.eye(3), 1.0, [1.2, 0.0, 0.0])
    found = chebyshev.chebyshev_center_exact(lens)
    np.testing.assert_allclose(found.x, [0.6, 0, 0], atol=1e-5)
    assert found.radius == pytest.approx(0.8, rel=1e-8)
    many = chebyshev.chebyshev_center_exact(chebyshev.norm_ball(2 * np.eye(7), 3.0, np.ones(7)))
    assert many.radius == pytest.approx(1.5, rel=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_two_ellipsoids_in_one_complex_coordinate_agree_with_the_boundary(seed):
    # C is a plane: the theorem (relaxation exact over C) against the search of the boundary.
    by_theorem = two_ellipsoids(seed, m=1)
    plane = chebyshev.ellipsoids(
        jnp.stack([F.T @ F for F in by_theorem.factors]),
        jnp.stack([-F.T @ t for F, t in zip(by_theorem.factors, by_theorem.targets)]),
        jnp.array([t @ t for t in by_theorem.targets]) - by_theorem.scale,
    )
    a = chebyshev.chebyshev_center_exact(by_theorem)
    b = chebyshev.chebyshev_center_exact(plane)
    assert a.x.dtype == complex
    assert a.x.shape == (1,)
    assert a.radius == pytest.approx(b.radius, rel=1e-6)


def test_bad_input_is_named():
    ball = chebyshev.norm_ball(np.eye(4), 1.0)
    for call, match in (
        (lambda: ball & chebyshev.box(-np.ones(4), np.ones(4)), "no exact method for 5 constr"),
        (lambda: np.full((2, 2), np.nan), "sets: expected Ellipsoids or finite points"),
        (lambda: np.ones(3), "sets: expected Ellipsoids or finite points"),
        (lambda: chebyshev.slab([1.0, 0.0], 0.0, 1.0), "unbounded"),
        (
            lambda: (
                chebyshev.norm_ball(np.eye(2), 1.0)
                & chebyshev.norm_ball(np.eye(2), 1.0, [3.0, 0.0])
            ),
            "empty",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            chebyshev.chebyshev_center_exact(call())
    with pytest.raises(ValueError, match="rtol: expected a positive number"):
        chebyshev.chebyshev_center_exact(ball, rtol=0.0)
