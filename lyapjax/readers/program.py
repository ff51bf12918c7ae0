"""`trace`: a JAX function as a straight-line program, the one description that every checker reads.

`jax.make_jaxpr` gives the function as equations of primitives. Here they are brought into a form
that is small enough to be read by several arithmetics (intervals, balls, SMT-LIB): calls are
inlined, scans of fixed length are unrolled, integers (indices) are evaluated, and about forty
operations are left, all on real numbers or truth values. The numbers in the function (weights,
gains, levels) are kept apart from the steps, so that two networks of one architecture have equal
steps and share their compiled code.

The meaning is that of real numbers: a constant is exactly its float, an operation is exact, and
where a step has no real value (the logarithm of a negative number) the function is undefined, and
nothing is ever proved about it.

Three rewritings, exact in real arithmetic, are made because interval bounds depend on how an
expression is written: x x becomes x², the derivative of tanh, which JAX writes (g + g t)(1 - t),
becomes g sech²; and s (1 - s), for the logistic function, likewise one operation.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAX_STEPS = 100_000
UNARY = {
    *("neg", "square", "sqrt", "rsqrt", "exp", "log", "log1p", "expm1", "tanh", "logistic"),
    *("sin", "cos", "tan", "atan", "asin", "acos", "sinh", "cosh", "abs", "sign", "not"),
}
BINARY = {
    *("add", "sub", "mul", "div", "max", "min"),
    *("lt", "le", "gt", "ge", "eq", "ne", "and", "or"),
}
TRUTH = {"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not"}
# Operations whose value may jump: a program without them describes a continuous function wherever
# it is defined. Those of KINKS are continuous but have no derivative everywhere.
JUMPS = {"sign", "select", "indicator"}
KINKS = {"abs", "max", "min", "reduce_max", "reduce_min"}


class Step(NamedTuple):
    """One operation; its value is known by its place in the program.

    `params` holds what is fixed (axes, indices, an exponent) as hashable values.
    """

    op: str
    inputs: tuple[int, ...]
    params: tuple
    shape: tuple[int, ...]


class Placeholder(NamedTuple):
    """A number or array of numbers that is not yet known: which argument it is, and its shape."""

    place: int
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """A function of real arrays as a list of steps and the numbers they use.

        steps[k] = op_k(earlier steps),        f(x) = the steps named by outputs

    Made by `trace`; read by `enclose`, `prove`, `verify`, `evaluate_balls`.

    Attributes:
      steps: the operations, in order; hashable.
      outputs: the places of the results.
      constants: the numbers, one array for each step named "constant".
      tree: how the results are put together (a JAX tree definition).

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> program = ly.trace(lambda x: jnp.tanh(2.5 * x), jnp.zeros(3))
      >>> [step.op for step in program.steps]
      ['input', 'constant', 'broadcast', 'mul', 'tanh']
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    constants: tuple
    tree: object

    @property
    def ops(self) -> set[str]:
        """The names of the operations that occur."""
        return {step.op for step in self.steps}

    @functools.cached_property
    def numbers(self) -> tuple:
        """The constants on the CPU, where proofs run; put there once."""
        return jax.device_put(self.constants, jax.local_devices(backend="cpu")[0])


def hashable(array: np.ndarray) -> tuple:
    """An integer array as (shape, entries)."""
    return tuple(array.shape), tuple(int(v) for v in array.ravel())


