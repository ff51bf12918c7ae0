"""Controlled systems: what a user writes down once, and every checker reads.

    dx/dt = f(x, u),        f(x*, u*) = 0,        x in D

The state x is (n,), the input u is (m,), with m = 0 for a system without input. A `System` is
static data: hashable, equal if f is the same function and all numbers agree; so it keys compiled
functions.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from lyapjax.systems.domains import Ball, Box, real_tuple

NUM_PROBES = 256  # points of D at which f is evaluated when a system is made
RESIDUAL = 1e-9  # what f(x*, u*) may leave over, in units of max(1, |∂f|)


def require_float64(what: str) -> None:
    """A ValueError unless float64 is switched on."""
    if not jax.config.jax_enable_x64:
        raise ValueError(
            f"{what}: needs float64, as a proof about float32 numbers would not be about yours; "
            'call jax.config.update("jax_enable_x64", True) at the start of the program'
        )


def as_pytree(function: Callable) -> Callable:
    """A callable whose leaves are its numbers: modules as they are, plain functions wrapped."""
    leaves = jax.tree.leaves(function)
    return Partial(function) if any(callable(leaf) for leaf in leaves) else function


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class System:
    """A controlled system with its equilibrium and domain, checked when it is made.

        dx/dt = f(x, u),        f(x*, u*) = 0,        x in D

    Attributes:
      f: right-hand side in plain JAX, (n,), (m,) -> (n,).
      state_dim: n, at least 1.
      control_dim: m; 0 for a system without input, whose f gets u of shape (0,).
      equilibrium: (x*, u*), n and m numbers; zeros by default. A proof needs f(x*, u*) = 0 exactly,
        so write f such that it is.
      domain: `Ball` or `Box` with x* in its interior; a number r is the ball of radius r about x*.
      input_bounds: (lo, hi), each m numbers, u* strictly between them; or None.
      name: of the system, for messages and certificates.
      state_names: n names.
      state_units: n units.
      control_names: m names.
      control_units: m units.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> system = ly.System(lambda x, u: jnp.array([x[1], u[0] - x[0]]), 2, 1, domain=1.0)
      >>> system.linearisation()[0].tolist()
      [[0.0, 1.0], [-1.0, 0.0]]
      >>> ly.System(lambda x, u: x + 1.0, 2, 0, domain=1.0)
      Traceback (most recent call last):
      ...
      ValueError: equilibrium: expected f(x*, u*) = 0 to 1e-09, got f = [1.0, 1.0] at x* = ...
    """

    f: Callable[[Array, Array], Array]
    state_dim: int
    control_dim: int
    equilibrium: tuple = ()
    domain: Ball | Box | float = 1.0
    input_bounds: tuple | None = None
    name: str = "system"
    state_names: tuple[str, ...] = ()
    state_units: tuple[str, ...] = ()
    control_names: tuple[str, ...] = ()
    control_units: tuple[str, ...] = ()

    def __post_init__(self):
        """Normalise and check; what is wrong is named."""
        require_float64("System")
        n, m = self.state_dim, self.control_dim
        for name, value, least in (("state_dim", n, 1), ("control_dim", m, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
        if not callable(self.f):
            raise ValueError(f"f: expected a function f(x, u), got {self.f!r}")
        set_field = object.__setattr__
        given = tuple(self.equilibrium) or (np.zeros(n), np.zeros(m))
        if len(given) != 2:
            raise ValueError(f"equilibrium: expected the pair (x*, u*), got {self.equilibrium!r}")
        x = real_tuple("equilibrium x*", given[0], n)
        u = real_tuple("equilibrium u*", given[1], m)
        set_field(self, "equilibrium", (x, u))
        set_field(self, "domain", self._checked_domain(x))
        set_field(self, "input_bounds", self._checked_bounds(u))
        letters = {"state": ("x", n), "control": ("u", m)}
        for which, (letter, length) in letters.items():
            for kind, default in (("names", letter), ("units", "")):
                field = f"{which}_{kind}"
                value = tuple(getattr(self, field)) or tuple(
                    f"{default}{i + 1}" if default else "" for i in range(length)
                )
                if len(value) != length:
                    raise ValueError(f"{field}: expected {length} strings, got {value!r}")
                set_field(self, field, value)
        self._check_values()

    def _checked_domain(self, x: tuple) -> Ball | Box:
        domain = self.domain
        if isinstance(domain, (int, float)) and not isinstance(domain, bool):
            domain = Ball(domain, x)
        if not isinstance(domain, (Ball, Box)):
            raise ValueError(f"domain: expected a Ball, a Box or a radius, got {domain!r}")
        if domain.dim != self.state_dim:
            raise ValueError(f"domain: expected dimension {self.state_dim}, got {domain.dim}")
        if not float(domain.gauge(jnp.asarray(x))) < 1:
            raise ValueError(
                f"domain: expected x* = {list(x)} in its interior, got {domain}, which does not "
                "hold it; enlarge or move the domain"
            )
        return domain

    def _checked_bounds(self, u: tuple) -> tuple | None:
        if self.input_bounds is None:
            return None
        if len(self.input_bounds) != 2:
            raise ValueError(f"input_bounds: expected (lo, hi), got {self.input_bounds!r}")
        lo = real_tuple("input_bounds lo", self.input_bounds[0], self.control_dim)
        hi = real_tuple("input_bounds hi", self.input_bounds[1], self.control_dim)
        for i, (a, b, c) in enumerate(zip(lo, u, hi)):
            if not a < b < c:
                raise ValueError(
                    f"input_bounds: expected lo < u* < hi, got {a}, {b}, {c} at index {i}"
                )
        return lo, hi

    def _check_values(self) -> None:
        n, m = self.state_dim, self.control_dim
        x, u = (jnp.asarray(v, float) for v in self.equilibrium)
        shapes = f"x of shape ({n},) and u of shape ({m},)"
        try:
            out = jax.eval_shape(self.f, x, u)
        except Exception as error:
            raise ValueError(f"f: cannot be traced for {shapes}: {error}") from error
        if not hasattr(out, "shape") or out.shape != (n,):
            got = getattr(out, "shape", type(out).__name__)
            raise ValueError(f"f: expected a result of shape ({n},) for {shapes}, got {got}")
        if out.dtype != jnp.float64:
            raise ValueError(f"f: expected float64 for float64 input, got {out.dtype}")
        probes, values, value, A = (np.asarray(v) for v in _probe(self.f, self.domain, x, u))
        if not (np.isfinite(value).all() and np.isfinite(A).all()):
            what = "f" if not np.isfinite(value).all() else "∂f/∂x"
            got = (value if what == "f" else A).tolist()
            raise ValueError(f"f: expected finite values, got {what} = {got} at (x*, u*)")
        if np.abs(value).max() > RESIDUAL * max(1.0, np.abs(A).max()):
            raise ValueError(
                f"equilibrium: expected f(x*, u*) = 0 to {RESIDUAL:g}, got f = {value.tolist()} at "
                f"x* = {x.tolist()}, u* = {u.tolist()}"
            )
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            worst = int(np.argmin(finite))
            raise ValueError(
                f"f: expected finite values in the domain, got {values[worst].tolist()} at x = "
                f"{probes[worst].tolist()}, u = u*"
            )

    def linearisation(self) -> tuple[np.ndarray, np.ndarray]:
        """A = ∂f/∂x and B = ∂f/∂u at the equilibrium, (n, n) and (n, m)."""
        x, u = (jnp.asarray(v, float) for v in self.equilibrium)
        A, B = jax.jit(jax.jacfwd(self.f, argnums=(0, 1)))(x, u)
        return np.asarray(A), np.asarray(B)

    def closed_loop(self, u: Callable | None = None) -> Callable[[Array], Array]:
        """x -> f(x, u(x)), a pytree whose leaves are the numbers in u.

        Without u, the input stays at u*. An input outside the bounds is clipped to them, as the
        actuator would; controllers that say they keep the bounds (`bounds`) are left alone.
        """
        if u is None:
            return Partial(_open_loop, self)
        keeps = self.input_bounds is None or getattr(u, "bounds", None) == self.input_bounds
        return Partial(_closed_loop if keeps else _clipped_loop, self, as_pytree(u))


@functools.partial(jax.jit, static_argnums=0)
def _probe(f: Callable, domain: Ball | Box, x, u) -> tuple:
    """Points of D and f there, f and ∂f/∂x at the equilibrium; compiled as one."""
    probes = domain.uniform(jax.random.key(0), NUM_PROBES)
    return probes, jax.vmap(lambda x: f(x, u))(probes), f(x, u), jax.jacfwd(f)(x, u)


def _open_loop(system: System, x: Array) -> Array:
    return system.f(x, jnp.asarray(system.equilibrium[1], x.dtype))


def _closed_loop(system: System, u: Callable, x: Array) -> Array:
    return system.f(x, u(x))


def _clipped_loop(system: System, u: Callable, x: Array) -> Array:
    lo, hi = (jnp.asarray(v, x.dtype) for v in system.input_bounds)
    return system.f(x, jnp.clip(u(x), lo, hi))
