"""The layers against flax's own on the kernel written out by kron, in every form of product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import phydi
from phydi.products import choose_form

pytestmark = pytest.mark.float32

KINDS = {
    "learnt": {},
    "quaternion": {"algebra": "cayley-dickson"},
    "rank 7": {"rank": 7},
    "weighted": {"weighted": True},
}
FORMS = [
    (kind, form)
    for kind in KINDS
    for form in ("auto", "built", "contracted", "factored")
    if form != "factored" or kind == "rank 7"
]
# A is the same for all layers: every kind of it is tried on the dense one.
FEW = [(kind, form) for kind, form in FORMS if kind in ("learnt", "rank 7")]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def disturb(layer):
    """Every parameter moved, so that none is at a special value (bias 0, weight 1)."""
    state = nnx.state(layer, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    leaves = [x + 0.3 * normal(*x.shape, seed=i).astype(x.dtype) for i, x in enumerate(leaves)]
    nnx.update(layer, jax.tree.unflatten(tree, leaves))
    return layer


def written_out(layer):
    """H by numpy's kron, in float64, tap by tap."""
    m = layer.multiplication
    if m.A is None:
        A = np.einsum("ri,ra,rb->iab", *(np.asarray(f[...], float) for f in (m.u, m.v, m.w)))
    else:
        A = np.asarray(m.A[...], float)
    if m.weights is not None:
        A = A * np.asarray(m.weights[...], float)[:, None, None]
    F = np.asarray(layer.F[...], float)
    taps = F.shape[1:-2]
    flat = F.reshape(F.shape[0], -1, *F.shape[-2:])
    found = [sum(np.kron(a, f[t]) for a, f in zip(A, flat)) for t in range(flat.shape[1])]
    return np.stack(found).reshape(*taps, *found[0].shape)


@pytest.mark.parametrize(("kind", "form"), FORMS)
@pytest.mark.parametrize("sizes", [(8, 20), (20, 8)])
def test_linear(kind, form, sizes):
    layer = disturb(phydi.PHMLinear(*sizes, n=4, form=form, **KINDS[kind], rngs=nnx.Rngs(0)))
    x = normal(2, 3, sizes[0])
    exact = np.asarray(x, float) @ written_out(layer) + np.asarray(layer.bias[...], float)
    np.testing.assert_allclose(layer(x), exact, atol=2e-5)
    np.testing.assert_allclose(layer(x[0, 0]), exact[0, 0], atol=2e-5)


@pytest.mark.parametrize(("kind", "form"), FEW)
def test_convolution(kind, form):
    for sizes, options in (
        ((8, 12), {"strides": 2, "padding": "SAME"}),
        ((12, 8), {"kernel_dilation": 2, "padding": "CIRCULAR", "use_bias": False}),
    ):
        make = {"n": 4, "form": form, **KINDS[kind], **options}
        layer = disturb(phydi.PHConv(*sizes, (3, 2), **make, rngs=nnx.Rngs(0)))
        real = nnx.Conv(*sizes, (3, 2), **options, rngs=nnx.Rngs(0))
        real.kernel[...] = jnp.asarray(written_out(layer), jnp.float32)
        if layer.bias is not None:
            real.bias[...] = layer.bias[...]
        x = normal(2, 6, 5, sizes[0])
        np.testing.assert_allclose(layer(x), real(x), atol=1e-4)
        np.testing.assert_allclose(layer(x[0]), real(x[0]), atol=1e-4)


def test_a_convolution_of_one_axis_is_causal_and_of_two_batch_axes():
    layer = phydi.PHConv(4, 8, 3, n=2, padding="CAUSAL", form="contracted", rngs=nnx.Rngs(0))
    x = normal(2, 2, 7, 4)
    y = layer(x)
    assert y.shape == (2, 2, 7, 8)
    later = layer(x.at[:, :, 5:].add(1.0))
    np.testing.assert_allclose(later[:, :, :5], y[:, :, :5], atol=1e-6)
    np.testing.assert_allclose(layer.materialized()(x), y, atol=1e-5)


