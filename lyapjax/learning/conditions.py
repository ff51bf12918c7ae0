"""Lyapunov's conditions at points: the Lie derivative, and the risk that measures violations.

V maps (n,) to a number, f maps (n,) to (n,) (a closed loop: `System.closed_loop`). Both are plain
functions; a check of either is a reading of the same code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def lie_derivative(V: Callable, f: Callable, x: Array) -> Array:
    """The derivative of V along the trajectories of f, at one point.

        V̇(x) = ∇V(x)·f(x)

    by one forward pass of automatic differentiation.

    Args:
      V: (n,) -> () differentiable function.
      f: (n,) -> (n,) right-hand side.
      x: (n,) point; `jax.vmap` for many.

    Returns:
      () derivative, in units of V per second.

    Raises:
      ValueError: V is not scalar, or f does not return the shape of x.

    Reference:
      Chang, Roohi & Gao, Definition 3.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> float(ly.lie_derivative(lambda x: x @ x, lambda x: -x, jnp.array([1.0, 2.0])))
      -10.0
    """
    x = jnp.asarray(x)
    velocity = f(x)
    if velocity.shape != x.shape:
        raise ValueError(f"f: expected shape {x.shape}, got {velocity.shape}")
    value, derivative = jax.jvp(V, (x,), (velocity,))
    if value.shape:
        raise ValueError(f"V: expected a number at each point, got shape {value.shape}")
    return derivative


def check_points(name: str, x) -> Array:
    """`x` as (N, n) finite points."""
    points = jnp.asarray(x)
    if points.ndim != 2:
        raise ValueError(f"{name}: expected points of shape (N, n), got {points.shape}")
    if not isinstance(points, jax.core.Tracer) and not np.isfinite(np.asarray(points)).all():
        raise ValueError(f"{name}: expected finite points")
    return points


def lyapunov_risk(
    V: Callable,
    f: Callable,
    x: Array,
    equilibrium: Array | None = None,
    *,
    roa_weight: float | None = None,
) -> Array:
    """The empirical Lyapunov risk: how much V violates Lyapunov's conditions on samples.

        L = 1/N Σ [max(-V(x_i), 0) + max(0, V̇(x_i))] + V(x*)²  (+ 1/N Σ [‖x_i - x*‖ - α V(x_i)])

    Zero, without the last term, if V is a Lyapunov function. The last term, for `roa_weight` = α,
    rewards a V that grows with the distance: level sets then are round and large. It is unbounded
    below unless V is bounded, as the paper's tanh network is.

    Args:
      V: (n,) -> () candidate.
      f: (n,) -> (n,) closed loop.
      x: (N, n) samples.
      equilibrium: (n,) x*; the origin by default.
      roa_weight: α; None leaves the term out.

    Returns:
      () risk.

    Raises:
      ValueError: `x` not of shape (N, n) or not finite.

    Reference:
      Chang, Roohi & Gao, (4) and section 3.3. Departure: Algorithm 1 prints θ ← θ + α∇L; descent
      has a minus. Their learner minimises this; `learn` one with margins (`Recipe`).

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> x = jnp.array([[1.0, 0.0], [0.0, 2.0]])
      >>> float(ly.lyapunov_risk(lambda x: x @ x - 2.0, lambda x: jnp.zeros(2), x))
      4.5
    """
    x = check_points("x", x)
    origin = jnp.zeros(x.shape[1], x.dtype) if equilibrium is None else jnp.asarray(equilibrium)
    values = jax.vmap(V)(x)
    slopes = jax.vmap(lambda point: lie_derivative(V, f, point))(x)
    terms = jnp.maximum(-values, 0) + jnp.maximum(slopes, 0)
    if roa_weight is not None:
        terms += jnp.linalg.norm(x - origin, axis=1) - roa_weight * values
    return jnp.mean(terms) + V(origin) ** 2
