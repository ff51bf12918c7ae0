"""Parameters: how many a hypercomplex ResNet has, against the real one and the released code.

The arithmetic is Σ (in · out · taps / n + n³) over the convolutions, two numbers per channel of
normalisation, a real dense layer and one α per block. The released code also allocates a bias for
every convolution and never adds it; with these, 18 layers have what torch counts there. The real
network, n absent, is the same on images of 3 channels.
"""

import dataclasses

import jax
import matplotlib.pyplot as plt
from flax import nnx

import phydi

# Torch's count of the released PHResNet18 with PHYDI, unused biases included.
RELEASED = {(18, 2): 5_599_602, (18, 4): 2_810_770}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which networks."""

    depths: tuple[int, ...] = (18, 34, 50, 101, 152)
    """Layers."""
    ns: tuple[int, ...] = (2, 3, 4)
    """Numbers of components."""


QUICK = Config(depths=(18, 50))


def _counted(depth: int, n: int) -> int:
    """The size of the parameters of the model itself, which is not allocated."""
    model = nnx.eval_shape(lambda: phydi.PHResNet(depth, n=n, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def run(config: Config) -> dict:
    """Counts by arithmetic, of the models, and of the released code where it is known."""
    rows, series = [], {}
    for depth in config.depths:
        real = phydi.count_parameters(depth, n=None, init="standard")["total"]
        series[str(depth)] = {"real": real}
        for n in config.ns:
            with_biases = phydi.count_parameters(depth, n=n, unused_biases=True)["total"]
            here = _counted(depth, n)
            series[str(depth)][str(n)] = here
            rows.append(
                {
                    "quantity": f"PHResNet{depth}, n = {n}: parameters with unused biases",
                    "paper": RELEASED.get((depth, n)),
                    "here": with_biases,
                    "of the model": here,
                    "by arithmetic": phydi.count_parameters(depth, n=n)["total"],
                    "real network": real,
                    "share": here / real,
                }
            )
    return {"table": rows, "series": series}


def plot(results: dict):
    """Parameters against depth, real and hypercomplex."""
    series = results["series"]
    depths = list(series)
    figure, axis = plt.subplots(figsize=(6, 3))
    kinds = list(next(iter(series.values())))
    for i, kind in enumerate(kinds):
        places = [j + (i - (len(kinds) - 1) / 2) * 0.8 / len(kinds) for j in range(len(depths))]
        label = "real" if kind == "real" else f"n = {kind}"
        values = [series[depth][kind] / 1e6 for depth in depths]
        axis.bar(places, values, 0.8 / len(kinds), label=label)
    axis.set_xticks(range(len(depths)), depths)
    axis.set_xlabel("layers")
    axis.set_ylabel("millions of parameters")
    axis.legend(frameon=False)
    figure.tight_layout()
    return figure
