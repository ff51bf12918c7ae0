"""Learner: deterministic, resumable, compiled once, batched; and what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.learning.objective import NEW, margin_risk, slowest_rate
from lyapjax.learning.warmup import stabilising_gain

KEY = jax.random.key(0)
# Small, so that compiling and running take seconds.
SMALL = ly.Recipe(hidden=(4,), num_samples=64, num_counterexamples=40, num_steps=5, num_rounds=4)


@pytest.fixture(scope="module")
def pendulum():
    """The paper's first system."""
    return ly.systems.inverted_pendulum()


@pytest.fixture(scope="module")
def small(pendulum):
    """Eight rounds in one call, from key 0."""
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    return ly.learn(pendulum, state, recipe=SMALL, max_rounds=8)


def leaves(tree):
    """Arrays of a tree, keys as their data."""
    tree = jax.tree.map(
        lambda v: jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v,
        tree,
    )
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for one, two in zip(leaves(a), leaves(b), strict=True):
        assert one.dtype == two.dtype
        assert one.tobytes() == two.tobytes()


def test_the_start_is_lqr(pendulum):
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    regulator = ly.lqr(pendulum)
    np.testing.assert_array_equal(state.u.K[...], regulator.K)
    # R'R is P up to a factor, for which the least value on ∂D is 1.
    R = np.asarray(state.V.R[...])
    ratio = R.T @ R / regulator.P
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-10)
    assert np.linalg.eigvalsh(R.T @ R)[0] * 36 == pytest.approx(1, rel=1e-2)
    assert slowest_rate(pendulum) == pytest.approx(min(-regulator.eigenvalues.real))


def test_a_random_start_is_one_that_stabilises(pendulum):
    x, gains = jnp.zeros(2), []
    for seed in range(4):
        u = ly.initialise(jax.random.key(seed), pendulum, recipe=SMALL, start="random").u
        A = np.asarray(jax.jacfwd(pendulum.closed_loop(u))(x))
        assert np.linalg.eigvals(A).real.max() < 0
        gains.append(np.asarray(u.K[...]))
    assert np.ptp(gains, axis=0).min() > 0.1  # as different as the random ones they come from
    # What stabilises already is left alone, and the way back from far off is found.
    gain = jax.jit(stabilising_gain)
    good = jnp.asarray(ly.lqr(pendulum).K)
    np.testing.assert_array_equal(gain(pendulum, good), good)
    far = ly.LinearController(gain(pendulum, jnp.array([[4.0, 3.0]])))
    A = np.asarray(jax.jacfwd(pendulum.closed_loop(far))(x))
    assert np.linalg.eigvals(A).real.max() < 0


def test_the_same_key_gives_the_same_bits(pendulum, small):
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    assert_same_bits(ly.learn(pendulum, state, recipe=SMALL, max_rounds=8), small)


def test_interrupted_and_stored_is_uninterrupted_bit_for_bit(pendulum, small):
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    risks = []
    for rounds in (3, 5):
        state, history = ly.learn(pendulum, state, recipe=SMALL, max_rounds=rounds)
        risks.append(history.risk)
        # To the disk and back: plain arrays, put into a fresh state's structure.
        stored = leaves(state)
        blank = ly.initialise(jax.random.key(9), pendulum, recipe=SMALL)
        flat, structure = jax.tree.flatten(blank)
        flat = [
            jax.random.wrap_key_data(new)
            if jnp.issubdtype(old.dtype, jax.dtypes.prng_key)
            else jnp.asarray(new)
            for old, new in zip(flat, stored)
        ]
        state = jax.tree.unflatten(structure, flat)
    if int(small[0].status) != ly.LearnerStatus.CLEAN:
        assert int(state.num_rounds) == 8
    assert_same_bits(state, small[0])


def test_counterexamples_do_not_retrace(pendulum):
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    state, _ = ly.learn(pendulum, state, recipe=SMALL, max_rounds=2)
    counted = []
    jax.monitoring.register_event_duration_secs_listener(listener := _listener(counted))
    try:
        fuller = ly.add_counterexamples(state, jnp.ones((3, 2)))
        before = list(counted)
        for key in range(3):
            other = ly.initialise(jax.random.key(key), pendulum, recipe=SMALL)
            before = list(counted)
            ly.learn(pendulum, other, recipe=SMALL, max_rounds=2)
            ly.learn(pendulum, fuller, recipe=SMALL, max_rounds=2)
            assert counted == before
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def _listener(counted):
    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    return listen