@pytest.mark.parametrize("form", ["built", "contracted", "factored"])
def test_no_images_have_no_result(form):
    layer = phydi.PHConv(4, 8, (3, 2), strides=2, n=2, rank=3, form=form, rngs=nnx.Rngs(0))
    assert layer(jnp.zeros((0, 5, 5, 4))).shape == (0, 3, 3, 8)
    slopes = nnx.grad(lambda layer: jnp.sum(layer(jnp.zeros((0, 5, 5, 4)))))(layer)
    assert not jnp.any(slopes["F"][...])


def test_groups_and_masks_build_the_kernel():
    mask = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 8)), jnp.float32)
    options = {"feature_group_count": 2, "mask": mask}
    layer = phydi.PHConv(8, 8, 3, n=4, **options, rngs=nnx.Rngs(0))
    real = nnx.Conv(8, 8, 3, **options, rngs=nnx.Rngs(0))
    real.kernel[...] = jnp.asarray(written_out(layer), jnp.float32)
    x = normal(2, 5, 8)
    np.testing.assert_allclose(layer(x), real(x), atol=1e-5)
    assert layer.form == "built"


@pytest.mark.parametrize(("kind", "form"), FEW)
def test_embedding(kind, form):
    layer = phydi.PHMEmbed(20, 8, n=4, form=form, **KINDS[kind], rngs=nnx.Rngs(0))
    table = written_out(disturb(layer))
    words = jnp.array([[0, 4, 5], [19, -1, -20]])
    np.testing.assert_allclose(layer(words), table[words], atol=1e-5)
    missing = layer(jnp.array([20, 3, -21]))
    np.testing.assert_array_equal(np.isnan(missing).all(1), [True, False, True])
    assert np.isfinite(missing[1]).all()
    query = normal(3, 8)
    exact = np.asarray(query, float) @ table.T
    np.testing.assert_allclose(layer.attend(query), exact, atol=2e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32"])
def test_words_of_any_type_are_found_in_a_larger_table(dtype):
    # A comparison with the table's size in the words' own type would wrap around.
    layer = phydi.PHMEmbed(40_000, 4, n=4, form="contracted", rngs=nnx.Rngs(0))
    largest = min(np.iinfo(dtype).max, 39_999)
    words = np.array([0, 1, largest // 2, largest], dtype)
    table = np.asarray(layer.embedding)
    np.testing.assert_allclose(layer(words), table[words.astype(int)], atol=1e-6)
    layer.form = "built"
    np.testing.assert_array_equal(layer(jnp.asarray(words)), table[words.astype(int)])
    if dtype == "uint32":
        assert np.isnan(layer(np.array([40_000, 2**32 - 1], dtype))).all()


@pytest.mark.parametrize("kind", ["learnt", "rank 7"])
def test_attention_is_flax_with_the_kernels_written_out(kind):
    sizes = {"qkv_features": 16, "out_features": 12, "num_kv_heads": 2, "in_kv_features": 4}
    options = {"decode": False, "normalize_qk": True, **sizes}
    layer = phydi.PHMultiHeadAttention(4, 8, n=4, **KINDS[kind], **options, rngs=nnx.Rngs(0))
    disturb(layer)
    real = nnx.MultiHeadAttention(4, 8, **options, rngs=nnx.Rngs(0))
    for name in ("query", "key", "value", "out"):
        to, own = getattr(real, name), getattr(layer, name).linear
        H = jnp.asarray(written_out(own), jnp.float32)
        to.kernel[...] = H.reshape(to.kernel.shape)
        to.bias[...] = own.bias[...].reshape(to.bias.shape)
    real.query_ln, real.key_ln = layer.query_ln, layer.key_ln
    x, memory = normal(2, 5, 8), normal(2, 6, 4, seed=1)
    mask = jnp.asarray(np.random.default_rng(1).integers(0, 2, (2, 1, 5, 6)), bool)
    mask = mask.at[..., 0].set(True)
    np.testing.assert_allclose(layer(x, memory, mask=mask), real(x, memory, mask=mask), atol=5e-5)


def test_attention_decodes_with_flaxs_cache():
    layer = phydi.PHMultiHeadAttention(2, 8, n=4, decode=False, rngs=nnx.Rngs(0))
    x = normal(1, 4, 8)
    whole = layer(x, is_causal=True)
    layer.init_cache((1, 4, 8))
    steps = [layer(x[:, i : i + 1], decode=True) for i in range(4)]
    np.testing.assert_allclose(jnp.concatenate(steps, 1), whole, atol=1e-5)


def test_distributed_kernels_have_distributed_blocks():
    auto = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("data", "model"), axis_types=auto)
    across, along = {"out_sharding": (None, "model")}, {"out_sharding": ("model", None)}
    heads = {"out_sharding": (None, "model", None)}
    with jax.set_mesh(mesh):
        rngs = nnx.Rngs(0)
        real = nnx.Linear(8, 8, kernel_metadata=across, rngs=rngs)
        linear = phydi.PHMLinear(8, 8, n=2, kernel_metadata=across, rngs=rngs)
        embed = phydi.PHMEmbed(8, 8, n=2, embedding_metadata=along, rngs=rngs)
        taps = {"out_sharding": (None, None, None, "model")}
        conv = phydi.PHConv(8, 8, (3, 3), n=2, kernel_metadata=taps, rngs=rngs)
        attention = phydi.PHMultiHeadAttention(
            2, 8, n=2, kernel_metadata=heads, bias_metadata={"out_sharding": ("model", None)},
            out_kernel_metadata={"out_sharding": ("model", None, None)},
            out_bias_metadata={"out_sharding": (None,)}, rngs=rngs,
        )  # fmt: skip
    spec = lambda variable: tuple(variable[...].sharding.spec)  # noqa: E731
    assert spec(real.kernel) == (None, "model")
    assert spec(linear.F) == (None, None, "model")
    assert spec(embed.F) == (None, "model", None)
    assert spec(conv.F) == (None, None, None, None, "model")
    assert spec(attention.query.linear.F) == (None, None, "model")
    assert spec(attention.query.linear.bias) == ("model",)
    assert spec(attention.out.linear.F) == (None, "model", None)


def parameters(layer):
    return sum(x.size for x in jax.tree.leaves(nnx.state(layer, nnx.Param)))


@pytest.mark.parametrize("n", [1, 3, 4])
def test_parameter_counts(n):
    rngs = nnx.Rngs(0)
    assert parameters(phydi.PHMLinear(12, 24, n=n, rngs=rngs)) == 288 // n + n**3 + 24
    assert parameters(phydi.PHConv(12, 24, (3, 3), n=n, rngs=rngs)) == 9 * 288 // n + n**3 + 24
    rank = {"rank": 5, "use_bias": False}
    assert parameters(phydi.PHMLinear(12, 24, n=n, **rank, rngs=rngs)) == 288 // n + 15 * n
    fixed = {"algebra": "cyclic", "use_bias": False}
    assert parameters(phydi.PHMLinear(12, 24, n=n, **fixed, rngs=rngs)) == 288 // n


def test_known_algebras_in_few_products_stay_fixed():
    factors = phydi.cyclic_factors(3)
    layer = phydi.PHMLinear(6, 9, n=3, algebra=factors, rngs=nnx.Rngs(0))
    other = phydi.PHMLinear(6, 9, n=3, algebra="cyclic", rngs=nnx.Rngs(0))
    x = normal(40, 6)
    np.testing.assert_allclose(layer(x), other(x), atol=1e-5)
    assert parameters(layer) == parameters(other) == 18 + 9
    assert layer.multiplication.rank == 4


def test_dtypes_are_those_of_flax():
    x = normal(3, 8)
    for dtype, param_dtype in ((None, jnp.float32), (jnp.bfloat16, jnp.float32)):
        options = {"dtype": dtype, "param_dtype": param_dtype, "rngs": nnx.Rngs(0)}
        for form, rank in (("built", None), ("contracted", None), ("factored", 7)):
            special = {"n": 4, "form": form, "rank": rank}
            layer = phydi.PHMLinear(8, 8, **special, **options)
            real = nnx.Linear(8, 8, **options)
            assert layer(x).dtype == real(x).dtype
            assert layer.F[...].dtype == layer.bias[...].dtype == param_dtype
            conv = phydi.PHConv(8, 8, 3, **special, **options)
            assert conv(x).dtype == nnx.Conv(8, 8, 3, **options)(x).dtype
            embed = phydi.PHMEmbed(8, 8, **special, **options)
            words = jnp.arange(4)
            assert embed(words).dtype == nnx.Embed(8, 8, **options)(words).dtype


@pytest.mark.parametrize("form", ["built", "contracted", "factored"])
def test_gradients_against_differences(form):
    layer = phydi.PHMLinear(4, 6, n=2, rank=3, form=form, rngs=nnx.Rngs(0))
    graph, state = nnx.split(disturb(layer))
    x, g = normal(5, 4), normal(5, 6, seed=1)

    def loss(state, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x)) * g)

    slopes = jax.grad(loss, (0, 1))(state, x)
    leaves, tree = jax.tree.flatten((state, x))
    for i, slope in enumerate(jax.tree.leaves(slopes)):
        step = 1e-2 * normal(*leaves[i].shape, seed=i)
        up, down = ([*leaves[:i], leaves[i] + s * step, *leaves[i + 1 :]] for s in (1, -1))
        difference = loss(*jax.tree.unflatten(tree, up)) - loss(*jax.tree.unflatten(tree, down))
        assert float(difference) == pytest.approx(float(2 * jnp.sum(slope * step)), abs=2e-4)


