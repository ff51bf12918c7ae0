"""One step of training of any flax module, and evaluation.

A loss function says what is learnt:

    loss_fn(model, batch) -> {"loss": one number per example, any other metric: likewise}

The step descends the mean of `loss`; all metrics are averaged over an epoch. What changes is a
`TrainState`, a tree of arrays: parameters, the model's other variables (statistics of batches,
counters of dropout keys), the optimizer's memory and the number of steps. `training` has the loop.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from phydi.batches import prefetch
from phydi.residual import submodules


class TrainState(NamedTuple):
    """All that changes in training.

        one step of the optimizer: (parameters, other, memory, step) -> the next

    Attributes:
      parameters: the model's `nnx.Param`, in their own dtype.
      other: its other variables.
      memory: of the optimizer.
      step: () how many steps were made.

    Examples:
      >>> import phydi
      >>> phydi.TrainState._fields
      ('parameters', 'other', 'memory', 'step')
    """

    parameters: nnx.State
    other: nnx.State
    memory: optax.OptState
    step: Array


def classification_loss(model, batch) -> dict[str, Array]:
    """The loss of a classifier.

        loss = -log softmax(model(image))[label],      accuracy = [label is the largest]

    Args:
      model: from images to logits.
      batch: a dictionary with `image` and `label`.

    Returns:
      A dictionary with `loss` and `accuracy`, (batch,) each.

    Raises:
      ValueError: the model does not return one row of logits per label.

    Reference:
      Section 4.2.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> batch = {"image": jnp.array([[0.0, 50.0]]), "label": jnp.array([1])}
      >>> {name: float(v[0]) for name, v in phydi.classification_loss(lambda x: x, batch).items()}
      {'loss': 0.0, 'accuracy': 1.0}
    """
    logits, label = model(batch["image"]), batch["label"]
    if logits.ndim != 2 or logits.shape[:1] != label.shape:
        raise ValueError(
            f"model: expected logits of shape {(*label.shape, 'classes')}, got {logits.shape}"
        )
    # In bfloat16 the logarithm of the sum would have three digits.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return {"loss": loss, "accuracy": (jnp.argmax(logits, -1) == label).astype(loss.dtype)}


def _cast(tree, dtype):
    """Floating arrays in the dtype of the computation."""
    if dtype is None:
        return tree
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def _computing_in(dtype, model):
    """The model, changed to compute in a dtype wherever its layers leave that open."""
    if dtype is not None:
        for module in submodules(model):
            if getattr(module, "dtype", dtype) is None:
                module.dtype = dtype
    return model


def _totals(values: dict) -> dict:
    """Sums and numbers of terms of each metric."""
    if not isinstance(values, dict) or "loss" not in values:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"loss_fn: expected to return a dictionary with 'loss', got {got}")
    wide = {k: v.astype(jnp.promote_types(v.dtype, jnp.float32)) for k, v in values.items()}
    return {k: (jnp.sum(v), jnp.asarray(float(v.size), jnp.float32)) for k, v in wide.items()}


def make_step(
    model, loss_fn: Callable, optimizer: optax.GradientTransformation, *, compute_dtype=None
) -> tuple[TrainState, Callable]:
    """The first state of training and one step of it, for `jax.jit` or `compile_step`.

        parameters ← parameters + optimizer(∇ mean(loss_fn(model, batch)["loss"]))

    Args:
      model: a flax module; it is not changed.
      loss_fn: `(model, batch) -> {"loss": ..., ...}`, one number per example.
      optimizer: an optax transformation, such as `sgd`.
      compute_dtype: `jnp.bfloat16` to compute in it, in all layers that have no `dtype` of their
        own; parameters, their update, the loss and the statistics of batches stay as they are.

    Returns:
      The state, and `step(state, batch) -> (state, totals)`, where totals has for each metric
      the sum over the batch and the number of terms, and for `gradient_norm` the norm and 1.

    Raises:
      ValueError: the model is no flax module, or loss_fn returns no `loss` (when it is traced).

    Reference:
      None.

    Examples:
      >>> import jax, jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> model = phydi.PHMLinear(2, 2, n=2, rngs=nnx.Rngs(0))
      >>> loss_fn = lambda model, batch: {"loss": jnp.sum(model(batch) ** 2, -1)}
      >>> state, step = phydi.make_step(model, loss_fn, phydi.sgd(0.01))
      >>> state, totals = jax.jit(step)(state, jnp.ones((3, 2)))
      >>> int(state.step), float(totals["loss"][1])
      (1, 3.0)
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model: expected an nnx.Module, got {type(model).__name__}")
    model = nnx.clone(model)
    model.train()
    graph, parameters, other = nnx.split(_computing_in(compute_dtype, model), nnx.Param, ...)

    def loss(parameters, other, batch):
        # New variables: those of the caller's trace refuse to be written here.
        merged = nnx.merge(graph, parameters, jax.tree.map(lambda x: x, other))
        totals = _totals(loss_fn(merged, _cast(batch, compute_dtype)))
        other = nnx.split(merged, nnx.Param, ...)[2]
        return totals["loss"][0] / totals["loss"][1], (totals, other)

    def keeping(state: TrainState, batch):
        loss_of = lambda parameters: loss(parameters, state.other, batch)  # noqa: E731
        value, pullback, (totals, other) = jax.vjp(loss_of, state.parameters, has_aux=True)
        (slopes,) = pullback(jnp.ones_like(value))
        updates, memory = optimizer.update(slopes, state.memory, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        totals["gradient_norm"] = (optax.tree.norm(slopes), jnp.ones(()))
        state = TrainState(parameters, other, memory, state.step + 1)
        return state, totals, jax.tree.leaves(pullback)

    def step(state: TrainState, batch):
        return keeping(state, batch)[:2]

    step.keeping = keeping  # also returns what the backward pass needed of the forward pass
    state = TrainState(parameters, other, optimizer.init(parameters), jnp.zeros((), jnp.int32))
    return state, step


def evaluation(model, loss_fn: Callable, compute_dtype) -> Callable:
    """`(parameters, other, batch) -> totals`, jitted, with the model in evaluation mode."""
    model = nnx.clone(model)
    model.eval()
    graph = nnx.split(_computing_in(compute_dtype, model))[0]

    @jax.jit
    def totals(parameters, other, batch):
        merged = nnx.merge(graph, parameters, other)
        return _totals(loss_fn(merged, _cast(batch, compute_dtype)))

    return totals


class Mean:
    """Means over the batches of an epoch, on the host, in the order of the batches."""

    def __init__(self, sums: dict | None = None):
        self.sums = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, totals: dict) -> None:
        """Add the sums and numbers of terms of one batch."""
        for name, (value, count) in totals.items():
            pair = self.sums.setdefault(name, [0.0, 0.0])
            pair[0] += float(value)
            pair[1] += float(count)

    def means(self, prefix: str = "") -> dict[str, float]:
        """The mean of each metric."""
        return {f"{prefix}{name}": total / count for name, (total, count) in self.sums.items()}


