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
    gradients       JAX's convolution with a program of its own for the CPU
    cpu_convolution that program: products of matrices, parts, and the order XLA is fast for
    attention       PHMultiHeadAttention
    residual        Residual, ResidualStack: the identity at the start; jacobian_spectrum
    transformer     PHTransformer, a causal language model of any depth
    generation      generate: text from it
    text            WikiText-2, Python's own sources, batches of text, language_loss
    resnet          PHResNet, 18 to 152 layers; its numbers of parameters
    deployment      materialize: plain flax layers; from_real: the nearest hypercomplex one
    images          CIFAR-10, folders of pictures, digits
    pickles         CIFAR-10's pickles without running what is in them
    optimizers      the released recipes: SGD, Adagrad, and a learning rate for α
    batches         shuffled by a key; prepared by a thread
    steps           one step of training any flax module; evaluation
    compilation     steps that work in the memory of the one before
    training        fit: epochs, checkpoints, records, targets
    checkpoints     what a run leaves on disk
"""

from phydi.algebra import hypercomplex_product, kronecker_sum, multiplication_tensor
from phydi.attention import PHMLinearGeneral, PHMultiHeadAttention
from phydi.batches import ordered_batches, prefetch, shuffled_batches
from phydi.checkpoints import (
    read_records,
    restore_checkpoint,
    save_checkpoint,
    tensorboard_callback,
)
from phydi.compilation import compile_step
from phydi.convolution import PHConv
from phydi.deployment import from_real, materialize, nearest_kronecker_sum
from phydi.generation import generate
from phydi.images import Images, cifar10, digits, image_folder, prepare
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
from phydi.optimizers import adagrad, sgd
from phydi.products import kronecker_matmul
from phydi.residual import Residual, ResidualStack, jacobian_spectrum
from phydi.resnet import PHResNet, count_parameters
from phydi.steps import TrainState, classification_loss, evaluate, make_step
from phydi.text import (
    Corpus,
    language_loss,
    standard_library,
    text_batches,
    text_corpus,
    wikitext2,
)
from phydi.training import Fitted, fit
from phydi.transformer import DecodingCache, PHTransformer

__all__ = [
    "Constant",
    "Corpus",
    "DecodingCache",
    "Factors",
    "Fitted",
    "Images",
    "Multiplication",
    "PHConv",
    "PHMEmbed",
    "PHMLinear",
    "PHMLinearGeneral",
    "PHMultiHeadAttention",
    "PHResNet",
    "PHTransformer",
    "Residual",
    "ResidualStack",
    "TrainState",
    "adagrad",
    "cifar10",
    "classification_loss",
    "compile_step",
    "compose",
    "count_parameters",
    "cyclic_factors",
    "digits",
    "evaluate",
    "factorize",
    "fit",
    "from_real",
    "gaussian",
    "generate",
    "generic_rank",
    "hypercomplex_product",
    "image_folder",
    "isometric",
    "isometric_factors",
    "jacobian_spectrum",
    "kronecker_matmul",
    "kronecker_sum",
    "language_loss",
    "make_step",
    "materialize",
    "multiplication_tensor",
    "nearest_kronecker_sum",
    "ordered_batches",
    "prefetch",
    "prepare",
    "read_records",
    "released_algebra",
    "released_kernel",
    "restore_checkpoint",
    "save_checkpoint",
    "sgd",
    "shuffled_batches",
    "standard_library",
    "tensorboard_callback",
    "text_batches",
    "text_corpus",
    "wikitext2",
]
