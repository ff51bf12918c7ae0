"""Plain bounds and slopes of a program's outputs over any number of boxes, as compiled code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers import intervals as ia
from lyapjax.readers.bounds import first_stage
from lyapjax.readers.compiled import MOST_ROWS, SMALL_BATCH, compiling
from lyapjax.readers.enclosure import evaluate, spread
from lyapjax.readers.program import Program
from lyapjax.readers.spreading import on_cpu, pad, shares, side_by_side


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
    return compiling(lowered)


class Reader:
    """Plain bounds of a program's scalar outputs, or their slopes, over any number of boxes.

    Compiling begins when one is made.
    """

    def __init__(self, program: Program, *, of_slopes: bool = False, few: bool = False):
        self.program = program
        (shape,) = (step.shape for step in program.steps if step.op == "input")
        self.batch = SMALL_BATCH if few else min(4 * SMALL_BATCH, MOST_ROWS // shape[0])
        shapes = tuple(np.shape(c) for c in program.constants)
        self.call = _reader(program.steps, program.outputs, shapes, shape[0], self.batch, of_slopes)

    def __call__(self, lo, hi) -> np.ndarray:
        """Of k outputs over boxes (N, n): (k, 2, N); slopes are (k, n, 2, N), NaN if undefined."""
        call, constants = self.call.result(), self.program.numbers

        def read(start, stop):
            with on_cpu():
                found = call(constants, *pad(lo[start:stop], hi[start:stop], self.batch))
                return [np.asarray(found)[..., : stop - start]]

        parts = shares(len(lo), self.batch, self.batch)
        return side_by_side(read, parts)[0]


def bounds_of(program: Program, lo, hi) -> np.ndarray:
    """Plain bounds of k scalar outputs over boxes (N, n): (k, 2, N) lower and upper ends."""
    return Reader(program, few=len(lo) <= SMALL_BATCH)(lo, hi)


def slopes_of(program: Program, lo, hi) -> np.ndarray:
    """Slopes of k scalar outputs over boxes (N, n): (k, n, 2, N), NaN where undefined."""
    return Reader(program, of_slopes=True, few=len(lo) <= SMALL_BATCH)(lo, hi)
