"""Benchmark rows of the language model: compile time and memory against depth, and deployment.

The compile row's contestants compile a whole step of training, tracing included: 96 layers against
12; its own time is to be at most 20 s on two cores. The memory row times a step with the layers
computed again against one that keeps them; its `arrays` are the bytes that XLA plans for one more
layer, in arrays of the signal (batch × length × features), and more than a fifth of those of the
step that keeps them is an error. The deployment row's peer is written with flax's own layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import phydi
from experiments.bench import Contest, Row

# The paper's sizes, and those of `--quick`.
PAPER = {"vocab_size": 33_278, "features": 128, "hidden": 256, "num_heads": 8}
PLAIN = ("vocab_size", "features", "hidden")
SMALL = {"vocab_size": 1_000, "features": 32, "hidden": 64, "num_heads": 4}


def make_model(depth: int, sizes: dict, **options) -> phydi.PHTransformer:
    """A PHYDI model with n = 4."""
    return phydi.PHTransformer(depth=depth, n=4, norm="phydi", **sizes, **options, rngs=nnx.Rngs(0))


def make_batch(sizes: dict, batch_size: int) -> dict:
    """A batch of random words."""
    words = np.random.default_rng(0).integers(0, sizes["vocab_size"], (batch_size, 36))
    words = jnp.asarray(words, jnp.int32)
    return {"words": words[:, :-1], "next": words[:, 1:]}


def lowered(depth: int, sizes: dict, batch: dict, **options):
    """A step of training, traced and lowered for shapes only."""
    rule = phydi.adagrad(0.01, steps_per_epoch=900)
    make_step = None

    def start():
        nonlocal make_step
        model = make_model(depth, sizes, **options)
        state, make_step = phydi.make_step(model, phydi.language_loss, rule)
        return state

    state = jax.eval_shape(start)
    return jax.jit(make_step, donate_argnums=0).lower(state, batch)


def _bytes(compiled) -> int:
    memory = compiled.memory_analysis()
    whole = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return whole + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def slope(sizes: dict, batch: dict, depths: tuple[int, int], **options) -> float:
    """Bytes for one more layer in a step of training."""
    few, many = (_bytes(lowered(d, sizes, batch, **options).compile()) for d in depths)
    return (many - few) / (depths[1] - depths[0])


def _compile(sizes: dict, deep: int) -> Contest:
    batch = make_batch(sizes, 64)
    short, long = (lowered(d, sizes, batch).as_text() for d in (12, deep))
    return Contest(
        lambda: bool(lowered(deep, sizes, batch).compile()),
        {"12 layers": lambda: bool(lowered(12, sizes, batch).compile())},
        # That the answers agree: one program, but for the numbers of layers in it.
        abs(len(long) / len(short) - 1),
        0.02,
    )


def _memory(sizes: dict, depth: int, batch_size: int) -> Contest:
    batch = make_batch(sizes, batch_size)
    slopes = [slope(sizes, batch, (12, 2 * 12), remat=remat) for remat in (True, False)]
    if slopes[0] >= 0.2 * slopes[1]:
        raise ValueError(
            f"memory: expected one more layer to take less than a fifth of {slopes[1]:,.0f} bytes "
            f"if it is computed again, got {slopes[0]:,.0f}"
        )
    rule = phydi.adagrad(0.01, steps_per_epoch=900)
    steps = []
    for remat in (True, False):
        model = make_model(depth, sizes, remat=remat)
        state, step = phydi.make_step(model, phydi.language_loss, rule)
        steps.append((jax.jit(step), state))
    calls = [lambda step=step, state=state: step(state, batch) for step, state in steps]
    losses = [float(call()[1]["loss"][0]) for call in calls]
    signal = batch["words"].size * sizes["features"] * 4
    return Contest(
        calls[0],
        {"layers kept": calls[1]},
        abs(losses[0] / losses[1] - 1),
        1e-5,
        slopes[0] / signal,
    )


class PlainModel(nnx.Module):
    """The same language model as one would write it with flax, layer by layer."""

    def __init__(self, depth: int, width: int, vocab_size: int, features: int, hidden: int):
        rngs = nnx.Rngs(0)
        self.embedding = nnx.Embed(vocab_size, features, rngs=rngs)
        self.head = nnx.Linear(features, vocab_size, rngs=rngs)
        sizes = ((features, 3 * width), (width, features), (features, hidden), (hidden, features))
        self.layers = nnx.List(
            [nnx.List([nnx.Linear(*s, rngs=rngs) for s in sizes]) for _ in range(depth)]
        )
        self.alphas = nnx.Param(jnp.zeros((depth, 1)))

    def __call__(self, words, num_heads: int, places):
        """The logits."""
        features = self.embedding.features
        x = self.embedding(words) * features**0.5 + places
        for (projection, out, first, second), alpha in zip(self.layers, self.alphas[...]):
            q, k, v = (
                part.reshape(*words.shape, num_heads, -1)
                for part in jnp.split(projection(x), 3, axis=-1)
            )
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + alpha * out(y.reshape(*words.shape, -1))
            x = x + alpha * second(nnx.relu(first(x)))
        return self.head(x)


def _deployment(sizes: dict, depth: int, batch_size: int) -> Contest:
    model = make_model(depth, sizes, dropout=0.0)
    model.layers.blocks.alpha[...] += 0.3
    deployed = phydi.materialize(model)
    blocks = deployed.layers.blocks
    plain = PlainModel(depth, model.width, **{k: sizes[k] for k in PLAIN})
    own = (
        blocks.attention.projection,
        blocks.attention.out,
        blocks.feed_forward.first,
        blocks.feed_forward.second,
    )
    for j, layer in enumerate(plain.layers):
        for mine, theirs in zip(own, layer):
            theirs.kernel[...], theirs.bias[...] = mine.kernel[j], mine.bias[j]
    plain.embedding.embedding[...] = deployed.embedding.embedding[: model.vocab_size]
    plain.head.kernel[...], plain.head.bias[...] = (
        deployed.head.kernel[...],
        deployed.head.bias[...],
    )
    plain.alphas[...] = blocks.alpha[...]
    words = make_batch(sizes, batch_size)["words"]
    places = phydi.transformer.positions(0, words.shape[-1], model.features)
    graph, state = nnx.split(deployed)
    run = jax.jit(lambda state, words: nnx.merge(graph, state)(words))
    plain_graph, plain_state = nnx.split(plain)

    @jax.jit
    def run_plain(state, words):
        return nnx.merge(plain_graph, state)(words, model.num_heads, places)

    exact = run_plain(plain_state, words)
    difference = float(jnp.max(jnp.abs(run(state, words) - exact)) / jnp.max(jnp.abs(exact)))
    return Contest(
        lambda: run(state, words),
        {"flax": lambda: run_plain(plain_state, words)},
        difference,
        1e-4,
    )


def rows(quick: bool) -> list[Row]:
    """The rows of the language model."""
    sizes, deep = (SMALL, 24) if quick else (PAPER, 96)
    depth, batch_size = (4, 8) if quick else (12, 64)
    name = f"phydi language model, d {sizes['features']}"
    return [
        Row(f"{name}: compile a step, {deep} layers", 1.2, lambda: _compile(sizes, deep), rounds=3),
        Row(
            f"{name}: step of {depth} layers, computed again",
            None,
            lambda: _memory(sizes, depth, batch_size),
            rounds=3,
        ),
        Row(
            f"{name}: materialized, {depth} layers, batch {batch_size}",
            1.05,
            lambda: _deployment(sizes, depth, batch_size),
        ),
    ]
