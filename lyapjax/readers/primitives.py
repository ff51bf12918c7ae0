"""`inline`: the equations of a jaxpr, calls and scans included, written as steps of a program.

One small function a primitive of JAX. A value is the place of a step (an `int`) or, for integers
and for truth values that do not depend on the inputs, its NumPy array: indices, masks and loop
counters are evaluated here, exactly, and never reach the arithmetics.
"""

import jax
import numpy as np
from jax.extend.core import Literal

from lyapjax.readers.program import BINARY, UNARY, Builder, check_dtype, hashable
from lyapjax.systems.elimination import WHOLE

MAX_SCAN = 10_000
SAME = {"add_any": "add", "copy": "copy", "copy_p": "copy", "stop_gradient": "copy"}
CALLS = {
    **{"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr"},
    **{"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "remat2": "jaxpr"},
    **{"checkpoint": "jaxpr", "remat": "jaxpr", "custom_lin": "call_jaxpr"},
    **{"custom_vjp_call_jaxpr": "fun_jaxpr"},
}


def inline(builder: Builder, jaxpr, consts, args) -> list:
    """Write the equations of a jaxpr; args and results are places or NumPy arrays."""
    env = {}

    def read(atom):
        if isinstance(atom, Literal):
            return enter(builder, atom.val, atom.aval)
        return env[atom]

    for var, value in zip(jaxpr.constvars, consts):
        env[var] = enter(builder, value, var.aval)
    for var, value in zip(jaxpr.invars, args):
        env[var] = value
    for eqn in jaxpr.eqns:
        for var in eqn.outvars:
            check_dtype(var.aval, f"the result of {eqn.primitive.name}")
        results = _equation(builder, eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, results))
    return [read(atom) for atom in jaxpr.outvars]


def enter(builder: Builder, value, aval):
    """A constant of the jaxpr: a step if real, itself if an integer or a truth value."""
    check_dtype(aval, "a constant")
    if aval.dtype == np.float64:
        return builder.constant(value)
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"fn: expected concrete {aval.dtype} constants, got a traced one")
    return np.asarray(value)


def _equation(builder: Builder, eqn, values: list) -> list:
    """The results of one equation."""
    name, params = eqn.primitive.name, eqn.params
    if builder.whole and params.get("name") == WHOLE:
        return [_solve(builder, *(_step(builder, v) for v in values))]
    if name in CALLS:
        inner = params[CALLS[name]]
        consts = getattr(inner, "consts", ())
        return inline(builder, getattr(inner, "jaxpr", inner), consts, values)
    if name == "scan":
        return _scan(builder, params, values)
    shape = eqn.outvars[0].aval.shape
    if all(isinstance(v, np.ndarray) for v in values):
        # Integers only: evaluated by JAX itself, exactly.
        with jax.ensure_compile_time_eval():
            found = eqn.primitive.bind(*values, **params)
        found = found if eqn.primitive.multiple_results else [found]
        return [enter(builder, np.asarray(v), var.aval) for v, var in zip(found, eqn.outvars)]
    name = SAME.get(name, name)
    if name == "copy":
        return [values[0]]
    arithmetic = name in UNARY | BINARY or name.startswith("reduce_")
    expected = np.dtype(bool if name in ("and", "or", "not") else np.float64)
    kinds = {var.aval.dtype for var in eqn.invars}
    if arithmetic and kinds != {expected}:
        what = ", ".join(sorted(map(str, kinds)))
        raise NotImplementedError(f"fn: no rule for {name} of values of type {what}")
    if name in UNARY | BINARY:
        return [builder.elementwise(name, [_step(builder, v) for v in values], shape)]
    if name not in RULES:
        raise NotImplementedError(
            f"fn: no enclosure is known for the primitive {name!r} of JAX; write the function with "
            "others (jnp.where for cond, a fixed number of steps for while)"
        )
    return RULES[name](builder, eqn, values)


def _solve(builder: Builder, M: int, b: int) -> int:
    """a of M a = b. The elimination reads the lower triangle, so the whole step must too."""
    n = builder.steps[b].shape[0]
    i, j = np.indices((n, n))
    M = builder.emit("take", (M,), hashable(np.maximum(i, j) * n + np.minimum(i, j)), (n, n))
    return builder.emit("solve", (M, b), (), (n,))


