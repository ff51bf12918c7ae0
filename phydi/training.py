"""The training loop: resumable, on all devices, and silent but for what it is asked to record.

A run is its `TrainState`, its key and its place in the data. All three are in a checkpoint, and the
batches of an epoch are a function of the key and the epoch's number, so that a run that was killed
and resumes is, bit for bit, the one that never stopped (on the same devices and versions).

Every batch is shared out to all devices by its leading axis and the state is on each of them: means
over the batch, those of batch normalisation included, are over the whole of it.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

from phydi.batches import prefetch
from phydi.checking import check_key, check_positive_integer
from phydi.checkpoints import (
    append_record,
    drop_records,
    latest_step,
    restore_checkpoint,
    save_checkpoint,
)
from phydi.compilation import compile_step
from phydi.steps import Mean, evaluated, evaluation, make_step

# Metrics are read this many steps late: the host never waits for the step that it started last.
_LATE = 2


class Fitted(NamedTuple):
    """How a run of `fit` ended.

        `target reached` or `num_epochs reached`

    Attributes:
      status: one of the above.
      epochs: the record of each epoch: dictionaries with `epoch`, `step`, `seconds`, the means of
        the metrics as `train_…` and, with test data, `test_…`.
      step: the number of steps.

    Examples:
      >>> import phydi
      >>> phydi.Fitted("num_epochs reached", [{"epoch": 1, "train_loss": 0.5}], 10).step
      10
    """

    status: str
    epochs: list
    step: int


def _shardings(devices):
    """For the state, on all devices, and for batches, shared out by their leading axis."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    return tuple(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in ((), ("data",))
    )


def _place(everywhere, shared, *, strict: bool) -> Callable:
    """Puts batches on the devices; those that cannot be shared out are an error or a copy."""
    number = everywhere.mesh.size

    def place(batch):
        sizes = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(batch)}
        uneven = [size for size in sizes if size % number]
        if uneven and strict:
            raise ValueError(
                f"data: expected batches of a multiple of {number} examples, one part for each "
                f"device, got {uneven[0]}; choose another batch_size, or pass fewer devices"
            )
        return jax.device_put(batch, everywhere if uneven else shared)

    return place


def fit(
    model,
    data: Callable,
    loss_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    key,
    num_epochs: int,
    test_data: Callable | None = None,
    stop_fn: Callable | None = None,
    callback: Callable | None = None,
    log_steps: int | None = None,
    folder=None,
    checkpoint_steps: int | None = None,
    compute_dtype=None,
    devices=None,
) -> Fitted:
    """Train a flax module, in place.

        state ← step(state, batch) for all batches of data(fold_in(key, epoch), 0), each epoch

    With a folder the run leaves checkpoints and records there. Called again with the same
    arguments it resumes from the last checkpoint, and returns at once if the run had ended.

    Args:
      model: a flax module; it has the trained parameters at the end.
      data: `(key, start) -> iterable of batches`: one epoch's, from number `start` on, such as
        `shuffled_batches` returns. A batch is a tree of arrays with a leading axis of examples.
      loss_fn: `(model, batch) -> {"loss": ..., ...}`, one number per example.
      optimizer: an optax transformation, such as `sgd` or `adagrad`.
      key: the random key that decides the order of the data.
      num_epochs: after how many to stop.
      test_data: `() -> iterable of batches`, evaluated after each epoch; or None.
      stop_fn: `(record of an epoch) -> bool`: whether the target is reached; or None.
      callback: called with every record; for a progress bar, or `tensorboard_callback`.
      log_steps: also record every so many steps; None for epochs only.
      folder: for checkpoints and `metrics.jsonl`; None to leave nothing on disk.
      checkpoint_steps: also save every so many steps; None for after each epoch only.
      compute_dtype: `jnp.bfloat16` for mixed precision: see `make_step`.
      devices: to share batches out to; None for all.

    Returns:
      A `Fitted`.

    Raises:
      FloatingPointError: the loss, the gradient or the loss on the test data is not finite; the
        message names the step. The model is left as it was, the last good checkpoint stays.
      ValueError: a batch that cannot be shared out, a folder with another run, no batches, or
        numbers that are no positive integers.

    Reference:
      Section 4; M1 of Table 1 is `stop_fn=lambda record: record["test_accuracy"] >= 0.8`.

    Examples:
      >>> import jax, numpy as np, phydi
      >>> from flax import nnx
      >>> model = phydi.PHMLinear(2, 2, n=2, rngs=nnx.Rngs(0))
      >>> points = {"image": np.eye(2, dtype="float32"), "label": np.arange(2)}
      >>> data = phydi.shuffled_batches(points, 2)
      >>> run = phydi.fit(
      ...     model, data, phydi.classification_loss, phydi.sgd(0.5), key=jax.random.key(0),
      ...     num_epochs=50, test_data=phydi.ordered_batches(points, 2),
      ...     stop_fn=lambda record: record["test_loss"] < 0.1,
      ... )
      >>> run.status
      'target reached'
    """
    check_key(key)
    num_epochs = check_positive_integer("num_epochs", num_epochs)
    for name, value in (("log_steps", log_steps), ("checkpoint_steps", checkpoint_steps)):
        if value is not None:
            check_positive_integer(name, value)
    everywhere, shared = _shardings(jax.devices() if devices is None else devices)
    place, place_test = (_place(everywhere, shared, strict=s) for s in (True, False))
    state, step = make_step(model, loss_fn, optimizer, compute_dtype=compute_dtype)
    # A copy: the step gives its state's memory away, and the model still needs its own.
    state = jax.tree.map(lambda x: x.copy(), jax.device_put(state, everywhere))
    step = compile_step(step, sharding=everywhere)
    run_test = evaluation(model, loss_fn, compute_dtype)

    position, epochs = {"epoch": 0, "batch": 0, "sums": {}}, []
    if folder is not None:
        state, position, records = _resume(folder, state, position, key)
        epochs = [record for record in records if record["kind"] == "epoch"]
    log = _Log(folder, callback, log_steps)
    number = int(state.step)
    stopped = bool(epochs) and stop_fn is not None and bool(stop_fn(epochs[-1]))

    for epoch in range(position["epoch"], num_epochs):
        if stopped:
            break
        clock = time.perf_counter()
        log.epoch, mean, first = epoch + 1, Mean(position["sums"]), position["batch"]
        batches = prefetch(data(jax.random.fold_in(key, epoch), first), place)
        saves_at = checkpoint_steps if folder is not None else None
        pauses = _steps(step, state, batches, first, mean, log, saves_at)
        for state, count in pauses:
            if count is not None:
                _save(folder, state, {"epoch": epoch, "batch": count, "sums": mean.sums}, key)
        number = int(state.step)
        if not mean.sums:
            raise ValueError("data: expected at least one batch an epoch, got none")
        values = mean.means("train_")
        if test_data is not None:
            test = evaluated(run_test, state.parameters, state.other, test_data(), place_test)
            if not np.isfinite(test["loss"]):
                raise FloatingPointError(log.explain("test loss", test["loss"], number))
            values |= {f"test_{name}": value for name, value in test.items()}
        epochs.append(log.write("epoch", number, values | {"seconds": time.perf_counter() - clock}))
        position = {"epoch": epoch + 1, "batch": 0, "sums": {}}
        if folder is not None:
            _save(folder, state, position, key)
        stopped = stop_fn is not None and bool(stop_fn(epochs[-1]))
    nnx.update(model, state.parameters, state.other)
    return Fitted("target reached" if stopped else "num_epochs reached", epochs, number)


