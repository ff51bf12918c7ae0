"""Sets of admissible parameters: intersections of ellipsoids.

    { x in R^m : f_i(x) = x'Q_i x + 2 g_i'x + d_i <= 0, i = 1 … k },        Q_i ⪰ 0

Two kinds of constraint are kept apart, because a box in m dimensions has m of them and must not
become m dense matrices:

    quadratic   ‖F x - target‖² + 2 linear'x + constant <= 0 with a factor F of any number of rows,
                so Q = F'F: noise balls, norm balls, ellipsoids;
    slab        |v'x - centre| <= half_width, squared: Q = v v'. The normals v are the unit vectors
                of `coordinates` (boxes) or the rows of `normals` (slabs).

In this order, quadratics, boxes, slabs, the constraints are numbered. Each is used divided by its
`scale`, the squared radius by which it should be measured: ρ for a noise ball, the squared half
width for a slab. Sets combine with `&`; they are pytrees, so that `jit`, `vmap` and `grad` reach
every number in them.

Complex parameters x in C^m are kept as (Re x, Im x) in R^2m, F as [[Re F, -Im F], [Im F, Re F]],
which changes no norm. Nothing is lost: Σ α_i Q_i - I is positive semidefinite in one form exactly
if it is in the other, so the dual (17), its multipliers and its value are those of the complex
problem.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array


def to_real(array: Array) -> Array:
    """A complex vector as (Re, Im), a complex matrix as [[Re, -Im], [Im, Re]]."""
    real, imag = jnp.real(array), jnp.imag(array)
    if array.ndim == 1:
        return jnp.concatenate([real, imag])
    return jnp.block([[real, -imag], [imag, real]])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ellipsoids:
    """An intersection of ellipsoids in R^m, some of which may be slabs.

        f_i(x) = x'Q_i x + 2 g_i'x + d_i <= 0

    Made by `ellipsoids`, `noise_ball`, `box`, `norm_ball`, `slab`, `simplex_like` and `ellipsoid`,
    and combined with `&`.

    Attributes:
      factors: tuple of p arrays F_i, (r_i, m).
      targets: tuple of p arrays (r_i,).
      linear: (p, m) linear parts of the quadratics.
      constant: (p,) their constants.
      scale: (p,) squared radii by which they are measured.
      lo: (b,) lower bounds.
      hi: (b,) upper bounds.
      normals: (q, m) normals of the slabs.
      slab_lo: (q,) their lower bounds.
      slab_hi: (q,) their upper bounds.
      dim: m, or 2 m for complex parameters.
      coordinates: the b coordinates that lo and hi bound.
      names: k names, one a constraint, for messages.
      is_complex: whether x is in C^m.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> disc = chebyshev.norm_ball(jnp.eye(2), 1.0)
      >>> half = disc & chebyshev.box(jnp.zeros(2), jnp.full(2, 3.0))
      >>> half.names
      ('norm_ball', 'box[0]', 'box[1]')
      >>> half.values(jnp.ones(2)).tolist()
      [1.0, -2.0, -2.0]
    """

    factors: tuple[Array, ...]
    targets: tuple[Array, ...]
    linear: Array
    constant: Array
    scale: Array
    lo: Array
    hi: Array
    normals: Array
    slab_lo: Array
    slab_hi: Array
    dim: int = dataclasses.field(metadata={"static": True})
    coordinates: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    is_complex: bool = dataclasses.field(default=False, metadata={"static": True})

    def to_real(self, x: Array) -> Array:
        """The coordinates of x in R^dim: (Re x, Im x) for complex parameters, else x."""
        return to_real(x) if self.is_complex else x

    def from_real(self, x: Array) -> Array:
        """The parameter with those coordinates in R^dim."""
        half = self.dim // 2
        return x[:half] + 1j * x[half:] if self.is_complex else x

    def __and__(self, other: "Ellipsoids") -> "Ellipsoids":
        """The intersection; both sets live in the same R^m."""
        if not isinstance(other, Ellipsoids):
            return NotImplemented
        if self.is_complex != other.is_complex:
            return _over_c(self) & _over_c(other)
        if self.dim != other.dim:
            raise ValueError(
                f"sets: expected one dimension, got {self.dim} ({self.names[0]}) and "
                f"{other.dim} ({other.names[0]})"
            )
        p, q = len(self.factors), len(other.factors)
        b, c = len(self.coordinates), len(other.coordinates)
        names = (
            *(*self.names[:p], *other.names[:q]),
            *(*self.names[p : p + b], *other.names[q : q + c]),
            *(*self.names[p + b :], *other.names[q + c :]),
        )

        def join(name):
            return jnp.concatenate([getattr(self, name), getattr(other, name)])

        fields = ("linear", "constant", "scale", "lo", "hi", "normals", "slab_lo", "slab_hi")
        return Ellipsoids(
            (*self.factors, *other.factors),
            (*self.targets, *other.targets),
            *(join(name) for name in fields),
            dim=self.dim,
            coordinates=(*self.coordinates, *other.coordinates),
            names=names,
            is_complex=self.is_complex,
        )

    def moved(self, origin: Array, unit: Array) -> "Ellipsoids":
        """The same constraints on z, where x = origin + unit z, in R^dim."""
        inside = origin[jnp.array(self.coordinates, int)]
        along = self.normals @ origin
        return dataclasses.replace(
            self,
            factors=tuple(unit * F for F in self.factors),
            targets=tuple(t - F @ origin for F, t in zip(self.factors, self.targets)),
            linear=unit * self.linear,
            constant=self.constant + 2 * self.linear @ origin,
            lo=(self.lo - inside) / unit,
            hi=(self.hi - inside) / unit,
            slab_lo=(self.slab_lo - along) / unit,
            slab_hi=(self.slab_hi - along) / unit,
        )

    def values(self, x: Array) -> Array:
        """f_i(x) of every constraint, (k,), in its own units: positive where x violates it."""
        x = self.to_real(jnp.asarray(x))
        squares = [jnp.sum((F @ x - t) ** 2) for F, t in zip(self.factors, self.targets)]
        quadratic = jnp.array(squares) + 2 * self.linear @ x + self.constant
        inside = x[jnp.array(self.coordinates, int)]
        along = self.normals @ x
        return jnp.concatenate(
            [
                quadratic,
                (inside - self.lo) * (inside - self.hi),
                (along - self.slab_lo) * (along - self.slab_hi),
            ]
        )


def _over_c(sets: Ellipsoids) -> Ellipsoids:
    """Quadratics with real data as constraints on complex parameters."""
    if sets.is_complex:
        return sets
    if sets.coordinates or len(sets.normals):
        raise ValueError(
            f"sets: {sets.names[len(sets.factors)]} bounds real parameters, the other set is over "
            f"complex ones; give complex bounds, for real and imaginary parts"
        )
    return dataclasses.replace(
        sets,
        factors=tuple(to_real(F + 0j) for F in sets.factors),
        targets=tuple(to_real(t + 0j) for t in sets.targets),
        linear=jax.vmap(to_real)(sets.linear + 0j),
        normals=jnp.zeros((0, 2 * sets.dim)),
        dim=2 * sets.dim,
        is_complex=True,
    )
