"""Bounds of programs as compiled code, for batches of boxes of a few fixed sizes.

Programs with the same steps share their code whatever their numbers are. What is compiled gives
linear bounds (`planes`). Where numbers are so large that something may overflow, or the function
may jump, it gives guarded intervals, in two executables (see `bounds.first_stage`): plain bounds
and slopes, then the mean value form about the best centre. Between bounds and the caller stand
*forms*, numbers that say which output of the program is meant, with which sign, and what is added:

    form_r(x) = s_r q_{i_r}(x) + b_r,        s_r in {1, -1, 0}

so that V̇ < 0, V < c and c' < V on various regions are read by one executable of V, V̇ and the rest.

Executables are made in threads: XLA does not hold Python's lock while it compiles, and what else is
to be done meanwhile (compiling the learner, for one) goes on. The emitter of fused loops that XLA
uses by default on the CPU is switched off: without it these programs compile in 0.6 times the time
and run in half, with wide vectors in 0.8 times of that (measured with jaxlib 0.10.2). The margins
of rounding do not rest on it, and the tests read the executables' results against ball arithmetic
as they are made here.
"""

import concurrent.futures
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.bounds import best_centre, first_stage, second_stage
from lyapjax.readers.enclosure import evaluate, spread
from lyapjax.readers.linear import EPS
from lyapjax.readers.planes import planes
from lyapjax.readers.program import JUMPS, Program

OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_prefer_vector_width": 512}
# Relative: how small a box is a point, and a number rounding error; nothing rests on it.
SMALL = 1e-10
LEAST = 0.05  # weight of a form that no cut can decide
SMALL_BATCH = 512
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
      candidate: (batch,) the margin at `centre`, roughly, -inf where it is no counterexample as
        far as can be told; balls decide.
      centre: (n, batch) where the margin is greatest, as far as the bounds tell.
      scores: (n, batch) how much the bounds depend on each coordinate.
    """

    upper: jax.Array
    finished: jax.Array
    candidate: jax.Array
    centre: jax.Array
    scores: jax.Array


def large_batch(n: int) -> int:
    """The size of a large batch for n coordinates."""
    return max(SMALL_BATCH, MOST_ROWS // n // SMALL_BATCH * SMALL_BATCH)


def on_cpu():
    """The margins of rounding are those of XLA's CPU backend, whatever the default device is."""
    return jax.default_device(jax.devices("cpu")[0])


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


def _stages(program: Program, size: float):
    """The two stages of these steps, as functions of numbers, boxes and forms."""

    def first(constants, lo, hi, forms):
        ends, slopes, bad = first_stage(program, constants, ia.box(lo, hi, size))
        margin = Forms(*(v[:1] for v in forms))
        low, high = _signed(slopes, margin)
        return (ends, slopes, bad), best_centre(lo, hi, (low[0], high[0]))

    def second(constants, lo, hi, forms, found, centre):
        x = ia.box(lo, hi, size)
        bounds, middle, bad = second_stage(program, constants, x, found, centre)
        lower, upper = _ends(bounds, forms)
        finished = (upper[0] < 0) | jnp.any(lower[1:] > 0, axis=0)
        least, most = _ends(middle, forms)
        inside = jnp.all(least[1:] <= 0, axis=0)
        # How far the centre is from being no counterexample; balls decide.
        candidate = jnp.where(inside & ~bad & (most[0] >= 0), least[0], -ia.INF)
        return Bounded(upper[0], finished, candidate, centre, _influence(lo, hi, found[1], forms))

    return first, second


