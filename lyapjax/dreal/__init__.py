"""A second opinion by dReal, a solver that is sound up to a tolerance δ.

dReal answers "unsat", which is a proof, or "δ-sat" with a small box, which is a candidate only: a
counterexample may lie there, or the margin is merely within δ of it. It is built from the same
program as everything else, by its Python binding or, where a `dreal` executable is on PATH, from
SMT-LIB 2 text; always in a process of its own, which is killed when its time is over.
"""

import dataclasses
import importlib.util
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lyapjax.dreal.smt import check_corners, smt2, statement
from lyapjax.proofs.proving import Verdict
from lyapjax.proofs.statements import refutes

__all__ = ["Opinion", "backend", "check", "smt2"]

HELP = (
    "dReal was not found: neither its Python binding (pip install 'certax[dreal]'; it also needs "
    "libibex 2.7.4 of dReal's own Ubuntu packages or Homebrew, coinor-libclp1, libnlopt0 and "
    "liblapack3) nor a `dreal` executable on PATH. `lyapjax.prove` needs neither"
)


class Opinion(NamedTuple):
    """What dReal says of a statement.

    Attributes:
      verdict: PROVED only if dReal answered unsat; REFUTED if its candidate is a counterexample in
        ball arithmetic; else UNKNOWN.
      reason: why not PROVED, else "".
      point: (n,) the candidate, None if there is none.
      seconds: wall-clock time, of which starting a process takes one or two.

    Examples:
      >>> import lyapjax as ly
      >>> ly.dreal.Opinion(ly.Verdict.UNKNOWN, "60 s are over", None, 60.0).verdict.value
      'UNKNOWN'
    """

    verdict: Verdict
    reason: str
    point: np.ndarray | None
    seconds: float


# The process that uses the binding: a task comes in and an answer goes out, both pickled.
WORKER = (
    "import pickle, sys; from lyapjax.dreal.process import answer; "
    "task = pickle.loads(sys.stdin.buffer.read()); "
    "sys.stdout.buffer.write(pickle.dumps(answer(*task)))"
)


def _run(command: list[str], task: bytes | None, timeout: float) -> bytes:
    """The output of a process that is killed after a time; RuntimeError if it fails."""
    done = subprocess.run(command, input=task, capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"dReal failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def _by_executable(text: str, n: int, delta: float, timeout: float) -> list[float] | None:
    """The answer of a `dreal` program; see `answer`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "statement.smt2"
        path.write_text(text)
        command = ["dreal", "--precision", repr(delta), "--model", str(path)]
        found = _run(command, None, timeout).decode()
    if found.startswith("unsat"):
        return None
    if not found.startswith("delta-sat"):
        raise RuntimeError(f"dReal answered {found[:200]!r}")
    ends = {
        int(i): (float(low), float(high))
        for i, low, high in re.findall(r"x(\d+) : \[([^,\]]+), ([^\]]+)\]", found)
    }
    return [sum(ends[i]) / 2 for i in range(n)]


def backend() -> str | None:
    """How dReal can be reached here.

        the binding imports: "binding";  a program on PATH: "executable";  neither: None

    The binding is tried in a process of its own: a library that is missing must not end this one.

    Args:

    Returns:
      "binding", "executable" or None.

    Raises:
      Nothing.

    Reference:
      https://dreal.github.io

    Examples:
      >>> import lyapjax as ly
      >>> ly.dreal.backend() in ("binding", "executable", None)
      True
    """
    if importlib.util.find_spec("dreal") is not None:
        code = "import dreal; dreal.Variable('x')"
        tried = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        if tried.returncode == 0:
            return "binding"
    return "executable" if shutil.which("dreal") else None


def check(
    margin_fn: Callable,
    lo,
    hi,
    *,
    where_fn: Callable | None = None,
    delta: float = 1e-3,
    timeout: float = 60.0,
) -> Opinion:
    """Ask dReal for a proof or a counterexample of a statement of `prove`.

        margin(x) < 0   for every x in [lo, hi] with where(x) <= 0

    Args:
      margin_fn: (n,) -> () JAX function of the supported primitives.
      lo: (n,) lower corner of the box.
      hi: (n,) upper corner.
      where_fn: (n,) -> (k,) function, as in `prove`.
      delta: tolerance δ.
      timeout: seconds after which the process is killed.

    Returns:
      `Opinion`.

    Raises:
      ImportError: dReal is not there; the message says what to install.
      ValueError: bad corners, `delta` or `timeout` not positive.
      NotImplementedError: an operation that dReal does not know.

    Reference:
      Gao, Kong & Clarke, dReal: an SMT solver for nonlinear theories over the reals, CADE 2013.
      Departure from the paper: only unsat counts, with the strict statement.

    Examples:
      >>> import jax.numpy as jnp, lyapjax as ly
      >>> if ly.dreal.backend():
      ...     found = ly.dreal.check(lambda x: x[0] - 2.0, jnp.zeros(1), jnp.ones(1))
      ...     assert found.verdict is ly.Verdict.PROVED
    """
    start = time.perf_counter()
    for name, number in (("delta", delta), ("timeout", timeout)):
        if not number > 0:
            raise ValueError(f"{name}: expected a positive number, got {number!r}")
    lo, hi = check_corners(lo, hi)
    program = statement(margin_fn, where_fn, len(lo))
    how = backend()
    if how is None:
        raise ImportError(HELP)
    try:
        if how == "binding":
            task = pickle.dumps((dataclasses.replace(program, tree=None), lo, hi, delta))
            answer = _run([sys.executable, "-c", WORKER], task, timeout)
            found = pickle.loads(answer)
        else:
            text = smt2(margin_fn, lo, hi, where_fn=where_fn)
            found = _by_executable(text, len(lo), delta, timeout)
    except subprocess.TimeoutExpired:
        reason = f"{timeout:g} s are over"
        return Opinion(Verdict.UNKNOWN, reason, None, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    if found is None:
        return Opinion(Verdict.PROVED, "", None, seconds)
    point = np.clip(np.asarray(found, float), lo, hi)
    if refutes(program, point):
        return Opinion(Verdict.REFUTED, f"not negative at {point.tolist()}", point, seconds)
    reason = f"within δ = {delta:g} of a counterexample near {point.tolist()}; try a smaller delta"
    return Opinion(Verdict.UNKNOWN, reason, point, seconds)