def test_jit_equals_eager_and_does_not_retrace():
    layer = phydi.PHConv(4, 8, (3, 3), n=4, rngs=nnx.Rngs(0))
    traces = []

    @nnx.jit
    def apply(layer, x):
        traces.append(None)
        return layer(x)

    x = normal(2, 5, 5, 4)
    np.testing.assert_allclose(apply(layer, x), layer(x), atol=1e-5)
    apply(layer, 2 * x)
    assert len(traces) == 1


def test_vmap_over_layers_is_a_loop():
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
        return phydi.PHMLinear(4, 4, n=2, rngs=rngs)

    layers = make(nnx.Rngs(0))
    x = normal(3, 5, 4)
    y = nnx.vmap(lambda layer, x: layer(x))(layers, x)
    graph, state = nnx.split(layers)
    for i in range(3):
        one = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state))
        np.testing.assert_allclose(y[i], one(x[i]), atol=1e-6)


def test_the_form_is_the_cheapest_by_its_operations():
    def cost(form, rows, n, p, q):
        product = rows * n * n * p * q
        build, mix = n**3 * p * q, rows * n**3 * min(p, q)
        return product + (build if form == "built" else mix)

    for rows in (1, 5, 15, 16, 17, 100):
        for p, q in ((4, 16), (16, 4), (8, 8)):
            chosen = choose_form("auto", rows, p, q, None)
            other = "built" if chosen == "contracted" else "contracted"
            assert cost(chosen, rows, 3, p, q) <= cost(other, rows, 3, p, q)


