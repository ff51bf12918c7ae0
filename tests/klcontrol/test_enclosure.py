"""enclose: Φ and z* of random problems in 100 digits lie inside; slow chains; no proof from NaN."""

import flint
import jax
import numpy as np
import pytest

import klcontrol
from klcontrol import examples
from tests.klcontrol.exact import exact_z, random_problem


def _contains(found, z, beta):
    for i, true in enumerate(z):
        phi = -true.log() / flint.arb(float(beta))
        if not (found.z[0, i] <= true and true <= found.z[1, i]):
            return False
        if not (found.value[0, i] <= phi and phi <= found.value[1, i]):
            return False
    return True


@pytest.mark.parametrize(("cost", "beta"), [(2.0, 1.0), (50.0, 0.7), (400.0, 1.3)])
def test_random_problems_in_100_digits(cost, beta):
    rng = np.random.default_rng(int(cost))
    widths = []
    for _ in range(40):
        n = int(rng.integers(1, 7))
        q, costs = random_problem(rng, n, cost)
        problem = klcontrol.Problem(q, costs, beta)
        solution = klcontrol.solve(problem)
        found = klcontrol.enclose(problem, solution)
        with flint.ctx.workdps(60):
            assert _contains(found, exact_z(q, costs, beta), beta)
        assert (found.value[0] <= solution.value).all()
        assert (solution.value <= found.value[1]).all()
        widths.append((found.value[1] - found.value[0]).max() / (1 + np.abs(found.value).max()))
    assert np.median(widths) < 1e-11


def test_it_holds_for_any_value_function():
    rng = np.random.default_rng(1)
    proved = 0
    for _ in range(60):
        n = int(rng.integers(2, 6))
        q, costs = random_problem(rng, n, 3.0)
        problem = klcontrol.Problem(q, costs)
        exact = klcontrol.solve(problem)
        noise = 10.0 ** rng.uniform(-12, 0) * rng.normal(size=n)
        found = klcontrol.enclose(problem, exact._replace(value=exact.value + noise))
        with flint.ctx.workdps(60):
            assert _contains(found, exact_z(q, costs, 1.0), 1.0)
        proved += bool(np.isfinite(found.value).all())
    assert 30 < proved < 60


def test_slow_chains_have_wide_bounds():
    # Two halves that hardly communicate: λ* is known to 1e-15, the ratio of the halves is not.
    block = np.random.default_rng(2).dirichlet(np.ones(4), 4)
    widths = []
    for leak in (1e-1, 1e-6):
        q = np.kron(np.eye(2), block)
        q[0, 4], q[4, 0] = leak, leak
        q /= q.sum(axis=1, keepdims=True)
        costs = np.append(np.zeros(4), np.full(4, 1e-9))
        problem = klcontrol.Problem(q, costs)
        found = klcontrol.enclose(problem, klcontrol.solve(problem))
        with flint.ctx.workdps(60):
            assert _contains(found, exact_z(q, costs, 1.0, squarings=50), 1.0)
        widths.append((found.value[1] - found.value[0]).max())
    assert widths[0] < 1e-11 < 1e3 * widths[0] < widths[1] < 1e-6


def test_total_costs_of_a_path():
    # From i either back or on, z by exact continued fractions.
    n, weight = 12, 0.6
    q = np.zeros((n, n))
    for i in range(1, n):
        q[i, i - 1], q[i, min(i + 1, n - 1)] = 0.5, 0.5
    q[0, 0] = 1
    costs = np.full(n, -np.log(weight))
    costs[0] = 0
    problem = klcontrol.Problem(q, costs, criterion="total")
    solution = klcontrol.solve(problem)
    found = klcontrol.enclose(problem, solution)
    assert found.value[:, 0].tolist() == [0, 0]
    assert found.z[:, 0].tolist() == [1, 1]
    with flint.ctx.workdps(60):
        system, right = flint.arb_mat(n - 1, n - 1), flint.arb_mat(n - 1, 1)
        for i in range(1, n):
            h = (-flint.arb(float(costs[i]))).exp()
            for j in range(1, n):
                system[i - 1, j - 1] = flint.arb(int(i == j)) - h * flint.arb(float(q[i, j]))
            right[i - 1, 0] = h * flint.arb(float(q[i, 0]))
        z = [flint.arb(1), *system.solve(right).entries()]
        assert _contains(found, z, 1.0)
    assert (found.value[1] - found.value[0]).max() < 1e-12
    with pytest.raises(ValueError, match="0 at the absorbing state 0"):
        klcontrol.enclose(problem, solution._replace(value=solution.value + 1))


def test_the_methods_lie_in_each_others_enclosures():
    problem = examples.gridworld((20, 20), goals=[(3, 4)], cost=0.5).problem
    first, second = (klcontrol.solve(problem, method=m) for m in ("aggregation", "inverse"))
    for a, b in ((first, second), (second, first)):
        found = klcontrol.enclose(problem, a)
        assert (found.value[0] <= b.value).all()
        assert (b.value <= found.value[1]).all()
        assert (found.value[1] - found.value[0]).max() < 1e-8
        assert (found.hitting_time >= 0).all()


def test_nothing_is_proved_by_nan_nor_far_from_the_solution():
    problem = examples.random_chain(jax.random.key(0), 50, 4)
    solution = klcontrol.solve(problem)
    for value in (solution.value.at[1].set(np.nan), solution.value * 3):
        found = klcontrol.enclose(problem, solution._replace(value=value))
        assert (found.value[0] == -np.inf).all()
        assert (found.value[1] == np.inf).all()
        assert (found.z[0] == 0).all()
        assert (found.z[1] == np.inf).all()
    with pytest.raises(ValueError, match="entries"):
        klcontrol.enclose(klcontrol.Problem(lambda z: z, np.zeros(1)), solution)
