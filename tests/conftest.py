"""Shared by all tests: the precision comes from JAX_ENABLE_X64, as for any user of JAX."""

import jax
import matplotlib

matplotlib.use("Agg")


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
