"""Constructors of sets: noise balls, boxes, slabs, norm balls, ellipsoids; with checks by name."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array

from chebyshev.sets import Ellipsoids, to_real


def is_concrete(*values) -> bool:
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def as_array(
    name: str, value, ndim: int, shape: tuple | None = None, complex_too: bool = False
) -> Array:
    """`value` in 64 bits with that many dimensions, finite if that can be known now."""
    if not jax.config.jax_enable_x64:
        raise ValueError(
            f"{name}: the relaxation needs float64; switch it on before JAX is used: "
            'jax.config.update("jax_enable_x64", True)'
        )
    array = jnp.asarray(value)
    is_complex = jnp.issubdtype(array.dtype, jnp.complexfloating)
    if is_complex and not complex_too:
        raise ValueError(f"{name}: expected real numbers, got {array.dtype}")
    array = array.astype(jnp.complex128 if is_complex else jnp.float64)
    if array.ndim != ndim or (shape is not None and array.shape != shape):
        expected = f"shape {shape}" if shape is not None else f"{ndim} dimensions"
        raise ValueError(f"{name}: expected {expected}, got shape {array.shape}")
    # By NumPy: inside a caller's jit even an operation on known numbers would be traced.
    if is_concrete(array) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return array


def as_positive(name: str, value) -> Array:
    array = as_array(name, value, 0)
    if is_concrete(array) and not np.asarray(array) > 0:
        raise ValueError(f"{name}: expected a positive number, got {float(array)}")
    return array


def _in_real_form(*arrays: Array) -> tuple[bool, tuple[Array, ...]]:
    """Whether one of them is complex, and all of them over (Re x, Im x) if so."""
    is_complex = any(jnp.iscomplexobj(a) for a in arrays)
    return is_complex, tuple(to_real(a) if is_complex else a for a in arrays)


def _make(dim: int, names: tuple[str, ...], **fields) -> Ellipsoids:
    empty = {
        "factors": (),
        "targets": (),
        "linear": jnp.zeros((0, dim)),
        "normals": jnp.zeros((0, dim)),
        "coordinates": (),
        **{name: jnp.zeros(0) for name in ("constant", "scale", "lo", "hi", "slab_lo", "slab_hi")},
    }
    return Ellipsoids(**{**empty, **fields}, dim=dim, names=names)


def _quadratic(name: str, F: Array, target: Array, squared_radius: Array) -> Ellipsoids:
    """‖F x - target‖² <= squared_radius."""
    is_complex, (F, target) = _in_real_form(F, target)
    return _make(
        F.shape[1],
        (name,),
        factors=(F,),
        targets=(target,),
        linear=jnp.zeros((1, F.shape[1])),
        constant=-squared_radius[None],
        scale=squared_radius[None],
        is_complex=is_complex,
    )


def ellipsoids(Q, g, d) -> Ellipsoids:
    """The intersection of k ellipsoids given by their matrices.

        f_i(x) = x'Q_i x + 2 g_i'x + d_i <= 0

    or x*Q_i x + 2 Re(g_i*x) + d_i <= 0 for complex Q or g.

    Args:
      Q: (k, m, m) symmetric (Hermitian) positive semidefinite matrices.
      g: (k, m) linear parts.
      d: (k,) constants.

    Returns:
      `Ellipsoids` of k quadratics.

    Raises:
      ValueError: shapes that do not match; NaN; a Q_i that is not symmetric or not positive
        semidefinite (with its eigenvalue); an empty ellipsoid.

    Reference:
      Eldar, Beck & Teboulle, equation (2).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> chebyshev.ellipsoids(jnp.eye(2)[None], jnp.zeros((1, 2)), -jnp.ones(1)).names
      ('ellipsoid[0]',)
    """
    Q = as_array("Q", Q, 3, complex_too=True)
    k, m, _ = Q.shape
    Q = as_array("Q", Q, 3, (k, m, m), complex_too=True)
    g, d = as_array("g", g, 2, (k, m), complex_too=True), as_array("d", d, 1, (k,))
    is_complex = jnp.iscomplexobj(Q) or jnp.iscomplexobj(g)
    if is_complex:
        Q, g, m = jax.vmap(to_real)(Q), jax.vmap(to_real)(g + 0j), 2 * m
    values, vectors = jnp.linalg.eigh(Q)
    largest = jnp.max(jnp.abs(values), axis=1, initial=0)
    if is_concrete(Q, values):
        skew = np.abs(np.asarray(Q) - np.asarray(Q).transpose(0, 2, 1)).max(axis=(1, 2))
        for i in range(k):
            if skew[i] > 1e-12 * largest[i]:
                raise ValueError(
                    f"Q: expected symmetric (Hermitian) matrices, Q[{i}] differs by {skew[i]:.3g}"
                )
            if values[i, 0] < -1e-12 * largest[i]:
                raise ValueError(
                    f"Q: expected positive semidefinite matrices, Q[{i}] has the eigenvalue "
                    f"{float(values[i, 0]):.6g}"
                )
    positive = values > 1e-14 * largest[:, None]
    factors = jnp.sqrt(jnp.where(positive, values, 0))[:, :, None] * vectors.mT
    # -min f = g'Q⁺g - d, the squared radius; if g has a part outside the range, any scale will do.
    inverse = jnp.where(positive, 1 / jnp.where(positive, values, 1), 0)
    radius = jnp.sum(inverse * jnp.einsum("kmj,km->kj", vectors, g) ** 2, axis=1) - d
    if is_concrete(radius):
        outside = np.asarray(jnp.einsum("kmj,km->kj", vectors, g) * ~positive)
        for i in range(k):
            if not radius[i] > 0 and np.abs(outside[i]).max() <= 1e-12 * float(largest[i]):
                raise ValueError(
                    f"d: ellipsoid[{i}] is empty or a point: min f = {-float(radius[i]):.6g}, "
                    f"expected a negative number"
                )
    return _make(
        m,
        tuple(f"ellipsoid[{i}]" for i in range(k)),
        factors=tuple(factors),
        targets=(jnp.zeros(m),) * k,
        linear=g,
        constant=d,
        scale=jnp.where(radius > 0, radius, 1),
        is_complex=is_complex,
    )


def noise_ball(A, y, rho=None, *, sd=None, confidence: float = 0.95) -> Ellipsoids:
    """All x that explain the observations up to noise of bounded norm.

        ‖y - A x‖² <= ρ

    Nobody knows the norm of the noise; from its standard deviation, ρ = sd² q with q the quantile
    of the chi-squared distribution with n degrees of freedom at `confidence`: then the true x is in
    the set with that probability, for Gaussian noise. Complex data have complex noise with
    E|w_i|² = sd², so ρ = sd² q / 2 with 2 n degrees of freedom.

    Args:
      A: (n, m) model matrix, real or complex.
      y: (n,) observations, real or complex.
      rho: bound of the squared norm of the noise; or
      sd: standard deviation of the noise.
      confidence: probability that the bound from `sd` holds.

    Returns:
      `Ellipsoids` of one quadratic.

    Raises:
      ValueError: shapes that do not match; NaN; `rho` or `sd` not positive; both or neither given.

    Reference:
      Eldar, Beck & Teboulle, equation (3).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> ball = chebyshev.noise_ball(jnp.eye(2), jnp.ones(2), sd=0.1, confidence=0.95)
      >>> round(float(ball.scale[0]), 6)
      0.059915
    """
    A = as_array("A", A, 2, complex_too=True)
    y = as_array("y", y, 1, (A.shape[0],), complex_too=True)
    if (rho is None) == (sd is None):
        raise ValueError("rho: expected either rho or sd, not both")
    if rho is None:
        if not 0 < confidence < 1:
            raise ValueError(f"confidence: expected a probability, got {confidence!r}")
        parts = 2 if jnp.iscomplexobj(A) or jnp.iscomplexobj(y) else 1
        quantile = scipy.stats.chi2.ppf(confidence, parts * A.shape[0]) / parts
        rho = as_positive("sd", sd) ** 2 * quantile
    return _quadratic("noise_ball", A, y, as_positive("rho", rho))


def box(lo, hi) -> Ellipsoids:
    """All x between two bounds.

        lo_i <= x_i <= hi_i,        as (x_i - lo_i)(x_i - hi_i) <= 0

    for complex bounds of the real and of the imaginary parts.

    Args:
      lo: (m,) lower bounds, real or complex.
      hi: (m,) upper bounds, above them.

    Returns:
      `Ellipsoids` of m slabs along the coordinates.

    Raises:
      ValueError: shapes that do not match; NaN; lo >= hi, with the coordinate.

    Reference:
      Eldar, Beck & Teboulle, section 2.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> chebyshev.box(jnp.zeros(2), jnp.ones(2)).values(jnp.array([0.5, 2.0])).tolist()
      [-0.25, 2.0]
    """
    lo = as_array("lo", lo, 1, complex_too=True)
    m = lo.shape[0]
    hi = as_array("hi", hi, 1, (m,), complex_too=True)
    is_complex, (lo, hi) = _in_real_form(lo, hi)
    check_order("lo", lo, hi)
    names = [f"box[{i}]" for i in range(m)]
    if is_complex:
        names = [f"{part} box[{i}]" for part in ("Re", "Im") for i in range(m)]
    coordinates = tuple(range(lo.shape[0]))
    fields = {"lo": lo, "hi": hi, "coordinates": coordinates, "is_complex": is_complex}
    return _make(lo.shape[0], tuple(names), **fields)


def check_order(name: str, lo: Array, hi: Array) -> None:
    if is_concrete(lo, hi) and not (np.asarray(lo) < np.asarray(hi)).all():
        i = int(np.argmin(np.asarray(lo) < np.asarray(hi)))
        raise ValueError(
            f"{name}: expected lo < hi, got lo = {float(lo[i])}, hi = {float(hi[i])} at index {i}"
        )


def slab(a, lo, hi) -> Ellipsoids:
    """All x between two parallel planes.

        lo <= a'x <= hi,        as (a'x - lo)(a'x - hi) <= 0

    with Re(a*x) for a complex normal.

    Args:
      a: (m,) normal, real or complex.
      lo: lower bound.
      hi: upper bound, above it.

    Returns:
      `Ellipsoids` of one slab.

    Raises:
      ValueError: NaN; a = 0; lo >= hi.

    Reference:
      Eldar, Beck & Teboulle, section 4.1, where (x'e)² <= η² is one.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> chebyshev.slab(jnp.ones(3), -1.0, 1.0).values(jnp.ones(3)).tolist()
      [8.0]
    """
    is_complex, (a,) = _in_real_form(as_array("a", a, 1, complex_too=True))
    lo, hi = as_array("lo", lo, 0), as_array("hi", hi, 0)
    check_order("lo", lo[None], hi[None])
    if is_concrete(a) and not np.asarray(a).any():
        raise ValueError("a: expected a normal other than zero")
    bounds = {"slab_lo": lo[None], "slab_hi": hi[None]}
    return _make(a.shape[0], ("slab",), normals=a[None], **bounds, is_complex=is_complex)


def simplex_like(eta, dim: int) -> Ellipsoids:
    """The paper's description of { x >= 0, x'e <= η }.

        x_i (x_i - η) <= 0,        (x'e)² <= η²

    Args:
      eta: bound of the sum.
      dim: m.

    Returns:
      `Ellipsoids` of m coordinate slabs and one slab.

    Raises:
      ValueError: `eta` not positive; `dim` below 1.

    Reference:
      Eldar, Beck & Teboulle, equation (18). Departure: none, but note that the quadratic
      description is looser than the set.

    Examples:
      >>> import chebyshev
      >>> len(chebyshev.simplex_like(2.0, 3).names)
      4
    """
    if dim < 1:
        raise ValueError(f"dim: expected at least 1, got {dim!r}")
    eta = as_positive("eta", eta)
    return box(jnp.zeros(dim), jnp.full(dim, eta)) & slab(jnp.ones(dim), -eta, eta)


def norm_ball(L, eta, center=None) -> Ellipsoids:
    """All x with a bounded seminorm.

        ‖L (x - center)‖ <= η

    Args:
      L: (r, m) matrix: the identity, or a discrete derivative for smoothness; real or complex.
      eta: radius, not squared.
      center: (m,) centre, real or complex; the origin by default.

    Returns:
      `Ellipsoids` of one quadratic.

    Raises:
      ValueError: shapes that do not match; NaN; `eta` not positive.

    Reference:
      Eldar, Beck & Teboulle, section 2.

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> chebyshev.norm_ball(jnp.eye(2), 2.0).values(jnp.ones(2)).tolist()
      [-2.0]
    """
    L = as_array("L", L, 2, complex_too=True)
    m = L.shape[1]
    center = as_array(
        "center", jnp.zeros(m) if center is None else center, 1, (m,), complex_too=True
    )
    return _quadratic("norm_ball", L, L @ center, as_positive("eta", eta) ** 2)


def ellipsoid(P, center) -> Ellipsoids:
    """One ellipsoid by its shape matrix.

        (x - center)' P⁻¹ (x - center) <= 1

    Args:
      P: (m, m) symmetric (Hermitian) positive definite; its eigenvalues are the squared half axes.
      center: (m,) centre, real or complex.

    Returns:
      `Ellipsoids` of one quadratic.

    Raises:
      ValueError: shapes that do not match; NaN; P not positive definite (with the eigenvalue).

    Reference:
      Eldar, Beck & Teboulle, equation (2).

    Examples:
      >>> import jax.numpy as jnp, chebyshev
      >>> e = chebyshev.ellipsoid(jnp.diag(jnp.array([4.0, 1.0])), jnp.zeros(2))
      >>> e.values(jnp.array([2.0, 0.0])).tolist()
      [0.0]
    """
    P = as_array("P", P, 2, complex_too=True)
    m = P.shape[0]
    P = as_array("P", P, 2, (m, m), complex_too=True)
    center = as_array("center", center, 1, (m,), complex_too=True)
    if is_concrete(P):
        lowest = float(np.linalg.eigvalsh(np.asarray(P))[0])
        if not lowest > 0:
            raise ValueError(f"P: expected positive definite, got the eigenvalue {lowest:.6g}")
    lower = jnp.linalg.cholesky(P)
    F = jax.scipy.linalg.solve_triangular(lower, jnp.eye(m, dtype=P.dtype), lower=True)
    return _quadratic("ellipsoid", F, F @ center, jnp.ones(()))
