"""Values, gradients and Hessians of a program in ball arithmetic.

A jet of x holds balls around f(x), ∇f(x) and, to second order, ∇²f(x), for every x of a box: each
operation of a program is carried over by the chain rule,

    ∇h(f) = h'(f) ∇f,        ∇²h(f) = h''(f) ∇f ∇f' + h'(f) ∇²f.

The derivatives are formed here from the values alone; nothing of JAX's differentiation is used. At
kinks (abs, max, min) the gradient encloses all slopes, which is what the mean value form needs;
the Hessian is unknown there. In place of each ball may stand a `spans.Span`: many boxes at once.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from flint import arb

from lyapjax.readers import ball
from lyapjax.readers.program import Program, Step
from lyapjax.readers.spans import Span
from lyapjax.systems.elimination import eliminate

UNKNOWN = arb(0, "inf")


class Jet(NamedTuple):
    """Balls around a value, its gradient (n of them) and its Hessian (n² or none)."""

    value: arb
    gradient: tuple
    hessian: tuple = ()


def variable(x: arb, i: int, n: int, order: int) -> Jet:
    """The coordinate x_i."""
    gradient = tuple(arb(int(i == j)) for j in range(n))
    return Jet(x, gradient, (arb(0),) * (n * n) if order > 1 else ())


def constant(value: arb, n: int, order: int) -> Jet:
    """A number."""
    return Jet(value, (arb(0),) * n, (arb(0),) * (n * n) if order > 1 else ())


def _outer(a: tuple, b: tuple) -> list:
    return [p * q for p in a for q in b]


def chain(x: Jet, value: arb, first: arb, second) -> Jet:
    """h(x), from h, h' and h'' (a function without arguments, called if needed)."""
    gradient = tuple(first * g for g in x.gradient)
    if not x.hessian:
        return Jet(value, gradient)
    curve = second()
    squares = _outer(x.gradient, x.gradient)
    hessian = tuple(curve * s + first * h for s, h in zip(squares, x.hessian))
    return Jet(value, gradient, hessian)


def add(x: Jet, y: Jet) -> Jet:
    """x + y."""
    return Jet(*(_each(lambda p, q: p + q, a, b) for a, b in zip(x, y)))


def sub(x: Jet, y: Jet) -> Jet:
    """x - y."""
    return Jet(*(_each(lambda p, q: p - q, a, b) for a, b in zip(x, y)))


def _each(fn, a, b):
    return tuple(fn(p, q) for p, q in zip(a, b)) if isinstance(a, tuple) else fn(a, b)


