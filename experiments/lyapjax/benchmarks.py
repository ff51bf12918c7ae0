"""Benchmark rows of `lyapjax`: learning, falsifying, and the whole of `synthesize`."""

import atexit
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import lyapjax as ly
from experiments.bench import Contest, Row
from lyapjax.proofs.statements import Bounding, statement_of


def _falsify() -> Contest:
    """The search, beside as many plain samples as its gradient steps cost points."""
    system = ly.systems.inverted_pendulum()
    regulator = ly.lqr(system)
    V = ly.quadratic_lyapunov(regulator.P)
    f = system.closed_loop(ly.linear_controller(system, regulator.K * 0.6))
    key = jax.random.key(0)

    def ours():
        return ly.falsify(key, V, f, system.domain).violation[0]

    num = 250_000

    @jax.jit
    def sampled(V, f):
        x = system.domain.uniform(key, num)
        look = jax.lax.map(lambda x: ly.lie_derivative(V, f, x) / (x @ x), x, batch_size=4096)
        return jnp.max(jnp.where(jnp.linalg.norm(x, axis=1) >= 0.012, look, -jnp.inf))

    best, plain = float(ours()), float(sampled(V, f))
    shortfall = max(0.0, (plain - best) / abs(plain))  # the search must not be the worse one
    return Contest(ours, {f"{num} samples": lambda: sampled(V, f)}, shortfall, 1e-3)


def _seeds() -> Contest:
    """Sixteen learners by vmap against a loop."""
    system = ly.systems.inverted_pendulum()
    keys = jax.random.split(jax.random.key(0), 16)

    def one(key):
        return ly.learn(system, ly.initialise(key, system), max_rounds=1)[1].risk

    batch = jax.jit(jax.vmap(one))
    loop = np.stack([one(key) for key in keys])
    difference = float(np.max(np.abs(np.asarray(batch(keys)) - loop) / (1 + np.abs(loop))))
    peers = {"loop of learn": lambda: [one(key) for key in keys]}
    return Contest(lambda: batch(keys), peers, difference, 1e-9)


def _synthesize(name: str) -> Contest:
    """The whole, proof included, beside what the authors' own code took on such a machine."""
    system = getattr(ly.systems, name)()
    key = jax.random.key(0)
    result = ly.synthesize(system, key=key)
    if not result.proved:
        raise ValueError(f"{name}: not proved: {result.reason}")
    learned = {"learning alone": lambda: ly.learn(system, ly.initialise(key, system))[0]}
    return Contest(lambda: ly.synthesize(system, key=key).volume, learned, 0.0, 0.0)


def _learned(name: str, hidden: tuple[int, ...], margin: float = 0.5):
    """A system, and what has been learned for it."""
    system, recipe = getattr(ly.systems, name)(), ly.Recipe(hidden=hidden, margin=margin)
    state = ly.initialise(jax.random.key(0), system, recipe=recipe)
    return system, recipe, ly.learn(system, state, recipe=recipe)[0]


def _shell() -> Contest:
    """The paper's statement of a candidate with six units, beside dReal or dense sampling."""
    system, _, state = _learned("inverted_pendulum", (6,))
    f = system.closed_loop(state.u)

    def ours():
        return ly.verify_shell(state.V, f, 0.1, 2.0).verdict

    def slope(x):
        return ly.lie_derivative(state.V, f, x)

    if ours() is not ly.Verdict.PROVED:
        raise ValueError("the candidate is not proved")
    x = system.domain.uniform(jax.random.key(1), 500_000) / 3
    sampled = jax.jit(lambda x: jnp.max(jax.lax.map(slope, x, batch_size=4096)))
    peers = {"values at 500000 points": lambda: sampled(x)}
    if ly.dreal.backend() is not None:
        lo, hi = np.full(2, -2.0), np.full(2, 2.0)

        def ring(x):
            return jnp.stack([0.01 - x @ x, x @ x - 4.0])

        peers["dReal, decrease alone"] = lambda: ly.dreal.check(
            slope, lo, hi, where_fn=ring, delta=1e-3, timeout=60.0
        )
    return Contest(ours, peers, 0.0, 0.0)


def _rates(name: str, hidden: tuple[int, ...], num: int) -> Contest:
    """Linear bounds of V̇ over many boxes, beside one thread alone and values at corners.

    The excess of values over bounds is the difference that must not be positive.
    """
    system, recipe = getattr(ly.systems, name)(), ly.Recipe(hidden=hidden)
    state = ly.initialise(jax.random.key(0), system, recipe=recipe)
    f, n = system.closed_loop(state.u), len(system.equilibrium[0])

    def slope(x):
        return ly.lie_derivative(state.V, f, x)

    statement = statement_of(slope, None, n)
    lo = np.asarray(system.domain.uniform(jax.random.key(1), num)) / 2
    hi = lo + 0.05
    bounding = Bounding(statement, lo, hi, np.zeros(n))
    bounding(lo, hi)
    bounding.large.wait()
    bounding(lo, hi)

    def ours():
        return bounding(lo, hi).upper

    def in_turn():
        code, numbers = bounding.large, bounding.large_numbers
        parts = [slice(k, k + code.batch) for k in range(0, num, code.batch)]
        return [code(lo[part], hi[part], numbers) for part in parts]

    values = jax.jit(jax.vmap(slope))
    points = [jnp.asarray(x) for x in np.split(lo, 8)]
    excess = np.concatenate([np.asarray(values(x)) for x in points]) - ours()
    peers = {"one thread": in_turn, "values": lambda: [values(x) for x in points]}
    return Contest(ours, peers, float(excess.max()), 0.0)


