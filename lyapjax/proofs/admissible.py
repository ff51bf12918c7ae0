"""What no proof can be made of, refused by name: wrong shapes, jumps, made-up derivatives."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.proofs.statements import is_family, program_of
from lyapjax.readers.program import JUMPS, KINKS, Program
from lyapjax.systems.domains import Ball, Box


def value(fn: Callable, x):
    """fn(x), as a function of both."""
    return fn(x)


def program_at(fn: Callable, n: int) -> Program:
    """The program of fn, traced once if fn is a family."""
    return program_of(value, fn, n)


# Whose derivative in JAX is not that of their values: exp2 has ln 2 as a float in it.
UNTRUE = {"stop_gradient", "exp2"}


def custom_rules(fn: Callable, n: int) -> frozenset[str]:
    """The calls in fn whose derivative is what somebody says it is."""
    leaves, tree = jax.tree.flatten(fn)
    if not is_family(fn) or any(isinstance(v, jax.core.Tracer) for v in leaves):
        return _custom_rules(fn, n)
    return _known_rules(tree, tuple((np.shape(v), np.asarray(v).dtype) for v in leaves), n)


@functools.lru_cache(maxsize=256)
def _known_rules(tree, kinds, n: int) -> frozenset[str]:
    leaves = [np.zeros(shape, dtype) for shape, dtype in kinds]
    return _custom_rules(jax.tree.unflatten(tree, [jnp.asarray(v) for v in leaves]), n)


def _custom_rules(fn: Callable, n: int) -> frozenset[str]:
    found, stack = set(), [jax.make_jaxpr(fn)(jnp.zeros(n)).jaxpr]
    while stack:
        for eqn in stack.pop().eqns:
            if eqn.primitive.name.startswith("custom_") or eqn.primitive.name in UNTRUE:
                found.add(eqn.primitive.name)
            for param in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
                if _is_jaxpr(param):
                    stack.append(getattr(param, "jaxpr", param))
    return frozenset(found)


def _is_jaxpr(value) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def check_derivatives(name: str, fn: Callable, n: int) -> None:
    """A ValueError if what JAX differentiates is not what fn computes."""
    custom = custom_rules(fn, n)
    if custom:
        raise ValueError(
            f"{name}: expected derivatives that follow from its values, got {sorted(custom)}: "
            f"write {name} without custom derivative rules, stop_gradient and exp2"
        )


def check(V: Callable, f: Callable, domain, equilibrium) -> np.ndarray:
    """The equilibrium; ValueErrors for what no proof can be made of."""
    if not isinstance(domain, (Ball, Box)):
        raise ValueError(f"domain: expected a Ball or a Box, got {domain!r}")
    n = domain.dim
    x = np.zeros(n) if equilibrium is None else np.asarray(equilibrium, float)
    if x.shape != (n,) or not np.isfinite(x).all():
        raise ValueError(f"equilibrium: expected {n} finite numbers, got {equilibrium!r}")
    if not domain.holds(x):
        raise ValueError(f"equilibrium: expected a point inside the domain, got {x.tolist()}")
    check_derivatives("V", V, n)
    for name, fn, shape in (("V", V, ()), ("f", f, (n,))):
        program = program_at(fn, n)
        shapes = [program.steps[k].shape for k in program.outputs]
        if shapes != [shape]:
            raise ValueError(f"{name}: expected a result of shape {shape}, got {shapes}")
        jumps = program.ops & (JUMPS | KINKS if name == "V" else JUMPS)
        if jumps:
            what = "a derivative everywhere" if name == "V" else "continuity"
            raise ValueError(
                f"{name}: expected {what}, got operations that may break it: {sorted(jumps)}"
            )
    return x
