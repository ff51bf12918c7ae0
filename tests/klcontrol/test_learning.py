"""The update rules: what one step does, what many converge to, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klcontrol

CLOSED = {
    "2.2": klcontrol.examples.boltzmann(np.random.default_rng(0).uniform(0, 2, 12)),
    "2.3": klcontrol.examples.independent(
        np.random.default_rng(1).dirichlet(np.ones(15)), np.random.default_rng(2).uniform(0, 2, 15)
    ),
}


def normalised(value):
    z = np.exp(-np.asarray(value))
    return z / z.sum()


def draft_step(z, lam, x, c, y, gamma, alpha):
    """Algorithm 3.3 as written, in full vectors, with ζ by the cost of x."""
    zeta = np.exp(-c) * z[y] - lam * z[x]
    moved = z.copy()
    moved[x] += gamma * zeta
    return moved / np.linalg.norm(moved), lam + gamma * alpha * z[x] * zeta


def test_carrying_the_norm_gives_the_draft_s_iterates():
    rng = np.random.default_rng(0)
    n, alpha = 5, 0.7
    algorithm = klcontrol.kl_learning(
        alpha=alpha, relative=False, clock="global", gain_fn=lambda k: 1 / (2 + 5 * k)
    )
    state = algorithm.init(n)
    z, lam = np.ones(n) / np.sqrt(n), 1.0
    for m in range(300):
        x, y, c = rng.integers(n), rng.integers(n), rng.uniform(-0.5, 1)
        z, lam = draft_step(z, lam, x, c, y, 1 / (2 + m), alpha)
        state = algorithm.step(state, x, c, y)
        if m % 50 == 20:
            state = algorithm.refresh(state)
    np.testing.assert_allclose(state.v / np.sqrt(state.square), z, rtol=1e-12)
    assert float(state.lam) == pytest.approx(lam, rel=1e-12)
    np.testing.assert_allclose(algorithm.estimate(state).z, z / z.sum(), rtol=1e-12)


def test_relative_gains_are_the_draft_s_with_gain_over_lam():
    relative = klcontrol.kl_learning(gain_fn=lambda k: 0.3, alpha=0.5)
    a = relative.step(relative.init(3, lam=0.8), 0, 0.4, 1)
    absolute = klcontrol.kl_learning(gain_fn=lambda k: 0.3 / 0.8, alpha=0.5 * 0.8, relative=False)
    b = absolute.step(absolute.init(3, lam=0.8), 0, 0.4, 1)
    np.testing.assert_allclose(a.v, b.v, rtol=1e-15)
    assert float(a.lam) == pytest.approx(float(b.lam), rel=1e-15)


def test_a_constant_factor_of_the_weights_only_scales_lam():
    # c + log 2 halves every weight; started at half the λ, all else is the same to the last bit.
    rng = np.random.default_rng(3)
    algorithm = klcontrol.kl_learning()
    a, b = algorithm.init(4, lam=1.0), algorithm.init(4, lam=0.5)
    for _ in range(200):
        x, y, w = rng.integers(4), rng.integers(4), jnp.asarray(rng.uniform(0.2, 1))
        a, b = algorithm.update(a, x, w, y), algorithm.update(b, x, w / 2, y)
    np.testing.assert_array_equal(a.v, b.v)
    assert float(a.lam) == 2 * float(b.lam)


@pytest.mark.float32
def test_z_and_lam_stay_positive_under_adversarial_transitions():
    rng = np.random.default_rng(4)
    data = (rng.integers(0, 6, 5000), rng.uniform(-8, 8, 5000), rng.integers(0, 6, 5000))
    algorithm = klcontrol.kl_learning()

    def observe(state, row):
        state = algorithm.refresh(algorithm.step(state, *row))
        return state, (state.v.min(), state.lam)

    _, (least, lam) = jax.lax.scan(observe, algorithm.init(6), tuple(map(jnp.asarray, data)))
    assert bool((least > 0).all())
    assert bool((lam > 0).all())


# By the global clock the example 2.3 takes longer: a state of probability 4e-4 learns that slowly.
@pytest.mark.parametrize(("name", "clock"), [("2.2", "local"), ("2.3", "local"), ("2.2", "global")])
def test_the_paper_s_examples_by_the_stated_rule(name, clock):
    e = CLOSED[name]
    n = e.problem.num_states
    run = klcontrol.simulate(
        jax.random.key(0),
        e.problem,
        klcontrol.kl_learning(clock=clock),
        num_steps=10_000 * n,
        every=1000 * n,
        num_chains=32,
    )
    assert float(run.lam.mean()) == pytest.approx(float(e.lam), rel=0.01)
    z = np.asarray(run.z.mean(axis=0))
    assert np.abs(z - normalised(e.value)).sum() < 0.05


@pytest.mark.parametrize(
    ("shape", "goal", "cost"), [((5, 5), (0, 0), 1.0), ((8, 8), (2, 6), 0.3), ((6, 6), (1, 1), 9.0)]
)
def test_gridworlds_by_the_stated_rule(shape, goal, cost):
    problem = klcontrol.examples.gridworld(shape, goals=[goal], cost=cost).problem
    exact = klcontrol.solve(problem)
    n = problem.num_states
    run = klcontrol.simulate(
        jax.random.key(1), problem, num_steps=10_000 * n, every=1000 * n, num_chains=32
    )
    assert float(run.lam.mean()) == pytest.approx(float(exact.lam), rel=0.01)
    z = np.asarray(run.z.mean(axis=0))
    assert np.abs(z - np.asarray(exact.z / exact.z.sum())).sum() < 0.05


def test_the_printed_cost_leads_to_another_vector_and_is_mapped_back():
    e = CLOSED["2.3"]
    n = e.problem.num_states
    algorithm = klcontrol.kl_learning(cost_at="next")
    run = klcontrol.simulate(
        jax.random.key(2),
        e.problem,
        algorithm,
        num_steps=10_000 * n,
        every=1000 * n,
        num_chains=32,
    )
    z = normalised(e.value)
    assert float(run.lam.mean()) == pytest.approx(float(e.lam), rel=0.01)
    assert np.abs(np.asarray(run.z.mean(axis=0)) - z).sum() < 0.05
    # In Example 2.3 C⁻¹ z* is constant: far from z*.
    raw = np.asarray(run.state.learner.v.mean(axis=0))
    np.testing.assert_allclose(raw / raw.sum(), 1 / n, rtol=0.05)
    assert np.abs(raw / raw.sum() - z).sum() > 0.3


def test_z_learning_finds_the_cost_until_absorption():
    problem = klcontrol.examples.gridworld((4, 4), goals=[(0, 0)], criterion="total").problem
    exact = klcontrol.solve(problem)
    run = klcontrol.simulate(
        jax.random.key(3),
        problem,
        klcontrol.z_learning(),
        num_steps=160_000,
        every=16_000,
        num_chains=32,
    )
    z = np.exp(-np.asarray(exact.value))
    assert np.abs(np.asarray(run.z.mean(axis=0)) - z).sum() < 0.05 * z.sum()
    np.testing.assert_array_equal(run.z[:, int(np.argmax(z))], 1.0)
    np.testing.assert_array_equal(run.lam, 1.0)


def test_the_differential_rule_finds_the_same():
    e = CLOSED["2.2"]
    run = klcontrol.simulate(
        jax.random.key(4), e.problem, klcontrol.differential(), num_steps=120_000, num_chains=32
    )
    assert float(run.lam.mean()) == pytest.approx(float(e.lam), rel=0.01)
    assert np.abs(np.asarray(run.z.mean(axis=0)) - normalised(e.value)).sum() < 0.05


def test_projection_keeps_lam_between_its_bounds():
    algorithm = klcontrol.kl_learning(projection=(0.5, 0.6), alpha=5.0)
    state = algorithm.init(2)
    assert float(algorithm.step(state, 0, 9.0, 1).lam) == 0.5
    assert float(algorithm.step(state, 0, -3.0, 1).lam) == 0.6
    loose = klcontrol.kl_learning(alpha=5.0)
    assert float(loose.step(state, 0, 9.0, 1).lam) < 0.5
    assert float(loose.step(state, 0, -3.0, 1).lam) > 0.6


def test_jit_equals_eager_and_vmap_equals_a_loop():
    algorithm = klcontrol.kl_learning()
    rng = np.random.default_rng(5)
    xs, ys = rng.integers(0, 4, (2, 6))
    costs = rng.uniform(0, 1, 6)
    start = algorithm.init(4)
    batched = jax.vmap(algorithm.step, (None, 0, 0, 0))(start, xs, costs, ys)
    for i in range(6):
        one = algorithm.step(start, xs[i], costs[i], ys[i])
        compiled = jax.jit(algorithm.step)(start, xs[i], costs[i], ys[i])
        for a, b, c in zip(one, compiled, batched):
            np.testing.assert_allclose(a, b, rtol=1e-15)
            np.testing.assert_allclose(a, c[i], rtol=1e-15)


def test_gains_satisfy_what_convergence_asks_for():
    k = jnp.arange(0.0, 1e6)
    gains = klcontrol.default_gain(k)
    assert float(gains[0]) == 0.5
    assert bool((jnp.diff(gains) < 0).all())
    # Between 10⁴ and 10⁶ the exponent is -3/4, so Σ g diverges and Σ g² does not.
    slope = jnp.log(gains[-1] / gains[10_000]) / jnp.log((k[-1] + 40) / (k[10_000] + 40))
    assert float(slope) == pytest.approx(-0.75, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: klcontrol.kl_learning(clock="mine"), "clock: expected one of"),
        (lambda: klcontrol.kl_learning(cost_at="last"), "cost_at: expected one of"),
        (lambda: klcontrol.kl_learning(alpha=0.0), "alpha: expected a positive number"),
        (lambda: klcontrol.kl_learning(beta=float("nan")), "beta: expected a positive"),
        (lambda: klcontrol.kl_learning(gain_fn=0.1), "gain_fn: expected a function"),
        (lambda: klcontrol.kl_learning(projection=(1.0, 0.5)), r"projection: expected \(lo, hi\)"),
        (lambda: klcontrol.z_learning(clock="no"), "clock: expected one of"),
        (lambda: klcontrol.kl_learning().init(0), "num_states: expected a positive"),
        (lambda: _step(3, 0.0, 0), "x: expected a state 0 … 2, got 3"),
        (lambda: _step(0, 0.0, -1), "x_next: expected a state 0 … 2, got -1"),
        (lambda: _step(0, float("inf"), 1), "cost: expected a finite number"),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _step(x, cost, y):
    algorithm = klcontrol.kl_learning()
    return algorithm.step(algorithm.init(3), x, cost, y)
