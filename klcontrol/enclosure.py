"""An enclosure of the whole value function, state by state, that holds in spite of rounding.

Bounds on λ* say nothing yet about Φ: where a chain mixes slowly, a small residual may hide a large
error of Φ. What translates one into the other are hitting times. With z = exp(φ) for any φ,
r_i = log((Hz)_i / z_i), P_ij = h_ij z_j / (Hz)_i (stochastic) and w = z*/z,

    w_i = d_i Σ_j P_ij w_j,        d_i = exp(r_i - log λ*).

Let w = 1 at a reference state o and let P_o be P without its column (average criterion), or let o
stand for the absorbing states, where w = 1 is given (total criterion, λ* = 1). Then

    (I - D P_o) w = D p_o        on the other states,        p_o = (I - P_o) 1.

The solution rises with every d_i, as long as I - D P_o is an M-matrix. Let all d_i be between
1 - δ₀ and 1 + δ₁, and h >= 0 with h_o = 0 be such that

    h_i - Σ_j P_ij h_j >= 1        for i ≠ o                                          (*)

(equality holds for the expected time until o). Then

    (I - (1 + δ₁) P_o)(1 + εh) >= (1 + δ₁) p_o        if ε (1 + δ₁ - δ₁ h_i) >= δ₁ for every i,
    (I - (1 - δ₀) P_o)(1 - ε'h) <= (1 - δ₀) p_o       if ε' (1 - δ₀) >= δ₀,

so that 1 - ε'h_i <= w_i <= 1 + εh_i; 1 + εh > 0 in the first line also proves the M-matrix. So the
relative error of z at i, compared with o, is at most about the width of the bounds on λ* times
the time from i to o. Dividing by the sum over states gives Φ as it is normalised.

h comes from a sparse factorisation and is not trusted: (*) is checked with a margin for every
rounding, in the manner of `klcontrol.certificate`, by NumPy. With τ = max |φ_j - φ_i| over the
successors of i, of which there are d, the quotient Σ_j P_ij h_j errs by a factor of at most
1 + 1.01 u (6τ + 2E + 2d + 6): exponents by 3uτ, exp by E u, products and sums by (d + 1) u, both in
the numerator and in the denominator. Underflow takes at most 1e-290 max h from it.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax import Array

from klcontrol.certificate import ELEMENTARY, SMALLEST_SUM, UNIT, certify
from klcontrol.dynamics import Neighbours, as_neighbours
from klcontrol.problem import Problem

# Half of what would keep 1 + δ₁ - δ₁ h positive; beyond, nothing is claimed.
LARGEST_PRODUCT = 0.5
# Relative margin for the few operations on δ, ε and h.
SLACK = 1e-12


class Enclosure(NamedTuple):
    """Proved bounds, lower and upper, on the value function and on z*, state by state.

        value[0] <= Φ <= value[1],        z[0] <= z* <= z[1]

    Attributes:
      value: (2, n) bounds on Φ; -inf and inf if nothing is proved.
      z: (2, n) bounds on z*, from 0 where it underflows; 0 and inf if nothing is proved.
      hitting_time: (n,) h, at least the expected time to the reference under the policy, which
        turns the width of the bounds on λ* into that of the bounds on z*.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]))
      >>> found = klcontrol.enclose(p, klcontrol.solve(p))
      >>> true = 1 / (1 + jnp.exp(-1.0))
      >>> bool(found.z[0, 0] <= true) and bool(true <= found.z[1, 0])
      True
    """

    value: Array
    z: Array
    hitting_time: Array


def enclose(problem: Problem, solution) -> Enclosure:
    """Prove bounds on Φ and z* at every state, from a value function, whatever computed it.

        |Φ_i - Φ̂_i| ≲ (width of the bounds on log λ*) · (time to reach the reference) / β

    On the host, by a sparse factorisation: up to about a hundred thousand states.

    Args:
      problem: the problem, with known entries of q.
      solution: anything with a field `value`, (n,): Φ.

    Returns:
      `Enclosure` of NumPy arrays, of the normalised Φ (Σ exp(-βΦ) = 1; Φ = 0 where absorbed). It is
      infinite where the width is too large for the time it takes to reach the reference.

    Raises:
      ValueError: a q that is a function or traced, a value function of another shape, or one that
        is not zero where the chain is absorbed.

    Reference:
      None in the draft; M-matrices and monotonicity, Berman and Plemmons, Nonnegative Matrices in
      the Mathematical Sciences, chapter 6.

    Examples:
      >>> import jax, klcontrol
      >>> p = klcontrol.examples.random_chain(jax.random.key(0), 200, 5)
      >>> found = klcontrol.enclose(p, klcontrol.solve(p))
      >>> bool((found.value[1] - found.value[0]).max() < 1e-9)
      True
    """
    proof = certify(problem, solution)
    beta = float(problem.beta)
    phi = -beta * np.asarray(solution.value, np.float64)
    n, absorbing = phi.size, np.asarray(problem.absorbing)
    average = problem.criterion == "average"
    if not average and (phi[absorbing] != 0).any():
        state = int(np.flatnonzero(absorbing & (phi != 0))[0])
        raise ValueError(f"solution.value: expected 0 at the absorbing state {state}")
    lower, upper = (float(bound) for bound in proof.log_lam)
    if not np.isfinite(upper - lower):
        return _nothing(n)
    reference = (np.arange(n) == np.argmax(phi)) if average else absorbing
    fall, rise = (lower - upper, upper - lower) if average else (min(lower, 0), max(upper, 0))
    hitting = _hitting_time(as_neighbours(problem.q), phi, reference)
    if hitting is None:
        return _nothing(n)
    more, less = np.expm1(rise) * (1 + SLACK), -np.expm1(fall) * (1 + SLACK)
    longest = hitting.max()
    if not max(more, less) * max(longest, 1) <= LARGEST_PRODUCT:
        return _nothing(n)
    above = np.log1p(more / (1 + more - more * longest) * hitting) * (1 + SLACK)
    below = -np.log1p(-np.minimum(less / (1 - less) * hitting * (1 + SLACK), 0.999))
    below = np.where(less / (1 - less) * hitting > 0.99, np.inf, below * (1 + SLACK))
    low, high = phi - below, phi + above
    if average:
        low, high = low - _log_sum(high)[1], high - _log_sum(low)[0]
    # Sums of two numbers and the product with β err by units of what goes in.
    size = 4 * UNIT * (np.abs(phi) + np.abs(low) + np.abs(high))
    low, high = np.where(np.isfinite(low), low - size, -np.inf), high + size
    if not average:
        low, high = np.where(absorbing, 0, low), np.where(absorbing, 0, high)
    value = np.stack([-high / beta, -low / beta])
    value = np.where(absorbing, 0, value + 2 * UNIT * np.abs(value) * np.array([[-1.0], [1.0]]))
    wide = 1 + 4 * ELEMENTARY * UNIT
    tiny = np.finfo(np.float64).tiny
    with np.errstate(over="ignore", under="ignore"):
        z = np.stack([np.maximum(np.exp(low) / wide - tiny, 0), np.exp(high) * wide + tiny])
    return Enclosure(value, np.where(absorbing, 1, z), hitting)


def _nothing(n: int) -> Enclosure:
    value = np.stack([np.full(n, -np.inf), np.full(n, np.inf)])
    return Enclosure(value, np.stack([np.zeros(n), np.full(n, np.inf)]), np.full(n, np.inf))


def _log_sum(phi: np.ndarray) -> tuple[float, float]:
    """Bounds on log Σ exp(φ)."""
    top = float(phi.max())
    if not np.isfinite(top):
        return -np.inf, np.inf
    with np.errstate(under="ignore"):
        # Differences err by u |φ - top|, which weighs at most 1/e after exp; fsum is exact.
        total = math.fsum(np.exp(phi - top))
    # What underflows, a term at most 1e-300, is below the margin.
    log = math.log(total)
    margin = 4 * UNIT * (2 * ELEMENTARY + abs(top) + abs(log)) + 1e-300 * phi.size
    return top + log - margin, top + log + margin


def _hitting_time(q: Neighbours, phi: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """h that satisfies (*) for certain; None if none is found."""
    indices, values = np.asarray(q.indices), np.asarray(q.probabilities, np.float64)
    n, d = indices.shape
    t = phi[indices] - phi[:, None]
    positive = values > 0
    top = np.max(np.where(positive, t, -np.inf), axis=1)
    tau = np.max(np.where(positive, np.abs(t), 0), axis=1)
    with np.errstate(under="ignore"):
        weights = np.where(positive, values * np.exp(np.where(positive, t - top[:, None], 0)), 0)
    total = weights.sum(axis=1)
    others = ~reference
    if not (np.isfinite(phi).all() and (total >= SMALLEST_SUM).all()):
        return None
    rows = np.repeat(np.arange(n), d)
    entries = (weights / total[:, None]).ravel(), (rows, indices.ravel())
    P = scipy.sparse.csr_array(entries, shape=(n, n))[others][:, others]
    system = (scipy.sparse.eye_array(P.shape[0]) - P).tocsc()
    h = np.zeros(n)
    if others.any():
        try:
            h[others] = scipy.sparse.linalg.splu(system).solve(np.ones(P.shape[0]))
        except RuntimeError:
            return None
    if not (np.isfinite(h).all() and (h[others] > 0).all()):
        return None
    factor = 1 + 1.01 * UNIT * (6 * tau + 2 * ELEMENTARY + 2 * d + 6)
    after = (weights * h[indices]).sum(axis=1) / total * factor + 1e-290 * h.max()
    gain = np.min((h - after - 2 * UNIT * (h + after))[others], initial=1.0)
    # Scaled so that (*) holds with what is certainly gained.
    return h / gain * (1 + SLACK) if gain > 0 else None
