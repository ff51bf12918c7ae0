"""Batches of boxes on all cores, and all CPU devices, of a machine.

What is compiled takes a batch of boxes along the last axis of its arrays. A long list of boxes is
divided into batches that wait for the next free thread: XLA does not hold Python's lock while it
computes, but what one thread starts, it computes one after another.

Where JAX has several CPU devices (`jax_num_cpu_devices`), a large batch lies on all of them, by a
mesh of one axis and `jax.shard_map`: one program is compiled, and each device computes the bounds
of as many boxes as one device would alone, by the same code. The mesh is of CPU devices, whatever
the default is, because the margins of rounding are those of XLA's CPU backend; and one of this
process's own: several processes share a proof by its boxes, not by its arrays (see
`lyapjax.proofs.processes`).
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BOXES = "boxes"
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_THREADS = concurrent.futures.ThreadPoolExecutor(max(2, _CORES), thread_name_prefix="boxes")


def on_cpu():
    """The margins of rounding are those of XLA's CPU backend, whatever the default device is."""
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def num_devices() -> int:
    """How many CPU devices this process has."""
    return len(jax.local_devices(backend="cpu"))


@functools.lru_cache(maxsize=1)
def mesh() -> Mesh:
    """All CPU devices of this process."""
    return Mesh(np.array(jax.local_devices(backend="cpu")), (BOXES,))


def replicated(values):
    """Arrays that every device of the mesh has."""
    return jax.device_put(values, NamedSharding(mesh(), PartitionSpec()))


def over_devices(fn: Callable, numbers, boxes) -> Callable:
    """fn(numbers, *boxes), jitted, the last axis of the boxes and of the results divided.

    `numbers` and `boxes` are shapes, of what one device gets.
    """

    def last_axis(value):
        return PartitionSpec(*[None] * (len(value.shape) - 1), BOXES)

    parts = (PartitionSpec(), *map(last_axis, boxes))
    results = jax.tree.map(last_axis, jax.eval_shape(fn, numbers, *boxes))
    # Nothing is exchanged between devices, so there is nothing to be checked about it.
    spread = jax.shard_map(fn, mesh=mesh(), in_specs=parts, out_specs=results, check_vma=False)
    return jax.jit(spread, in_shardings=tuple(NamedSharding(mesh(), part) for part in parts))


def pad(lo, hi, size: int) -> list[np.ndarray]:
    """Boxes (N, n) as columns (n, size), the last one repeated."""
    found = [np.empty((lo.shape[1], size)) for _ in range(2)]
    for columns, v in zip(found, (lo, hi)):
        columns[:, : len(v)] = v.T
        columns[:, len(v) :] = v[-1][:, None]
    return found


def divided(count: int, small: int, large: int | None = None) -> list[tuple[int, int, bool]]:
    """Batches of `count` boxes: first, last but one, and whether the large size is worth it."""
    parts, start = [], 0
    while start < count:
        is_large = large is not None and 2 * (count - start) >= large
        stop = min(start + (large if is_large else small), count)
        parts.append((start, stop, is_large))
        start = stop
    return parts


def side_by_side(calls: Sequence[Callable]) -> list[np.ndarray]:
    """The arrays that the calls give, each kind put together along its last axis."""
    if len(calls) == 1:
        return list(calls[0]())
    waiting = [_THREADS.submit(call) for call in calls]
    columns = zip(*(done.result() for done in waiting))
    return [np.concatenate(column, axis=-1) for column in columns]
