"""Problem: forms of q are one, checks name what is wrong and where; connectivity, period."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.sparse import BCSR

import klcontrol
from klcontrol.connectivity import first_unreachable
from klcontrol.dynamics import pattern
from tests.klcontrol.exact import random_problem

RING = np.roll(np.eye(5), 1, axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_all_forms_are_one_operator(seed):
    q, cost = random_problem(np.random.default_rng(seed), 9)
    z = np.random.default_rng(seed + 9).normal(size=9)
    forms = [
        jnp.asarray(q),
        klcontrol.as_neighbours(q),
        scipy.sparse.csr_array(q),
        BCSR.fromdense(jnp.asarray(q)),
        lambda z: jnp.asarray(q) @ z,
    ]
    for form in forms:
        problem = klcontrol.Problem(form, cost)
        np.testing.assert_allclose(klcontrol.apply(problem.q, z), q @ z, rtol=1e-14)
        np.testing.assert_allclose(jax.jit(klcontrol.apply)(problem.q, z), q @ z, rtol=1e-14)
        if not callable(problem.q):
            np.testing.assert_allclose(klcontrol.as_dense(problem.q), q, atol=1e-16)


def test_long_lists_are_applied_like_short_ones():
    q = np.random.default_rng(0).random((40, 40))
    z = np.random.default_rng(1).normal(size=40)
    np.testing.assert_allclose(klcontrol.apply(klcontrol.as_neighbours(q), z), q @ z, rtol=1e-13)


def test_bcsr_values_may_be_traced_if_the_pattern_is_known():
    q, cost = random_problem(np.random.default_rng(1), 6)
    sparse = BCSR.fromdense(jnp.asarray(q))

    def rho(data):
        known = BCSR((data, sparse.indices, sparse.indptr), shape=q.shape)
        return klcontrol.solve(klcontrol.Problem(known, cost)).rho

    expected = klcontrol.solve(klcontrol.Problem(q, cost)).rho
    np.testing.assert_allclose(jax.jit(rho)(sparse.data), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("q", "cost", "options", "message"),
    [
        (2 * RING, np.zeros(5), {}, "row of state 0 sums to 2"),
        (RING - 2 * np.eye(5)[2] * RING, np.zeros(5), {}, "-1.0 in the row of state 1"),
        (np.where(RING == 0, 0, np.nan), np.zeros(5), {}, r"q: .*NaN or infinity at state 0"),
        (RING, [0, 0, np.inf, 0, 0], {}, r"cost: .*at state 2"),
        (RING, np.zeros(4), {}, r"q: expected shape \(4, 4\) for 4 costs"),
        (RING, np.zeros((5, 1)), {}, "vmap"),
        (RING, np.zeros(5), {"beta": 0.0}, "beta: expected a positive"),
        (RING, np.zeros(5), {"beta": np.nan}, "beta: expected a positive"),
        (RING, np.zeros(5), {"criterion": "discounted"}, "criterion: expected one of"),
        (RING, np.zeros(5), {"criterion": "total"}, "found none"),
        (np.eye(2), np.zeros(2), {}, "state 1 cannot be reached from state 0"),
        ("ring", np.zeros(5), {}, "q: expected real numbers"),
        (RING, 1j * np.ones(5), {}, "cost: expected float32 or float64"),
        (lambda z: z[:2], np.zeros(5), {}, "q: expected a function"),
        (lambda z: 2 * z, np.zeros(5), {}, "row of state 0 sums to 2"),
        (lambda z: z, np.zeros(5), {"criterion": "total"}, "needs the entries"),
    ],
)
def test_bad_input_is_named(q, cost, options, message):
    with pytest.raises(ValueError, match=message):
        klcontrol.Problem(q, cost, **options)


def test_bad_lists_are_named():
    lists, ones = np.array([[1], [0]]), np.ones((2, 1))
    with pytest.raises(ValueError, match="list of state 1"):
        klcontrol.Problem(klcontrol.Neighbours(np.array([[1], [2]]), ones), np.zeros(2))
    with pytest.raises(ValueError, match="expected integers"):
        klcontrol.Problem(klcontrol.Neighbours(lists * 1.0, ones), np.zeros(2))
    with pytest.raises(ValueError, match="one shape"):
        klcontrol.Problem(klcontrol.Neighbours(lists, np.ones((2, 2))), np.zeros(2))
    hub = scipy.sparse.lil_array((3000, 3000))
    hub[0, :] = 1
    hub[:, 0] = 1
    with pytest.raises(ValueError, match="state 0 has 3000 successors"):
        klcontrol.as_neighbours(hub)


def test_total_cost_needs_ends_that_cost_nothing_and_are_reached():
    q = np.array([[1.0, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 1.0, 0]])
    problem = klcontrol.Problem(q, [0, 1.0, 1, 1], criterion="total")
    assert problem.absorbing.tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match=r"state 0 is never left and costs 2.0"):
        klcontrol.Problem(q, [2.0, 1, 1, 1], criterion="total")
    with pytest.raises(ValueError, match="criterion='total'"):
        klcontrol.Problem(q, [0, 1.0, 1, 1])
    q[1] = [0, 0, 1, 0]
    with pytest.raises(ValueError, match="state 1 can reach no absorbing state"):
        klcontrol.Problem(q, [0, 1.0, 1, 1], criterion="total")


def test_values_are_not_checked_under_a_trace():
    rows = jax.jit(lambda q: klcontrol.Problem(q, jnp.zeros(5)).q.sum(axis=1))(2 * RING)
    assert rows.tolist() == [2.0] * 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_connectivity_and_period_against_powers_of_the_pattern(n, seed, density):
    rng = np.random.default_rng(seed)
    links = (rng.random((n, n)) < density).astype(np.int64)
    links[np.arange(n), rng.integers(0, n, n)] = 1
    q = links / links.sum(axis=1, keepdims=True)
    reach = np.linalg.matrix_power(np.eye(n, dtype=np.int64) + links, n) > 0
    pair = first_unreachable(pattern(jnp.asarray(q)))
    if not reach.all():
        assert not reach[pair]
        with pytest.raises(ValueError, match="cannot be reached"):
            klcontrol.period(q)
        return
    assert pair is None
    returns, power = [], links
    for length in range(1, 2 * n * n + 2):
        if power[0, 0] > 0:
            returns.append(length)
        power = ((power @ links) > 0).astype(np.int64)
    assert klcontrol.period(q) == np.gcd.reduce(returns)


def test_problems_are_pytrees():
    problem = klcontrol.Problem(klcontrol.as_neighbours(RING), np.arange(5.0), 2.0)
    again = jax.tree.map(lambda leaf: leaf, problem)
    assert again.criterion == "average"
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(problem)]
    assert names == [".q.indices", ".q.probabilities", ".cost", ".beta"]


@pytest.mark.float32
def test_problems_may_be_in_single_precision():
    problem = klcontrol.Problem(np.asarray(RING, np.float32), np.ones(5, np.float32))
    assert problem.q.dtype == problem.beta.dtype == jnp.float32
    if not jax.config.jax_enable_x64:
        with pytest.raises(ValueError, match="jax_enable_x64"):
            klcontrol.solve(problem)
