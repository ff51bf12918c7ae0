"""`sos`: Lyapunov functions by sums of squares, the classical baseline.

With multipliers s >= 0 that are sums of squares themselves, and l = ε |y|²,

    V - l                               V is positive definite
    -V̇ - l - s₁ (1 - V)                 V̇ < 0 on {V <= 1} without the equilibrium
    (1 - |x - c|²/R²) - s₂ (1 - V)      {V <= 1} lies in the domain, where it is a ball

are all sums of squares z'Qz, Q ⪰ 0. V and multipliers multiply each other, so the steps alternate
(the V-s iteration): s₁ and s₂ for V as it is, scaled to the largest level that has some; then V for
these, as small on average as it can be on the edge of its last level set, which makes the set grow
where it can. Most of the gain comes from an s₁ of two degrees more than V̇ needs.

What comes out holds up to the accuracy of a semidefinite solver, and for a Taylor polynomial of f
if f is none: it is a candidate. `verify` proves it, or a smaller level of it, for f itself; beyond
two states `verify_region` does, for V of degree 2.
"""

import dataclasses
import math
from collections.abc import Callable

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from lyapjax.baselines.polynomials import Basis, Polynomial, multiply, substitute, taylor
from lyapjax.systems.domains import Ball, Box

EPSILON = 1e-4
NUM_DIRECTIONS = 500
STEP = 0.8  # of the way to the least V, which lies on the edge of what is allowed
GAIN = 1.003  # of three rounds, to go on
MOST_MONOMIALS = 60  # of a Gram form: a program of 80 takes minutes, and a search solves a hundred
MARGIN = 0.97  # of the largest level, so that V is an inner point for its multipliers


@dataclasses.dataclass(frozen=True)
class SumOfSquares:
    """What `sos` found.

    Attributes:
      V: the `Polynomial`, with V̇ < 0 on {V <= 1} as far as the solver knows; `verify` proves it.
      volumes: of {V <= 1} after each round, about; the best of them is the one of V.
      taylor_degree: of the polynomial that stood for f; None where f is a polynomial.

    Examples:
      >>> import lyapjax as ly
      >>> system = ly.systems.van_der_pol()
      >>> found = ly.sos(system.closed_loop(None), system.domain, num_rounds=2)
      >>> ly.verify(found.V, system.closed_loop(None), system.domain).volume > 7.0
      True
    """

    V: Polynomial
    volumes: tuple[float, ...]
    taylor_degree: int | None

    @property
    def P(self) -> np.ndarray:
        """(n, n) of V = (x - x*)'P (x - x*), for `verify_region`; ValueError if V has more."""
        if max(sum(exponent) for exponent in self.V.exponents) > 2:
            raise ValueError("V: expected degree 2, got more; such a V is for `verify`")
        scale = np.asarray(self.V.scale)
        Q = np.zeros_like(scale)
        for exponent, c in zip(self.V.exponents, np.asarray(self.V.coefficients)):
            i, j = (k for k, e in enumerate(exponent) for _ in range(e))
            Q[i, j] += c / 2
            Q[j, i] += c / 2
        P = scale.T @ Q @ scale
        return 0.5 * (P + P.T)


