"""Pickles from strangers: dictionaries, lists, numbers, bytes and arrays of bytes, nothing else.

A pickle is a program, and a call of any function is one of its instructions. The reader here knows
three names, all of them ours: what a pickle takes for NumPy's `dtype`, `ndarray` and `_reconstruct`
are stand-ins that note what they are given. NumPy's own would do for pickles that mean well, but
they believe what they are told: the state of a broken one corrupts `dtype('uint8')` itself, for the
whole process.
"""

import io
import math
import pickle
from pathlib import Path

import numpy as np


class _Noted:
    """Stands for an array or a dtype: what it was made with, and its state."""

    def __init__(self, *arguments):
        self.arguments, self.state = arguments, None

    def __setstate__(self, state):
        self.state = state


def _encoded(text, encoding) -> bytes:
    """Bytes, as Python 3 writes them in Python 2's protocols."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin1")


_KNOWN = {
    ("numpy", "dtype"): _Noted,
    ("numpy", "ndarray"): _Noted,
    ("numpy.core.multiarray", "_reconstruct"): _Noted,
    ("numpy._core.multiarray", "_reconstruct"): _Noted,
    ("_codecs", "encode"): _encoded,
}


class _Refused(ValueError):
    """The pickle asks for something else."""


class _Restricted(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _KNOWN:
            raise _Refused(f"refused to load {module}.{name}")
        return _KNOWN[module, name]


def read_pickle(path: Path, content: bytes, source: str):
    """What a pickle holds; its arrays are for `array_of_bytes`. Errors name the file."""
    try:
        return _Restricted(io.BytesIO(content), encoding="bytes").load()
    except _Refused as error:
        raise ValueError(
            f"{path}: {error}: a batch of CIFAR-10 needs NumPy arrays only, and other pickles may "
            f"run programs; fetch it from {source}"
        ) from None
    except Exception as error:  # broken instructions fail in any way
        raise ValueError(
            f"{path}: expected a pickled batch of CIFAR-10, found {len(content):,} bytes that "
            f"end early or are none ({error}); fetch it again from {source}"
        ) from error


def array_of_bytes(noted) -> np.ndarray | None:
    """The array that was pickled, or None if it is none of bytes."""
    try:
        _, shape, dtype, by_columns, content = noted.state
        code = dtype.arguments[0]
        if code not in ("u1", b"u1") or len(content) != math.prod(shape):
            return None
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
