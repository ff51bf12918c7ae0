"""Batches side by side and on several devices: the same bounds, boxes and verdicts."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.proofs.statements import Bounding, statement_of
from lyapjax.readers.compiled import SMALL_BATCH
from lyapjax.readers.spreading import pad, shares, side_by_side, unpad
from tests.lyapjax.spread_proofs import margin, oscillator, outcomes, regions, wrong

ROOT = Path(__file__).parents[2]


def in_a_process(*arguments: str) -> subprocess.Popen:
    """A Python process of this checkout."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed_by(process: subprocess.Popen) -> dict:
    """What a process has found, when it has ended."""
    try:
        printed, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize(("block", "most", "devices"), [(30, 30, 1), (32, 1024, 1), (16, 96, 3)])
def test_every_box_is_in_one_share_that_fits_and_shares_are_equal(block, most, devices):
    for count in (1, 29, 30, 31, 300, 2047, 2048, 5000):
        parts = shares(count, block, most, devices)
        covered = [i for start, stop in parts for i in range(start, stop)]
        assert covered == list(range(count))
        sizes = [stop - start for start, stop in parts]
        assert max(sizes) <= most
        assert all(size == sizes[0] for size in sizes[:-1])
        assert len(parts) == 1 or sizes[0] % (block * devices) == 0


@pytest.mark.parametrize(("parts", "each", "count"), [(1, 8, 5), (1, 8, 8), (3, 6, 13), (3, 6, 4)])
def test_padded_boxes_come_back_in_order(parts, each, count):
    lo = np.random.default_rng(0).normal(size=(count, 2))
    columns, _ = pad(lo, lo, 8, parts, each)
    assert columns.shape == (2, 8 * parts)
    filled = columns.reshape(2, parts, 8)[:, :, :each].reshape(2, -1)
    np.testing.assert_array_equal(filled[:, count:], np.tile(lo[-1:].T, parts * each - count))
    np.testing.assert_array_equal(unpad(columns, count, 8, parts, each), lo.T)


def test_calls_run_side_by_side_and_are_put_together_in_order():
    meet = threading.Barrier(2, timeout=60)

    def call(start, stop):
        meet.wait()  # would never pass, if one call were made after the other
        k = stop - start
        return [np.full(k, k), np.full((2, k), -k)]

    first, second = side_by_side(call, [(0, 1), (1, 4)])
    np.testing.assert_array_equal(first, [1, 3, 3, 3])
    np.testing.assert_array_equal(second, -np.array([first, first]))
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda start, stop: [np.full(1, 1 / start)], [(0, 1), (1, 2)])


def test_bounds_do_not_depend_on_the_batches_they_are_computed_in():
    statement = statement_of(lambda x: jnp.tanh(3 * x[0] * x[1]) - jnp.sin(x[0]) ** 2, None, 2)
    rng = np.random.default_rng(0)
    lo = rng.uniform(-2, 2, (5000, 2))
    hi = lo + 10.0 ** rng.uniform(-6, 0, (5000, 1))
    whole = Bounding(statement, lo, hi, np.zeros(2))
    small = whole(lo, hi)
    whole.large.wait()
    large = whole(lo, hi)
    again = Bounding(statement, lo, hi, np.zeros(2))
    ones = [again(lo[k : k + 1], hi[k : k + 1]) for k in range(0, 5000, 500)]
    for name in ("finished", "axes", "centre"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
        found = np.concatenate([getattr(one, name) for one in ones], axis=-1)
        np.testing.assert_array_equal(getattr(small, name)[..., ::500], found)
    np.testing.assert_allclose(small.upper, large.upper, rtol=0, atol=1e-13)
    assert whole.small.batch == SMALL_BATCH < whole.large.batch


def test_proofs_are_the_same_on_several_devices():
    process = in_a_process("tests.lyapjax.spread_proofs", "devices", "3")
    here = outcomes()
    there = printed_by(process)
    assert there.pop("devices") == 3
    # The small batch on one device and the large one on all, for both statements.
    assert there.pop("compiled") == 2
    assert there == here
    assert here["true"][0] == ly.Verdict.PROVED.value
    assert here["false"][0] == ly.Verdict.REFUTED.value
    assert here["true"][1] > 5000


def test_two_processes_share_a_proof_and_agree(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    path = tmp_path / "proof.json"
    arguments = ("tests.lyapjax.spread_proofs", "processes", port)
    processes = [in_a_process(*arguments, str(number), str(path)) for number in range(2)]
    first, second = (printed_by(process) for process in processes)
    assert first == second
    lo, hi = np.full(2, -2.0), np.full(2, 2.0)
    alone = ly.prove(margin, lo, hi, max_seconds=300.0)
    assert first["true"][0] == alone.verdict.value == "PROVED"
    assert first["true"][1] == pytest.approx(alone.num_boxes, rel=0.1)
    # The counterexample lies in the share of one of the two.
    assert first["false"][0] == "REFUTED"
    assert float(wrong(jnp.asarray(first["false"][3]))) >= 0
    assert first["budget"][0] == "UNKNOWN"
    assert 3000 <= first["budget"][1] < 3000 + 2 * SMALL_BATCH
    assert "% of the volume is proved" in first["budget"][2]
    assert first["different"].startswith("prove: expected the same statement in all processes")
    assert first["checkpoint"].startswith("checkpoint: expected None")
    alone = regions()
    assert first["regions"] == alone
    assert (alone["sectors"][0], alone["largest"][0], alone["refuted"]) == (
        "PROVED",
        "PROVED",
        "REFUTED",
    )
    assert alone["sectors"][3] > 1
    assert first["late"][0] == "UNKNOWN"
    assert first["other level"].startswith("prove: expected the same statement in all processes")
    assert first["file of a region"].startswith("checkpoint: expected None")
    assert first["verify"][0] == "PROVED"
    V, f, domain = oscillator()
    assert first["verify"][1] == ly.verify(V, f, domain).level
    replay = ly.replay(path)
    assert replay.verdict is ly.Verdict.PROVED, replay.reason
