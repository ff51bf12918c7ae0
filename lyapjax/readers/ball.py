"""The same program read in ball arithmetic: Arb, on the host, number by number.

An Arb ball is a midpoint of any precision and a radius, and every operation encloses its exact
result. It shares with the fast path the list of steps, and nothing else: no floating-point
argument, no XLA. It serves for what must not be wrong: counterexamples, replayed proofs, tests.

A ball that is not finite means that nothing is known; comparisons with it are neither true nor
false. Truth values are True, False or None for unknown.
"""

from collections.abc import Callable

import numpy as np
from flint import arb, ctx

from lyapjax.readers.program import Program
from lyapjax.systems.elimination import eliminate

BITS = 96
HUGE = arb(10) ** 6


def from_ends(lo: float, hi: float) -> arb:
    """A ball that holds [lo, hi]."""
    if not (np.isfinite(lo) and np.isfinite(hi)):
        return arb(0, "inf")
    return arb(float(lo)).union(arb(float(hi)))


def balls(lo, hi=None) -> np.ndarray:
    """An array of balls around floats, each exact, or around intervals."""
    lo = np.asarray(lo, np.float64)
    hi = lo if hi is None else np.asarray(hi, np.float64)
    found = np.empty(lo.shape, object)
    for i in np.ndindex(*lo.shape):
        found[i] = arb(float(lo[i])) if lo[i] == hi[i] else from_ends(lo[i], hi[i])
    return found


def _sech2(x: arb) -> arb:
    """1/cosh², which falls from 0 to both sides."""
    # Beyond ±HUGE only a bound is given, as exp itself would leave Arb's range.
    least, most = arb(x.abs_lower()).min(HUGE), arb(x.abs_upper())
    far = 1 / most.cosh() ** 2 if most < HUGE else arb(0)
    return (1 / least.cosh() ** 2).union(far)


def _logistic(x: arb) -> arb:
    ends = []
    for end in (arb(x.lower()), arb(x.upper())):
        if abs(end) < HUGE:
            ends.append(1 / (1 + (-end).exp()))
        else:
            near = 1 / (1 + HUGE.exp())
            ends.append(arb(0).union(near) if end < 0 else arb(1).union(1 - near))
    return ends[0].union(ends[1])


def _hyperbolic(x: arb, name: str) -> arb:
    return getattr(x, name)() if abs(x) < arb(10) ** 15 else from_ends(-np.inf, np.inf)


def _dlogistic(x: arb) -> arb:
    return _sech2(x / 2) / 4


def _tanh(x: arb) -> arb:
    return arb(x.lower()).tanh().union(arb(x.upper()).tanh())


def _square(x: arb) -> arb:
    least, most = abs(x).abs_lower(), abs(x).abs_upper()
    return (arb(least) ** 2).union(arb(most) ** 2)


def integer_pow(x: arb, n: int) -> arb:
    """xⁿ, even powers never negative."""
    if n < 0:
        return 1 / integer_pow(x, -n)
    if n % 2:
        return (arb(x.lower()) ** n).union(arb(x.upper()) ** n)
    least, most = abs(x).abs_lower(), abs(x).abs_upper()
    return (arb(least) ** n).union(arb(most) ** n)


def _sign(x: arb) -> arb:
    if x > 0:
        return arb(1)
    if x < 0:
        return arb(-1)
    return arb(0) if x == 0 else from_ends(-1, 1)


FUNCTIONS = {
    "neg": lambda x: -x,
    "square": _square,
    "sqrt": lambda x: x.sqrt() if x >= 0 else arb("nan"),
    "rsqrt": lambda x: x.rsqrt() if x > 0 else arb("nan"),
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.expm1(),
    "log": lambda x: x.log() if x > 0 else arb("nan"),
    "log1p": lambda x: x.log1p() if x > -1 else arb("nan"),
    "tanh": _tanh,
    "sech2": _sech2,
    "logistic": _logistic,
    "dlogistic": _dlogistic,
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
    "tan": lambda x: x.tan(),
    "atan": lambda x: x.atan(),
    "asin": lambda x: x.asin(),
    "acos": lambda x: x.acos(),
    "sinh": lambda x: _hyperbolic(x, "sinh"),
    "cosh": lambda x: _hyperbolic(x, "cosh"),
    "abs": lambda x: abs(x),
    "sign": _sign,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y if not y.contains(0) else arb("nan"),
    "max": lambda x, y: x.max(y),
    "min": lambda x, y: x.min(y),
}


