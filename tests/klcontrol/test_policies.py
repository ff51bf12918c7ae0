"""Policies: the optimal one costs what solve says, every other one more; rollouts; worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klcontrol
from klcontrol import Neighbours, examples, worlds


def tilted(key, problem):
    """Another policy with q's support."""
    noise = jnp.exp(jax.random.normal(key, problem.q.probabilities.shape))
    p = problem.q.probabilities * noise
    return Neighbours(problem.q.indices, p / p.sum(axis=1, keepdims=True))


PROBLEMS = {
    "chain": lambda: examples.random_chain(jax.random.key(1), 60, 5, beta=2.0),
    "grid": lambda: examples.gridworld((7, 6), goals=[(1, 2)], beta=0.7).problem,
    "pendulum": lambda: worlds.pendulum((16, 15)).problem,
}
UNTIL_ABSORPTION = {
    "grid": lambda: examples.gridworld((6, 5), goals=[(0, 0)], criterion="total").problem,
    "mountain car": lambda: worlds.mountain_car((16, 11)).problem,
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_optimal_policy_costs_rho_and_phi_and_others_cost_more(name):
    problem = PROBLEMS[name]()
    best = klcontrol.solve(problem)
    found = klcontrol.policy_cost(problem, best.policy)
    np.testing.assert_allclose(found.rho, best.rho, rtol=1e-10)
    np.testing.assert_allclose(found.value, best.value, rtol=1e-7, atol=1e-7)
    for seed in range(5):
        other = klcontrol.policy_cost(problem, tilted(jax.random.key(seed), problem))
        assert float(other.rho) > float(best.rho)
    # Left alone it costs its mean cost, and no KL.
    law = klcontrol.invariant_law(problem.q)
    passive = klcontrol.policy_cost(problem, problem.q)
    np.testing.assert_allclose(passive.rho, law @ problem.cost, rtol=1e-9)
    np.testing.assert_allclose(passive.step_cost, problem.cost, atol=1e-12)


@pytest.mark.parametrize("name", UNTIL_ABSORPTION)
def test_until_absorption_the_value_is_phi(name):
    problem = UNTIL_ABSORPTION[name]()
    best = klcontrol.solve(problem)
    found = klcontrol.policy_cost(problem, best.policy)
    np.testing.assert_allclose(found.value, best.value, rtol=1e-9, atol=1e-9)
    other = klcontrol.policy_cost(problem, tilted(jax.random.key(0), problem))
    assert (np.asarray(other.value) >= np.asarray(best.value) - 1e-9).all()
    assert float(other.value.max()) > float(best.value.max())


def test_rollouts_have_the_law_and_the_cost_of_the_policy():
    problem = PROBLEMS["chain"]()
    policy = tilted(jax.random.key(3), problem)
    keys = jax.random.split(jax.random.key(0), 64)

    def run(key):
        return klcontrol.rollout(key, problem, policy, 0, num_steps=4000)

    runs = jax.jit(jax.vmap(run))(keys)
    assert runs.states.shape == (64, 4001)
    frequency = np.bincount(np.asarray(runs.states).ravel(), minlength=60) / runs.states.size
    law = np.asarray(klcontrol.invariant_law(policy))
    assert np.abs(frequency - law).sum() < 0.02
    assert float(runs.costs.mean()) == pytest.approx(
        float(klcontrol.policy_cost(problem, policy).rho), rel=0.01
    )
    # Every step is one that the policy allows.
    allowed = np.asarray(klcontrol.as_dense(policy)) > 0
    steps = np.asarray(runs.states)
    assert allowed[steps[:, :-1], steps[:, 1:]].all()
    assert jnp.array_equal(run(keys[3]).states, runs.states[3])


def test_step_cost_against_the_sum_and_infinite_outside_of_q():
    rng = np.random.default_rng(0)
    q, p = (v / v.sum(axis=1, keepdims=True) for v in rng.uniform(0.1, 1, size=(2, 4, 4)))
    problem = klcontrol.Problem(q, rng.uniform(size=4), 3.0)
    expected = [
        problem.cost[i] + sum(p[i, j] * np.log(p[i, j] / q[i, j]) for j in range(4)) / 3
        for i in range(4)
    ]
    np.testing.assert_allclose(klcontrol.step_cost(problem, p), expected, rtol=1e-12)
    ring = klcontrol.Problem(np.roll(np.eye(3), 1, axis=1), np.zeros(3))
    assert np.isinf(np.asarray(klcontrol.step_cost(ring, np.eye(3)))).all()


def test_the_mountain_car_moves_as_its_equations_say_on_average():
    world = worlds.mountain_car((46, 41), steps=1, noise=2e-3)
    q, x, v = world.problem.q, world.position, world.speed
    # Away from the walls, the goal and the largest speeds; one step of the car, not interpolated.
    inside = (jnp.abs(v) < 0.06) & (x > -1.1) & (x < 0.45)
    mean_v = (q.probabilities * v[q.indices]).sum(axis=1)
    mean_x = (q.probabilities * x[q.indices]).sum(axis=1)
    after = v - 0.0025 * jnp.cos(3 * x)
    np.testing.assert_allclose(mean_v[inside], after[inside], atol=1e-15)
    np.testing.assert_allclose(mean_x[inside], (x + after)[inside], atol=1e-14)
    # The variance is that of the noise and of the interpolation, at most a quarter of a cell's.
    variance = (q.probabilities * (v[q.indices] - mean_v[:, None]) ** 2).sum(axis=1)
    excess = variance[inside] - 4e-6
    assert excess.min() >= -1e-18
    assert excess.max() <= (0.14 / 40) ** 2 / 4 + 1e-18
    assert bool((world.problem.absorbing == (x >= 0.5)).all())


def test_the_mountain_car_swings_back_to_gather_speed():
    world = worlds.mountain_car((60, 41), noise=5e-4)
    s = klcontrol.solve(world.problem)
    assert int(s.stats.status) <= klcontrol.Status.ROUNDING
    x, v = np.asarray(world.position), np.asarray(world.speed)
    drift = np.asarray((s.policy.probabilities * v[s.policy.indices]).sum(axis=1))
    passive = (world.problem.q.probabilities * v[world.problem.q.indices]).sum(axis=1)
    push = drift - np.asarray(passive)
    # Control adds to the speed it finds: backwards when rolling back in the valley, else forwards.
    back = (np.abs(x + 0.6) < 0.15) & (v < -0.015) & (v > -0.03)
    on = (np.abs(x + 0.4) < 0.15) & (v > 0.015) & (v < 0.03)
    assert (push[back] < 0).mean() > 0.8
    assert (push[on] > 0).all()


def test_the_pendulum_moves_as_its_equations_say_on_average():
    world = worlds.pendulum((48, 41), step=0.05, noise=1.0)
    q, speed, angle = world.problem.q, np.asarray(world.speed), np.asarray(world.angle)
    probabilities, indices = np.asarray(q.probabilities), np.asarray(q.indices)
    pull = 9.81 * np.sin(angle) - 0.1 * speed
    inner = np.abs(speed) < 8 - 0.05 * 10 - 3**0.5 * 0.05**0.5 - 0.5
    assert inner.sum() > 500
    mean = np.sum(probabilities * speed[indices], axis=1)
    np.testing.assert_allclose(mean[inner], (speed + pull * 0.05)[inner], atol=1e-10)
    turn = np.exp(1j * (angle[indices] - angle[:, None]))
    moved = np.angle(np.sum(probabilities * turn, axis=1))
    np.testing.assert_allclose(moved[inner], 0.05 * speed[inner], atol=2e-3)
    # The noise, and what interpolation adds: at most a quarter of a squared cell.
    variance = np.sum(probabilities * speed[indices] ** 2, axis=1) - mean**2
    assert (variance[inner] >= 0.05 - 1e-10).all()
    assert (variance[inner] <= 0.05 + 0.4**2 / 4 + 1e-10).all()


def test_bad_input_is_named():
    problem = PROBLEMS["chain"]()
    dense = klcontrol.Problem(np.full((2, 2), 0.5), np.zeros(2))
    for call, match in (
        (lambda: klcontrol.policy_cost(problem, np.eye(60)), "policy: expected the form of q"),
        (lambda: klcontrol.policy_cost(dense, np.eye(3)), r"policy: expected shape \(2, 2\)"),
        (lambda: klcontrol.policy_cost(dense, np.full((2, 2), 0.4)), "row of state 0 sums to 0.8"),
        (lambda: klcontrol.policy_cost(dense, np.eye(2)), "falls apart into several"),
        (lambda: klcontrol.step_cost(dense, lambda z: z), "policy: expected entries"),
        (
            lambda: klcontrol.rollout(jax.random.key(0), dense, dense.q, 0, num_steps=0),
            "num_steps: expected a positive integer",
        ),
        (lambda: worlds.pendulum((4, 9)), "shape: expected at least 8 angles"),
        (lambda: worlds.mountain_car((4, 9)), "shape: expected at least 10 positions"),
        (lambda: worlds.mountain_car(cost=0.0), "cost: expected a positive number"),
        (lambda: worlds.mountain_car(steps=0), "steps: expected a positive integer"),
        (lambda: worlds.mountain_car(goal=2.0), "goal: expected a position"),
        (lambda: worlds.pendulum(noise=0.0), "noise: expected a positive number"),
        (lambda: worlds.pendulum(step=-1.0), "step: expected a positive number"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
