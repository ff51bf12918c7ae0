"""Batches whose order is a function of a key, and a thread that prepares them ahead of time.

Data for training is a function `(key, start) -> batches`: the batches of one epoch from number
`start` on. The key alone decides the order, so that a run which resumes in the middle of an epoch
sees what the uninterrupted one would have seen, and skips nothing by reading it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from phydi.checking import check_positive_integer

_END = object()


def _check_arrays(arrays) -> int:
    """The common number of examples of all arrays."""
    sizes = {
        jax.tree_util.keystr(path): np.shape(leaf)[:1]
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)
    }
    if not sizes or len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            f"arrays: expected arrays with a common leading axis of examples, got sizes {sizes}"
        )
    return next(iter(sizes.values()))[0]


def shuffled_batches(arrays, batch_size: int) -> Callable:
    """Data for training: batches of a new order in each epoch.

        examples perm[b i] … perm[b i + b - 1] in batch i, perm a permutation drawn from the key

    What is left over at the end of an epoch is left out: other examples every time.

    Args:
      arrays: a dictionary (or other tree) of NumPy arrays with a common leading axis.
      batch_size: b.

    Returns:
      `(key, start) -> iterator` over the batches of one epoch from number `start` on; its
      attribute `num_batches` is how many an epoch has.

    Raises:
      ValueError: arrays of different lengths, or fewer examples than a batch has.

    Reference:
      Section 4.2: 64 images a batch.

    Examples:
      >>> import jax, numpy as np, phydi
      >>> data = phydi.shuffled_batches({"image": np.arange(10)}, 4)
      >>> epoch = [batch["image"] for batch in data(jax.random.key(0), 0)]
      >>> data.num_batches, len(epoch), len({*epoch[0], *epoch[1]})
      (2, 2, 8)
    """
    num_examples = _check_arrays(arrays)
    batch_size = check_positive_integer("batch_size", batch_size)
    if batch_size > num_examples:
        raise ValueError(
            f"batch_size: expected at most the number of examples, {num_examples}, got {batch_size}"
        )
    num_batches = num_examples // batch_size

    def batches(key, start: int = 0) -> Iterator:
        words = np.asarray(jax.random.key_data(key)).ravel().tolist()
        order = np.random.default_rng(words).permutation(num_examples)
        for i in range(start, num_batches):
            rows = order[i * batch_size : (i + 1) * batch_size]
            yield jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], arrays)

    batches.num_batches = num_batches
    return batches


def ordered_batches(arrays, batch_size: int) -> Callable:
    """Data for evaluation: all examples once, in their order, the last batch maybe smaller.

        examples b i … b i + b - 1 in batch i

    Args:
      arrays: a dictionary (or other tree) of NumPy arrays with a common leading axis.
      batch_size: b.

    Returns:
      `() -> iterator` over the batches.

    Raises:
      ValueError: arrays of different lengths.

    Reference:
      None: the released code scores one test image in five; this is for all of them.

    Examples:
      >>> import numpy as np, phydi
      >>> data = phydi.ordered_batches({"image": np.arange(5)}, 3)
      >>> [batch["image"].tolist() for batch in data()]
      [[0, 1, 2], [3, 4]]
    """
    num_examples = _check_arrays(arrays)
    batch_size = check_positive_integer("batch_size", batch_size)

    def batches() -> Iterator:
        for start in range(0, num_examples, batch_size):
            rows = slice(start, start + batch_size)
            yield jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], arrays)

    return batches


def prefetch(batches: Iterable, place_fn: Callable, num_ahead: int = 2) -> Iterator:
    """Batches prepared by a thread, off the critical path.

        at most `num_ahead` batches wait, placed on their devices

    An error in the thread is raised here, after the batches before it. The thread ends with this
    generator, also if that is closed early or the caller fails.

    Args:
      batches: what to prepare; read by the thread.
      place_fn: applied to each batch by the thread, such as `jax.device_put`.
      num_ahead: how many batches may wait.

    Returns:
      A generator over the placed batches, in their order.

    Raises:
      ValueError: num_ahead is no positive integer.

    Reference:
      None.

    Examples:
      >>> import phydi
      >>> list(phydi.prefetch(range(4), float))
      [0.0, 1.0, 2.0, 3.0]
    """
    num_ahead = check_positive_integer("num_ahead", num_ahead)
    return _prefetch(batches, place_fn, num_ahead)


def _prefetch(batches: Iterable, place_fn: Callable, num_ahead: int) -> Iterator:
    ready: queue.Queue = queue.Queue(num_ahead)
    closed = threading.Event()

    def offer(item) -> None:
        # Waits with an eye on `closed`: nobody takes from the queue after that.
        while not closed.is_set():
            try:
                return ready.put(item, timeout=0.05)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                if closed.is_set():
                    return
                offer((place_fn(batch), None))
            offer((_END, None))
        except BaseException as error:  # raised again by the reader
            offer((_END, error))

    thread = threading.Thread(target=work, name="phydi-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        closed.set()
        thread.join()
