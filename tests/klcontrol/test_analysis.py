"""analysis: closed forms, exact vectors, conditions against the spectra they speak of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import klcontrol
from klcontrol import counterexample as ce


def random_problem(seed, n=5, reversible=False, spread=1.0):
    rng = np.random.default_rng(seed)
    q = rng.uniform(0.05, 1, (n, n))
    if reversible:
        q = q + q.T
    q = q / q.sum(axis=1, keepdims=True)
    return klcontrol.Problem(q, spread * rng.uniform(-1, 1, n), beta=1.3)


def dense(problem):
    H = np.exp(-np.asarray(problem.beta * problem.cost))[:, None] * np.asarray(
        klcontrol.as_dense(problem.q)
    )
    values, vectors = np.linalg.eig(H)
    top = np.argmax(values.real)
    z = np.abs(vectors[:, top].real)
    return H, z / np.linalg.norm(z), values[top].real


def test_the_equilibrium_is_z_star_and_nothing_else_nearby():
    problem = random_problem(0)
    _, z, lam = dense(problem)
    f, g = klcontrol.drift(problem, z, lam, 0.7)
    assert float(jnp.abs(f).max()) < 1e-14
    assert abs(float(g)) < 1e-14
    f, _ = klcontrol.drift(problem, np.roll(z, 1), lam, 0.7)
    assert float(jnp.abs(f).max()) > 1e-3


def test_drift_is_the_mean_of_a_step():
    # Lemma 3.4: the expected change over the invariant law, as the gain goes to zero.
    problem = random_problem(1, n=4)
    q, law = np.asarray(problem.q), np.asarray(klcontrol.invariant_law(problem.q))
    rng = np.random.default_rng(1)
    z = rng.uniform(0.2, 1, 4)
    z, lam, alpha, gamma = z / np.linalg.norm(z), 0.8, 0.6, 1e-6
    algorithm = klcontrol.kl_learning(
        beta=1.3, alpha=alpha, relative=False, gain_fn=lambda k: gamma
    )
    start = algorithm.init(4)._replace(v=jnp.asarray(z), square=jnp.ones(()), lam=jnp.array(lam))
    mean_z, mean_lam = np.zeros(4), 0.0
    for i in range(4):
        for j in range(4):
            state = algorithm.step(start, i, problem.cost[i], j)
            moved = np.asarray(state.v / jnp.sqrt(state.square))
            mean_z += law[i] * q[i, j] * (moved - z) / gamma
            mean_lam += law[i] * q[i, j] * (float(state.lam) - lam) / gamma
    f, g = klcontrol.drift(problem, z, lam, alpha)
    np.testing.assert_allclose(mean_z, f, atol=1e-5)
    assert mean_lam == pytest.approx(float(g), abs=1e-5)


@pytest.mark.parametrize("weights", [None, np.array([0.1, 1.0, 2.0, 0.5, 0.3])])
def test_the_linearisation_is_the_derivative_and_its_forms_are_similar(weights):
    problem = random_problem(2)
    _, z, lam = dense(problem)
    found = klcontrol.linearisation(problem, 0.4, weights=weights)

    def both(zl):
        # ‖z‖ is kept by f only on the sphere; off it (8) has P_z for ‖z‖ = 1.
        d = klcontrol.invariant_law(problem.q) if weights is None else weights
        H = jnp.exp(-problem.beta * problem.cost)[:, None] * problem.q
        pull = d * (H @ zl[:-1] - zl[-1] * zl[:-1])
        along = zl[:-1] @ pull
        return jnp.append(pull - zl[:-1] * along, 0.4 * along)

    exact = jax.jacfwd(both)(jnp.append(z, lam))
    np.testing.assert_allclose(found.full, exact, atol=1e-12)
    ours = np.sort_complex(np.linalg.eigvals(found.reduced))
    np.testing.assert_allclose(ours, np.sort_complex(np.linalg.eigvals(found.similar)), atol=1e-10)


def test_the_flow_keeps_the_length_of_z_and_its_sign_and_converges():
    problem = random_problem(3)
    _, z, lam = dense(problem)
    times = jnp.linspace(0, 400, 30)
    zs, lams = klcontrol.flow(problem, np.ones(5) / np.sqrt(5), 1.0, 1.0, times)
    np.testing.assert_allclose(jnp.linalg.norm(zs, axis=1), 1, atol=1e-6)
    assert bool((zs > 0).all())
    np.testing.assert_allclose(zs[-1], z, atol=1e-6)
    assert float(lams[-1]) == pytest.approx(lam, abs=1e-6)


def test_the_flow_leaves_an_unstable_equilibrium():
    arrays = ce.as_arrays(ce.invariant_weights())
    problem = klcontrol.Problem(arrays["q"], arrays["cost"])
    z = arrays["z"] * np.array([1, 1, 1.05])
    z = z / np.linalg.norm(z)
    rate = float(klcontrol.stability(problem, 1.0).abscissa)
    assert rate > 0
    times = jnp.linspace(0, 3 / rate, 40)
    away = [
        float(jnp.abs(klcontrol.flow(problem, z, 1.0, alpha, times)[1] - 1).max())
        for alpha in (1.0, 0.05)
    ]
    assert away[0] > 5 * away[1]


@pytest.mark.parametrize(
    "candidate", [ce.arbitrary_weights(), *(ce.invariant_weights(a) for a in ("1/10", 1, 100))]
)
def test_stability_agrees_with_the_exact_count(candidate):
    arrays = ce.as_arrays(candidate)
    problem = klcontrol.Problem(arrays["q"], arrays["cost"])
    found = klcontrol.stability(problem, float(candidate.alpha), weights=arrays["d"])
    assert bool(found.stable) == (ce.prove(candidate).unstable == 0)
    np.testing.assert_allclose(
        np.sort_complex(np.asarray(found.eigenvalues)),
        np.sort_complex(np.linalg.eigvals(arrays["A"])),
        atol=1e-9,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(0.01, 10), reversible=st.booleans())
def test_every_condition_that_holds_implies_stability(seed, alpha, reversible):
    problem = random_problem(seed, n=4, reversible=reversible, spread=0.1)
    found = klcontrol.sufficient_conditions(problem, alpha)
    if any(condition.holds for condition in found.values()):
        assert bool(klcontrol.stability(problem, alpha).stable)
    # Equal weights are condition (i): always stable, with -α among the eigenvalues.
    equal = klcontrol.stability(problem, alpha, weights=np.ones(4))
    assert bool(equal.stable)
    assert float(jnp.abs(equal.eigenvalues + alpha).min()) < 1e-8


def test_small_alpha_is_stable_on_the_counterexample():
    arrays = ce.as_arrays(ce.invariant_weights())
    problem = klcontrol.Problem(arrays["q"], arrays["cost"])
    for alpha in (1e-3, 1e-2, 0.1):
        assert bool(klcontrol.stability(problem, alpha).stable)


def conditions(problem, alpha, **options):
    found = klcontrol.sufficient_conditions(problem, alpha, **options)
    return {name for name, condition in found.items() if condition.holds}


def test_each_condition_is_told_from_the_others():
    symmetric = klcontrol.Problem(np.array([[0.2, 0.8], [0.8, 0.2]]), np.zeros(2))
    assert conditions(symmetric, 0.1) == {"i", "ii", "iii", "iv", "v"}
    assert "iv" not in conditions(symmetric, 10.0)
    generic = random_problem(5, n=3, spread=2.0)
    assert conditions(generic, 50.0) == set()
    assert conditions(generic, 50.0, weights=np.full(3, 2.0)) == {"i"}
    ring = klcontrol.Problem(
        np.array([[0.4, 0.6, 0], [0, 0.4, 0.6], [0.6, 0, 0.4]]), np.zeros(3)
    )  # normal, not symmetric, with zeros off the diagonal
    assert conditions(ring, 1.0, weights=np.array([1.0, 2.0, 3.0])) == {"ii", "iii"}


def test_numbers_of_the_conditions_in_closed_form():
    found = klcontrol.sufficient_conditions(
        klcontrol.Problem(np.full((2, 2), 0.5), np.array([0.0, np.log(4.0)])), 0.2
    )
    # d = (1/2, 1/2), r = (1, 1/4): C/c = 4. H = [[1/2, 1/2], [1/8, 1/8]]: λ* = 5/8, gap 5/8.
    assert found["v"].number == pytest.approx(np.sqrt(3) / 2)
    assert found["v"].limit == pytest.approx(1.0)
    assert found["i"].number == pytest.approx(0.0, abs=1e-12)


def test_invariant_law_and_proposition_2_1():
    problem = random_problem(7, reversible=True, spread=2.0)
    law = klcontrol.invariant_law(problem.q)
    np.testing.assert_allclose(law @ problem.q, law, atol=1e-15)
    assert float(klcontrol.detailed_balance(problem.q)) < 1e-16
    policy = klcontrol.as_dense(klcontrol.solve(problem).policy)
    p = klcontrol.controlled_law(problem)
    np.testing.assert_allclose(klcontrol.invariant_law(policy), p, rtol=1e-11)
    assert float(klcontrol.detailed_balance(policy, p)) < 1e-14


def test_proposition_2_1_is_refused_without_detailed_balance():
    with pytest.raises(ValueError, match="problem: q does not satisfy detailed balance"):
        klcontrol.controlled_law(random_problem(8))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"weights: expected shape \(5,\)"),
        (np.array([1.0, 1, 0, 1, 1]), "weights: expected positive"),
    ],
)
def test_bad_weights_are_refused_by_name(weights, message):
    with pytest.raises(ValueError, match=message):
        klcontrol.stability(random_problem(9), 1.0, weights=weights)


def test_alpha_must_be_positive():
    with pytest.raises(ValueError, match="alpha: expected a positive number"):
        klcontrol.sufficient_conditions(random_problem(9), 0.0)
