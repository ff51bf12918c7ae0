"""Experiments of `klcontrol`: learning beside exact solutions, stability, worlds, speed."""

EXPERIMENTS = ("gridworld", "worlds", "large", "convergence", "stability", "scaling", "from_log")
