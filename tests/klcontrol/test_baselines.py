"""Q-learning: one step by hand, the same limit as KL-learning, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klcontrol


def test_q_of_the_solution_is_a_fixed_point_in_the_mean_for_every_transition():
    problem = klcontrol.examples.random_chain(jax.random.key(0), 6, 3)
    exact = klcontrol.solve(problem)
    q = problem.q
    # Q* = c + Φ(y) - ρ with Φ shifted so that V(0) = ρ: every single step leaves it alone.
    value = np.asarray(exact.value) - float(exact.value[0]) + float(exact.rho)
    Q = np.asarray(problem.cost)[:, None] + value[np.asarray(q.indices)] - float(exact.rho)
    state = klcontrol.q_init(problem)._replace(Q=jnp.asarray(Q))
    for x in range(6):
        for y in np.asarray(q.indices[x]):
            moved = klcontrol.q_step(problem, state, x, int(y))
            np.testing.assert_allclose(moved.Q, Q, atol=1e-10)
    off = klcontrol.q_step(problem, state._replace(Q=state.Q + 0.1), 0, int(q.indices[0, 0]))
    assert float(jnp.abs(off.Q - state.Q - 0.1).max()) > 0.01


def test_it_finds_z_and_lam():
    closed = klcontrol.examples.boltzmann(np.random.default_rng(0).uniform(0, 2, 8))
    run = klcontrol.q_learning(
        jax.random.key(0), closed.problem, num_steps=80_000, num_chains=16, every=40_000
    )
    z = np.exp(-np.asarray(closed.value))
    assert float(run.lam.mean()) == pytest.approx(float(closed.lam), rel=0.01)
    assert np.abs(np.asarray(run.z.mean(axis=0)) - z / z.sum()).sum() < 0.05
    np.testing.assert_array_equal(run.history[-1], run.z)


def test_bad_input_is_refused_by_name():
    problem = klcontrol.Problem(np.full((2, 2), 0.5), np.zeros(2))
    with pytest.raises(ValueError, match="num_steps: expected a positive multiple of every = 3"):
        klcontrol.q_learning(jax.random.key(0), problem, num_steps=10, every=3)
    total = klcontrol.examples.gridworld((2, 2), goals=[(0, 0)], criterion="total").problem
    with pytest.raises(ValueError, match="problem: q_learning is for average costs"):
        klcontrol.q_learning(jax.random.key(0), total, num_steps=10)
