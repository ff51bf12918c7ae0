"""Run experiments and keep their results: one JSON and one PNG each, written atomically.

A result is finished when its JSON exists; the picture is written before it. A file appears under
its name complete or not at all, so a run that is killed loses only the experiment it was in, and
the next run does what is missing: a result is kept if its configuration and the source of its
package are the same, and computed again otherwise or with `force`.
"""

import dataclasses
import hashlib
import json
import math
import os
import tempfile
import time
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from experiments import provenance
from experiments.catalogue import Experiment
from experiments.measuring import CompileClock


def to_plain(value):
    """`value` as what JSON can hold: arrays become lists, NaN becomes null, infinity a string."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if hasattr(value, "tolist") and not isinstance(value, (str, bytes)):
        return to_plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Path):
        return value.name
    return value


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, record: dict) -> None:
    """Write a record as JSON, atomically."""
    text = json.dumps(to_plain(record), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode())


def write_figure(path: Path, figure) -> None:
    """Write a figure as PNG, atomically, and close it."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    write_atomically(path, buffer.getvalue())


def path_of(experiment: Experiment, out: Path) -> Path:
    """Where the JSON of an experiment lies; the PNG lies beside it."""
    return out / experiment.package / f"{experiment.name}.json"


def load(path: Path) -> dict | None:
    """A finished record, or None if there is none that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def finished(experiment: Experiment, config, out: Path) -> dict | None:
    """The record of an earlier run with the same configuration and source, if there is one."""
    path = path_of(experiment, out)
    record = load(path)
    same = (
        record is not None
        and path.with_suffix(".png").exists()
        and record.get("config") == to_plain(config)
        and record.get("source") == _source(experiment, config)
        and record.get("environment") == to_plain(provenance.environment())
    )
    return record if same else None


def _source(experiment: Experiment, config) -> str:
    # An input file is part of what a result depends on.
    stamp = provenance.fingerprint(experiment.package)
    for field in dataclasses.fields(config):
        path = getattr(config, field.name)
        if isinstance(path, Path) and path.is_file():
            stamp += "-" + hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return stamp


def run(experiment: Experiment, config, out: Path, *, force: bool = False) -> tuple[dict, bool]:
    """The record of an experiment, and whether it was computed now."""
    kept = None if force else finished(experiment, config, out)
    if kept is not None:
        return kept, False
    start = time.perf_counter()
    with CompileClock() as clock:
        results = to_plain(experiment.module.run(config))
    total = time.perf_counter() - start
    record = {
        "package": experiment.package,
        "experiment": experiment.name,
        "title": experiment.title,
        "text": experiment.text,
        "config": config,
        "seed": getattr(config, "seed", None),
        "seconds": {"compile": clock.seconds, "run": max(total - clock.seconds, 0.0)},
        "commit": provenance.commit(),
        "source": _source(experiment, config),
        "environment": provenance.environment(),
        "results": results,
    }
    path = path_of(experiment, out)
    path.unlink(missing_ok=True)  # so that no old record stands beside a new picture
    write_figure(path.with_suffix(".png"), experiment.module.plot(results))
    write_json(path, record)
    return to_plain(record), True
