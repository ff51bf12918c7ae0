"""The exact Chebyshev centre where it can be had, to measure how tight the relaxation is.

The centre of the smallest ball that holds a set. Maximising a distance over a convex set is hard in
general; here is what is not:

    finite sets          the smallest enclosing ball, in any dimension
    one ellipsoid, a box their own centre
    balls, at most m - 1 the relaxation is exact (Beck 2007)
    C^m, one or two ellipsoids: the relaxation is exact (Eldar, Beck & Teboulle, section 3)
    R^2 and R^3          by the boundary, below

By the boundary: from an inner point p, the set within a narrow cone lies in the simplex that a
tangent plane cuts off, and the distance to a point is largest at a vertex of it. Cones are divided
where this bound exceeds the best point found, so that the farthest point from a given centre is
enclosed. The smallest ball of the points found so far gives the next centre; its radius is a lower
bound of the Chebyshev radius, the farthest distance an upper one, and they meet.
"""

from itertools import combinations
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from chebyshev.feasibility import feasibility
from chebyshev.geometry import Geometry, frame, scaled
from chebyshev.interior_point import Status
from chebyshev.relaxation import rcc
from chebyshev.sets import Ellipsoids

MAX_CELLS = 200_000
FAR = 1e100  # where a tangent plane does not cut an edge; inf times a zero would be NaN


class ExactCenter(NamedTuple):
    """The Chebyshev centre of a set.

        x = argmin_x max_(x' in set) ‖x' - x‖

    Attributes:
      x: (m,) the centre.
      radius: the Chebyshev radius: its upper bound.
      lower: lower bound of the radius.
      points: (r, m) points of the set on the sphere, whose smallest ball this is; none where the
        answer is known by a theorem.

    Examples:
      >>> import numpy as np, chebyshev
      >>> c = chebyshev.chebyshev_center_exact(chebyshev.box(np.zeros(2), np.array([2.0, 4.0])))
      >>> c.x.tolist(), round(c.radius**2, 9)
      ([1.0, 2.0], 5.0)
    """

    x: np.ndarray
    radius: float
    lower: float
    points: np.ndarray


