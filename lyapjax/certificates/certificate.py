"""A proof as a file: what is claimed, of which functions, on which boxes.

One `.npz` archive. Its entry `document` is JSON: the functions as straight-line programs (see
`program`) with their numbers as exact hexadecimal floats, the domain, the levels, the matrices,
versions, and a SHA-256 digest of every part; the other entries are the boxes, for a region with
multipliers. Nothing in it is executable, and nothing else is needed to check it: `replay` reads it
with ball arithmetic. There are two formats, of proofs by `verify` and by `verify_region`.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax import archive
from lyapjax.proofs.attraction import Region
from lyapjax.proofs.local import reach, ring_prover
from lyapjax.proofs.obligations import Verification
from lyapjax.proofs.proving import Verdict
from lyapjax.readers.program import Program, Step, trace
from lyapjax.systems.domains import Ball, Box

FORMAT = "lyapjax certificate 1"
REGION = "lyapjax certificate of a region 1"


class Layout(NamedTuple):
    """The parts of a format, and its sets of boxes."""

    parts: tuple[str, ...]
    boxes: tuple[str, ...]


LAYOUTS = {
    FORMAT: Layout(
        ("V", "f", "domain", "equilibrium", "levels", "local", "statement"),
        ("shell", "boundary", "core", "local"),
    ),
    REGION: Layout(
        ("f", "features", "domain", "equilibrium", "P", "R", "level", "statement"), ("region",)
    ),
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
            marks = MARKS if document["format"] == REGION else MARKS[:2]
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


def certificate(
    V: Callable,
    f: Callable,
    domain: Ball | Box,
    verification: Verification,
    equilibrium=None,
    *,
    name: str = "",
) -> Certificate:
    """The certificate of a proof by `verify`, to be saved and replayed.

        x(0) ∈ D, V(x(0)) <= c2   implies   x(t) → x*

    Args:
      V: the function that was verified.
      f: the closed loop.
      domain: D.
      verification: what `verify` returned for them.
      equilibrium: (n,) x*; the origin by default.
      name: of the system, for readers.

    Returns:
      `Certificate`.

    Raises:
      ValueError: a verification that is not PROVED; a proof of its local part that fails now.

    Reference:
      See `lyapjax.proofs.obligations` for what is proved.

    Examples:
      >>> import lyapjax as ly
      >>> V, f, D = lambda x: x @ x, lambda x: -x, ly.Ball(1.0, (0.0, 0.0))
      >>> ly.certificate(V, f, D, ly.verify(V, f, D), name="decay").document["name"]
      'decay'
    """
    if verification.verdict is not Verdict.PROVED:
        raise ValueError(
            f"verification: expected PROVED, got {verification.verdict.value}: "
            f"{verification.reason}"
        )
    n = domain.dim
    x = np.zeros(n) if equilibrium is None else np.asarray(equilibrium, float)
    local, proofs = verification.local, verification.proofs
    empty = np.zeros((0, n))
    boxes = {
        key: (proofs[key].lo, proofs[key].hi) if key in proofs else (empty, empty)
        for key in ("shell", "boundary", "core")
    }
    boxes["local"] = _growth(f, x, local)
    document = {
        **_header(FORMAT, name, verification.statement, domain, x),
        "V": write_program(trace(V, jnp.zeros(n))),
        "f": write_program(trace(f, jnp.zeros(n))),
        "levels": {"c1": exact(verification.inner_level), "c2": exact(verification.level)},
        "local": {"P": exact(local.P), "level": exact(local.level), "core": exact(local.core)},
    }
    document["digests"] = digests(document, boxes)
    return Certificate(document, boxes)


def _header(kind: str, name: str, statement: str, domain: Ball | Box, x: np.ndarray) -> dict:
    """What the documents of both formats begin with."""
    is_ball = isinstance(domain, Ball)
    numbers = [domain.radius, *domain.centre] if is_ball else [*domain.lo, *domain.hi]
    return {
        "format": kind,
        "name": name,
        "statement": statement,
        "domain": {"kind": "ball" if is_ball else "box", "numbers": exact(numbers)},
        "equilibrium": exact(x),
        "versions": {p: importlib.metadata.version(p) for p in ("jax", "jaxlib", "numpy")},
    }


def region_certificate(region: Region, *, name: str = "") -> Certificate:
    """The certificate of a proof by `verify_region`, to be saved and replayed.

        V(x(0)) <= c   implies   x(t) → x*,        V(x) = (x - x*)'P (x - x*) + ‖φ(x)‖²

    Args:
      region: what `verify_region` or `verify_candidate` returned.
      name: of the system, for readers.

    Returns:
      `Certificate`, with the boxes in the coordinates that were cut and their multipliers.

    Raises:
      ValueError: a region that is not PROVED, or was proved by sectors (`Region.by_sectors`: the
        dynamics vary with more than two coordinates, as links do), which no replay reads yet.

    Reference:
      See `lyapjax.certificates.regions` for what is checked.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> region = ly.verify_region(lambda x: -x + x**3, jnp.eye(2), ly.Ball(2.0, (0.0, 0.0)))
      >>> ly.replay(ly.region_certificate(region)).verdict.value
      'PROVED'
    """
    if not region.proved:
        raise ValueError(f"region: expected PROVED, got {region.verdict.value}: {region.reason}")
    if region.by_sectors:
        raise ValueError("region: proved by sectors, for which there is no certificate file yet")
    f, features = region.functions
    cut = region.multipliers.shape[1] - 1
    boxes = {"region": (region.lo[:, :cut], region.hi[:, :cut], region.multipliers)}
    document = {
        **_header(REGION, name, region.statement, region.domain, region.equilibrium),
        "f": write_program(f),
        "features": None if features is None else write_program(features),
        "P": exact(region.P),
        "R": exact(region.R),
        "level": exact(region.level),
    }
    document["digests"] = digests(document, boxes)
    return Certificate(document, boxes)


def _growth(f: Callable, x: np.ndarray, local) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that prove Ẇ < 0 where core <= W <= level."""
    if local.level <= local.core:
        return np.zeros((0, len(x))), np.zeros((0, len(x)))
    half = reach(local.P, local.level)
    lo, hi = np.nextafter(x - half, -np.inf), np.nextafter(x + half, np.inf)
    proof = ring_prover(f, x)(local.P, local.core, local.level, lo, hi)
    if not proof.proved:
        raise ValueError(f"verification: its local part was not proved again: {proof.reason}")
    return proof.lo, proof.hi