class Builder:
    """Collects steps; equal steps are made once."""

    def __init__(self, *, whole: bool = False):
        self.whole = whole
        self.steps: list[Step] = []
        self.known: dict[Step, int] = {}
        self.constants: list = []

    def emit(self, op: str, inputs=(), params=(), shape=()) -> int:
        """The place of this step, new or already there."""
        shape = tuple(int(n) for n in shape)
        step = Step(op, tuple(inputs), tuple(params), shape)
        if step not in self.known:
            if len(self.steps) >= MAX_STEPS:
                raise ValueError(f"fn: expected at most {MAX_STEPS} operations after unrolling")
            self.known[step] = len(self.steps)
            self.steps.append(step)
        return self.known[step]

    def constant(self, value) -> int:
        """A number or array of numbers; 0 and 1 are part of the structure."""
        if isinstance(value, Placeholder):
            self.constants.append(value)
            return self.emit("constant", (), (len(self.constants) - 1,), value.shape)
        if not isinstance(value, jax.core.Tracer):
            value = np.asarray(value, np.float64)
            if value.ndim == 0 and value in (0.0, 1.0):
                return self.emit("literal", (), (float(value),))
            for k, other in enumerate(self.constants):
                equal = isinstance(other, np.ndarray) and other.shape == value.shape
                if equal and other.tobytes() == value.tobytes():
                    return self.known[Step("constant", (), (k,), value.shape)]
        self.constants.append(value)
        return self.emit("constant", (), (len(self.constants) - 1,), np.shape(value))

    def is_one(self, k: int) -> bool:
        """Whether step k is 1, or 1 repeated."""
        step = self.steps[k]
        if step.op == "broadcast":
            return self.is_one(step.inputs[0])
        return step.op == "literal" and step.params[0] == 1.0

    def is_infinite(self, k: int, op: str) -> bool:
        """Whether step k is the infinity that max or min ignores."""
        step = self.steps[k]
        value = self.constants[step.params[0]] if step.op == "constant" else None
        infinity = -np.inf if op == "max" else np.inf
        return isinstance(value, np.ndarray) and bool(np.all(value == infinity))

    def one_minus(self, k: int, op: str) -> int | None:
        """w, if step k is 1 - op(w)."""
        step = self.steps[k]
        if step.op != "sub" or not self.is_one(step.inputs[0]):
            return None
        inner = self.steps[step.inputs[1]]
        return inner.inputs[0] if inner.op == op else None

    def times_one_plus(self, k: int, t: int) -> int | None:
        """g, if step k is g + g t."""
        step = self.steps[k]
        if step.op != "add":
            return None
        for g, product in (step.inputs, step.inputs[::-1]):
            if product == t and self.is_one(g):
                return g
            inner = self.steps[product]
            if inner.op == "mul" and inner.inputs in ((g, t), (t, g)):
                return g
        return None

    def elementwise(self, op: str, inputs, shape) -> int:
        """An elementwise step, operands repeated to one shape, in its tightest form."""
        shape = tuple(shape)
        inputs = [self.spread(k, shape) for k in inputs]
        if op == "mul":
            return self.product(*inputs, shape)
        if op in ("add", "sub") and self.steps[inputs[1]][:3] == ("literal", (), (0.0,)):
            return inputs[0]
        if op in ("max", "min"):
            # JAX starts some maxima at -inf, which is no real number.
            without = [k for k in inputs if not self.is_infinite(k, op)]
            if len(without) == 1:
                return self.spread(without[0], shape)
        if op == "add" and self.steps[inputs[0]][:3] == ("literal", (), (0.0,)):
            return inputs[1]
        if op == "add":
            # e + e t with e = g (1 - t), t = tanh(w): the transposed derivative of tanh.
            for e, other in (inputs, inputs[::-1]):
                inner = self.steps[other]
                if self.steps[e].op != "mul" or inner.op != "mul" or e not in inner.inputs:
                    continue
                t = inner.inputs[1 - inner.inputs.index(e)]
                for g, factor in (self.steps[e].inputs, self.steps[e].inputs[::-1]):
                    w = self.one_minus(factor, "tanh")
                    if w is not None and self.steps[factor].inputs[1] == t:
                        return self.product(g, self.emit("sech2", (w,), (), shape), shape)
        if op == "sub" and self.is_one(inputs[0]):
            squared = self.steps[inputs[1]]
            inner = self.steps[squared.inputs[0]] if squared.op == "square" else None
            if inner is not None and inner.op == "tanh":
                return self.emit("sech2", inner.inputs, (), shape)
        if op in ("ne", "eq") and inputs[0] == inputs[1]:
            # The operand stays: where it is undefined so is the answer (this is a test for NaN).
            return self.emit("truth", inputs[:1], (op == "eq",), shape)
        return self.emit(op, inputs, (), shape)

    def spread(self, k: int, shape) -> int:
        """Step k repeated to a shape; literals fit every shape."""
        if self.steps[k].shape == shape or self.steps[k].op == "literal":
            return k
        # Scalars, and dimensions of size 1, are repeated.
        axes = tuple(range(len(self.steps[k].shape)))
        return self.emit("broadcast", (k,), (axes,), shape)

    def product(self, a: int, b: int, shape) -> int:
        """a b, as a square or a derivative where it is one."""
        if a == b:
            return self.emit("square", (a,), (), shape)
        if self.is_one(a):
            return b if self.steps[b].shape == shape else self.spread(b, shape)
        if self.is_one(b):
            return a if self.steps[a].shape == shape else self.spread(a, shape)
        for x, y in ((a, b), (b, a)):
            w = self.one_minus(y, "tanh")
            if w is not None:
                g = self.times_one_plus(x, self.steps[y].inputs[1])
                if g is not None:
                    return self.product(g, self.emit("sech2", (w,), (), shape), shape)
            w = self.one_minus(y, "logistic")
            if w is not None and x == self.steps[y].inputs[1]:
                return self.emit("dlogistic", (w,), (), shape)
        return self.emit("mul", (a, b), (), shape)

    def finish(self, outputs, tree) -> Program:
        """The program of the steps that the outputs need, inputs always kept."""
        needed = set()
        stack = list(outputs)
        while stack:
            k = stack.pop()
            if k not in needed:
                needed.add(k)
                stack.extend(self.steps[k].inputs)
        place, steps, constants = {}, [], []
        for k, step in enumerate(self.steps):
            if k not in needed and step.op != "input":
                continue
            if step.op == "constant":
                constants.append(self.constants[step.params[0]])
                step = step._replace(params=(len(constants) - 1,))
            place[k] = len(steps)
            steps.append(step._replace(inputs=tuple(place[i] for i in step.inputs)))
        return Program(tuple(steps), tuple(place[k] for k in outputs), tuple(constants), tree)


