"""Domains as a proof sees them: boxes that hold them, their boundary, and volumes inside them."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.proofs.regional import Form
from lyapjax.proofs.statements import program_of
from lyapjax.readers.affine import Affine
from lyapjax.readers.ranges import Reader
from lyapjax.readers.secants import secants
from lyapjax.systems.domains import Ball, Box
from lyapjax.systems.system import as_pytree

NUM_SAMPLES = 8192
MAX_OPEN = 100_000
NUM_SLICES = 200_000  # boxes of the volume with features, at most


def corners(domain: Ball | Box) -> tuple[np.ndarray, np.ndarray]:
    """A box that holds the domain, whatever the rounding of its corners."""
    lo, hi = np.asarray(domain.lo), np.asarray(domain.hi)
    if isinstance(domain, Box):
        return lo, hi
    return np.nextafter(np.nextafter(lo, -np.inf), -np.inf), np.nextafter(
        np.nextafter(hi, np.inf), np.inf
    )


def gauges(domain: Ball | Box) -> tuple:
    """The numbers of `outside`: centre and radius of a ball, nothing of a box."""
    if isinstance(domain, Box):
        return ()
    return (np.asarray(domain.centre), np.asarray([domain.radius]))


def beyond(numbers: tuple, x) -> tuple:
    """No number for a box; for a ball one that is at most 0 exactly on it."""
    if not numbers:
        return ()
    centre, radius = numbers
    return (jnp.sum(jnp.square(x - centre)) - jnp.square(radius)[0],)


def outside(domain: Ball | Box) -> Callable:
    """x -> (k,) array that is at most 0 exactly on the domain (a box needs none: k = 0)."""
    numbers = gauges(domain)
    return lambda x: jnp.stack(beyond(numbers, x)) if numbers else jnp.zeros(0)


def faces(domain: Ball | Box) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that hold the boundary: the faces of a box; for a ball a box around all of it."""
    lo, hi = corners(domain)
    if isinstance(domain, Ball):
        return lo[None], hi[None]
    n = len(lo)
    low, high = np.tile(lo, (2 * n, 1)), np.tile(hi, (2 * n, 1))
    for i in range(n):
        high[2 * i, i] = lo[i]
        low[2 * i + 1, i] = hi[i]
    return low, high


@jax.jit
def _sampled(V, f, domain):
    from lyapjax.learning.conditions import lie_derivative

    inner = domain.uniform(jax.random.key(1), NUM_SAMPLES)
    edge = domain.boundary(jax.random.key(2), NUM_SAMPLES)

    def both(x):
        return V(x), lie_derivative(V, f, x)

    return inner, *jax.vmap(both)(inner), jax.vmap(V)(edge)


def samples(V: Callable, f: Callable, domain: Ball | Box) -> list[np.ndarray]:
    """Points of the domain, V and V̇ there, and V on the boundary: only for guesses."""
    found = _sampled(as_pytree(V), as_pytree(f), domain)
    points, values, slopes, edge = (np.asarray(v) for v in found)
    values, slopes, edge = (np.where(np.isfinite(v), v, np.inf) for v in (values, slopes, edge))
    return [points, values, slopes, edge]


def _inside(numbers, x):
    V, domain = numbers
    return V(x), *beyond(domain, x)


def volume_reader(V: Callable, domain: Ball | Box) -> Reader:
    """Plain bounds of V and of the place in the domain; compiling begins at once."""
    return Reader(program_of(_inside, (V, gauges(domain)), domain.dim))


