"""Bounds of programs as compiled code, for batches of boxes of a few fixed sizes.

Programs with the same steps share their code whatever their numbers are. What is compiled gives
linear bounds (`planes`) and what they say (`judged`). Where numbers are so large that something may
overflow, or the function may jump, it gives guarded intervals, in two executables (see
`bounds.first_stage`): plain bounds and slopes, then the mean value form about the best centre.
Between bounds and the caller stand *forms*, numbers that say which output of the program is meant,
with which sign, and what is added:

    form_r(x) = s_r q_{i_r}(x) + b_r,        s_r in {1, -1, 0}

so that V̇ < 0, V < c and c' < V on various regions are read by one executable of V, V̇ and the rest.

Executables are made in threads: XLA does not hold Python's lock while it compiles, and what else is
to be done meanwhile (compiling the learner, for one) goes on. The emitter of fused loops that XLA
uses by default on the CPU is switched off: without it these programs compile in 0.6 times the time
and run in half, with wide vectors in 0.8 times of that (measured with jaxlib 0.10.2). So is the
division of single loops among threads, since whole batches are computed side by side. The margins
of rounding do not rest on any of this, and the tests read the executables' results against ball
arithmetic as they are made here.
"""

import concurrent.futures
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.bounds import best_centre, first_stage, second_stage
from lyapjax.readers.linear import EPS
from lyapjax.readers.planes import planes
from lyapjax.readers.program import JUMPS, Program
from lyapjax.readers.spreading import (
    blockwise,
    num_devices,
    on_cpu,
    over_devices,
    pad,
    replicated,
    unpad,
)

OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_multi_thread_eigen": False,
    "xla_cpu_prefer_vector_width": 512,
}
# Relative: how small a box is a point, and a number rounding error; nothing rests on it.
SMALL = 1e-10
LEAST = 0.05  # weight of a form that no cut can decide
SMALL_BATCH = 512
LARGE_BATCH = 8192  # of a device
# Of one core, in bytes; of arrays of the widest step, with its slopes, about six are alive at once.
CACHE = 2**20
NUM_ALIVE = 6
# jaxlib 0.10.2 computes some products wrongly from row 16,384 on (jax-ml/jax issue 39103), and
# slopes have a row a coordinate.
MOST_ROWS = 8192
_THREADS = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="lyapjax")


class Forms(NamedTuple):
    """Which outputs of a program are meant: s q_i + b, a row each. The first is the margin."""

    sign: np.ndarray
    index: np.ndarray
    offset: np.ndarray


def make_forms(rows, length: int | None = None) -> Forms:
    """Forms of (sign, index, offset); filled up with -1 <= 0, which always holds."""
    rows = [*rows, *[(0.0, 0, -1.0)] * (0 if length is None else length - len(rows))]
    sign, index, offset = zip(*rows)
    return Forms(np.array(sign, float), np.array(index, np.int32), np.array(offset, float))


class Bounded(NamedTuple):
    """What is known of a batch of boxes.

    Attributes:
      upper: (batch,) upper bounds of the margin.
      finished: (batch,) whether the statement is proved on the box.
      value: (batch,) the margin at `centre`, roughly.
      lack: (batch,) by how much `centre` is no counterexample as far as can be told, not above 0
        up to rounding if it may be one; balls decide.
      centre: (n, batch) where the margin is greatest, as far as the bounds tell.
      axes: (2, batch) the coordinate along which to cut, and another that matters half as much;
        -1 if there is none.
    """

    upper: jax.Array
    finished: jax.Array
    value: jax.Array
    lack: jax.Array
    centre: jax.Array
    axes: jax.Array


def block_size(steps, n: int) -> int:
    """How many boxes of n coordinates are computed together: as many as a core's cache holds."""
    moving, width = [], 1
    for step in steps:
        moving.append(step.op == "input" or any(moving[k] for k in step.inputs))
        width = max(width, int(np.prod(step.shape)) if moving[-1] else 1)
    block = SMALL_BATCH
    while block > 32 and (block * n > MOST_ROWS or 8 * NUM_ALIVE * block * width * (n + 2) > CACHE):
        block //= 2
    return block


