"""Bounds on λ* and ρ* that hold in spite of rounding (Collatz–Wielandt).

For *any* numbers φ_i, with z = exp(φ) > 0 and H >= 0,

    min_i r_i <= log λ* <= max_i r_i,      r_i = log((Hz)_i / z_i)
                                              = -β c_i + log Σ_j q_ij exp(φ_j - φ_i),

where H is that of the given floating-point numbers q, c, β, taken as exact. So nothing has to be
known about how φ was found, and what is to be proved is only how far the computed r̂_i is from r_i.
With u = 2⁻⁵³, d the number of terms, and

    t_j = fl(φ_j - φ_i),    g = max_j t_j,    s_j = fl(t_j - g),    S = fl(Σ_j q_ij exp(s_j)),
    L = fl(log S),          r̂ = fl(fl(g + L) - fl(β c)),            τ = max_j |t_j| (q_ij > 0):

- t_j and s_j err by at most u|t_j| and u|s_j| <= 2uτ, so each exponent by 3uτ;
- exp and log err by at most E units of rounding, E = 16 (XLA and NumPy document about 1 to 4; the
  tests compare them with ball arithmetic); for log this is of max(1, |log S|);
- product and sum add d u, in whatever order the terms are added;
- the last two operations and the product β c add u (|g + L| + |β c| + |r̂|), or less if the product
  is fused into the subtraction; one more u |r̂| is for adding the margin itself.

Hence |r̂ - r| <= 1.01 u (3τ + d + E + E max(1, |L|) + |g + L| + |β c| + 2|r̂|): the factor 1.01
covers all terms of second order, as the sum is far below 0.01/u for anything that fits into memory.
Terms below 2⁻¹⁰²¹ may be flushed to zero; that is at most d 2⁻¹⁰²¹ <= u S if S >= 1e-280, and else
nothing is claimed. φ is an argument or the result of a loop, so it is in memory, and t_j, a single
subtraction, is the same number wherever it is computed; each other quantity may be computed twice
with different rounding, and both satisfy the bound. Under the total criterion λ* = 1 is known; the
bounds are then those of the residual of the states that are not absorbing.

`certify` repeats this on the host: in ball arithmetic (python-flint) for problems of moderate size,
by NumPy otherwise.
"""

from typing import NamedTuple

import flint
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from klcontrol.dynamics import Neighbours, as_neighbours, is_concrete
from klcontrol.problem import Problem

UNIT = 2.0**-53
ELEMENTARY = 16
SMALLEST_SUM = 1e-280
# Ball arithmetic takes some ten microseconds for each entry of q.
BALL_ENTRIES = 20_000


class Certificate(NamedTuple):
    """Proved bounds, lower and upper, on the principal eigenvalue and the optimal average cost.

        log_lam[0] <= log λ* <= log_lam[1],        ρ* = -log(λ*) / β

    Attributes:
      lam: (2,) bounds on λ*; from 0 where λ* underflows.
      log_lam: (2,) bounds on log λ*; -inf and inf if nothing is proved. In the total criterion,
        where λ* = 1, bounds on the residual.
      rho: (2,) bounds on ρ*, in the units of the costs.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> bounds = klcontrol.solve(p).bounds
      >>> true = (1 + jnp.exp(-1.0)) / 2
      >>> bool(bounds.lam[0] <= true) and bool(true <= bounds.lam[1])
      True
    """

    lam: Array
    log_lam: Array
    rho: Array


