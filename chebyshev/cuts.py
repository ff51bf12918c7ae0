"""Cuts of the reformulation–linearisation technique: products of linear constraints.

A slab |v'x - middle| <= half holds two linear forms that are not negative on the set,

    r(x) = 1 - (v'x - middle)/half >= 0    and    1 + (v'x - middle)/half >= 0,

so the product of any two forms is not negative either. Written in Δ = W + xx', as the relaxation
does with its quadratics, it need not follow from the constraints (15) has:

    r_i(x) r_j(x) + u_i'W u_j >= 0,        r_i(x) = b_i - u_i'x

Adding it can only lower the value. Products of a form with itself follow from W ⪰ 0, and those of
the two forms of one slab are the slab. Of the m² others few matter, so they are added a few at a
time, the most violated first, and those whose multipliers vanish make room.

A cut is a pair of numbers of forms: form 2 j is the upper side of slab j (boxes first), 2 j + 1 the
lower one. -1 marks an unused place, in which the constraint is -1 <= 0.
"""

import jax.numpy as jnp
from jax import Array, lax

from chebyshev.geometry import Scaled


def linear_forms(problem: Scaled, coordinates: tuple[int, ...]) -> tuple[Array, Array]:
    """u (2 s, m) and b (2 s,) of the forms b - u'x >= 0, in units of half widths."""
    m = problem.rows.shape[1]
    index = jnp.array(coordinates, int)
    boxes = jnp.zeros((len(coordinates), m))
    boxes = boxes.at[jnp.arange(len(coordinates)), index].set(problem.weight)
    v = jnp.concatenate([boxes, problem.rows])
    first = problem.Q.shape[0]
    count = v.shape[0]
    # g = -v middle, both in units of half, and |v| > 0.
    g = problem.g[first : first + count]
    middle = -jnp.sum(g * v, axis=1) / jnp.sum(v * v, axis=1)
    u = jnp.stack([v, -v], axis=1).reshape(2 * count, m)
    return u, jnp.stack([1 + middle, 1 - middle], axis=1).reshape(2 * count)


def with_cuts(problem: Scaled, coordinates: tuple[int, ...], cuts: Array) -> Scaled:
    """`problem` with the constraints -r_i(x) r_j(x) <= 0 of the pairs in `cuts`, (c, 2)."""
    u, b = linear_forms(problem, coordinates)
    used = cuts[:, :1] >= 0
    first, second = (jnp.where(used, u[cuts[:, side]], 0) for side in (0, 1))
    b1, b2 = (jnp.where(used[:, 0], b[cuts[:, side]], 1) for side in (0, 1))
    g = (b1[:, None] * second + b2[:, None] * first) / 2
    return problem._replace(
        left=-first,
        right=second,
        g=jnp.concatenate([problem.g, g]),
        d=jnp.concatenate([problem.d, -b1 * b2]),
        scale=jnp.concatenate([problem.scale, jnp.ones(cuts.shape[0])]),
    )


def violations(problem: Scaled, coordinates: tuple[int, ...], W: Array, x: Array) -> Array:
    """-(r_i r_j + u_i'W u_j) for all pairs i < j of different slabs, else -inf; (2 s, 2 s)."""
    u, b = linear_forms(problem, coordinates)
    r = b - u @ x
    found = -(r[:, None] * r + u @ W @ u.T)
    slab = jnp.arange(u.shape[0]) // 2
    return jnp.where(slab[:, None] < slab, found, -jnp.inf)


def replace_idle(cuts: Array, alpha: Array, violation: Array, rtol: float) -> tuple[Array, Array]:
    """The cuts with idle ones replaced by the most violated pairs, and how many were placed."""
    count = cuts.shape[0]
    # A cut in use is not violated beyond the tolerance of the solver, but would be if dropped.
    here = jnp.where(cuts[:, 0] >= 0, cuts[:, 0] * violation.shape[1] + cuts[:, 1], violation.size)
    flat = violation.ravel().at[here].set(-jnp.inf, mode="drop")
    values, places = lax.top_k(flat, min(count, flat.shape[0]))
    new = jnp.stack([places // violation.shape[1], places % violation.shape[1]], axis=1)
    new = jnp.where(values[:, None] > rtol, new, -1).astype(cuts.dtype)
    new = jnp.pad(new, ((0, count - new.shape[0]), (0, 0)), constant_values=-1)
    idle = (cuts[:, 0] < 0) | (alpha <= 1e-6 * jnp.max(alpha, initial=0))
    rank = jnp.cumsum(idle) - 1
    candidate = new[rank]
    replaced = jnp.where((idle & (candidate[:, 0] >= 0))[:, None], candidate, cuts)
    return replaced, jnp.sum(idle & (candidate[:, 0] >= 0))
