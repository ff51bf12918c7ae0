"""The optimizers of the released recipes, as torch defines them, in optax.

    sgd        m ← μ m + (g + λ θ),      θ ← θ - η m
    adagrad    s ← s + g²,               θ ← θ - η γ^epoch g / √s

g is the gradient after clipping by its norm over all parameters. The multipliers α of the
residuals may have a learning rate of their own: they start at 0 and set the depth of the network.
"""

from collections.abc import Callable

import jax
import optax

from phydi.checking import check_positive_integer

# torch divides by √s + 1e-10; optax by √(s + eps), and gradients of 1e-10 are not unheard of.
_EPS = 1e-20
ALPHA = "alpha"


def label_alpha(parameters):
    """`alpha` for each multiplier of a residual, by the last name of its path; else `rest`."""

    def label(path, _):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return ALPHA if names and names[-1] == ALPHA else "rest"

    return jax.tree_util.tree_map_with_path(label, parameters)


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")


def _assemble(rule: Callable, learning_rate, alpha_learning_rate, clip_norm):
    """Clip all gradients together, then apply the rule with the learning rate of each label."""
    parts = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if alpha_learning_rate is None:
        parts.append(rule(learning_rate))
    else:
        rules = {"rest": rule(learning_rate), ALPHA: rule(alpha_learning_rate)}
        parts.append(optax.partition(rules, label_alpha))
    return optax.chain(*parts)


def sgd(
    learning_rate: float = 0.01,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    alpha_learning_rate: float | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum and coupled weight decay.

        m ← μ m + (g + λ θ),      θ ← θ - η m

    Args:
      learning_rate: η.
      momentum: μ.
      weight_decay: λ, of all parameters, those of the normalisation and α included.
      alpha_learning_rate: η of the multipliers α of the residuals; None for the same.
      clip_norm: the largest norm of the gradient over all parameters; None for no limit.

    Returns:
      An optax transformation.

    Raises:
      ValueError: a learning rate or norm that is not positive, or a negative momentum or decay.

    Reference:
      Section 4.2 and the released configuration.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> rule = phydi.sgd(0.5, weight_decay=0.0)
      >>> update, _ = rule.update(jnp.ones(2), rule.init(jnp.zeros(2)), jnp.zeros(2))
      >>> update
      Array([-0.5, -0.5], dtype=...)
    """
    _check_positive(
        learning_rate=learning_rate, alpha_learning_rate=alpha_learning_rate, clip_norm=clip_norm
    )
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), got {momentum!r}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay: expected a number of at least 0, got {weight_decay!r}")

    def rule(rate):
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.trace(decay=momentum),
            optax.scale_by_learning_rate(rate),
        )

    return _assemble(rule, learning_rate, alpha_learning_rate, clip_norm)


def adagrad(
    learning_rate: float = 0.01,
    *,
    steps_per_epoch: int,
    decay: float = 0.9,
    alpha_learning_rate: float | None = None,
    clip_norm: float | None = 0.5,
) -> optax.GradientTransformation:
    """Adagrad, its learning rate multiplied by a factor after each epoch.

        s ← s + g²,      θ ← θ - η γ^⌊step / steps_per_epoch⌋ g / √s

    Args:
      learning_rate: η.
      steps_per_epoch: the number of steps after which the learning rate falls.
      decay: γ.
      alpha_learning_rate: η of the multipliers α of the residuals; None for the same.
      clip_norm: the largest norm of the gradient over all parameters; None for no limit.

    Returns:
      An optax transformation.

    Raises:
      ValueError: a rate, factor or norm that is not positive, or no positive integer of steps.

    Reference:
      Section 4.3 and the released configuration. Departure: torch divides by √s + 1e-10, this
      by √(s + 1e-20), which differ by less than a factor of √2 and only at gradients of 1e-10.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> rule = phydi.adagrad(0.5, steps_per_epoch=10, clip_norm=None)
      >>> update, _ = rule.update(jnp.array([3.0, -7.0]), rule.init(jnp.zeros(2)))
      >>> update
      Array([-0.5,  0.5], dtype=...)
    """
    _check_positive(
        learning_rate=learning_rate,
        decay=decay,
        alpha_learning_rate=alpha_learning_rate,
        clip_norm=clip_norm,
    )
    steps = check_positive_integer("steps_per_epoch", steps_per_epoch)

    def rule(rate):
        schedule = optax.exponential_decay(rate, steps, decay, staircase=True)
        return optax.chain(
            optax.scale_by_rss(initial_accumulator_value=0.0, eps=_EPS),
            optax.scale_by_learning_rate(schedule),
        )

    return _assemble(rule, learning_rate, alpha_learning_rate, clip_norm)
