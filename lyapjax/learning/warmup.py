"""From a random gain to one that stabilises, by descent on trajectories.

A random gain rarely stabilises, and from one that does not the learner of V finds its way out only
now and then: no V falls along a loop that is not stable, and the cheapest answer to that is a level
set of no size. So the gain is learned first, on short trajectories from points z_0 close to x*,

    minimise over K   mean over t of log(1 + |z(t)/ρ|²),        dz/dt = f(x* + z, u(x* + z)),

where the logarithm keeps trajectories that run away from outweighing all others. The descent ends
as soon as all of them come back; nothing is optimised beyond that.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from lyapjax.learning.networks import linear_controller
from lyapjax.learning.objective import slowest_rate
from lyapjax.systems.system import System

NUM_STARTS = 16
NUM_TIMES = 100
NUM_DESCENTS = 500
LEARNING_RATE = 0.05
CLOSE = 0.05  # of the way to ∂D, where trajectories start
BACK = 0.2  # share of the distance at the start that is left of one that came back
HORIZON = 3.0  # in units of the slowest time constant of the LQR loop


def _distances(system: System, z: Array, K: Array) -> Array:
    """|z(t)/ρ| of trajectories from z (N, n), by Runge–Kutta steps, (NUM_TIMES, N)."""
    at = jnp.asarray(system.equilibrium[0])
    f = jax.vmap(system.closed_loop(linear_controller(system, K)))
    dt = HORIZON / slowest_rate(system) / NUM_TIMES
    size = CLOSE * (np.asarray(system.domain.hi) - np.asarray(system.domain.lo)) / 2

    def step(x, _):
        a = f(x)
        b = f(x + dt / 2 * a)
        c = f(x + dt / 2 * b)
        d = f(x + dt * c)
        x = x + dt / 6 * (a + 2 * b + 2 * c + d)
        return x, jnp.linalg.norm((x - at) / size, axis=1)

    return lax.scan(step, at + z, None, length=NUM_TIMES)[1]


def stabilising_gain(system: System, K: Array) -> Array:
    """The first gain on the way down from K for which trajectories come back to x*, or the last."""
    at = jnp.asarray(system.equilibrium[0])
    z = CLOSE * (system.domain.boundary(jax.random.key(0), NUM_STARTS) - at)
    optimiser = optax.adam(LEARNING_RATE)

    @partial(jax.value_and_grad, has_aux=True)
    def risk(K):
        found = _distances(system, z, K)
        return jnp.mean(jnp.log1p(found**2)), jnp.max(found[-1])

    def going(carry):
        _, _, left, count = carry
        return ~(left <= BACK) & (count < NUM_DESCENTS)

    def body(carry):
        K, state, _, count = carry
        (_, left), slope = risk(K)
        updates, state = optimiser.update(jnp.nan_to_num(slope), state, K)
        return jnp.where(left <= BACK, K, K + updates), state, left, count + 1

    return lax.while_loop(going, body, (K, optimiser.init(K), jnp.inf, 0))[0]
