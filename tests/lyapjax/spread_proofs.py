"""Proofs whose outcome is printed, to be run with several devices (see `test_spreading`)."""

import hashlib
import json
import sys

import jax
import numpy as np

LO, HI = np.full(2, -2.0), np.full(2, 2.0)


def margin(x):
    """-(x_1 - x_2)² - 1e-4, multiplied out: thousands of boxes along the diagonal."""
    return 2 * x[0] * x[1] - x[0] ** 2 - x[1] ** 2 - 1e-4


def wrong(x):
    """The same, but positive near a place that is found late."""
    return margin(x) + 0.1 * jax.numpy.exp(-1e4 * ((x[0] - 0.7) ** 2 + (x[1] - 0.8) ** 2))


def digest(lo, hi) -> str:
    """Of boxes, whatever their order."""
    rows = np.concatenate([lo, hi], axis=1)
    return hashlib.sha256(rows[np.lexsort(rows.T)].tobytes()).hexdigest()


def outcomes() -> dict:
    """What is proved and refuted, and by which boxes."""
    import lyapjax as ly
    from lyapjax.proofs.statements import statement_of

    found = {}
    for name, fn in (("true", margin), ("false", wrong)):
        # The large batches are used from the first round with boxes enough.
        statement_of(fn, None, 2).prepared(LO[None], HI[None], large=True).wait()
        proof = ly.prove(fn, LO, HI, max_seconds=300.0)
        point = None if proof.point is None else proof.point.tolist()
        found[name] = [proof.verdict.value, proof.num_boxes, digest(proof.lo, proof.hi), point]
    return found


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    found = outcomes()
    from lyapjax.readers.compiled import executable

    found["devices"] = len(jax.devices())
    found["compiled"] = executable.cache_info().misses
    print(json.dumps(found))