def _step(builder: Builder, value) -> int:
    """A value as a step: truth values that are known become one."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype != bool:
        raise NotImplementedError(f"fn: no rule mixes {value.dtype} values with real ones")
    return builder.emit("truth_array", (), hashable(value), value.shape)


def _scan(builder: Builder, params, values) -> list:
    """Every turn of the loop, one after the other."""
    length, num_consts, num_carry = params["length"], params["num_consts"], params["num_carry"]
    if length > MAX_SCAN:
        raise ValueError(f"fn: expected scans of at most {MAX_SCAN} steps, got {length}")
    body = params["jaxpr"]
    fixed, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
    rows = [[] for _ in range(len(body.jaxpr.outvars) - num_carry)]
    order = range(length - 1, -1, -1) if params["reverse"] else range(length)
    for i in order:
        here = [_row(builder, v, i) for v in values[num_consts + num_carry :]]
        out = inline(builder, body.jaxpr, body.consts, [*fixed, *carry, *here])
        carry = out[:num_carry]
        for found, value in zip(rows, out[num_carry:]):
            found.append(value)
    stacked = []
    for found in rows:
        found = found[::-1] if params["reverse"] else found
        if all(isinstance(v, np.ndarray) for v in found):
            stacked.append(np.stack(found))
            continue
        places = [_step(builder, v) for v in found]
        inner = builder.steps[places[0]].shape
        places = [builder.emit("reshape", (k,), (), (1, *inner)) for k in places]
        stacked.append(builder.emit("concatenate", places, (0,), (length, *inner)))
    return [*carry, *stacked]


def _row(builder: Builder, value, i: int):
    if isinstance(value, np.ndarray):
        return value[i]
    shape = builder.steps[value].shape
    bounds = ((i, *(0 for _ in shape[1:])), (i + 1, *shape[1:]), (1,) * len(shape))
    row = builder.emit("slice", (value,), bounds, (1, *shape[1:]))
    return builder.emit("reshape", (row,), (), shape[1:])


def _shaping(op: str, *names: str):
    """A rule that passes some parameters on as tuples of integers."""

    def rule(builder, eqn, values):
        params = tuple(tuple(int(v) for v in eqn.params[name]) for name in names)
        places = [_step(builder, v) for v in values]
        return [builder.emit(op, places, params, eqn.outvars[0].aval.shape)]

    return rule


def _reshape(builder, eqn, values):
    if eqn.params.get("dimensions") is not None:
        raise NotImplementedError("fn: no rule for reshape with an order of dimensions")
    return [builder.emit("reshape", (_step(builder, values[0]),), (), eqn.outvars[0].aval.shape)]


def _slice(builder, eqn, values):
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(start)
    params = tuple(tuple(int(v) for v in p) for p in (start, limit, strides))
    return [builder.emit("slice", (_step(builder, values[0]),), params, eqn.outvars[0].aval.shape)]


def _axis(op: str, name: str):
    """A rule with one integer parameter."""

    def rule(builder, eqn, values):
        places = [_step(builder, v) for v in values]
        return [builder.emit(op, places, (int(eqn.params[name]),), eqn.outvars[0].aval.shape)]

    return rule


def _stack(builder, eqn, values):
    axis, shape = int(eqn.params["axis"]), eqn.outvars[0].aval.shape
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    places = [builder.emit("reshape", (_step(builder, v),), (), one) for v in values]
    return [builder.emit("concatenate", places, (axis,), shape)]


def _split(builder, eqn, values):
    place, axis, start = _step(builder, values[0]), int(eqn.params["axis"]), 0
    shape, found = builder.steps[place].shape, []
    for size in eqn.params["sizes"]:
        low, high = [0] * len(shape), list(shape)
        low[axis], high[axis] = start, start + int(size)
        start += int(size)
        bounds = (tuple(low), tuple(high), (1,) * len(shape))
        out = tuple(h - l for l, h in zip(low, high))
        found.append(builder.emit("slice", (place,), bounds, out))
    return found


def _integer_pow(builder, eqn, values):
    y, shape = int(eqn.params["y"]), eqn.outvars[0].aval.shape
    if y == 2:
        return [builder.emit("square", values, (), shape)]
    return [builder.emit("integer_pow", values, (y,), shape)]


def _exp2(builder, eqn, values):
    two = builder.constant(2.0)
    return [_power(builder, two, values[0], eqn.outvars[0].aval.shape)]


def _pow(builder, eqn, values):
    x, y = values
    shape = eqn.outvars[0].aval.shape
    known = y
    if not isinstance(y, np.ndarray):
        step = builder.steps[y]
        known = builder.constants[step.params[0]] if step.op == "constant" else None
    number = float(known) if isinstance(known, np.ndarray) and known.ndim == 0 else np.nan
    if number.is_integer() and abs(number) < 1000:
        return [builder.emit("integer_pow", (x,), (int(number),), shape)]
    if isinstance(y, np.ndarray):
        raise NotImplementedError("fn: no rule for pow with an array of integers")
    return [_power(builder, x, y, shape)]


def _power(builder, x, y, shape) -> int:
    """x^y = exp(y log x), for positive x; undefined for others."""
    x, y = builder.spread(x, shape), builder.spread(y, shape)
    logarithm = builder.emit("log", (x,), (), builder.steps[x].shape)
    return builder.emit("exp", (builder.product(y, logarithm, shape),), (), shape)


def _clamp(builder, eqn, values):
    low, x, high = values
    shape = eqn.outvars[0].aval.shape
    return [builder.elementwise("min", [builder.elementwise("max", [x, low], shape), high], shape)]


def _select(builder, eqn, values):
    which, *cases = values
    shape = eqn.outvars[0].aval.shape
    if isinstance(which, np.ndarray) and which.ndim == 0:
        return [cases[int(which)]]
    if len(cases) != 2 or (isinstance(which, np.ndarray) and which.dtype != bool):
        raise NotImplementedError("fn: no rule for select_n of more than two cases")
    places = [builder.spread(_step(builder, v), shape) for v in (which, *cases)]
    return [builder.emit("select", places, (), shape)]


def _convert(builder, eqn, values):
    new = eqn.params["new_dtype"]
    if new == np.float64 and eqn.invars[0].aval.dtype == bool:
        return [builder.emit("indicator", (values[0],), (), eqn.outvars[0].aval.shape)]
    if new == np.float64:
        return [values[0]]
    raise NotImplementedError(
        f"fn: no rule for convert_element_type of what depends on the input to {new}; write "
        "jnp.where for a choice (also for cond and switch)"
    )


def _dot(builder, eqn, values):
    (lhs, rhs), (lhs_batch, rhs_batch) = eqn.params["dimension_numbers"]
    a, b = values
    dims = tuple(tuple(int(v) for v in d) for d in (lhs, rhs, lhs_batch, rhs_batch))
    return [builder.emit("dot", (a, b), dims, eqn.outvars[0].aval.shape)]


def _indexed(builder, eqn, values):
    """Gather and dynamic_slice with known indices: the same operation on the places 0, 1, 2, ….

    An index out of bounds reads what is not there, so it is an error.
    """
    place, *indices = values
    if isinstance(place, np.ndarray) or not all(isinstance(v, np.ndarray) for v in indices):
        raise NotImplementedError(f"fn: {eqn.primitive.name} needs indices that are constants")
    shape = builder.steps[place].shape
    numbers = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    params = dict(eqn.params)
    if "fill_value" in params:
        params["fill_value"] = -1
    with jax.ensure_compile_time_eval():
        found = np.asarray(eqn.primitive.bind(numbers, *indices, **params))
    if (found < 0).any() or (found >= numbers.size).any():
        raise ValueError(f"fn: {eqn.primitive.name} reads outside of an array of shape {shape}")
    return [builder.emit("take", (place,), hashable(found), found.shape)]


def _scatter(builder, eqn, values):
    """x.at[constant].set(y): every entry comes from x or from y."""
    x, indices, y = values
    if not isinstance(indices, np.ndarray) or isinstance(x, np.ndarray):
        raise NotImplementedError("fn: scatter needs indices that are constants")
    if eqn.params.get("update_jaxpr") is not None:
        raise NotImplementedError("fn: no rule for x.at[i].apply; write x.at[i].set(fn(x[i]))")
    shape, other = builder.steps[x].shape, builder.steps[y].shape
    size, extra = int(np.prod(shape)), int(np.prod(other))
    numbers = np.arange(size, dtype=np.int64).reshape(shape)
    sources = np.arange(size, size + extra, dtype=np.int64).reshape(other)
    with jax.ensure_compile_time_eval():
        found = np.asarray(eqn.primitive.bind(numbers, indices, sources, **eqn.params))
    flat = [builder.emit("reshape", (k,), (), (n,)) for k, n in ((x, size), (y, extra))]
    both = builder.emit("concatenate", flat, (0,), (size + extra,))
    return [builder.emit("take", (both,), hashable(found), shape)]


def _dynamic_update_slice(builder, eqn, values):
    x, y, *indices = values
    if not all(isinstance(v, np.ndarray) for v in indices):
        raise NotImplementedError("fn: dynamic_update_slice needs indices that are constants")
    shape, other = builder.steps[x].shape, builder.steps[y].shape
    size, extra = int(np.prod(shape)), int(np.prod(other))
    numbers = np.arange(size, dtype=np.int64).reshape(shape)
    sources = np.arange(size, size + extra, dtype=np.int64).reshape(other)
    with jax.ensure_compile_time_eval():
        found = np.asarray(eqn.primitive.bind(numbers, sources, *indices, **eqn.params))
    flat = [builder.emit("reshape", (k,), (), (n,)) for k, n in ((x, size), (y, extra))]
    both = builder.emit("concatenate", flat, (0,), (size + extra,))
    return [builder.emit("take", (both,), hashable(found), shape)]


def _pad(builder, eqn, values):
    """Padding as a rearrangement of the entries and the padding value."""
    x, value = values
    shape = builder.steps[x].shape
    size = int(np.prod(shape))
    numbers = np.arange(size, dtype=np.int64).reshape(shape)
    with jax.ensure_compile_time_eval():
        found = np.asarray(eqn.primitive.bind(numbers, np.int64(size), **eqn.params))
    value = builder.emit("broadcast", (value,), ((),), (1,))
    flat = builder.emit("reshape", (x,), (), (size,))
    both = builder.emit("concatenate", (flat, value), (0,), (size + 1,))
    return [builder.emit("take", (both,), hashable(found), found.shape)]


def _tile(builder, eqn, values):
    shape = builder.steps[values[0]].shape
    reps = tuple(int(r) for r in eqn.params["reps"])
    both = tuple(n for pair in zip(reps, shape) for n in pair)
    axes = tuple(range(1, 2 * len(shape), 2))
    wide = builder.emit("broadcast", values, (axes,), both)
    return [builder.emit("reshape", (wide,), (), eqn.outvars[0].aval.shape)]


def _is_finite(builder, eqn, values):
    """Real numbers are; where there is none, nothing is claimed: the step that has none stays."""
    return [builder.emit("truth", (values[0],), (True,), eqn.outvars[0].aval.shape)]


def _cumsum(builder, eqn, values):
    params = (int(eqn.params["axis"]), bool(eqn.params["reverse"]))
    return [builder.emit("cumsum", values, params, eqn.outvars[0].aval.shape)]


RULES = {
    "integer_pow": _integer_pow,
    "exp2": _exp2,
    "pow": _pow,
    "clamp": _clamp,
    "select_n": _select,
    "convert_element_type": _convert,
    "dot_general": _dot,
    "reshape": _reshape,
    "squeeze": _shaping("reshape"),
    "expand_dims": _shaping("reshape"),
    "broadcast_in_dim": _shaping("broadcast", "broadcast_dimensions"),
    "transpose": _shaping("transpose", "permutation"),
    "rev": _shaping("rev", "dimensions"),
    "reduce_sum": _shaping("reduce_sum", "axes"),
    "reduce_max": _shaping("reduce_max", "axes"),
    "reduce_min": _shaping("reduce_min", "axes"),
    "reduce_prod": _shaping("reduce_prod", "axes"),
    "slice": _slice,
    "concatenate": _axis("concatenate", "dimension"),
    "stack": _stack,
    "split": _split,
    "gather": _indexed,
    "dynamic_slice": _indexed,
    "scatter": _scatter,
    "dynamic_update_slice": _dynamic_update_slice,
    "pad": _pad,
    "cumsum": _cumsum,
    "tile": _tile,
    "is_finite": _is_finite,
}
