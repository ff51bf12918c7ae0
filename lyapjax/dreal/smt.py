"""The same program as terms: SMT-LIB 2 text for any solver, expressions for dReal.

A statement of `prove`, margin(x) < 0 for every x of a box with where(x) <= 0, is turned into the
search for a counterexample:

    x in the box,   where(x) <= 0,   and   margin(x) >= 0  or  a step of the program is undefined

so that "unsat" means proved, also where a division by zero could hide. Constants are written as
the exact decimals of their floats, and every shared step is defined once.
"""

from collections.abc import Callable
from decimal import Context, Decimal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.readers.ball import MOVING, contraction, elementwise, move
from lyapjax.readers.program import Program, trace


class Algebra(NamedTuple):
    """How terms are made: of numbers, and by the operations of a program."""

    number: Callable
    operations: dict[str, Callable]
    share: Callable = lambda term: term


def _dot(step, a, b, operations):
    shape, rows = contraction(step, a, b)
    add, mul = operations["add"], operations["mul"]
    found = np.empty(len(rows), object)
    for k, (left, right) in enumerate(rows):
        total = None
        for x, y in zip(left, right):
            term = operations["square"](x) if x is y else mul(x, y)
            total = term if total is None else add(total, term)
        found[k] = total
    return found.reshape(shape)


def _reduce(step, x, operations):
    name = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "max", "reduce_min": "min"}
    if step.op == "cumsum":
        axis, reverse = step.params
        rows = np.moveaxis(np.flip(x, axis) if reverse else x, axis, 0)
        found = [rows[0]]
        for row in rows[1:]:
            found.append(elementwise(operations["add"], row.shape, found[-1], row))
        found = np.moveaxis(np.stack(found), 0, axis)
        return np.flip(found, axis) if reverse else found
    axes, join = step.params[0], operations[name[step.op]]
    x = x.transpose([*(i for i in range(x.ndim) if i not in axes), *axes])
    rows = x.reshape((*step.shape, -1))
    found = np.empty(step.shape, object)
    for i in np.ndindex(*step.shape):
        value = rows[(*i, 0)]
        for other in rows[i][1:]:
            value = join(value, other)
        found[i] = value
    return found


def _numbers(values, algebra: Algebra) -> np.ndarray:
    values = np.asarray(values, np.float64)
    found = np.empty(values.shape, object)
    for i in np.ndindex(*values.shape):
        if not np.isfinite(values[i]):
            raise ValueError(f"margin_fn: expected finite constants, got {values[i]}")
        found[i] = algebra.number(float(values[i]))
    return found


def terms(program: Program, algebra: Algebra, inputs) -> tuple[list[np.ndarray], list]:
    """The outputs of a program as arrays of terms, and conditions under which it is undefined."""
    known, undefined = [], []
    for step in program.steps:
        values = [known[i] for i in step.inputs]
        operations = algebra.operations
        if step.op == "input":
            value = inputs[step.params[0]]
        elif step.op == "constant":
            value = _numbers(program.constants[step.params[0]], algebra)
        elif step.op == "literal":
            value = _numbers(step.params[0], algebra)
        elif step.op == "truth":
            value = np.full(step.shape, operations["truth"](step.params[0]), object)
        elif step.op == "truth_array":
            flags = [operations["truth"](bool(v)) for v in step.params[1]]
            value = np.empty(len(flags), object)
            value[:] = flags
            value = value.reshape(step.params[0])
        elif step.op in MOVING:
            value = move(step, values)
        elif step.op == "dot":
            value = _dot(step, *values, operations)
        elif step.op in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "cumsum"):
            value = _reduce(step, values[0], operations)
        else:
            name, extra = step.op, step.params if step.op == "integer_pow" else ()
            if name not in operations:
                raise NotImplementedError(f"fn: no term for the operation {name!r}")

            def make(*entries, operation=operations[name], extra=extra):
                return operation(*entries, *extra)

            value = elementwise(make, step.shape, *values)
            checked = "reciprocal" if name == "integer_pow" and extra[0] < 0 else name
            if checked in UNDEFINED:
                last = np.broadcast_to(values[-1], step.shape)
                undefined += [UNDEFINED[checked](operations, algebra, v) for v in last.flat]
        if step.op not in MOVING and step.inputs:
            value = elementwise(algebra.share, np.shape(value), value)
        known.append(value)
    return [known[k] for k in program.outputs], undefined


# Where an operation has no real value, as a condition on its last argument.
UNDEFINED = {
    "div": lambda op, algebra, x: op["eq"](x, algebra.number(0.0)),
    "reciprocal": lambda op, algebra, x: op["eq"](x, algebra.number(0.0)),
    "sqrt": lambda op, algebra, x: op["lt"](x, algebra.number(0.0)),
    "rsqrt": lambda op, algebra, x: op["le"](x, algebra.number(0.0)),
    "log": lambda op, algebra, x: op["le"](x, algebra.number(0.0)),
    "log1p": lambda op, algebra, x: op["le"](x, algebra.number(-1.0)),
    "tan": lambda op, algebra, x: op["eq"](op["cos"](x), algebra.number(0.0)),
    "asin": lambda op, algebra, x: op["lt"](algebra.number(1.0), op["abs"](x)),
    "acos": lambda op, algebra, x: op["lt"](algebra.number(1.0), op["abs"](x)),
}


def statement(margin_fn: Callable, where_fn: Callable | None, n: int) -> Program:
    """margin and the entries of where, as one program of scalars."""

    def both(x):
        regions = [] if where_fn is None else [jnp.ravel(where_fn(x))]
        parts = jnp.concatenate([jnp.ravel(margin_fn(x)), *regions])
        return [parts[i] for i in range(parts.shape[0])]

    found = trace(both, jnp.zeros(n))
    if any(isinstance(c, jax.core.Tracer) for c in found.constants):
        raise ValueError("margin_fn: expected concrete numbers, not traced ones")
    return found