def _signed(ends, forms: Forms):
    """(k, 2, ...) ends of outputs as those of the forms, without what is added, (r, 2, ...)."""
    rows = ends[forms.index]
    sign = forms.sign.reshape(-1, *[1] * (ends.ndim - 2))
    lo = jnp.where(sign > 0, rows[:, 0], jnp.where(sign < 0, -rows[:, 1], 0.0))
    hi = jnp.where(sign > 0, rows[:, 1], jnp.where(sign < 0, -rows[:, 0], 0.0))
    return lo, hi


def _ends(ends, forms: Forms):
    """(k, 2, batch) ends of outputs as those of the forms: (r, batch) lower, upper."""
    lo, hi = _signed(ends, forms)
    offset = forms.offset[:, None]
    return ia.down(lo + offset), ia.up(hi + offset)


def _influence(lo, hi, slopes, forms: Forms):
    """How much the forms depend on each coordinate; each counts in its own units."""
    reach = (hi - lo) * jnp.maximum(jnp.abs(slopes[:, 0]), jnp.abs(slopes[:, 1]))
    reach = jnp.nan_to_num(reach, nan=ia.MAX, posinf=ia.MAX) + ia.TINY
    share = (reach / jnp.max(reach, axis=1, keepdims=True))[forms.index]
    weight = jnp.abs(forms.sign) * jnp.where(jnp.arange(len(forms.sign)) == 0, 1.0, 0.5)
    return jnp.sum(weight[:, None, None] * share, axis=0)


def _axes(lo, hi, scores, smallest):
    """The two best coordinates to cut, of those that a cut makes smaller."""
    middle = 0.5 * lo + 0.5 * hi
    can = (lo < middle) & (middle < hi) & (hi - lo > smallest[:, None])
    scores = jnp.where(can, jnp.where(scores > 0, scores, 0.0), -1.0)
    none = jnp.full(lo.shape[1:], -1, jnp.int32)
    first, second, best, next_ = none, none, none + 0.0, none + 0.0
    for k, score in enumerate(scores):
        better, good = score > best, score > next_
        second = jnp.where(better, first, jnp.where(good, k, second))
        next_ = jnp.where(better, best, jnp.where(good, score, next_))
        first, best = jnp.where(better, k, first), jnp.where(better, score, best)
    return jnp.stack([first, jnp.where(next_ > 0.5 * best, second, -1)])


def _packed(arrays) -> np.ndarray:
    """All numbers in one array, which is put on a device in one go."""
    return np.concatenate([np.ravel(np.asarray(v, np.float64)) for v in arrays])


def _unpacked(numbers, shapes, rows: int, n: int):
    """The constants of a program, the forms, and how small a box may be, from `_packed`."""
    shapes = [*shapes, (rows,), (rows,), (rows,), (n,)]
    places = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    parts = [numbers[i:j].reshape(s) for i, j, s in zip(places, places[1:], shapes)]
    *constants, sign, index, offset, smallest = parts
    return constants, Forms(sign, index.astype(jnp.int32), offset), smallest


def _stages(program: Program, size: float, unpack):
    """The two stages of these steps, as functions of numbers, boxes and forms."""

    def first(numbers, lo, hi):
        constants, forms, _ = unpack(numbers)
        ends, slopes, bad = first_stage(program, constants, ia.box(lo, hi, size))
        margin = Forms(*(v[:1] for v in forms))
        low, high = _signed(slopes, margin)
        return (ends, slopes, bad), best_centre(lo, hi, (low[0], high[0]))

    def second(numbers, lo, hi, found, centre):
        constants, forms, smallest = unpack(numbers)
        x = ia.box(lo, hi, size)
        bounds, middle, bad = second_stage(program, constants, x, found, centre)
        lower, upper = _ends(bounds, forms)
        finished = (upper[0] < 0) | jnp.any(lower[1:] > 0, axis=0)
        least, most = _ends(middle, forms)
        inside = jnp.all(least[1:] <= 0, axis=0)
        # How far the centre is from being no counterexample; balls decide.
        lack = jnp.where(inside & ~bad & (most[0] >= 0), 0.0, ia.INF)
        axes = _axes(lo, hi, _influence(lo, hi, found[1], forms), smallest)
        return Bounded(upper[0], finished, least[0], lack, centre, axes)

    return first, second


