"""`certificate` and `region_certificate`: proofs become files (see `certificate`)."""

import importlib.metadata
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flint import ctx

from lyapjax.certificates.certificate import (
    FORMAT,
    REGION,
    SECTORS,
    Certificate,
    digests,
    exact,
    write_program,
)
from lyapjax.certificates.regions import RegionClaim
from lyapjax.certificates.sectors import witness
from lyapjax.proofs.attraction import Region
from lyapjax.proofs.local import reach, ring_prover
from lyapjax.proofs.obligations import Verification
from lyapjax.proofs.proving import Verdict
from lyapjax.readers.ball import BITS
from lyapjax.readers.program import trace
from lyapjax.systems.domains import Ball, Box


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
      `Certificate`, with the boxes in the coordinates that were cut and their multipliers; of a
      proof by sectors with multipliers of the replay's own reading of them, found here.

    Raises:
      ValueError: a region that is not PROVED; one by sectors whose inequality has, as the replay
        reads it, no multipliers on some box.

    Reference:
      See `lyapjax.certificates.regions` for what is checked, and `lyapjax.certificates.sectors`
      for what is, in place of its last obligation, of a proof by sectors.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> region = ly.verify_region(lambda x: -x + x**3, jnp.eye(2), ly.Ball(2.0, (0.0, 0.0)))
      >>> ly.replay(ly.region_certificate(region)).verdict.value
      'PROVED'
    """
    if not region.proved:
        raise ValueError(f"region: expected PROVED, got {region.verdict.value}: {region.reason}")
    f, features = region.functions
    kind = SECTORS if region.by_sectors else REGION
    document = {
        **_header(kind, name, region.statement, region.domain, region.equilibrium),
        "f": write_program(f),
        "features": None if features is None else write_program(features),
        "P": exact(region.P),
        "R": exact(region.R),
        "level": exact(region.level),
    }
    if region.by_sectors:
        with ctx.workprec(BITS):
            boxes = {"region": witness(RegionClaim(document), region.lo, region.hi)}
    else:
        cut = region.multipliers.shape[1] - 1
        boxes = {"region": (region.lo[:, :cut], region.hi[:, :cut], region.multipliers)}
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
