"""Closed forms of the paper's examples to 1e-12; gridworlds against a loop over cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klcontrol
from klcontrol import examples
from tests.klcontrol.exact import contains, exact_log_lam

METHODS = ["auto", "power", "krylov", "inverse", "arpack"]


def _agrees(example, method):
    solution = klcontrol.solve(example.problem, method=method)
    assert int(solution.stats.status) <= klcontrol.Status.ROUNDING
    np.testing.assert_allclose(solution.lam, example.lam, rtol=1e-12)
    np.testing.assert_allclose(solution.rho, example.rho, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(solution.value, example.value, rtol=1e-12, atol=1e-12)
    z = np.exp(-np.asarray(example.problem.beta * example.value))
    np.testing.assert_allclose(solution.z, z, rtol=1e-12)
    assert float(solution.z.sum()) == pytest.approx(1, abs=1e-14)
    # The controlled chain does not depend on the state, so each row is its invariant law.
    np.testing.assert_allclose(solution.policy[3], example.invariant, rtol=1e-12, atol=1e-15)
    assert solution.bounds.rho[0] - 1e-15 <= example.rho <= solution.bounds.rho[1] + 1e-15


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_example_2_2(method, beta):
    cost = np.random.default_rng(0).normal(size=40)
    example = examples.boltzmann(cost, beta)
    _agrees(example, method)
    # The paper's formulas, literally.
    e = np.exp(-beta * cost)
    np.testing.assert_allclose(example.lam, (e**2).sum() / e.sum(), rtol=1e-13)
    np.testing.assert_allclose(example.invariant, e**2 / (e**2).sum(), rtol=1e-13)
    np.testing.assert_allclose(example.problem.q[1], e / e.sum(), rtol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_example_2_3(method):
    rng = np.random.default_rng(1)
    cost, q = rng.normal(size=30), rng.dirichlet(np.ones(30))
    example = examples.independent(q, cost, 1.5)
    _agrees(example, method)
    true, true_rho = exact_log_lam(np.asarray(example.problem.q), cost, 1.5)
    bounds = klcontrol.certify(example.problem, klcontrol.solve(example.problem))
    assert contains(bounds.log_lam, true)
    assert contains(bounds.rho, true_rho)


def test_example_2_3_with_costs_that_underflow():
    cost = np.array([0.0, 400.0, 800.0, 3000.0])
    example = examples.independent(np.full(4, 0.25), cost, 1.0)
    solution = klcontrol.solve(example.problem)
    np.testing.assert_allclose(solution.value, cost, rtol=1e-15, atol=1e-12)
    assert solution.z[3] == 0


def test_gridworld_against_a_loop_over_cells():
    rng = np.random.default_rng(2)
    walls = rng.random((6, 7)) < 0.3
    walls[2, 3] = False
    world = examples.gridworld((6, 7), goals=[(2, 3)], walls=walls, cost=2.0)
    states, cells = np.asarray(world.states), np.asarray(world.cells)
    q = np.asarray(klcontrol.as_dense(world.problem.q))
    reached, todo = {(2, 3)}, [(2, 3)]
    while todo:
        r, c = todo.pop()
        near = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
        free = [p for p in near if 0 <= p[0] < 6 and 0 <= p[1] < 7 and not walls[p]]
        row = np.zeros(len(cells))
        row[[states[p] for p in [*free, (r, c)]]] = 1 / (1 + len(free))
        np.testing.assert_allclose(q[states[r, c]], row, rtol=1e-15)
        todo += [p for p in free if p not in reached]
        reached |= set(free)
    assert reached == {tuple(cell) for cell in cells.tolist()}
    assert [tuple(cell) for cell in cells.tolist()] == sorted(reached)
    assert (states >= 0).sum() == len(reached)
    expected = np.full(len(cells), 2.0)
    expected[states[2, 3]] = 0
    np.testing.assert_array_equal(world.problem.cost, expected)


def test_gridworld_in_three_dimensions_and_absorbing():
    world = examples.gridworld((3, 4, 5), goals=[(0, 0, 0), (2, 3, 4)], criterion="total")
    assert np.flatnonzero(world.problem.absorbing).tolist() == sorted(world.goals.tolist())
    assert world.problem.q.indices.shape == (60, 7)
    solution = klcontrol.solve(world.problem)
    # The two goals are images of each other.
    np.testing.assert_allclose(solution.value, solution.value[::-1], atol=1e-12)


def test_random_walk_and_random_chain():
    weights = np.random.default_rng(3).integers(0, 3, (8, 8)) + np.eye(8)
    problem = examples.random_walk(weights, np.arange(8.0))
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(klcontrol.as_dense(problem.q), expected, rtol=1e-15)
    one = examples.random_chain(jax.random.key(3), 50, 4)
    two = examples.random_chain(jax.random.key(3), 50, 4)
    assert jnp.array_equal(one.q.probabilities, two.q.probabilities)
    assert klcontrol.period(one.q) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: examples.gridworld((3, 3), goals=[(3, 0)]), r"got \(3, 0\)"),
        (lambda: examples.gridworld((3, 3), goals=[(0, 0, 0)]), "2 coordinates"),
        (lambda: examples.gridworld((3, 3), goals=[(0, 0)], walls=np.ones((3, 3))), "free cells"),
        (lambda: examples.gridworld((3, 3), goals=[(0, 0)], walls=np.ones((3, 2))), "walls"),
        (lambda: examples.gridworld((3, 3), goals=[(0, 0)], cost=np.ones(3)), "cost"),
        (lambda: examples.random_walk(-np.eye(2), np.zeros(2)), "weights >= 0"),
        (lambda: examples.random_walk(np.diag([1, 0]), np.zeros(2)), "state 1 has no successor"),
        (lambda: examples.random_chain(jax.random.key(0), 5, 1), "num_successors"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
