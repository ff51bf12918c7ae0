"""PHYDI: residual blocks that start as the identity, in stacks of any depth.

    phydi       x + α block(x),  α = 0 at the start                               (2)
    standard    x + block(x)
    wkp         x + block(x), and each A_i ⊗ F_i in the block has a weight, 1 at the start
    fixup       x + α block(x + b) + c,  α = 1, b = c = 0, the last layer of the block 0 and the
                m - 1 layers before it times L^(-1/(2m - 2)), for L blocks in a row

At α = 0 the Jacobian is the identity: all its singular values are 1, at any depth, and only the α
learn in the first step. `add` makes "x + 0" the same bits as x, also for -0 and subnormal numbers.
"""

from collections.abc import Callable
from operator import itemgetter

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from phydi.checking import as_floating, check_option, check_positive_integer
from phydi.construction import constructed
from phydi.convolution import PHConv
from phydi.layers import PHMEmbed, PHMLinear
from phydi.multiplication import Constant, Multiplication
from phydi.products import KERNEL_NAME

# Stacks of so few blocks are no loop in the compiled program.
_SHORT = 2
INITS = ("phydi", "standard", "wkp", "fixup")
_LAYERS = (PHMLinear, PHConv, PHMEmbed, nnx.Linear, nnx.LinearGeneral, nnx.Conv, nnx.Embed)


@jax.custom_jvp
def add(x: Array, change: Array) -> Array:
    """x + change, and x itself, bit for bit, where the change is zero."""
    # -0 + 0 is 0, and the CPU flushes subnormal sums to zero.
    return jnp.where(change == 0, x, x + change)


@add.defjvp
def _add_jvp(primals, tangents):
    return add(*primals), tangents[0] + tangents[1]


def submodules(module) -> list:
    """The module and all within, in the order in which they were defined."""
    found, seen = [], set()

    def visit(value):
        if id(value) in seen:
            return
        if isinstance(value, nnx.List | nnx.Dict | list | tuple | dict):
            items = value.values() if isinstance(value, nnx.Dict | dict) else value
            for item in items:
                visit(item)
        elif isinstance(value, nnx.Module):
            seen.add(id(value))
            found.append(value)
            for name, item in vars(value).items():
                if not name.startswith("_"):
                    visit(item)

    visit(module)
    return found


def _apply_fixup(block, depth: int) -> None:
    layers = [part for part in submodules(block) if isinstance(part, _LAYERS)]
    if not layers:
        raise ValueError("block: expected dense or convolution layers within for init='fixup'")
    for layer in layers:
        name = next(name for name in ("F", "embedding", "kernel") if name in vars(layer))
        weights = getattr(layer, name)
        last = layer is layers[-1]
        weights[...] *= 0 if last else depth ** (-1 / (2 * len(layers) - 2))


