"""Benchmark rows of online learning: chain steps against a NumPy loop, plain JAX, and numba.

Every contestant runs KL-learning (the draft's gains by the global clock) on the same gridworld for
the same number of chain steps, sampling included. The random numbers differ, so what must agree is
the average λ over the chains. Numba is no dependency: its row is there where it can be imported.
"""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import klcontrol
from experiments.bench import Contest, Row


def gain(k):
    """γ by steps a state, cheap for everyone."""
    return 1 / (10 + k)


def _world(side: int) -> klcontrol.Problem:
    return klcontrol.examples.gridworld((side, side), goals=[(0, 0)], cost=0.1).problem


def ours(problem, chains: int, steps: int, table, seed: int = 0) -> jax.Array:
    """λ of every chain."""
    algorithm = klcontrol.kl_learning(alpha=1.0, relative=False, clock="global", gain_fn=gain)
    run = klcontrol.simulate(
        jax.random.key(seed),
        problem,
        algorithm,
        num_steps=steps,
        num_chains=chains,
        every=steps,
        table=table,
    )
    return run.lam


@partial(jax.jit, static_argnames=("chains", "steps"))
def plain(key, indices, weights, lam, *, chains: int, steps: int):
    """What one would write first: a scan that normalises z at every step, by vmap."""
    n, d = indices.shape

    def one(key, start):
        def step(carry, m):
            z, lam, x, key = carry
            key, sub = jax.random.split(key)
            y = indices[x, jax.random.randint(sub, (), 0, d)]
            zeta = weights[x] * z[y] - lam * z[x]
            gamma = gain(m / n)
            lam = lam + gamma * z[x] * zeta
            z = z.at[x].add(gamma * zeta)
            return (z / jnp.linalg.norm(z), lam, y, key), None

        z = jnp.ones(n, weights.dtype) / jnp.sqrt(n)
        (_, end, _, _), _ = jax.lax.scan(step, (z, lam, start, key), jnp.arange(steps))
        return end

    starts = (jnp.arange(chains) * indices.shape[0] // chains).astype(indices.dtype)
    return jax.vmap(one)(jax.random.split(key, chains), starts)


def numba_loop():
    """The same updates with the norm carried along, by numba on one core; None without it."""
    if not importlib.util.find_spec("numba"):
        return None
    import numba

    @numba.njit(fastmath=True)
    def run(indices, weights, lam0, v, steps, lams):
        chains, n = v.shape
        d = indices.shape[1]
        for b in range(chains):
            seed = np.uint64(b + 1) * np.uint64(0x9E3779B97F4A7C15)
            x, lam, square = b * n // chains, lam0, float(n)
            for i in range(n):
                v[b, i] = 1
            for m in range(steps):
                seed ^= seed << np.uint64(13)
                seed ^= seed >> np.uint64(7)
                seed ^= seed << np.uint64(17)
                y = indices[x, ((seed >> np.uint64(32)) * np.uint64(d)) >> np.uint64(32)]
                here = v[b, x]
                change = (weights[x] * v[b, y] - lam * here) / (10 + m / n)
                lam += here * change / square
                square += change * (2 * here + change)
                v[b, x] = here + change
                x = y
            lams[b] = lam

    return run


def contest(side: int, chains: int, steps: int, *, slow: bool) -> Contest:
    """Our runs beside the peers on a grid of side × side."""
    problem = _world(side)
    table = klcontrol.alias_table(problem.q)
    indices = problem.q.indices
    weights = jnp.exp(-problem.cost)
    lam0 = jnp.exp(-jnp.mean(problem.cost))
    mine = partial(ours, problem, chains, steps, table)
    peers = {}
    if slow:
        peers["jitted scan, vmap"] = lambda: plain(
            jax.random.key(1), indices, weights, lam0, chains=chains, steps=steps
        )
    run = numba_loop()
    if run is not None:
        v, lams = np.ones((chains, problem.num_states)), np.zeros(chains)
        host = (np.asarray(indices), np.asarray(weights), float(lam0))

        def by_numba():
            run(*host, v, steps, lams)
            return lams

        peers["numba, one core"] = by_numba
    if not peers:
        peers["ours in one block"] = lambda: ours(problem, chains, steps, table)
    answers = [float(np.mean(np.asarray(peer()))) for peer in peers.values()]
    mean = float(np.mean(np.asarray(mine())))
    return Contest(mine, peers, max(abs(a / mean - 1) for a in answers), 5e-3)


def learning_rows(quick: bool) -> list[Row]:
    """Rows named by chain steps in all, so that a time gives a rate."""
    chains, steps = (1024, 3200) if quick else (2048, 10_000)
    found = [
        Row(
            f"klcontrol {chains * steps / 1e6:.3g}e6 chain steps, n = 100",
            0.08,
            lambda: contest(10, chains, steps, slow=True),
        )
    ]
    if not quick and importlib.util.find_spec("numba"):
        found.append(
            Row(
                "klcontrol 51.2e6 chain steps, n = 99856",
                1.0,
                lambda: contest(316, 1024, 50_000, slow=False),
                rounds=3,
            )
        )
    return found
