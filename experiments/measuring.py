"""Time: interleaved medians for comparisons, and compilation apart from running."""

import statistics
import time
from collections.abc import Callable

import jax


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list]:
    """Seconds of `rounds` calls of each, taken in turns so that drift hits all alike.

    Every contestant runs once before, unmeasured: compilation and page faults of first use.
    """
    times = {name: [] for name in contestants}
    for call in contestants.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in contestants.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return times


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each contestant."""
    return {k: statistics.median(v) for k, v in interleaved(contestants, rounds).items()}


class CompileClock:
    """Sums the seconds that JAX spends on tracing, lowering and compiling in a `with` block."""

    def __init__(self):
        self.seconds = 0.0

    def _listen(self, event: str, duration: float, **_):
        if event.startswith("/jax/core/compile/"):
            self.seconds += duration

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)
