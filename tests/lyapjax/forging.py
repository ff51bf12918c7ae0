"""Certificates of regions as a forger would have them: altered, with digests that fit."""

import contextlib
import copy

import numpy as np

import lyapjax as ly
from lyapjax.certificates.certificate import digests, exact, inexact
from lyapjax.certificates.checking import Failed
from lyapjax.certificates.regions import RegionClaim


def forged(proof, change) -> ly.Replay:
    """A replay after a change whose author has also corrected the digests and the words."""
    document = copy.deepcopy(proof.document)
    boxes = {key: tuple(v.copy() for v in arrays) for key, arrays in proof.boxes.items()}
    boxes = change(document, boxes) or boxes
    if document["statement"] == proof.document["statement"]:
        with contextlib.suppress(Failed):
            document["statement"] = RegionClaim(document).statement
    document["digests"] = digests(document, boxes)
    return ly.replay(ly.Certificate(document, boxes))


def assert_refused(proof, changes) -> None:
    """Each of at least a hundred changes of the boxes is refused, for the reason that it says."""
    count = 0
    for starts, arrays in changes:
        found = forged(proof, lambda document, boxes, arrays=arrays: {"region": arrays})
        assert found.verdict is ly.Verdict.UNKNOWN
        assert found.reason.startswith(starts), found.reason
        count += 1
    assert count >= 100


def put(key, value):
    """A change of an entry of the document."""
    return lambda document, boxes: document.__setitem__(key, value)


def altered(key, change):
    """A change of an entry's numbers."""

    def forge(document, boxes):
        document[key] = exact(change(inexact(document[key])))

    return forge


def box_changes(proof):
    """Every box removed, every inner side moved, all its multipliers spoiled; and what is said."""
    lo, hi, t = proof.boxes["region"]
    top = float(RegionClaim(proof.document).rho.sqrt())
    for i in range(len(lo)):
        rest = np.arange(len(lo)) != i
        yield "cover", (lo[rest], hi[rest], t[rest])
        for j in range(lo.shape[1]):
            for side, arrays in ((0, (lo, hi)), (1, (hi, lo))):
                moved = arrays[0].copy()
                if abs(moved[i, j]) > top * (1 - 1e-9):
                    continue
                moved[i, j] = np.nextafter(moved[i, j], 9.0 if side == 0 else -9.0)
                yield "cover", ((moved, hi, t) if side == 0 else (lo, moved, t))
        if t[i].any():
            for spoil in (0.0, -1.0, 1e6):
                changed = t.copy()
                changed[i] *= spoil
                yield "falling", (lo, hi, changed)