def check_dtype(aval, where: str) -> None:
    """Refuse real numbers that are not float64, whose rounding would not be seen, and keys."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        raise ValueError(
            f"fn: expected numbers, got {aval.dtype} in {where}; draw random numbers outside of fn"
        )
    if jnp.issubdtype(aval.dtype, jnp.inexact) and aval.dtype != np.float64:
        raise ValueError(
            f"fn: expected float64 throughout, got {aval.dtype} in {where}; proofs need float64: "
            'jax.config.update("jax_enable_x64", True), and no float32 weights or casts'
        )


def trace(fn, *args, placeholders: Sequence[Placeholder] = (), whole: bool = False) -> Program:
    """Read a JAX function as a straight-line program.

        f(x) for x of the given shapes  ->  steps of about forty real operations

    A constant of the function is exactly the float that it is. The function must not depend on
    Python values that change later: it is called once, here.

    Args:
      fn: a JAX function of float64 arrays; returns arrays, or a pytree of them.
      args: arrays (or shape structs) of the shapes that the function takes; pytrees too.
      placeholders: of further arguments, arrays of float64 that are constants of the program and
        take their place later.
      whole: keep each `systems.solve` as one step, "solve", instead of its scalar operations.

    Returns:
      `Program`.

    Raises:
      ValueError: float32 anywhere, or x64 switched off.
      NotImplementedError: a primitive that has no rule, by its name.

    Reference:
      Not in the paper, which encodes every system by hand for dReal.

    Examples:
      >>> import jax, jax.numpy as jnp, lyapjax as ly
      >>> V = lambda x: jnp.tanh(x @ x)
      >>> slope = ly.trace(lambda x: jax.jvp(V, (x,), (-x,))[1], jnp.zeros(2))
      >>> "sech2" in slope.ops
      True
    """
    from lyapjax.readers.primitives import inline

    if not jax.config.jax_enable_x64:
        raise ValueError(
            "fn: proofs need float64; switch it on before JAX is used: "
            'jax.config.update("jax_enable_x64", True)'
        )
    late = [jax.ShapeDtypeStruct(value.shape, np.float64) for value in placeholders]
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args, *late)
    builder = Builder(whole=whole)
    invars = closed.jaxpr.invars
    for k, var in enumerate(invars[: len(invars) - len(late)]):
        check_dtype(var.aval, f"argument {k}")
        if var.aval.dtype != np.float64:
            raise ValueError(f"fn: expected float64 arguments, got {var.aval.dtype}: argument {k}")
        builder.emit("input", (), (k,), var.aval.shape)
    places = list(range(len(builder.steps)))
    places += [builder.constant(value) for value in placeholders]
    results = inline(builder, closed.jaxpr, closed.consts, places)
    outputs = [builder.constant(r) if isinstance(r, np.ndarray) else r for r in results]
    return builder.finish(outputs, jax.tree.structure(shape))
