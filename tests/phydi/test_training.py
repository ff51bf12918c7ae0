"""The training loop: what it computes, that it resumes exactly, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import phydi
from phydi.checkpoints import records_path

pytestmark = pytest.mark.float32
KEY = jax.random.key(3)


class Model(nnx.Module):
    """A little of all: hypercomplex layers, a residual, batch normalisation, dropout."""

    def __init__(self, seed=0, dropout=0.2):
        rngs = nnx.Rngs(seed)
        self.first = phydi.PHMLinear(4, 8, n=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.stack = phydi.ResidualStack(lambda r: phydi.PHMLinear(8, 8, n=2, rngs=r), 2, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=nnx.Rngs(seed))
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.stack(nnx.relu(self.norm(self.first(x))))))


def points(num=24, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(num, 4)).astype(np.float32)
    return {"image": image, "label": np.argmax(image[:, :3], 1).astype(np.int32)}


TRAIN, TEST = points(26), points(10, seed=1)


def run(model, folder=None, **options):
    arguments = {"key": KEY, "num_epochs": 3, "folder": folder} | options
    arguments.setdefault("test_data", phydi.ordered_batches(TEST, 4))
    optimizer = arguments.pop("optimizer", phydi.sgd(0.1, alpha_learning_rate=0.05, clip_norm=1.0))
    data = arguments.pop("data", phydi.shuffled_batches(TRAIN, 8))
    loss_fn = arguments.pop("loss_fn", phydi.classification_loss)
    return phydi.fit(model, data, loss_fn, optimizer, **arguments)


def leaves(model):
    state = jax.tree.map(lambda x: x, nnx.state(model))
    found = []
    for leaf in jax.tree.leaves(state):
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        found.append(np.asarray(jax.random.key_data(leaf) if key else leaf))
    return found


def assert_same(model, other):
    for a, b in zip(leaves(model), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def without_time(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_the_loop_is_what_one_writes_by_hand():
    model, other = Model(dropout=0.0), Model(dropout=0.0)
    fitted = run(model, num_epochs=2)
    rule = phydi.sgd(0.1, alpha_learning_rate=0.05, clip_norm=1.0)
    other.train()
    graph, params, rest = nnx.split(other, nnx.Param, ...)
    memory, losses = rule.init(params), []
    for epoch in range(2):
        losses.append([])
        order = np.random.default_rng(
            np.asarray(jax.random.key_data(jax.random.fold_in(KEY, epoch))).tolist()
        ).permutation(26)
        for i in range(3):
            rows = order[8 * i : 8 * i + 8]

            def loss(params, rest=rest, rows=rows):
                m = nnx.merge(graph, params, jax.tree.map(lambda x: x, rest))
                logits = m(TRAIN["image"][rows])
                picked = jax.nn.log_softmax(logits)[jnp.arange(8), TRAIN["label"][rows]]
                return -jnp.mean(picked), nnx.split(m, nnx.Param, ...)[2]

            (value, rest), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
            losses[-1].append(float(value))
            updates, memory = rule.update(slopes, memory, params)
            params = optax.apply_updates(params, updates)
    nnx.update(other, params, rest)
    for a, b in zip(leaves(model), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
    means = [record["train_loss"] for record in fitted.epochs]
    np.testing.assert_allclose(means, np.mean(losses, 1), rtol=1e-5)
    other.eval()
    logits = np.asarray(other(TEST["image"]), float)
    accuracy = np.mean(np.argmax(logits, 1) == TEST["label"])
    assert fitted.epochs[-1]["test_accuracy"] == pytest.approx(accuracy)
    picked = jax.nn.log_softmax(logits)[np.arange(10), TEST["label"]]
    assert fitted.epochs[-1]["test_loss"] == pytest.approx(-float(np.mean(picked)), rel=1e-4)
    evaluated = phydi.evaluate(model, phydi.ordered_batches(TEST, 10), phydi.classification_loss)
    assert evaluated["loss"] == pytest.approx(fitted.epochs[-1]["test_loss"], rel=1e-5)


class Killed(Exception):
    """Stands for the end of the process."""


def killed_after(num_batches):
    """Data that ends the run after so many batches, counted over its epochs."""
    data, seen = phydi.shuffled_batches(TRAIN, 8), [0]

    def batches(key, start):
        for batch in data(key, start):
            if seen[0] == num_batches:
                raise Killed
            seen[0] += 1
            yield batch

    return batches


@pytest.mark.parametrize("after", [3, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_and_resumes_is_the_uninterrupted_one(after, tmp_path):
    whole, resumed = Model(), Model()
    options = {"checkpoint_steps": 2, "log_steps": 1}
    expected = run(whole, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        run(resumed, tmp_path / "cut", data=killed_after(after), **options)
    assert_same(resumed, Model())  # a run that fails leaves the model as it was
    # A process that dies while it writes leaves half a line.
    with records_path(tmp_path / "cut").open("a") as file:
        file.write('{"kind": "step", "ste')
    found = run(resumed, tmp_path / "cut", **options)
    assert_same(resumed, whole)
    assert without_time(found.epochs) == without_time(expected.epochs)
    records = [phydi.read_records(tmp_path / name) for name in ("whole", "cut")]
    assert without_time(records[0]) == without_time(records[1])
    assert [r["step"] for r in records[1] if r["kind"] == "step"] == list(range(1, 10))
    assert [r["epoch"] for r in records[1] if r["kind"] == "epoch"] == [1, 2, 3]
    # Once more: nothing is left to do, and the model is the trained one.
    again = Model()
    assert run(again, tmp_path / "cut", data=killed_after(0), **options) == found
    assert_same(again, whole)


def test_no_checkpoint_is_written_twice(tmp_path, monkeypatch):
    # To write it again it has to be removed: killed in between, a run would lose its newest.
    saved = []
    monkeypatch.setattr(
        phydi.training, "save_checkpoint", lambda folder, step, *args: saved.append(step)
    )
    run(Model(), tmp_path, checkpoint_steps=1, num_epochs=2)
    assert saved == [1, 2, 3, 4, 5, 6]


def test_the_order_of_data_is_new_in_each_epoch_and_leaves_out_the_rest():
    data = phydi.shuffled_batches({"x": np.arange(26)}, 8)
    epochs = [
        [batch["x"].tolist() for batch in data(jax.random.fold_in(KEY, epoch), 0)]
        for epoch in range(2)
    ]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 24
    tail = [batch["x"].tolist() for batch in data(jax.random.fold_in(KEY, 1), 2)]
    assert tail == epochs[1][2:]


def test_it_stops_at_the_target_and_stays_stopped(tmp_path):
    options = {"num_epochs": 9, "stop_fn": lambda record: record["epoch"] == 2}
    model = Model()
    fitted = run(model, tmp_path, **options)
    assert (fitted.status, fitted.step, len(fitted.epochs)) == ("target reached", 6, 2)
    assert run(Model(), tmp_path, data=killed_after(0), **options) == fitted


def test_nan_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    def poisoned(key, start):
        for i, batch in enumerate(phydi.shuffled_batches(TRAIN, 8)(key, start)):
            image = batch["image"] * (np.nan if i == 1 and seen else 1)
            yield batch | {"image": image.astype(np.float32)}
        seen.append(True)

    seen, model = [], Model()
    words = r"loss is nan at step 5, in epoch 2; the checkpoint after step 4 is kept"
    with pytest.raises(FloatingPointError, match=words):
        run(model, tmp_path, data=poisoned, checkpoint_steps=2)
    assert_same(model, Model())
    state, _ = phydi.make_step(Model(), phydi.classification_loss, phydi.sgd(0.1))
    with pytest.raises(ValueError, match="folder: expected a checkpoint of this model"):
        phydi.restore_checkpoint(tmp_path, state)
    rule = phydi.sgd(0.1, alpha_learning_rate=0.05, clip_norm=1.0)
    state, _ = phydi.make_step(Model(), phydi.classification_loss, rule)
    step, state, _ = phydi.restore_checkpoint(tmp_path, state)
    assert step == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.parameters))
    assert [r["step"] for r in phydi.read_records(tmp_path)] == [3]


def test_an_infinite_gradient_with_a_finite_loss_is_found_at_its_step(tmp_path):
    class Root(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.zeros(()))

        def __call__(self, x):
            return jnp.sqrt(jnp.abs(self.w[...])) * x

    loss = lambda model, batch: {"loss": model(batch["image"][:, 0])}  # noqa: E731
    with pytest.raises(FloatingPointError, match=r"gradient norm is (nan|inf) at step 1, in epoch"):
        phydi.fit(
            Root(), phydi.shuffled_batches(TRAIN, 8), loss, phydi.sgd(), key=KEY, num_epochs=1
        )


def test_parameters_that_overflow_in_the_last_step_are_found_on_the_test_data(tmp_path):
    # The loss and its gradient are finite before each step, and infinite after it.
    words = r"test loss is (nan|inf) at step 1, in epoch 1; no checkpoint was saved before"
    model, huge = Model(), phydi.sgd(3e38, momentum=0.0)
    with pytest.raises(FloatingPointError, match=words):
        run(model, tmp_path, data=phydi.shuffled_batches(TRAIN, 24), optimizer=huge, num_epochs=1)
    assert_same(model, Model())


def test_a_metric_that_is_not_finite_is_null_in_the_file_and_stops_nothing(tmp_path):
    def loss(model, batch):
        values = phydi.classification_loss(model, batch)
        return values | {"odds": 1 / (0 * values["loss"])}

    seen = []
    run(Model(), tmp_path, loss_fn=loss, num_epochs=1, callback=seen.append)
    assert seen[0]["train_odds"] == np.inf
    assert "Infinity" not in records_path(tmp_path).read_text()
    (record,) = phydi.read_records(tmp_path)
    assert record["train_odds"] is None
    assert record["train_loss"] == seen[0]["train_loss"]


def test_another_key_in_the_same_folder_is_an_error(tmp_path):
    run(Model(), tmp_path, num_epochs=1)
    with pytest.raises(ValueError, match="key: expected the key"):
        run(Model(), tmp_path, num_epochs=1, key=jax.random.key(4))


def test_records_reach_the_callback_and_are_strict_json(tmp_path):
    seen = []
    run(Model(), tmp_path, num_epochs=1, log_steps=2, callback=seen.append)
    assert [(r["kind"], r["step"]) for r in seen] == [("step", 2), ("epoch", 3)]
    lines = records_path(tmp_path).read_text().splitlines()
    assert [json.loads(line) for line in lines] == seen
    assert set(seen[1]) >= {"train_loss", "train_gradient_norm", "test_loss", "seconds"}


def test_mixed_precision_computes_in_bfloat16_and_updates_in_float32():
    class Spy(Model):
        def __call__(self, x):
            dtypes.append(x.dtype)
            y = super().__call__(x)
            dtypes.append(y.dtype)
            return y

    dtypes, model, exact = [], Spy(dropout=0.0), Model(dropout=0.0)
    first = leaves(model)
    fitted = run(model, num_epochs=1, compute_dtype=jnp.bfloat16)
    # Batch normalisation, too, returns bfloat16, and its statistics are float32.
    assert set(dtypes) == {jnp.dtype("bfloat16")}
    assert model.norm.var[...].dtype == jnp.float32
    assert model.norm.dtype is None
    full = run(exact, num_epochs=1)
    loss, other = fitted.epochs[0]["train_loss"], full.epochs[0]["train_loss"]
    assert loss != other
    assert loss == pytest.approx(other, rel=0.05)
    for before, after, wide in zip(first, leaves(model), leaves(exact), strict=True):
        assert before.dtype == after.dtype
        if np.issubdtype(after.dtype, np.floating):
            np.testing.assert_allclose(after, wide, atol=0.05)


def test_a_step_is_compiled_once_whatever_the_epochs():
    traced = []

    def loss(model, batch):
        traced.append(jax.tree.leaves(batch)[0].shape)
        return phydi.classification_loss(model, batch)

    phydi.fit(
        Model(), phydi.shuffled_batches(TRAIN, 8), loss, phydi.sgd(), key=KEY, num_epochs=3,
        test_data=phydi.ordered_batches(TEST, 4),
    )  # fmt: skip
    # The step, the full test batch and the last, smaller one.
    assert len(traced) == 3


SHARDED = """
import sys, jax, numpy as np
from tests.phydi.test_training import Model, leaves, run
assert len(jax.devices()) == 2
model = Model()
fitted = run(model, num_epochs=2)
np.savez(sys.argv[1], *leaves(model), loss=fitted.epochs[-1]["test_loss"])
try:
    run(model, data=__import__("phydi").shuffled_batches({"image": np.zeros((6, 4)),
        "label": np.zeros(6, int)}, 3))