def _planes(program: Program, unpack):
    """Linear bounds of these steps and what they say, as a function like those of `_stages`."""

    def read(numbers, lo, hi):
        constants, forms, smallest = unpack(numbers)
        found = planes(program, constants, lo, hi)
        return judged(found, lo, hi, forms, smallest), found[:2]

    return read


def judged(found, lo, hi, forms: Forms, smallest) -> Bounded:
    """What planes say of the forms.

    Where the plane of the margin is highest, at a corner, a counterexample is looked for: if the
    planes tell more there than they may be wrong by.

    The claim of `linear` holds for any versions of c, a and r, so for these sums of them: two
    versions of the middle are at most 2 r apart, and EPS is 32 roundings.
    """
    n = len(lo)
    scores = 0.0
    for i in range(len(forms.sign)):
        sign, offset = forms.sign[i], forms.offset[i]
        c, a, r = (jax.lax.dynamic_index_in_dim(v, forms.index[i], keepdims=False) for v in found)
        reach, c = jnp.abs(a), sign * c + offset
        h = jnp.where(sign == 0, 0.0, (sum(reach[k] for k in range(n)) + r) * (1 + 2 * EPS))
        h = h + EPS * (jnp.abs(c) + jnp.abs(offset)) + ia.TINY
        if i == 0:
            away = jnp.sign(sign * a)
            upper, finished = c + h, c + h < 0
        else:
            finished = finished | (c - h > 0)
        there = c + sign * sum(a[k] * away[k] for k in range(n))
        if i == 0:
            value, lack = there, jnp.maximum(r, 0.0) - there
        else:
            lack = jnp.maximum(lack, there)
        # A form counts by how much of its reach is overcome already: where the margin is positive
        # in the middle of a box, only a region that the box lies outside of can finish it.
        overcome = jnp.clip((-c if i == 0 else c) / (h + ia.TINY), 0.0, 1.0)
        reach = reach + ia.TINY
        scores = scores + jnp.abs(sign) * (LEAST + overcome) * reach / jnp.max(reach, axis=0)
    centre = jnp.clip(0.5 * lo + 0.5 * hi + 0.5 * (hi - lo) * away, lo, hi)
    return Bounded(upper, finished, value, lack, centre, _axes(lo, hi, scores, smallest))


