"""Whole runs: the law of the samples, the random words, resumption, blocks, memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import klcontrol
from klcontrol import sampling, simulation

GRID = klcontrol.examples.gridworld((5, 4), goals=[(0, 0)]).problem


def law(table):
    """The exact integer masses that a table samples, (n, n)."""
    keep, target = np.asarray(table.keep).astype(object), np.asarray(table.target)
    n, slots = keep.shape
    capacity = 2**32 // slots
    masses = np.zeros((n, n), dtype=object)
    for i in range(n):
        for s in range(slots):
            masses[i, target[i, s, 0]] += keep[i, s]
            masses[i, target[i, s, 1]] += capacity - keep[i, s]
    return masses


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 9))
def test_alias_tables_have_the_law_of_q_to_32_bits(data, n):
    weights = st.sampled_from([0.0, 0.0, 1e-12, 1e-6, 0.1, 1.0, 3.0])
    rows = np.array([[data.draw(weights) for _ in range(n)] for _ in range(n)])
    rows[np.arange(n), np.arange(n)] += 0.5
    q = rows / rows.sum(axis=1, keepdims=True)
    masses = law(klcontrol.alias_table(q))
    assert (masses.sum(axis=1) == 2**32).all()
    assert (masses[q == 0] == 0).all()
    assert (masses[q > 0] > 0).all()
    assert np.abs(masses.astype(float) / 2**32 - q).max() <= (n + 1) * 2.0**-32


def test_dyadic_probabilities_are_exact():
    q = np.array([[0.5, 0.25, 0.25], [0.0, 0.125, 0.875], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(law(klcontrol.alias_table(q)), (q * 2**32).astype(int))


def test_sampled_transitions_pass_a_chi_squared_test():
    q = np.random.default_rng(0).dirichlet(np.ones(6), size=4)
    q = np.concatenate([q[:, :4] / q[:, :4].sum(axis=1, keepdims=True)])
    table = klcontrol.alias_table(q)
    words = sampling.threefry(
        (jnp.uint32(3), jnp.uint32(5)), jnp.arange(200_000, dtype="uint32"), 0
    )
    for x in range(4):
        for word in words:
            y = sampling.draw(table, jnp.full(word.shape, x), word)
            counts = np.bincount(np.asarray(y), minlength=4)
            assert scipy.stats.chisquare(counts, q[x] * len(y)).pvalue > 1e-4


def threefry_by_hand(key, counter, rounds=20):
    """Threefry-2×32 in Python's integers."""
    mask = 2**32 - 1
    ks = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    a, b = (counter[0] + ks[0]) & mask, (counter[1] + ks[1]) & mask
    for r in range(rounds):
        a = (a + b) & mask
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[r % 8]
        b = (((b << turn) | (b >> (32 - turn))) & mask) ^ a
        if r % 4 == 3:
            j = r // 4 + 1
            a, b = (a + ks[j % 3]) & mask, (b + ks[(j + 1) % 3] + j) & mask
    return a, b


@pytest.mark.float32
@pytest.mark.parametrize(
    ("key", "counter"),
    [((0, 0), (0, 0)), ((2**32 - 1,) * 2, (2**32 - 1,) * 2), ((0x13198A2E, 3), (0x243F6A88, 7))],
)
def test_words_are_threefry(key, counter, monkeypatch):
    as_words = partial(jax.tree.map, jnp.uint32)
    ours = tuple(map(int, sampling.threefry(as_words(key), *as_words(counter))))
    assert ours == threefry_by_hand(key, counter, 13)
    # With all 20 rounds, against the published answer for zeros.
    assert threefry_by_hand((0, 0), (0, 0)) == (0x6B200159, 0x99BA4EFE)
    monkeypatch.setattr(sampling, "ROUNDS", 20)
    ours = tuple(map(int, sampling.threefry(as_words(key), *as_words(counter))))
    assert ours == threefry_by_hand(key, counter, 20)


