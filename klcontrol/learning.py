"""Learning z* and λ* from transitions (x, c, x') as they are observed, without knowing q.

An `Algorithm` is a few options; `init` makes its state, `step` takes one transition, in O(1) work
whatever the number of states: z = v/s is kept as v and s², since a step changes one entry of v:

    v(x) += γ (w v(x') - λ v(x)),    s² += v(x)²_new - v(x)²_old,    λ += γ α z(x) ζ

with w = exp(-β c) and ζ = w z(x') - λ z(x). `refresh` computes s² again and scales v to length
one; it is not needed for correctness, but keeps rounding from adding up, every few n steps.

**Defaults that need no tuning.** Gains are relative to λ, γ = g/λ and α = a λ: the paper's
algorithm for H/λ, whose result does not depend on the level of the costs. What γ λ < 1 asks for,
so that z stays positive, is then g <= 1. With k the visits so far of the state that is updated
(`clock="local"`), or the steps so far divided by n (`clock="global"`),

    g(k) = (1 + k/40)^(-3/4) / 2,        a = 3/100.

λ follows more slowly than z, since a few large entries of z make up most of its noise. It should
start below λ* rather than above: it rises by additions, but falls only by a factor a step; so
`simulate` starts at exp(-β mean c).

With these, 10,000 n steps of each of 32 chains give λ* to 1% and z* to 5% in the 1-norm on the
examples of the paper and on gridworlds, by the local clock (tests/klcontrol/test_learning.py). A
chain that mixes more slowly takes longer.

Counting visits brings D of the analysis from diag(d) near diag(d^(1/4)), for gains that fall like
k^(-3/4), and to a multiple of I for k^(-1), where Proposition 3.8 (i) proves stability. By the
global clock states learn as slowly as they are rarely visited, and there are problems on which
the algorithm does not converge (`counterexample`).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from klcontrol.dynamics import is_concrete

RULES = ("kl", "z", "differential")
CLOCKS = ("local", "global")
COSTS = ("current", "next")


class LearnerState(NamedTuple):
    """What an algorithm knows after some transitions.

        z = v / sqrt(square)

    Attributes:
      v: (n,) z up to its length.
      square: () ‖v‖².
      lam: () estimate of λ*.
      visits: (n,) int32 visits of each state (clock="local"), or () steps so far.
      weights: (n,) exp(-β c) as last seen, for cost_at="next"; (0,) otherwise.

    Examples:
      >>> import klcontrol
      >>> klcontrol.kl_learning().init(3).v.tolist()
      [1.0, 1.0, 1.0]
    """

    v: Array
    square: Array
    lam: Array
    visits: Array
    weights: Array


class Estimate(NamedTuple):
    """The solution as far as it is known.

        H z ≈ lam z

    Attributes:
      z: (n,) estimate of z*: 1-normalised, except for z_learning, whose scale absorption fixes.
      lam: () estimate of λ*.

    Examples:
      >>> import klcontrol
      >>> algorithm = klcontrol.kl_learning()
      >>> algorithm.estimate(algorithm.init(4)).z.tolist()
      [0.25, 0.25, 0.25, 0.25]
    """

    z: Array
    lam: Array


def default_gain(k: Array) -> Array:
    """The gain after k visits.

        g(k) = (1 + k/40)^(-3/4) / 2

    Args:
      k: visits so far, real and not negative.

    Returns:
      g(k), at most 1/2: Σ g = ∞ and Σ g² < ∞, as (4) asks for.

    Raises:
      Nothing.

    Reference:
      Equation (4).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> klcontrol.default_gain(jnp.array([0.0, 600.0])).tolist()
      [0.5, 0.0625]
    """
    root = jnp.sqrt(1 + k / 40)
    return 0.5 / (root * jnp.sqrt(root))


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """An update rule and its options, as `init`, `step`, `refresh` and `estimate`.

        state = step(state, x, cost, x')

    Made by `kl_learning`, `z_learning` or `differential`. It is hashable, so it can be a static
    argument of `jax.jit`; the functions batch under `jax.vmap`.

    Attributes:
      rule: "kl", "z" or "differential".
      beta: β, a number.
      alpha: α, or a of the module's docstring if `relative`.
      gain_fn: k -> γ, or g if `relative`; k as `clock` counts.
      relative: whether gains are relative to λ.
      clock: "local" or "global".
      cost_at: "current" or "next".
      projection: (lo, hi) that λ is kept in, or None.

    Examples:
      >>> import klcontrol
      >>> algorithm = klcontrol.kl_learning()
      >>> state = algorithm.step(algorithm.init(3), 0, 0.5, 1)
      >>> bool(state.v[0] < 1), state.visits.tolist()
      (True, [1, 0, 0])
    """

    rule: str
    beta: float
    alpha: float
    gain_fn: Callable
    relative: bool = True
    clock: str = "local"
    cost_at: str = "current"
    projection: tuple[float, float] | None = None

    def init(self, num_states: int, *, lam=1.0, dtype=None) -> LearnerState:
        """The state before the first transition: v = 1, λ = `lam`; rather too small than too large.

        exp(-β c) for a typical cost is a good start; the draft's is 1. Z-learning's λ is 1.
        """
        if not isinstance(num_states, int) or num_states < 1:
            raise ValueError(f"num_states: expected a positive integer, got {num_states!r}")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        return LearnerState(
            v=jnp.ones(num_states, dtype),
            square=jnp.array(num_states, dtype),
            lam=jnp.asarray(1.0 if self.rule == "z" else lam, dtype),
            visits=jnp.zeros((num_states,) if self.clock == "local" else (), jnp.int32),
            weights=jnp.ones(num_states if self.cost_at == "next" else 0, dtype),
        )

    def step(self, state: LearnerState, x, cost, x_next) -> LearnerState:
        """The state after one more transition from x to x_next at the given cost.

        With cost_at="next", `cost` is the cost of x_next.
        """
        if is_concrete(state.v, x, cost, x_next):
            n = state.v.shape[-1]
            for name, value in (("x", x), ("x_next", x_next)):
                if not 0 <= int(value) < n:
                    raise ValueError(f"{name}: expected a state 0 … {n - 1}, got {value}")
            if not np.isfinite(float(cost)):
                raise ValueError(f"cost: expected a finite number, got {cost}")
        weight = jnp.exp(-self.beta * jnp.asarray(cost, state.v.dtype))
        return self.update(state, x, weight, x_next)

    def update(self, state: LearnerState, x, weight, x_next) -> LearnerState:
        """`step` for a known weight exp(-β c), unchecked: what fast loops call."""
        v, square, lam, visits, weights = state
        n = v.shape[-1]
        here, there = _get(v, x), _get(v, x_next)
        if self.clock == "local":
            count = _get(visits, x)
            visits = _set(visits, x, count + 1)
            gain = self.gain_fn(count.astype(v.dtype))
        else:
            gain = self.gain_fn(visits.astype(v.dtype) / n)
            visits = visits + 1
        if self.cost_at == "next":
            weights = _set(weights, x_next, weight)
        target = weight * there
        difference = target - lam * here
        if self.rule == "z":
            change = gain * (target - here)
        elif self.rule == "differential" or self.relative:
            change = gain * difference / lam
        else:
            change = gain * difference
        if self.rule == "kl":
            lam = lam + self.alpha * gain * here * difference / square
        elif self.rule == "differential":
            lam = lam + (self.alpha / n) * gain * difference / here
        if self.projection is not None:
            lam = jnp.clip(lam, *self.projection)
        new = here + change
        v = _set(v, x, new)
        square = square + change * (new + here)
        return LearnerState(v, square, lam, visits, weights)

    def refresh(self, state: LearnerState) -> LearnerState:
        """The same estimates with s² computed anew; v scaled to length one, but for z_learning."""
        square = jnp.sum(state.v * state.v)
        if self.rule == "z":
            return state._replace(square=square)
        v = state.v / jnp.sqrt(square)
        return state._replace(v=v, square=jnp.sum(v * v))

    def estimate(self, state: LearnerState) -> Estimate:
        """z and λ."""
        z = state.v * state.weights if self.cost_at == "next" else state.v
        return Estimate(z if self.rule == "z" else z / jnp.sum(z), state.lam)


def _get(array: Array, index) -> Array:
    return array.at[index].get(mode="promise_in_bounds")


def _set(array: Array, index, value) -> Array:
    return array.at[index].set(value, mode="promise_in_bounds", unique_indices=True)


def kl_learning(
    *,
    beta: float = 1.0,
    alpha: float = 0.03,
    gain_fn: Callable | None = None,
    relative: bool = True,
    clock: str = "local",
    cost_at: str = "current",
    projection: tuple[float, float] | None = None,
) -> Algorithm:
    """KL-learning: z* and λ* of H from observed transitions.

        ζ = exp(-β c(x)) z(x') - λ z(x),    z(x) += γ ζ, normalised,    λ += γ α z(x) ζ

    Args:
      beta: inverse temperature.
      alpha: how fast λ follows; relative to λ if `relative`.
      gain_fn: k -> gain; `default_gain` if None. With `relative` it must not exceed 1; without,
        z stays positive while γ λ < 1.
      relative: γ = g/λ and α = a λ (see `klcontrol.learning`) instead of γ = g and α = a.
      clock: k counts visits of the state ("local") or steps divided by n ("global").
      cost_at: "current": c is the cost of x; "next": of x', as the draft prints.
      projection: (lo, hi) that λ is kept in.

    Returns:
      `Algorithm`.

    Raises:
      ValueError: an option out of range, by name.

    Reference:
      Algorithm 3.3. Departure: the draft's ζ uses c(x'), which leads to C⁻¹ z*, C = diag(e^-βc);
      the analysis needs c(x), the default here, and the printed form is mapped back by C. The
      draft leaves the bound on γ blank (Lemma 3.4): positivity of z needs γ λ < 1.

    Examples:
      >>> import jax, jax.numpy as jnp, klcontrol
      >>> algorithm = klcontrol.kl_learning()
      >>> def observe(state, t):  # a chain 0 → 1 → 0 → … with costs 0 and 1
      ...     return algorithm.step(state, t % 2, t % 2, (t + 1) % 2), None
      >>> state, _ = jax.lax.scan(observe, algorithm.init(2), jnp.arange(4000))
      >>> round(float(algorithm.estimate(state).lam), 2)  # λ* = exp(-1/2)
      0.61
    """
    return _checked(
        Algorithm("kl", beta, alpha, gain_fn or default_gain, relative, clock, cost_at, projection)
    )


def z_learning(
    *, beta: float = 1.0, gain_fn: Callable | None = None, clock: str = "local"
) -> Algorithm:
    """Z-learning: z* where λ* = 1 is known, as for the cost until absorption.

        z(x) += γ (exp(-β c(x)) z(x') - z(x))

    Args:
      beta: inverse temperature.
      gain_fn: k -> γ, at most 1; `default_gain` if None.
      clock: k counts visits of the state ("local") or steps divided by n ("global").

    Returns:
      `Algorithm`; `estimate` does not normalise z, since absorbing states keep z = 1.

    Raises:
      ValueError: an option out of range, by name.

    Reference:
      Todorov (2007), the draft's [7].

    Examples:
      >>> import klcontrol
      >>> algorithm = klcontrol.z_learning(gain_fn=lambda k: 0.5)
      >>> algorithm.step(algorithm.init(2), 0, 0.0, 1).v.tolist()
      [1.0, 1.0]
    """
    return _checked(Algorithm("z", beta, 0.0, gain_fn or default_gain, clock=clock))


def differential(
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
    gain_fn: Callable | None = None,
    clock: str = "local",
) -> Algorithm:
    """The differential rule: Z-learning divided by a running estimate of λ*.

        z(x) += γ (w z(x')/Γ - z(x)),    Γ += γ (α/n) (w z(x')/z(x) - Γ)

    Args:
      beta: inverse temperature.
      alpha: how fast Γ follows.
      gain_fn: k -> γ, at most 1; `default_gain` if None.
      clock: k counts visits of the state ("local") or steps divided by n ("global").

    Returns:
      `Algorithm`.

    Raises:
      ValueError: an option out of range, by name.

    Reference:
      Not in the draft: a rival of Algorithm 3.3. Its Γ is an average of ratios, which one small
      z(x) can throw off; KL-learning's λ divides by nothing.

    Examples:
      >>> import klcontrol
      >>> algorithm = klcontrol.differential()
      >>> float(algorithm.step(algorithm.init(2), 0, 0.0, 1).lam)
      1.0
    """
    return _checked(Algorithm("differential", beta, alpha, gain_fn or default_gain, clock=clock))


def _checked(algorithm: Algorithm) -> Algorithm:
    a = algorithm
    for name, value, known in (("clock", a.clock, CLOCKS), ("cost_at", a.cost_at, COSTS)):
        if value not in known:
            raise ValueError(f"{name}: expected one of {known}, got {value!r}")
    for name, value in (("beta", a.beta), ("alpha", a.alpha)):
        number = isinstance(value, (int, float, np.floating)) and np.isfinite(value)
        if not number or value < 0 or (value == 0 and not (name == "alpha" and a.rule == "z")):
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    if not callable(a.gain_fn):
        raise ValueError(f"gain_fn: expected a function k -> gain, got {a.gain_fn!r}")
    if a.projection is not None:
        bounds = tuple(a.projection)
        if len(bounds) != 2 or not 0 < bounds[0] < bounds[1]:
            raise ValueError(f"projection: expected (lo, hi) with 0 < lo < hi, got {bounds}")
        return dataclasses.replace(a, projection=bounds)
    return a
