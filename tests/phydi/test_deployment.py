"""Plain layers with the same outputs; the nearest hypercomplex layers are optimal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from tests.phydi.test_layers import disturb, normal

pytestmark = pytest.mark.float32


class Model(nnx.Module):
    """One of each layer, in attributes, lists and stacks."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = phydi.PHMEmbed(12, 8, n=4, rngs=rngs)
        self.convolutions = nnx.List([phydi.PHConv(8, 8, 3, n=2, rank=3, rngs=rngs)])
        self.attention = phydi.PHMultiHeadAttention(2, 8, n=4, decode=False, rngs=rngs)
        self.stack = phydi.ResidualStack(
            lambda rngs: phydi.PHMLinear(8, 8, n=4, rngs=rngs), 3, rngs=rngs
        )
        self.head = nnx.Sequential(nnx.relu, phydi.PHMLinear(8, 4, n=4, weighted=True, rngs=rngs))

    def __call__(self, words):
        x = self.convolutions[0](self.embed(words))
        return self.head(self.stack(self.attention(x, is_causal=True)))


def kinds(model):
    return {type(m).__name__ for _, m in nnx.iter_modules(model)}


def test_a_whole_model_keeps_its_outputs_and_is_not_changed():
    model = disturb(Model(nnx.Rngs(0)))
    words = jnp.array([[0, 3, 7, 11], [5, 5, 1, 2]])
    before = jax.tree.map(jnp.copy, nnx.state(model))
    plain = phydi.materialize(model)
    np.testing.assert_allclose(plain(words), model(words), atol=5e-4)
    assert not [kind for kind in kinds(plain) if kind.startswith(("PH", "Multiplication"))]
    assert {"Linear", "Conv", "Embed", "MultiHeadAttention"} <= kinds(plain)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, nnx.state(model)))


def test_outputs_of_the_built_form_are_the_same_bits():
    layer = phydi.PHMLinear(8, 12, n=4, form="built", rngs=nnx.Rngs(0))
    conv = phydi.PHConv(8, 12, (3, 3), strides=2, n=4, form="built", rngs=nnx.Rngs(0))
    for own, x in ((layer, normal(5, 8)), (conv, normal(2, 6, 6, 8))):
        plain = phydi.materialize(own)
        assert type(plain) in (nnx.Linear, nnx.Conv)
        np.testing.assert_array_equal(plain(x), own(x))


def test_layers_that_are_shared_stay_shared():
    layer = phydi.PHMLinear(4, 4, n=2, rngs=nnx.Rngs(0))
    model = nnx.Sequential(layer, nnx.relu, layer)
    plain = phydi.materialize(model)
    assert plain.layers[0] is plain.layers[2]
    assert type(plain.layers[0]) is nnx.Linear
    x = normal(3, 4)
    np.testing.assert_allclose(plain(x), model(x), atol=1e-5)
    assert type(model.layers[0]) is phydi.PHMLinear


def test_attention_with_dropout_keys_and_a_cache_is_carried_over_and_not_shared():
    options = {"dropout_rate": 0.5, "deterministic": False, "decode": True}
    own = phydi.PHMultiHeadAttention(2, 8, n=4, **options, rngs=nnx.Rngs(0))
    own.init_cache((1, 4, 8))
    plain = phydi.materialize(own)
    again = phydi.from_real(plain, 4)
    x = normal(1, 1, 8)
    # The same keys drop the same weights.
    y = own(x)
    np.testing.assert_allclose(plain(x), y, atol=1e-5)
    assert [int(layer.cache_index[...]) for layer in (own, plain, again)] == [1, 1, 0]
    np.testing.assert_allclose(again(x), y, atol=1e-4)


@pytest.mark.parametrize("num_stacked", [1, 2])
def test_layers_stacked_by_a_users_own_vmap(num_stacked):
    makers = {
        "linear": lambda rngs: phydi.PHMLinear(8, 4, n=4, rank=7, rngs=rngs),
        "conv": lambda rngs: phydi.PHConv(8, 4, 3, n=4, algebra="cyclic", rngs=rngs),
        "embed": lambda rngs: phydi.PHMEmbed(8, 4, n=2, rngs=rngs),
        "attention": lambda rngs: phydi.PHMultiHeadAttention(2, 8, n=2, decode=False, rngs=rngs),
    }
    for name, make in makers.items():
        for _ in range(num_stacked):
            make = nnx.vmap(make, in_axes=0, out_axes=0)
        stacked = make(nnx.Rngs(0).split((3, 2)[:num_stacked]))
        x = jnp.arange(8) if name == "embed" else normal(2, 5, 8)
        outputs = []
        for layer in (stacked, phydi.materialize(stacked)):
            graph, state = nnx.split(layer)
            one = jax.tree.map(lambda leaf: leaf[(1,) * num_stacked], state)
            outputs.append(nnx.merge(graph, one)(x))
        np.testing.assert_allclose(*outputs, atol=1e-5)