def test_words_look_uniform_and_unrelated_across_time_and_chains():
    times, chains = jnp.arange(512, dtype="uint32"), jnp.arange(512, dtype="uint32")
    words = sampling.threefry((jnp.uint32(1), jnp.uint32(2)), times[:, None], chains[None])
    for w in map(np.asarray, words):
        bits = (w[..., None] >> np.arange(32)) & 1
        # 2¹⁸ fair bits at each place: 5 standard deviations are 0.005.
        assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 0.005
        for other in (np.roll(w, 1, axis=0), np.roll(w, 1, axis=1), np.asarray(words[0]) * 0 + 1):
            differing = np.bitwise_count(w ^ other).mean()
            assert differing == pytest.approx(16, abs=0.03)


def test_chains_visit_states_as_the_invariant_law_says():
    q = np.random.default_rng(1).dirichlet(np.ones(5), size=5)
    problem = klcontrol.Problem(q, np.zeros(5))
    run = klcontrol.simulate(jax.random.key(0), problem, num_steps=20_000, num_chains=16)
    visits = np.asarray(run.state.learner.visits).sum(axis=0)
    values, vectors = np.linalg.eig(q.T)
    exact = np.real(vectors[:, np.argmax(values.real)])
    np.testing.assert_allclose(visits / visits.sum(), exact / exact.sum(), atol=0.005)
    assert visits.sum() == 20_000 * 16


@pytest.mark.float32
@pytest.mark.parametrize("clock", ["local", "global"])
def test_a_resumed_run_is_the_whole_run_bit_for_bit(clock):
    algorithm = klcontrol.kl_learning(clock=clock)
    run = partial(klcontrol.simulate, jax.random.key(7), GRID, algorithm, every=100, num_chains=9)
    whole, first = run(num_steps=600), run(num_steps=200)
    saved = jax.tree.map(np.asarray, first.state)  # as from a file
    rest = klcontrol.resume(saved, GRID, algorithm, num_steps=400, every=100)
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(rest.state)):
        np.testing.assert_array_equal(a, b)
    history = np.concatenate([first.history, rest.history])
    np.testing.assert_array_equal(whole.history, history)


def test_blocks_and_threads_change_nothing():
    run = partial(
        klcontrol.simulate, jax.random.key(8), GRID, num_steps=500, every=50, num_chains=10
    )
    whole = run()
    for block in (1, 3, 5):
        parts = run(block=block)
        np.testing.assert_array_equal(whole.state.x, parts.state.x)
        np.testing.assert_allclose(whole.history, parts.history, rtol=1e-12)
        np.testing.assert_allclose(whole.z, parts.z, rtol=1e-12)


def test_a_state_from_a_file_goes_on_in_blocks():
    algorithm = klcontrol.kl_learning()
    run = partial(klcontrol.simulate, jax.random.key(7), GRID, every=100, num_chains=9, block=4)
    whole, first = run(num_steps=300), run(num_steps=100)
    saved = jax.tree.map(np.asarray, first.state)
    rest = klcontrol.resume(saved, GRID, algorithm, num_steps=200, every=100, block=4)
    for a, b in zip(jax.tree.leaves(whole.state), jax.tree.leaves(rest.state)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("chains", "states", "cpus", "expected"),
    [
        (1, 100, 2, 1),
        (200, 100, 2, 200),  # too few to split
        (1024, 100, 2, 512),  # work for both cores
        (2048, 100, 2, 512),  # 600 would fit: four blocks, two a core
        (4096, 100_000, 2, 1024),  # nothing fits: many chains amortise the overhead
        (3000, 100, 1, 600),
    ],
)
def test_blocks_fit_the_cache_and_employ_every_core(chains, states, cpus, expected):
    assert simulation.block_size(chains, states, 8, cpus) == expected