class Executable(NamedTuple):
    """The stages for one size of batch, as they come from their threads: planes, or the two."""

    stages: tuple[concurrent.futures.Future, ...]
    batch: int

    def wait(self) -> None:
        """Until all is compiled."""
        concurrent.futures.wait(self.stages)

    @property
    def is_ready(self) -> bool:
        """Whether all is compiled."""
        return all(stage.done() for stage in self.stages)

    def __call__(self, constants, lo, hi, forms: Forms) -> Bounded:
        """What is known of the boxes (N, n), in batches that run side by side."""
        first, *second = (stage.result() for stage in self.stages)
        size, found = self.batch, []
        with on_cpu():
            for k in range(0, len(lo), size):
                part = pad(lo[k : k + size], hi[k : k + size], size)
                if not second:
                    found.append(first(constants, *part))
                    continue
                here, centre = first(constants, *part, forms)
                found.append(second[0](constants, *part, forms, here, centre))
            columns = zip(*([np.asarray(v) for v in row] for row in found))
        rows = [np.concatenate(column, axis=-1)[..., : len(lo)] for column in columns]
        return Bounded(*rows) if second else judged(rows, lo.T, hi.T, forms)

    def gradients(self, constants, x, forms: Forms) -> tuple[np.ndarray, np.ndarray]:
        """Values (k, N) and gradients (k, n, N) of the outputs at points (n, N), not rounded."""
        first, num = self.stages[0].result(), x.shape[1]
        reach = SMALL * np.maximum(np.abs(x), 1.0)
        with on_cpu():
            if len(self.stages) == 1:
                part = pad((x - reach).T, (x + reach).T, self.batch)
                c, a, _ = (np.asarray(v)[..., :num] for v in first(constants, *part))
                return c, a / reach
            (ends, slopes, _), _ = first(constants, *pad(x.T, x.T, self.batch), forms)
        with np.errstate(invalid="ignore"):
            return tuple(np.asarray(v)[..., :num].mean(axis=1) for v in (ends, slopes))


def judged(found, lo, hi, forms: Forms) -> Bounded:
    """What planes say of the forms, on the host.

    Where the plane of the margin is highest, at a corner, a counterexample is looked for: if the
    planes tell more there than they may be wrong by, or than rounding is.
    """
    c, a, r = (np.asarray(v) for v in found)
    index, sign, offset = forms.index, forms.sign[:, None], forms.offset[:, None]
    reach = np.abs(a)
    h = ((reach.sum(axis=1) + r) * (1 + EPS))[index]
    h[forms.sign == 0] = 0.0
    middle = sign * c[index] + offset
    h += EPS * (np.abs(middle) + np.abs(offset)) + ia.TINY
    upper, lower = middle[0] + h[0], middle - h
    finished = (upper < 0) | (lower[1:] > 0).any(axis=0)
    corner = np.sign(sign[0] * a[index[0]])
    there = middle + sign * np.einsum("knb,nb->kb", a[index], corner)
    slack = SMALL * np.abs(middle[0]).max()
    likely = (there[0] >= -slack) & (there[0] + slack >= r[index[0]]) & ~finished
    likely &= (there[1:] <= slack).all(axis=0)
    centre = np.clip(0.5 * lo + 0.5 * hi + 0.5 * (hi - lo) * corner, lo, hi)
    # A form counts by how much of its reach is overcome already: where the margin is positive in
    # the middle of a box, only a region that the box lies outside of can finish it.
    middle[0] *= -1.0
    weight = np.abs(sign) * (LEAST + np.clip(middle / (h + ia.TINY), 0.0, 1.0))
    reach = reach + ia.TINY
    scores = np.einsum("rb,rnb->nb", weight, (reach / reach.max(axis=1, keepdims=True))[index])
    return Bounded(upper, finished, np.where(likely, there[0], -ia.INF), centre, scores)