def _decimal(value: float) -> str:
    """The exact decimal of a float."""
    text = format(Context(prec=1100).create_decimal(Decimal(abs(value))), "f")
    text = text if "." in text else text + ".0"
    return f"(- {text})" if value < 0 else text


def _call(name: str) -> Callable:
    return lambda *parts: f"({name} {' '.join(parts)})"


def _pow(x: str, n: int) -> str:
    return f"(/ 1.0 {_pow(x, -n)})" if n < 0 else f"(^ {x} {n})"


TEXT = {
    **{name: _call(name) for name in ("sqrt", "exp", "log", "tanh", "sin", "cos", "tan", "abs")},
    **{name: _call(name) for name in ("sinh", "cosh", "max", "min", "and", "or", "not")},
    **{"atan": _call("arctan"), "asin": _call("arcsin"), "acos": _call("arccos")},
    **{"add": _call("+"), "sub": _call("-"), "mul": _call("*"), "div": _call("/")},
    **{"lt": _call("<"), "le": _call("<="), "gt": _call(">"), "ge": _call(">="), "eq": _call("=")},
    "ne": lambda x, y: f"(not (= {x} {y}))",
    "neg": lambda x: f"(- {x})",
    "square": lambda x: f"(^ {x} 2)",
    "integer_pow": _pow,
    "rsqrt": lambda x: f"(/ 1.0 (sqrt {x}))",
    "log1p": lambda x: f"(log (+ 1.0 {x}))",
    "expm1": lambda x: f"(- (exp {x}) 1.0)",
    "sech2": lambda x: f"(- 1.0 (^ (tanh {x}) 2))",
    "logistic": lambda x: f"(/ 1.0 (+ 1.0 (exp (- {x}))))",
    "dlogistic": lambda x: f"(/ (- 1.0 (^ (tanh (/ {x} 2.0)) 2)) 4.0)",
    "sign": lambda x: f"(ite (> {x} 0.0) 1.0 (ite (< {x} 0.0) (- 1.0) 0.0))",
    "select": lambda p, first, second: f"(ite {p} {second} {first})",
    "indicator": lambda p: f"(ite {p} 1.0 0.0)",
    "truth": lambda p: "true" if p else "false",
}


def smt2(margin_fn: Callable, lo, hi, *, where_fn: Callable | None = None) -> str:
    """A statement of `prove` as an SMT-LIB 2 problem whose solutions are its counterexamples.

        exists x in [lo, hi] with where(x) <= 0 and margin(x) >= 0 (or undefined)

    In the dialect of dReal: transcendental functions by name, x^n as (^ x n), logic QF_NRA.

    Args:
      margin_fn: (n,) -> () JAX function of the supported primitives.
      lo: (n,) lower corner of the box.
      hi: (n,) upper corner.
      where_fn: (n,) -> (k,) function, as in `prove`.

    Returns:
      The text; every number in it is the exact decimal of a float.

    Raises:
      ValueError: corners that are not finite or not in order; infinite constants.
      NotImplementedError: an operation without a term.

    Reference:
      Barrett, Fontaine & Tinelli, The SMT-LIB Standard 2.6; Gao, Kong & Clarke, dReal, CADE 2013.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> text = ly.smt2(lambda x: x[0] - 1.5, jnp.zeros(1), jnp.ones(1))
      >>> print(text.splitlines()[-3])
      (assert (>= t0 0.0))
    """
    lo, hi = check_corners(lo, hi)
    program = statement(margin_fn, where_fn, len(lo))
    names = [f"x{i}" for i in range(len(lo))]
    lines = ["(set-logic QF_NRA)", *(f"(declare-fun {name} () Real)" for name in names)]
    for name, low, high in zip(names, lo.tolist(), hi.tolist()):
        lines.append(f"(assert (and (<= {_decimal(low)} {name}) (<= {name} {_decimal(high)})))")
    defined: dict[str, str] = {}

    def share(term: str) -> str:
        if not term.startswith("(") or (term.startswith("(- ") and term.count(" ") == 1):
            return term
        if term not in defined:
            truth = term.split(" ", 1)[0][1:] in {"<", "<=", ">", ">=", "=", "and", "or", "not"}
            defined[term] = f"t{len(defined)}"
            kind = "Bool" if truth else "Real"
            lines.append(f"(define-fun {defined[term]} () {kind} {term})")
        return defined[term]

    algebra = Algebra(_decimal, TEXT, share)
    (margin, *regions), undefined = terms(program, algebra, [np.array(names, object)])
    lines += [f"(assert (<= {region[()]} 0.0))" for region in regions]
    wrong = [f"(>= {margin[()]} 0.0)", *dict.fromkeys(undefined)]
    lines.append(f"(assert {wrong[0] if len(wrong) == 1 else _call('or')(*wrong)})")
    return "\n".join([*lines, "(check-sat)", "(exit)"]) + "\n"


def check_corners(lo, hi) -> tuple[np.ndarray, np.ndarray]:
    """The corners of one box as finite float64 vectors."""
    lo, hi = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    if lo.ndim != 1 or lo.shape != hi.shape:
        raise ValueError(f"hi: expected corners of one shape (n,), got {lo.shape} and {hi.shape}")
    if not (np.isfinite(lo).all() and np.isfinite(hi).all() and (lo <= hi).all()):
        raise ValueError("lo: expected finite corners with lo <= hi, and no NaN")
    return lo, hi