def test_many_seeds_at_once_are_a_loop(pendulum):
    keys = jax.random.split(jax.random.key(3), 3)

    def run(key):
        state = ly.initialise(key, pendulum, recipe=SMALL)
        return ly.learn(pendulum, state, recipe=SMALL, max_rounds=3)

    batch, _ = jax.vmap(run)(keys)
    for i, key in enumerate(keys):
        one, _ = run(key)
        ours = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        assert int(ours.num_rounds) == int(one.num_rounds) == 3
        for a, b in zip(leaves((ours.V, ours.u)), leaves((one.V, one.u))):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_history_has_a_row_a_round(small):
    state, history = small
    done = int(state.num_rounds)
    assert history.risk.shape == (8, SMALL.num_steps)
    assert np.isfinite(history.risk[:done]).all()
    assert np.isnan(history.risk[done:]).all()
    assert np.all((history.coverage[:done] > 0) & (history.coverage[:done] < 1))
    added = int(np.isfinite(history.counterexamples[..., 0]).sum())
    assert added == int(state.num_found)


def test_counterexamples_fill_the_buffer_in_turn():
    system = ly.systems.double_integrator()
    state = ly.initialise(KEY, system, recipe=SMALL)
    points = jnp.arange(60.0).reshape(30, 2)
    state = ly.add_counterexamples(ly.add_counterexamples(state, points), points + 100)
    assert int(state.num_found) == 60
    buffer = np.asarray(state.counterexamples)
    np.testing.assert_array_equal(buffer[:20], points[10:] + 100)
    np.testing.assert_array_equal(buffer[20:30], points[20:])
    np.testing.assert_array_equal(buffer[30:], points[:10] + 100)


def test_the_risk_is_its_formula():
    """By plain NumPy for a linear system, where V̇ of a quadratic is known."""
    system = ly.systems.double_integrator(radius=2.0)
    u = ly.linear_controller(system, [[-1.0, -0.2]])
    P = np.array([[1.5, 0.3], [0.3, 0.8]])
    V = ly.quadratic_lyapunov(P)
    rng = np.random.default_rng(0)
    x, close, rim = (rng.normal(size=(k, 2)) for k in (64 + 40, 32, 32))
    filled = np.arange(104) < 70
    A = np.array([[0, 1], [-1, -0.2]])
    S = A.T @ P + P @ A
    rate = slowest_rate(system)

    def value(M, x):
        return np.einsum("ki,ij,kj->k", x, M, x)

    def h(x):
        return np.log1p(np.maximum(value(S, x) / (rate * value(P, x)) + SMALL.margin, 0))

    member = np.clip((1.1 - value(P, x)) / 0.2, 0, 1)
    here, there = np.where(filled, h(x) * member, 0), h(close)
    low = np.maximum(1.03 - value(P, rim), 0)
    inside = value(P, x[:64])
    area = np.mean(1 / (1 + np.exp(-(1 - inside) / 0.1)))
    means = here.sum() / 64 + there.mean() + low.mean()
    expected = 10 * means + 0.3 * (here.max() + there.max()) + low.max() - area
    expected -= 0.1 * np.mean(1 / (1 + inside))
    data = tuple(jnp.asarray(v) for v in (x, close, rim, filled))
    got, (coverage, least) = margin_risk(system, SMALL, V, u, data)
    assert float(got) == pytest.approx(expected, rel=1e-10)
    assert float(coverage) == pytest.approx(area, rel=1e-10)
    assert float(least) == pytest.approx(value(P, rim).min(), rel=1e-10)

    # Its gradient is that of finite differences.

    def at(K):
        return margin_risk(system, SMALL, V, ly.linear_controller(system, K), data)[0]

    K, step = jnp.array([[-1.0, -0.2]]), jnp.array([[1e-6, 0.0]])
    slope = (at(K + step) - at(K - step)) / 2e-6
    assert float(jax.grad(at)(K)[0, 0]) == pytest.approx(float(slope), rel=1e-4)