class Executable(NamedTuple):
    """The stages for one size of batch, as they come from their threads: planes, or the two.

    A call takes up to `num_blocks` blocks on each of `num_devices` devices.
    """

    stages: tuple[concurrent.futures.Future, ...]
    block: int
    num_blocks: int = 1
    num_devices: int = 1

    @property
    def batch(self) -> int:
        """How many boxes a call takes, at most."""
        return self.block * self.num_blocks * self.num_devices

    def wait(self) -> None:
        """Until all is compiled."""
        concurrent.futures.wait(self.stages)

    @property
    def is_ready(self) -> bool:
        """Whether all is compiled."""
        return all(stage.done() for stage in self.stages)

    def placed(self, program: Program, forms: Forms, smallest):
        """What the executable needs beside boxes."""
        numbers = _packed([*program.constants, *forms, smallest])
        return replicated(numbers) if self.num_devices > 1 else numbers

    def __call__(self, lo, hi, numbers) -> list[np.ndarray]:
        """`Bounded` of at most a batch of boxes (N, n)."""
        first, *second = (stage.result() for stage in self.stages)
        count = -(-len(lo) // (self.block * self.num_devices))
        layout = self.block * self.num_blocks, self.num_devices, self.block * count
        part = pad(lo, hi, *layout)
        with on_cpu():
            if second:
                found = second[0](numbers, *part, *first(numbers, *part))
            elif self.num_blocks == 1:
                found, _ = first(numbers, *part)
            else:
                counts = np.full(self.num_devices, count, np.int32)
                found = first(numbers, counts, *part)
            return [unpad(v, len(lo), *layout) for v in found]

    def gradients(self, x, numbers) -> tuple[np.ndarray, np.ndarray]:
        """Values (k, N) and gradients (k, n, N) of the outputs at points (n, N), not rounded."""
        first, num = self.stages[0].result(), x.shape[1]
        reach = SMALL * np.maximum(np.abs(x), 1.0)
        with on_cpu():
            if len(self.stages) == 1:
                part = pad((x - reach).T, (x + reach).T, self.batch)
                _, found = first(numbers, *part)
                c, a = (np.asarray(v)[..., :num] for v in found)
                return c, a / reach
            (ends, slopes, _), _ = first(numbers, *pad(x.T, x.T, self.batch))
        with np.errstate(invalid="ignore"):
            return tuple(np.asarray(v)[..., :num].mean(axis=1) for v in (ends, slopes))


@functools.lru_cache(maxsize=128)
def executable(
    steps, outputs, size: float, shapes, n: int, rows: int, *, large: bool
) -> Executable:
    """The executables of all programs with these steps; compiling begins at once, in threads.

    `shapes` are those of the constants, `rows` is the number of forms, `size` bounds all numbers. A
    large batch lies on all devices. Guarded intervals, which are rare, have small ones only.
    """
    with on_cpu():
        program = Program(steps, outputs, (), None)
        real = functools.partial(jax.ShapeDtypeStruct, dtype=np.float64)
        numbers = real((sum(int(np.prod(s)) for s in shapes) + 3 * rows + n,))
        unpack = functools.partial(_unpacked, shapes=shapes, rows=rows, n=n)
        boxes = real((n, SMALL_BATCH)), real((n, SMALL_BATCH))
        if is_linear(program, size):
            fn = _planes(program, unpack)
            if large:
                return _blocks_of(fn, block_size(steps, n), numbers, n)
            traced = jax.jit(fn).trace(numbers, *boxes)
            return Executable((compiling(traced.lower()),), SMALL_BATCH)
        first, second = _stages(program, size, unpack)
        traced = jax.jit(first).trace(numbers, *boxes)
        stages = traced.lower(), jax.jit(second).trace(numbers, *boxes, *traced.out_info).lower()
    return Executable(tuple(compiling(stage) for stage in stages), SMALL_BATCH)


def is_linear(program: Program, size: float) -> bool:
    """Whether linear bounds are taken, of numbers of at most this size; else guarded intervals."""
    return size <= ia.SAFE and not program.ops & JUMPS


def _blocks_of(fn_and_planes, block: int, numbers, n: int) -> Executable:
    """The executable for large batches, on all devices; planes themselves are not kept."""
    num_blocks, devices = LARGE_BATCH // block, num_devices()
    fn = blockwise(lambda *args: fn_and_planes(*args)[0], block, num_blocks)

    def args(count):
        box = jax.ShapeDtypeStruct((n, LARGE_BATCH * count), np.float64)
        return jax.ShapeDtypeStruct((count,), np.int32), box, box

    fn = over_devices(fn, numbers, args(1)) if devices > 1 else jax.jit(fn)
    lowered = fn.trace(numbers, *args(devices)).lower()
    return Executable((compiling(lowered),), block, num_blocks, devices)


def compiling(lowered) -> concurrent.futures.Future:
    """The executable of what was lowered, from a thread."""
    return _THREADS.submit(lowered.compile, compiler_options=OPTIONS)
