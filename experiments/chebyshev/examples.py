"""The paper's two examples as sets, for a noise seed."""

import numpy as np

import chebyshev

OBSERVABLE = 80  # of the 90 entries of heat(90, 1), the last ten leave no trace in the data


def heat(alpha: float, seed: int) -> tuple[chebyshev.Ellipsoids, chebyshev.problems.TestProblem]:
    """heat(90, 1), noise 0.001, ρ = α‖w‖², η = α Σ x."""
    problem = chebyshev.problems.heat(90)
    w = 1e-3 * np.random.default_rng(seed).normal(size=90)
    sets = chebyshev.noise_ball(problem.A, problem.b + w, alpha * w @ w)
    return sets & chebyshev.simplex_like(alpha * problem.x.sum(), 90), problem


def blur(seed: int) -> tuple[chebyshev.Ellipsoids, chebyshev.problems.TestProblem]:
    """blur(16, 4, 0.8), noise 0.05, ρ = 1.3‖w‖², pixels in [0, 4]."""
    problem = chebyshev.problems.blur(16, 4, 0.8)
    w = 0.05 * np.random.default_rng(seed).normal(size=256)
    sets = chebyshev.noise_ball(problem.A, problem.b + w, 1.3 * w @ w)
    return sets & chebyshev.box(np.zeros(256), np.full(256, 4.0)), problem


def squared_error(estimate, x, upto: int | None = None) -> float:
    """‖estimate - x‖² over the first `upto` entries."""
    return float(np.sum((np.asarray(estimate) - x)[:upto] ** 2))
