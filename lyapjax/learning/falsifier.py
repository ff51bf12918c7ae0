"""`falsify`: counterexamples by gradient search, in milliseconds.

A counterexample to "V is a Lyapunov function with rate r on {V <= level}" is a point of D, at least
`radius` away from x*, with V <= level and

    V(x) <= 0        or        V̇(x) + r V(x) >= 0

The search climbs the larger of -V/‖z‖² and (V̇ + r V)/‖z‖², z = x - x*: dividing by ‖z‖² leaves the
signs as they are, and takes away the slope that leads every search to the equilibrium. It starts
from a low-discrepancy set of points, so that a violation wider than the gaps is met at once; the
best go on, uphill, with steps of fixed length (by the sign of the gradient) that shrink. What is
found is a fact about floating-point values; that nothing is found proves nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from lyapjax.learning.conditions import lie_derivative
from lyapjax.systems.domains import Ball, Box
from lyapjax.systems.system import as_pytree, require_float64

# jaxlib 0.10.2 computes a matrix-vector product with a reduction after it wrongly from row 16384 on
# compiled for the CPU (jax-ml/jax issue 39103); so no batch is that large.
BATCH = 4096
STEEP = 10.0  # slope of the penalty above the level, in units of the greatest violation
FIRST_STEP, LAST_STEP = 0.05, 1e-5  # lengths of the steps, in widths of the domain


class Falsification(NamedTuple):
    """What the search found: the worst points, worst first.

        violation = max(-V, V̇ + r V) / ‖x - x*‖²,        at least 0 for a counterexample

    Attributes:
      x: (k, n) points.
      violation: (k,) per point; -inf where no admissible point was met.
      V: (k,) values.
      derivative: (k,) V̇.
      found: () whether the worst one is a counterexample; also true if V or V̇ is NaN somewhere.

    Examples:
      >>> import jax, lyapjax as ly
      >>> V, f = lambda x: x @ x, lambda x: -x
      >>> bool(ly.falsify(jax.random.key(0), V, f, ly.Ball(1.0, (0.0, 0.0))).found)
      False
    """

    x: Array
    violation: Array
    V: Array
    derivative: Array
    found: Array


def spread(key: Array, domain: Ball | Box, num: int) -> Array:
    """(num, n) low-discrepancy points in D: a Kronecker sequence with a random shift."""
    n = domain.dim
    golden = 2.0
    for _ in range(64):  # the positive root of g^(n+1) = g + 1
        golden = (1 + golden) ** (1 / (n + 1))
    steps = jnp.asarray([golden ** -(j + 1) for j in range(n)])
    t = (jax.random.uniform(key, (n,)) + jnp.arange(num)[:, None] * steps) % 1.0
    lo, hi = jnp.asarray(domain.lo), jnp.asarray(domain.hi)
    return domain.project(lo + (hi - lo) * t)


def _climb(score: Callable, move: Callable, x: Array, widths: Array, num_steps: int):
    """Best points on the way uphill from each row of x, and their scores.

    `score` returns the number to climb and whether the point counts.
    """

    def one(x):
        def step(carry, size):
            x, best_x, best = carry
            (value, counts), slope = jax.value_and_grad(score, has_aux=True)(x)
            better = (value > best) & counts
            best_x, best = jnp.where(better, x, best_x), jnp.where(better, value, best)
            return (move(x + size * widths * jnp.sign(slope)), best_x, best), None

        ratio = (LAST_STEP / FIRST_STEP) ** (1 / max(num_steps - 1, 1))
        sizes = FIRST_STEP * ratio ** jnp.arange(num_steps)
        (x, best_x, best), _ = lax.scan(step, (x, x, jnp.asarray(-jnp.inf)), sizes)
        value, counts = score(x)
        better = (value > best) & counts
        return jnp.where(better, x, best_x), jnp.where(better, value, best)

    return jax.vmap(one)(x)


def search(
    key: Array,
    V: Callable,
    f: Callable,
    domain: Ball | Box,
    equilibrium: Array,
    level: Array,
    radius: Array,
    rate: Array,
    *,
    num_starts: int,
    num_steps: int,
    num_points: int,
) -> Falsification:
    """`falsify` without its checks, for use inside other compiled loops."""
    widths = jnp.asarray(domain.hi) - jnp.asarray(domain.lo)
    tiny = jnp.finfo(float).tiny

    def look(x):
        value, slope = V(x), lie_derivative(V, f, x)
        square = jnp.sum((x - equilibrium) ** 2)
        violation = jnp.maximum(-value, slope + rate * value) / jnp.maximum(square, tiny)
        bad = jnp.isnan(violation)
        counts = (square >= radius**2) & ((value <= level) | bad)
        return jnp.where(bad, jnp.inf, violation), counts, value, slope

    def above(value):
        return jnp.where(jnp.isfinite(level), jnp.maximum(value - level, 0), 0)

    starts = spread(key, domain, num_starts)
    violation, counts, value, _ = lax.map(look, starts, batch_size=min(BATCH, num_starts))
    # Outside of {V <= level} the score falls with V, so that the search turns back to the level.
    size = jnp.max(jnp.where(jnp.isfinite(violation), jnp.abs(violation), 0))
    slack = STEEP * size / jnp.where(jnp.isfinite(level), jnp.maximum(jnp.abs(level), tiny), 1)

    def score(x):
        violation, counts, value, _ = look(x)
        return violation - slack * above(value), counts

    def move(x):
        x = domain.project(x)
        away = x - equilibrium
        norm = jnp.sqrt(jnp.maximum(jnp.sum(away**2), tiny))
        return equilibrium + away * jnp.maximum(1.0, radius * (1 + 1e-12) / norm)

    # The worst that count go on, and where there are others, those just above the level.
    inside = jnp.where(counts, violation, -jnp.inf)
    outside = jnp.where(above(value) > 0, violation - slack * above(value), -jnp.inf)
    few = num_points // 4 if num_points >= 4 else 0
    chosen = jnp.concatenate([lax.top_k(inside, num_points - few)[1], lax.top_k(outside, few)[1]])
    points, _ = _climb(score, move, starts[chosen], widths, num_steps)
    # The start is among the points of the climb, so nothing that was met is lost.
    violation, counts, value, slope = jax.vmap(look)(points)
    violation = jnp.where(counts & (domain.gauge(points) <= 1 + 1e-9), violation, -jnp.inf)
    order = jnp.argsort(-violation)
    found = violation[order[0]] >= 0
    return Falsification(points[order], violation[order], value[order], slope[order], found)


_search = jax.jit(search, static_argnames=("num_starts", "num_steps", "num_points"))


def _number(name: str, value, *, least: float = -np.inf, finite: bool = True) -> Array:
    array = jnp.asarray(value, float)
    if array.shape:
        raise ValueError(f"{name}: expected a number, got shape {array.shape}")
    if not isinstance(array, jax.core.Tracer):
        number = float(np.asarray(array))
        if np.isnan(number) or number < least or (finite and np.isinf(number)):
            raise ValueError(f"{name}: expected a number of at least {least:g}, got {number}")
    return array


def check_region(domain, equilibrium) -> Array:
    """x* as an array, after checks of the domain; the centre of the domain by default."""
    require_float64("falsify")
    if not isinstance(domain, (Ball, Box)):
        raise ValueError(f"domain: expected a Ball or a Box, got {domain!r}")
    if equilibrium is None:
        equilibrium = domain.centre
    if np.shape(equilibrium) != (domain.dim,):
        raise ValueError(
            f"equilibrium: expected shape ({domain.dim},), got {np.shape(equilibrium)}"
        )
    return jnp.asarray(equilibrium, float)


def falsify(
    key: Array,
    V: Callable,
    f: Callable,
    domain: Ball | Box,
    *,
    equilibrium: Array | None = None,
    level: float | Array = np.inf,
    radius: float | Array | None = None,
    rate: float | Array = 0.0,
    num_starts: int = 4096,
    num_steps: int = 40,
    num_points: int = 64,
) -> Falsification:
    """Search for points that violate Lyapunov's conditions.

        x in D,  ‖x - x*‖ >= radius,  V(x) <= level,  and  V(x) <= 0  or  V̇(x) + rate V(x) >= 0

    Modules of `lyapjax` and other pytrees of numbers are compiled once for all their values; plain
    Python functions once each. A few milliseconds for two states, once compiled.

    Args:
      key: of the shift of the starting points.
      V: (n,) -> () candidate.
      f: (n,) -> (n,) closed loop.
      domain: D.
      equilibrium: x*; the centre of the domain by default.
      level: only {V <= level} is searched; all of D by default.
      radius: of the ball about x* that is left out; 1e-3 of the domain's width by default.
      rate: r >= 0, 1/s; 0 asks for V̇ < 0.
      num_starts: points looked at first.
      num_steps: steps uphill.
      num_points: how many go uphill, and are returned.

    Returns:
      `Falsification`.

    Raises:
      ValueError: a domain that is neither ball nor box, numbers out of range, float32.

    Reference:
      Chang, Roohi & Gao, Definition 5 and Algorithm 1. Departure: theirs is dReal, complete and
      slow; ours is fast and feeds the learner, and proofs are left to the verifier. (18) bounds
      Σ x_i² by ε; `radius` is √ε (ERRATA).

    Examples:
      >>> import jax, jax.numpy as jnp, lyapjax as ly
      >>> V, f = lambda x: x @ x, lambda x: -x * (0.9 - x @ x)
      >>> found = ly.falsify(jax.random.key(0), V, f, ly.Ball(1.0, (0.0, 0.0)))
      >>> bool(found.found), round(float(jnp.linalg.norm(found.x[0])), 2)
      (True, 1.0)
    """
    equilibrium = check_region(domain, equilibrium)
    for name, value in (("num_starts", num_starts), ("num_points", num_points)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value!r}")
    if num_steps < 0:
        raise ValueError(f"num_steps: expected at least 0, got {num_steps!r}")
    width = max(b - a for a, b in zip(domain.lo, domain.hi))
    return _search(
        key,
        as_pytree(V),
        as_pytree(f),
        domain,
        equilibrium,
        _number("level", level, finite=False),
        _number("radius", 1e-3 * width if radius is None else radius, least=0),
        _number("rate", rate, least=0),
        num_starts=int(num_starts),
        num_steps=int(num_steps),
        num_points=min(int(num_points), int(num_starts)),
    )


@partial(jax.jit, static_argnames=("num_starts", "num_steps"))
def _lowest(key, V, domain, *, num_starts, num_steps):
    widths = jnp.asarray(domain.hi) - jnp.asarray(domain.lo)
    starts = domain.boundary(key, num_starts)
    _, chosen = lax.top_k(
        -lax.map(V, starts, batch_size=min(BATCH, num_starts)), min(16, num_starts)
    )

    def score(x):  # its slope has no part across the boundary
        return -V(domain.to_boundary(x)), jnp.asarray(True)

    points, values = _climb(score, domain.to_boundary, starts[chosen], widths, num_steps)
    best = jnp.argmax(values)
    return -values[best], points[best]


def boundary_minimum(
    key: Array, V: Callable, domain: Ball | Box, *, num_starts: int = 512, num_steps: int = 40
) -> tuple[Array, Array]:
    """The least value of V found on the boundary of the domain, and where.

        c ≈ min { V(x) : x in ∂D },        {V < c} stays inside D

    Args:
      key: of the starting points.
      V: (n,) -> () candidate.
      domain: D.
      num_starts: points looked at first; the lowest 16 go downhill.
      num_steps: steps downhill, along the boundary.

    Returns:
      The value, (), and the point, (n,).

    Raises:
      ValueError: a domain that is neither ball nor box, numbers out of range, float32.

    Reference:
      Chang, Roohi & Gao, Definition 7: a level set certifies a region only inside the domain.

    Examples:
      >>> import jax, lyapjax as ly
      >>> V = ly.quadratic_lyapunov([[2.0, 0.0], [0.0, 1.0]])
      >>> c, x = ly.boundary_minimum(jax.random.key(0), V, ly.Ball(3.0, (0.0, 0.0)))
      >>> round(float(c), 4)
      9.0
    """
    check_region(domain, None)
    if num_starts < 1 or num_steps < 0:
        raise ValueError(
            f"num_starts: expected at least 1 start and 0 steps, got {num_starts!r}, {num_steps!r}"
        )
    return _lowest(key, as_pytree(V), domain, num_starts=num_starts, num_steps=num_steps)