# Two, four and six states, networks small and large.
RATES = [
    ("inverted_pendulum", (6,), 131_072),
    ("inverted_pendulum", (20, 20, 20), 32_768),
    ("cart_pole", (6,), 65_536),
    ("cart_pole", (20, 20, 20), 8192),
    ("ducted_fan", (6,), 32_768),
    ("ducted_fan", (20, 20, 20), 4096),
]
# Bounds by as many cores and devices as are asked for, in a process of its own.
SERVER = """
import os, sys
cores, devices = (int(v) for v in sys.argv[1:])
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", devices)
from experiments.lyapjax.benchmarks import bounds_served
bounds_served()
"""


def bounds_served() -> None:
    """Compute the bounds of `_rates` for each line that is read, and answer by a line."""
    contest = _rates("inverted_pendulum", (6,), 131_072)
    for _ in range(2):
        contest.ours()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        contest.ours()
        sys.stdout.write("done\n")
        sys.stdout.flush()


def _cores(*, a_device_each: bool) -> Contest:
    """The bounds of 131072 boxes on all cores, one device or one for each, beside one core."""

    def serve(cores: int, devices: int):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(cores), str(devices)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(process.kill)

        def ask():
            process.stdin.write("go\n")
            process.stdin.flush()
            return process.stdout.readline()

        if process.stdout.readline() != "ready\n":
            raise ValueError(f"bounds on {cores} cores: the process ended")
        return ask

    cores = len(os.sched_getaffinity(0))
    ours = serve(cores, cores if a_device_each else 1)
    return Contest(ours, {"one core": serve(1, 1)}, 0.0, 0.0)


def _whole_proof(name: str, hidden: tuple[int, ...], margin: float) -> Contest:
    """The whole proof of what was learned, beside the learning."""
    system, recipe, state = _learned(name, hidden, margin)
    f, key = system.closed_loop(state.u), jax.random.key(0)

    def ours():
        return ly.verify(state.V, f, system.domain).volume

    if not ours() > 0:
        raise ValueError(f"{name}: not proved")

    def learning():
        start = ly.initialise(key, system, recipe=recipe)
        return ly.learn(system, start, recipe=recipe)[0]

    return Contest(ours, {"learning": learning}, 0.0, 0.0)


def _region(name: str) -> Contest:
    """The largest region of LQR's V that is proved, beside the proof of one given level."""
    system = getattr(ly.systems, name)()
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))

    def ours():
        return ly.verify_region(f, regulator.P, system.domain)

    found = ours()
    if not found.proved:
        raise ValueError(f"{name}: not proved: {found.reason}")
    half = found.level / 2
    peers = {
        "half the level, given": lambda: (
            ly.verify_region(f, regulator.P, system.domain, level=half).level
        )
    }
    return Contest(lambda: ours().level, peers, 0.0, 0.0)


def _links(links: int) -> Contest:
    """A level of n links that one box proves, beside a tenth of it: the level costs nothing."""
    system = ly.systems.n_link(links)
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    level = {3: 0.1, 4: 0.05, 5: 0.025}[links]

    def prove(level):
        return ly.verify_region(f, regulator.P, system.domain, level=level)

    found = prove(level)
    if not found.proved or found.num_boxes != 1:
        raise ValueError(f"{links} links: not proved in one box: {found.reason}")
    peers = {"a tenth of the level": lambda: prove(level / 10).level}
    return Contest(lambda: prove(level).level, peers, 0.0, 0.0)


def rows(quick: bool) -> list[Row]:
    """The rows; the whole of `synthesize` is left out of the quick ones."""
    found = [
        Row("lyapjax falsify", None, _falsify),
        Row("lyapjax 16 seeds by vmap", None, _seeds),
        *(
            Row(
                f"lyapjax bounds {num} boxes, {name} {'x'.join(map(str, hidden))}",
                None,
                lambda case=(name, hidden, num): _rates(*case),
            )
            for name, hidden, num in RATES[: 1 if quick else None]
        ),
        Row("lyapjax verify_shell, 6 units", None, _shell),
    ]
    for links in (3, 4, 5):
        title = f"lyapjax verify_region {links} links, LQR, one box"
        found.append(Row(title, None, lambda links=links: _links(links), rounds=3))
    for name in ("ducted_fan", "planar_quadrotor", "cart_pole"):
        title = f"lyapjax verify_region {name}, LQR, largest level"
        found.append(Row(title, None, lambda name=name: _region(name), rounds=3))
    if quick:
        return found
    found += [
        Row(
            f"lyapjax boxes on all cores over one{how}",
            1 / 1.9,
            partial(_cores, a_device_each=each),
        )
        for how, each in (("", False), (", a device each", True))
    ]
    proofs = [
        ("inverted_pendulum", (6,), 0.5),
        ("van_der_pol", (20, 20, 20), 0.2),
        ("saturated_pendulum", (20, 20, 20), 0.5),
    ]
    found += [
        Row(
            f"lyapjax whole proof {case[0]} {' x '.join(map(str, case[1]))}",
            None,
            lambda case=case: _whole_proof(*case),
            rounds=5,
        )
        for case in proofs
    ]
    return found + [
        Row(f"lyapjax synthesize {name}", None, lambda name=name: _synthesize(name), rounds=5)
        for name in ("inverted_pendulum", "path_following")
    ]
