"""What the learner minimises: a risk whose zero is what a proof needs.

It is not the paper's risk (`lyapunov_risk`) but one with margins. The level set {V <= 1} is
the region to be certified. With the violations

    h(x) = log(1 + max(0, V̇/(λ V) + margin)) · member,        b(x) = max(0, 1 + gap - V) on ∂D

where member is 1 inside {V <= 1}, fading at its edge, and 1 close to x*, the risk is

    weight (mean h + mean b) + peak max h + max b - mean of σ((1 - V)/fade) + tail/(1 + V) over D

V̇/(λ V) is a rate of decay in units of λ, the slowest rate of the LQR loop. It does not change if V
is scaled, and near x*, where V and V̇ are quadratics, it does not go to zero: so the margin asks for
a V̇ that dominates a quadratic, and the local certificate exists. The maxima make the penalty exact:
violations vanish instead of being traded. The last term is the area of the region, the purpose of
the paper's term of section 3.3, which is unbounded below here.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax.learning.conditions import lie_derivative
from lyapjax.learning.lqr import Regulator, lqr
from lyapjax.systems.system import System

NEW = 32  # counterexamples that a round may add


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to learn: sizes, weights and lengths; the defaults serve two states.

    Attributes:
      hidden: widths of the tanh layers of V.
      num_features: rows of A, the features that V squares.
      margin: of decay, in units of λ, asked for while learning.
      safety: share of the margin that the falsifier asks for.
      gap: relative distance of V on ∂D from the level.
      fade: width of the level set's soft edge.
      weight: of the mean violations.
      peak: of the greatest violation of decay.
      tail: of the area's second measure, which still pulls when the region is far too small.
      num_samples: new points a round, in D; half as many close to x*, half as many on ∂D.
      num_counterexamples: size of their buffer.
      num_steps: of Adam, a round.
      num_rounds: over which the learning rate falls; none stops earlier.
      learning_rate: at the start; a twentieth of it is left at the end.

    Examples:
      >>> import lyapjax as ly
      >>> ly.Recipe(hidden=(20, 20)).num_rounds
      60
    """

    hidden: tuple[int, ...] = (6,)
    num_features: int = 2
    margin: float = 0.5
    safety: float = 0.5
    gap: float = 0.03
    fade: float = 0.1
    weight: float = 10.0
    peak: float = 0.3
    tail: float = 0.1
    num_samples: int = 512
    num_counterexamples: int = 128
    num_steps: int = 50
    num_rounds: int = 60
    learning_rate: float = 0.02

    def __post_init__(self):
        """Refuse what makes no sense, by name."""
        for name, value in vars(self).items():
            sizes = value if name == "hidden" else (value,)
            whole = name == "hidden" or name.startswith("num_")
            for size in sizes:
                good = isinstance(size, (int, np.integer) if whole else (int, float)) and size > 0
                if isinstance(size, bool) or not good or not np.isfinite(size):
                    kind = "positive integers" if name == "hidden" else "a positive number"
                    raise ValueError(f"{name}: expected {kind}, got {value!r}")
        if not self.hidden:
            raise ValueError("hidden: expected at least one layer, got ()")
        if self.safety >= 1:
            raise ValueError(f"safety: expected less than 1, got {self.safety}")
        if self.num_counterexamples < NEW:
            raise ValueError(
                f"num_counterexamples: expected at least {NEW}, got {self.num_counterexamples}"
            )


DEFAULT = Recipe()


@functools.cache
def regulator_of(system: System) -> Regulator:
    """`lqr` with unit weights, computed once a system."""
    return lqr(system)


def slowest_rate(system: System) -> float:
    """λ: the slowest rate of decay of the LQR loop, 1/s."""
    return float(np.min(-regulator_of(system).eigenvalues.real))


def margin_risk(system: System, recipe: Recipe, V: Callable, u: Callable, data: tuple):
    """The risk of this module, and (coverage, least V on ∂D)."""
    x, close, rim, filled = data  # the last rows of x are the buffer of counterexamples
    f, rate = system.closed_loop(u), slowest_rate(system)

    def violation(x):
        value, slope = V(x), lie_derivative(V, f, x)
        member = jnp.clip((1 + recipe.fade - value) / (2 * recipe.fade), 0, 1)
        return jnp.log1p(jax.nn.relu(slope / (rate * value) + recipe.margin)), member, value

    here, member, value = jax.vmap(violation)(x)
    here = jnp.where(filled, here * member, 0)
    there, _, _ = jax.vmap(violation)(close)
    outer = jax.vmap(V)(rim)
    low = jax.nn.relu(1 + recipe.gap - outer)
    num = recipe.num_samples
    area = jax.nn.sigmoid((1 - value[:num]) / recipe.fade)
    coverage, tail = jnp.mean(area), jnp.mean(1 / (1 + value[:num]))
    means = jnp.sum(here) / num + jnp.mean(there) + jnp.mean(low)
    peaks = recipe.peak * (jnp.max(here) + jnp.max(there)) + jnp.max(low)
    return recipe.weight * means + peaks - coverage - recipe.tail * tail, (coverage, jnp.min(outer))
