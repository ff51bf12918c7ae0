"""The bounds contain λ*: in 100-digit arithmetic, for converged and for arbitrary z."""

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klcontrol
from tests.klcontrol.exact import contains, exact_log_lam, random_problem


def _batch(rng, count, n, cost):
    pairs = [random_problem(rng, n, cost) for _ in range(count)]
    return np.stack([q for q, _ in pairs]), np.stack([c for _, c in pairs])


def _solved(qs, costs, beta, **options):
    solve = jax.jit(
        jax.vmap(lambda q, c: klcontrol.solve(klcontrol.Problem(q, c, beta), **options))
    )
    return solve(qs, costs)


@pytest.mark.parametrize(
    ("n", "count", "cost", "options"),
    [
        (2, 8_000, 5.0, {}),
        (2, 2_000, 700.0, {}),
        (2, 1_000, 5.0, {"method": "krylov"}),
        (2, 1_000, 5.0, {"method": "power", "max_steps": 20}),
        (6, 150, 3.0, {"method": "power"}),
        (6, 150, 300.0, {"method": "krylov"}),
    ],
)
def test_bounds_contain_lam_in_100_digits(n, count, cost, options):
    rng = np.random.default_rng(n + count)
    qs, costs = _batch(rng, count, n, cost)
    beta = 1.25
    found = _solved(qs, costs, beta, **options)
    log_lam, lam, rho = map(np.asarray, (found.bounds.log_lam, found.bounds.lam, found.bounds.rho))
    for k in range(count):
        true, true_rho = exact_log_lam(qs[k], costs[k], beta)
        assert contains(log_lam[k], true)
        assert contains(rho[k], true_rho)
        with flint.ctx.workdps(60):
            assert contains(lam[k], true.exp())
    if "max_steps" not in options:
        status = np.asarray(found.stats.status)
        assert (status <= klcontrol.Status.ROUNDING).mean() > 0.999
        size = 1 + np.abs(log_lam).max(axis=1) + np.ptp(np.asarray(found.value), axis=1)
        solved = status <= klcontrol.Status.ROUNDING
        assert (np.ptp(log_lam, axis=1) <= 2e-12 + 1e-14 * size)[solved].all()


@pytest.mark.parametrize("backend", ["flint", "numpy"])
def test_certify_holds_for_any_value_function(backend):
    rng = np.random.default_rng(3)
    for _ in range(60):
        n = int(rng.integers(2, 6))
        q, cost = random_problem(rng, n, 50.0)
        problem = klcontrol.Problem(q, cost, 0.7)
        true, true_rho = exact_log_lam(q, cost, 0.7)
        exact = klcontrol.solve(problem)
        noise = 10.0 ** rng.integers(-16, 3) * rng.normal(size=n)
        guess = exact._replace(value=exact.value + noise)
        proof = klcontrol.certify(problem, guess, backend=backend)
        assert contains(proof.log_lam, true)
        assert contains(proof.rho, true_rho)
        assert proof.log_lam[1] - proof.log_lam[0] <= 4 * np.abs(noise).max() + 1e-11


def test_the_three_bounds_agree_on_large_costs():
    # λ* itself underflows: exp(-900).
    q, _ = random_problem(np.random.default_rng(0), 30)
    problem = klcontrol.Problem(q, 900 + np.arange(30.0))
    solution = klcontrol.solve(problem)
    for backend in ("flint", "numpy"):
        proof = klcontrol.certify(problem, solution, backend=backend)
        np.testing.assert_allclose(proof.rho, solution.bounds.rho, rtol=1e-13)
        assert proof.lam[0] == 0 < proof.lam[1] < 1e-300
    assert solution.bounds.lam[0] == 0 < solution.bounds.lam[1]
    assert (solution.bounds.rho[1] - solution.bounds.rho[0]) / solution.rho < 1e-13


def test_margins_cover_the_elementary_functions():
    # The constant of the proof against ball arithmetic, by XLA and by NumPy.
    from klcontrol.certificate import ELEMENTARY, UNIT

    rng = np.random.default_rng(1)
    x = np.concatenate([-700 * rng.random(2000), -(10.0 ** rng.uniform(-18, 0, 2000)), [0.0]])
    y = np.concatenate([10.0 ** rng.uniform(-280, 5, 2000), 1 + 1e-3 * rng.normal(size=2000)])
    exp, log = jax.jit(lambda x, y: (jnp.exp(x), jnp.log(y)))(x, y)
    with flint.ctx.workdps(40):
        for values in (np.asarray(exp), np.exp(x)):
            for a, v in zip(x.tolist(), values.tolist()):
                assert abs(flint.arb(v) / flint.arb(a).exp() - 1) <= ELEMENTARY / 4 * UNIT
        for values in (np.asarray(log), np.log(y)):
            for a, v in zip(y.tolist(), values.tolist()):
                error = abs(flint.arb(v) - flint.arb(a).log())
                assert error <= ELEMENTARY / 4 * UNIT * max(1, abs(v))


def test_nothing_is_proved_by_nan_nor_without_entries():
    q, cost = random_problem(np.random.default_rng(2), 4)
    problem = klcontrol.Problem(q, cost)
    solution = klcontrol.solve(problem)
    for bad in (np.nan, np.inf):
        broken = solution._replace(value=solution.value.at[1].set(bad))
        for backend in ("flint", "numpy"):
            proof = klcontrol.certify(problem, broken, backend=backend)
            assert proof.log_lam.tolist() == [-np.inf, np.inf]
    matrix_free = klcontrol.Problem(lambda z: jnp.asarray(q) @ z, cost)
    found = klcontrol.solve(matrix_free)
    assert found.bounds.log_lam.tolist() == [-np.inf, np.inf]
    np.testing.assert_allclose(found.rho, solution.rho, atol=1e-13)
    with pytest.raises(ValueError, match="entries"):
        klcontrol.certify(matrix_free, found)
    with pytest.raises(ValueError, match="backend"):
        klcontrol.certify(problem, solution, backend="sympy")
    with pytest.raises(ValueError, match=r"solution.value: expected shape \(4,\)"):
        klcontrol.certify(problem, solution._replace(value=np.zeros(3)))


def test_a_wrong_solution_is_not_certified_narrowly():
    q, cost = random_problem(np.random.default_rng(5), 20)
    problem = klcontrol.Problem(q, cost)
    solution = klcontrol.solve(problem)
    wrong = solution._replace(value=solution.value.at[7].add(1e-6))
    proof = klcontrol.certify(problem, wrong)
    assert 1e-8 < proof.log_lam[1] - proof.log_lam[0] < 1e-5
