"""The Caltech ducted fan in hover: six states, the whole proof, nothing relaxed.

The paper learns for 1,455 s and falsifies for 51 s, with conditions that were numerically relaxed.
Here V is a quadratic form and tanh features of the tilt, the controller a gain and a tanh network
of it, and every trajectory from {V <= c} is proved to reach the hover. Beside it LQR's own region.
"""

from experiments.lyapjax import hovering

Config, QUICK, plot = hovering.Config, hovering.QUICK, hovering.draw_region


def run(config: Config) -> dict:
    """Learn and prove."""
    return hovering.study_region(hovering.CASES["ducted fan"], config)
