"""Convolutions whose kernels are, at every tap, sums of Kronecker products over the channels.

The three forms of `products`, for convolutions: H built once and convolved with; the parts of the
image mixed by A and one convolution with all F_i, of n times the images and 1/n of the channels; or
R convolutions of 1/n of the channels on both sides.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.linear import default_bias_init, default_kernel_init
from jax import Array, lax

from phydi import gradients
from phydi.checking import check_divides
from phydi.initialisation import draw_blocks
from phydi.layers import NO_KEYS, NO_METADATA, check_form, given, of_blocks
from phydi.low_rank import Factors
from phydi.multiplication import Multiplication
from phydi.products import choose_form, named_kernel


def contracted_convolution(A: Array, convolution_fn: Callable):
    """`lax.conv_general_dilated` for the blocks F instead of a kernel, without building H."""
    n = A.shape[0]

    def convolve(inputs, F, strides, padding, *, precision=None, **options):
        batch, *space, _ = inputs.shape
        *taps, p, q = F.shape[1:]
        options = {"precision": precision, **options}
        parts = inputs.reshape(batch, -1, n, p)
        if p <= q:
            mixed = jnp.einsum("iab,xsap->bxsip", A, parts, precision=precision)
            kernel = jnp.moveaxis(F, 0, -3).reshape(*taps, n * p, q)
            images = mixed.reshape(n * batch, *space, n * p)
            y = convolution_fn(images, kernel, strides, padding, **options)
            space = y.shape[1:-1]
            y = jnp.moveaxis(y.reshape(n, batch, -1, q), 0, 2)
        else:
            images = jnp.moveaxis(parts, 2, 0).reshape(n * batch, *space, p)
            kernel = jnp.moveaxis(F, 0, -2).reshape(*taps, p, n * q)
            y = convolution_fn(images, kernel, strides, padding, **options)
            space = y.shape[1:-1]
            y = y.reshape(n, batch, -1, n, q)
            y = jnp.einsum("iab,axsiq->xsbq", A, y, precision=precision)
        return y.reshape(batch, *space, n * q)

    return convolve


def factored_convolution(factors: Factors, convolution_fn: Callable):
    """`lax.conv_general_dilated` for the blocks F instead of a kernel, by R small convolutions."""
    u, v, w = factors
    rank, n = u.shape

    def convolve(inputs, F, strides, padding, *, precision=None, **options):
        batch, *space, _ = inputs.shape
        p, q = F.shape[-2:]
        options = {"precision": precision, **options}
        parts = inputs.reshape(batch, -1, n, p)
        mixed = jnp.einsum("ra,xsap->rxsp", v, parts, precision=precision)
        mixed = mixed.reshape(rank, batch, *space, p)
        G = jnp.einsum("ri,i...->r...", u, F, precision=precision)
        # One by one: XLA runs a convolution of R groups on the CPU much slower than R of one.
        products = jnp.stack(
            [convolution_fn(mixed[r], G[r], strides, padding, **options) for r in range(rank)]
        )
        y = jnp.einsum("rb,r...q->...bq", w, products, precision=precision)
        return y.reshape(*y.shape[:-2], n * q)

    return convolve


class PHConv(nnx.Module):
    """`nnx.Conv` with a sum of Kronecker products for its kernel, at every tap.

        y = x * H + bias,      H[tap] = Σ_i A_i ⊗ F_i[tap]

    Args:
      in_features: the number of input channels; over `feature_group_count`, a multiple of n.
      out_features: the number of output channels, a multiple of n.
      kernel_size: as in `nnx.Conv`, like all that is not named here.
      conv_general_dilated: the function to convolve with; ours is JAX's, with gradients that are
        fast on the CPU.
      n: the number of components.
      rank: as in the module `layers`, like `algebra`, `weighted`, `form` and `algebra_init`; with
        groups, a mask or a function of one's own to convolve with, H is always built.

    Attributes:
      multiplication: the `Multiplication` with A.
      F: (n, *kernel_size, in/n, out/n) the blocks.
      bias: (out,) or None.
      kernel: (*kernel_size, in, out), H, built when it is read.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.PHConv(4, 8, (3, 3), strides=2, n=4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((1, 6, 6, 4))).shape, layer.F.shape
      ((1, 3, 3, 8), (4, 3, 3, 1, 2))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        n: int,
        rank: int | None = None,
        algebra=None,
        weighted: bool = False,
        form: str = "auto",
        algebra_init: Callable | None = None,
        padding="SAME",
        input_dilation: int | Sequence[int] | None = 1,
        kernel_dilation: int | Sequence[int] | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask=None,
        dtype=None,
        param_dtype=jnp.float32,
        precision=None,
        kernel_init: Callable = default_kernel_init,
        bias_init: Callable = default_bias_init,
        conv_general_dilated: Callable = gradients.conv_general_dilated,
        promote_dtype: Callable = dtypes.promote_dtype,
        preferred_element_type=None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping = NO_METADATA,
        bias_metadata: Mapping = NO_METADATA,
    ):
        size = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        if in_features % feature_group_count:
            raise ValueError(
                f"feature_group_count: expected a divisor of in_features = {in_features}, "
                f"got {feature_group_count}"
            )
        sizes = {"in_features": in_features, "out_features": out_features}
        if feature_group_count > 1:
            sizes = {"in_features / feature_group_count": in_features // feature_group_count}
            sizes["out_features"] = out_features
        self.n = check_divides(n, **sizes)
        self.kernel_shape = (*size, in_features // feature_group_count, out_features)
        blocks = draw_blocks(rngs.params(), kernel_init, n, self.kernel_shape, param_dtype)
        self.F = nnx.Param(blocks, **of_blocks(kernel_metadata))
        self.bias = nnx.data(None)
        if use_bias:
            bias = bias_init(rngs.params(), (out_features,), param_dtype)
            self.bias = nnx.Param(bias, **bias_metadata)
        self.multiplication = Multiplication(
            n,
            rank=rank,
            algebra=algebra,
            weighted=weighted,
            algebra_init=algebra_init,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        special = {
            "feature_group_count": feature_group_count > 1,
            "mask": mask is not None,
            "conv_general_dilated": conv_general_dilated
            not in (lax.conv_general_dilated, gradients.conv_general_dilated),
            "preferred_element_type": preferred_element_type is not None,
        }
        special = next((name for name, is_set in special.items() if is_set), None)
        self.form = check_form(form, self.multiplication.rank, special)
        self.in_features, self.out_features, self.kernel_size = in_features, out_features, size
        self.strides, self.padding = strides, padding
        self.input_dilation, self.kernel_dilation = input_dilation, kernel_dilation
        self.feature_group_count, self.mask = feature_group_count, nnx.data(mask)
        self.use_bias, self.dtype, self.param_dtype = use_bias, dtype, param_dtype
        self.precision, self.promote_dtype = precision, promote_dtype
        self.conv_general_dilated = conv_general_dilated
        self.preferred_element_type = preferred_element_type

    @property
    def kernel(self) -> Array:
        """H: (*kernel_size, in, out), in the dtype of the parameters."""
        return named_kernel(self.multiplication.tensor(), self.F[...])

    def __call__(self, inputs: Array, out_sharding=None) -> Array:
        """Convolve (*batch, *space, channels), the channels last."""
        if inputs.ndim < len(self.kernel_size) + 1 or inputs.shape[-1] != self.in_features:
            raise ValueError(
                f"inputs: expected (..., {len(self.kernel_size)} axes of space, in_features = "
                f"{self.in_features}), got shape {inputs.shape}"
            )
        # Without an image there is nothing to mix.
        form = self.form if out_sharding is None and inputs.size else "built"
        pixels, (_, *taps, p, q) = math.prod(inputs.shape[:-1]), self.F.shape
        form = choose_form(form, pixels, p, q, self.multiplication.rank, math.prod(taps))
        if form == "built":
            return self.materialized()(inputs, out_sharding)
        # The mixing, too, happens in the dtype of the computation, which flax gives the kernel.
        if form == "factored":
            factors = self.multiplication.factors()

            def convolve(x, F, *args, out_sharding=None, **options):
                cast = Factors(*(f.astype(F.dtype) for f in factors))
                return factored_convolution(cast, self.conv_general_dilated)(x, F, *args, **options)
        else:
            A = self.multiplication.tensor()

            def convolve(x, F, *args, out_sharding=None, **options):
                contracted = contracted_convolution(A.astype(F.dtype), self.conv_general_dilated)
                return contracted(x, F, *args, **options)

        return self._plain(self.F[...], convolve)(inputs)

    def _plain(self, kernel: Array, conv_general_dilated: Callable) -> nnx.Conv:
        """A flax layer with all that the kernel has no part in."""
        return nnx.Conv(
            self.in_features,
            self.out_features,
            self.kernel_size,
            self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            use_bias=self.use_bias,
            mask=self.mask,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=conv_general_dilated,
            precision=self.precision,
            kernel_init=given(kernel),
            bias_init=given(self.bias),
            promote_dtype=self.promote_dtype,
            preferred_element_type=self.preferred_element_type,
            rngs=NO_KEYS,
        )

    def materialized(self) -> nnx.Conv:
        """The plain flax layer with H for its kernel."""
        return self._plain(self.kernel, self.conv_general_dilated)
