"""Whether KL-learning converges: the linearisation at its equilibrium, Proposition 3.8.

The only equilibrium of the ODE (`klcontrol.analysis`) is (z*, λ*), ‖z*‖₂ = 1, and it is locally
stable if and only if the eigenvalues of

    A = D(H - λ*I - α P_z*)

have negative real parts (Proposition 3.7). The functions here are dense: for problems of up to
some thousand states. Wherever `weights` is None, d is the invariant law of q.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klcontrol.analysis import matrices
from klcontrol.dynamics import as_dense
from klcontrol.problem import Problem
from klcontrol.solver import solve


class Linearisation(NamedTuple):
    """The ODE near its equilibrium, in three forms.

        full = d(f, g)/d(z, λ),    reduced = G on the tangent space,    similar = D(H - λ*I - αP_z*)

    Attributes:
      full: (n+1, n+1) equation (8).
      reduced: (n, n) equation (10), in a basis of the tangent space.
      similar: (n, n) A, similar to `reduced`.

    Examples:
      >>> import klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> klcontrol.linearisation(closed.problem, 1.0).reduced.shape
      (2, 2)
    """

    full: Array
    reduced: Array
    similar: Array


class Stability(NamedTuple):
    """Local stability of KL-learning's equilibrium.

        stable = max Re σ(D(H - λ*I - αP_z*)) < 0

    Attributes:
      eigenvalues: (n,) complex, of A, by falling real part.
      abscissa: () largest real part.
      stable: () bool: the abscissa is negative.

    Examples:
      >>> import klcontrol
      >>> bool(klcontrol.stability(klcontrol.examples.boltzmann([0.0, 1.0]).problem, 1.0).stable)
      True
    """

    eigenvalues: Array
    abscissa: Array
    stable: Array


class Condition(NamedTuple):
    """One of the sufficient conditions, and how far it is from holding or failing.

        holds = number <= limit        (< for (v))

    Attributes:
      holds: whether the condition holds.
      number: what has to be small.
      limit: what it has to stay below.
      text: the condition.

    Examples:
      >>> import klcontrol
      >>> problem = klcontrol.examples.boltzmann([0.0, 0.0]).problem
      >>> klcontrol.sufficient_conditions(problem, 1.0)["iii"].holds
      True
    """

    holds: bool
    number: float
    limit: float
    text: str


def linearisation(problem: Problem, alpha, *, weights=None) -> Linearisation:
    """The linear ODE near the equilibrium (z*, λ*), ‖z*‖₂ = 1.

        [ (I - P)D(H - λ*I)    -(I - P)D z* ]
        [ α z*'D(H - λ*I)      -α z*'D z*   ]

    Args:
      problem: average-cost `Problem` with entries.
      alpha: α.
      weights: (n,) diagonal of D; the invariant law if None.

    Returns:
      `Linearisation`.

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      (8), (9), (10) and Proposition 3.7.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> L = klcontrol.linearisation(klcontrol.examples.boltzmann([0.0, 1.0]).problem, 0.5)
      >>> bool(jnp.isclose(jnp.trace(L.reduced), jnp.trace(L.similar)))
      True
    """
    H, d = matrices(problem, weights)
    z, lam = _perron(problem)
    n = z.shape[0]
    shifted = d[:, None] * (H - lam * jnp.eye(n, dtype=H.dtype))
    tangent = jnp.eye(n, dtype=H.dtype) - jnp.outer(z, z)
    full = jnp.block(
        [
            [tangent @ shifted, -(tangent @ (d * z))[:, None]],
            [alpha * (z @ shifted)[None], -jnp.reshape(alpha * (z @ (d * z)), (1, 1))],
        ]
    )
    # The columns after the first of a full QR of z are orthonormal and orthogonal to z.
    W = jnp.linalg.qr(z[:, None], mode="complete")[0][:, 1:]
    basis = jax.scipy.linalg.block_diag(W, jnp.ones((1, 1), H.dtype))
    similar = shifted - alpha * d[:, None] * jnp.outer(z, z)
    return Linearisation(full, basis.T @ full @ basis, similar)


def stability(problem: Problem, alpha, *, weights=None) -> Stability:
    """Whether KL-learning's equilibrium is locally stable.

        σ(D(H - λ*I - αP_z*))

    Args:
      problem: average-cost `Problem` with entries.
      alpha: α.
      weights: (n,) diagonal of D; the invariant law if None.

    Returns:
      `Stability`. Small enough α is always stable; so are equal weights (`clock="local"`).

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      Proposition 3.7. Conjecture 3.9, that it always is, is false: `klcontrol.counterexample`.

    Examples:
      >>> import klcontrol
      >>> arrays = klcontrol.counterexample.as_arrays(klcontrol.counterexample.invariant_weights())
      >>> problem = klcontrol.Problem(arrays["q"], arrays["cost"])
      >>> [bool(klcontrol.stability(problem, alpha).stable) for alpha in (0.1, 1.0, 100.0)]
      [True, False, True]
    """
    values = jnp.linalg.eigvals(linearisation(problem, alpha, weights=weights).similar)
    values = values[jnp.argsort(-values.real)]
    return Stability(values, values[0].real, values[0].real < 0)


def sufficient_conditions(
    problem: Problem, alpha, *, weights=None, rtol: float = 1e-9
) -> dict[str, Condition]:
    """Which conditions of Proposition 3.8 hold, each with its number.

        i    D = βI                                     max d / min d - 1
        ii   (H + H')z* = 2λ*z*, ρ(H + H') = 2λ*        the larger relative difference
        iii  H H' = H'H                                 ‖HH' - H'H‖ / ‖H‖²
        iv   h_ij > 0, |αz_i z_j - h_ij| <= h_ij        max (|αz_i z_j - h_ij| - h_ij), i ≠ j
        v    DQ = Q'D and (11)                          √(C/c - 1)/2, limit min(1, (λ* - λ_(n-1))/α)

    Args:
      problem: average-cost `Problem` with entries, known (not traced).
      alpha: α, a number.
      weights: (n,) diagonal of D; the invariant law if None.
      rtol: relative size up to which (i)–(iii) and detailed balance count as equalities.

    Returns:
      `Condition` by number of the draft; each one that holds implies stability.

    Raises:
      ValueError: alpha not positive, or weights that are not n positive numbers.

    Reference:
      Proposition 3.8. Departure: (v) is unfinished in the draft; here with R = diag(exp(-βc)), and
      with an infinite number where DQ ≠ Q'D. "Only positive off-diagonal entries" of (iv) is
      checked too: its number is infinite where some h_ij = 0, i ≠ j.

    Examples:
      >>> import klcontrol
      >>> found = klcontrol.sufficient_conditions(
      ...     klcontrol.examples.boltzmann([0.0, 0.1]).problem, 0.1
      ... )
      >>> [name for name, condition in found.items() if condition.holds]
      ['ii', 'iii', 'iv', 'v']
    """
    if not float(alpha) > 0:
        raise ValueError(f"alpha: expected a positive number, got {alpha}")
    H, d = map(np.asarray, matrices(problem, weights))
    q = np.asarray(as_dense(problem.q))
    z, lam = map(np.asarray, _perron(problem))
    scale = np.linalg.norm(H)
    symmetric = H + H.T
    spectral = np.linalg.eigvalsh(symmetric).max()
    pairs = ~np.eye(len(z), dtype=bool)
    excess = (np.abs(alpha * np.outer(z, z) - H) - H)[pairs]
    positive = bool((H[pairs] > 0).all())
    balance = np.abs(d[:, None] * q - (d[:, None] * q).T).max() / (d[:, None] * q).max()
    ratio = d * np.exp(np.asarray(problem.beta * problem.cost))
    reals = np.sort(np.linalg.eigvals(H).real)
    gap = lam - (reals[-2] if len(z) > 1 else -np.inf)
    reversible = balance <= rtol
    fifth = 0.5 * np.sqrt(ratio.max() / ratio.min() - 1) if reversible else np.inf
    limit = min(1.0, float(gap / alpha))
    second = max(
        np.linalg.norm(symmetric @ z - 2 * lam * z) / scale, abs(spectral - 2 * lam) / scale
    )
    largest = float(excess.max(initial=-np.inf)) if positive else np.inf
    small = rtol * float(scale)
    numbers = {
        "i": (d.max() / d.min() - 1, rtol, "D = βI"),
        "ii": (second, rtol, "ρ(H + H') = 2λ* and (H + H')z* = 2λ*z*"),
        "iii": (np.linalg.norm(H @ H.T - H.T @ H) / scale**2, rtol, "H is normal"),
        "iv": (largest, small, "|αz_i z_j - h_ij| <= h_ij, h_ij > 0 for i ≠ j"),
        "v": (fifth, limit, "DQ = Q'D and (11); unfinished in the draft"),
    }
    return {
        name: Condition(
            bool(number < bound if name == "v" else number <= bound),
            float(number),
            float(bound),
            text,
        )
        for name, (number, bound, text) in numbers.items()
    }


def _perron(problem: Problem) -> tuple[Array, Array]:
    """z* of unit 2-norm, and λ*."""
    solution = solve(problem)
    return solution.z / jnp.linalg.norm(solution.z), solution.lam
