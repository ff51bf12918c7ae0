"""Shared by all tests: the precision comes from JAX_ENABLE_X64, as for any user of JAX."""

import gc
from pathlib import Path

import jax
import matplotlib
import pytest

matplotlib.use("Agg")

MAPS = Path("/proc/self/maps")
# Every compiled program takes a few memory maps; Linux allows a process 65,530 of them, and beyond
# that XLA ends with a segmentation fault.
MANY_MAPS = 20_000


@pytest.fixture(autouse=True)
def _compiled_programs_make_room():
    """Forget compiled programs before there are too many for one process."""
    yield
    if MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


def pytest_report_header():
    """Say which precision this run tests."""
    precision = "float64" if jax.config.jax_enable_x64 else "float32"
    return f"jax {jax.__version__}, {precision}, {jax.devices()[0].platform}"


def pytest_collection_modifyitems(config, items):
    """Without float64, only what is marked as meaningful in float32 is left."""
    if jax.config.jax_enable_x64:
        return
    kept = [item for item in items if item.get_closest_marker("float32")]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