class Residual(nnx.Module):
    """A residual connection around a block, by default the identity at the start.

        x + α block(x),      α = 0

    Args:
      block: a callable module that keeps the shape of its first argument.
      init: `phydi`, `standard`, `wkp` or `fixup`, as in the module.
      depth: the number L of blocks in a row, which `fixup` scales by.
      alpha: a parameter to share with other residuals, as one Transformer layer does in (5).
      shortcut: a module applied to x beside a block that changes the shape; None for x itself. A
        residual with a shortcut is not the identity at the start.
      after: a function applied to the sum, such as the ReLU of `standard` networks; or None.

    Attributes:
      block: the block.
      alpha: (), the multiplier, or None.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> layer = phydi.Residual(phydi.PHMLinear(4, 4, n=2, rngs=nnx.Rngs(0)))
      >>> layer(jnp.arange(4.0))
      Array([0., 1., 2., 3.], dtype=...)
    """

    def __init__(
        self,
        block: Callable,
        *,
        init: str = "phydi",
        depth: int = 1,
        alpha: nnx.Param | None = None,
        shortcut: Callable | None = None,
        after: Callable | None = None,
    ):
        check_option("init", init, INITS)
        depth = check_positive_integer("depth", depth)
        self.block, self.init, self.after = block, init, after
        self.shortcut = nnx.data(shortcut)
        self.alpha = self.bias_in = self.bias_out = nnx.data(None)
        if alpha is not None and init in ("standard", "wkp"):
            raise ValueError(f"alpha: expected None for init={init!r}, which has no multiplier")
        if init in ("phydi", "fixup"):
            start = 0.0 if init == "phydi" else 1.0
            self.alpha = nnx.Param(jnp.asarray(start, jnp.float32)) if alpha is None else alpha
        if init == "fixup":
            self.bias_in = nnx.Param(jnp.zeros((), jnp.float32))
            self.bias_out = nnx.Param(jnp.zeros((), jnp.float32))
            _apply_fixup(block, depth)
        if init == "wkp":
            inside = [part for part in submodules(block) if isinstance(part, Multiplication)]
            if not inside:
                raise ValueError("block: expected hypercomplex layers within for init='wkp'")
            beside = [part for part in submodules(shortcut) if isinstance(part, Multiplication)]
            for part in inside + beside:
                if part.weights is None:
                    part.add_weights()

    def __call__(self, x: Array, *args, **options) -> Array:
        """x plus what the block makes of it; further arguments go to the block."""
        inputs = x if self.bias_in is None else x + self.bias_in[...].astype(x.dtype)
        change = self.block(inputs, *args, **options)
        x = x if self.shortcut is None else self.shortcut(x)
        if change.shape != x.shape:
            raise ValueError(
                f"block: expected to keep the shape {x.shape}, got {change.shape}; a block that "
                f"changes it needs a shortcut that does, and is not the identity at the start"
            )
        if self.alpha is not None:
            change = self.alpha[...].astype(change.dtype) * change
        if self.bias_out is not None:
            change = change + self.bias_out[...].astype(change.dtype)
        y = add(x, change.astype(x.dtype))
        return y if self.after is None else self.after(y)


def _stacked(make_block: Callable, depth: int, rngs: nnx.Rngs):
    return nnx.split_rngs(splits=depth)(nnx.vmap(make_block, in_axes=0, out_axes=0))(rngs)


def _unrolled(apply_fn: Callable, x, xs, length: int):
    """`jax.lax.scan` without a loop in the program."""
    ys = []
    for j in range(length):
        x, y = apply_fn(x, jax.tree.map(itemgetter(j), xs))
        ys.append(y)
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)


class Stack(nnx.Module):
    """Layers of one kind in a row, their parameters stacked and scanned over.

        x_(j+1) = block_j(x_j),      j = 0 … depth - 1

    The compiled program has one block, or two for a depth of 2, whatever the depth. With `remat`
    the backward pass computes each block again and keeps only its input, and the kernels H, which
    no step builds twice.

    Args:
      make_block: `(rngs) -> block`.
      depth: the number of blocks.
      remat: whether to compute the blocks again in the backward pass rather than to keep them.
      rngs: flax's random keys, split for the blocks.

    Attributes:
      blocks: a block whose parameters have a leading axis of `depth`.
    """

    def __init__(self, make_block: Callable, depth: int, *, remat: bool = False, rngs: nnx.Rngs):
        self.depth = check_positive_integer("depth", depth)
        self.remat = remat
        self.blocks = constructed(_stacked, rngs, make_block=make_block, depth=depth)

    def __call__(self, x: Array, *args) -> Array:
        """Apply the blocks one after the other; further arguments go to each of them."""
        return self.scan(lambda block, x, _: (block(x, *args), None), x)[0]

    def scan(self, apply_fn: Callable, x: Array, xs=None) -> tuple:
        """x after `x, y = apply_fn(block, x, xs[j])` for one block after the other, and all y."""

        # By jax.lax.scan, for nnx.scan refuses a stack that a caller's jax.grad closes over.
        fixed = (nnx.Param, Constant)
        graph, parameters, state = nnx.split(self.blocks, fixed, ...)

        def apply(x, layer):
            parameters, state, item = layer
            before = jax.tree.leaves(state)  # merging may not copy
            block = nnx.merge(graph, parameters, state)
            x, y = apply_fn(block, x, item)
            after = nnx.split(block, fixed, ...)[2]
            # What nothing has changed is not written: the caller may not be allowed to.
            pairs = zip(before, jax.tree.leaves(after))
            return x, (None if all(a is b for a, b in pairs) else after, y)

        if self.remat:
            policy = jax.checkpoint_policies.save_only_these_names(KERNEL_NAME)
            apply = jax.checkpoint(apply, prevent_cse=False, policy=policy)
        # A loop copies all that its backward pass needs; recomputing works in one only.
        is_short = self.depth <= _SHORT and not self.remat
        loop = _unrolled if is_short else jax.lax.scan
        x, (state, ys) = loop(apply, x, (parameters, state, xs), length=self.depth)
        # Counters of dropout keys and statistics of batches move on, if there are any.
        if state is not None:
            nnx.update(self.blocks, state)
        return x, ys


