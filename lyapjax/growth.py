"""`grow`: learn a controller and a V whose region `verify_region` can prove, as large as it gets.

    V(x) = ‖L'y‖² + ‖A tanh(W y)‖²,    u(x) = u* + K y + W2 tanh(W1 y),    y = x - x*

W and W1 see chosen coordinates only (`sees`): those are what a proof has to cut, so they should be
the ones that the system is not linear in. Everything starts from LQR, with features that are small
and a network in the controller that is zero, and is learned relative to that. Minimised is

    weight mean h + peak (mean of the largest h) - log volume{V <= 1} + what leaves the domain,
    h = max(0, V̇/(λ V) + margin)    on {V <= 1}

at points drawn in the ball of L'y, so that the samples follow the region as it grows, and at the
hardest points met so far with others close to them; λ is the slowest rate of the LQR loop. V̇/V does
not vanish at x*, so the samples near x* count as those far from it, and a margin there is what the
proof needs there.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from lyapjax.learning.conditions import lie_derivative
from lyapjax.learning.lqr import lqr
from lyapjax.learning.networks import TanhController
from lyapjax.proofs.attraction import Region, largest_level, verify_region
from lyapjax.systems.domains import Ball
from lyapjax.systems.system import System, as_pytree, require_float64

NUM_SAMPLES = 1024
NUM_WORST = 16
NUM_HARD = 128
FADE = 0.03


class Candidate(NamedTuple):
    """A Lyapunov function and a controller, as arrays.

        V(x) = ‖L'y‖² + ‖A tanh(W y)‖²,    u(x) = u* + K y + W2 tanh(W1 y)

    Attributes:
      L: (n, n) lower triangular.
      A: (p, width) of the features.
      W: (width, n), zero in the columns that the features do not see.
      K: (m, n) gain.
      W1: (width, n) of the controller, zero in the same columns.
      W2: (m, width).

    Examples:
      >>> import jax, lyapjax as ly
      >>> candidate, _ = ly.grow(jax.random.key(0), ly.systems.double_integrator(), num_steps=10)
      >>> candidate.K.shape
      (1, 2)
    """

    L: Array
    A: Array
    W: Array
    K: Array
    W1: Array
    W2: Array

    @property
    def P(self) -> np.ndarray:
        """(n, n) L L', symmetric in floating point too."""
        L = np.asarray(self.L)
        return 0.5 * (L @ L.T + (L @ L.T).T)


def features(candidate: Candidate, equilibrium: Array, x: Array) -> Array:
    """φ(x) = A tanh(W y)."""
    return candidate.A @ jnp.tanh(candidate.W @ (x - equilibrium))


def controller(candidate: Candidate, system: System) -> TanhController:
    """u as a module."""
    return TanhController(candidate.K, candidate.W1, candidate.W2, equilibrium=system.equilibrium)


def value(candidate: Candidate, equilibrium: Array, x: Array) -> Array:
    """V(x)."""
    inner = candidate.L.T @ (x - equilibrium)
    return inner @ inner + jnp.sum(jnp.square(features(candidate, equilibrium, x)))


