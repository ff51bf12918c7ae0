"""Batches prepared by a thread: their order, their bound, and how the thread ends."""

import threading
import time

import jax
import numpy as np
import pytest

import phydi

pytestmark = pytest.mark.float32


def threads():
    return [t for t in threading.enumerate() if t.name == "phydi-prefetch"]


def test_order_and_bound():
    started = []

    def numbers():
        for i in range(20):
            started.append(i)
            yield i

    batches = phydi.prefetch(numbers(), lambda x: 2 * x, 3)
    assert next(batches) == 0
    time.sleep(0.3)
    # One was taken, three wait, and the thread holds one more.
    assert len(started) <= 5
    assert list(batches) == list(range(2, 40, 2))
    assert not threads()


def test_the_thread_ends_if_the_reader_stops_or_fails():
    batches = phydi.prefetch(iter(range(1000)), float)
    next(batches)
    assert threads()
    batches.close()
    assert not threads()


def test_an_error_of_the_thread_is_raised_after_what_came_before_it():
    def numbers():
        yield 1
        raise OSError("the disk is gone")

    batches = phydi.prefetch(numbers(), float)
    assert next(batches) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        list(phydi.prefetch([0], lambda x: 1 / x))


def test_bad_input_is_named():
    arrays = {"image": np.zeros(3), "label": np.zeros(4)}
    for call, match in (
        (lambda: phydi.shuffled_batches(arrays, 2), "arrays: expected arrays with a common"),
        (lambda: phydi.ordered_batches({}, 2), "arrays: expected arrays with a common"),
        (lambda: phydi.ordered_batches(np.float32(1), 2), "arrays: expected arrays with a"),
        (lambda: phydi.shuffled_batches(np.zeros(3), 4), "batch_size: expected at most the number"),
        (lambda: phydi.shuffled_batches(np.zeros(3), 0), "batch_size: expected an integer"),
        (lambda: phydi.prefetch([], float, 0), "num_ahead: expected an integer"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_every_example_is_drawn_about_as_often():
    data, counts = phydi.shuffled_batches(np.arange(10), 4), np.zeros(10)
    for epoch in range(200):
        for batch in data(jax.random.fold_in(jax.random.key(0), epoch), 0):
            counts[batch] += 1
    assert counts.sum() == 1600
    # 160 ± 5.7 each; five standard deviations.
    assert np.abs(counts - 160).max() < 29
