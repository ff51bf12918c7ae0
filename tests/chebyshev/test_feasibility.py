"""feasibility: which constraints make a set empty, which direction is free, and by how much."""

from fractions import Fraction

import numpy as np
import pytest

import chebyshev
from chebyshev import Status
from chebyshev.balls import proved_infimum
from chebyshev.geometry import scaled
from tests.chebyshev.test_relaxation import small_sets


def test_the_margin_of_two_discs_is_known():
    # Unit discs with centres 2 d apart meet when their squared radii are loosened to d².
    for d in (0.5, 1.5, 4.0):
        sets = chebyshev.norm_ball(np.eye(2), 1.0, [d, 0.0])
        sets = sets & chebyshev.norm_ball(np.eye(2), 1.0, [-d, 0.0])
        sets = sets & chebyshev.box(np.full(2, -9.0), np.full(2, 9.0))
        found = chebyshev.feasibility(sets)
        assert found.status == (Status.EMPTY if d > 1 else Status.CONVERGED)
        if d > 1:
            assert found.margin == pytest.approx(d * d - 1, rel=1e-6)
            assert found.constraints == ("norm_ball", "norm_ball")
            assert found.proved
            np.testing.assert_allclose(found.x, 0, atol=1e-4)
        else:
            assert found.margin < 0


def test_the_conflict_is_named_and_no_other_constraint():
    # Coordinates 0 and 2 of the box contradict the slab; 1 and 3 have nothing to do with it.
    sets = (
        chebyshev.noise_ball(np.eye(4), np.zeros(4), 100.0)
        & chebyshev.box(np.zeros(4), np.ones(4))
        & chebyshev.slab([1.0, 0.0, 1.0, 0.0], 2.5, 3.0)
    )
    found = chebyshev.feasibility(sets)
    assert found.status == Status.EMPTY == Status(int(chebyshev.rcc(sets).status))
    assert found.constraints == ("box[0]", "box[2]", "slab")
    assert found.proved


@pytest.mark.parametrize("seed", range(4))
def test_sets_with_an_interior_have_a_point_at_the_margin(seed):
    sets = small_sets(seed)
    found = chebyshev.feasibility(sets)
    assert found.status == Status.CONVERGED
    scale = np.asarray(scaled(sets).scale)
    assert (np.asarray(sets.values(found.x)) / scale).max() == pytest.approx(found.margin, abs=1e-6)
    assert found.margin <= float((sets.values(np.zeros(4)) / scale).max()) + 1e-7
    assert found.proved


def test_what_is_nearly_a_point_is_not_taken_for_either():
    # Unit discs whose lens is 2e wide: all that is said is proved.
    for e in (1e-4, 1e-12, 0.0, -1e-10, -1e-4):
        sets = chebyshev.norm_ball(np.eye(2), 1.0)
        sets = sets & chebyshev.norm_ball(np.eye(2), 1.0, [2 * (1 - e), 0.0])
        found = chebyshev.feasibility(sets)
        if abs(e) == 1e-4:
            assert found.status == (Status.CONVERGED if e > 0 else Status.EMPTY)
            assert found.proved
        if found.proved:
            assert (found.status == Status.EMPTY) == (e < 0)
        else:
            assert found.status == Status.STALLED


def test_discs_that_touch_far_away_are_never_proved_empty():
    # Exact in binary: centres 2 r apart, one common point. Moving them to the origin would round.
    rng = np.random.default_rng(0)
    for _ in range(40):
        center = np.round(rng.uniform(-1e6, 1e6, 2) * 2**20) / 2**20
        radius = 2.0 ** rng.integers(-3, 4)
        ball = chebyshev.norm_ball(np.eye(2), radius, center)
        found = chebyshev.feasibility(
            ball & chebyshev.norm_ball(np.eye(2), radius, center + np.array([2 * radius, 0]))
        )
        assert not found.proved


def test_parallel_slabs_that_contradict_are_empty_though_nothing_bounds_the_rest():
    sets = chebyshev.slab([1.0, 0.0], 0.0, 1.0) & chebyshev.slab([1.0, 0.0], 2.0, 3.0)
    found = chebyshev.feasibility(sets)
    assert (found.status, found.constraints) == (Status.EMPTY, ("slab", "slab"))


def test_nothing_is_proved_of_sets_that_are_not_empty():
    rng = np.random.default_rng(0)
    for seed in range(20):
        sets = small_sets(seed)
        alpha = rng.uniform(0, 1, len(sets.names))
        # The origin is admissible, so no combination can be positive everywhere.
        bound = proved_infimum(sets, alpha, rng.normal(size=4))
        assert bound <= alpha @ np.asarray(sets.values(np.zeros(4))) < 0


def test_the_infimum_is_below_the_exact_one_and_near_it():
    # f = x² + (x - 3)² - 2 over integers: the minimum is at 3/2, exactly 5/2.
    sets = chebyshev.norm_ball(np.eye(1), 1.0) & chebyshev.norm_ball(np.eye(1), 1.0, [3.0])
    bound = proved_infimum(sets, np.ones(2), np.array([1.5]))
    assert bound >= 2.5 - 1e-12
    assert Fraction(bound) <= Fraction(5, 2)
    assert proved_infimum(sets, np.ones(2), np.array([1.0])) <= 2.5


def test_an_unbounded_direction_is_shown_also_over_c():
    a = np.array([1.0, 1j])
    found = chebyshev.feasibility(chebyshev.noise_ball(a[None], np.zeros(1), 1.0))
    assert found.status == Status.UNBOUNDED
    assert abs(a @ found.x) < 1e-12
    assert np.linalg.norm(found.x) == pytest.approx(1)
    with pytest.raises(ValueError, match="sets: expected Ellipsoids"):
        chebyshev.feasibility(np.eye(2))