def _risk(system, rate, weights, candidate: Candidate, key, hard: Array, pull: Array):
    """The risk, and (log volume, greatest V̇/(λ V)), and the hardest points."""
    margin, weight, peak, effort = weights
    at = jnp.asarray(system.equilibrium[0])
    rest = jnp.asarray(system.equilibrium[1])
    n = system.state_dim

    def f(x):
        y = x - at
        return system.f(x, rest + candidate.K @ y + candidate.W2 @ jnp.tanh(candidate.W1 @ y))

    one, two = jax.random.split(key)
    z = jax.random.normal(one, (NUM_SAMPLES, n))
    radius = jax.random.uniform(two, (NUM_SAMPLES, 1)) ** (1 / n)
    # Half uniform in the ball, half closer to x*.
    radius = jnp.where(jnp.arange(NUM_SAMPLES)[:, None] % 2 == 0, radius, radius ** (n / 2))
    z = radius * z / jnp.linalg.norm(z, axis=1, keepdims=True)
    # The hardest points so far, and others close to them.
    near = hard + 0.1 * jnp.linalg.norm(hard, axis=1, keepdims=True) * jax.random.normal(
        jax.random.fold_in(key, 2), hard.shape
    )
    near = near / jnp.maximum(1.0, jnp.linalg.norm(near, axis=1, keepdims=True))
    z = jnp.concatenate([z, hard, near])
    x = at + jax.scipy.linalg.solve_triangular(candidate.L.T, z.T, lower=False).T

    def look(x):
        V = partial(value, candidate, at)
        size = V(x)
        return size, lie_derivative(V, f, x) / (rate * size)

    size, slope = jax.vmap(look)(x)
    member = jax.nn.sigmoid((1 + 2 * FADE - size) / FADE)
    h = jax.nn.relu(slope + margin) * member
    share = jnp.mean(member[:NUM_SAMPLES:2])
    diagonal = jnp.abs(jnp.diag(candidate.L))
    volume = jnp.log(share) - jnp.sum(jnp.log(diagonal))
    P = candidate.L @ candidate.L.T
    domain = system.domain
    if isinstance(domain, Ball):
        room = domain.radius - jnp.linalg.norm(at - jnp.asarray(domain.centre))
        outside = jax.nn.relu(-jnp.log(jnp.linalg.eigvalsh(P)[0] * room**2) + 0.02)
    else:
        room = jnp.minimum(at - jnp.asarray(domain.lo), jnp.asarray(domain.hi) - at)
        outside = jnp.sum(jax.nn.relu(jnp.log(jnp.diag(jnp.linalg.inv(P)) / room**2) + 0.02))
    gains = jnp.sum(candidate.K**2) + jnp.sum(candidate.W2**2)
    most, order = lax.top_k(jnp.where(size <= 1 + FADE, slope, -jnp.inf), len(hard))
    worst = jnp.mean(lax.top_k(h, NUM_WORST)[0])
    risk = weight * jnp.mean(h[:NUM_SAMPLES]) + peak * worst - pull * volume / n
    return risk + outside + effort * gains, ((volume, most[0]), z[order])


def _extent(L: Array) -> Array:
    """How far {‖L'y‖ <= 1} reaches along each axis."""
    return jnp.linalg.norm(jnp.linalg.inv(L), axis=0)


def _placed(start: Candidate, sees: Array, free: Candidate) -> Candidate:
    """The candidate of parameters that are relative to the region and the inputs of the start.

    A step of Adam is of one size for all; without this it would be a large one for some entries
    and nothing for others: for three links those of L differ by a factor of 1,000.
    """
    size = _extent(start.L)
    push = _push(start)[:, None]
    return Candidate(
        start.L @ jnp.tril(free.L),
        free.A,
        sees * free.W / size,
        start.K + push * free.K / size,
        sees * free.W1 / size,
        push * free.W2,
    )


def _push(start: Candidate) -> Array:
    """The largest |K y| of each input on {‖L'y‖ <= 1}."""
    most = jnp.linalg.norm(jnp.linalg.solve(start.L, start.K.T), axis=0)
    return jnp.where(most > 0, most, 1.0)


@partial(jax.jit, static_argnames=("system", "num_steps"))
def _train(system, start, key, sees, rate, weights, learning_rate, *, num_steps):
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps, 0.02)),
    )
    size, n = _extent(start.L), len(start.L)

    def step(carry, now):
        (free, state, hard), (key, pull) = carry, now

        def risk(free):
            return _risk(system, rate, weights, _placed(start, sees, free), key, hard, pull)

        slope, (seen, hard) = jax.grad(risk, has_aux=True)(free)
        update, state = optimiser.update(slope, state)
        return (optax.apply_updates(free, update), state, hard), seen

    keys = jax.random.split(key, num_steps)
    # In the last third the region stops growing, so that what is left of violations goes.
    pull = jnp.clip(3.0 * (1 - jnp.arange(num_steps) / num_steps), 0.02, 1.0)
    hard = 0.5 * jnp.ones((NUM_HARD, n)) / n
    free = Candidate(
        jnp.eye(n), start.A, start.W * size, jnp.zeros_like(start.K), start.W1 * size,
        start.W2 / _push(start)[:, None],
    )  # fmt: skip
    (free, _, _), seen = lax.scan(step, (free, optimiser.init(free), hard), (keys, pull))
    return _placed(start, sees, free), seen