def test_a_run_is_the_loop_of_steps_over_its_own_transitions():
    # Replay: the same words, drawn and learned one at a time.
    key = jax.random.key(9)
    algorithm = klcontrol.kl_learning()
    run = klcontrol.simulate(key, GRID, num_steps=40, every=20, num_chains=3)
    table = klcontrol.alias_table(GRID.q)
    words = jax.random.key_data(key)
    for b in range(3):
        x = b * 20 // 3
        state = algorithm.init(20, lam=np.exp(-np.asarray(GRID.cost).mean()))
        for t in range(40):
            word = sampling.threefry((words[0], words[1]), jnp.uint32(t // 2), jnp.uint32(b))[t % 2]
            y = int(sampling.draw(table, jnp.int32(x), word))
            state = algorithm.step(state, x, GRID.cost[x], y)
            x = y
            if t % 20 == 19:
                state = algorithm.refresh(state)
        np.testing.assert_allclose(run.z[b], algorithm.estimate(state).z, rtol=1e-12)
        assert int(run.state.x[b]) == x


def only_first(estimate):
    """A record of one number."""
    return estimate.z[0]


def test_history_is_thinned_and_of_the_caller_s_choice():
    run = klcontrol.simulate(
        jax.random.key(0), GRID, num_steps=600, every=200, num_chains=4, record_fn=only_first
    )
    assert run.history.shape == (3, 4)
    np.testing.assert_allclose(run.history[-1], run.z[:, 0])


def test_memory_does_not_grow_with_the_steps():
    args = (klcontrol.alias_table(GRID.q), jnp.exp(-GRID.cost), None)
    state = klcontrol.simulate(jax.random.key(0), GRID, num_steps=2, num_chains=8).state
    sizes = []
    for every in (640, 640_000):
        lowered = simulation._block.lower(
            state,
            args,
            algorithm=klcontrol.kl_learning(),
            records=5,
            every=every,
            record_fn=simulation.lam_of,
        )
        sizes.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert sizes[0] == sizes[1]


def test_a_second_call_does_not_trace_again():
    traces = []

    def gain(k):
        traces.append(1)
        return 1 / (1 + k)

    for seed in range(3):
        algorithm = klcontrol.kl_learning(gain_fn=gain)
        klcontrol.simulate(jax.random.key(seed), GRID, algorithm, num_steps=100, num_chains=2)
        if seed == 0:
            first = len(traces)
    assert len(traces) == first


def test_inside_jit_and_vmap_over_keys():
    table = klcontrol.alias_table(GRID.q)
    run = partial(
        klcontrol.simulate,
        problem=GRID,
        algorithm=klcontrol.kl_learning(),
        num_steps=100,
        every=50,
        table=table,
    )
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(lambda key: run(key).lam))(keys)
    for key, lam in zip(keys, batched):
        np.testing.assert_allclose(run(key).lam, lam, rtol=1e-12)


@pytest.mark.float32
def test_float32_learns_too():
    problem = klcontrol.Problem(
        jnp.full((3, 3), 1 / 3, jnp.float32), jnp.array([0.0, 1.0, 2.0], jnp.float32)
    )
    run = klcontrol.simulate(
        jax.random.key(0), problem, num_steps=30_000, every=3000, num_chains=32
    )
    assert run.z.dtype == jnp.float32
    z = np.exp(-np.arange(3.0))
    assert float(run.lam.mean()) == pytest.approx(z.mean(), rel=0.01)
    assert np.abs(np.asarray(run.z.mean(axis=0)) - z / z.sum()).sum() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 100, "every": 3}, "every: expected an even number"),
        ({"num_steps": 100, "every": 40}, "num_steps: expected a multiple of every = 40"),
        ({"num_steps": 1}, "num_steps: expected an integer of at least 2"),
        ({"num_steps": 7}, "num_steps: expected an even number"),
        ({"num_steps": 10, "num_chains": 0}, "num_chains: expected a positive integer"),
        ({"num_steps": 10, "algorithm": "kl"}, "algorithm: expected an Algorithm"),
        ({"num_steps": 10, "key": 3}, "key: expected a random key"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    options = {"key": jax.random.key(0), **options}
    with pytest.raises(ValueError, match=message):
        klcontrol.simulate(options.pop("key"), GRID, **options)


def test_a_function_cannot_be_sampled():
    problem = klcontrol.Problem(lambda z: jnp.full(3, z.mean()), jnp.zeros(3))
    with pytest.raises(ValueError, match="q: a function has no entries to sample from"):
        klcontrol.simulate(jax.random.key(0), problem, num_steps=10)
