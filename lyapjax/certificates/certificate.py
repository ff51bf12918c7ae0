"""A proof as a file: what is claimed, of which functions, on which boxes.

One `.npz` archive. Its entry `document` is JSON: the functions as straight-line programs (see
`program`) with their numbers as exact hexadecimal floats, the domain, the levels, the matrices,
versions, and a SHA-256 digest of every part; the other entries are the boxes, for a region with
multipliers. Nothing in it is executable, and nothing else is needed to check it: `replay` reads it
with ball arithmetic. There are three formats: of proofs by `verify`, and by `verify_region` with
secants and with sectors. `writing` makes them.
"""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from lyapjax import archive
from lyapjax.readers.program import Program, Step

FORMAT = "lyapjax certificate 1"
REGION = "lyapjax certificate of a region 1"
SECTORS = "lyapjax certificate of a region by sectors 1"


class Layout(NamedTuple):
    """The parts of a format, and its sets of boxes."""

    parts: tuple[str, ...]
    boxes: tuple[str, ...]


_REGION = ("f", "features", "domain", "equilibrium", "P", "R", "level", "statement")
LAYOUTS = {
    FORMAT: Layout(
        ("V", "f", "domain", "equilibrium", "levels", "local", "statement"),
        ("shell", "boundary", "core", "local"),
    ),
    REGION: Layout(_REGION, ("region",)),
    SECTORS: Layout(_REGION, ("region",)),
}
MARKS = "<>*"  # lower corners, upper corners, multipliers


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A proof that every trajectory from a level set converges to the equilibrium.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    Attributes:
      document: what is claimed, as plain data.
      boxes: corners (lo, hi) of the boxes of each obligation; for a region with multipliers.

    Examples:
      >>> import lyapjax as ly
      >>> V, f, D = lambda x: x @ x, lambda x: -x, ly.Ball(1.0, (0.0, 0.0))
      >>> c = ly.certificate(V, f, D, ly.verify(V, f, D))
      >>> ly.replay(c).verdict.value
      'PROVED'
    """

    document: dict
    boxes: dict

    @property
    def statement(self) -> str:
        """What is proved, in words."""
        return self.document["statement"]

    def save(self, path) -> Path:
        """Write the certificate to one file, which appears complete or not at all."""
        arrays = {f"{name} {end}": v for name, b in self.boxes.items() for end, v in zip(MARKS, b)}
        text = json.dumps(self.document, indent=1, ensure_ascii=False)
        return archive.write(path, {"document": np.array(text), **arrays}, compress=True)

    @classmethod
    def load(cls, path) -> "Certificate":
        """Read a file of `save`; ValueError if it is none."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            document = json.loads(str(arrays.pop("document")))
            layout = LAYOUTS.get(document.get("format")) if isinstance(document, dict) else None
            if layout is None:
                raise ValueError(f"expected one of the formats {list(LAYOUTS)}")
            marks = MARKS[:2] if document["format"] == FORMAT else MARKS
            boxes = {k: tuple(arrays[f"{k} {mark}"] for mark in marks) for k in layout.boxes}
        except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
            raise ValueError(f"path: {path} is no certificate of lyapjax: {error}") from error
        return cls(document, boxes)


def _plain(value):
    """Tuples as lists."""
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _frozen(value):
    """Lists as tuples."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def exact(values):
    """Floats as hexadecimal text, nested like their array."""
    values = np.asarray(values, np.float64)
    return float(values).hex() if values.ndim == 0 else [exact(v) for v in values]


def inexact(texts) -> np.ndarray:
    """The array of such a text."""
    return np.array(_numbers(texts), np.float64)


def _numbers(texts):
    return [_numbers(t) for t in texts] if isinstance(texts, list) else float.fromhex(texts)


def write_program(program: Program) -> dict:
    """A program as plain data."""
    if any(isinstance(c, jax.core.Tracer) for c in program.constants):
        raise ValueError("V: expected concrete numbers, not traced ones")
    return {
        "steps": [_plain(step) for step in program.steps],
        "outputs": list(program.outputs),
        "shapes": [list(np.shape(c)) for c in program.constants],
        "constants": [exact(np.ravel(c)) for c in program.constants],
    }


def read_program(data: dict) -> Program:
    """The program of such data."""
    steps = tuple(Step(op, _frozen(i), _frozen(p), _frozen(s)) for op, i, p, s in data["steps"])
    constants = tuple(
        inexact(c).reshape(shape) for c, shape in zip(data["constants"], data["shapes"])
    )
    return Program(steps, tuple(data["outputs"]), constants, None)


def digests(document: dict, boxes: dict) -> dict[str, str]:
    """SHA-256 of each part."""
    found, layout = {}, LAYOUTS[document["format"]]
    for name in layout.parts:
        text = json.dumps(document[name], sort_keys=True, ensure_ascii=False)
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    for name in layout.boxes:
        parts = [np.ascontiguousarray(v, "<f8") for v in boxes[name]]
        content = b"".join(str(v.shape).encode() + v.tobytes() for v in parts)
        found[f"boxes {name}"] = hashlib.sha256(content).hexdigest()
    return found
