"""Multi-head attention whose four projections are sums of Kronecker products."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.linear import default_bias_init, default_kernel_init
from jax import Array

from phydi.checking import check_divides
from phydi.layers import NO_KEYS, NO_METADATA, PHMLinear, given


def _product(features: int | tuple[int, ...]) -> int:
    return features if isinstance(features, int) else math.prod(features)


def _tuple(features: int | tuple[int, ...]) -> tuple[int, ...]:
    return (features,) if isinstance(features, int) else tuple(features)


def _flattened(metadata: Mapping, counts: tuple[int, ...]) -> dict:
    """Metadata of an array whose axes are made one in groups of so many: the first name of each."""
    found = dict(metadata)
    for name in ("out_sharding", "sharding_names", "sharding"):
        if found.get(name):
            left, groups = list(found[name]), []
            for count in counts:
                groups.append(next((axis for axis in left[:count] if axis is not None), None))
                left = left[count:]
            found[name] = tuple(groups)
    return found


class PHMLinearGeneral(nnx.Module):
    """`nnx.LinearGeneral` on the last axes, with a sum of Kronecker products for its kernel.

        y = x H + bias      for x and y as rows of all their features

    Args:
      in_features: the sizes of the last axes of the input; their product is a multiple of n.
      out_features: those of the output, likewise.
      options: those of `PHMLinear`.

    Attributes:
      linear: the `PHMLinear` on the rows.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.PHMLinearGeneral(8, (2, 6), n=4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((5, 8))).shape
      (5, 2, 6)
    """

    def __init__(self, in_features, out_features, **options):
        self.in_features, self.out_features = _tuple(in_features), _tuple(out_features)
        sizes = {
            "kernel_metadata": (len(self.in_features), len(self.out_features)),
            "bias_metadata": (len(self.out_features),),
        }
        options |= {
            name: _flattened(options[name], counts)
            for name, counts in sizes.items()
            if name in options
        }
        self.linear = PHMLinear(_product(in_features), _product(out_features), **options)

    def __call__(self, inputs: Array, out_sharding=None) -> Array:
        """Apply the layer to the last axes."""
        split = inputs.ndim - len(self.in_features)
        if split < 0 or inputs.shape[split:] != self.in_features:
            raise ValueError(
                f"inputs: expected last axes {self.in_features}, got shape {inputs.shape}"
            )
        if out_sharding is not None:
            return self.materialized()(inputs, out_sharding)
        rows = inputs.shape[:split]
        y = self.linear(inputs.reshape(*rows, self.linear.in_features))
        return y.reshape(*rows, *self.out_features)

    def materialized(self) -> nnx.LinearGeneral:
        """The plain flax layer with H for its kernel."""
        linear = self.linear
        return nnx.LinearGeneral(
            self.in_features,
            self.out_features,
            axis=tuple(range(-len(self.in_features), 0)),
            use_bias=linear.use_bias,
            dtype=linear.dtype,
            param_dtype=linear.param_dtype,
            kernel_init=given(linear.kernel),
            bias_init=given(linear.bias),
            precision=linear.precision,
            promote_dtype=linear.promote_dtype,
            preferred_element_type=linear.preferred_element_type,
            rngs=NO_KEYS,
        )


class PHMultiHeadAttention(nnx.MultiHeadAttention):
    """`nnx.MultiHeadAttention` with sums of Kronecker products for its projections.

        out(softmax(q k' / √depth) v),      q, k, v, out as in `PHMLinear`

    All else is flax's: masks, dropout, grouped queries, the cache for decoding. If n divides the
    number of heads, each component of q, k and v has whole heads.

    Args:
      num_heads: as in `nnx.MultiHeadAttention`, like all that is not named here.
      n: the number of components; it divides all numbers of features.
      rank: as in the module `layers`, like `algebra`, `weighted`, `form` and `algebra_init`.

    Attributes:
      query: the `PHMLinearGeneral` of the queries; so are key, value and out.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.PHMultiHeadAttention(2, 8, n=4, decode=False, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((3, 5, 8)), is_causal=True).shape
      (3, 5, 8)
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        qkv_features: int | None = None,
        out_features: int | None = None,
        num_kv_heads: int | None = None,
        in_kv_features: int | None = None,
        *,
        n: int,
        rank: int | None = None,
        algebra=None,
        weighted: bool = False,
        form: str = "auto",
        algebra_init: Callable | None = None,
        dtype=None,
        param_dtype=jnp.float32,
        precision=None,
        kernel_init: Callable = default_kernel_init,
        out_kernel_init: Callable | None = None,
        bias_init: Callable = default_bias_init,
        out_bias_init: Callable | None = None,
        use_bias: bool = True,
        qkv_promote_dtype: Callable = dtypes.promote_dtype,
        out_promote_dtype: Callable = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping = NO_METADATA,
        out_kernel_metadata: Mapping = NO_METADATA,
        bias_metadata: Mapping = NO_METADATA,
        out_bias_metadata: Mapping = NO_METADATA,
        **attention_options,
    ):
        given = {name for name, value in attention_options.items() if value is not None}
        deprecated = sorted(name for name in given if "dot_general" in name)
        if deprecated:
            raise ValueError(f"{deprecated[0]}: deprecated in flax and not supported here")
        sizes = {
            "in_features": in_features,
            "qkv_features": in_features if qkv_features is None else qkv_features,
            "out_features": in_features if out_features is None else out_features,
            "in_kv_features": in_features if in_kv_features is None else in_kv_features,
        }
        check_divides(n, **sizes)
        # The real projections are made of zeros, cost nothing under jit, and are replaced at once.
        super().__init__(
            num_heads,
            in_features,
            qkv_features,
            out_features,
            num_kv_heads,
            in_kv_features,
            dtype=dtype,
            param_dtype=param_dtype,
            precision=precision,
            kernel_init=nnx.initializers.zeros_init(),
            use_bias=use_bias,
            qkv_promote_dtype=qkv_promote_dtype,
            out_promote_dtype=out_promote_dtype,
            rngs=rngs,
            **attention_options,
        )
        self.n = n
        check_divides(n, **{"num_kv_heads · head_dim": self.num_kv_heads * self.head_dim})
        options = {
            "n": n,
            "rank": rank,
            "algebra": algebra,
            "weighted": weighted,
            "form": form,
            "algebra_init": algebra_init,
            "use_bias": use_bias,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "precision": precision,
            "rngs": rngs,
        }
        inner = {
            "kernel_init": kernel_init,
            "bias_init": bias_init,
            "promote_dtype": qkv_promote_dtype,
            "kernel_metadata": kernel_metadata,
            "bias_metadata": bias_metadata,
        }
        heads, kv_heads = (num_heads, self.head_dim), (self.num_kv_heads, self.head_dim)
        self.query = PHMLinearGeneral(in_features, heads, **options, **inner)
        self.key = PHMLinearGeneral(self.in_kv_features, kv_heads, **options, **inner)
        self.value = PHMLinearGeneral(self.in_kv_features, kv_heads, **options, **inner)
        self.out = PHMLinearGeneral(
            heads,
            self.out_features,
            **options,
            kernel_init=out_kernel_init or kernel_init,
            bias_init=out_bias_init or bias_init,
            promote_dtype=out_promote_dtype,
            kernel_metadata=out_kernel_metadata or kernel_metadata,
            bias_metadata=out_bias_metadata or bias_metadata,
        )
