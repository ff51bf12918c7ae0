"""Text from a language model, word by word."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from phydi.checking import check_key, check_positive_integer
from phydi.layers import as_words
from phydi.transformer import PHTransformer


def generate(
    key, model: PHTransformer, prompt, num_words: int, *, temperature: float = 1.0
) -> Array:
    """Words that go on with a text, drawn one after the other.

        p(word) = softmax(logits / temperature)

    Args:
      key: a random key.
      model: the language model.
      prompt: (..., length) the words at the beginning, at least one.
      num_words: how many to draw.
      temperature: 0 for the most likely word.

    Returns:
      (..., num_words).

    Raises:
      ValueError: an empty prompt, a negative temperature, or no positive `num_words`.

    Reference:
      Nothing in the paper.

    Examples:
      >>> import jax, jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> model = phydi.PHTransformer(50, 3, features=16, hidden=32, rngs=nnx.Rngs(0))
      >>> phydi.generate(jax.random.key(0), model, jnp.array([3, 1]), 5).shape
      (5,)
    """
    check_key(key)
    num_words = check_positive_integer("num_words", num_words)
    prompt = jnp.asarray(prompt)
    if prompt.ndim < 1 or prompt.shape[-1] < 1:
        raise ValueError(f"prompt: expected at least one word, got shape {prompt.shape}")
    if not temperature >= 0:
        raise ValueError(f"temperature: expected at least 0, got {temperature!r}")
    if jnp.issubdtype(prompt.dtype, jnp.integer):
        prompt = as_words(prompt, model.vocab_size)  # words beyond a byte may follow bytes
    graph, state = nnx.split(model)
    return _generate(key, graph, state, prompt, temperature, num_words, temperature == 0)


@partial(jax.jit, static_argnames=("graph", "num_words", "greedy"))
def _generate(key, graph, state, prompt, temperature, num_words: int, greedy: bool) -> Array:
    model = nnx.merge(graph, state)

    def draw(key, logits):
        if greedy:
            return jnp.argmax(logits, axis=-1).astype(prompt.dtype)
        return jax.random.categorical(key, logits / temperature).astype(prompt.dtype)

    def step(carry, key):
        word, cache = carry
        logits, cache = model.decode(word[..., None], cache)
        word = draw(key, logits[..., 0, :])
        return (word, cache), word

    keys = jax.random.split(key, num_words)
    cache = model.init_cache(prompt.shape[:-1], prompt.shape[-1] + num_words)
    logits, cache = model.decode(prompt, cache)
    word = draw(keys[0], logits[..., -1, :])
    _, words = jax.lax.scan(step, (word, cache), keys[1:])
    return jnp.concatenate([word[..., None], jnp.moveaxis(words, 0, -1)], axis=-1)
