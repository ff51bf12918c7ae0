"""The plot that `table1` and `figure4` share: epochs to a target against depth."""

import matplotlib.pyplot as plt

from experiments.phydi.cells import mean_and_error


def epochs_against_depth(reached: dict, colours: dict, longest: int, label: str, figure=None):
    """Means and standard errors of the seeds that reached the target, a panel for each n.

    A cross above stands for a seed that did not reach it.
    `reached` has, by (n, depth, kind), the epochs of each seed, or None; kinds are drawn in the
    order of `colours`, `longest` is the number of epochs after which the longest run ended. It is
    drawn into `figure`, a part of one, if that is given.
    """
    ns, depths, found = (sorted({key[i] for key in reached}) for i in range(3))
    kinds = [kind for kind in colours if kind in found]
    if figure is None:
        figure = plt.figure(figsize=(1.5 + 3.2 * len(ns), 3), layout="constrained")
    axes = figure.subplots(1, len(ns), squeeze=False, sharey=True)
    for axis, n in zip(axes[0], ns):
        for i, kind in enumerate(kinds):
            # Side by side, so that equal values are seen.
            shift = 0.12 * (i - (len(kinds) - 1) / 2)
            places, means, errors = [], [], []
            for j, depth in enumerate(depths):
                seeds = reached.get((n, depth, kind), [])
                mean, error = mean_and_error([epochs for epochs in seeds if epochs is not None])
                if mean is not None:
                    places.append(j + shift)
                    means.append(mean)
                    errors.append(error or 0.0)
                if None in seeds:
                    axis.plot(j + shift, longest + 1, "x", color=colours[kind])
            options = {"color": colours[kind], "capsize": 3, "label": kind}
            axis.errorbar(places, means, errors, fmt="o-", **options)
        axis.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        axis.set_xlim(-0.5, len(depths) - 0.5)
        axis.set_ylim(0, longest + 1.5)
        axis.set_title(f"n = {n}")
        axis.set_xlabel("layers")
    axes[0][0].set_ylabel(f"epochs to {label}\n(×: a seed that did not)")
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside right center")
    return figure
