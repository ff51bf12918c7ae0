"""Where a result comes from: code, versions, machine."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
from pathlib import Path

import jax

VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "cvxpy", "python-flint")


def commit() -> str:
    """The git commit of this checkout, with "-dirty" if files differ from it; or "unknown"."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def fingerprint(package: str) -> str:
    """A digest of the source of a package and of its experiments: a changed one is run again."""
    digest = hashlib.sha256()
    for name in (package, f"experiments.{package}"):
        spec = importlib.util.find_spec(name)
        for folder in spec.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment() -> dict:
    """Versions, device and floating type of this process."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
        "device": f"{device.platform}: {device.device_kind} x {jax.device_count()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "dtype": "float64" if jax.config.jax_enable_x64 else "float32",
    }
