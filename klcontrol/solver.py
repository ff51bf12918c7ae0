"""`solve`: the optimal value, policy and average cost of a Kullback–Leibler control problem.

`method` is one of

    power        the paper's iteration, in logarithms; aperiodic q
    krylov       restarted Arnoldi; the only other one for a q that is a function
    inverse      inverse iteration by elimination without cancellation: nearly periodic or nearly
                 decoupled chains of up to about a thousand states
    aggregation  Newton's method with multilevel aggregation, for many states with few neighbours
    arpack       scipy's Arnoldi method, then power steps; a second opinion

`auto` takes inverse up to 64 states, else krylov, and goes on with inverse or aggregation if that
does not converge soon. aggregation, arpack and the second half of auto need known values (outside
jit).
"""

import enum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax import Array, lax

from klcontrol.bellman import linearise, normalise, rounding_floor
from klcontrol.certificate import Certificate, collatz_wielandt
from klcontrol.connectivity import cycle_period
from klcontrol.dynamics import Neighbours, as_neighbours, is_concrete, pattern
from klcontrol.implicit import principal
from klcontrol.iterations import METHODS as ITERATIONS
from klcontrol.iterations import Iterate, iterate, middle, spread
from klcontrol.newton import newton
from klcontrol.problem import Problem

MAX_STEPS = {"power": 200_000, "krylov": 20_000, "inverse": 300, "aggregation": 60, "arpack": 2_000}
METHODS = ("auto", *MAX_STEPS)
SMALL = 64
# With auto, so many products with q are tried before a method for hard problems takes over.
EASY_STEPS = 400
ELIMINATION_STATES = 600


