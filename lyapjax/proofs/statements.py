"""Statements: a program of a few quantities, and which of them must have which sign.

    margin(x) < 0   wherever   every region form is at most 0

The margin and the regions are forms s q_i + b of the program's outputs q (see `compiled`), so that
all obligations of a proof (V̇ < 0, c < V, …, each on its region) are read by one program.

A function given as a pytree of numbers (a module, a closed loop) is traced once for all its values:
the numbers then are the constants of the program. Plain Python functions are traced at every call,
since what they read from elsewhere may have changed.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flint import arb
from jax.tree_util import Partial

from lyapjax.readers import intervals as ia
from lyapjax.readers.ball import evaluate_balls
from lyapjax.readers.compiled import (
    SMALL_BATCH,
    Bounded,
    Executable,
    Forms,
    executable,
    is_linear,
    make_forms,
)
from lyapjax.readers.program import JUMPS, Placeholder, Program, trace
from lyapjax.readers.spreading import shares, side_by_side
from lyapjax.systems.domains import Ball, Box
from lyapjax.systems.system import System

# Fewer boxes than this many small batches are not worth compiling the large one for.
SMALL_BATCHES = 4


def is_family(value) -> bool:
    """Whether a value is known by its numbers and its structure alone.

    The functions inside (a system's f, a module's method) are taken to be pure, as by `jax.jit`.
    """
    if isinstance(value, Partial):
        known = getattr(value.func, "__module__", "").startswith("lyapjax.")
        inner = (*value.args, *value.keywords.values())
        return known and all(is_family(v) for v in inner)
    if isinstance(value, (tuple, list)):
        return all(is_family(v) for v in value)
    plain = (nnx.Module, System, Ball, Box, np.ndarray, jax.Array, type(None))
    return isinstance(value, plain)


@functools.lru_cache(maxsize=256)
def _template(fn: Callable, tree, shapes, n: int) -> Program:
    """The program of x -> fn(numbers, x), the numbers' leaves as placeholders."""
    leaves = [Placeholder(k, shape) for k, shape in enumerate(shapes)]

    def call(x, *values):
        return fn(jax.tree.unflatten(tree, values), x)

    return trace(call, jax.ShapeDtypeStruct((n,), np.float64), placeholders=leaves)


def program_of(fn: Callable, numbers, n: int) -> Program:
    """The program of x -> fn(numbers, x), traced once for all numbers if they are a family.

    `fn` is a function of a module, the same object at every call.
    """
    leaves, tree = jax.tree.flatten(numbers)
    real = all(getattr(leaf, "dtype", None) == np.float64 for leaf in leaves)
    if not is_family(numbers) or not real or any(isinstance(v, jax.core.Tracer) for v in leaves):
        return trace(lambda x: fn(numbers, x), jnp.zeros(n))
    template = _template(fn, tree, tuple(np.shape(leaf) for leaf in leaves), n)
    constants = tuple(
        np.asarray(leaves[c.place]) if isinstance(c, Placeholder) else c for c in template.constants
    )
    return Program(template.steps, template.outputs, constants, template.tree)


def is_tame(*arrays, least: float) -> bool:
    """Whether all numbers are 0, or at least `least` and of a size that nothing overflows for."""
    sizes = [np.abs(np.asarray(value, np.float64)) for value in arrays]
    return all(np.all((v == 0) | ((v >= least) & (v <= 2.0**ia.TAME))) for v in sizes)


