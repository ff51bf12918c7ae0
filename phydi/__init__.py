"""Hypercomplex networks that start as the identity.

Start with `PHMLinear`, `PHConv`, `PHMEmbed` and `PHMultiHeadAttention`, flax's layers with sums of
Kronecker products for their kernels.

    algebra         kronecker_sum; quaternions and other known algebras as fixed tensors
    low_rank        multiplication tensors as sums of few products; their ranks
    initialisation  what keeps the variance; the released Xavier rule
    products        build the kernel, contract without it, or R products of blocks
    multiplication  the tensor A of a layer: learnt, factored, fixed or weighted
    layers          PHMLinear, PHMEmbed
    convolution     PHConv
    attention       PHMultiHeadAttention
    residual        Residual, ResidualStack: the identity at the start; jacobian_spectrum
    transformer     PHTransformer, a causal language model of any depth; generate: text from it
    text            WikiText-2, Python's own sources, batches of text, language_loss
    deployment      materialize: plain flax layers; from_real: the nearest hypercomplex one
"""

from phydi.algebra import hypercomplex_product, kronecker_sum, multiplication_tensor
from phydi.attention import PHMLinearGeneral, PHMultiHeadAttention
from phydi.convolution import PHConv
from phydi.deployment import from_real, materialize, nearest_kronecker_sum
from phydi.initialisation import (
    gaussian,
    isometric,
    isometric_factors,
    released_algebra,
    released_kernel,
)
from phydi.layers import PHMEmbed, PHMLinear
from phydi.low_rank import Factors, compose, cyclic_factors, factorize, generic_rank
from phydi.multiplication import Constant, Multiplication
from phydi.products import kronecker_matmul
from phydi.residual import Residual, ResidualStack, jacobian_spectrum
from phydi.text import (
    Corpus,
    language_loss,
    standard_library,
    text_batches,
    text_corpus,
    wikitext2,
)
from phydi.transformer import DecodingCache, PHTransformer, generate

__all__ = [
    "Constant",
    "Corpus",
    "DecodingCache",
    "Factors",
    "Multiplication",
    "PHConv",
    "PHMEmbed",
    "PHMLinear",
    "PHMLinearGeneral",
    "PHMultiHeadAttention",
    "PHTransformer",
    "Residual",
    "ResidualStack",
    "compose",
    "cyclic_factors",
    "factorize",
    "from_real",
    "gaussian",
    "generate",
    "generic_rank",
    "hypercomplex_product",
    "isometric",
    "isometric_factors",
    "jacobian_spectrum",
    "kronecker_matmul",
    "kronecker_sum",
    "language_loss",
    "materialize",
    "multiplication_tensor",
    "nearest_kronecker_sum",
    "released_algebra",
    "released_kernel",
    "standard_library",
    "text_batches",
    "text_corpus",
    "wikitext2",
]
