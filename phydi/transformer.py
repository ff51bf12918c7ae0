"""Causal language models of any depth.

A layer has two sub-layers f, attention and feed-forward, and three places for a norm:

    post     x ← LN(x + f(x))                                                    (4)
    pre      x ← x + f(LN(x))
    phydi    x ← x + α f(x),      α = 0 at the start, no norms                   (5)

so that the PHYDI layers are the identity at the start, bit for bit. All matrices are hypercomplex:
the embedding, one projection for queries, keys and values together, the output projection, the
feed-forward layers and the vocabulary's head. n need not divide the sizes: what it does not divide
is padded up to a multiple (see `PHTransformer`).

Departures from the paper's text, all to what its released code does: (4) and (5), as printed, take
the skip of the second sub-layer from before the first; the task is causal language modelling; there
is no norm after the last layer. Departure from the code: one α a layer, as the text says, unless
`num_alphas=2`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.linear import default_embed_init, default_kernel_init
from jax import Array

from phydi.checking import check_option, check_positive_integer
from phydi.layers import PHMEmbed, PHMLinear, as_words
from phydi.residual import Stack, add

NORMS = ("post", "pre", "phydi")


def padded(size: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def positions(start, length: int, features: int) -> Array:
    """Sines and cosines of positions, interleaved: (length, features), float32."""
    frequencies = np.exp(-np.arange(0, features, 2) * (math.log(10_000) / features))
    angles = (start + jnp.arange(length))[:, None] * jnp.asarray(frequencies, jnp.float32)
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(length, -1)[:, :features]


class DecodingCache(NamedTuple):
    """The keys and values of the words so far, from which a `PHTransformer` goes on.

    Attributes:
      keys: (depth, ..., max_length, num_heads, head features).
      values: likewise.
      length: () how many words there are.

    Examples:
      >>> import phydi
      >>> from flax import nnx
      >>> model = phydi.PHTransformer(50, 3, features=16, hidden=16, rngs=nnx.Rngs(0))
      >>> model.init_cache((2,), 10).keys.shape
      (3, 2, 10, 8, 2)
    """

    keys: Array
    values: Array
    length: Array


class CausalAttention(nnx.Module):
    """Self-attention to the words up to each, with one projection for queries, keys and values."""

    def __init__(self, features: int, width: int, num_heads: int, dropout: float, rngs, **options):
        self.num_heads = num_heads
        self.projection = PHMLinear(features, 3 * width, **options, rngs=rngs)
        self.out = PHMLinear(width, features, **options, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array, past: DecodingCache | None, deterministic) -> tuple:
        """The change of x, and with a cache also its new keys and values."""
        rows = x.shape[:-1]
        q, k, v = (
            part.reshape(*rows, self.num_heads, -1)
            for part in jnp.split(self.projection(x), 3, axis=-1)
        )
        now = jnp.arange(rows[-1])
        if past is not None:
            insert = jax.lax.dynamic_update_slice_in_dim
            k = insert(past.keys, k.astype(past.keys.dtype), past.length, axis=-3)
            v = insert(past.values, v.astype(past.values.dtype), past.length, axis=-3)
            now = now + past.length
        seen = jnp.arange(k.shape[-3]) <= now[:, None]
        scores = jnp.einsum("...thd,...shd->...hts", q * q.shape[-1] ** -0.5, k)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1).astype(v.dtype)
        weights = self.dropout(weights, deterministic=deterministic)
        y = jnp.einsum("...hts,...shd->...thd", weights, v)
        return self.out(y.reshape(*rows, -1)), (k, v)


class FeedForward(nnx.Module):
    """Two layers with a ReLU and dropout between."""

    def __init__(self, features: int, hidden: int, dropout: float, rngs: nnx.Rngs, **options):
        self.first = PHMLinear(features, hidden, **options, rngs=rngs)
        self.second = PHMLinear(hidden, features, **options, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)

    def __call__(self, x: Array, deterministic) -> Array:
        """The change of x."""
        hidden = self.dropout(nnx.relu(self.first(x)), deterministic=deterministic)
        return self.second(hidden)


class TransformerLayer(nnx.Module):
    """Attention, then feed-forward, each added to its input; `norm` as in the module."""

    def __init__(
        self,
        features: int,
        *,
        hidden: int,
        width: int,
        num_heads: int,
        dropout: float,
        norm: str,
        num_alphas: int,
        rngs: nnx.Rngs,
        **options,
    ):
        self.norm = norm
        self.attention = CausalAttention(features, width, num_heads, dropout, rngs, **options)
        self.feed_forward = FeedForward(features, hidden, dropout, rngs, **options)
        self.dropouts = nnx.List([nnx.Dropout(dropout, rngs=rngs) for _ in range(2)])
        self.alpha = self.norms = nnx.data(None)
        if norm == "phydi":
            self.alpha = nnx.Param(jnp.zeros(num_alphas, jnp.float32))
        else:
            types = {"dtype": options["dtype"], "param_dtype": options["param_dtype"]}
            norms = [nnx.LayerNorm(features, epsilon=1e-5, **types, rngs=rngs) for _ in range(2)]
            self.norms = nnx.List(norms)

    def __call__(
        self, x: Array, past: DecodingCache | None = None, deterministic: bool | None = None
    ) -> tuple:
        """x after the layer, and with a cache also its new keys and values."""
        change, kept = self.attention(self._before(0, x), past, deterministic)
        x = self._join(0, x, change, deterministic)
        change = self.feed_forward(self._before(1, x), deterministic)
        return self._join(1, x, change, deterministic), None if past is None else kept

    def _before(self, i: int, x: Array) -> Array:
        return self.norms[i](x) if self.norm == "pre" else x

    def _join(self, i: int, x: Array, change: Array, deterministic) -> Array:
        change = self.dropouts[i](change, deterministic=deterministic)
        if self.norm == "phydi":
            # The last of one α is the first.
            alpha = self.alpha[...][-1 if i else 0]
            return add(x, (alpha.astype(change.dtype) * change).astype(x.dtype))
        return self.norms[i](x + change) if self.norm == "post" else x + change


class VocabularyHead(PHMLinear):
    """The logits of `num_words` words; H has more columns where n does not divide that."""

    def __init__(self, features: int, num_words: int, *, n: int, **options):
        super().__init__(features, padded(num_words, n), n=n, **options)
        self.num_words = num_words

    def __call__(self, inputs: Array, out_sharding=None) -> Array:
        """Apply the layer to the last axis."""
        return super().__call__(inputs, out_sharding)[..., : self.num_words]

    def materialized(self) -> nnx.Linear:
        """The plain flax layer, without the padding."""
        plain, most = super().materialized(), self.num_words
        if most < self.out_features:
            plain.kernel, plain.bias = (
                nnx.Param(value[..., :most]) for value in (plain.kernel, plain.bias)
            )
            plain.out_features = most
        return plain


class PHTransformer(nnx.Module):
    """A hypercomplex causal language model of any depth.

        h_0 = s E[words] + positions,      h_(j+1) = layer_j(h_j),      logits = h_depth H + bias

    Layers are scanned over: the program and its compile time do not depend on the depth. Where n
    does not divide a size, the model has more of it: the vocabulary (words that cannot be asked for
    and have no logit), `features`, `hidden`, and the width of the attention, which is also a
    multiple of `num_heads`. For n = 3: 128 features become 129, 256 hidden 258, the width 144.

    Args:
      vocab_size: the number of words.
      depth: the number of layers.
      n: the number of components.
      num_heads: of the attention.
      features: of the signal between layers.
      hidden: of the feed-forward sub-layer.
      dropout: the probability to drop, of the embedding, attention weights and sub-layers.
      norm: `post`, `pre` or `phydi`, as in the module.
      num_alphas: of a PHYDI layer: 1 as in (5), 2 as in the released code.
      remat: whether the backward pass computes the layers again rather than to keep them.
      rank: as in the module `layers`, like `form` and `algebra_init`.
      embedding_scale: s, or None for √features; the released code has `features`.
      dtype: of the computation, as in flax's layers, like `param_dtype` and `kernel_init`.
      rngs: flax's random keys: `params`, and `dropout` unless it is 0.

    Attributes:
      embedding: the `PHMEmbed`.
      layers: the stacked layers; their α are `layers.blocks.alpha`, (depth, num_alphas).
      head: the `PHMLinear` to the vocabulary and its padding.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> model = phydi.PHTransformer(50, 3, features=16, hidden=32, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 7), int)).shape, model.head.out_features
      ((2, 7, 50), 52)
    """

    def __init__(
        self,
        vocab_size: int,
        depth: int,
        n: int = 4,
        *,
        num_heads: int = 8,
        features: int = 128,
        hidden: int = 256,
        dropout: float = 0.1,
        norm: str = "post",
        num_alphas: int = 1,
        remat: bool = False,
        rank: int | None = None,
        form: str = "auto",
        embedding_scale: float | None = None,
        algebra_init: Callable | None = None,
        kernel_init: Callable = default_kernel_init,
        embedding_init: Callable = default_embed_init,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.vocab_size = check_positive_integer("vocab_size", vocab_size)
        n = check_positive_integer("n", n)
        num_heads = check_positive_integer("num_heads", num_heads)
        sizes = {"features": features, "hidden": hidden}
        sizes = {k: padded(check_positive_integer(k, v), n) for k, v in sizes.items()}
        check_option("norm", norm, NORMS)
        if num_alphas not in (1, 2):
            raise ValueError(f"num_alphas: expected 1 or 2, got {num_alphas!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout!r}")
        self.features, words = sizes["features"], padded(vocab_size, n)
        self.norm, self.num_heads = norm, num_heads
        self.width = padded(features, math.lcm(n, num_heads))
        scale = self.features**0.5 if embedding_scale is None else embedding_scale
        self.embedding_scale, self.dtype = float(scale), dtype
        options = {
            "n": n,
            "rank": rank,
            "form": form,
            "algebra_init": algebra_init,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        self.embedding = PHMEmbed(
            words, self.features, embedding_init=embedding_init, **options, rngs=rngs
        )
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        options["kernel_init"] = kernel_init

        def make_layer(rngs):
            return TransformerLayer(
                **sizes,
                width=self.width,
                num_heads=num_heads,
                dropout=dropout,
                norm=norm,
                num_alphas=num_alphas,
                rngs=rngs,
                **options,
            )

        self.layers = Stack(make_layer, depth, remat=remat, rngs=rngs)
        self.head = VocabularyHead(self.features, vocab_size, **options, rngs=rngs)

    def __call__(self, words: Array, *, deterministic: bool | None = None) -> Array:
        """The logits of the words that follow: (..., length) to (..., length, vocab_size).

        `deterministic` says whether to drop nothing; None leaves it to `train()` and `eval()`.
        """
        x = self._embed(words, 0, deterministic)
        x, _ = self.layers.scan(lambda layer, x, _: layer(x, None, deterministic), x)
        return self.head(x)

    def init_cache(self, batch_shape: tuple[int, ...], max_length: int) -> DecodingCache:
        """An empty cache for `max_length` words of as many texts."""
        max_length = check_positive_integer("max_length", max_length)
        shape = (*batch_shape, max_length, self.num_heads, self.width // self.num_heads)
        dtype = self.head.param_dtype if self.dtype is None else self.dtype
        zeros = jnp.zeros((self.layers.depth, *shape), dtype)
        return DecodingCache(zeros, zeros, jnp.zeros((), jnp.int32))

    def decode(self, words: Array, cache: DecodingCache) -> tuple[Array, DecodingCache]:
        """Go on with (..., length) further words: their logits, and the cache with them in it.

        One word at a time or many, the logits are those of the whole text at once, without dropout.
        Words beyond the cache's `max_length` have NaN for logits.
        """
        words, length = jnp.asarray(words), cache.length
        max_length, batch = cache.keys.shape[-3], cache.keys.shape[1:-3]
        if words.shape[:-1] != batch or words.ndim < 1 or words.shape[-1] > max_length:
            raise ValueError(
                f"words: expected shape {(*batch, f'at most {max_length}')} for this cache, got "
                f"{words.shape}"
            )
        x = self._embed(words, length, True)

        def apply(layer, x, past):
            return layer(x, DecodingCache(*past, length), True)

        x, (keys, values) = self.layers.scan(apply, x, (cache.keys, cache.values))
        end = length + words.shape[-1]
        logits = jnp.where(end <= max_length, self.head(x), jnp.nan)
        return logits, DecodingCache(keys, values, end)

    def _embed(self, words: Array, start, deterministic) -> Array:
        words = jnp.asarray(words)
        if not jnp.issubdtype(words.dtype, jnp.integer) or words.ndim < 1:
            raise ValueError(
                f"words: expected integers of shape (..., length), got {words.dtype} of shape "
                f"{words.shape}"
            )
        words = as_words(words, self.embedding.num_embeddings)
        # Padded rows of the table are no words, nor are negative numbers.
        known = (words >= 0) & (words < self.vocab_size)
        x = self.embedding(jnp.where(known, words, -self.embedding.num_embeddings - 1))
        x = x * jnp.asarray(self.embedding_scale, x.dtype)
        x = x + positions(start, words.shape[-1], self.features).astype(x.dtype)
        return self.dropout(x, deterministic=deterministic)