def mul(x: Jet, y: Jet) -> Jet:
    """x y."""
    gradient = tuple(x.value * q + y.value * p for p, q in zip(x.gradient, y.gradient))
    if not x.hessian:
        return Jet(x.value * y.value, gradient)
    mixed = _outer(x.gradient, y.gradient)
    n = len(gradient)
    hessian = tuple(
        x.value * y.hessian[k] + y.value * x.hessian[k] + mixed[k] + mixed[n * (k % n) + k // n]
        for k in range(n * n)
    )
    return Jet(x.value * y.value, gradient, hessian)


def square(x: Jet) -> Jet:
    """x²."""
    return chain(x, _fn("square", x.value), 2 * x.value, lambda: arb(2))


def power(x: Jet, n: int) -> Jet:
    """xⁿ for an integer n."""
    v = x.value
    if n == 0:
        return chain(x, arb(1), arb(0), lambda: arb(0))
    if n < 0 and v.contains(0):
        return chain(x, UNKNOWN, UNKNOWN, lambda: UNKNOWN)

    def of(k: int) -> arb:
        if k == 0:
            return arb(1)
        return v.integer_pow(k) if isinstance(v, Span) else ball.integer_pow(v, k)

    return chain(
        x, of(n), n * of(n - 1), lambda: n * (n - 1) * of(n - 2) if n not in (0, 1) else arb(0)
    )


def div(x: Jet, y: Jet) -> Jet:
    """x / y."""
    return mul(x, power(y, -1))


def _fn(name: str, v):
    if isinstance(v, Span):
        return v.apply(name)
    found = ball.FUNCTIONS[name](v)
    return found if found.is_finite() else UNKNOWN


def _unary(name: str, x: Jet) -> Jet:
    """A smooth function of one variable."""
    v = x.value
    if not v.is_finite():
        return chain(x, UNKNOWN, UNKNOWN, lambda: UNKNOWN)
    y = _fn(name, v)
    if name == "tanh":
        first = _fn("sech2", v)
        return chain(x, y, first, lambda: -2 * y * first)
    if name == "logistic":
        first = _fn("dlogistic", v)
        return chain(x, y, first, lambda: first * (1 - 2 * y))
    if name == "exp":
        return chain(x, y, y, lambda: y)
    if name == "expm1":
        e = v.exp()
        return chain(x, y, e, lambda: e)
    if name == "sin":
        return chain(x, y, v.cos(), lambda: -y)
    if name == "cos":
        return chain(x, y, -v.sin(), lambda: -y)
    if name == "sinh":
        return chain(x, y, _fn("cosh", v), lambda: y)
    if name == "cosh":
        return chain(x, y, _fn("sinh", v), lambda: y)
    if name == "tan":
        first = 1 + _fn("square", y)
        return chain(x, y, first, lambda: 2 * y * first)
    if name == "atan":
        first = 1 / (1 + _fn("square", v))
        return chain(x, y, first, lambda: -2 * v * first * first)
    if name in ("log", "log1p"):
        first = 1 / (v + 1 if name == "log1p" else v) if y.is_finite() else UNKNOWN
        return chain(x, y, first, lambda: -first * first)
    if name == "sqrt":
        first = 1 / (2 * y) if y > 0 else UNKNOWN
        return chain(x, y, first, lambda: -first / (2 * v) if v > 0 else UNKNOWN)
    if name == "rsqrt":
        first = -y / (2 * v) if v > 0 else UNKNOWN
        return chain(x, y, first, lambda: -3 * first / (2 * v) if v > 0 else UNKNOWN)
    if name in ("asin", "acos"):
        rest = 1 - _fn("square", v)
        slope = rest.rsqrt() if rest > 0 else UNKNOWN
        first = slope if name == "asin" else -slope
        return chain(x, y, first, lambda: first * v / rest if rest > 0 else UNKNOWN)
    if name == "sech2":
        t = _fn("tanh", v)
        return chain(x, y, -2 * t * y, lambda: y * (6 * t * t - 2))
    if name == "dlogistic":
        s = _fn("logistic", v)
        return chain(x, y, y * (1 - 2 * s), lambda: y * (1 - 6 * y))
    raise NotImplementedError(f"fn: no derivative in balls of the operation {name!r}")


def _extreme(x: Jet, y: Jet, larger: bool) -> Jet:
    """max or min."""
    first, second = (x, y) if larger else (y, x)
    if first.value > second.value:
        return x
    if first.value < second.value:
        return y
    value = x.value.max(y.value) if larger else x.value.min(y.value)
    gradient = tuple(p.union(q) for p, q in zip(x.gradient, y.gradient))
    return Jet(value, gradient, (UNKNOWN,) * len(x.hessian))


def _abs(x: Jet) -> Jet:
    zero = constant(arb(0), len(x.gradient), 2 if x.hessian else 1)
    return _extreme(x, sub(zero, x), True)


def _neg(x: Jet) -> Jet:
    return Jet(*(tuple(-p for p in a) if isinstance(a, tuple) else -a for a in x))


def operation(step, *entries):
    """One elementwise step on jets."""
    name = step.op
    pairs = {
        **{"add": add, "sub": sub, "mul": mul, "div": div, "neg": _neg, "abs": _abs},
        "square": square,
        "max": lambda x, y: _extreme(x, y, True),
        "min": lambda x, y: _extreme(x, y, False),
    }
    if name in pairs:
        return pairs[name](*entries)
    if name == "integer_pow":
        return power(entries[0], step.params[0])
    return _unary(name, *entries)


def wrap(entries, shape) -> np.ndarray:
    """An array of jets, which NumPy would take for sequences."""
    found = np.empty(len(entries), object)
    for k, entry in enumerate(entries):
        found[k] = entry
    return found.reshape(shape)


ADD, MUL, SQUARE = (Step(op, (), (), ()) for op in ("add", "mul", "square"))
JOINS = {"reduce_sum": ADD, "reduce_prod": MUL}
JOINS |= {"reduce_max": Step("max", (), (), ()), "reduce_min": Step("min", (), (), ())}


def _dot(step, a: np.ndarray, b: np.ndarray, apply: Callable) -> np.ndarray:
    shape, rows = ball.contraction(step, a, b)
    found = []
    for left, right in rows:
        parts = [apply(SQUARE, p) if p is q else apply(MUL, p, q) for p, q in zip(left, right)]
        found.append(functools.reduce(functools.partial(apply, ADD), parts))
    return wrap(found, shape)


def _reduce(step, x: np.ndarray, apply: Callable) -> np.ndarray:
    if step.op not in JOINS:
        raise NotImplementedError(f"fn: no derivative in balls of the operation {step.op!r}")
    axes = step.params[0]
    x = x.transpose([*(i for i in range(x.ndim) if i not in axes), *axes])
    rows = x.reshape((int(np.prod(step.shape, dtype=int)), -1))
    join = functools.partial(apply, JOINS[step.op])
    return wrap([functools.reduce(join, row) for row in rows], step.shape)


class _Scalar:
    """An entry that is added, multiplied and divided by elementwise steps."""

    def __init__(self, entry, apply: Callable):
        self.entry, self.apply = entry, apply

    def _by(self, op: str, other):
        if isinstance(other, float):
            return self  # 0, where a sum begins
        return _Scalar(self.apply(Step(op, (), (), ()), self.entry, other.entry), self.apply)

    __add__ = __radd__ = functools.partialmethod(_by, "add")
    __sub__ = functools.partialmethod(_by, "sub")
    __mul__ = functools.partialmethod(_by, "mul")
    __truediv__ = functools.partialmethod(_by, "div")


def _solved(M: np.ndarray, b: np.ndarray, apply: Callable) -> list:
    """M⁻¹ b by elimination."""
    parts = ([_Scalar(v, apply) for v in row] for row in (*M, b))
    *rows, right = parts
    return [v.entry for v in eliminate(rows, right)]


def interpret(
    program: Program, x: list, number: Callable, apply: Callable, solve: Callable | None = None
) -> list[np.ndarray]:
    """The outputs of a program of one vector, entry by entry.

    `x` are the entries of the vector, `number` makes one of a float, and `apply(step, *entries)`
    carries out an elementwise step on them; `solve(M, b)` a linear system, by default written out.
    """
    known = []
    for step in program.steps:
        values = [known[i] for i in step.inputs]
        if step.op == "input":
            if step.shape != (len(x),):
                raise ValueError(f"fn: expected {step.shape} coordinates, got {len(x)}")
            value = wrap(x, step.shape)
        elif step.op in ("constant", "literal"):
            is_literal = step.op == "literal"
            numbers = step.params[0] if is_literal else program.constants[step.params[0]]
            numbers = np.asarray(numbers, np.float64)
            if not np.isfinite(numbers).all():
                raise ValueError(f"fn: expected finite constants, got {numbers.tolist()}")
            value = wrap([number(v) for v in numbers.ravel().tolist()], numbers.shape)
        elif step.op in ball.MOVING:
            value = ball.move(step, values)
        elif step.op == "dot":
            value = _dot(step, *values, apply)
        elif step.op == "solve":
            value = wrap(solve(*values) if solve else _solved(*values, apply), step.shape)
        elif step.op.startswith("reduce_") or step.op == "cumsum":
            value = _reduce(step, values[0], apply)
        else:
            spread = [np.broadcast_to(v, step.shape) for v in values]
            rows = [v.ravel() for v in spread]
            value = wrap([apply(step, *entries) for entries in zip(*rows)], step.shape)
        known.append(value)
    return [known[k] for k in program.outputs]


def evaluate_jets(program: Program, x: list, order: int) -> list[np.ndarray]:
    """The outputs of a program of one vector as arrays of jets over a box of balls."""
    n = len(x)
    start = [variable(v, i, n, order) for i, v in enumerate(x)]
    return interpret(program, start, lambda v: constant(arb(v), n, order), operation)
