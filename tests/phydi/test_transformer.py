"""The language model against NumPy, and what it promises: causal, the identity, any depth."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from tests.phydi.test_layers import count_products, normal
from tests.phydi.test_residual import AWKWARD, bits

# The models are float32 in either precision; a few tests look whether the words' type matters.
float32 = pytest.mark.float32

NORMS = ("post", "pre", "phydi")
SIZES = {"num_heads": 2, "features": 8, "hidden": 12}
WORDS = np.random.default_rng(0).integers(0, 10, (2, 5))


@nnx.jit
def logits(model, words):
    return model(words)


def make(depth=3, seed=0, **options):
    options = {"n": 4, **SIZES, **options}
    return phydi.PHTransformer(10, depth, **options, rngs=nnx.Rngs(seed))


def abstract(*sizes, **options):
    """Shapes only, for what is compiled and not run."""
    return nnx.eval_shape(lambda: make(*sizes, **options))


@cache
def moved(norm, **options):
    """A model whose parameters are all away from special values, without dropout."""
    model = make(norm=norm, dropout=0.0, **options)
    leaves, tree = jax.tree.flatten(nnx.state(model, nnx.Param))
    moved = [x + 0.3 * normal(*x.shape, seed=i).astype(x.dtype) for i, x in enumerate(leaves)]
    nnx.update(model, jax.tree.unflatten(tree, moved))
    return model


def layers_of(model):
    graph, state = nnx.split(model.layers.blocks)
    take = lambda j: nnx.merge(graph, jax.tree.map(lambda leaf: leaf[j], state))  # noqa: E731
    return [take(j) for j in range(model.layers.depth)]


def dense(layer, x):
    return x @ np.asarray(layer.kernel, float) + np.asarray(layer.bias[...], float)


def normalised(layer, x):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * np.asarray(layer.scale[...], float) + np.asarray(layer.bias[...], float)


def attention(block, x, num_heads):
    """One text, head by head and word by word."""
    q, k, v = np.split(dense(block.projection, x), 3, axis=-1)
    y = np.zeros_like(q)
    size = q.shape[-1] // num_heads
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(x)):
            weights = np.exp(q[t, part] @ k[: t + 1, part].T / size**0.5)
            y[t, part] = weights / weights.sum() @ v[: t + 1, part]
    return dense(block.out, y)


def written_out(model, words):
    x = np.asarray(model.embedding.embedding, float)[words] * model.features**0.5
    for t in range(len(words)):
        for j in range(model.features):
            angle = t / 10_000 ** (j // 2 * 2 / model.features)
            x[t, j] += np.cos(angle) if j % 2 else np.sin(angle)
    for layer in layers_of(model):
        blocks = (
            lambda x, layer=layer: attention(layer.attention, x, model.num_heads),
            lambda x, f=layer.feed_forward: dense(f.second, np.maximum(dense(f.first, x), 0)),
        )
        for i, block in enumerate(blocks):
            if model.norm == "post":
                x = normalised(layer.norms[i], x + block(x))
            elif model.norm == "pre":
                x = x + block(normalised(layer.norms[i], x))
            else:
                x = x + float(layer.alpha[i % layer.alpha.size]) * block(x)
    return dense(model.head, x)[:, : model.vocab_size]


@float32
@pytest.mark.parametrize(
    ("norm", "options"),
    [("post", {}), ("pre", {"n": 3}), ("phydi", {}), ("phydi", {"num_alphas": 2, "rank": 5})],
)
def test_the_model_is_the_formulas(norm, options):
    model = moved(norm, **options)
    found = logits(model, WORDS)
    assert found.shape == (2, 5, 10)
    for words, result in zip(WORDS, found):
        exact = written_out(model, words)
        np.testing.assert_allclose(result, exact, atol=1e-4 * abs(exact).max())


@pytest.mark.parametrize("norm", NORMS)
def test_later_words_do_not_change_earlier_outputs_by_a_bit(norm):
    model, later = moved(norm), WORDS.copy()
    later[:, 3:] = (later[:, 3:] + 1) % 10
    before, after = logits(model, WORDS), logits(model, later)
    np.testing.assert_array_equal(bits(before[:, :3]), bits(after[:, :3]))
    assert np.all(np.any(before[:, 3:] != after[:, 3:], axis=-1))


@float32
@pytest.mark.parametrize("num_alphas", [1, 2])
def test_phydi_layers_start_as_the_identity_bit_for_bit(num_alphas):
    model = make(40, norm="phydi", num_alphas=num_alphas, dropout=0.0)
    # Negative zeros and subnormal numbers; nothing that overflows within the layer.
    x = np.concatenate([AWKWARD, AWKWARD[:, ::-1], normal(2, 8)[:, :4]])
    x = jnp.asarray(np.clip(x, -5, 5).reshape(1, 3, 8))
    run = nnx.jit(lambda m, x: m.layers.scan(lambda layer, x, _: layer(x), x)[0])
    np.testing.assert_array_equal(bits(run(model, x)), bits(x))
    assert model.layers.blocks.alpha.shape == (40, num_alphas)
    # Not because the layers are zero.
    assert abs(model.layers.blocks.attention.projection.F[...]).min() > 0


def gradient(model):
    """The gradient of a loss as a function, and what it is a function of."""
    graph, *state = nnx.split(model, nnx.Param, ...)

    def loss(parameters, rest, words):
        model = nnx.merge(graph, parameters, rest, copy=True)  # counters of keys can move on
        given = model(words[:, :-1])
        return -jnp.mean(jnp.take_along_axis(nnx.log_softmax(given), words[:, 1:, None], axis=-1))

    return jax.grad(loss), state


def test_at_the_start_the_gradient_is_that_of_alpha_embedding_and_head():
    model = make(norm="phydi", dropout=0.0)
    step, state = gradient(model)
    slopes = nnx.to_pure_dict(jax.jit(step)(*state, jnp.asarray(WORDS)))
    blocks = slopes["layers"]["blocks"]
    assert np.all(blocks.pop("alpha") != 0)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(blocks))
    for part in (slopes["embedding"], slopes["head"]):
        assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(part))


@pytest.mark.parametrize("norm", NORMS)
def test_word_by_word_with_a_cache_is_the_whole_text(norm):
    model = moved(norm)
    whole, advance = logits(model, WORDS), nnx.jit(lambda m, w, c: m.decode(w, c))
    cache, found = model.init_cache((2,), 5), []
    for part in (WORDS[:, :1], WORDS[:, 1:2], WORDS[:, 2:4], WORDS[:, 4:]):
        given, cache = advance(model, part, cache)
        found.append(given)
    found = np.concatenate(found, axis=1)
    np.testing.assert_allclose(found, whole, atol=1e-4 * abs(whole).max())
    assert cache.length == 5
    # The cache is full: no word is silently forgotten.
    assert np.isnan(advance(model, WORDS[:, :1], cache)[0]).all()


@float32
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16])
def test_words_in_fewer_bytes_than_the_vocabulary(dtype):
    model = phydi.PHTransformer(300, 1, features=8, hidden=8, num_heads=2, rngs=nnx.Rngs(0))
    model.eval()
    words = np.array([[3, 127, 0]])
    np.testing.assert_array_equal(model(words.astype(dtype)), model(words))
    # What follows bytes may be a word beyond them.
    model.head.bias[...] = model.head.bias[...].at[299].set(100.0)
    drawn = phydi.generate(jax.random.key(0), model, words.astype(dtype), 2, temperature=0)
    np.testing.assert_array_equal(drawn, [[299, 299]])


def test_generated_words_are_those_of_the_whole_text():
    model = moved("pre")
    found = phydi.generate(jax.random.key(0), model, WORDS, 3, temperature=0)
    text = WORDS
    for j in range(3):
        # Words further on do not matter: one shape, one program.
        padded = np.pad(text, ((0, 0), (0, 2 - j)))
        best = np.argmax(logits(model, padded)[:, 4 + j], axis=-1)
        np.testing.assert_array_equal(found[:, j], best)
        text = np.concatenate([text, best[:, None]], axis=1)
    # One of many draws from one distribution: compared with its probabilities.
    many = np.broadcast_to(WORDS[:1], (4000, 5))
    drawn = phydi.generate(jax.random.key(1), model, many, 1, temperature=5.0)[:, 0]
    exact = np.asarray(nnx.softmax(logits(model, WORDS)[0, -1] / 5.0))
    shares = np.bincount(drawn, minlength=10) / 4000
    assert np.all(abs(shares - exact) < 5 * np.sqrt(exact / 4000) + 1e-3)


def test_the_program_does_not_grow_with_the_depth_and_builds_h_once():
    texts, products = {}, {}
    for depth, remat in ((3, False), (3, True), (96, True)):
        # 66 words: more rows than any layer has blocks, so that every H is built.
        step, state = gradient(abstract(depth, norm="phydi", remat=remat))
        jaxpr = jax.make_jaxpr(step)(*state, jnp.zeros((6, 12), int))
        texts[depth, remat] = str(jaxpr)
        # The projection is 8 × 24; feed-forward and head are 8 × 12.
        products[depth, remat] = [count_products(jaxpr.jaxpr, size) for size in (192, 96)]
    assert len(texts[96, True]) < 1.02 * len(texts[3, True])
    assert products[3, False] == products[3, True] == products[96, True]
    assert products[3, True][0] == 2


def test_the_compiled_program_does_not_grow_with_the_depth():
    def size(depth):
        step, state = gradient(abstract(depth, norm="pre", dropout=0.0, remat=True))
        words = jnp.zeros((2, 5), int)
        return len(jax.jit(step).lower(*state, words).compile().as_text())

    assert size(96) < 1.05 * size(4)


def test_computing_layers_again_changes_no_gradient():
    words, found = jnp.asarray(WORDS), []
    for remat in (False, True):
        step, state = gradient(make(norm="pre", dropout=0.3, remat=remat))
        found.append(jax.tree.leaves(jax.jit(step)(*state, words)))
    # The same dropped numbers both times, or these would be far apart.
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, atol=1e-5 + 1e-4 * abs(np.asarray(a)).max())


def test_dropout_follows_from_the_keys_and_ends_with_eval():
    first, second, third = make(dropout=0.5), make(dropout=0.5), make(seed=1, dropout=0.5)
    once, again = logits(first, WORDS), logits(first, WORDS)
    assert np.any(once != again)
    np.testing.assert_array_equal(once, logits(second, WORDS))
    np.testing.assert_array_equal(again, logits(second, WORDS))
    assert np.any(once != logits(third, WORDS))
    first.eval()
    np.testing.assert_array_equal(logits(first, WORDS), logits(first, WORDS))
    exact = nnx.jit(lambda m, w: m(w, deterministic=True))(second, WORDS)
    np.testing.assert_array_equal(logits(first, WORDS), exact)


def test_plain_layers_have_the_same_outputs():
    model = moved("phydi")
    plain = phydi.materialize(model)
    kinds = {type(module).__name__ for _, module in nnx.iter_modules(plain)}
    assert {"Linear", "Embed"} <= kinds
    assert not kinds & {"PHMLinear", "PHMEmbed", "Multiplication"}
    exact = logits(model, WORDS)
    np.testing.assert_allclose(logits(plain, WORDS), exact, atol=1e-5 * abs(exact).max())


@float32
def test_half_precision_computes_in_it_and_keeps_the_parameters():
    model = make(norm="phydi", dtype=jnp.bfloat16, dropout=0.0)
    exact = make(norm="phydi", dropout=0.0)
    found = logits(model, WORDS)
    assert found.dtype == jnp.bfloat16
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert all(leaf.dtype == jnp.float32 for leaf in parameters)
    np.testing.assert_allclose(found.astype(jnp.float32), logits(exact, WORDS), atol=0.05)
    assert model.init_cache((), 3).keys.dtype == jnp.bfloat16


def test_maps_over_texts_and_does_not_compile_twice():
    model, count = moved("post"), 0
    graph, state = nnx.split(model)

    @jax.jit
    def apply(state, words):
        nonlocal count
        count += 1
        return jax.vmap(nnx.merge(graph, state))(words)

    apply(state, WORDS + 0)
    np.testing.assert_allclose(apply(state, WORDS), logits(model, WORDS), atol=1e-4)
    assert count == 1


def test_padding_where_n_does_not_divide():
    model = phydi.PHTransformer(10, 1, 3, features=128, hidden=256, rngs=nnx.Rngs(0))
    block = model.layers.blocks
    assert (model.features, model.width) == (129, 144)
    assert block.attention.projection.F.shape == (1, 3, 43, 144)
    assert block.attention.out.F.shape == (1, 3, 48, 43)
    assert block.feed_forward.first.F.shape == (1, 3, 43, 86)
    assert model.embedding.num_embeddings == model.head.out_features == 12
    # Words that are only padding, and negative numbers, are none.
    wrong = logits(moved("pre", n=3), np.array([[0, 10], [-1, 3], [0, 9]]))
    np.testing.assert_array_equal(np.isnan(wrong).any((1, 2)), [True, True, False])


@pytest.mark.parametrize("n", [2, 4])
def test_parameter_counts(n):
    model = phydi.PHTransformer(40, 2, n, norm="phydi", rngs=nnx.Rngs(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    layer = (128 * 384 + 128 * 128 + 2 * 128 * 256) // n + 4 * n**3 + 384 + 128 + 256 + 128 + 1
    ends = 2 * (40 * 128 // n + n**3) + 40
    assert count == 2 * layer + ends


def test_bad_input_is_named():
    model = moved("pre")
    for call, match in (
        (lambda: make(norm="rms"), "norm: expected one of post, pre, phydi, got 'rms'"),
        (lambda: make(num_alphas=3), "num_alphas: expected 1 or 2, got 3"),
        (lambda: make(dropout=1.0), r"dropout: expected a probability in \[0, 1\), got 1.0"),
        (lambda: make(depth=0), "depth: expected an integer of at least 1, got 0"),
        (lambda: make(features=0), "features: expected an integer of at least 1, got 0"),
        (lambda: model(jnp.ones((2, 5))), "words: expected integers of shape"),
        (lambda: model.decode(WORDS, model.init_cache((3,), 5)), r"words: expected shape \(3, 'at"),
        (lambda: phydi.generate(jax.random.key(0), model, WORDS[:, :0], 1), "prompt: expected at"),
        (lambda: phydi.generate(jax.random.key(0), model, WORDS, 0), "num_words: expected an int"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
