"""Batches of boxes on all cores, and all CPU devices, of a machine.

What is compiled takes a batch of boxes along the last axis of its arrays. A large batch is computed
block by block (`blockwise`), so that what is between its input and its results stays in a core's
cache: with larger blocks two cores wait for the memory that they share. How many blocks there are
is an argument, and nothing is computed for empty places.

A long list of boxes is dealt out in equal shares to as many threads as there are cores: XLA does
not hold Python's lock while it computes. Few calls are made, as starting one and waiting for it
takes as long as fifty boxes, part of it under the lock.

Where JAX has several CPU devices (`jax_num_cpu_devices`), a large batch lies on all of them, by a
mesh of one axis and `jax.shard_map`: one program is compiled, and each device computes the bounds
of as many boxes, by the same code. The mesh is of CPU devices, whatever the default is, because the
margins of rounding are those of XLA's CPU backend; and one of this process's own: several processes
share a proof by its boxes, not by its arrays (see `lyapjax.proofs.processes`).
"""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
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


def blockwise(fn: Callable, block: int, num_blocks: int) -> Callable:
    """fn(numbers, lo, hi) for a block of boxes (n, block) as one of up to `num_blocks` of them.

    It takes how many there are, (1,), beside the boxes (n, num_blocks block).
    """

    def blocks(numbers, count, lo, hi):
        def bound(start):
            parts = (jax.lax.dynamic_slice_in_dim(v, start, block, axis=1) for v in (lo, hi))
            return fn(numbers, *parts)

        def step(k, found):
            def put(whole, v):
                return jax.lax.dynamic_update_slice_in_dim(whole, v, k * block, axis=v.ndim - 1)

            return jax.tree.map(put, found, bound(k * block))

        def blank(v):
            return jnp.zeros((*v.shape[:-1], num_blocks * block), v.dtype)

        return jax.lax.fori_loop(0, count[0], step, jax.tree.map(blank, jax.eval_shape(bound, 0)))

    return blocks


def pad(lo, hi, size: int, parts: int = 1, each: int | None = None) -> list[np.ndarray]:
    """Boxes (N, n) as columns (n, parts size), the last one repeated.

    In each part the first `each` columns are filled; the others hold anything.
    """
    each = size if each is None else each
    found = [np.empty((lo.shape[1], parts * size)) for _ in range(2)]
    for k in range(parts):
        for columns, v in zip(found, (lo, hi)):
            part = v[k * each : (k + 1) * each] if k * each < len(v) else v[-1:]
            columns[:, k * size : k * size + len(part)] = part.T
            columns[:, k * size + len(part) : k * size + each] = part[-1][:, None]
    return found


def unpad(values, count: int, size: int, parts: int = 1, each: int | None = None) -> np.ndarray:
    """What was computed of `count` boxes, along the last axis; the opposite of `pad`."""
    values = np.asarray(values)
    if parts == 1:
        return values[..., :count]
    starts = range(0, parts * size, size)
    return np.concatenate([values[..., k : k + each] for k in starts], axis=-1)[..., :count]


def shares(count: int, block: int, most: int, devices: int = 1) -> list[tuple[int, int]]:
    """Parts of `count` boxes, first and last but one, as equal as whole blocks allow.

    Of at most `most` boxes each, and as many parts as there are cores for each of the devices, or
    a multiple of it.
    """
    workers, block = max(1, _CORES // devices), block * devices
    num = -(-count // (most * workers)) * workers
    each = -(-count // (num * block)) * block
    return [(start, min(start + each, count)) for start in range(0, count, each)]


def side_by_side(fn: Callable, parts: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The arrays fn(start, stop) of all parts, each kind along its last axis, in threads."""
    if len(parts) == 1:
        return list(fn(*parts[0]))
    made, lock = [], threading.Lock()

    def put(start: int, stop: int) -> None:
        found = fn(start, stop)
        with lock:
            if not made:
                shapes = [(*v.shape[:-1], parts[-1][1]) for v in found]
                made.extend(np.empty(shape, v.dtype) for shape, v in zip(shapes, found))
        for whole, part in zip(made, found):
            whole[..., start:stop] = part

    waiting = [_THREADS.submit(put, *part) for part in parts]
    for done in waiting:
        done.result()
    return made
