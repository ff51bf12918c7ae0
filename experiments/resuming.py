"""Parts of an experiment that are kept: what was finished before a run was stopped stays."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from experiments import provenance
from experiments.runner import to_plain, write_json


def stamp(*settings) -> str:
    """Of all settings of a part: what differs in any of them is another part."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]


def place(folder: Path | None, package: str, name: str, *settings) -> Path | None:
    """The file of a part with these settings and the present source of the package."""
    if folder is None:
        return None
    mark = stamp(provenance.fingerprint(package), *settings)
    return folder / f"{name.replace(' ', '-')}-{mark}.json"


def kept(path: Path | None, compute_fn: Callable[[], dict]) -> dict:
    """What was written to the file before, else what is computed, as plain data; None forgets."""
    if path is not None and path.exists():
        return json.loads(path.read_text())
    found = to_plain(compute_fn())
    if path is not None:
        write_json(path, found)
    return found
