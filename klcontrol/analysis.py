"""What KL-learning converges to, and whether: the ODE (7), its linearisation, Proposition 3.8.

With gains that fall slowly the algorithm follows

    z' = f(z, λ) = (I - P_z) D(H - λI) z,        λ' = g(z, λ) = α <z, D(H - λI) z>,

P_z = z z'/‖z‖², D = diag(d) with d the law by which states are visited: the invariant law of q by
the global clock, nearly equal by the local one. Its only equilibrium is (z*, λ*), ‖z*‖₂ = 1, and it
is locally stable if and only if the eigenvalues of

    A = D(H - λ*I - α P_z*)

have negative real parts (Proposition 3.7). The functions here are dense: for problems of up to
some thousand states. Wherever `weights` is None, d is the invariant law.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.ode import odeint

from klcontrol.dynamics import as_dense, is_concrete
from klcontrol.problem import Problem, floating_array
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


def invariant_law(q) -> Array:
    """The invariant law of an irreducible chain.

        Σ_i d_i q_ij = d_j,    Σ d = 1

    Args:
      q: passive dynamics with entries, or a policy.

    Returns:
      (n,) d. Differentiable in q.

    Raises:
      ValueError: q is a function.

    Reference:
      D of Lemma 3.4.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.invariant_law(jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(3).tolist()
      [0.667, 0.333]
    """
    q = as_dense(q)
    n = q.shape[0]
    # (I - q' + 1 1'/n) d = 1/n: not singular for an irreducible q, and Σ d = 1 follows.
    return jnp.linalg.solve(jnp.eye(n, dtype=q.dtype) - q.T + 1 / n, jnp.full(n, 1 / n, q.dtype))


def detailed_balance(q, law=None) -> Array:
    """How far a chain is from detailed balance.

        max_ij |d_i q_ij - d_j q_ji|

    Args:
      q: passive dynamics with entries, or a policy.
      law: (n,) d; the invariant law if None.

    Returns:
      () the largest difference: zero up to rounding for a reversible chain.

    Raises:
      ValueError: q is a function.

    Reference:
      Proposition 2.1.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> ring = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
      >>> round(float(klcontrol.detailed_balance(ring)), 3)
      0.333
    """
    q = as_dense(q)
    flow_ = (invariant_law(q) if law is None else jnp.asarray(law))[:, None] * q
    return jnp.max(jnp.abs(flow_ - flow_.T))


def controlled_law(problem: Problem) -> Array:
    """The invariant law under optimal control, where q satisfies detailed balance.

        p_i ∝ q_i exp(β c_i) (z*_i)²

    Args:
      problem: average-cost `Problem` whose q satisfies detailed balance.

    Returns:
      (n,) p.

    Raises:
      ValueError: q does not satisfy detailed balance (checked where its entries are known).

    Reference:
      Proposition 2.1. It holds only under detailed balance; otherwise take
      `invariant_law(solve(problem).policy)`.

    Examples:
      >>> import klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> bool(abs(klcontrol.controlled_law(closed.problem) - closed.invariant).max() < 1e-12)
      True
    """
    q = as_dense(problem.q)
    law = invariant_law(q)
    if is_concrete(law):
        off = float(detailed_balance(q, law))
        if off > 1e-8 * float(law.max()):
            raise ValueError(
                f"problem: q does not satisfy detailed balance (off by {off:.2g}), so Proposition "
                "2.1 does not apply: use invariant_law(solve(problem).policy)"
            )
    # In logarithms: exp(βc) z² overflows and underflows long before the law does.
    logs = jnp.log(law) + problem.beta * problem.cost - 2 * problem.beta * solve(problem).value
    return jax.nn.softmax(logs)


def drift(problem: Problem, z, lam, alpha, *, weights=None) -> tuple[Array, Array]:
    """The right-hand sides of the ODE.

        f(z, λ) = (I - P_z) D(H - λI) z,        g(z, λ) = α <z, D(H - λI) z>

    Args:
      problem: `Problem` with entries.
      z: (n,).
      lam: λ.
      alpha: α.
      weights: (n,) diagonal of D; the invariant law if None.

    Returns:
      f (n,) and g ().

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      (5) and (6).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> z = jnp.exp(-closed.value)
      >>> f, g = klcontrol.drift(closed.problem, z / jnp.linalg.norm(z), closed.lam, 1.0)
      >>> bool(abs(f).max() < 1e-12 and abs(g) < 1e-12)
      True
    """
    H, d = _matrices(problem, weights)
    return _drift(H, d, jnp.asarray(z), lam, alpha)


def flow(problem: Problem, z, lam, alpha, times, *, weights=None, rtol: float = 1e-8):
    """The solution of the ODE from given values.

        z' = f(z, λ),    λ' = g(z, λ)

    Args:
      problem: `Problem` with entries.
      z: (n,) z at the first time; its length is kept.
      lam: λ at the first time.
      alpha: α.
      times: (T,) increasing times.
      weights: (n,) diagonal of D; the invariant law if None.
      rtol: relative accuracy of the integrator (Dormand and Prince's method).

    Returns:
      z (T, n) and λ (T,).

    Raises:
      ValueError: weights that are not n positive numbers.

    Reference:
      (7).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> closed = klcontrol.examples.boltzmann([0.0, 1.0])
      >>> z, lam = klcontrol.flow(
      ...     closed.problem, jnp.ones(2) / jnp.sqrt(2), 1.0, 1.0, jnp.linspace(0, 200.0, 3)
      ... )
      >>> bool(abs(lam[-1] - closed.lam) < 1e-6)
      True
    """
    H, d = _matrices(problem, weights)

    def rate(state, _):
        return _drift(H, d, *state, alpha)

    start = (jnp.asarray(z, H.dtype), jnp.asarray(lam, H.dtype))
    return odeint(rate, start, jnp.asarray(times, H.dtype), rtol=rtol, atol=rtol * 1e-2)


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
    H, d = _matrices(problem, weights)
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
    H, d = map(np.asarray, _matrices(problem, weights))
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


def _drift(H, d, z, lam, alpha) -> tuple[Array, Array]:
    pull = d * (H @ z - lam * z)
    along = z @ pull
    return pull - z * along / (z @ z), alpha * along


def _matrices(problem: Problem, weights) -> tuple[Array, Array]:
    """H and d."""
    q = as_dense(problem.q)
    H = jnp.exp(-problem.beta * problem.cost)[:, None] * q
    if weights is None:
        return H, invariant_law(q)
    d = floating_array("weights", weights).astype(H.dtype)
    if d.shape != problem.cost.shape:
        raise ValueError(f"weights: expected shape {problem.cost.shape}, got {d.shape}")
    if is_concrete(d) and not (np.isfinite(np.asarray(d)) & (np.asarray(d) > 0)).all():
        raise ValueError(f"weights: expected positive, finite numbers, got {np.asarray(d)}")
    return H, d


def _perron(problem: Problem) -> tuple[Array, Array]:
    """z* of unit 2-norm, and λ*."""
    solution = solve(problem)
    return solution.z / jnp.linalg.norm(solution.z), solution.lam
