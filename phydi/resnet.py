"""Hypercomplex residual networks for images of 32 × 32, in the released code's shape.

    stem          ReLU(BN(PHC x)), 3×3, stride 1, no pooling
    4 stages      of blocks with 64, 128, 256, 512 channels (60, 120, 240, 516 for n = 3), the
                  last three of half the pixels a side; bottlenecks put out four times as many
    head          mean over the pixels, then a real dense layer

    phydi         shortcut(x) + α ReLU(BN(PHC(… ReLU(BN(PHC x)))))
    standard      ReLU(shortcut(x) + BN(PHC(… ReLU(BN(PHC x)))));  so is wkp
    fixup         as standard, without normalisation, as its authors mean it

A block is two 3×3 convolutions for depths 18 and 34, and 1×1, 3×3, 1×1 for 50, 101 and 152. Blocks
that change the shape have the shortcut BN(PHC x), 1×1, and are not the identity at the start; the
others are, and those of a stage are scanned over: 152 layers compile as fast as 50.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array

from phydi.checking import check_option, check_positive_integer
from phydi.construction import constructed
from phydi.convolution import PHConv
from phydi.normalisation import normalised
from phydi.residual import INITS, Residual, ResidualStack

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_BASIC = (18, 34)


def widths_of(n: int, width: float = 1.0) -> tuple[int, ...]:
    """The channels of the four stages: multiples of n near `width` times the paper's."""
    if not width > 0:
        raise ValueError(f"width: expected a positive number, got {width!r}")
    full = (60, 120, 240, 516) if n == 3 else (64, 128, 256, 512)
    return tuple(n * max(1, round(width * channels / n)) for channels in full)