except ValueError as error:
    assert "data: expected batches of a multiple of 2 examples" in str(error)
else:
    raise AssertionError("no error")
"""


def test_two_devices_compute_what_one_does(tmp_path):
    model = Model()
    fitted = run(model, num_epochs=2)
    path, root = tmp_path / "two.npz", Path(__file__).parents[2]
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(path)],
        cwd=root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(path) as two:
        for i, leaf in enumerate(leaves(model)):
            np.testing.assert_allclose(two[f"arr_{i}"], leaf, rtol=2e-4, atol=2e-6)
        assert float(two["loss"]) == pytest.approx(fitted.epochs[-1]["test_loss"], rel=1e-4)


def test_bad_input_is_named():
    empty = lambda key, start: iter(())  # noqa: E731
    flat = lambda model, batch: model(batch["image"])  # noqa: E731
    for call, match in (
        (lambda: run(Model(), num_epochs=0), "num_epochs: expected an integer of at least 1"),
        (lambda: run(Model(), key=0), "key: expected a random key, such as jax.random.key.0., got"),
        (lambda: run(Model(), log_steps=0), "log_steps: expected an integer"),
        (lambda: run(Model(), data=empty), "data: expected at least one batch an epoch"),
        (lambda: run(Model(), test_data=lambda: iter(())), "data: expected at least one batch"),
        (lambda: phydi.make_step(nnx.relu, flat, phydi.sgd()), "model: expected an nnx.Module"),
        (
            lambda: phydi.fit(
                Model(), phydi.shuffled_batches(TRAIN, 8), flat, phydi.sgd(), key=KEY, num_epochs=1
            ),
            "loss_fn: expected to return a dictionary with 'loss'",
        ),
        (
            lambda: phydi.classification_loss(lambda x: x[0], TRAIN),
            r"model: expected logits of shape \(26, 'classes'\)",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
