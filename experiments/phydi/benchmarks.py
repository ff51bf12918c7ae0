"""Benchmark rows of `phydi`: a step of training beside PyTorch, few products, deployment."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import phydi
from experiments.bench import Contest, Row
from experiments.phydi import language_benchmarks
from phydi.convolution import PHConv
from phydi.residual import submodules

GENERIC_RANK = 7  # of tensors of 4 × 4 × 4
# Calls that take a second differ by a tenth from one to the next.
ROUNDS = 11


def make_model(width: float, rank: int | None = None) -> phydi.PHResNet:
    """PHResNet-18 with n = 4 on its way: with α = 1/2, so that its blocks count."""
    model = phydi.PHResNet(18, n=4, width=width, rank=rank, rngs=nnx.Rngs(0))
    for stage in model.stages:
        for part in (stage.first, None if stage.rest is None else stage.rest.blocks):
            if part is not None:
                part.alpha[...] += 0.5
    return model


def make_batch(batch_size: int) -> dict:
    """Random images, the zero channel first, and labels."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(batch_size, 32, 32, 4)).astype(np.float32)
    image[..., 0] = 0
    return {"image": jnp.asarray(image), "label": jnp.asarray(rng.integers(0, 10, batch_size))}


def stepping(model, batch: dict):
    """One step of SGD, compiled as by `fit`: a function that returns the loss before it."""
    state, step = phydi.make_step(model, phydi.classification_loss, phydi.sgd(0.01))
    state = jax.tree.map(lambda x: x.copy(), state)  # given away by each step
    step = phydi.compile_step(step)

    def call() -> float:
        nonlocal state
        state, totals = step(state, batch)
        total, count = totals["loss"]
        return float(total) / float(count)

    return call


def _against_torch(width: float, batch_size: int, rank: int | None) -> Contest:
    from experiments.phydi.torch_resnet import training

    batch = make_batch(batch_size)
    exact = make_model(width)
    theirs = training(exact, batch)
    difference = abs(stepping(exact, batch)() / theirs() - 1)
    return Contest(stepping(make_model(width, rank), batch), {"PyTorch": theirs}, difference, 1e-4)


def _few_products(width: float, batch_size: int) -> Contest:
    batch = make_batch(batch_size)
    model = make_model(width, GENERIC_RANK)
    # The same function with every kernel built: nothing but the form of the products differs.
    built = nnx.clone(model)
    for part in submodules(built):
        if isinstance(part, PHConv):
            part.form = "built"
    losses = [stepping(m, batch)() for m in (model, built)]
    standard = stepping(make_model(width), batch)
    return Contest(
        stepping(model, batch), {"all products": standard}, abs(losses[0] / losses[1] - 1), 1e-4
    )


def _building(width: float, batch_size: int) -> Contest:
    """All kernels and their gradients alone, beside a whole step."""
    batch, model = make_batch(batch_size), make_model(width)
    layers = [part for part in submodules(model) if isinstance(part, PHConv)]
    pairs = [(layer.multiplication.A[...], layer.F[...]) for layer in layers]

    def kernels(pairs):
        # The layers of a stack have a leading axis.
        return [
            (jax.vmap(phydi.kronecker_sum) if A.ndim == 4 else phydi.kronecker_sum)(A, F)
            for A, F in pairs
        ]

    shapes = jax.eval_shape(kernels, pairs)
    given = [jnp.ones(shape.shape, shape.dtype) for shape in shapes]

    def build(pairs, given, before):
        del before  # its memory is used again, as within a step of `compile_step`
        built, back = jax.vjp(kernels, pairs)
        return built, back(given)

    before = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(build, pairs, given, None)
    )
    build = jax.jit(build, donate_argnums=2, keep_unused=True)

    def call():
        nonlocal before
        before = build(pairs, given, before)
        return before

    expected = jnp.kron(pairs[0][0][0], pairs[0][1][0, 0, 0])
    for A, F in zip(pairs[0][0][1:], pairs[0][1][1:, 0, 0]):
        expected += jnp.kron(A, F)
    difference = float(jnp.abs(call()[0][0][0, 0] - expected).max())
    return Contest(call, {"a step": stepping(model, batch)}, difference, 1e-5)


class PlainNetwork(nnx.Module):
    """The same ResNet-18 as one would write it with flax, block by block."""

    def __init__(self, deployed):
        def copy(layer, index):
            graph, state = nnx.split(layer)
            return nnx.merge(graph, jax.tree.map(lambda x: x if index is None else x[index], state))

        self.stem = nnx.List([copy(deployed.stem, None), copy(deployed.stem_norm, None)])
        self.blocks, alphas = nnx.List(), []
        for stage in deployed.stages:
            parts = [] if stage.first is None else [(stage.first, None)]
            if stage.rest is not None:
                parts += [(stage.rest.blocks, k) for k in range(stage.rest.depth)]
            for residual, k in parts:
                layers = zip(residual.block.convs, residual.block.norms)
                body = nnx.List([copy(layer, k) for pair in layers for layer in pair])
                shortcut = () if residual.shortcut is None else residual.shortcut.layers
                beside = nnx.List([copy(layer, k) for layer in shortcut])
                self.blocks.append(nnx.List([body, beside]))
                alphas.append(residual.alpha[...] if k is None else residual.alpha[...][k])
        self.alphas, self.head = nnx.Param(jnp.stack(alphas)), copy(deployed.head, None)

    def __call__(self, x):
        """The logits."""
        x = nnx.relu(self.stem[1](self.stem[0](x)))
        for (body, beside), alpha in zip(self.blocks, self.alphas[...]):
            y = x
            for i in range(0, len(body), 2):
                y = nnx.relu(body[i + 1](body[i](y)))
            for layer in beside:
                x = layer(x)
            x = x + alpha * y
        return self.head(x.mean((1, 2)))


def _deployment(width: float, batch_size: int) -> Contest:
    images = make_batch(batch_size)["image"]
    deployed = phydi.materialize(make_model(width))
    models = [deployed, PlainNetwork(deployed)]
    for model in models:
        model.eval()
    calls = []
    for model in models:
        graph, state = nnx.split(model)
        run = jax.jit(lambda state, images, graph=graph: nnx.merge(graph, state)(images))
        calls.append(lambda run=run, state=state: run(state, images))
    ours, plain = (np.asarray(call()) for call in calls)
    difference = float(np.abs(ours - plain).max() / np.abs(plain).max())
    return Contest(calls[0], {"flax": calls[1]}, difference, 1e-4)


def rows(quick: bool) -> list[Row]:
    """The rows of residual networks, then those of the language model."""
    width, batch_size = (1 / 8, 8) if quick else (1.0, 64)
    name = f"phydi ResNet-18, n = 4, batch {batch_size}"
    if quick:
        name += ", an eighth of the width"
    found = [
        Row(
            f"{name}: step, rank {GENERIC_RANK}",
            None,
            lambda: _few_products(width, batch_size),
            rounds=ROUNDS,
        ),
        Row(f"{name}: building H", 0.05, lambda: _building(width, batch_size), rounds=ROUNDS),
        Row(f"{name}: materialized", 1.05, lambda: _deployment(width, batch_size)),
    ]
    if importlib.util.find_spec("torch"):
        for goal, rank in ((1.0, None), (0.6, GENERIC_RANK)):
            kind = "step" if rank is None else f"step, rank {rank}"
            found.append(
                Row(
                    f"{name}: {kind}, against PyTorch",
                    goal,
                    lambda rank=rank: _against_torch(width, batch_size, rank),
                    rounds=ROUNDS,
                )
            )
    return found + language_benchmarks.rows(quick)
