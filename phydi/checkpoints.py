"""What a run leaves on disk: checkpoints by orbax, and a line of JSON for each of its records.

    folder/checkpoints/<step>    the state of training after so many steps; the last two are kept
    folder/metrics.jsonl         one record a line, in the order of the steps

A checkpoint appears complete or not at all. Records of steps after the checkpoint from which a run
resumes are dropped: the resumed run writes them again, and none stands there twice.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np


def _flat(state) -> dict:
    """The arrays of any tree by the names of their paths: what a checkpoint holds."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _manager(folder: Path):
    import orbax.checkpoint as ocp  # half a second, for those who save

    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(Path(folder).absolute() / "checkpoints", options=options)


def save_checkpoint(folder, step: int, state, position: dict) -> None:
    """Save the state of training, atomically, and keep the one before.

        folder/checkpoints/step

    Args:
      folder: of the run.
      step: how many steps were made.
      state: any tree of arrays, random keys included.
      position: further facts that JSON can hold.

    Returns:
      None.

    Raises:
      OSError: the folder cannot be written.

    Reference:
      None.

    Examples:
      >>> import tempfile, jax.numpy as jnp, phydi
      >>> folder = tempfile.mkdtemp()
      >>> phydi.save_checkpoint(folder, 3, {"w": jnp.arange(2.0)}, {"epoch": 1})
      >>> phydi.restore_checkpoint(folder, {"w": jnp.zeros(2)})
      (3, {'w': Array([0., 1.], dtype=...)}, {'epoch': 1})
    """
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        arrays = ocp.args.StandardSave(_flat(state))
        facts = ocp.args.JsonSave({"position": position, "arrays": _described(state)})
        arguments = ocp.args.Composite(state=arrays, facts=facts)
        if step in manager.all_steps():  # a run that ends where it had saved in between
            manager.delete(step)
        try:
            manager.save(step, args=arguments, force=True)
        except ValueError as error:  # what orbax makes of a full disk
            raise OSError(
                f"{folder}: the checkpoint of step {step} could not be written, and those before "
                f"it are kept: {error}"
            ) from error


def latest_step(folder) -> int | None:
    """The step of the newest checkpoint, or None."""
    if not (Path(folder) / "checkpoints").is_dir():
        return None
    with _manager(folder) as manager:
        return manager.latest_step()


def restore_checkpoint(folder, like) -> tuple | None:
    """Read the newest checkpoint of a folder.

        folder/checkpoints/step for the largest step

    Args:
      folder: of the run.
      like: a tree with the structure, shapes, types and shardings of what was saved.

    Returns:
      (step, state, position), or None if there is no checkpoint.

    Raises:
      ValueError: what was saved has other names, shapes or types than `like`.

    Reference:
      None.

    Examples:
      >>> import tempfile, phydi
      >>> phydi.restore_checkpoint(tempfile.mkdtemp(), {}) is None
      True
    """
    if not (Path(folder) / "checkpoints").is_dir():
        return None
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        facts = manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))[
            "facts"
        ]
        _check_same(folder, facts["arrays"], _described(like))
        target = jax.tree.map(ocp.tree.to_shape_dtype_struct, _flat(like))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        found = manager.restore(step, args=arguments)["state"]
    leaves = [found[name] for name in _flat(like)]
    return step, jax.tree.unflatten(jax.tree.structure(like), leaves), facts["position"]


def _described(state) -> dict:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in _flat(state).items()}


def _check_same(folder, stored: dict, described: dict) -> None:
    for name in sorted(described.keys() | stored.keys()):
        if described.get(name) != stored.get(name):
            raise ValueError(
                f"folder: expected a checkpoint of this model and optimizer in {folder}; "
                f"{name} is {described.get(name, 'absent')} here and "
                f"{stored.get(name, 'absent')} there; give another folder, or delete that one"
            )


def records_path(folder) -> Path:
    """Where the records of a run are."""
    return Path(folder) / "metrics.jsonl"


def read_records(folder) -> list[dict]:
    """The records of a run.

        folder/metrics.jsonl, without a last line that was cut off

    Args:
      folder: of the run.

    Returns:
      A list of dictionaries, empty if there are none yet; None stands for what was not finite.

    Raises:
      OSError: the file is there and cannot be read.

    Reference:
      None.

    Examples:
      >>> import tempfile, phydi
      >>> phydi.read_records(tempfile.mkdtemp())
      []
    """
    path = records_path(folder)
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _line(record: dict) -> str:
    # There are no other numbers in JSON than finite ones.
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(plain, allow_nan=False) + "\n"


def drop_records(folder, step: int) -> list[dict]:
    """Drop what was recorded after a step, atomically, and return the rest."""
    kept = [record for record in read_records(folder) if record["step"] <= step]
    path = records_path(folder)
    if path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".metrics.")
        with os.fdopen(handle, "w") as file:
            file.writelines(map(_line, kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    return kept


def append_record(folder, record: dict) -> None:
    """Add one line."""
    path = records_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(_line(record))


def tensorboard_callback(folder) -> Callable:
    """A callback for `fit` that writes every record for TensorBoard, which must be installed.

        one curve for each number of the records

    Args:
      folder: where TensorBoard is to look.

    Returns:
      `callback(record)`.

    Raises:
      ImportError: TensorBoard is not installed; the message says how to install it.

    Reference:
      None.

    Examples:
      >>> import importlib.util, tempfile, phydi
      >>> if importlib.util.find_spec("tensorboard"):
      ...     phydi.tensorboard_callback(tempfile.mkdtemp())({"kind": "epoch", "step": 1})
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ImportError(
            "tensorboard_callback needs TensorBoard: pip install tensorboard; without it, "
            "the same numbers are in metrics.jsonl"
        ) from error
    writer = EventFileWriter(str(folder))

    def callback(record: dict) -> None:
        values = [
            Summary.Value(tag=f"{record['kind']}/{name}", simple_value=value)
            for name, value in record.items()
            if isinstance(value, int | float | np.number) and name != "step"
        ]
        writer.add_event(Event(step=record["step"], summary=Summary(value=values)))
        writer.flush()

    return callback