class ResidualStack(Stack):
    """Residual blocks in a row, their parameters stacked and scanned over.

        x_(j+1) = x_j + α_j block_j(x_j),      j = 0 … depth - 1

    A `Stack` of `Residual`s: its compiled program has one block, whatever the depth.

    Args:
      make_block: `(rngs) -> block`.
      depth: the number of blocks.
      init: as in `Residual`.
      remat: whether to compute the blocks again in the backward pass rather than to keep them.
      after: as in `Residual`.
      num_blocks: the blocks of the whole network, for `fixup`; None for `depth`.
      rngs: flax's random keys, split for the blocks.

    Attributes:
      blocks: a `Residual` whose parameters have a leading axis of `depth`.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> make = lambda rngs: phydi.PHMLinear(4, 4, n=2, rngs=rngs)
      >>> stack = phydi.ResidualStack(make, 96, rngs=nnx.Rngs(0))
      >>> stack(jnp.arange(4.0)), stack.blocks.block.F.shape
      (Array([0., 1., 2., 3.], dtype=...), (96, 2, 2, 2))
    """

    def __init__(
        self,
        make_block: Callable,
        depth: int,
        *,
        init: str = "phydi",
        remat: bool = False,
        after: Callable | None = None,
        num_blocks: int | None = None,
        rngs: nnx.Rngs,
    ):
        num_blocks = depth if num_blocks is None else num_blocks

        def make(rngs):
            return Residual(make_block(rngs), init=init, depth=num_blocks, after=after)

        super().__init__(make, depth, remat=remat, rngs=rngs)


def jacobian_spectrum(model_fn: Callable, x) -> Array:
    """The singular values of the Jacobian of a function, at a point.

        σ_1 >= σ_2 >= …      of ∂ model_fn(x) / ∂ x, both as vectors

    All 1 is dynamical isometry: no direction of the signal or of the gradient grows or vanishes.
    The Jacobian is formed; use `jax.vmap` over points.

    Args:
      model_fn: a function of one array that returns one array, such as a model on one example.
      x: the point.

    Returns:
      (min(x.size, model_fn(x).size),) the singular values, descending.

    Raises:
      ValueError: x is not a real floating array.

    Reference:
      Pennington, Schoenholz & Ganguli, Resurrecting the sigmoid in deep learning through dynamical
      isometry, NIPS 2017 [13].

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> phydi.jacobian_spectrum(lambda x: jnp.array([3.0, -2.0]) * x, jnp.ones(2))
      Array([3., 2.], dtype=...)
    """
    x = as_floating("x", x)
    flat_fn = lambda z: model_fn(z.reshape(x.shape)).ravel()  # noqa: E731
    outputs = jax.eval_shape(flat_fn, x.ravel()).size
    jacobian = jax.jacfwd if x.size < outputs else jax.jacrev
    J = jacobian(flat_fn)(x.ravel())
    # There is no decomposition in half precision.
    return jnp.linalg.svd(J.astype(jnp.promote_types(J.dtype, jnp.float32)), compute_uv=False)
