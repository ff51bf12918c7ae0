"""rcc: closed solutions, values of independent solvers, geometry, derivatives, status."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chebyshev
from chebyshev import Status


def heat_sets(alpha: float, seed: int = 0):
    """The paper's first example."""
    problem = chebyshev.problems.heat(90)
    w = np.random.default_rng(seed).normal(size=90) * 1e-3
    sets = chebyshev.noise_ball(problem.A, problem.b + w, alpha * w @ w)
    return sets & chebyshev.simplex_like(alpha * problem.x.sum(), 90), problem.x


def blur_sets(seed: int):
    """The paper's second example."""
    problem = chebyshev.problems.blur(16, 4, 0.8)
    w = np.random.default_rng(seed).normal(size=256) * 0.05
    sets = chebyshev.noise_ball(problem.A, problem.b + w, 1.3 * w @ w)
    return sets & chebyshev.box(np.zeros(256), np.full(256, 4.0)), problem.x


def small_sets(seed: int, m: int = 4):
    """A random bounded set with an interior, the origin."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m + 1, m))
    y = 0.3 * rng.normal(size=m + 1)
    return (
        chebyshev.noise_ball(A, y, y @ y + rng.uniform(0.5, 3))
        & chebyshev.box(-rng.uniform(0.2, 1, m), rng.uniform(0.2, 1, m))
        & chebyshev.slab(rng.normal(size=m), -rng.uniform(0.2, 1), rng.uniform(0.2, 1))
    )


@pytest.mark.parametrize(("alpha", "value", "error"), [(2, 244.53, 9.82), (10, 5393.3, 1086.6)])
def test_heat_agrees_with_cvxpy(alpha, value, error):
    sets, x = heat_sets(alpha)
    solution = chebyshev.rcc(sets)
    assert int(solution.status) == Status.CONVERGED
    assert float(solution.value) == pytest.approx(value, rel=1e-4)
    assert float(jnp.sum((solution.x - x) ** 2)) == pytest.approx(error, rel=1e-3)
    assert float(solution.gap) <= 1e-9
    assert int(solution.num_steps) <= 30


@pytest.mark.parametrize(
    ("seed", "value", "error"), [(0, 210.96, 7.716), (1, 193.76, 6.803), (2, 209.67, 7.240)]
)
def test_blur_agrees_with_cvxpy(seed, value, error):
    sets, x = blur_sets(seed)
    solution = chebyshev.rcc(sets)
    assert int(solution.status) == Status.CONVERGED
    # The reference is SCS at 1e-5.
    assert float(solution.value) == pytest.approx(value, rel=1e-4)
    assert float(jnp.sum((solution.x - x) ** 2)) == pytest.approx(error, rel=1e-3)


def test_a_ball_a_box_and_an_ellipsoid_have_their_own_centre():
    center = np.array([1.0, -2.0, 0.5])
    ball = chebyshev.rcc(chebyshev.norm_ball(np.eye(3), 1.5, center))
    np.testing.assert_allclose(ball.x, center, atol=1e-8)
    assert float(ball.radius) == pytest.approx(1.5, rel=1e-8)
    half = np.array([1, 2, 3])
    box = chebyshev.rcc(chebyshev.box(center - half, center + half))
    np.testing.assert_allclose(box.x, center, atol=1e-8)
    assert float(box.value) == pytest.approx(14, rel=1e-8)
    P = np.diag([4.0, 1.0, 0.25])
    ellipsoid = chebyshev.rcc(chebyshev.ellipsoid(P, center))
    np.testing.assert_allclose(ellipsoid.x, center, atol=1e-7)
    assert float(ellipsoid.value) == pytest.approx(4, rel=1e-8)


def test_one_ellipsoid_and_a_ball_against_the_one_dimensional_dual():
    # With two constraints the dual has two variables; for Q_1 = I its minimum over one of them is
    # attained on a line that can be searched finely: an oracle without any matrix algebra of ours.
    q, g, d = np.array([3.0, 0.2]), np.array([0.3, -0.4]), -1.0
    sets = chebyshev.ellipsoids(np.diag(q)[None], g[None], [d])
    sets = sets & chebyshev.norm_ball(np.eye(2), 1.2)

    def dual(a, b):
        S = a * q + b
        ok = (S >= 1).all(axis=0)
        value = ((a * g.reshape(2, 1, 1)) ** 2 / np.maximum(S, 1)).sum(axis=0) - a * d + 1.44 * b
        return np.where(ok, value, np.inf)

    q = q.reshape(2, 1, 1)
    a, b = np.meshgrid(np.linspace(0, 3, 1201), np.linspace(0, 1.5, 1201))
    best = dual(a, b).min()
    value = float(chebyshev.rcc(sets).value)
    assert value <= best + 1e-9
    assert value == pytest.approx(best, rel=2e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_ball_holds_the_set_and_is_not_larger_than_the_boxes(seed):
    sets = small_sets(seed)
    solution = chebyshev.rcc(sets)
    assert int(solution.status) == Status.CONVERGED
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(300, 4))
    # Points on the boundary of the set, from the origin inside it: f_i is quadratic along a ray.
    lengths = np.full(300, np.inf)
    for i in range(len(sets.names)):
        at = jax.vmap(
            lambda t, i=i: jax.vmap(lambda v: sets.values(t * v)[i])(jnp.asarray(directions))
        )
        f0, f1, f2 = np.asarray(at(jnp.array([0.0, 1.0, -1.0])))
        a, b = (f1 + f2) / 2 - f0, (f1 - f2) / 2
        root = (-b + np.sqrt(np.maximum(b * b - 4 * a * f0, 0))) / (2 * a)
        lengths = np.minimum(lengths, root)
    points = directions * lengths[:, None]
    distance = np.linalg.norm(points - np.asarray(solution.x), axis=1)
    assert distance.max() <= float(solution.radius) * (1 + 1e-7)
    box = float(jnp.sum((sets.hi - sets.lo) ** 2) / 4)
    assert float(solution.value) <= box * (1 + 1e-8)


def test_more_constraints_never_enlarge_the_value():
    sets = small_sets(3)
    more = sets & chebyshev.norm_ball(np.eye(4), 0.6)
    assert float(chebyshev.rcc(more).value) <= float(chebyshev.rcc(sets).value) + 1e-9


def test_optimality_conditions():
    sets = small_sets(5)
    s = chebyshev.rcc(sets)
    assert float(s.alpha.min()) >= 0
    slack = -(
        sets.values(s.primal_x)
        + jnp.array([jnp.trace(F.T @ F @ s.W) for F in sets.factors] + [0.0] * 5)
        + jnp.concatenate(
            [
                jnp.zeros(1),
                jnp.diagonal(s.W),
                jnp.einsum("ki,ij,kj->k", sets.normals, s.W, sets.normals),
            ]
        )
    )
    np.testing.assert_allclose(s.alpha * slack, 0, atol=1e-7)
    np.testing.assert_allclose(s.x, s.primal_x, atol=1e-4)
    assert float(s.primal) == pytest.approx(float(s.value), rel=1e-8)


def test_scaling_and_translation():
    # x -> c x + t maps the centre along and the value by c².
    rng = np.random.default_rng(1)
    A, y, t, c = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3), 1e3
    base = chebyshev.noise_ball(A, y, 9.0) & chebyshev.box(-np.ones(3), np.ones(3))
    moved = chebyshev.noise_ball(A / c, y + A @ t / c, 9.0) & chebyshev.box(t - c, t + c)
    a, b = chebyshev.rcc(base), chebyshev.rcc(moved)
    np.testing.assert_allclose(b.x, c * a.x + t, rtol=1e-5, atol=1e-3)
    assert float(b.value) == pytest.approx(c * c * float(a.value), rel=1e-8)


@pytest.mark.parametrize("length", [1e-8, 1e-3, 1e8])
def test_any_unit_of_length_gives_the_same_answer(length):
    rng = np.random.default_rng(3)
    A, y = rng.normal(size=(5, 3)), rng.normal(size=5)

    def solve(unit, **options):
        ball = chebyshev.noise_ball(A / unit, y, 9.0)
        sets = ball & chebyshev.simplex_like(0.8 * unit, 3)
        return chebyshev.rcc(sets, **options)

    for options in ({}, {"cuts": "rlt"}):
        one, other = solve(1.0, **options), solve(length, **options)
        assert int(other.status) == Status.CONVERGED
        assert float(other.value) == pytest.approx(length**2 * float(one.value), rel=1e-7)
        np.testing.assert_allclose(other.x / length, one.x, atol=1e-4)


@pytest.mark.parametrize("shift", [1e3, 1e5, 1e8])
def test_sets_far_from_the_origin_are_solved_where_they_are(shift):
    center = np.full(2, shift)
    sets = chebyshev.norm_ball(np.eye(2), 1.0, center)
    sets = sets & chebyshev.box(center - 0.5, center + 3)
    solution = chebyshev.rcc(sets)
    near = chebyshev.norm_ball(np.eye(2), 1.0) & chebyshev.box(np.full(2, -0.5), np.full(2, 3.0))
    assert int(solution.status) == Status.CONVERGED
    assert float(solution.value) == pytest.approx(float(chebyshev.rcc(near).value), rel=1e-7)
    exact = chebyshev.chebyshev_center_exact(sets)
    # The chord from angle -30° to 120° about the centre: half its length is cos 15°.
    assert exact.lower <= np.cos(np.pi / 12) * (1 + 1e-7)
    assert exact.radius >= np.cos(np.pi / 12) * (1 - 1e-7)
    assert exact.radius == pytest.approx(np.cos(np.pi / 12), rel=1e-6)


def test_small_discs_and_long_boxes_are_neither_empty_nor_unbounded():
    for sets, value in (
        (chebyshev.norm_ball(np.eye(2), 1e-8, np.ones(2)), 1e-16),
        (chebyshev.norm_ball(1e9 * np.eye(2), 1.0, np.ones(2)), 1e-18),
        (chebyshev.box(np.zeros(2), np.array([1.0, 1e7])), (1 + 1e14) / 4),
        (chebyshev.norm_ball(np.diag([1.0, 1e-7]), 1.0), 1e14),
    ):
        solution = chebyshev.rcc(sets)
        assert int(solution.status) == Status.CONVERGED
        assert float(solution.value) == pytest.approx(value, rel=1e-7)
        assert chebyshev.chebyshev_center_exact(sets).radius == pytest.approx(value**0.5, rel=1e-7)


def test_derivatives_against_differences():
    rng = np.random.default_rng(1)
    m = 4
    A, y = jnp.asarray(rng.normal(size=(6, m))), jnp.asarray(0.3 * rng.normal(size=6))
    arguments = (y, jnp.asarray(1.0), A, -0.3 * jnp.ones(m), 0.5 * jnp.ones(m))
    weights = jnp.asarray(rng.normal(size=m))

    @jax.jit
    def value(y, rho, A, lo, hi):
        sets = chebyshev.noise_ball(A, y, rho) & chebyshev.box(lo, hi)
        solution = chebyshev.rcc(sets & chebyshev.slab(jnp.ones(m), -0.4, 0.6), rtol=1e-11)
        return weights @ solution.x + solution.value

    gradient = jax.grad(value, argnums=(0, 1, 2, 3, 4))(*arguments)
    for i, argument in enumerate(arguments):
        v = jnp.asarray(rng.normal(size=argument.shape))
        plus, minus = list(arguments), list(arguments)
        plus[i], minus[i] = argument + 1e-4 * v, argument - 1e-4 * v
        difference = float(value(*plus) - value(*minus)) / 2e-4
        assert float(jnp.sum(gradient[i] * v)) == pytest.approx(difference, rel=1e-3, abs=1e-4)
        tangents = tuple(v if j == i else jnp.zeros_like(a) for j, a in enumerate(arguments))
        _, forward = jax.jvp(value, arguments, tangents)
        assert float(forward) == pytest.approx(difference, rel=1e-3, abs=1e-4)


def test_vmap_over_observations_and_rho_equals_the_loop():
    rng = np.random.default_rng(2)
    A, ys = jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(0.3 * rng.normal(size=(3, 6)))
    rhos = jnp.array([5.0, 8.0, 11.0])

    def solve(y, rho):
        return chebyshev.rcc(
            chebyshev.noise_ball(A, y, rho) & chebyshev.box(-jnp.ones(4), jnp.ones(4))
        )

    batch = jax.jit(jax.vmap(solve))(ys, rhos)
    for i in range(3):
        one = solve(ys[i], rhos[i])
        np.testing.assert_allclose(batch.value[i], one.value, rtol=1e-8)
        np.testing.assert_allclose(batch.x[i], one.x, atol=1e-5)
    assert (batch.status == Status.CONVERGED).all()


def test_vmap_of_the_gradient_at_the_size_of_heat():
    # Batched factorisations of this size inside one program waited for ever, see `optimum`.
    problem = chebyshev.problems.heat(90)
    ys = jnp.asarray(problem.b + 1e-3 * np.random.default_rng(1).normal(size=(2, 90)))

    def value(y):
        ball = chebyshev.noise_ball(problem.A, y, 1e-4)
        return chebyshev.rcc(ball & chebyshev.simplex_like(16.0, 90)).value

    batch = jax.jit(jax.vmap(jax.grad(value)))(ys)
    one = jax.jit(jax.grad(value))
    for i in range(2):
        np.testing.assert_allclose(batch[i], one(ys[i]), rtol=1e-4, atol=1e-6 * np.abs(batch).max())


def test_the_second_call_does_not_retrace():
    traces = []

    @jax.jit
    def call(y):
        traces.append(None)
        return chebyshev.rcc(chebyshev.noise_ball(jnp.eye(3), y, 1.0)).x

    call(jnp.ones(3))
    call(jnp.zeros(3))
    assert len(traces) == 1


def test_an_empty_set_is_said():
    sets = chebyshev.box(np.zeros(2), np.ones(2)) & chebyshev.norm_ball(np.eye(2), 0.5, [3.0, 3.0])
    solution = chebyshev.rcc(sets)
    assert int(solution.status) == Status.EMPTY
    assert not bool(jnp.isfinite(solution.x).any())
    assert "empty" in Status.EMPTY.message


def test_an_unbounded_set_is_said():
    A = np.array([[1.0, 1.0]])
    solution = chebyshev.rcc(chebyshev.noise_ball(A, np.zeros(1), 1.0))
    assert int(solution.status) == Status.UNBOUNDED
    assert float(solution.value) == jnp.inf
    bounded = chebyshev.rcc(
        chebyshev.noise_ball(A, np.zeros(1), 1.0) & chebyshev.slab([1.0, -1.0], -1.0, 1.0)
    )
    assert int(bounded.status) == Status.CONVERGED
    assert float(bounded.value) == pytest.approx(1.0, rel=1e-8)


def test_nan_under_jit_never_converges():
    def solve(y):
        return chebyshev.rcc(chebyshev.noise_ball(jnp.eye(2), y, 1.0))

    solution = jax.jit(solve)(jnp.array([jnp.nan, 0.0]))
    assert int(solution.status) not in (Status.CONVERGED, Status.MAX_STEPS)


def test_too_few_steps_are_said_and_the_bound_still_holds():
    sets = small_sets(7)
    short, full = chebyshev.rcc(sets, max_steps=5), chebyshev.rcc(sets)
    assert int(short.status) == Status.MAX_STEPS
    # The value is a dual value: an upper bound at every step.
    assert float(short.value) >= float(full.value) * (1 - 1e-9)


def test_bad_options_are_named():
    sets = small_sets(0)
    for call, match in (
        (lambda: chebyshev.rcc(jnp.eye(2)), "sets: expected Ellipsoids, got"),
        (lambda: chebyshev.rcc(sets, rtol=0.0), "rtol: expected a positive number"),
        (lambda: chebyshev.rcc(sets, max_steps=0), "max_steps: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_float32_is_refused_with_the_way_out():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            chebyshev.box(np.zeros(2), np.ones(2))
    finally:
        jax.config.update("jax_enable_x64", True)