def _row_bounds(q, base, phi):
    """r̂ and its margin, (n,), for q dense or Neighbours."""
    if isinstance(q, Neighbours):
        length = q.indices.shape[1]

        # Successor by successor, in loops, so that no (n, d) temporaries are needed.
        def term(k):
            v, t = q.probabilities[:, k], phi[q.indices[:, k]] - phi
            return v, t, v > 0

        def largest(k, found):
            _, t, positive = term(k)
            g = jnp.maximum(found[0], jnp.where(positive, t, -jnp.inf))
            return g, jnp.maximum(found[1], jnp.where(positive, jnp.abs(t), 0))

        def add(k, S):
            v, t, positive = term(k)
            # Where q is zero the exponent is made harmless, not only its weight.
            return S + v * jnp.exp(jnp.where(positive, t - g, 0))

        g, tau = lax.fori_loop(
            0, length, largest, (jnp.full_like(phi, -jnp.inf), jnp.zeros_like(phi))
        )
        S = lax.fori_loop(0, length, add, jnp.zeros_like(phi))
    else:
        length, t, positive = q.shape[1], phi[None, :] - phi[:, None], q > 0
        g = jnp.max(jnp.where(positive, t, -jnp.inf), axis=1)
        tau = jnp.max(jnp.where(positive, jnp.abs(t), 0), axis=1)
        S = jnp.sum(q * jnp.exp(jnp.where(positive, t - g[:, None], 0)), axis=1)
    L = jnp.log(S)
    r = (g + L) - base
    terms = length + ELEMENTARY + ELEMENTARY * jnp.maximum(1, jnp.abs(L))
    sizes = 3 * tau + jnp.abs(g + L) + jnp.abs(base) + 2 * jnp.abs(r)
    margin = 1.01 * UNIT * (terms + sizes)
    proved = (SMALLEST_SUM <= S) & jnp.isfinite(r) & jnp.isfinite(margin)
    return r, jnp.where(proved, margin, jnp.inf)


def _outward(xp, lower, upper, beta) -> Certificate:
    """The bounds on λ and ρ that follow from those on log λ."""
    wide = 1 + 4 * ELEMENTARY * UNIT
    tiny = np.finfo(np.float64).tiny
    lam = xp.stack([xp.exp(lower) / wide - tiny, xp.exp(upper) * wide + tiny])
    rho = xp.stack([-upper / beta, -lower / beta])
    slack = 4 * UNIT * xp.abs(rho) + tiny
    slack = xp.where(xp.isfinite(rho), slack, 0)
    rho = rho + slack * np.array([-1.0, 1.0])
    return Certificate(xp.maximum(lam, 0), xp.stack([lower, upper]), rho)


def collatz_wielandt(problem: Problem, phi: Array) -> Certificate:
    """The bounds of the module's docstring for z = exp(φ), by JAX; none for a function q.

    φ must be in memory: an argument, or the result of a loop.
    """
    infinite = jnp.asarray(jnp.inf, phi.dtype)
    if not isinstance(problem.q, (Neighbours, Array)):
        return _outward(jnp, -infinite, infinite, problem.beta)
    r, margin = _row_bounds(problem.q, problem.beta * problem.cost, phi)
    r = jnp.where(problem.absorbing, 0, r)
    margin = jnp.where(problem.absorbing, 0, margin)
    # NaN loses every comparison that it would have to win.
    lower, upper = jnp.min(r - margin), jnp.max(r + margin)
    proved = jnp.isfinite(lower) & jnp.isfinite(upper)
    lower, upper = jnp.where(proved, lower, -infinite), jnp.where(proved, upper, infinite)
    return _outward(jnp, lower, upper, problem.beta)


def certify(problem: Problem, solution, *, backend: str = "auto") -> Certificate:
    """Prove bounds on λ* and ρ* from a solution's value function, whatever computed it.

        min_i (Hz)_i / z_i <= λ* <= max_i (Hz)_i / z_i,        z = exp(-β Φ)

    On the host and in code of its own: in ball arithmetic of 128 bits, or by NumPy with margins for
    every rounding.

    Args:
      problem: the problem, with known entries of q.
      solution: anything with a field `value`, (n,): Φ.
      backend: "flint" (ball arithmetic), "numpy", or "auto": flint up to 20,000 entries of q.

    Returns:
      `Certificate` of NumPy arrays. In the total criterion its log_lam bounds the residual.

    Raises:
      ValueError: an unknown backend, a q that is a function or traced, or a value function of
        another shape.

    Reference:
      Collatz (1942), Wielandt (1950); Horn and Johnson, Matrix Analysis, section 8.1.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> c = klcontrol.certify(p, klcontrol.solve(p))
      >>> bool(c.rho[1] - c.rho[0] < 1e-14)
      True
    """
    if backend not in ("auto", "flint", "numpy"):
        raise ValueError(f"backend: expected 'auto', 'flint' or 'numpy', got {backend!r}")
    if not isinstance(problem.q, (Neighbours, Array)) or not is_concrete(problem, solution.value):
        raise ValueError("q: a certificate needs known entries, not a function or a traced array")
    value = np.asarray(solution.value, np.float64)
    if value.shape != problem.cost.shape:
        raise ValueError(f"solution.value: expected shape {problem.cost.shape}, got {value.shape}")
    beta, cost = float(problem.beta), np.asarray(problem.cost, np.float64)
    absorbing = np.asarray(problem.absorbing)
    phi = -beta * value  # whatever its rounding: any φ will do
    q = problem.q
    if isinstance(q, Array) and np.count_nonzero(np.asarray(q)) <= BALL_ENTRIES:
        q = as_neighbours(q)
    entries = int(np.prod((q.probabilities if isinstance(q, Neighbours) else q).shape))
    if backend == "flint" or (backend == "auto" and entries <= BALL_ENTRIES):
        lower, upper = _by_balls(as_neighbours(q), cost, beta, phi, absorbing)
    else:
        lower, upper = _by_numpy(q, cost, beta, phi, absorbing)
    with np.errstate(all="ignore"):
        return _outward(np, np.float64(lower), np.float64(upper), np.float64(beta))