def _less(x: arb, y: arb):
    return True if x < y else False if x >= y else None


def _equal(x: arb, y: arb):
    return True if x == y else False if x != y else None


def _not(p):
    return None if p is None else not p


def _and(p, q):
    return False if p is False or q is False else None if p is None or q is None else True


def _select(p, first: arb, second: arb) -> arb:
    if p is None:
        return first.union(second)
    return second if p else first


TRUTHS = {
    "lt": _less,
    "ge": lambda x, y: _not(_less(x, y)),
    "gt": lambda x, y: _less(y, x),
    "le": lambda x, y: _not(_less(y, x)),
    "eq": _equal,
    "ne": lambda x, y: _not(_equal(x, y)),
    "not": _not,
    "and": _and,
    "or": lambda p, q: _not(_and(_not(p), _not(q))),
    "select": _select,
    "indicator": lambda p: from_ends(0, 1) if p is None else arb(int(p)),
}


def elementwise(fn: Callable, shape, *arrays) -> np.ndarray:
    """fn of each entry of arrays that broadcast to one shape."""
    arrays = [np.broadcast_to(v, shape) for v in arrays]
    found = np.empty(shape, object)
    for i in np.ndindex(*shape):
        found[i] = fn(*(v[i] for v in arrays))
    return found


def move(step, arrays) -> np.ndarray:
    """A step that only moves entries."""
    x, params = arrays[0], step.params
    if step.op == "reshape":
        return x.reshape(step.shape)
    if step.op == "broadcast":
        shape = [1] * len(step.shape)
        for axis, size in zip(params[0], x.shape):
            shape[axis] = size
        return np.broadcast_to(x.reshape(shape), step.shape)
    if step.op == "transpose":
        return x.transpose(params[0])
    if step.op == "slice":
        return x[tuple(slice(*bounds) for bounds in zip(*params))]
    if step.op == "rev":
        return np.flip(x, params[0])
    if step.op == "concatenate":
        return np.concatenate(arrays, axis=params[0])
    return x.reshape(-1)[np.asarray(params[1], int)].reshape(params[0])


def contraction(step, a: np.ndarray, b: np.ndarray):
    """The shape of a dot's result, and the two factors of each of its entries."""
    lhs, rhs, lhs_batch, rhs_batch = step.params
    free_a = [i for i in range(a.ndim) if i not in lhs + lhs_batch]
    free_b = [i for i in range(b.ndim) if i not in rhs + rhs_batch]
    count = int(np.prod([a.shape[i] for i in lhs]))
    shared = [a.shape[i] for i in lhs_batch]
    rows = int(np.prod([a.shape[i] for i in free_a])), int(np.prod([b.shape[i] for i in free_b]))
    a = a.transpose([*lhs_batch, *free_a, *lhs]).reshape((*shared, rows[0], count))
    b = b.transpose([*rhs_batch, *free_b, *rhs]).reshape((*shared, rows[1], count))
    pairs = [
        (a[(*i[:-2], i[-2])], b[(*i[:-2], i[-1])]) for i in np.ndindex(*shared, rows[0], rows[1])
    ]
    return step.shape, pairs


