"""solve: all methods against LAPACK and each other, hard chains, derivatives, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import klcontrol
from klcontrol import bellman, examples
from tests.klcontrol.exact import dense_solution, exact_log_lam, random_problem

INSIDE = ["power", "krylov", "inverse"]
SOLVED = klcontrol.Status.ROUNDING


def _status(solution):
    return klcontrol.Status(int(solution.stats.status))


@pytest.mark.parametrize("method", ["auto", *INSIDE, "arpack"])
@pytest.mark.parametrize("seed", range(3))
def test_solution_is_that_of_lapack(method, seed):
    q, cost = random_problem(np.random.default_rng(seed), 80)
    beta = 0.8
    lam, z = dense_solution(q, cost, beta)
    for form in (q, klcontrol.as_neighbours(q)):
        solution = klcontrol.solve(klcontrol.Problem(form, cost, beta), method=method)
        assert _status(solution) <= SOLVED
        np.testing.assert_allclose(solution.lam, lam, rtol=1e-12)
        np.testing.assert_allclose(solution.z, z, rtol=1e-9)
        np.testing.assert_allclose(solution.rho, -np.log(lam) / beta, rtol=1e-12)
        H = np.exp(-beta * cost)[:, None] * q
        optimal = H * z[None, :] / (lam * z[:, None])
        np.testing.assert_allclose(klcontrol.as_dense(solution.policy), optimal, atol=1e-10)
        np.testing.assert_allclose(klcontrol.as_dense(solution.policy).sum(axis=1), 1, rtol=1e-14)


def test_the_value_solves_the_bellman_equation_by_minimisation():
    # The minimum over p of c + KL/β + p·Φ, for this row by row, is attained at the policy.
    q, cost = random_problem(np.random.default_rng(0), 12)
    beta = 1.7
    s = klcontrol.solve(klcontrol.Problem(q, cost, beta))
    p, value = np.asarray(s.policy), np.asarray(s.value)

    def bellman(p):
        return cost + scipy.special.rel_entr(p, q).sum(axis=1) / beta + p @ value

    np.testing.assert_allclose(bellman(p), s.rho + value, rtol=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = p * np.exp(rng.normal(size=p.shape) * rng.random())
        other /= other.sum(axis=1, keepdims=True)
        assert (bellman(other) >= bellman(p) - 1e-13).all()


def test_proposition_2_1_detailed_balance():
    weights = np.random.default_rng(4).integers(0, 3, (15, 15))
    weights = weights + weights.T + np.eye(15)
    cost = np.random.default_rng(5).random(15)
    s = klcontrol.solve(examples.random_walk(weights, cost, 2.0))
    p = np.asarray(klcontrol.as_dense(s.policy))
    law = weights.sum(axis=1) * np.exp(2.0 * cost) * np.asarray(s.z) ** 2
    flow = (law / law.sum())[:, None] * p
    np.testing.assert_allclose(flow, flow.T, atol=1e-13)


@pytest.mark.parametrize("method", INSIDE)
def test_large_costs_stay_finite(method):
    q, _ = random_problem(np.random.default_rng(6), 40)
    cost = 800 * np.random.default_rng(7).random(40)
    solution = klcontrol.solve(klcontrol.Problem(q, cost), method=method)
    assert _status(solution) <= SOLVED
    assert bool(jnp.isfinite(solution.value).all())
    assert np.ptp(np.asarray(solution.value)) > 700
    reference = klcontrol.solve(klcontrol.Problem(q, cost), method="krylov")
    np.testing.assert_allclose(solution.value, reference.value, rtol=1e-12)


@pytest.mark.parametrize("stay", [1e-3, 1e-8, 0.0])
def test_nearly_periodic_chains(stay):
    n = 50
    q = (1 - stay) * np.roll(np.eye(n), 1, axis=1) + stay * np.eye(n)
    cost = np.random.default_rng(8).random(n)
    problem = klcontrol.Problem(q, cost)
    solution = klcontrol.solve(problem)
    assert _status(solution) <= SOLVED
    assert int(solution.stats.steps) < 60
    bounds = klcontrol.certify(problem, solution)
    assert bounds.rho[1] - bounds.rho[0] < 1e-12
    if stay == 0:
        # A ring leaves no choice: the mean cost.
        assert float(solution.rho) == pytest.approx(cost.mean(), rel=1e-13)
        with pytest.raises(ValueError, match="period 50"):
            klcontrol.solve(problem, method="power")


@pytest.mark.parametrize("leak", [1e-6, 1e-12, 1e-30])
def test_nearly_decoupled_chains_to_full_accuracy(leak):
    rng = np.random.default_rng(9)
    block = rng.dirichlet(np.ones(5), 5)
    q = np.kron(np.eye(2), block)
    q[0, 5], q[5, 0] = leak, leak
    q /= q.sum(axis=1, keepdims=True)
    cost = 1e-3 * rng.random(10)
    solution = klcontrol.solve(klcontrol.Problem(q, cost), method="inverse", rtol=1e-15)
    assert _status(solution) <= SOLVED
    true, _ = exact_log_lam(q, cost, 1.0)
    assert abs(float(true) + float(solution.rho)) < 1e-15


def _grid(shape=(9, 8), criterion="average", **options):
    return examples.gridworld(shape, goals=[(2, 5)], criterion=criterion, **options).problem


@pytest.mark.parametrize("method", ["auto", *INSIDE, "arpack", "aggregation"])
@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0])
def test_total_cost_is_the_solution_of_the_linear_system(method, cost):
    if method == "arpack" and cost == 30.0:
        pytest.skip("several eigenvalues of modulus one hide the start from ARPACK")
    problem = _grid(criterion="total", cost=cost)
    # The error is the width times the steps to absorption, so the width is taken to rounding.
    solution = klcontrol.solve(problem, method=method, rtol=1e-15)
    assert _status(solution) <= SOLVED
    ends = np.asarray(problem.absorbing)
    H = np.exp(-cost * ~ends)[:, None] * np.asarray(klcontrol.as_dense(problem.q))
    inner = ~ends
    z = np.linalg.solve(np.eye(inner.sum()) - H[inner][:, inner], H[inner][:, ends].sum(axis=1))
    np.testing.assert_allclose(solution.value[inner], -np.log(z), rtol=1e-11)
    assert float(solution.value[ends][0]) == 0
    assert float(solution.lam) == 1
    assert float(solution.rho) == 0


def test_total_cost_with_several_ends():
    ends = [(0, 0), (4, 4), (0, 4)]
    world = examples.gridworld((5, 5), goals=ends, criterion="total", cost=0.3)
    values = [klcontrol.solve(world.problem, method=m).value for m in ("krylov", "inverse")]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-11, atol=1e-13)


def test_infinite_total_cost_is_not_called_solved():
    # A cycle earns more than its moves cost: the total cost is minus infinity.
    q = np.array([[1.0, 0, 0], [0.1, 0, 0.9], [0, 1.0, 0]])
    problem = klcontrol.Problem(q, [0, -2.0, -2.0], criterion="total")
    for method in ("krylov", "power", "inverse"):
        solution = klcontrol.solve(problem, method=method, max_steps=500)
        assert _status(solution) > SOLVED


def test_finite_horizon_is_the_recursion_and_tends_to_the_average():
    q, cost = random_problem(np.random.default_rng(11), 6)
    problem = klcontrol.Problem(q, cost, 1.3)
    end = np.random.default_rng(12).random(6)
    values = klcontrol.finite_horizon(problem, 400, end)
    assert values.shape == (401, 6)
    expected = end
    for t in range(399, 380, -1):
        expected = cost - np.log(q @ np.exp(-1.3 * expected)) / 1.3
        np.testing.assert_allclose(values[t], expected, rtol=1e-12)
    s = klcontrol.solve(problem)
    np.testing.assert_allclose(values[0] - values[1], s.rho, rtol=1e-12)
    np.testing.assert_allclose(klcontrol.optimal_policy(problem, values[1]), s.policy, atol=1e-12)
    for message, call in {
        "num_steps": lambda: klcontrol.finite_horizon(problem, -1),
        "terminal": lambda: klcontrol.finite_horizon(problem, 1, np.zeros(3)),
        "value": lambda: klcontrol.optimal_policy(problem, np.zeros(3)),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_jit_is_eager_vmap_is_a_loop_and_nothing_retraces():
    rng = np.random.default_rng(13)
    q, _ = random_problem(rng, 70)
    costs = 3 * rng.random((3, 70))
    traces = []

    def rho_and_value(cost, method):
        traces.append(method)
        s = klcontrol.solve(klcontrol.Problem(q, cost), method=method)
        return s.rho, s.value

    for method in ("auto", "power"):
        jitted = jax.jit(rho_and_value, static_argnums=1)
        batched = jax.vmap(lambda c, m=method: rho_and_value(c, m))(costs)
        for k, cost in enumerate(costs):
            count = len(traces)
            one, two = jitted(cost, method), rho_and_value(cost, method)
            assert len(traces) == count + (2 if k == 0 else 1)
            for a, b, c in zip(one, two, (batched[0][k], batched[1][k])):
                np.testing.assert_allclose(a, b, rtol=1e-12)
                np.testing.assert_allclose(c, b, rtol=1e-11)


@pytest.mark.parametrize("criterion", ["average", "total"])
@pytest.mark.parametrize("form", ["dense", "lists"])
def test_derivatives_are_finite_differences(criterion, form):
    problem = _grid((4, 6), criterion=criterion, cost=0.4)
    rng = np.random.default_rng(14)
    free = ~np.asarray(problem.absorbing)
    q = problem.q if form == "lists" else klcontrol.as_dense(problem.q)
    values = q.probabilities if form == "lists" else q
    slope_cost = jnp.asarray(rng.normal(size=free.size) * free)
    slope_q = jnp.asarray(rng.normal(size=values.shape) * free[:, None]) * (values > 0)
    weight = rng.normal(size=free.size)

    @jax.jit
    def outcome(t, beta=1.1):
        moved = values + t * slope_q
        new = q._replace(probabilities=moved) if form == "lists" else moved
        leaves = (new, problem.cost + t * slope_cost, jnp.asarray(beta + t))
        s = klcontrol.solve(klcontrol.Problem.tree_unflatten(criterion, leaves), method="inverse")
        return 3 * s.rho + weight @ s.value

    h = 2e-5
    difference = (outcome(h) - outcome(-h)) / (2 * h)
    assert float(jax.grad(outcome)(0.0)) == pytest.approx(float(difference), rel=1e-5)
    assert float(jax.jvp(outcome, (0.0,), (1.0,))[1]) == pytest.approx(float(difference), rel=1e-5)
    if (criterion, form) != ("average", "dense"):
        return
    second = (jax.grad(outcome)(h) - jax.grad(outcome)(-h)) / (2 * h)
    assert float(jax.grad(jax.grad(outcome))(0.0)) == pytest.approx(float(second), rel=1e-5)


def test_the_gradient_of_rho_is_the_invariant_law():
    q, cost = random_problem(np.random.default_rng(15), 20)
    policy = np.asarray(klcontrol.solve(klcontrol.Problem(q, cost)).policy)
    law = np.linalg.matrix_power(policy, 2000)[0]
    gradient = jax.grad(lambda c: klcontrol.solve(klcontrol.Problem(q, c)).rho)(jnp.asarray(cost))
    np.testing.assert_allclose(gradient, law, atol=1e-12)


def test_iterative_derivatives_agree_with_dense_ones(monkeypatch):
    problem = _grid((7, 6), cost=0.3)

    def rho(cost):
        leaves = (problem.q, cost, problem.beta)
        s = klcontrol.solve(klcontrol.Problem.tree_unflatten("average", leaves), method="krylov")
        return s.rho + s.value[5]

    expected = jax.grad(rho)(problem.cost)
    monkeypatch.setattr("klcontrol.implicit.DENSE_STATES", 0)
    np.testing.assert_allclose(jax.grad(rho)(problem.cost), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qr"}, "method: expected one of"),
        ({"rtol": -1.0}, "rtol"),
        ({"max_steps": 0}, "max_steps"),
        ({"method": "aggregation"}, "needs Neighbours"),
    ],
)
def test_bad_options_are_named(options, message):
    problem = klcontrol.Problem(np.full((3, 3), 1 / 3), np.zeros(3))
    with pytest.raises(ValueError, match=message):
        klcontrol.solve(problem, **options)


def test_what_needs_known_values_says_so():
    problem = _grid()
    for method in ("aggregation", "arpack"):
        with pytest.raises(ValueError, match="outside jit"):
            jax.jit(lambda p, m=method: klcontrol.solve(p, method=m).rho)(problem)
    free = klcontrol.Problem(lambda z: klcontrol.apply(problem.q, z), problem.cost)
    with pytest.raises(ValueError, match="needs the entries"):
        klcontrol.solve(free, method="inverse")
    batch = jax.tree.map(lambda v: jnp.stack([v, v]), problem)
    with pytest.raises(ValueError, match="vmap"):
        klcontrol.solve(batch)


def test_too_few_steps_are_reported_with_bounds_that_hold():
    problem = _grid(cost=0.01)
    short = klcontrol.solve(problem, method="power", max_steps=40)
    full = klcontrol.solve(problem)
    assert _status(short) == klcontrol.Status.MAX_STEPS
    assert "raise max_steps" in _status(short).message
    assert short.bounds.rho[0] <= full.rho <= short.bounds.rho[1]
    assert short.bounds.rho[1] - short.bounds.rho[0] > 1e-9


@pytest.mark.parametrize("dense", [True, False])
def test_both_ways_to_take_exponentials_agree(dense):
    # Below NARROW one exponential a state is taken, above it one a transition.
    q, cost = random_problem(np.random.default_rng(12), 30)
    problem = klcontrol.Problem(q if dense else klcontrol.as_neighbours(q), cost)
    phi = np.random.default_rng(13).random(30)
    phi = (phi - phi.min()) / np.ptp(phi)
    for range_ in (bellman.NARROW * (1 - 1e-12), bellman.NARROW * (1 + 1e-12)):
        residual, policy = bellman.linearise(problem, jnp.asarray(range_ * phi))
        z = np.exp(range_ * phi)
        H = np.exp(-cost)[:, None] * q
        np.testing.assert_allclose(residual, np.log(H @ z / z), atol=3e-14)
        expected = H * z / (H @ z)[:, None]
        np.testing.assert_allclose(klcontrol.as_dense(policy), expected, rtol=1e-13)


def test_krylov_reaches_double_precision_from_a_basis_in_single():
    problem = examples.random_chain(jax.random.key(3), 500, 4)
    solution = klcontrol.solve(problem, method="krylov", rtol=1e-14)
    assert float(solution.stats.width) < 2e-14
    other = klcontrol.solve(problem, method="inverse", rtol=1e-14)
    np.testing.assert_allclose(solution.value, other.value, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "krylov", "inverse"])
def test_one_state(method):
    s = klcontrol.solve(klcontrol.Problem(np.ones((1, 1)), [3.0], 0.5), method=method)
    assert float(s.rho) == pytest.approx(3.0, rel=1e-15)
    assert s.z.tolist() == [1.0]