@functools.lru_cache(maxsize=128)
def executable(steps, outputs, size: float, shapes, n: int, batch: int, rows: int) -> Executable:
    """The executables of all programs with these steps; compiling begins at once, in threads.

    `shapes` are those of the constants, `rows` is the number of forms, `size` bounds all numbers.
    """
    with on_cpu():
        program = Program(steps, outputs, (), None)
        real = functools.partial(jax.ShapeDtypeStruct, dtype=np.float64)
        boxes = real((n, batch)), real((n, batch))
        args = tuple(real(s) for s in shapes), *boxes
        if size <= ia.SAFE and not program.ops & JUMPS:
            traced = jax.jit(functools.partial(planes, program)).trace(*args)
            return Executable((_compiling(traced.lower()),), batch)
        forms = Forms(real((rows,)), jax.ShapeDtypeStruct((rows,), np.int32), real((rows,)))
        first, second = _stages(program, size)
        traced = jax.jit(first).trace(*args, forms)
        stages = traced.lower(), jax.jit(second).trace(*args, forms, *traced.out_info).lower()
    return Executable(tuple(_compiling(stage) for stage in stages), batch)


def _compiling(lowered) -> concurrent.futures.Future:
    return _THREADS.submit(lowered.compile, compiler_options=OPTIONS)


def pad(lo, hi, size: int) -> list[np.ndarray]:
    """Boxes (N, n) as columns (n, size), the last one repeated."""
    found = [np.empty((lo.shape[1], size)) for _ in range(2)]
    for columns, v in zip(found, (lo, hi)):
        columns[:, : len(v)] = v.T
        columns[:, len(v) :] = v[-1][:, None]
    return found


@functools.lru_cache(maxsize=256)
def _reader(steps, outputs, shapes, n: int, batch: int, of_slopes: bool):
    """The compiled plain bounds, or slopes, of all programs with these steps."""
    program = Program(steps, outputs, (), None)

    def values(constants, lo, hi):
        found, bad = evaluate(program, constants, [ia.box(lo, hi)])
        whole = jnp.stack([jnp.full(lo.shape[1:], -ia.INF), jnp.full(lo.shape[1:], ia.INF)])
        ends = [jnp.stack(spread(v, lo.shape[1:])[:2]) for v in found]
        return jnp.stack([jnp.where(bad, whole, pair) for pair in ends])

    def slopes(constants, lo, hi):
        _, found, bad = first_stage(program, constants, ia.box(lo, hi))
        return jnp.where(bad, jnp.nan, jnp.swapaxes(found, 1, 2))

    with on_cpu():
        real = functools.partial(jax.ShapeDtypeStruct, dtype=np.float64)
        args = tuple(real(s) for s in shapes), real((n, batch)), real((n, batch))
        lowered = jax.jit(slopes if of_slopes else values).trace(*args).lower()
    return _compiling(lowered)


class Reader:
    """Plain bounds of a program's scalar outputs, or their slopes, over any number of boxes.

    Compiling begins when one is made.
    """

    def __init__(self, program: Program, *, of_slopes: bool = False, few: bool = False):
        self.program = program
        (shape,) = (step.shape for step in program.steps if step.op == "input")
        self.batch = SMALL_BATCH if few else large_batch(shape[0])
        shapes = tuple(np.shape(c) for c in program.constants)
        self.call = _reader(program.steps, program.outputs, shapes, shape[0], self.batch, of_slopes)

    def __call__(self, lo, hi) -> np.ndarray:
        """Of k outputs over boxes (N, n): (k, 2, N); slopes are (k, n, 2, N), NaN if undefined."""
        found, size = [], self.batch
        with on_cpu():
            constants = jax.device_put(self.program.constants)
            for k in range(0, len(lo), size):
                part = pad(lo[k : k + size], hi[k : k + size], size)
                found.append((self.call.result()(constants, *part), len(lo[k : k + size])))
            return np.concatenate([np.asarray(v)[..., :num] for v, num in found], axis=-1)


def bounds_of(program: Program, lo, hi) -> np.ndarray:
    """Plain bounds of k scalar outputs over boxes (N, n): (k, 2, N) lower and upper ends."""
    return Reader(program, few=len(lo) <= SMALL_BATCH)(lo, hi)


def slopes_of(program: Program, lo, hi) -> np.ndarray:
    """Slopes of k scalar outputs over boxes (N, n): (k, n, 2, N), NaN where undefined."""
    return Reader(program, of_slopes=True, few=len(lo) <= SMALL_BATCH)(lo, hi)