def _by_numpy(q, cost, beta, phi, absorbing) -> tuple[float, float]:
    """Bounds on log λ, by blocks of rows so that memory stays small."""
    lower, upper = np.inf, -np.inf
    n = cost.size
    width = q.indices.shape[1] if isinstance(q, Neighbours) else n
    block = max(1, 2**22 // width)
    dense = None if isinstance(q, Neighbours) else np.asarray(q, np.float64)
    indices = np.asarray(q.indices) if dense is None else None
    values = np.asarray(q.probabilities) if dense is None else dense
    with np.errstate(all="ignore"):
        for start in range(0, n, block):
            rows = slice(start, start + block)
            own = phi[rows, None]
            t = (phi[None, :] if dense is not None else phi[indices[rows]]) - own
            r, margin = _rows_by_numpy(values[rows].astype(np.float64), t, beta * cost[rows])
            keep = ~absorbing[rows]
            if keep.any():
                lower = np.minimum(lower, np.min((r - margin)[keep]))
                upper = np.maximum(upper, np.max((r + margin)[keep]))
    if not (np.isfinite(lower) and np.isfinite(upper)):
        return -np.inf, np.inf
    return lower, upper


def _rows_by_numpy(values, t, base):
    positive = values > 0
    g = np.max(np.where(positive, t, -np.inf), axis=1)
    tau = np.max(np.where(positive, np.abs(t), 0), axis=1)
    total = np.sum(values * np.exp(np.where(positive, t - g[:, None], 0)), axis=1)
    log = np.log(total)
    r = (g + log) - base
    size = values.shape[1] + 17 + ELEMENTARY * np.maximum(1, np.abs(log))
    size = size + 3 * tau + np.abs(g + log) + np.abs(base) + 2 * np.abs(r)
    margin = 1.01 * UNIT * size
    return r, np.where(total >= SMALLEST_SUM, margin, np.inf)


def _by_balls(q: Neighbours, cost, beta, phi, absorbing) -> tuple[float, float]:
    """Bounds on log λ in ball arithmetic."""
    indices, values = np.asarray(q.indices), np.asarray(q.probabilities, np.float64)
    if not np.isfinite(phi).all():
        return -np.inf, np.inf
    before = flint.ctx.prec
    flint.ctx.prec = 128
    try:
        lower, upper = np.inf, -np.inf
        inverse_temperature = flint.arb(beta)
        for i in np.flatnonzero(~absorbing):
            own = flint.arb(float(phi[i])) + inverse_temperature * flint.arb(float(cost[i]))
            terms = zip(indices[i].tolist(), values[i].tolist())
            exponents = [(flint.arb(float(phi[j])) - own, w) for j, w in terms if w > 0]
            top = max((e for e, _ in exponents), key=float)
            total = sum(((e - top).exp() * flint.arb(w) for e, w in exponents), flint.arb(0))
            r = total.log() + top
            lower = min(lower, _down(r))
            upper = max(upper, -_down(-r))
        return lower, upper
    finally:
        flint.ctx.prec = before


def _down(ball: flint.arb) -> float:
    """A float that is certainly at most every number of the ball."""
    return float(np.nextafter(float(ball.lower()), -np.inf))