def evaluate(model, data: Callable, loss_fn: Callable, *, compute_dtype=None) -> dict[str, float]:
    """The means of the metrics over a data set, the model in evaluation mode.

        Σ_examples metric / number of examples

    Args:
      model: a flax module; it is not changed.
      data: `() -> iterable of batches`, such as `ordered_batches` returns.
      loss_fn: `(model, batch) -> {"loss": ..., ...}`, one number per example.
      compute_dtype: as in `fit`.

    Returns:
      A dictionary of numbers.

    Raises:
      ValueError: no batches.

    Reference:
      Departure: the released code scores a fifth of the test images, this all that are given.

    Examples:
      >>> import numpy as np, phydi
      >>> from flax import nnx
      >>> model = phydi.PHMLinear(2, 2, n=2, rngs=nnx.Rngs(0))
      >>> digits = {"image": np.zeros((5, 2)), "label": np.zeros(5, int)}
      >>> data = phydi.ordered_batches(digits, 2)
      >>> round(phydi.evaluate(model, data, phydi.classification_loss)["loss"], 4)
      0.6931
    """
    run = evaluation(model, loss_fn, compute_dtype)
    _, parameters, other = nnx.split(model, nnx.Param, ...)
    place = lambda batch: jax.tree.map(jnp.asarray, batch)  # noqa: E731
    return evaluated(run, parameters, other, data(), place)


def evaluated(run: Callable, parameters, other, batches, place_fn: Callable) -> dict[str, float]:
    """The means of what `evaluation` returns over all batches."""
    mean = Mean()
    for batch in prefetch(batches, place_fn):
        mean.add(jax.device_get(run(parameters, other, batch)))
    if not mean.sums:
        raise ValueError("data: expected at least one batch, got none")
    return mean.means()