def image_channels(n: int) -> int:
    """The channels of colour images for n components: 3, with zero channels before them."""
    return n * -(-3 // n)


def _check_depth(depth: int) -> int:
    if depth not in STAGES:
        raise ValueError(f"depth: expected one of 18, 34, 50, 101, 152, got {depth!r}")
    return depth


class _Body(nnx.Module):
    """What a block adds to its shortcut: convolutions with normalisation and ReLU between."""

    def __init__(self, sizes, strides: int, normalised: bool, relu_at_end: bool, make_conv, rngs):
        kernels = (3, 3) if len(sizes) == 3 else (1, 3, 1)
        # The stride is that of the first 3×3 convolution.
        steps = (strides, 1) if len(sizes) == 3 else (1, strides, 1)
        layers = zip(sizes, sizes[1:], kernels, steps)
        self.convs = nnx.List(make_conv(a, b, k, s, rngs=rngs) for a, b, k, s in layers)
        norms = [_norm(size, self.convs[0].dtype, rngs) for size in sizes[1:] if normalised]
        self.norms = nnx.List(norms)
        self.relu_at_end = relu_at_end

    def __call__(self, x: Array) -> Array:
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = normalised(self.norms[i], x) if self.norms else x
            x = nnx.relu(x) if i + 1 < len(self.convs) or self.relu_at_end else x
        return x


def _norm(size: int, dtype, rngs) -> nnx.BatchNorm:
    # torch's defaults, which count the momentum from the other end.
    return nnx.BatchNorm(size, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


class _Stage(nnx.Module):
    """A block that changes the shape, if there is need of it, and a stack of equal ones."""

    def __init__(self, size_in, size, count, *, make_body, make_shortcut, strides, options, rngs):
        size_out = make_body.keywords["expansion"] * size
        self.first = self.rest = nnx.data(None)
        depth = options["num_blocks"]
        if strides != 1 or size_in != size_out:
            shortcut = make_shortcut(size_in, size_out, 1, strides, rngs=rngs)
            shortcut = nnx.Sequential(shortcut, _norm(size_out, shortcut.dtype, rngs))
            body = make_body(size_in, size, strides, rngs=rngs)
            chosen = {"init": options["init"], "after": options["after"]}
            self.first = Residual(body, depth=depth, shortcut=shortcut, **chosen)
            count -= 1
        if count:
            make = lambda rngs: make_body(size_out, size, 1, rngs=rngs)  # noqa: E731
            self.rest = ResidualStack(make, count, rngs=rngs, **options)

    def __call__(self, x: Array) -> Array:
        for part in (self.first, self.rest):
            x = x if part is None else part(x)
        return x


def _make_body(size_in, size, strides, *, expansion, rngs, **options):
    inner = (size,) if expansion == 1 else (size, size)
    return _Body((size_in, *inner, expansion * size), strides, rngs=rngs, **options)


def _build(
    *, depth, n, sizes, in_channels, num_classes, init, rank, remat, kernel_init, rngs, **options
) -> tuple:
    """The stem, its normalisation, the stages and the head of a `PHResNet`."""
    counts, types = STAGES[depth], {name: options[name] for name in ("dtype", "param_dtype")}
    options |= {"n": n, "rank": rank, "use_bias": False, "kernel_init": kernel_init}
    make_conv = partial(_convolution, **options)
    expansion = 1 if depth in _BASIC else 4
    make_body = partial(
        _make_body,
        expansion=expansion,
        normalised=init != "fixup",
        relu_at_end=init == "phydi",
        make_conv=make_conv,
    )
    after = None if init == "phydi" else nnx.relu
    stage_options = {"init": init, "after": after, "remat": remat, "num_blocks": sum(counts)}

    stem = make_conv(in_channels, sizes[0], 3, 1, weighted=init == "wkp", rngs=rngs)
    stem_norm = _norm(sizes[0], types["dtype"], rngs)
    stages, size_in = nnx.List(), sizes[0]
    for i, (size, count) in enumerate(zip(sizes, counts)):
        stage = _Stage(
            size_in,
            size,
            count,
            make_body=make_body,
            make_shortcut=make_conv,
            strides=1 if i == 0 else 2,
            options=stage_options,
            rngs=rngs,
        )
        stages.append(stage)
        size_in = expansion * size
    return stem, stem_norm, stages, nnx.Linear(size_in, num_classes, **types, rngs=rngs)


class PHResNet(nnx.Module):
    """A residual network of hypercomplex convolutions for small images.

        head(mean(stages(ReLU(BN(PHC x)))))

    Training and evaluation differ, by batch normalisation: `model.train()`, `model.eval()`.

    Args:
      depth: 18, 34, 50, 101 or 152.
      n: the number of components.
      num_classes: the number of outputs.
      width: a multiplier of all numbers of channels, which are rounded to multiples of n.
      init: `phydi`, `standard`, `wkp` or `fixup`, as in `Residual`.
      rank: R, for convolutions of R block products; None for a free tensor A.
      remat: whether the backward pass computes the scanned blocks again rather than keep them.
      in_channels: of the images; None for 3, padded to a multiple of n.
      kernel_init: initialiser of the real layer's kernel, as in `PHConv`.
      algebra_init: initialiser of A; None for `isometric`. For the released code's start:
        `released_algebra`, and `released_kernel(n)` as `kernel_init`.
      dtype: of the computation; None for that of the parameters, or of narrower images.
      param_dtype: of the parameters.
      rngs: flax's random keys.

    Attributes:
      stem: the first `PHConv`.
      stages: the four stages, each with `first`, a `Residual` with a shortcut or None, and
        `rest`, a `ResidualStack` or None.
      head: the real `nnx.Linear`.

    Examples:
      >>> import jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> model = phydi.PHResNet(18, n=4, width=1 / 8, rngs=nnx.Rngs(0))
      >>> model(jnp.ones((2, 32, 32, 4))).shape
      (2, 10)
    """

    def __init__(
        self,
        depth: int,
        *,
        n: int,
        num_classes: int = 10,
        width: float = 1.0,
        init: str = "phydi",
        rank: int | None = None,
        remat: bool = False,
        in_channels: int | None = None,
        kernel_init: Callable = nnx.initializers.he_normal(),  # noqa: B008
        algebra_init: Callable | None = None,
        dtype=None,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        _check_depth(depth)
        check_option("init", init, INITS)
        n = check_positive_integer("n", n)
        num_classes = check_positive_integer("num_classes", num_classes)
        sizes = widths_of(n, width)
        self.in_channels = image_channels(n) if in_channels is None else in_channels
        self.stem, self.stem_norm, self.stages, self.head = constructed(
            _build,
            rngs,
            depth=depth,
            n=n,
            sizes=sizes,
            in_channels=self.in_channels,
            num_classes=num_classes,
            init=init,
            rank=rank,
            remat=remat,
            kernel_init=kernel_init,
            algebra_init=algebra_init,
            dtype=dtype,
            param_dtype=param_dtype,
        )

    def __call__(self, images: Array) -> Array:
        """(batch, height, width, in_channels) to logits, (batch, num_classes)."""
        if images.ndim != 4 or images.shape[-1] != self.in_channels:
            raise ValueError(
                f"images: expected (batch, height, width, {self.in_channels}), got {images.shape}; "
                f"the loaders of `phydi` put a zero channel first with n=2 and n=4"
            )
        # Images wider than the parameters would make all that follows as wide.
        weights = self.head.kernel[...].dtype
        if jnp.promote_types(images.dtype, weights) != weights:
            images = images.astype(weights)
        x = nnx.relu(normalised(self.stem_norm, self.stem(images)))
        for stage in self.stages:
            x = stage(x)
        return self.head(jnp.mean(x, (1, 2)))


def _convolution(size_in, size_out, kernel, strides, *, rngs, **options) -> PHConv:
    # torch pads both sides alike; "SAME" would pad only the end where the stride is 2.
    return PHConv(
        size_in,
        size_out,
        (kernel, kernel),
        strides,
        padding=[(kernel // 2, kernel // 2)] * 2,
        rngs=rngs,
        **options,
    )


def count_parameters(
    depth: int,
    *,
    n: int | None,
    num_classes: int = 10,
    width: float = 1.0,
    init: str = "phydi",
    unused_biases: bool = False,
) -> dict[str, int]:
    """The parameters of a `PHResNet`, by arithmetic.

        Σ_convolutions (in out taps / n + n³) + normalisation + head + one α per block

    Args:
      depth: 18, 34, 50, 101 or 152.
      n: the number of components; None for the real network, on images of 3 channels.
      num_classes: the number of outputs.
      width: a multiplier of all numbers of channels.
      init: `phydi`, `standard` or `wkp`.
      unused_biases: whether to count the biases that the released code allocates and never adds.

    Returns:
      A dictionary with `kernels`, `algebras`, `normalisation`, `head`, `alphas`, `biases` and
      `total`.

    Raises:
      ValueError: an unknown depth or init.

    Reference:
      Section 3.1 and the released code. Departure: its convolutions have no bias here.

    Examples:
      >>> import phydi
      >>> [phydi.count_parameters(18, n=n, unused_biases=True)["total"] for n in (2, 4)]
      [5599602, 2810770]
    """
    counts = STAGES[_check_depth(depth)]
    check_option("init", init, ("phydi", "standard", "wkp"))
    parts = 1 if n is None else check_positive_integer("n", n)
    sizes, expansion = widths_of(parts, width), 1 if depth in _BASIC else 4
    convs, size_in = [(image_channels(parts), sizes[0], 9)], sizes[0]
    for i, (size, count) in enumerate(zip(sizes, counts)):
        size_out = expansion * size
        for _ in range(count):
            if size_in != size_out or (i and _ == 0):
                convs.append((size_in, size_out, 1))
            if expansion == 1:
                convs += [(size_in, size, 9), (size, size, 9)]
            else:
                convs += [(size_in, size, 1), (size, size, 9), (size, size_out, 1)]
            size_in = size_out
    channels = sum(b for _, b, _ in convs)
    found = {
        "kernels": sum(a * b * taps for a, b, taps in convs) // parts,
        "algebras": 0 if n is None else len(convs) * (n**3 + (n if init == "wkp" else 0)),
        "normalisation": 2 * channels,
        "head": (size_in + 1) * num_classes,
        "alphas": sum(counts) if init == "phydi" else 0,
        "biases": channels if unused_biases else 0,
    }
    return found | {"total": sum(found.values())}
