"""Table III: ε against the step size for dense LU decomposition.

Steps whose matrix and factors would not fit into the memory allowed are left out, and say so: at
h = 1e-5 they take 149 GiB. A tridiagonal method needs 0.004 GiB there.
"""

import dataclasses

from experiments.poisson.errors import error_plot, error_rows
from poisson.pivoting import dense_lu_bytes

PAPER = {1: -1.10, 2: -3.08, 3: -5.08, 4: -7.08}  # by -log10 h


@dataclasses.dataclass(frozen=True)
class Config:
    """Which step sizes, and how much memory."""

    exponents: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Steps h = 10^-k for these k."""
    max_gib: float = 4.0
    """Leave out what needs more memory than this."""


QUICK = Config(exponents=(1, 2, 3, 4, 5), max_gib=0.25)


def run(config: Config) -> dict:
    """The table."""

    def skip(n: int) -> str | None:
        needed = dense_lu_bytes(n - 2) / 2**30
        if needed > config.max_gib:
            return f"needs {needed:.1f} GiB, more than {config.max_gib:g} allowed (--max-gib)"
        return None

    return {"table": error_rows("dense_lu", config.exponents, PAPER, skip)}


def plot(results: dict):
    """ε against log10 h."""
    return error_plot(results, "dense_lu")