class _Log:
    """Writes records to a file and to a callback, if there are any."""

    def __init__(self, folder, callback: Callable | None, log_steps: int | None):
        self.folder, self.callback, self.log_steps, self.epoch = folder, callback, log_steps, 0

    def write(self, kind: str, step: int, values: dict) -> dict:
        record = {"kind": kind, "epoch": self.epoch, "step": step, **values}
        if self.folder is not None:
            append_record(self.folder, record)
        if self.callback is not None:
            self.callback(record)
        return record

    def read(self, pending: deque, late: int, mean: Mean) -> None:
        """Take note of all totals but the `late` latest, or raise if they are not finite."""
        while len(pending) > late:
            step, totals = pending.popleft()
            totals = jax.device_get(totals)
            for name in ("loss", "gradient_norm"):
                if not np.isfinite(totals[name][0]):
                    raise FloatingPointError(self.explain(name, totals[name][0], step))
            mean.add(totals)
            if self.log_steps is not None and step % self.log_steps == 0:
                now = Mean()
                now.add(totals)
                self.write("step", step, now.means("train_"))

    def explain(self, name: str, value, step: int) -> str:
        kept = "nothing was saved"
        if self.folder is not None:
            last = latest_step(self.folder)
            kept = f"the checkpoint after step {last} is kept in {self.folder}"
            kept = "no checkpoint was saved before" if last is None else kept
        return (
            f"{name.replace('_', ' ')} is {value} at step {step}, in epoch {self.epoch}; {kept}; "
            f"try a smaller learning_rate, or clip_norm in the optimizer"
        )


def _steps(step: Callable, state, batches, first: int, mean: Mean, log: _Log, saves_at: int | None):
    """Train on all batches; yield (state, batch) where to save, and at the end with None.

    The records and means are up to date where it yields. After the last batch there is no save but
    the epoch's: a checkpoint that is written twice is for a moment not there.
    """
    pending, number, save = deque(), int(state.step), False
    with contextlib.closing(batches):
        for count, batch in enumerate(batches, start=first):
            if save:
                log.read(pending, 0, mean)
                yield state, count
            state, totals = step(state, batch)
            number += 1
            pending.append((number, totals))
            save = saves_at is not None and number % saves_at == 0
            log.read(pending, _LATE, mean)
    log.read(pending, 0, mean)
    yield state, None


def _words(key) -> list[int]:
    return np.asarray(jax.random.key_data(key)).ravel().tolist()


def _save(folder, state, position: dict, key) -> None:
    save_checkpoint(folder, int(state.step), state, position | {"key": _words(key)})


def _resume(folder, state, position: dict, key) -> tuple:
    """State, place in the data and records to go on from; of a new run if there is no other."""
    found = restore_checkpoint(folder, state)
    step = 0
    if found is not None:
        step, state, position = found
        if position["key"] != _words(key):
            raise ValueError(
                f"key: expected the key {position['key']} of the run in {folder}, got "
                f"{_words(key)}; give another folder, or delete that one"
            )
    return state, position, drop_records(folder, step)
