"""Dense layers and embeddings whose matrices are sums of Kronecker products.

They take the arguments of flax's layers, and further, keyword-only:

    n             the number of components; it divides both numbers of features
    rank          R: the multiplication tensor as a sum of R terms, R block products instead of n²
    algebra       a known algebra that stays fixed instead of a learnt one
    weighted      a learnable weight for each Kronecker product (the paper's WKP)
    form          how to multiply (see `products`)
    algebra_init  initialiser of A

`kernel_init` means the real layer's: what it would give that layer is what H resembles, in mean and
variance (see `initialisation`). `kernel_metadata`, too, means the real kernel: where it names the
mesh's axes, F is distributed likewise, within each component. The bias is real. Parameters:
in·out/n + n³ instead of in·out.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.linear import default_bias_init, default_embed_init, default_kernel_init
from jax import Array, lax

from phydi.checking import check_divides, check_option
from phydi.initialisation import draw_blocks
from phydi.multiplication import Multiplication
from phydi.products import FORMS, choose_form, contract, factored, named_kernel

NO_METADATA: Mapping = MappingProxyType({})


# Stands for `nnx.Rngs` where the initialisers are `given` and draw nothing.
NO_KEYS = SimpleNamespace(params=lambda: None)


def given(value) -> Callable:
    """An initialiser that returns a known array, or the array of a variable."""
    return lambda key, shape, dtype: value[...]


def of_blocks(metadata: Mapping) -> dict:
    """The metadata of a kernel for its blocks F, which have the axis of components before its."""
    axes = ("out_sharding", "sharding_names", "sharding")
    return {name: (None, *v) if name in axes and v else v for name, v in metadata.items()}


def as_words(inputs: Array, size: int) -> Array:
    """Indices wide enough to compare with a table's `size`; what is beyond it stays beyond."""
    # Compared with a larger number, one byte would wrap around.
    if jnp.issubdtype(inputs.dtype, jnp.unsignedinteger):
        most = min(size, int(jnp.iinfo(inputs.dtype).max))
        return jnp.minimum(inputs, most).astype(jnp.int32)
    return inputs.astype(jnp.promote_types(inputs.dtype, jnp.int32))


def check_form(form: str, rank: int | None, only_built: str | None) -> str:
    """The form of a layer, or a ValueError if an argument or the lack of factors forbids it."""
    check_option("form", form, FORMS)
    if form == "factored" and rank is None:
        raise ValueError("form: expected rank=R, or an algebra given as Factors, for 'factored'")
    if only_built is None:
        return form
    if form not in ("auto", "built"):
        raise ValueError(f"form: expected 'auto' or 'built' beside {only_built}, got {form!r}")
    return "built"


def multiply(x: Array, A, F: Array, form: str, precision) -> Array:
    """x H by one of the forms that do not build H; A is a tensor or `Factors`."""
    if form == "factored":
        return factored(x, A, F, precision)
    A = jnp.einsum("ri,ra,rb->iab", *A) if isinstance(A, tuple) else A
    return contract(x, A, F, precision)