class _Search:
    """The programs of the iteration, in coordinates in which the first V is |y|²."""

    def __init__(self, field: list[dict], degree: int, inside: dict | None, solver: str):
        n, self.solver, self.inside = len(field), solver, inside
        order = max(sum(e) for component in field for e in component)
        # Even degrees: of s₁ such that s₁ V reaches two beyond V̇, of the Gram forms to reach both;
        # only as far as V̇ where these would be too large, in six states.
        s1 = order - 1 + (order - 1) % 2 + 2
        if math.comb(n + (degree + s1) // 2, n) > MOST_MONOMIALS:
            s1 -= 2
        top = degree + s1
        self.V, self.top = Basis(n, degree, 2), Basis(n, top)
        self.multipliers = {"s1": Basis(n, s1 // 2, 1), "s2": Basis(n, 0)}
        self.grams = {
            "positive": Basis(n, degree // 2, 1),
            "falling": Basis(n, top // 2, 1),
            "inside": Basis(n, degree // 2),
        }
        self.flow = self.V.derivative(field, self.top)
        self.embed = self.V.times({(0,) * n: 1.0}, self.top)
        self.squares = Basis(n, 2, 2).terms(
            [1.0 if max(e) == 2 else 0.0 for e in Basis(n, 2, 2).exponents]
        )
        self.norm = self.top.vector(self.squares)
        self.one = self.top.vector({(0,) * n: 1.0})
        self.doubled = {
            name: Basis(n, 2 * basis.most, 0) for name, basis in self.multipliers.items()
        }

    def _gram(self, name: str):
        """A sum of squares over the monomials of that condition, as coefficients."""
        basis = self.grams[name]
        Q = cp.Variable((len(basis), len(basis)), PSD=True)
        return basis.gram(self.top) @ cp.vec(Q, order="F")

    def _multiplier(self, name: str):
        basis = self.multipliers[name]
        Q = cp.Variable((len(basis), len(basis)), PSD=True)
        return basis.gram(self.doubled[name]) @ cp.vec(Q, order="F")

    def _solve(self, problem: cp.Problem) -> bool:
        try:
            problem.solve(solver=self.solver)
        except cp.SolverError:
            return False
        return problem.status in ("optimal", "optimal_inaccurate")

    def _below(self, v, level: float) -> dict:
        """level - V as a polynomial."""
        terms = {e: -c for e, c in self.V.terms(v).items()}
        terms[(0,) * self.V.n] = level
        return terms

    def falling(self, v, level: float):
        """s₁ for V and a level, or None."""
        s = self._multiplier("s1")
        times = self.doubled["s1"].times(self._below(v, level), self.top)
        room = cp.Variable()
        residual = -self.flow @ v - room * self.norm - times @ s
        problem = cp.Problem(cp.Maximize(room), [residual == self._gram("falling")])
        return s.value if self._solve(problem) and room.value >= EPSILON else None

    def enclosed(self, v, level: float):
        """s₂ that proves {V <= level} inside the domain, or None."""
        s = self._multiplier("s2")
        times = self.doubled["s2"].times(self._below(v, level), self.top)
        residual = self.top.vector(self.inside) - times @ s
        problem = cp.Problem(cp.Minimize(0), [residual == self._gram("inside")])
        return s.value if self._solve(problem) else None

    def level(self, v, start: float):
        """The largest level with multipliers, to 1 %, and these."""

        def attempt(level):
            s1 = self.falling(v, level)
            s2 = None if self.inside is None or s1 is None else self.enclosed(v, level)
            return None if s1 is None or (self.inside is not None and s2 is None) else (s1, s2)

        low, high, found, level = 0.0, np.inf, None, start
        for _ in range(40):
            here = attempt(level)
            if here is not None:
                low, found = level, here
            else:
                high = level
            if high < 1e-9 or (found is not None and high <= 1.005 * low):
                break
            level = level * 2 if np.isinf(high) else level / 4 if low == 0 else (low + high) / 2
        return (MARGIN * low, attempt(MARGIN * low)) if found else (low, None)

    def edge(self, key, v) -> np.ndarray:
        """Points on the edge of {V <= 1}, one in each of many directions."""
        directions = np.asarray(jax.random.normal(key, (NUM_DIRECTIONS, self.V.n)))
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        # V along a ray is a polynomial of the radius: its first crossing of 1.
        radii = np.geomspace(1e-3, 1e3, 2000)
        values = np.zeros((len(directions), len(radii)))
        for exponent, c in self.V.terms(v).items():
            values += c * np.outer(
                np.prod(directions ** np.asarray(exponent), axis=1), radii ** sum(exponent)
            )
        first = np.argmax(~(values <= 1), axis=1)
        return directions * radii[np.maximum(first, 1) - 1][:, None]

    def grow(self, v, s1, s2, edge: np.ndarray):
        """V for these multipliers, as small as it goes on average on the edge of {V₀ <= 1}."""
        new = cp.Variable(len(self.V))
        terms = self.doubled["s1"].terms(s1)
        times, constant = self.V.times(terms, self.top), self.top.vector(terms)
        conditions = [
            self.embed @ new - EPSILON * self.norm == self._gram("positive"),
            times @ new - self.flow @ new - EPSILON * self.norm - constant == self._gram("falling"),
        ]
        if s2 is not None:
            terms = self.doubled["s2"].terms(s2)
            times = self.V.times(terms, self.top)
            inside = self.top.vector(self.inside) - self.top.vector(terms)
            conditions.append(inside + times @ new == self._gram("inside"))
        mean = np.array([np.mean(np.prod(edge ** np.asarray(e), axis=1)) for e in self.V.exponents])
        problem = cp.Problem(cp.Minimize(mean @ new), conditions)
        # V₀ is an inner point of these conditions, V on their edge: a little back.
        return STEP * new.value + (1 - STEP) * v if self._solve(problem) else None


def sos(
    f: Callable,
    domain: Ball | Box,
    equilibrium=None,
    *,
    degree: int = 4,
    taylor_degree: int = 5,
    num_rounds: int = 15,
    solver: str = "CLARABEL",
    callback_fn: Callable[[int, float], None] | None = None,
) -> SumOfSquares:
    """A polynomial Lyapunov function with a large level set, by sums of squares.

        V - l,   -V̇ - l - s₁ (1 - V)     sums of squares,      {V <= 1} → large

    starting from V = x'Px of the linearisation, with A'P + PA = -I.

    Args:
      f: (n,) -> (n,) closed loop.
      domain: `Ball` or `Box`; a box is not a condition of the search, for `verify` looks after it.
      equilibrium: (n,) x* with f(x*) = 0; the origin by default.
      degree: of V: 2, 4, 6, …
      taylor_degree: of the polynomial that stands for f, if f is no polynomial of that degree.
      num_rounds: of the alternation; fewer if it no longer gains.
      solver: of CVXPY, for semidefinite programs.
      callback_fn: called with (round, volume of {V <= 1}, about) after each.

    Returns:
      `SumOfSquares`: a candidate, to be proved by `verify`.

    Raises:
      ValueError: an odd degree, a linearisation that is not stable, or no multipliers even for the
        smallest level: it says which condition failed.

    Reference:
      Tan & Packard, Stability region analysis using polynomial and composite polynomial Lyapunov
      functions and sum-of-squares programming, IEEE TAC 53 (2008); Topcu, Packard & Seiler, Local
      stability analysis using simulations and sum-of-squares programming, Automatica 44 (2008);
      Chang, Roohi & Gao, section 4, whose SOS results, they write, did not pass their own check.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> found = ly.sos(lambda x: -x + x**3, ly.Box((-2.0,), (2.0,)), degree=2, num_rounds=3)
      >>> V = found.V  # the true region is |x| < 1
      >>> 0.9 < float(1 / jnp.sqrt(V(jnp.ones(1)))) < 1.0
      True
    """
    x = np.zeros(domain.dim) if equilibrium is None else np.asarray(equilibrium, np.float64)
    if degree < 2 or degree % 2:
        raise ValueError(f"degree: expected an even number of at least 2, got {degree}")
    if taylor_degree < 1:
        raise ValueError(f"taylor_degree: expected at least 1, got {taylor_degree}")
    here = np.asarray(f(jnp.asarray(x)))
    if not np.abs(here).max() <= 1e-12:
        raise ValueError(f"f: expected f(x*) = 0 at the equilibrium, got {here.tolist()}")
    field = taylor(f, x, taylor_degree)
    A = np.asarray(jax.jacfwd(f)(jnp.asarray(x)))
    modes = np.linalg.eigvals(A)
    if not modes.real.max() < 0:
        raise ValueError(
            f"f: expected a stable linearisation, got the eigenvalue "
            f"{modes[modes.real.argmax()]:.6g}; close the loop first, with `lqr`"
        )
    field = [_without_dust(component) for component in field]
    order = max(sum(e) for component in field for e in component)
    is_exact = _agrees(f, field, x, domain)
    P = scipy.linalg.solve_continuous_lyapunov(A.T, -np.eye(len(x)))
    root = np.linalg.cholesky((P + P.T) / 2).T  # x'Px = |root x|²
    to_x = np.linalg.inv(root)
    n = len(x)
    ball = math.pi ** (n / 2) / math.gamma(n / 2 + 1) / abs(np.linalg.det(root))
    inside = None
    if isinstance(domain, Ball):
        away = np.asarray(x) - np.asarray(domain.centre)
        inside = _ball(away, to_x, domain.radius)
    search = _Search(substitute(field, to_x), degree, inside, solver)
    v, history, sizes = search.V.vector(search.squares), [], []
    for number in range(num_rounds):
        level, multipliers = search.level(v, 1.0)
        if multipliers is None:
            if number:
                break
            raise ValueError(
                f"f: no multiplier of degree {2 * search.multipliers['s1'].most} proves V̇ < 0 on "
                f"any level of x'Px, for the Taylor polynomial of degree {order}; try another "
                "taylor_degree, or rescale the states"
            )
        # Divided by the level: V̇ too, so s₁ stays, while s₂ (level - V) = s₂ level (1 - V/level).
        v, (s1, s2) = v / level, multipliers
        edge = search.edge(jax.random.key(number), v)
        sizes.append(ball * float(np.mean(np.linalg.norm(edge, axis=1) ** n)))
        history.append(v)
        if callback_fn is not None:
            callback_fn(number, sizes[-1])
        if max(sizes[-3:]) < GAIN * max(sizes[:-3], default=0.0):
            break
        v = search.grow(v, s1, None if s2 is None else s2 * level, edge)
        if v is None:
            break
    best = history[int(np.argmax(sizes))]
    exponents = search.V.exponents
    V = Polynomial(jnp.asarray(best), jnp.asarray(x), jnp.asarray(root), exponents)
    return SumOfSquares(V, tuple(sizes), None if is_exact else order)


def _without_dust(component: dict) -> dict:
    """Without what is zero up to rounding, and the constant: f(x*) = 0."""
    size = max((abs(c) for c in component.values()), default=0.0)
    return {e: c for e, c in component.items() if sum(e) and abs(c) > 1e-14 * size}


def _agrees(f, field: list[dict], x: np.ndarray, domain) -> bool:
    """Whether the Taylor polynomial is f, as far as samples tell."""
    points = np.asarray(domain.uniform(jax.random.key(0), 64))
    values = np.asarray(jax.vmap(f)(jnp.asarray(points)))
    found = np.zeros_like(values)
    for i, component in enumerate(field):
        for exponent, value in component.items():
            found[:, i] += value * np.prod((points - x) ** np.asarray(exponent), axis=1)
    return bool(np.abs(found - values).max() <= 1e-9 * (1 + np.abs(values).max()))


def _ball(away: np.ndarray, to_x: np.ndarray, radius: float) -> dict:
    """1 - |away + M y|²/R² as a polynomial of y."""
    n = len(away)
    total: dict = {(0,) * n: 1.0}
    for i in range(n):
        row = {tuple(int(j == k) for k in range(n)): to_x[i, j] for j in range(n)}
        row[(0,) * n] = away[i]
        for exponent, value in multiply(row, row).items():
            total[exponent] = total.get(exponent, 0.0) - value / radius**2
    return total
