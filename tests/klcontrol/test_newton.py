"""Newton's method with aggregation: against the other methods, on grids, graphs, strong drift."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import klcontrol
from klcontrol import aggregation, examples, newton, solver


def _maze(seed, extent, cost):
    walls = np.random.default_rng(seed).random((extent, extent)) < 0.25
    walls[3, 4] = False
    return examples.gridworld((extent, extent), goals=[(3, 4)], walls=walls, cost=cost).problem


@pytest.mark.parametrize("cost", [1e-3, 1.0, 20.0])
def test_gridworlds_to_certified_width(cost):
    problem = _maze(0, 36, cost)
    solution = klcontrol.solve(problem, method="aggregation", rtol=1e-11)
    assert int(solution.stats.status) == klcontrol.Status.CONVERGED
    if cost < 20:  # beyond, products with q finish what cycles no longer can
        assert int(solution.stats.steps) < 25
    # The bounds are proved, so nothing else has to be known of λ*.
    proof = klcontrol.certify(problem, solution, backend="numpy")
    assert proof.log_lam[1] - proof.log_lam[0] < 3e-11
    if cost == 1.0:
        other = klcontrol.solve(problem, method="krylov", rtol=1e-12)
        np.testing.assert_allclose(solution.value, other.value, rtol=1e-9)


def test_a_chain_without_detailed_balance():
    # A drift round a torus, and costs that vary.
    n = 30
    i = np.arange(n * n)
    right, down = (i // n) * n + (i + 1) % n, (i + n) % (n * n)
    q = klcontrol.Neighbours(
        jnp.asarray(np.stack([i, right, down], axis=1)),
        jnp.asarray(np.tile([0.2, 0.5, 0.3], (n * n, 1))),
    )
    cost = 0.2 * np.random.default_rng(1).random(n * n)
    problem = klcontrol.Problem(q, cost)
    solution = klcontrol.solve(problem, method="aggregation", rtol=1e-11)
    other = klcontrol.solve(problem, method="krylov", rtol=1e-11, max_steps=100_000)
    assert int(solution.stats.status) <= klcontrol.Status.ROUNDING
    np.testing.assert_allclose(solution.rho, other.rho, rtol=1e-10)
    np.testing.assert_allclose(solution.value, other.value, rtol=1e-7)


def test_total_cost_with_aggregation():
    world = examples.gridworld((30, 30), goals=[(0, 0), (20, 7)], criterion="total", cost=0.01)
    solution = klcontrol.solve(world.problem, method="aggregation")
    other = klcontrol.solve(world.problem, method="krylov", max_steps=100_000)
    assert int(solution.stats.status) <= klcontrol.Status.ROUNDING
    np.testing.assert_allclose(solution.value, other.value, rtol=1e-9)


def test_auto_takes_aggregation_where_krylov_is_slow():
    problem = _maze(2, 40, 1e-3)
    solution = klcontrol.solve(problem, rtol=1e-11)
    assert int(solution.stats.status) == klcontrol.Status.CONVERGED
    assert int(solution.stats.steps) < 30


def test_gradient_through_aggregation():
    problem = _maze(3, 30, 0.05)

    def rho(cost, method):
        leaves = (problem.q, cost, problem.beta)
        moved = klcontrol.Problem.tree_unflatten("average", leaves)
        return klcontrol.solve(moved, method=method).rho

    gradients = [jax.grad(rho)(problem.cost, method) for method in ("aggregation", "krylov")]
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-9)
    assert float(gradients[0].sum()) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_lumped_generators_are_the_products_with_indicators(seed):
    rng = np.random.default_rng(seed)
    n, d = 3000, 4
    indices = np.stack([(np.arange(n) + k) % n for k in (1, 2, n - 1, n - 40)]).astype(np.int32)
    weights = rng.random((d, n)).astype(np.float32) * (rng.random((d, n)) < 0.9)
    exits = (rng.random(n) * (rng.random(n) < 0.1)).astype(np.float32)
    levels, last = aggregation.build_levels(indices, weights > 0)
    assert len(levels) >= 1
    generators = aggregation.fill_levels(levels, last, jnp.asarray(weights), jnp.asarray(exits))
    lists = [*[level.indices for level in levels], last]
    rows = np.tile(np.arange(n), d)
    W = scipy.sparse.csr_array((weights.ravel(), (rows, indices.ravel())), shape=(n, n))
    ends = exits
    for k, level in enumerate(levels):
        size = generators[k + 1].exits.shape[0]
        aggregate = np.asarray(level.aggregate)
        S = scipy.sparse.csr_array(
            (np.ones(aggregate.size), (np.arange(aggregate.size), aggregate)),
            shape=(aggregate.size, size),
        )
        W = (S.T @ W @ S).tolil()
        W.setdiag(0)
        W, ends = W.tocsr(), S.T @ ends
        x = rng.normal(size=size)
        expected = (W.sum(axis=1) + ends) * x - W @ x
        got = np.asarray(aggregation.multiply(lists[k + 1], generators[k + 1], jnp.asarray(x)))
        used = W.sum(axis=1) + ends > 0
        np.testing.assert_allclose(got[used], expected[used], rtol=1e-4, atol=1e-4)


def test_aggregates_are_near_their_roots_and_far_from_each_other():
    problem = _maze(5, 40, 1.0)
    indices = np.asarray(problem.q.indices).T.copy()
    root = np.asarray(aggregation._roots(jnp.asarray(indices)))
    n = problem.num_states
    step = np.asarray(klcontrol.as_dense(problem.q)) > 0
    two = (step.astype(int) @ step.astype(int)) > 0
    assert two[np.arange(n), root].all()
    roots = np.unique(root)
    assert (root[roots] == roots).all()
    between = two[np.ix_(roots, roots)]
    assert not (between & ~np.eye(roots.size, dtype=bool)).any()


@pytest.mark.slow
def test_memory_for_each_state(monkeypatch):
    # A million states have to fit a gigabyte beside JAX and its compiler.
    problem = examples.gridworld((200, 200), goals=[(9, 9)], cost=0.1).problem
    n, sizes = problem.num_states, {}

    def measured(name, function):
        def call(*args):
            sizes[name] = function.lower(*args).compile().memory_analysis().temp_size_in_bytes / n
            return function(*args)

        return call

    monkeypatch.setattr(newton, "_evaluate", measured("evaluate", newton._evaluate))
    monkeypatch.setattr(solver, "_solution", measured("solution", solver._solution))
    klcontrol.solve(problem, method="aggregation", max_steps=1)
    # The inverse of the coarsest level, at most 600 x 600, does not grow with n.
    assert sizes["evaluate"] - 4 * 8 * 600**2 / n < 180
    assert sizes["solution"] < 80
