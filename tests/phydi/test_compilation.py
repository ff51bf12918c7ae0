"""Steps that work in the memory of the one before compute what plain ones do.

On several devices they are plain ones: `test_training` trains on two.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi


def start():
    class Model(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0, dropout=1)
            make = lambda rngs: phydi.PHMLinear(64, 64, n=4, rngs=rngs)  # noqa: E731
            self.stack = phydi.ResidualStack(make, 2, after=jnp.tanh, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.norm = nnx.BatchNorm(64, rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.norm(self.dropout(self.stack(x))))

    loss = lambda model, batch: {"loss": jnp.mean((model(batch) - batch) ** 2, -1)}  # noqa: E731
    state, step = phydi.make_step(Model(), loss, phydi.sgd(0.1))
    return jax.tree.map(jnp.copy, state), step


def batches(rows, number):
    return np.random.default_rng(rows).normal(size=(number, rows, 64)).astype(np.float32)


def data_of(state):
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    plain = lambda x: jax.random.key_data(x) if is_key(x) else x  # noqa: E731
    return [np.asarray(plain(leaf)) for leaf in jax.tree.leaves(state)]


@pytest.mark.float32
def test_the_same_states_and_metrics_as_a_plain_step_whatever_the_sizes_of_the_batches():
    (ours, step), (theirs, plain) = start(), start()
    step, plain = phydi.compile_step(step), jax.jit(plain)
    for rows in (600, 600, 700, 600, 700, 700):
        for batch in batches(rows, 1):
            ours, found = step(ours, batch)
            theirs, expected = plain(theirs, batch)
            for a, b in zip(data_of((ours, found)), data_of((theirs, expected)), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    assert int(ours.step) == 6


@pytest.mark.float32
def test_all_that_the_backward_pass_needs_lies_in_memory_that_is_handed_on():
    state, step = start()
    batch = batches(2000, 1)[0]
    step = phydi.compile_step(step)
    state, _ = step(state, batch)
    _, workspace = step._workspace
    ((run, _),) = step._programs.values()
    # At least what tanh and the products need of both blocks.
    assert sum(x.nbytes for x in workspace) >= 2 * batch.nbytes
    memory = run.lower(state, workspace, batch).compile().memory_analysis()
    sizes = sum(x.nbytes for x in (*workspace, *map(np.asarray, data_of(state.parameters))))
    assert memory.alias_size_in_bytes >= sizes
    step(state, batch)
    assert all(x.is_deleted() for x in workspace)


def test_what_lies_in_that_memory_has_no_influence():
    found = []
    for fill in (0.0, np.nan):
        state, step = start()
        step = phydi.compile_step(step)
        for batch in batches(600, 3):
            case, workspace = step._workspace
            filled = [x if x.dtype == bool else jnp.full_like(x, fill) for x in workspace]
            step._workspace = case, filled
            state, totals = step(state, batch)
            assert step._workspace[1]
        found.append(data_of((state, totals)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_that_fails_leaves_the_next_one_possible():
    state, step = start()
    step = phydi.compile_step(step)
    batch = batches(600, 1)[0]
    state, _ = step(state, batch)
    ((case, (run, shapes)),) = step._programs.items()

    def fail(*args):
        raise KeyboardInterrupt

    step._programs[case] = fail, shapes
    with pytest.raises(KeyboardInterrupt):
        step(state, batch)
    step._programs[case] = run, shapes
    state, _ = step(state, batch)
    assert int(state.step) == 2


def test_numbers_that_are_no_arrays_may_be_in_a_batch():
    model = phydi.PHMLinear(64, 64, n=4, rngs=nnx.Rngs(0))
    loss = lambda model, batch: {"loss": batch["weight"] * model(batch["x"])[:, 0]}  # noqa: E731
    state, step = phydi.make_step(model, loss, phydi.sgd(0.1))
    step = phydi.compile_step(step)
    state = jax.tree.map(jnp.copy, state)
    for weight in (2.0, 3.0, 2):
        batch = {"x": batches(600, 1)[0], "weight": weight}
        expected = weight * np.mean(_outputs(model, state, batch["x"]))
        state, totals = step(state, batch)
        np.testing.assert_allclose(totals["loss"][0] / 600, expected, rtol=1e-4)


def _outputs(model, state, x):
    graph, _, other = nnx.split(model, nnx.Param, ...)
    return nnx.merge(graph, state.parameters, other)(x)[:, 0]


def test_only_steps_of_make_step():
    with pytest.raises(ValueError, match="step: expected what `make_step` returns"):
        phydi.compile_step(lambda state, batch: state)