def smallest_ball(points: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Centre, radius, its lower bound and support of the smallest ball around (N, m) points.

    The centre walks towards the circumcentre of the points on its sphere, taking up those it meets
    and dropping those that hold it back (Fischer, Gärtner & Kutz 2003).
    """
    center = points.mean(axis=0)
    support = [int(np.argmax(np.sum((points - center) ** 2, axis=1)))]
    dropped: list[int] = []
    size = np.max(np.abs(points - center)) + 1e-300
    for _ in range(100 * (points.shape[1] + 2) + 10 * len(points)):
        base = points[support[0]]
        edges = (points[support[1:]] - base).T
        weights = np.linalg.lstsq(edges, center - base, rcond=None)[0] if edges.size else []
        step = base + (edges @ weights if edges.size else 0) - center
        # |center + t step - q| reaches the radius where t = slack / rate.
        slack = np.sum((base - center) ** 2) - np.sum((points - center) ** 2, axis=1)
        rate = 2 * (base - points) @ step
        rate[support + dropped] = 0
        # Points in the plane of the support never block; rounding must not make them.
        meets = rate > 1e-10 * size * np.linalg.norm(step)
        times = np.where(meets, np.maximum(slack, 0) / np.where(meets, rate, 1), np.inf)
        first = int(np.argmin(times))
        if times[first] < 1 and len(support) <= points.shape[1]:
            center = center + times[first] * step
            support.append(first)
            dropped = []
            continue
        center = center + step
        barycentric = np.array([1 - np.sum(weights), *weights])
        if barycentric.min() >= 0:
            break
        dropped = [support.pop(int(np.argmin(barycentric)))]
    radius = float(np.sqrt(np.max(np.sum((points - center) ** 2, axis=1))))
    # What the support alone proves, whatever the walk did: Σ λ |p|² - |Σ λ p|² bounds from below.
    barycentric = np.maximum(barycentric, 0) / np.sum(np.maximum(barycentric, 0))
    away = points[support] - center
    if len(away) != len(barycentric):
        return center, radius, 0.0, points[support]
    lower = barycentric @ np.sum(away**2, axis=1) - np.sum((barycentric @ away) ** 2)
    return center, radius, float(np.sqrt(max(lower, 0))), points[support]


class _Body(NamedTuple):
    """f_i as dense matrices, around an inner point: d < 0."""

    Q: np.ndarray
    g: np.ndarray
    d: np.ndarray

    def boundary(self, directions: np.ndarray) -> np.ndarray:
        """How far each constraint reaches from the inner point, (N, k)."""
        a = np.einsum("ni,kij,nj->nk", directions, self.Q, directions)
        b = directions @ self.g.T
        c = self.d
        under = b + np.sqrt(np.maximum(b * b - a * c, 0))
        return np.where(under > 0, -c / np.where(under > 0, under, 1), np.inf)


def _farthest(body: _Body, cells: np.ndarray, center: np.ndarray, rtol: float):
    """An upper bound of the distance from the centre to the body, and points of it far away."""
    best, found = 0.0, []
    upper = 0.0
    while len(cells):
        middle = cells.mean(axis=1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        reach = body.boundary(middle)
        points = np.min(reach, axis=1)[:, None] * middle
        distance = np.linalg.norm(points - center, axis=1)
        if distance.max() > best:
            best = distance.max()
            found.append(points[np.argmax(distance)])
        # One simplex for each constraint that is met; its vertices lie on the edges of the cone.
        finite = np.isfinite(reach)
        tangent = np.where(finite, reach, 0)[:, :, None] * middle[:, None]
        normal = np.einsum("kij,nkj->nki", body.Q, tangent) + body.g
        height = np.einsum("nki,nki->nk", normal, tangent)
        slope = np.einsum("nki,nji->nkj", normal, cells)
        cuts = (slope > 0) & finite[:, :, None]
        length = np.where(cuts, height[:, :, None] / np.where(cuts, slope, 1), FAR)
        vertices = length[..., None] * cells[:, None] - center
        bound = np.sqrt(np.min(np.max(np.sum(vertices**2, axis=3), axis=2), axis=1))
        bound = np.maximum(bound, np.linalg.norm(center))
        open_cells = bound > best * (1 + rtol)
        upper = max(upper, bound[~open_cells].max(initial=0))
        if open_cells.sum() > MAX_CELLS:
            upper = max(upper, bound.max())
            break
        cells = _divide(cells[open_cells])
    return max(upper, best), found


def _divide(cells: np.ndarray) -> np.ndarray:
    """Each cone in two (plane) or four, by the middles of its edges."""
    m = cells.shape[1]
    middles = {pair: cells[:, pair[0]] + cells[:, pair[1]] for pair in combinations(range(m), 2)}
    middles = {k: v / np.linalg.norm(v, axis=1, keepdims=True) for k, v in middles.items()}
    if m == 2:
        parts = [(cells[:, 0], middles[0, 1]), (middles[0, 1], cells[:, 1])]
    else:
        parts = [
            (cells[:, 0], middles[0, 1], middles[0, 2]),
            (cells[:, 1], middles[0, 1], middles[1, 2]),
            (cells[:, 2], middles[0, 2], middles[1, 2]),
            (middles[0, 1], middles[0, 2], middles[1, 2]),
        ]
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def _by_the_boundary(sets: Ellipsoids, rtol: float) -> ExactCenter:
    found = feasibility(sets)
    if found.status != Status.CONVERGED or not found.proved:
        raise ValueError(f"sets: expected a bounded set with an interior: {found.status.message}")
    # From the inner point and in units of the size, so that nothing cancels.
    origin = sets.to_real(jnp.asarray(found.x))
    unit = frame(sets)[1]
    problem = scaled(sets.moved(origin, unit))
    geometry = Geometry(problem, sets.coordinates)
    Q = np.stack([np.asarray(geometry.combine(row)) for row in jnp.eye(len(sets.names))])
    here = _search(_Body(Q, np.asarray(problem.g), np.asarray(problem.d)), rtol)

    def back(z):
        return np.asarray(sets.from_real(origin + unit * z))

    unit = float(unit)
    points = np.array([back(z) for z in here.points])
    return ExactCenter(back(here.x), unit * here.radius, unit * here.lower, points)


def _search(body: _Body, rtol: float) -> ExactCenter:
    """The centre of a body around the origin."""
    m = body.Q.shape[1]
    if m == 1:
        both = np.array([[1.0], [-1.0]])
        ends = np.min(body.boundary(both), axis=1)[:, None] * both
        radius = float(abs(ends[0, 0] - ends[1, 0])) / 2
        return ExactCenter(ends.mean(axis=0), radius, radius, ends)
    axes = np.array(np.meshgrid(*[[1.0, -1.0]] * m)).reshape(m, -1).T
    cells = axes[:, :, None] * np.eye(m)
    for _ in range(3):
        cells = _divide(cells)
    corners = cells.reshape(-1, m)
    points = np.min(body.boundary(corners), axis=1)[:, None] * corners
    best = None
    for _ in range(200):
        center, _, lower, support = smallest_ball(points)
        upper, far = _farthest(body, cells, center, rtol / 4)
        if best is None or upper < best.radius:
            best = ExactCenter(center, upper, lower, support)
        best = best._replace(lower=lower, points=support)
        gained = max(np.linalg.norm(p - center) for p in far) > lower * (1 + rtol / 4)
        if best.radius <= lower * (1 + rtol) or not gained:
            break
        points = np.concatenate([support, points[-20:], far])
    return best


def _is_a_ball(F: np.ndarray) -> bool:
    gram = F.T @ F
    return np.abs(gram - gram[0, 0] * np.eye(len(gram))).max() <= 1e-14 * gram[0, 0]


def _known(sets: Ellipsoids) -> bool:
    """Whether a theorem says that the relaxation is exact."""
    p, k = len(sets.factors), len(sets.names)
    if k == p == 1 or (
        p == 0 and sorted(sets.coordinates) == list(range(k)) == list(range(sets.dim))
    ):
        return True
    if p < k:
        return False
    if sets.is_complex and p <= 2:
        return True
    return p <= sets.dim - 1 and all(_is_a_ball(np.asarray(F)) for F in sets.factors)


def chebyshev_center_exact(sets, *, rtol: float = 1e-6) -> ExactCenter:
    """The centre of the smallest ball that holds a set, where it can be computed.

        minimise over x    max { ‖x' - x‖ : x' in the set }

    Args:
      sets: `Ellipsoids` in R^m with m <= 3 (C with one coordinate); in any dimension one ellipsoid,
        a box, at most m - 1 balls, or up to two ellipsoids over C^m; or (N, m) points.
      rtol: relative width of the enclosure of the radius, for sets that are searched by their
        boundary. Sets in R^3 of which whole caps are equally far may end wider: see `lower`.

    Returns:
      `ExactCenter`, up to rounding.

    Raises:
      ValueError: a set that none of the cases covers; an empty or unbounded one; NaN.

    Reference:
      Fischer, Gärtner & Kutz, Fast smallest-enclosing-ball computation in high dimensions, ESA
      2003; Beck, On the convexity of a class of quadratic mappings, J. Global Optim. 39 (2007).

    Examples:
      >>> import numpy as np, chebyshev
      >>> c = chebyshev.chebyshev_center_exact(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.5]]))
      >>> c.x.tolist(), c.radius, len(c.points)
      ([1.0, 0.0], 1.0, 2)
    """
    if not rtol > 0:
        raise ValueError(f"rtol: expected a positive number, got {rtol!r}")
    if not isinstance(sets, Ellipsoids):
        points = np.asarray(sets)
        if np.iscomplexobj(points):
            raise ValueError("sets: expected real points; give (Re, Im) of complex ones")
        points = points.astype(float)
        if points.ndim != 2 or not points.size or not np.isfinite(points).all():
            raise ValueError(
                f"sets: expected Ellipsoids or finite points of shape (N, m), got {points.shape}"
            )
        size = 2.0 ** np.frexp(np.max(np.abs(points)))[1]  # a power of two, so that none rounds
        x, radius, lower, support = smallest_ball(points / size)
        return ExactCenter(size * x, float(size * radius), float(size * lower), size * support)
    if _known(sets):
        solution = rcc(sets, rtol=1e-11)
        if not np.isfinite(solution.value):
            message = Status(int(solution.status)).message
            raise ValueError(f"sets: expected a bounded set with an interior: {message}")
        radius = float(solution.radius)
        lower = min(float(np.sqrt(max(solution.primal, 0))), radius)
        return ExactCenter(np.asarray(solution.x), radius, lower, np.zeros((0, len(solution.x))))
    if sets.dim <= 3:
        return _by_the_boundary(sets, rtol)
    raise ValueError(
        f"sets: no exact method for {len(sets.names)} constraints in R^{sets.dim}; expected "
        f"m <= 3, one ellipsoid, a box, at most m - 1 balls, or two ellipsoids over C"
    )