class Statement(NamedTuple):
    """What is to be proved, without the boxes."""

    program: Program
    forms: Forms

    def prepared(self, lo, hi, *, large: bool = False) -> Executable:
        """The executables for boxes within [lo, hi]; compiling begins, if it has not before.

        Large batches lie on all devices.
        """
        n, program = np.shape(lo)[-1], self.program
        # Linear bounds need no lower limit; intervals do, for what is divided by a constant.
        least = 2.0**-ia.TAME if program.ops & JUMPS else 0.0
        tame = is_tame(*program.constants, self.forms.offset, least=least)
        tame = tame and np.max(np.abs([lo, hi])) <= 2.0**ia.TAME
        size = ia.TAME if tame else ia.INF
        shapes = tuple(np.shape(c) for c in program.constants)
        rows = len(self.forms.sign)
        large = large and is_linear(program, size)
        return executable(program.steps, program.outputs, size, shapes, n, rows, large=large)

    def refuted_at(self, x: np.ndarray) -> bool:
        """Whether x is certainly a counterexample, in ball arithmetic."""
        outputs = [value[()] for value in evaluate_balls(self.program, x)]
        found = []
        for sign, index, offset in zip(*(v.tolist() for v in self.forms)):
            found.append((outputs[index] * int(sign) if sign else 0) + arb(offset))
        margin, *regions = found
        return bool(margin >= 0 and all(r <= 0 for r in regions))


class Bounding:
    """Bounds of a statement over any number of boxes, in batches side by side.

    The large batches are compiled, in a thread, when there are boxes enough to pay for it.
    """

    def __init__(self, statement: Statement, lo, hi, smallest):
        self.statement, self.corners, self.smallest = statement, (lo, hi), smallest
        self.small = statement.prepared(lo, hi)
        self.small.wait()
        self.numbers = self._placed(self.small)
        self.large, self.large_numbers = None, None

    def _placed(self, code: Executable):
        return code.placed(self.statement.program, self.statement.forms, self.smallest)

    def __call__(self, lo, hi) -> Bounded:
        """What is known of boxes (N, n)."""
        if self.large is None and len(lo) > SMALL_BATCHES * SMALL_BATCH:
            self.large = self.statement.prepared(*self.corners, large=True)
        code, numbers = self.small, self.numbers
        if self.large is not None and self.large.is_ready and len(lo) > SMALL_BATCHES * SMALL_BATCH:
            if self.large_numbers is None:
                self.large_numbers = self._placed(self.large)
            code, numbers = self.large, self.large_numbers
        parts = shares(len(lo), code.block, code.batch, code.num_devices)
        found = side_by_side(lambda a, b: code(lo[a:b], hi[a:b], numbers), parts)
        return Bounded(*found)

    def gradients(self, x):
        """Values (k, N) and gradients (k, n, N) of the outputs at points (n, N)."""
        return self.small.gradients(x, self.numbers)


def refutes(program: Program, x: np.ndarray) -> bool:
    """Whether the first output is at least 0 at x and no other is above 0, in ball arithmetic."""
    rows = [(1.0, k, 0.0) for k in range(len(program.outputs))]
    return Statement(program, make_forms(rows)).refuted_at(x)


def statement_of(margin_fn: Callable, where_fn: Callable | None, n: int) -> Statement:
    """The statement of a margin and a region given as functions."""
    family = is_family((margin_fn, where_fn))
    if not family:
        x = jax.ShapeDtypeStruct((n,), jnp.float64)
        for name, fn in (("margin_fn", margin_fn), ("where_fn", where_fn)):
            if fn is None:
                continue
            shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(fn, x))]
            if len(shapes) != 1 or (name == "margin_fn" and shapes[0] != ()):
                expected = "a number" if name == "margin_fn" else "an array"
                raise ValueError(f"{name}: expected {expected} at each point, got shapes {shapes}")
    program = program_of(_both, (margin_fn, where_fn), n)
    if any(isinstance(c, jax.core.Tracer) for c in program.constants):
        raise ValueError("margin_fn: expected concrete numbers; `prove` runs outside of jit")
    return Statement(program, make_forms([(1.0, k, 0.0) for k in range(len(program.outputs))]))


def _both(functions, x):
    margin_fn, where_fn = functions
    entries = jnp.ravel(where_fn(x)) if where_fn is not None else jnp.zeros(0)
    return margin_fn(x), *(entries[i] for i in range(entries.shape[0]))