def test_half_precision_goes_there_and_back():
    real = nnx.Linear(8, 4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    real.kernel[...] = jnp.kron(normal(2, 2), normal(4, 2, seed=1)).astype(jnp.bfloat16)
    own = phydi.from_real(real, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(own))} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(
        phydi.materialize(own).kernel[...].astype(float), real.kernel[...].astype(float), rtol=0.03
    )


REAL = {
    "linear": lambda rngs: nnx.Linear(12, 8, rngs=rngs),
    "no bias": lambda rngs: nnx.Linear(12, 8, use_bias=False, rngs=rngs),
    "convolution": lambda rngs: nnx.Conv(12, 8, (3, 2), strides=(2, 1), rngs=rngs),
    "embedding": lambda rngs: nnx.Embed(12, 8, rngs=rngs),
    "attention": lambda rngs: nnx.MultiHeadAttention(4, 12, decode=False, rngs=rngs),
}
INPUTS = {"convolution": normal(2, 5, 5, 12), "embedding": jnp.arange(12)}


@pytest.mark.parametrize("kind", REAL)
def test_what_came_from_a_hypercomplex_layer_comes_back(kind):
    n, x = 4, INPUTS.get(kind, normal(2, 3, 12))
    first = phydi.from_real(REAL[kind](nnx.Rngs(0)), n)
    real = phydi.materialize(disturb(first))
    again = phydi.from_real(real, n)
    assert type(real) is type(REAL[kind](nnx.Rngs(0)))
    np.testing.assert_allclose(again(x), real(x), atol=2e-4)
    np.testing.assert_allclose(again(x), first(x), atol=2e-4)


def test_one_component_is_the_layer_itself():
    real = nnx.Linear(5, 7, rngs=nnx.Rngs(0))
    x = normal(3, 5)
    np.testing.assert_allclose(phydi.from_real(real, 1)(x), real(x), atol=1e-5)


@pytest.mark.parametrize(("n", "shape"), [(2, (6, 4)), (3, (3, 2, 6, 9)), (4, (8, 8)), (4, (4, 4))])
def test_the_nearest_is_no_further_than_any_neighbour_and_its_distance_is_exact(n, shape):
    H = normal(*shape)
    A, F, distance = phydi.nearest_kronecker_sum(H, n)
    error = np.asarray(H - phydi.kronecker_sum(A, F), float)
    assert np.linalg.norm(error) / np.linalg.norm(H) == pytest.approx(float(distance), abs=2e-6)
    # At the optimum of a sum of n products: stationary in A and in F.
    loss = lambda A, F: jnp.sum((H - phydi.kronecker_sum(A, F)) ** 2)  # noqa: E731
    for slope in jax.grad(loss, (0, 1))(A, F):
        assert abs(slope).max() < 1e-4
    # Alternating least squares from a random start, in float64, gets no lower.
    taps = int(np.prod(shape[:-2]))
    parts = np.asarray(H, float).reshape(taps, n, shape[-2] // n, n, shape[-1] // n)
    M = parts.transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
    a = np.random.default_rng(0).normal(size=(n * n, n))
    for _ in range(200):
        f = np.linalg.lstsq(a, M, rcond=None)[0]
        a = np.linalg.lstsq(f.T, M.T, rcond=None)[0].T
    other = np.linalg.norm(M - a @ f) / np.linalg.norm(M)
    assert float(distance) <= other + 1e-6
    # Normed, but for the terms that blocks of fewer than n numbers do not have.
    norms = jnp.sum(A**2, axis=(1, 2))
    np.testing.assert_allclose(norms, n * (np.arange(n) < F[0].size), rtol=1e-4)


def test_the_nearest_composes_with_jit_and_vmap():
    H = normal(3, 6, 4)
    batch = jax.jit(jax.vmap(lambda H: phydi.kronecker_sum(*phydi.nearest_kronecker_sum(H, 2)[:2])))
    for one, found in zip(H, batch(H)):
        exact = phydi.kronecker_sum(*phydi.nearest_kronecker_sum(one, 2)[:2])
        np.testing.assert_allclose(found, exact, atol=1e-5)


def test_bad_input_is_named():
    real = nnx.Linear(6, 8, rngs=nnx.Rngs(0))
    for call, match in (
        (lambda: phydi.from_real(real, 4), "in_features: expected a multiple of n = 4, got 6"),
        (lambda: phydi.from_real(nnx.BatchNorm(4, rngs=nnx.Rngs(0)), 2), "layer: expected nnx.Lin"),
        (lambda: phydi.nearest_kronecker_sum(jnp.ones(4), 2), r"H: expected shape \(\*taps, in"),
        (lambda: phydi.nearest_kronecker_sum(jnp.ones((4, 3)), 2), "out of H: expected a multiple"),
        (lambda: phydi.materialize(lambda x: x), "model: expected an nnx.Module, got function"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
