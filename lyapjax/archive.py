"""Arrays in one file that appears complete or not at all."""

import os
from pathlib import Path

import numpy as np


def write(path, arrays: dict, *, compress: bool = False) -> Path:
    """Write arrays by name to an `.npz` archive, in place of what was there."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            (np.savez_compressed if compress else np.savez)(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
