"""From hypercomplex layers to plain ones, and back to the nearest.

A sum of Kronecker products, rearranged so that the entry of block (a, b) at (tap, j, k) stands in
row (a, b) and column (tap, j, k), is a sum of outer products of A_i and F_i: n matrices of rank 1.
The nearest such sum in the Frobenius norm is therefore the truncated singular value decomposition
(van Loan & Pitsianis), exactly, without iteration, and its error the singular values left out.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from phydi.attention import PHMLinearGeneral, PHMultiHeadAttention
from phydi.checking import as_floating, check_divides
from phydi.convolution import PHConv
from phydi.layers import PHMEmbed, PHMLinear
from phydi.residual import submodules

_PROJECTIONS = ("query", "key", "value", "out")


def nearest_kronecker_sum(H, n: int) -> tuple[Array, Array, Array]:
    """The nearest sum of n Kronecker products of a matrix or convolution kernel.

        minimise ‖H - Σ_i A_i ⊗ F_i‖_F

    Args:
      H: (*taps, in, out).
      n: the number of components, which divides in and out.

    Returns:
      A: (n, n, n), with ‖A_i‖² = n (0 where blocks have fewer than n numbers),
      F: (n, *taps, in/n, out/n), and () the distance over ‖H‖. A and F have the dtype of H.

    Raises:
      ValueError: n does not divide the channels.

    Reference:
      van Loan & Pitsianis, Approximation with Kronecker products (1993).

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> F = jnp.arange(8.0).reshape(2, 2, 2)
      >>> H = phydi.kronecker_sum(phydi.multiplication_tensor(2), F)
      >>> A, F, distance = phydi.nearest_kronecker_sum(H, 2)
      >>> bool(jnp.allclose(phydi.kronecker_sum(A, F), H, atol=1e-4)), bool(distance < 1e-4)
      (True, True)
    """
    H = as_floating("H", H)
    if H.ndim < 2:
        raise ValueError(f"H: expected shape (*taps, in, out), got {H.shape}")
    # There is no decomposition in half precision.
    dtype, H = H.dtype, H.astype(jnp.promote_types(H.dtype, jnp.float32))
    *taps, size_in, size_out = H.shape
    check_divides(n, **{"in of H": size_in, "out of H": size_out})
    p, q = size_in // n, size_out // n
    rearranged = H.reshape(-1, n, p, n, q).transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
    U, s, V = jnp.linalg.svd(rearranged, full_matrices=False)
    # Fewer than n numbers in a block leave fewer than n terms: the others are zero.
    lacking = max(n - s.size, 0)
    U, s = jnp.pad(U, ((0, 0), (0, lacking))), jnp.pad(s, (0, lacking))
    V = jnp.pad(V, ((0, lacking), (0, 0)))
    A = n**0.5 * U[:, :n].T.reshape(n, n, n)
    F = (s[:n, None] * V[:n] / n**0.5).reshape(n, *taps, p, q)
    norm = jnp.linalg.norm(s)
    distance = jnp.linalg.norm(s[n:]) / jnp.where(norm > 0, norm, 1)
    return A.astype(dtype), F.astype(dtype), distance


def _carry_over(source: nnx.MultiHeadAttention, target: nnx.MultiHeadAttention) -> None:
    """All of an attention but its projections: settings, norms, dropout keys, the cache."""
    for name in [name for name in vars(target) if hasattr(source, name)]:
        if not name.startswith("_") and name not in _PROJECTIONS:
            value = getattr(source, name)
            arrays = value is None or nnx.is_data(value)
            setattr(target, name, nnx.data(value) if arrays else value)


def _plain_attention(layer: PHMultiHeadAttention) -> nnx.MultiHeadAttention:
    real = nnx.MultiHeadAttention(
        layer.num_heads,
        layer.in_features,
        layer.qkv_features,
        layer.out_features,
        layer.num_kv_heads,
        layer.in_kv_features,
        kernel_init=nnx.initializers.zeros_init(),
        param_dtype=layer.param_dtype,
        rngs=nnx.Rngs(0),
    )
    _carry_over(layer, real)
    for name in _PROJECTIONS:
        projection = getattr(layer, name)
        setattr(real, name, _plain(projection) or projection)
    return real


def _num_leading(layer) -> int:
    """How many axes a user's vmap has put before those of a layer's arrays."""
    m = getattr(layer, "linear", layer).multiplication
    return m.A.ndim - 3 if m.u is None else m.u.ndim - 2


def _plain(module):
    """The plain layer of a hypercomplex one; None of anything else."""
    if isinstance(module, PHMultiHeadAttention):
        return _plain_attention(module)
    if isinstance(module, PHMLinear | PHConv | PHMEmbed | PHMLinearGeneral):
        build = type(module).materialized
        for _ in range(_num_leading(module)):
            build = nnx.vmap(build, in_axes=0, out_axes=0)
        return build(module)
    return None


def _replace(module, made: dict) -> None:
    """Replace what is hypercomplex within, in place; `made`: by id, what was visited before."""
    # nnx.List and nnx.Dict are modules, too.
    if isinstance(module, nnx.List | list):
        items = enumerate(module)
    elif isinstance(module, nnx.Dict | dict):
        items = module.items()
    else:
        items = vars(module).items()
    for name, item in list(items):
        if isinstance(name, str) and name.startswith("_"):
            continue
        if id(item) not in made:
            # The item is kept, too, so that no other gets its id; what is shared stays shared.
            made[id(item)] = _plain(item), item
            if made[id(item)][0] is None and isinstance(item, nnx.Module | list | dict):
                _replace(item, made)
        new, _ = made[id(item)]
        if new is None:
            continue
        if isinstance(module, nnx.List | list | nnx.Dict | dict):
            module[name] = new
        else:
            setattr(module, name, new)


def materialize(model):
    """The model with plain flax layers instead of hypercomplex ones, for deployment.

        nnx.Linear with kernel H instead of PHMLinear with A and F, and so on

    The outputs are those of the built form; n times the memory of the parameters, and no algebra
    left to compute with. The model itself is not changed.

    Args:
      model: a hypercomplex layer, or any module with such layers within.

    Returns:
      A plain layer, or a copy of the module with plain layers within.

    Raises:
      ValueError: the model is no flax module.

    Reference:
      (1): H does not depend on the input.

    Examples:
      >>> import phydi
      >>> from flax import nnx
      >>> model = nnx.Sequential(phydi.PHMLinear(4, 8, n=2, rngs=nnx.Rngs(0)), nnx.relu)
      >>> type(phydi.materialize(model).layers[0]).__name__
      'Linear'
    """
    if not isinstance(model, nnx.Module):
        raise ValueError(f"model: expected an nnx.Module, got {type(model).__name__}")
    model = nnx.clone(model)
    plain = _plain(model)
    if plain is not None:
        return plain
    _replace(model, {})
    left = [m for m in submodules(model) if isinstance(m, PHMLinear | PHConv | PHMEmbed)]
    if left:
        raise ValueError(
            f"model: a {type(left[0]).__name__} is where it cannot be replaced (in a tuple?); "
            f"hold layers in attributes, nnx.List or nnx.Dict"
        )
    return model


def _fill(layer, H: Array, bias) -> None:
    A, F, _ = nearest_kronecker_sum(H, layer.n)
    layer.multiplication.A[...], layer.F[...] = A, F
    if bias is not None:
        layer.bias[...] = bias[...].reshape(-1)


def from_real(layer, n: int):
    """The nearest hypercomplex layer of a plain one.

        A, F = argmin ‖kernel - Σ_i A_i ⊗ F_i‖_F,      the bias as it is

    Args:
      layer: `nnx.Linear`, `nnx.Conv`, `nnx.Embed` or `nnx.MultiHeadAttention`.
      n: the number of components.

    Returns:
      `PHMLinear`, `PHConv`, `PHMEmbed` or `PHMultiHeadAttention`.

    Raises:
      ValueError: another kind of layer, or an n that does not divide its features.

    Reference:
      `nearest_kronecker_sum`, on each kernel.

    Examples:
      >>> import phydi
      >>> from flax import nnx
      >>> layer = phydi.from_real(nnx.Linear(6, 9, rngs=nnx.Rngs(0)), 3)
      >>> layer.F.shape
      (3, 2, 3)
    """
    zeros, rngs = nnx.initializers.zeros_init(), nnx.Rngs(0)
    if isinstance(layer, nnx.Embed):
        names = ("dtype", "param_dtype", "promote_dtype")
        options = {name: getattr(layer, name) for name in names}
        sizes = layer.num_embeddings, layer.features
        found = PHMEmbed(*sizes, n=n, embedding_init=zeros, **options, rngs=rngs)
        _fill(found, layer.embedding[...], None)
        return found
    names = ("use_bias", "dtype", "param_dtype", "precision")
    options = {name: getattr(layer, name, None) for name in names}
    options |= {"n": n, "kernel_init": zeros, "rngs": rngs}
    if isinstance(layer, nnx.MultiHeadAttention) and not isinstance(layer, PHMultiHeadAttention):
        sizes = (layer.num_heads, layer.in_features, layer.qkv_features, layer.out_features)
        sizes += (layer.num_kv_heads, layer.in_kv_features)
        names = ("qkv_promote_dtype", "out_promote_dtype")
        options |= {name: getattr(layer, name) for name in names}
        found = PHMultiHeadAttention(*sizes, **options)
        _carry_over(nnx.clone(layer), found)  # a cache of its own
        for name in _PROJECTIONS:
            inner, real = getattr(found, name).linear, getattr(layer, name)
            _fill(inner, real.kernel[...].reshape(inner.in_features, -1), real.bias)
        return found
    if isinstance(layer, nnx.Linear):
        names = ("dot_general", "promote_dtype", "preferred_element_type")
        options |= {name: getattr(layer, name) for name in names}
        found = PHMLinear(layer.in_features, layer.out_features, **options)
    elif isinstance(layer, nnx.Conv):
        names = ("strides", "padding", "input_dilation", "kernel_dilation", "feature_group_count")
        names += ("mask", "conv_general_dilated", "promote_dtype", "preferred_element_type")
        options |= {name: getattr(layer, name) for name in names}
        found = PHConv(layer.in_features, layer.out_features, layer.kernel_size, **options)
    else:
        raise ValueError(
            f"layer: expected nnx.Linear, Conv, Embed or MultiHeadAttention, "
            f"got {type(layer).__name__}"
        )
    _fill(found, layer.kernel[...], layer.bias)
    return found
