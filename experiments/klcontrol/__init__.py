"""Experiments of `klcontrol`: learning beside exact solutions, stability, worlds, speed."""

EXPERIMENTS = ("gridworld", "large", "convergence", "stability", "scaling", "from_log")
