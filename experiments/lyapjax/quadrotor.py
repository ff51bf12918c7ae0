"""A quadrotor in a vertical plane: six states, learned and proved.

Not one of the paper's systems; LQR's certified region beside that of a learned V and controller.
"""

from experiments.lyapjax import hovering

Config, QUICK, plot = hovering.Config, hovering.QUICK, hovering.draw_region


def run(config: Config) -> dict:
    """Learn and prove."""
    return hovering.study_region(hovering.CASES["quadrotor"], config)