def test_small_blocks_are_not_factored_where_rows_are_many():
    assert choose_form("auto", 4096, 16, 64, 7) == "built"
    assert choose_form("auto", 4096, 128, 128, 7) == "built"
    assert choose_form("auto", 4096, 256, 512, 7) == "factored"
    assert choose_form("auto", 4096, 64, 128, 7, taps=9) == "built"
    assert choose_form("auto", 4096, 128, 128, 7, taps=9) == "factored"
    assert choose_form("auto", 1, 16, 64, 7) == "factored"
    assert choose_form("auto", 100, 16, 16, None, taps=9) == "contracted"
    assert choose_form("auto", 144, 16, 16, None, taps=9) == "built"


def count_products(jaxpr, size):
    """Equations that make an array of `size` numbers by dot_general, at any depth."""
    found = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            found += any(v.aval.size == size for v in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                found += count_products(inner, size) if hasattr(inner, "eqns") else 0
    return found


def test_h_is_built_once_in_a_step():
    layer = phydi.PHMLinear(8, 20, n=4, form="built", use_bias=False, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)

    def loss(state, x):
        return jnp.sum(nnx.merge(graph, state)(x) ** 2)

    jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(state, jnp.ones((33, 8)))
    # Two arrays of 8 · 20 numbers come from products: H, and the gradient with respect to H.
    assert count_products(jaxpr.jaxpr, 160) == 2


def test_bad_input_is_named():
    rngs = nnx.Rngs(0)
    linear = phydi.PHMLinear(8, 8, n=4, rngs=rngs)
    conv = phydi.PHConv(8, 8, (3, 3), n=4, rngs=rngs)
    embed = phydi.PHMEmbed(8, 8, n=4, rngs=rngs)
    attention = phydi.PHMultiHeadAttention
    for call, match in (
        (
            lambda: phydi.PHMLinear(10, 8, n=4, rngs=rngs),
            "in_features: expected a multiple of n = 4, got 10; pad it to 8 or 12, "
            "or choose n among 1, 2, 5, 10",
        ),
        (lambda: phydi.PHMLinear(8, 2, n=4, rngs=rngs), "out_features: .* got 2; pad it to 4"),
        (lambda: phydi.PHMLinear(8, 8, n=0, rngs=rngs), "n: expected an integer of at least 1"),
        (lambda: phydi.PHMLinear(8, 8, n=2.0, rngs=rngs), "n: expected an integer"),
        (lambda: phydi.PHMLinear(8, 8, n=4, rank=0, rngs=rngs), "rank: expected an integer"),
        (lambda: phydi.PHMLinear(8, 8, n=4, form="x", rngs=rngs), "form: expected one of auto"),
        (lambda: phydi.PHMLinear(8, 8, n=4, form="factored", rngs=rngs), "form: expected rank=R"),
        (
            lambda: phydi.PHMLinear(
                8, 8, n=4, form="contracted", preferred_element_type=jnp.float32, rngs=rngs
            ),
            "form: expected 'auto' or 'built' beside preferred_element_type, got 'contracted'",
        ),
        (
            lambda: phydi.PHMLinear(8, 8, n=4, algebra="cyclic", rank=5, rngs=rngs),
            "algebra: expected None beside rank",
        ),
        (
            lambda: phydi.PHMLinear(8, 8, n=4, algebra=np.ones((2, 2, 2)), rngs=rngs),
            r"algebra: expected shape \(4, 4, 4\), got \(2, 2, 2\)",
        ),
        (
            lambda: phydi.PHMLinear(8, 8, n=4, algebra=phydi.cyclic_factors(3), rngs=rngs),
            r"algebra: expected Factors of shape \(R, 4\)",
        ),
        (lambda: phydi.PHConv(8, 9, 3, n=4, rngs=rngs), "out_features: .* pad it to 8 or 12"),
        (
            lambda: phydi.PHConv(8, 8, 3, n=4, feature_group_count=4, rngs=rngs),
            "in_features / feature_group_count: expected a multiple of n = 4, got 2",
        ),
        (
            lambda: phydi.PHConv(8, 8, 3, n=4, feature_group_count=3, rngs=rngs),
            "feature_group_count: expected a divisor of in_features = 8, got 3",
        ),
        (lambda: phydi.PHMEmbed(33278, 128, n=4, rngs=rngs), "num_embeddings: .* 33276 or 33280"),
        (lambda: attention(2, 6, n=4, rngs=rngs), "in_features: expected a multiple of n = 4"),
        (
            lambda: attention(2, 8, n=4, qkv_dot_general=jnp.dot, rngs=rngs),
            "qkv_dot_general: deprecated",
        ),
        (lambda: linear(jnp.ones((3, 7))), r"inputs: expected a last axis of in_features = 8"),
        (lambda: conv(jnp.ones((3, 7, 7))), r"inputs: expected \(..., 2 axes of space"),
        (lambda: embed(jnp.ones(3)), "inputs: expected integers, got float"),
        (lambda: embed.attend(jnp.ones(3)), "query: expected a last axis of features = 8"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
