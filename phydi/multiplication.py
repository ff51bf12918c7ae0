"""The part that all hypercomplex layers share: the multiplication tensor A, learnt or known."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from phydi.algebra import multiplication_tensor
from phydi.checking import as_tensor, check_positive_integer
from phydi.initialisation import isometric, isometric_factors
from phydi.low_rank import Factors, compose


class Constant(nnx.Variable):
    """A variable that is no parameter: optimizers over `nnx.Param` do not see it.

    Attributes:
      value: the array.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> phydi.Constant(jnp.ones(2))[0]
      Array(1., dtype=...)
    """


class Multiplication(nnx.Module):
    """The multiplication tensor of a layer.

        A = Σ_r u_r ⊗ v_r ⊗ w_r with `rank=R`, else a free tensor; A_i times weight_i if `weighted`

    Args:
      n: the number of components.
      rank: R, or None.
      algebra: None to learn it; else an algebra that stays fixed: a name for
        `multiplication_tensor`, an (n, n, n) array, or `Factors`.
      weighted: a learnable weight for every Kronecker product, 1 at the start: the paper's WKP.
      algebra_init: initialiser of (n, n, n) or, with `rank`, of (3, R, n); None for `isometric`
        and `isometric_factors`.
      param_dtype: of the parameters.
      rngs: flax's random keys.

    Attributes:
      A: the tensor, or None.
      u: the first factors, or None; so are v and w.
      weights: (n,) of the Kronecker products, or None.

    Examples:
      >>> import phydi
      >>> from flax import nnx
      >>> m = phydi.Multiplication(4, rank=7, rngs=nnx.Rngs(0))
      >>> m.u.shape, m.tensor().shape
      ((7, 4), (4, 4, 4))
    """

    def __init__(
        self,
        n: int,
        *,
        rank: int | None = None,
        algebra=None,
        weighted: bool = False,
        algebra_init: Callable | None = None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.n = n
        self.A = self.u = self.v = self.w = self.weights = nnx.data(None)
        if algebra is not None:
            if rank is not None:
                raise ValueError(
                    "algebra: expected None beside rank, which learns A; for a known algebra "
                    "in few products give its Factors, as from cyclic_factors or factorize"
                )
            self._fix(algebra, param_dtype)
        elif rank is not None:
            rank = check_positive_integer("rank", rank)
            init = isometric_factors if algebra_init is None else algebra_init
            u, v, w = init(rngs.params(), (3, rank, n), param_dtype)
            self.u, self.v, self.w = nnx.Param(u), nnx.Param(v), nnx.Param(w)
        else:
            init = isometric if algebra_init is None else algebra_init
            self.A = nnx.Param(init(rngs.params(), (n, n, n), param_dtype))
        self.rank = None if self.u is None else self.u.shape[0]
        if weighted:
            self.add_weights()

    def _fix(self, algebra, param_dtype):
        n = self.n
        if isinstance(algebra, tuple):
            if any(jnp.shape(f) != (jnp.shape(algebra[0])[0], n) for f in algebra):
                shapes = [jnp.shape(f) for f in algebra]
                raise ValueError(f"algebra: expected Factors of shape (R, {n}), got {shapes}")
            self.u, self.v, self.w = (Constant(jnp.asarray(f, param_dtype)) for f in algebra)
            return
        if isinstance(algebra, str):
            algebra = multiplication_tensor(n, algebra=algebra)
        A = as_tensor("algebra", algebra)
        if A.shape[0] != n:
            raise ValueError(f"algebra: expected shape {(n, n, n)}, got {A.shape}")
        self.A = Constant(A.astype(param_dtype))

    def add_weights(self):
        """Give every Kronecker product a learnable weight, 1 at the start (WKP)."""
        first = self.u if self.A is None else self.A
        self.weights = nnx.Param(jnp.ones(self.n, first[...].dtype))

    def factors(self) -> Factors | None:
        """u, v, w with the weights in u; None if A is a free tensor."""
        if self.u is None:
            return None
        u, v, w = self.u[...], self.v[...], self.w[...]
        return Factors(u if self.weights is None else u * self.weights[...], v, w)

    def tensor(self) -> Array:
        """A: (n, n, n), with the weights in it."""
        factors = self.factors()
        if factors is not None:
            return compose(*factors)
        A = self.A[...]
        return A if self.weights is None else A * self.weights[...][:, None, None]

    def cast(self, dtype) -> Array | Factors:
        """Factors if there are some, else the tensor, in `dtype`."""
        factors = self.factors()
        return jax.tree.map(
            lambda value: value.astype(dtype), self.tensor() if factors is None else factors
        )
