"""Domains: the bounded sets D on which a system is looked at, balls and boxes.

Both are static data (hashable, no arrays), so that a system can key a compiled function. Their
numbers are Python floats, exact in any later proof.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def real_tuple(name: str, value, length: int | None = None) -> tuple[float, ...]:
    """`value` as a tuple of finite floats, of that length, or a ValueError by name."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected real numbers, got {value!r}") from error
    if array.ndim != 1 or (length is not None and array.shape != (length,)):
        expected = "a vector" if length is None else f"shape ({length},)"
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got {array.tolist()}")
    return tuple(float(v) for v in array)


def positive_numbers(**values: float) -> tuple[float, ...]:
    """The values as positive floats, or a ValueError by name."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e300:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return tuple(float(value) for value in values.values())


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ball:
    """A closed ball.

        D = { x : ‖x - centre‖ <= radius }

    Attributes:
      radius: positive, in the units of the states.
      centre: n coordinates.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> disc = ly.Ball(2.0, (0.0, 0.0))
      >>> round(disc.volume, 4), float(disc.gauge(jnp.array([1.0, 0.0])))
      (12.5664, 0.5)
    """

    radius: float
    centre: tuple[float, ...]

    def __post_init__(self):
        """Checks, and plain floats."""
        radius = real_tuple("radius", [self.radius])[0]
        if radius <= 0:
            raise ValueError(f"radius: expected a positive number, got {radius}")
        object.__setattr__(self, "radius", radius)
        object.__setattr__(self, "centre", real_tuple("centre", self.centre))

    @property
    def dim(self) -> int:
        """n."""
        return len(self.centre)

    @property
    def lo(self) -> tuple[float, ...]:
        """Lower corner of the enclosing box, up to rounding."""
        return tuple(c - self.radius for c in self.centre)

    @property
    def hi(self) -> tuple[float, ...]:
        """Upper corner of the enclosing box, up to rounding."""
        return tuple(c + self.radius for c in self.centre)

    @property
    def volume(self) -> float:
        """Length, area or volume."""
        n = self.dim
        return math.pi ** (n / 2) / math.gamma(n / 2 + 1) * self.radius**n

    def gauge(self, x: Array) -> Array:
        """At most 1 inside D, 1 on its boundary."""
        return jnp.linalg.norm(x - jnp.asarray(self.centre), axis=-1) / self.radius

    def holds(self, x: np.ndarray) -> bool:
        """Whether a point lies in the interior of D."""
        return math.dist(self.centre, np.asarray(x).tolist()) < self.radius

    def project(self, x: Array) -> Array:
        """The point of D closest to x."""
        away = x - jnp.asarray(self.centre)
        norm = jnp.sqrt(jnp.sum(away**2, axis=-1, keepdims=True))
        return jnp.asarray(self.centre) + away * jnp.minimum(
            1.0, self.radius / jnp.maximum(norm, jnp.finfo(x.dtype).tiny)
        )

    def to_boundary(self, x: Array) -> Array:
        """The point of ∂D in the direction of x; x other than the centre."""
        away = x - jnp.asarray(self.centre)
        norm = jnp.sqrt(jnp.sum(away**2, axis=-1, keepdims=True))
        return jnp.asarray(self.centre) + away * (self.radius / norm)

    def uniform(self, key: Array, num: int) -> Array:
        """(num, n) points, uniform in D."""
        one, two = jax.random.split(key)
        length = jax.random.uniform(two, (num, 1)) ** (1 / self.dim)
        directions = _directions(one, num, self.dim)
        return jnp.asarray(self.centre) + self.radius * length * directions

    def boundary(self, key: Array, num: int) -> Array:
        """(num, n) points on ∂D; in the plane one in each of num equal arcs."""
        return jnp.asarray(self.centre) + self.radius * _directions(key, num, self.dim)


def _directions(key: Array, num: int, dim: int) -> Array:
    """Unit vectors, stratified by angle in the plane."""
    if dim == 2:
        angle = 2 * jnp.pi * (jnp.arange(num) + jax.random.uniform(key, (num,))) / num
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    z = jax.random.normal(key, (num, dim))
    return z / jnp.linalg.norm(z, axis=-1, keepdims=True)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Box:
    """A closed box.

        D = { x : lo <= x <= hi }

    Attributes:
      lo: n lower bounds.
      hi: n upper bounds.

    Examples:
      >>> import lyapjax as ly
      >>> ly.Box((-1.0, 0.0), (1.0, 3.0)).volume
      6.0
    """

    lo: tuple[float, ...]
    hi: tuple[float, ...]

    def __post_init__(self):
        """Checks, and plain floats."""
        lo = real_tuple("lo", self.lo)
        hi = real_tuple("hi", self.hi, len(lo))
        for i, (a, b) in enumerate(zip(lo, hi)):
            if not a < b:
                raise ValueError(f"lo: expected lo < hi, got lo = {a}, hi = {b} at index {i}")
        object.__setattr__(self, "lo", lo)
        object.__setattr__(self, "hi", hi)

    @property
    def dim(self) -> int:
        """n."""
        return len(self.lo)

    @property
    def centre(self) -> tuple[float, ...]:
        """Its middle, up to rounding."""
        return tuple((a + b) / 2 for a, b in zip(self.lo, self.hi))

    @property
    def volume(self) -> float:
        """Length, area or volume."""
        return math.prod(b - a for a, b in zip(self.lo, self.hi))

    def _half(self) -> Array:
        return (jnp.asarray(self.hi) - jnp.asarray(self.lo)) / 2

    def gauge(self, x: Array) -> Array:
        """At most 1 inside D, 1 on its boundary."""
        return jnp.max(jnp.abs(x - jnp.asarray(self.centre)) / self._half(), axis=-1)

    def holds(self, x: np.ndarray) -> bool:
        """Whether a point lies in the interior of D."""
        return all(a < v < b for a, v, b in zip(self.lo, np.asarray(x).tolist(), self.hi))

    def project(self, x: Array) -> Array:
        """The point of D closest to x."""
        return jnp.clip(x, jnp.asarray(self.lo), jnp.asarray(self.hi))

    def to_boundary(self, x: Array) -> Array:
        """The point of ∂D in the direction of x from the centre; x other than the centre."""
        centre = jnp.asarray(self.centre)
        return self.project(centre + (x - centre) / self.gauge(x)[..., None])

    def uniform(self, key: Array, num: int) -> Array:
        """(num, n) points, uniform in D."""
        lo, hi = jnp.asarray(self.lo), jnp.asarray(self.hi)
        return jax.random.uniform(key, (num, self.dim), minval=lo, maxval=hi)

    def boundary(self, key: Array, num: int) -> Array:
        """(num, n) points on ∂D, the faces in turn; in the plane one in each of equal pieces."""
        one, two = jax.random.split(key)
        index = jnp.arange(num)
        axis, side, piece = index % self.dim, (index // self.dim) % 2, index // (2 * self.dim)
        t = 2 * jax.random.uniform(one, (num, self.dim)) - 1
        if self.dim == 2:
            pieces = -(-num // 4)
            t = 2 * (piece[:, None] + jax.random.uniform(two, (num, 2))) / pieces - 1
        t = jnp.where(jnp.arange(self.dim) == axis[:, None], (2.0 * side - 1)[:, None], t)
        return self.project(jnp.asarray(self.centre) + self._half() * t)
