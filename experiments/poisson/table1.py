"""Table I: ε against the step size for the general algorithm (Thomas).

The paper's error turns round where rounding takes over. The discrete equations have a closed
solution, so the exact ε is known at every h; the column "green" stays on it.
"""

import dataclasses

from experiments.poisson.errors import error_plot, error_rows

PAPER = {2: -3.08, 3: -5.08, 4: -7.08, 5: -8.84, 6: -6.08}  # by -log10 h


@dataclasses.dataclass(frozen=True)
class Config:
    """Which step sizes."""

    exponents: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7)
    """Steps h = 10^-k for these k."""


QUICK = Config(exponents=(1, 2, 3, 4, 5, 6))


def run(config: Config) -> dict:
    """The table."""
    return {"table": error_rows("thomas", config.exponents, PAPER)}


def plot(results: dict):
    """ε against log10 h."""
    return error_plot(results, "thomas")