def dot(step, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A contraction, entry by entry."""
    shape, rows = contraction(step, a, b)
    found = np.empty(len(rows), object)
    for k, (x, y) in enumerate(rows):
        found[k] = sum((_square(p) if p is q else p * q for p, q in zip(x, y)), arb(0))
    return found.reshape(shape)


def reduce(step, x: np.ndarray) -> np.ndarray:
    """Sums, products and extremes along axes."""
    if step.op == "cumsum":
        axis, reverse = step.params
        x = np.flip(x, axis) if reverse else x
        x = np.cumsum(x, axis=axis)
        return np.flip(x, axis) if reverse else x
    joins = {
        "reduce_sum": lambda p, q: p + q,
        "reduce_prod": lambda p, q: p * q,
        "reduce_max": lambda p, q: p.max(q),
        "reduce_min": lambda p, q: p.min(q),
    }
    axes = step.params[0]
    x = x.transpose([*(i for i in range(x.ndim) if i not in axes), *axes])
    rows = x.reshape((*step.shape, -1))
    found = np.empty(step.shape, object)
    for i in np.ndindex(*step.shape):
        value = rows[(*i, 0)]
        for other in rows[i][1:]:
            value = joins[step.op](value, other)
        found[i] = value
    return found


MOVING = {"reshape", "broadcast", "transpose", "slice", "concatenate", "rev", "take"}


def read(step, values: list[np.ndarray]) -> np.ndarray:
    """One step, from the values of its inputs."""
    if step.op in MOVING:
        return move(step, values)
    if step.op == "truth":  # of a number, if there is one
        known = step.params[0]
        return elementwise(lambda v: known if v.is_finite() else None, step.shape, *values)
    if step.op == "dot":
        return dot(step, *values)
    if step.op == "solve":
        return np.array(eliminate(*values), object)
    if step.op in ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "cumsum"):
        return reduce(step, values[0])
    if step.op == "integer_pow":
        return elementwise(lambda x: integer_pow(x, step.params[0]), step.shape, *values)
    if step.op in TRUTHS:
        return elementwise(TRUTHS[step.op], step.shape, *values)
    if step.op not in FUNCTIONS:
        raise NotImplementedError(f"fn: no reading in balls of the operation {step.op!r}")
    fn = FUNCTIONS[step.op]

    def strict(*entries):
        return fn(*entries) if all(v.is_finite() for v in entries) else arb("nan")

    return elementwise(strict, step.shape, *values)


def leaf(step, constants, inputs):
    """The value of a step without inputs, or None."""
    if step.op == "input":
        return inputs[step.params[0]]
    if step.op == "constant":
        return balls(constants[step.params[0]])
    if step.op == "literal":
        return balls(step.params[0])
    if step.op == "truth" and not step.inputs:
        return np.full(step.shape, step.params[0], object)
    if step.op == "truth_array":
        return np.array([bool(v) for v in step.params[1]], object).reshape(step.params[0])
    return None


def evaluate_balls(program: Program, *inputs) -> list[np.ndarray]:
    """The outputs of a program in ball arithmetic.

        each returned ball contains f(x) for every x in the given balls

    Args:
      program: from `trace`.
      inputs: arrays of floats, each exact, or arrays of Arb balls, one for each input.

    Returns:
      One NumPy array of `flint.arb` (True, False or None for truth values) for each output. If the
      function has no real value somewhere, a ball that is not finite.

    Raises:
      NotImplementedError: an operation that has no reading in balls.

    Reference:
      Johansson, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic, 2017.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> program = ly.trace(lambda x: jnp.sin(x[0]) - x[0], jnp.zeros(1))
      >>> ball = ly.evaluate_balls(program, [0.5])[0][()]
      >>> ball < 0, abs(float(ball) + 0.0205744613957970) < 1e-15
      (True, True)
    """
    old = ctx.prec
    ctx.prec = BITS
    try:
        arrays = []
        for value in inputs:
            value = np.asarray(value)
            arrays.append(value if value.dtype == object else balls(value))
        known = []
        for step in program.steps:
            value = leaf(step, program.constants, arrays)
            known.append(read(step, [known[i] for i in step.inputs]) if value is None else value)
        return [known[k] for k in program.outputs]
    finally:
        ctx.prec = old