def test_nan_is_a_status_and_the_last_finite_candidate_is_kept():
    system = ly.systems.double_integrator()
    state = ly.initialise(KEY, system, recipe=SMALL)
    broken = state.V.R[...].at[0, 0].set(jnp.nan)
    bad = ly.StructuredLyapunov(
        list(state.V.weights), list(state.V.biases), state.V.A, state.V.R, equilibrium=(0.0, 0.0)
    )
    bad.R[...] = broken
    after, _ = ly.learn(system, state._replace(V=bad), recipe=SMALL, max_rounds=3)
    assert int(after.status) == ly.LearnerStatus.NOT_FINITE
    assert int(after.num_rounds) == 0
    assert "learning rate" in ly.LearnerStatus(int(after.status)).message
    # A learning rate that overflows: the candidate is finite, the status is not RUNNING.
    wild = ly.Recipe(**{**vars(SMALL), "learning_rate": 1e160})
    after, _ = ly.learn(system, ly.initialise(KEY, system, recipe=wild), recipe=wild, max_rounds=3)
    assert int(after.status) == ly.LearnerStatus.NOT_FINITE
    for leaf in leaves((after.V, after.u)):
        assert np.isfinite(leaf).all()


@jax.jit
def values(system, V, u, x):
    """V and its derivative at many points."""
    f = system.closed_loop(u)
    return jax.vmap(lambda x: (V(x), ly.lie_derivative(V, f, x)))(x)


def region(system, V, u, num=300):
    """Share of D in the largest level set that dense samples say is one, and that level."""
    lo, hi = np.asarray(system.domain.lo), np.asarray(system.domain.hi)
    axes = [np.linspace(a, b, num) for a, b in zip(lo, hi)]
    x = jnp.asarray(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2))
    x = x[np.asarray(system.domain.gauge(x)) <= 1]
    value, slope = values(system, V, u, x)
    bad = (slope >= 0) & (jnp.linalg.norm(x, axis=1) > 1e-6)
    rim = jax.vmap(V)(system.domain.boundary(jax.random.key(5), 2000))
    level = min(float(rim.min()), float(jnp.min(jnp.where(bad, value, jnp.inf))))
    return float(jnp.mean(value < level)), level


@pytest.mark.parametrize(
    ("system", "goal"),
    [
        (ly.systems.inverted_pendulum, 47 / 113.1),
        (ly.systems.path_following, 1.26 / 2.011),
    ],
    ids=["pendulum", "path following"],
)
def test_the_papers_systems_are_learned_from_twenty_seeds(system, goal):
    system = system()
    keys = jax.random.split(jax.random.key(11), 20)

    def run(key):
        return ly.learn(system, ly.initialise(key, system))[0]

    found = [run(key) for key in keys]
    good = 0
    for state in found:
        share, level = region(system, state.V, state.u)
        good += share >= goal and level >= 0.9 and int(state.status) == ly.LearnerStatus.CLEAN
    assert good >= 19


def test_bad_recipes_and_states_are_named(pendulum):
    state = ly.initialise(KEY, pendulum, recipe=SMALL)
    for call, match in (
        (lambda: ly.Recipe(hidden=()), "hidden: expected at least one layer"),
        (lambda: ly.Recipe(hidden=(4, 0)), r"hidden: expected positive integers, got \(4, 0\)"),
        (lambda: ly.Recipe(margin=0.0), "margin: expected a positive number, got 0.0"),
        (lambda: ly.Recipe(num_steps=1.5), "num_steps: expected a positive number, got 1.5"),
        (lambda: ly.Recipe(safety=1.0), "safety: expected less than 1"),
        (lambda: ly.Recipe(num_counterexamples=1), f"expected at least {NEW}, got 1"),
        (lambda: ly.initialise(KEY, pendulum, start="zeros"), "start: expected 'lqr' or 'random'"),
        (lambda: ly.initialise(KEY, pendulum.f), "system: expected a System"),
        (lambda: ly.learn(pendulum, state), r"state: expected a buffer of shape \(128, 2\)"),
        (lambda: ly.learn(pendulum, state, recipe=SMALL, max_rounds=0), "max_rounds: expected"),
        (lambda: ly.learn(pendulum, None), "state: expected a LearnerState, got NoneType"),
        (lambda: ly.add_counterexamples(state, jnp.ones((41, 2))), "x: expected at most 40 points"),
        (lambda: ly.add_counterexamples(state, jnp.ones((1, 3))), r"of shape \(2,\), got \(1, 3"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