class Status(enum.IntEnum):
    """What became of a solve; `status.message` says what to do next.

    Attributes:
      message: one sentence, what happened and what to try.

    Examples:
      >>> import klcontrol
      >>> print(klcontrol.Status(1).message)
      as accurate as float64 allows for values of this size, but short of rtol
    """

    CONVERGED = 0
    ROUNDING = 1
    MAX_STEPS = 2
    DIVERGED = 3

    @property
    def message(self) -> str:
        """One sentence: what happened and what to try."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "converged",
    Status.ROUNDING: "as accurate as float64 allows for values of this size, but short of rtol",
    Status.MAX_STEPS: (
        "max_steps reached: the bounds hold, but are wide; raise max_steps, or try "
        "method='inverse' (up to about a thousand states) or 'aggregation' (many, few neighbours)"
    ),
    Status.DIVERGED: (
        "z is not finite: a total cost is infinite (negative costs that a cycle can collect?), or "
        "q is a function and z leaves the range of floating point: give entries"
    ),
}


class Stats(NamedTuple):
    """How a solve went.

        width = max r - min r,        r_i = log((Hz)_i / z_i)

    Attributes:
      steps: () products with q (power, krylov), or outer steps (the other methods).
      width: () computed relative width of the bounds on λ*, before rounding is accounted for.
      status: () int32, a `Status`.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> s = klcontrol.solve(klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0])))
      >>> klcontrol.Status(int(s.stats.status)).name
      'CONVERGED'
    """

    steps: Array
    width: Array
    status: Array


class Solution(NamedTuple):
    """The optimally controlled chain.

        λ z = H z,        Φ = -log(z) / β,        ρ = -log(λ) / β,        p_ij = h_ij z_j / (λ z_i)

    Attributes:
      z: (n,) desirability, which sums to one (average), or is 1 where the chain is absorbed
        (total); it underflows to 0 where β Φ is beyond 745.
      lam: () λ*.
      rho: () optimal average cost per step.
      value: (n,) Φ, finite at every state.
      policy: p*, in the form of q.
      bounds: `Certificate`: proved bounds on λ* and ρ*.
      stats: `Stats`.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> s = klcontrol.solve(klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0])))
      >>> print(s.value)
      [0.31326169 1.31326169]
    """

    z: Array
    lam: Array
    rho: Array
    value: Array
    policy: Any
    bounds: Certificate
    stats: Stats


def solve(
    problem: Problem, *, method: str = "auto", rtol: float = 1e-12, max_steps: int | None = None
) -> Solution:
    """Solve a Kullback–Leibler control problem and bound the error of λ*.

        λ* z* = H z*,        h_ij = exp(-β c_i) q_ij

    All methods work with log z relative to the current iterate, so that every component, however
    small, has the relative accuracy rtol asks for: what is iterated on is the width of the bounds.

    Args:
      problem: the problem. Values in float32 are taken as exact and solved in float64.
      method: "auto", "power", "krylov", "inverse", "aggregation" or "arpack"; see the module.
      rtol: relative width of the bounds on λ* at which to stop.
      max_steps: at most so many products with q (power, krylov) or outer steps (others).

    Returns:
      `Solution`; its `stats.status` says whether it converged. z, lam, rho, value and policy have
      derivatives of any order in costs, q and β, by one linear solve each; entries of q that are
      zero have none. bounds and stats have no derivatives.

    Raises:
      ValueError: an unknown method, one that does not fit the form of q, a chain that is periodic
        (power), tolerances out of range, or x64 switched off.

    Reference:
      The paper's section 2, equations (2) and (3). Departures: h_ij has β in it; z is found in
      logarithms.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> q = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
      >>> solution = klcontrol.solve(klcontrol.Problem(q, jnp.array([500.0, 1.0, 0.0])))
      >>> bool(jnp.isfinite(solution.value).all())
      True
      >>> rho = lambda cost: klcontrol.solve(klcontrol.Problem(q, cost)).rho
      >>> jax.grad(rho)(jnp.zeros(3)).round(6).tolist()
      [0.333333, 0.333333, 0.333333]
    """
    problem = _in_float64(problem)
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if not isinstance(rtol, (int, float)) or not 0 <= rtol < 1:
        raise ValueError(f"rtol: expected a number in [0, 1), got {rtol!r}")
    if max_steps is not None and (not isinstance(max_steps, (int, np.integer)) or max_steps < 1):
        raise ValueError(f"max_steps: expected a positive integer, got {max_steps!r}")
    _check_method(problem, method)
    rtol, known = float(rtol), is_concrete(*jax.tree.leaves(problem))
    if not known:
        found, level = principal(_IterateFn(method, rtol, max_steps), problem)
        return _solution(problem, found, level, rtol)
    # The same without the machinery of derivatives, which costs as much as a small solve.
    for name, limit in _plan(problem, method, max_steps, known):
        if name in ITERATIONS:
            solution = _iterate_and_prove(problem, name, rtol, limit)
        else:
            found = _find(problem, name, rtol, limit)
            solution = _solution(problem, found, middle(problem, found), rtol)
        if int(solution.stats.status) <= Status.ROUNDING:
            break
    return solution


@partial(jax.jit, static_argnames=("method", "rtol"))
def _iterate_and_prove(problem: Problem, method: str, rtol: float, max_steps) -> Solution:
    found = iterate(problem, jnp.zeros_like(problem.cost), method, rtol, max_steps)
    return _solution(problem, found, middle(problem, found), rtol)


@partial(jax.jit, static_argnames=("rtol",))
def _solution(problem: Problem, found: Iterate, level: Array, rtol: float) -> Solution:
    phi = normalise(problem, found.phi)
    fixed, exact = lax.stop_gradient((found, problem))
    bounds = collatz_wielandt(exact, fixed.phi)
    width = spread(exact, fixed.residual)
    floor = rounding_floor(exact, fixed.phi)
    status = jnp.where(width <= floor, Status.ROUNDING, Status.MAX_STEPS)
    status = jnp.where(width <= rtol, Status.CONVERGED, status)
    status = jnp.where(jnp.isfinite(width), status, Status.DIVERGED).astype(jnp.int32)
    _, policy = linearise(problem, found.phi)
    return Solution(
        jnp.exp(phi),
        jnp.exp(level),
        -level / problem.beta,
        -phi / problem.beta,
        policy,
        bounds,
        Stats(fixed.steps, width, status),
    )


def _in_float64(problem: Problem) -> Problem:
    if not jax.config.jax_enable_x64:
        raise ValueError(
            "problem: solving to certified bounds needs float64; switch it on before JAX is used: "
            'jax.config.update("jax_enable_x64", True)'
        )
    if problem.cost.ndim != 1:
        raise ValueError(
            f"problem: expected costs of shape (n,), got {problem.cost.shape}: a batch of problems "
            "is for jax.vmap(klcontrol.solve)"
        )

    def widen(leaf):
        return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf

    q = problem.q if callable(problem.q) else jax.tree.map(widen, problem.q)
    leaves = (q, widen(problem.cost), widen(problem.beta))
    return Problem.tree_unflatten(problem.criterion, leaves)


def _check_method(problem: Problem, method: str) -> None:
    known = pattern(problem.q) if method == "power" else None
    if known is not None and problem.criterion == "average":
        period = cycle_period(known)
        if period > 1:
            raise ValueError(
                f"method: the power method does not converge on a chain of period {period}: use "
                "'krylov', 'inverse' or 'aggregation'"
            )
    if callable(problem.q) and method in ("inverse", "aggregation"):
        raise ValueError(f"method: {method!r} needs the entries of q, not a function: use 'krylov'")
    if method == "aggregation" and not isinstance(problem.q, Neighbours):
        raise ValueError(
            f"method: 'aggregation' needs Neighbours, got {type(problem.q).__name__}: see "
            "klcontrol.as_neighbours"
        )


@partial(jax.jit, static_argnames=("method", "rtol"))
def _iterate(problem, phi, method, rtol, max_steps):
    return iterate(problem, phi, method, rtol, max_steps)


def _plan(problem: Problem, method: str, max_steps: int | None, known: bool):
    """Methods to try one after the other, each with its limit of steps."""

    def stage(name: str) -> tuple[str, int]:
        return name, max_steps or MAX_STEPS[name]

    if method != "auto":
        if method not in ITERATIONS and not known:
            raise ValueError(f"method: {method!r} runs outside jit and vmap; use 'krylov' there")
        return (stage(method),)
    n, entries = problem.num_states, not callable(problem.q)
    if n <= SMALL and entries:
        return (stage("inverse"),)
    limit = stage("krylov")[1]
    last = "inverse" if n <= ELIMINATION_STATES else "aggregation"
    hard = n <= ELIMINATION_STATES or isinstance(problem.q, Neighbours)
    if not (known and entries and hard) or limit <= EASY_STEPS:
        return (("krylov", limit),)
    return ("krylov", EASY_STEPS), stage(last)


def _find(problem: Problem, method: str, rtol: float, max_steps: int) -> Iterate:
    if method == "aggregation":
        return newton(problem, rtol, max_steps)
    if method == "arpack":
        return _arpack(problem, rtol, max_steps)
    return _iterate(problem, jnp.zeros_like(problem.cost), method, rtol, max_steps)


class _IterateFn(NamedTuple):
    """A method with its options; two of equal options are equal, so that jit traces once."""

    method: str
    rtol: float
    max_steps: int | None

    def __call__(self, problem: Problem) -> Iterate:
        # Here and not before: under grad alone these values are known, those of solve are not.
        known = is_concrete(*jax.tree.leaves(problem))
        plan = _plan(problem, self.method, self.max_steps, known)
        for name, limit in plan:
            found = _find(problem, name, self.rtol, limit)
            if len(plan) > 1:
                goal = max(self.rtol, float(rounding_floor(problem, found.phi)))
                if float(spread(problem, found.residual)) <= goal:
                    break
        return found


def _arpack(problem: Problem, rtol: float, max_steps: int) -> Iterate:
    """scipy's eigs on H, then power steps for the small components."""
    n, start = problem.num_states, jnp.zeros_like(problem.cost)
    if n < 4:
        return _iterate(problem, start, "krylov", rtol, max_steps)
    scale = np.exp(-np.asarray(problem.beta * (problem.cost - problem.cost.min())))
    if callable(problem.q):
        product = jax.jit(problem.q)
        H = scipy.sparse.linalg.LinearOperator(
            (n, n), matvec=lambda v: scale * np.asarray(product(v.ravel())), dtype=np.float64
        )
    else:
        q = as_neighbours(problem.q)
        rows = np.repeat(np.arange(n), q.indices.shape[1])
        entries = (np.asarray(q.probabilities) * scale[:, None]).ravel()
        H = scipy.sparse.csr_array((entries, (rows, np.asarray(q.indices).ravel())), shape=(n, n))
    _, vectors = scipy.sparse.linalg.eigs(H, k=1, which="LR", v0=np.ones(n))
    z = np.abs(vectors[:, 0].real)
    phi = jnp.asarray(np.log(np.maximum(z / z.max(), 1e-16)))
    if problem.criterion == "total":
        phi = jnp.where(problem.absorbing, 0, phi - phi[jnp.argmax(problem.absorbing)])
    return _iterate(problem, phi, "power", rtol, max_steps)
