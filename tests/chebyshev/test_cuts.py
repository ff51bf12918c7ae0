"""Products of linear constraints: valid, tightening, certified, and what they do to heat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chebyshev
from chebyshev import Status
from chebyshev.cuts import linear_forms, violations, with_cuts
from chebyshev.geometry import Geometry, scaled
from tests.chebyshev.test_relaxation import heat_sets, small_sets


def all_pairs(sets):
    """Every product of forms of different slabs."""
    count = 2 * (len(sets.coordinates) + sets.normals.shape[0])
    return jnp.array(
        [(i, j) for i in range(count) for j in range(i + 1, count) if i // 2 != j // 2]
    )


def test_forms_are_the_sides_of_the_slabs():
    sets = small_sets(1)
    u, b = linear_forms(scaled(sets), sets.coordinates)
    x = np.random.default_rng(0).normal(size=4)
    lo = np.concatenate([sets.lo, sets.slab_lo])
    hi = np.concatenate([sets.hi, sets.slab_hi])
    along = np.concatenate([x, sets.normals @ x])
    half = (hi - lo) / 2
    np.testing.assert_allclose((b - u @ x)[0::2], (hi - along) / half, atol=1e-12)
    np.testing.assert_allclose((b - u @ x)[1::2], (along - lo) / half, atol=1e-12)


def test_geometry_of_cuts_equals_dense_matrices():
    sets = small_sets(2)
    cuts = all_pairs(sets)
    problem = with_cuts(scaled(sets), sets.coordinates, cuts)
    geometry = Geometry(problem, sets.coordinates)
    k, m = problem.g.shape
    Q = np.stack([geometry.combine(row) for row in jnp.eye(k)])
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=m))
    u, b = linear_forms(problem, sets.coordinates)
    r = b - u @ x
    dense = np.einsum("i,kij,j->k", x, Q, x) + 2 * problem.g @ x + problem.d
    np.testing.assert_allclose(dense[-len(cuts) :], -r[cuts[:, 0]] * r[cuts[:, 1]], atol=1e-11)
    np.testing.assert_allclose(geometry.values(x), dense, atol=1e-11)
    np.testing.assert_allclose(geometry.gradients(x), Q @ x + problem.g, atol=1e-11)
    W, Z = (jnp.asarray(X @ X.T + np.eye(m)) for X in rng.normal(size=(2, m, m)))
    np.testing.assert_allclose(geometry.inner(W), np.einsum("kij,ij->k", Q, W), atol=1e-11)
    T = np.einsum("aij,jk,bkl,li->ab", Q, W, Q, Z)
    np.testing.assert_allclose(geometry.schur(W, Z), T, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_radius_never_grows_and_the_ball_holds_the_set(seed):
    sets = small_sets(seed)
    plain, tight = chebyshev.rcc(sets), chebyshev.rcc(sets, cuts="rlt")
    assert int(tight.status) == Status.CONVERGED
    assert float(tight.value) <= float(plain.value) * (1 + 1e-8)
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, size=(4000, 4))
    inside = np.asarray(jax.vmap(sets.values)(jnp.asarray(points)) <= 0).all(axis=1)
    assert inside.sum() > 20
    distance = np.linalg.norm(points[inside] - np.asarray(tight.x), axis=1)
    assert distance.max() <= float(tight.radius)
    # With room for all products, the rounds end at the relaxation with every one of them.
    left = violations(scaled(sets), sets.coordinates, tight.W, tight.primal_x)
    assert float(left.max()) <= 1e-5


def test_a_triangle_becomes_exact():
    # x >= 0, x1 + x2 <= 1 as a box and a slab: the centre of the enclosing ball of the triangle is
    # the middle of its long side, radius 1/√2. Without cuts the relaxation keeps the larger box.
    sets = chebyshev.simplex_like(1.0, 2)
    plain, tight = chebyshev.rcc(sets), chebyshev.rcc(sets, cuts="rlt")
    np.testing.assert_allclose(tight.x, [0.5, 0.5], atol=1e-4)
    assert float(tight.value) == pytest.approx(0.5, rel=1e-8)
    assert float(plain.value) >= 0.5 - 1e-9


def test_the_tail_of_heat_is_tightened_and_proved():
    sets, x = heat_sets(2)
    plain = chebyshev.rcc(sets)
    tight = chebyshev.rcc(sets, cuts="rlt")
    assert float(tight.value) < 0.45 * float(plain.value)
    proof = chebyshev.certify(sets, tight)
    assert proof.gap <= 1e-7
    assert np.linalg.norm(x - tight.x) <= proof.radius < 0.7 * float(plain.radius)


@pytest.mark.parametrize("seed", range(3))
def test_certificate_and_cvxpy_agree_on_the_tightened_value(seed):
    sets = small_sets(seed)
    tight = chebyshev.rcc(sets, cuts="rlt")
    proof = chebyshev.certify(sets, tight)
    assert proof.gap <= 1e-7
    value, _ = chebyshev.certify(sets, tight, backend="cvxpy")
    assert proof.lower * (1 - 1e-6) <= value <= proof.upper * (1 + 1e-6)


def test_an_invented_cut_proves_nothing_smaller():
    # A cut names forms of the sets, so whatever pairs are given, the bound holds.
    sets = small_sets(0)
    tight = chebyshev.rcc(sets, cuts="rlt")
    shuffled = tight._replace(cuts=tight.cuts[::-1])
    assert chebyshev.certify(sets, shuffled).upper >= float(tight.value) * (1 - 1e-9)
    with pytest.raises(ValueError, match="solution: expected cuts to name linear constraints"):
        chebyshev.certify(sets, tight._replace(cuts=jnp.full_like(tight.cuts, 99)))


def test_cuts_compose_with_jit_vmap_and_grad():
    rng = np.random.default_rng(5)
    A, ys = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(0.2 * rng.normal(size=(2, 5)))

    def value(y):
        sets = chebyshev.noise_ball(A, y, 4.0) & chebyshev.simplex_like(1.0, 3)
        return chebyshev.rcc(sets, cuts="rlt", num_cuts=16, rtol=1e-11).value

    batch = jax.jit(jax.vmap(value))(ys)
    single = jnp.stack([value(y) for y in ys])
    np.testing.assert_allclose(batch, single, rtol=1e-8)
    v = jnp.asarray(rng.normal(size=5))
    difference = float(value(ys[0] + 1e-4 * v) - value(ys[0] - 1e-4 * v)) / 2e-4
    assert float(jax.grad(value)(ys[0]) @ v) == pytest.approx(difference, rel=1e-2, abs=1e-4)


def test_sets_without_linear_constraints_have_no_cuts():
    sets = chebyshev.norm_ball(np.eye(2), 1.0)
    assert chebyshev.rcc(sets, cuts="rlt").cuts.shape == (0, 2)
    for call, match in (
        (lambda: chebyshev.rcc(sets, cuts="sdp"), "cuts: expected None or 'rlt', got 'sdp'"),
        (lambda: chebyshev.rcc(sets, cuts="rlt", num_cuts=0), "num_cuts: expected at least 1"),
        (lambda: chebyshev.rcc(sets, cuts="rlt", max_rounds=0), "max_rounds: expected at least"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