def certified_volume(
    V: Callable, level: float, domain: Ball | Box, *, num_rounds: int = 5, reader=None
) -> float:
    """A proved lower bound of the volume of {x ∈ D : V(x) <= level}: of the boxes inside it.

    Boxes that are neither inside nor outside are cut in all directions, `num_rounds` times.
    """
    reader = volume_reader(V, domain) if reader is None else reader
    lo, hi = (v[None] for v in corners(domain))
    most, volume = np.array([level, 0.0])[: len(reader.program.outputs), None], 0.0
    first = int(np.ceil(12 / lo.shape[1]))
    for turn in range(first + num_rounds):
        for i in range(lo.shape[1]):
            middle = 0.5 * lo[:, i] + 0.5 * hi[:, i]
            below, above = hi.copy(), lo.copy()
            below[:, i], above[:, i] = middle, middle
            lo, hi = np.concatenate([lo, above]), np.concatenate([below, hi])
        if turn < first - 1:
            continue
        ends = reader(lo, hi)
        inside = (ends[:, 1] <= most).all(axis=0)
        # The rounding of the widths, products and sums is far below 1e-9 of them.
        volume += float(np.prod(hi[inside] - lo[inside], axis=1).sum()) * (1 - 1e-9)
        open_ = ~inside & (ends[:, 0] <= most).all(axis=0)
        lo, hi = lo[open_], hi[open_]
        if not open_.any() or len(lo) > MAX_OPEN:
            break
    return volume * (1 - 1e-9)


def region_volume(form: Form, x: np.ndarray, level: float) -> float:
    """A proved lower bound of the volume of {V <= level}, V quadratic or with features beside.

    That of an ellipsoid; with features, the coordinates z_1 … z_k that φ sees are divided into
    boxes, and over each point of one there is a ball of the m others with the square

        g = c - |z|² - ‖φ‖²,        of volume ∝ g^(m/2).

    From m = 2 on this is convex in g, so that its mean over a box is at least its value at the mean
    of g: of a first-order bound of ‖φ‖² only the remainder counts.
    """
    n, k = len(x), form.seen
    scale = abs(np.linalg.det(form.R)) * (1 - 1e-9)
    level = level / (1 + form.eta) * (1 - 1e-12)
    if not k:
        return float(scale * _ball(n) * level ** (n / 2))
    count = max(2, int(NUM_SLICES ** (1 / k)) // 2 * 2)
    edges = np.linspace(-np.sqrt(level), np.sqrt(level), count + 1)
    index = np.stack(np.meshgrid(*[np.arange(count)] * k, indexing="ij"), -1).reshape(-1, k)
    total = 0.0
    for rows in np.array_split(index, max(1, len(index) // 4096)):
        lo, hi = edges[rows], edges[rows + 1]
        middle, half = 0.5 * (lo + hi), 0.5 * (hi - lo) * (1 + 1e-12)
        if n - k >= 2:
            inner = (middle**2 + half**2 / 3).sum(axis=1)
        else:
            inner = np.maximum(lo**2, hi**2).sum(axis=1)
        kept = inner < level
        lo, hi, middle, half, inner = (v[kept] for v in (lo, hi, middle, half, inner))
        if not len(lo):
            continue
        place = Affine(
            x[:, None] + form.R[:, :k] @ middle.T,
            form.R.T[:k, :, None] * half.T[:, None, :],
            # The coordinates beyond k reach no feature; their extent must not matter.
            np.full((n, len(lo)), 1e-12),
        )
        squares = secants(*form.features, place, form.R)[0].value
        above = squares.ends[1]
        if n - k >= 2:  # the middles are those of the boxes up to rounding
            above = squares.c + squares.r + 1e-12 * np.abs(squares.a).sum(axis=0)
        square = np.nan_to_num(level - inner - above, nan=0.0)
        # Without other coordinates a box counts or does not: 0 to the power of 0 would be 1.
        reached = square > 0
        volumes = np.prod(hi - lo, axis=1) * _ball(n - k)
        total += float((volumes[reached] * square[reached] ** ((n - k) / 2)).sum())
    return scale * total * (1 - 1e-9)


def _ball(n: int) -> float:
    """The volume of the unit ball."""
    return math.pi ** (n / 2) / math.gamma(n / 2 + 1)
