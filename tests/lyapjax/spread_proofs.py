"""Proofs whose outcome is printed, to be run in processes of their own (see `test_spreading`).

python -m tests.lyapjax.spread_proofs devices 3
python -m tests.lyapjax.spread_proofs processes PORT NUMBER FILE
"""

import hashlib
import json
import sys

import jax
import numpy as np

import lyapjax as ly
from lyapjax.proofs.statements import statement_of
from lyapjax.readers.compiled import executable

LO, HI = np.full(2, -2.0), np.full(2, 2.0)


def margin(x, height=-0.1):
    """-(x_1 - x_2)² - 1e-4, multiplied out, thousands of boxes along the diagonal; and a bump."""
    bump = jax.numpy.exp(-1e4 * ((x[0] - 0.7) ** 2 + (x[1] - 0.8) ** 2))
    return 2 * x[0] * x[1] - x[0] ** 2 - x[1] ** 2 - 1e-4 + height * bump


def wrong(x):
    """The same, but positive near a place that is found late."""
    return margin(x, 0.1)


def outcome(proof: ly.Proof) -> list:
    """Verdict, count, boxes whatever their order, and counterexample."""
    rows = np.concatenate([proof.lo, proof.hi], axis=1)
    boxes = hashlib.sha256(rows[np.lexsort(rows.T)].tobytes()).hexdigest()
    point = None if proof.point is None else proof.point.tolist()
    return [proof.verdict.value, proof.num_boxes, boxes, point]


def outcomes() -> dict:
    """What is proved and refuted, and by which boxes."""
    found = {}
    for name, fn in (("true", margin), ("false", wrong)):
        # The large batches are used from the first round with boxes enough.
        statement_of(fn, None, 2).prepared(LO[None], HI[None], large=True).wait()
        found[name] = outcome(ly.prove(fn, LO, HI, max_seconds=300.0))
    return found


def oscillator():
    """V, f and a domain of a system that `verify` proves."""
    P = jax.numpy.array([[1.5, -0.5], [-0.5, 1.0]])

    def f(x):
        return jax.numpy.stack([-x[1], x[0] - (1 - x[0] ** 2) * x[1]])

    return lambda x: x @ P @ x, f, ly.Ball(2.0, (0.0, 0.0))


def regulated(system):
    """f and P under LQR, and the domain."""
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    return f, regulator.P, system.domain


def region(proof: ly.Region) -> list:
    """Verdict, reason, level, count, and boxes whatever their order."""
    boxes = np.concatenate([proof.lo, proof.hi, proof.multipliers], axis=1)
    rows = boxes[np.lexsort(boxes.T)]
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    return [proof.verdict.value, proof.reason, str(proof.level), proof.num_boxes, digest]


def regions() -> dict:
    """What `verify_region` says by sectors, and by secants; of a level that is too large too."""
    links, fan = regulated(ly.systems.n_link(2)), regulated(ly.systems.ducted_fan())
    return {
        "sectors": region(ly.verify_region(*links, level=0.52)),
        "largest": region(ly.verify_region(*fan, max_seconds=600.0)),
        "refuted": ly.verify_region(*fan, level=1.2).verdict.value,
    }


def shared(number: int, path: str) -> dict:
    """The same by one of several processes, of which the first writes a certificate."""
    found = outcomes()
    proof = ly.prove(margin, LO, HI, max_boxes=3000)
    found["budget"] = [proof.verdict.value, proof.num_boxes, proof.reason]
    V, f, domain = oscillator()
    links = regulated(ly.systems.n_link(2))
    proof = ly.verify(V, f, domain)
    found["verify"] = [proof.verdict.value, proof.level, outcome(proof.proofs["shell"])]
    found["regions"] = regions()
    # One of the two has no time, so that both give up.
    late = ly.verify_region(*links, level=0.52, max_seconds=300.0 if number else 0.0)
    found["late"] = [late.verdict.value, late.num_boxes]
    certificate = ly.certificate(V, f, domain, proof)  # proves a part again: by all processes
    if number == 0:
        certificate.save(path)
    for name, call in {
        "different": lambda: ly.prove(lambda x: margin(x, -0.1 - 0.1 * number), LO, HI),
        "checkpoint": lambda: ly.prove(margin, LO, HI, checkpoint=path),
        "other level": lambda: ly.verify_region(*links, level=0.1 + 0.1 * number),
        "file of a region": lambda: ly.verify_region(*links, level=0.1, checkpoint=path),
    }.items():
        try:
            call()
        except ValueError as error:
            found[name] = str(error)
    return found


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    if kind == "devices":
        jax.config.update("jax_num_cpu_devices", int(arguments[0]))
        found = {**outcomes(), "devices": len(jax.devices())}
        found["compiled"] = executable.cache_info().misses
    else:
        port, number, path = arguments
        jax.distributed.initialize(f"localhost:{port}", 2, int(number))
        found = shared(int(number), path)
    print(json.dumps(found))
