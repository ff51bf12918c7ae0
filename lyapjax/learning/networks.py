"""Lyapunov functions and controllers as flax modules that are plain functions of one state.

    V = ‖φ(x) - φ(x*)‖² + (x - x*)'(ε I + R'R)(x - x*)        structured
    V = tanh(W2 tanh(W1 x + b1) + b2)                          the paper's
    u = u* + K (x - x*),    u* + s tanh(K (x - x*)/s),    u* + K (x - x*) + W2 tanh(W1 (x - x*))

Each is made from arrays and, being an `nnx.Module`, is a pytree of them: optax, `jax.grad`, `vmap`
and `scan` take it as it is. Calling one uses a few simple primitives only (products, sums, tanh),
which every checker reads. The structured V is zero with zero gradient at x* whatever its weights
(in real arithmetic; compiled, to rounding). Every controller is u* there exactly, in floating and
interval arithmetic too, because it has no biases: only then can the hole around the equilibrium be
closed.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from lyapjax.systems.domains import real_tuple
from lyapjax.systems.system import System, require_float64

EPSILON = 1e-3  # of the structured V: the least curvature left if R vanishes


def as_array(name: str, value, shape: tuple) -> Array:
    """`value` as a float64 array of that shape (None: any length), or a ValueError by name."""
    require_float64(name)
    try:
        array = jnp.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected real numbers, got {value!r}") from error
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape)
    )
    if not fits:
        want = tuple("any" if size is None else size for size in shape)
        raise ValueError(f"{name}: expected shape {want}, got {array.shape}")
    if not isinstance(array, jax.core.Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name}: expected finite values")
    return array


def _layers(weights: Sequence, biases: Sequence, dim: int) -> tuple[nnx.List, nnx.List]:
    if len(weights) != len(biases) or not weights:
        raise ValueError(
            f"weights: expected as many as biases and at least one, got {len(weights)} and "
            f"{len(biases)}"
        )
    checked, size = [], dim
    for i, (W, b) in enumerate(zip(weights, biases)):
        W = as_array(f"weights[{i}]", W, (None, size))
        size = W.shape[0]
        checked.append((W, as_array(f"biases[{i}]", b, (size,))))
    return tuple(nnx.List([nnx.Param(part) for part in parts]) for parts in zip(*checked))


class TanhLyapunov(nnx.Module):
    """The paper's candidate: a tanh network with a tanh at its end.

        V(x) = tanh(W_k tanh(… tanh(W_1 x + b_1) …) + b_k)

    Its value at the equilibrium is not zero unless it is trained so, and then only nearly.

    Attributes:
      weights: k matrices, the last with one row.
      biases: k vectors.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> V = ly.TanhLyapunov([jnp.eye(2), jnp.ones((1, 2))], [jnp.zeros(2), jnp.zeros(1)])
      >>> round(float(V(jnp.array([1.0, 0.0]))), 4)
      0.642
    """

    def __init__(self, weights: Sequence, biases: Sequence):
        dim = np.shape(weights[0])[-1] if len(weights) and np.ndim(weights[0]) else 0
        self.weights, self.biases = _layers(weights, biases, dim)
        if self.weights[-1].shape[0] != 1:
            raise ValueError(
                f"weights[{len(weights) - 1}]: expected one row, got {self.weights[-1].shape}"
            )

    def __call__(self, x: Array) -> Array:
        """V(x)."""
        for W, b in zip(self.weights, self.biases):
            x = jnp.tanh(W[...] @ x + b[...])
        return x[0]


class StructuredLyapunov(nnx.Module):
    """A candidate that is positive definite by construction.

        V(x) = ‖φ(x) - φ(x*)‖² + z'(ε I + R'R) z,        φ(x) = A tanh(… tanh(W_1 z + b_1) …)

    with z = x - x*: V(x*) = 0, ∇V(x*) = 0 and V(x) >= ε‖z‖² for all weights.

    Attributes:
      weights: hidden layers, k matrices.
      biases: k vectors.
      A: (p, width) features from the last layer.
      R: (n, n) factor of the quadratic part.
      equilibrium: x*, static.
      epsilon: ε, static.

    Examples:
      >>> import jax, jax.numpy as jnp, lyapjax as ly
      >>> W, b, A = jnp.ones((3, 2)), jnp.ones(3), jnp.ones((1, 3))
      >>> V = ly.StructuredLyapunov([W], [b], A, jnp.eye(2), equilibrium=(1.0, 2.0))
      >>> x = jnp.array([1.0, 2.0])
      >>> float(V(x)), jax.grad(V)(x).tolist()
      (0.0, [0.0, 0.0])
    """

    def __init__(
        self,
        weights: Sequence,
        biases: Sequence,
        A,
        R,
        *,
        equilibrium: Sequence[float] | None = None,
        epsilon: float = EPSILON,
    ):
        R = as_array("R", R, (None, None))
        dim = R.shape[1]
        self.weights, self.biases = _layers(weights, biases, dim)
        self.A = nnx.Param(as_array("A", A, (None, self.weights[-1].shape[0])))
        self.R = nnx.Param(R)
        self.equilibrium = real_tuple(
            "equilibrium", (0.0,) * dim if equilibrium is None else equilibrium, dim
        )
        if not 0 < epsilon < np.inf:
            raise ValueError(f"epsilon: expected a positive number, got {epsilon!r}")
        self.epsilon = float(epsilon)

    def __call__(self, x: Array) -> Array:
        """V(x)."""
        z = x - jnp.asarray(self.equilibrium)
        W, b = self.weights[0][...], self.biases[0][...]
        inside, rest = jnp.tanh(W @ z + b), jnp.tanh(b)  # at x and at x*
        for W, b in zip(list(self.weights)[1:], list(self.biases)[1:]):
            inside, rest = (jnp.tanh(W[...] @ h + b[...]) for h in (inside, rest))
        features = self.A[...] @ (inside - rest)
        factor = self.R[...] @ z
        return features @ features + factor @ factor + self.epsilon * (z @ z)


class LinearController(nnx.Module):
    """State feedback.

        u(x) = u* + K (x - x*)

    Attributes:
      K: (m, n) gain.
      equilibrium: (x*, u*), static.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> u = ly.LinearController([[-1.0, -2.0]])
      >>> u(jnp.array([1.0, 1.0])).tolist()
      [-3.0]
    """

    def __init__(self, K, *, equilibrium: tuple | None = None):
        self.K = nnx.Param(as_array("K", K, (None, None)))
        self.equilibrium = _pair(equilibrium, self.K.shape)

    def __call__(self, x: Array) -> Array:
        """u(x)."""
        at, u = (jnp.asarray(v) for v in self.equilibrium)
        return u + self.K[...] @ (x - at)


class SaturatedController(nnx.Module):
    """State feedback that keeps its bounds, smoothly.

        u(x) = u* + s tanh(K (x - x*) / s)

    with s the distance from u* to the closer bound, so that u(x*) = u* exactly.

    Attributes:
      K: (m, n) gain at the equilibrium.
      bounds: (lo, hi), static.
      equilibrium: (x*, u*), static.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> u = ly.SaturatedController([[-1.0, -2.0]], bounds=((-0.5,), (2.0,)))
      >>> round(float(u(jnp.array([100.0, 1.0]))[0]), 6)
      -0.5
    """

    def __init__(self, K, *, bounds: tuple, equilibrium: tuple | None = None):
        self.K = nnx.Param(as_array("K", K, (None, None)))
        m = self.K.shape[0]
        self.equilibrium = _pair(equilibrium, self.K.shape)
        self.bounds = tuple(
            real_tuple(f"bounds {k}", v, m) for k, v in zip(("lo", "hi"), bounds, strict=True)
        )
        for i, (a, u, b) in enumerate(zip(self.bounds[0], self.equilibrium[1], self.bounds[1])):
            if not a < u < b:
                raise ValueError(f"bounds: expected lo < u* < hi, got {a}, {u}, {b} at index {i}")

    def __call__(self, x: Array) -> Array:
        """u(x)."""
        at, u = (jnp.asarray(v) for v in self.equilibrium)
        lo, hi = (np.asarray(v) for v in self.bounds)
        middle = np.asarray(self.equilibrium[1])
        # A little less than the distance, so that rounding in u* + s tanh cannot pass the bound.
        s = jnp.asarray(np.minimum(hi - middle, middle - lo) * (1 - 2.0**-48))
        return u + s * jnp.tanh(self.K[...] @ (x - at) / s)


class TanhController(nnx.Module):
    """State feedback with a tanh network beside the gain.

        u(x) = u* + K (x - x*) + W_2 tanh(W_1 (x - x*))

    Attributes:
      K: (m, n) gain.
      W1: (width, n) first layer.
      W2: (m, width) second layer.
      equilibrium: (x*, u*), static.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> u = ly.TanhController([[-1.0, -2.0]], jnp.eye(2), jnp.zeros((1, 2)))
      >>> u(jnp.array([1.0, 1.0])).tolist()
      [-3.0]
    """

    def __init__(self, K, W1, W2, *, equilibrium: tuple | None = None):
        self.K = nnx.Param(as_array("K", K, (None, None)))
        m, n = self.K.shape
        self.W1 = nnx.Param(as_array("W1", W1, (None, n)))
        self.W2 = nnx.Param(as_array("W2", W2, (m, self.W1.shape[0])))
        self.equilibrium = _pair(equilibrium, (m, n))

    def __call__(self, x: Array) -> Array:
        """u(x)."""
        at, u = (jnp.asarray(v) for v in self.equilibrium)
        z = x - at
        return u + self.K[...] @ z + self.W2[...] @ jnp.tanh(self.W1[...] @ z)


def _pair(equilibrium: tuple | None, shape: tuple[int, int]) -> tuple:
    """(x*, u*) as static numbers, zeros by default, for a gain of that shape."""
    m, n = shape
    x, u = ((0.0,) * n, (0.0,) * m) if equilibrium is None else equilibrium
    return real_tuple("equilibrium x*", x, n), real_tuple("equilibrium u*", u, m)


def quadratic_lyapunov(P, equilibrium: Sequence[float] | None = None) -> StructuredLyapunov:
    """The quadratic function of a matrix, as a structured V without features.

        V(x) = (x - x*)'P (x - x*)

    Args:
      P: (n, n) symmetric positive definite.
      equilibrium: x*; the origin by default.

    Returns:
      `StructuredLyapunov` whose only feature is multiplied by zero.

    Raises:
      ValueError: P not symmetric positive definite.

    Reference:
      Chang, Roohi & Gao, section 2: the Lyapunov function of LQR.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> V = ly.quadratic_lyapunov([[2.0, 0.0], [0.0, 1.0]])
      >>> round(float(V(jnp.array([1.0, 3.0]))), 12)
      11.0
    """
    P = as_array("P", P, (None, None))
    n = P.shape[1]
    values = np.asarray(P)
    if P.shape != (n, n) or np.abs(values - values.T).max() > 1e-12 * np.abs(values).max():
        raise ValueError(f"P: expected a symmetric matrix, got {values.tolist()}")
    least = np.linalg.eigvalsh(values)[0]
    if not least > 0:
        raise ValueError(f"P: expected positive definite, got the eigenvalue {least:.6g}")
    epsilon = min(EPSILON, least / 2)
    R = np.linalg.cholesky(values - epsilon * np.eye(n)).T
    blank = np.zeros((1, n)), np.zeros(1), np.zeros((1, 1))
    return StructuredLyapunov(
        [blank[0]], [blank[1]], blank[2], R, equilibrium=equilibrium, epsilon=epsilon
    )


def linear_controller(system: System, K) -> LinearController | SaturatedController:
    """The linear controller of a gain; saturated, if the system's input is bounded.

        u = u* + K (x - x*)        or        u* + s tanh(K (x - x*)/s)

    Args:
      system: the system, for (x*, u*) and the bounds.
      K: (m, n) gain.

    Returns:
      `LinearController` or `SaturatedController`.

    Raises:
      ValueError: K not of that shape or not finite.

    Reference:
      Chang, Roohi & Gao, section 3.1, whose controllers are linear.

    Examples:
      >>> import lyapjax as ly
      >>> system = ly.systems.saturated_pendulum()
      >>> type(ly.linear_controller(system, ly.lqr(system).K)).__name__
      'SaturatedController'
    """
    K = as_array("K", K, (system.control_dim, system.state_dim))
    if system.input_bounds is None:
        return LinearController(K, equilibrium=system.equilibrium)
    return SaturatedController(K, bounds=system.input_bounds, equilibrium=system.equilibrium)