def grow(
    key: Array,
    system: System,
    *,
    sees: tuple[int, ...] = (),
    width: int = 4,
    num_features: int = 2,
    num_steps: int = 1500,
    margin: float = 0.5,
    weight: float = 20.0,
    peak: float = 2.0,
    effort: float = 1e-4,
    learning_rate: float = 0.01,
    start: Candidate | None = None,
) -> tuple[Candidate, tuple[Array, Array]]:
    """Learn a controller and a Lyapunov function with a large region {V <= 1}.

        V(x) = ‖L'y‖² + ‖A tanh(W y)‖²,    u(x) = u* + K y + W2 tanh(W1 y)

    Nothing is proved here; `verify_candidate` does that.

    Args:
      key: of the starting weights and the samples.
      system: without input bounds.
      sees: coordinates that the networks see, from 0; without any, V is quadratic and u linear.
      width: tanh units of each network.
      num_features: p.
      num_steps: of Adam.
      margin: of decay, in units of the LQR loop's slowest rate.
      weight: of the mean violation.
      peak: of the mean of the largest.
      effort: of the squares of the gains.
      learning_rate: at the start.
      start: a candidate to go on from; LQR by default.

    Returns:
      `Candidate`, and by step the logarithm of the volume of {V <= 1} and the greatest V̇/(λ V) met.

    Raises:
      ValueError: a system with input bounds or without input, coordinates that it does not have,
        float32.

    Reference:
      Chang, Roohi & Gao, Algorithm 1 and section 3.3. Departure: samples follow the region, and its
      volume is in the objective as such.

    Examples:
      >>> import jax, lyapjax as ly
      >>> system = ly.systems.double_integrator()
      >>> _, (volume, _) = ly.grow(jax.random.key(0), system, num_steps=300)
      >>> bool(volume[-1] > volume[0])
      True
    """
    require_float64("grow")
    n, m = system.state_dim, system.control_dim
    if system.input_bounds is not None or m == 0:
        raise ValueError("system: expected inputs without bounds; for others use `synthesize`")
    if any(not isinstance(i, int) or not 0 <= i < n for i in sees):
        raise ValueError(f"sees: expected coordinates from 0 to {n - 1}, got {sees!r}")
    for name, number in (
        ("width", width),
        ("num_features", num_features),
        ("num_steps", num_steps),
    ):
        if number < 1:
            raise ValueError(f"{name}: expected at least 1, got {number!r}")
    regulator = lqr(system)
    one, two, three = jax.random.split(key, 3)
    if start is None:
        scale = 1.0 / largest_level(regulator.P, np.asarray(system.equilibrium[0]), system.domain)
        # LQR's own region is rarely as large as the domain; growing begins from a small one.
        L = jnp.asarray(np.linalg.cholesky(regulator.P * max(scale, 4.0 / n)))
        start = Candidate(
            L,
            0.2 * jax.random.normal(one, (num_features, width)),
            jax.random.normal(two, (width, n)) / _extent(L),
            jnp.asarray(regulator.K),
            jax.random.normal(three, (width, n)) / _extent(L),
            jnp.zeros((m, width)),
        )
    mask = jnp.zeros(n).at[jnp.asarray(sees, int)].set(1.0)
    rate = float(np.min(-regulator.eigenvalues.real))
    weights = tuple(jnp.asarray(float(v)) for v in (margin, weight, peak, effort))
    return _train(
        system, start, jax.random.fold_in(key, 1), mask, jnp.asarray(rate), weights,
        jnp.asarray(learning_rate), num_steps=num_steps,
    )  # fmt: skip


def verify_candidate(candidate: Candidate, system: System, **budget) -> Region:
    """Prove the region of a candidate.

        x(0) in {V <= c}   implies   x(t) → x*

    Args:
      candidate: from `grow`.
      system: its system.
      budget: level, max_boxes, max_seconds, callback_fn, checkpoint of `verify_region`.

    Returns:
      `Region`.

    Raises:
      ValueError: as `verify_region`.

    Reference:
      See `lyapjax.proofs.attraction`.

    Examples:
      >>> import jax, lyapjax as ly
      >>> system = ly.systems.double_integrator()
      >>> candidate, _ = ly.grow(jax.random.key(0), system, num_steps=300)
      >>> ly.verify_candidate(candidate, system).proved
      True
    """
    at = np.asarray(system.equilibrium[0])
    f = system.closed_loop(as_pytree(controller(candidate, system)))
    phi: Callable | None = partial(features, candidate, jnp.asarray(at))
    if not np.asarray(candidate.W).any():
        phi = None
    return verify_region(f, candidate.P, system.domain, at, features_fn=phi, **budget)