class PHMLinear(nnx.Module):
    """`nnx.Linear` with a sum of Kronecker products for its kernel.

        y = x H + bias,      H = Σ_i A_i ⊗ F_i

    Args:
      in_features: the number of input features, a multiple of n.
      out_features: the number of output features, a multiple of n.
      n: the number of components.
      rank: as in the module `layers`, like `algebra`, `weighted`, `form` and `algebra_init`.
      use_bias: as in `nnx.Linear`, like all that is not named above.

    Attributes:
      multiplication: the `Multiplication` with A.
      F: (n, in/n, out/n) the blocks.
      bias: (out,) or None.
      kernel: (in, out), H, built when it is read.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.PHMLinear(8, 12, n=4, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((5, 8))).shape, layer.F.shape
      ((5, 12), (4, 2, 3))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        n: int,
        rank: int | None = None,
        algebra=None,
        weighted: bool = False,
        form: str = "auto",
        algebra_init: Callable | None = None,
        use_bias: bool = True,
        dtype=None,
        param_dtype=jnp.float32,
        precision=None,
        kernel_init: Callable = default_kernel_init,
        bias_init: Callable = default_bias_init,
        dot_general: Callable = lax.dot_general,
        promote_dtype: Callable = dtypes.promote_dtype,
        preferred_element_type=None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping = NO_METADATA,
        bias_metadata: Mapping = NO_METADATA,
    ):
        self.n = check_divides(n, in_features=in_features, out_features=out_features)
        shape = (in_features, out_features)
        blocks = draw_blocks(rngs.params(), kernel_init, n, shape, param_dtype)
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
        special = None if dot_general is lax.dot_general else "dot_general"
        special = special if preferred_element_type is None else "preferred_element_type"
        self.form = check_form(form, self.multiplication.rank, special)
        self.in_features, self.out_features = in_features, out_features
        self.use_bias, self.dtype, self.param_dtype = use_bias, dtype, param_dtype
        self.precision, self.dot_general = precision, dot_general
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    @property
    def kernel(self) -> Array:
        """H: (in, out), in the dtype of the parameters."""
        return named_kernel(self.multiplication.tensor(), self.F[...])

    def __call__(self, inputs: Array, out_sharding=None) -> Array:
        """Apply the layer to the last axis."""
        n, p, q = self.F.shape
        if inputs.ndim < 1 or inputs.shape[-1] != n * p:
            raise ValueError(
                f"inputs: expected a last axis of in_features = {n * p}, got shape {inputs.shape}"
            )
        form = self.form if out_sharding is None else "built"
        form = choose_form(form, math.prod(inputs.shape[:-1]), p, q, self.multiplication.rank)
        if form == "built":
            return self.materialized()(inputs, out_sharding)
        bias = None if self.bias is None else self.bias[...]
        inputs, F, bias = self.promote_dtype((inputs, self.F[...], bias), dtype=self.dtype)
        y = multiply(inputs, self.multiplication.cast(F.dtype), F, form, self.precision)
        return y if bias is None else y + bias

    def materialized(self) -> nnx.Linear:
        """The plain flax layer with H for its kernel."""
        return nnx.Linear(
            self.in_features,
            self.out_features,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.precision,
            kernel_init=given(self.kernel),
            bias_init=given(self.bias),
            dot_general=self.dot_general,
            promote_dtype=self.promote_dtype,
            preferred_element_type=self.preferred_element_type,
            rngs=NO_KEYS,
        )


class PHMEmbed(nnx.Module):
    """`nnx.Embed` with a sum of Kronecker products for its table.

        row of word a p + j:   (E)_b = Σ_i A[i, a, b] F[i, j]

    Args:
      num_embeddings: the number of words, a multiple of n.
      features: the number of features, a multiple of n.
      n: the number of components.
      rank: as in the module `layers`, like `algebra`, `weighted`, `form` and `algebra_init`.
      dtype: as in `nnx.Embed`, like all that is not named above.

    Attributes:
      multiplication: the `Multiplication` with A.
      F: (n, num_embeddings/n, features/n) the blocks.
      embedding: (num_embeddings, features), built when it is read.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.PHMEmbed(10, 4, n=2, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[3, 9]])).shape
      (1, 2, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        n: int,
        rank: int | None = None,
        algebra=None,
        weighted: bool = False,
        form: str = "auto",
        algebra_init: Callable | None = None,
        dtype=None,
        param_dtype=jnp.float32,
        embedding_init: Callable = default_embed_init,
        promote_dtype: Callable = dtypes.promote_dtype,
        rngs: nnx.Rngs,
        embedding_metadata: Mapping = NO_METADATA,
    ):
        self.n = check_divides(n, num_embeddings=num_embeddings, features=features)
        shape = (num_embeddings, features)
        blocks = draw_blocks(rngs.params(), embedding_init, n, shape, param_dtype)
        self.F = nnx.Param(blocks, **of_blocks(embedding_metadata))
        self.multiplication = Multiplication(
            n,
            rank=rank,
            algebra=algebra,
            weighted=weighted,
            algebra_init=algebra_init,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.form = check_form(form, self.multiplication.rank, None)
        self.num_embeddings, self.features = num_embeddings, features
        self.dtype = dtype or self.F[...].dtype
        self.param_dtype, self.promote_dtype = param_dtype, promote_dtype

    @property
    def embedding(self) -> Array:
        """The table: (num_embeddings, features), in the dtype of the parameters."""
        return named_kernel(self.multiplication.tensor(), self.F[...])

    def __call__(self, inputs: Array, out_sharding=None) -> Array:
        """The rows of the given words; NaN for words that are not there, as in flax."""
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise ValueError(f"inputs: expected integers, got {inputs.dtype}")
        inputs = as_words(inputs, self.num_embeddings)
        # One word costs n·features by contraction, the table num_embeddings·n·features.
        build = self.form == "built" or out_sharding is not None
        build |= self.form == "auto" and math.prod(inputs.shape) >= self.num_embeddings
        if build:
            (table,) = self.promote_dtype((self.embedding,), dtype=self.dtype, inexact=False)
            take = partial(jnp.take, axis=0)
            if out_sharding is not None:
                take = jax.sharding.auto_axes(take, out_sharding=out_sharding)
            return take(table, inputs)
        (F,) = self.promote_dtype((self.F[...],), dtype=self.dtype, inexact=False)
        A = self.multiplication.cast(F.dtype)
        p = F.shape[1]
        inside = (inputs >= -self.num_embeddings) & (inputs < self.num_embeddings)
        part, word = jnp.divmod(jnp.where(inputs < 0, inputs + self.num_embeddings, inputs), p)
        rows = jnp.take(F, word, axis=1)
        if self.form == "factored":
            v = jnp.take(A.v, part, axis=1)
            y = jnp.einsum("ri,i...q,r...,rb->...bq", A.u, rows, v, A.w)
        else:
            A = jnp.einsum("ri,ra,rb->iab", *A) if isinstance(A, tuple) else A
            y = jnp.einsum("i...b,i...q->...bq", jnp.take(A, part, axis=1), rows)
        y = y.reshape(*inputs.shape, self.features)
        return jnp.where(inside[..., None], y, jnp.nan)

    def attend(self, query: Array, out_sharding=None) -> Array:
        """The product of the queries with every row of the table, as logits with tied weights."""
        n, p, q = self.F.shape
        if query.ndim < 1 or query.shape[-1] != n * q:
            raise ValueError(
                f"query: expected a last axis of features = {n * q}, got shape {query.shape}"
            )
        form = self.form if out_sharding is None else "built"
        form = choose_form(form, math.prod(query.shape[:-1]), p, q, self.multiplication.rank)
        if form == "built":
            query, table = self.promote_dtype((query, self.embedding), dtype=self.dtype)
            return jnp.dot(query, table.T, out_sharding=out_sharding)
        query, F = self.promote_dtype((query, self.F[...]), dtype=self.dtype)
        A = self.multiplication.cast(F.dtype)
        A = A._replace(v=A.w, w=A.v) if isinstance(A, tuple) else A.swapaxes(1, 2)
        return multiply(query, A, F.swapaxes(1, 2), form, None)

    def materialized(self) -> nnx.Embed:
        """The plain flax layer with the table built."""
        return nnx.Embed(
            self.num_embeddings,
            self.features,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            embedding_init=given(self.embedding),
            promote_dtype=self.promote_dtype,
            rngs=NO_KEYS,
        )
