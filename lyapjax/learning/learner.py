"""Algorithm 1: learn V and u on samples and counterexamples, as one compiled loop.

A round draws new samples (in D, close to x*, and on ∂D), takes some steps of Adam down the risk of
`objective`, searches for counterexamples (`falsifier`) and puts them into a buffer of fixed size.
Everything random comes from the key in the state, so that rounds done in two calls
are those done in one, bit for bit.
"""

import enum
import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from lyapjax.learning.falsifier import search
from lyapjax.learning.networks import LinearController, StructuredLyapunov, linear_controller
from lyapjax.learning.objective import DEFAULT, NEW, Recipe, margin_risk, regulator_of, slowest_rate
from lyapjax.learning.warmup import stabilising_gain
from lyapjax.systems.system import System


class LearnerStatus(enum.IntEnum):
    """What became of the learning; `status.message` says what to do next.

    Attributes:
      message: one sentence, what happened and what to try.

    Examples:
      >>> import lyapjax as ly
      >>> ly.LearnerStatus.CLEAN.message
      'the falsifier finds no counterexample: verify the candidate'
    """

    RUNNING = 0
    CLEAN = 1
    NOT_FINITE = 2

    @property
    def message(self) -> str:
        """One sentence: what happened and what to try."""
        return _MESSAGES[self]


_MESSAGES = {
    LearnerStatus.RUNNING: (
        "counterexamples are left: learn for more rounds, or with a wider network, a smaller "
        "margin or a smaller domain"
    ),
    LearnerStatus.CLEAN: "the falsifier finds no counterexample: verify the candidate",
    LearnerStatus.NOT_FINITE: (
        "a gradient was not finite and the candidate is that of the last round before: lower the "
        "learning rate, or keep f finite on the domain (input bounds)"
    ),
}


EMPTY = 0.01  # a level set with a smaller share of D is not a success
NEAR = 6.0  # the samples close to x* are spread over this many powers of e


class LearnerState(NamedTuple):
    """All that learning goes on from: stored and loaded, it goes on as if never interrupted.

        (V, u), what Adam remembers, the counterexamples, the key

    Attributes:
      V: the candidate, a module.
      u: the controller, a module.
      opt_state: of optax.
      counterexamples: (num_counterexamples, n) buffer.
      num_found: () int32, all counterexamples so far; the buffer holds the latest.
      key: for the rounds to come.
      num_rounds: () int32 rounds done.
      status: () int32, a `LearnerStatus`.

    Examples:
      >>> import jax, lyapjax as ly
      >>> state = ly.initialise(jax.random.key(0), ly.systems.double_integrator())
      >>> ly.LearnerStatus(int(state.status)).name
      'RUNNING'
    """

    V: Callable
    u: Callable
    opt_state: tuple
    counterexamples: Array
    num_found: Array
    key: Array
    num_rounds: Array
    status: Array


class History(NamedTuple):
    """What happened, a row a round; NaN after the last.

        risk, violation, coverage, lowest boundary value, worst violation found

    Attributes:
      risk: (rounds, num_steps) of each step of Adam.
      coverage: (rounds,) share of D in {V <= 1}, softly.
      boundary: (rounds,) least V met on ∂D.
      violation: (rounds,) the falsifier's worst.
      counterexamples: (rounds, 32, n) points added; NaN where none.

    Examples:
      >>> import jax, lyapjax as ly
      >>> system = ly.systems.double_integrator()
      >>> state = ly.initialise(jax.random.key(0), system)
      >>> ly.learn(system, state, max_rounds=1)[1].risk.shape
      (1, 50)
    """

    risk: Array
    coverage: Array
    boundary: Array
    violation: Array
    counterexamples: Array


@functools.cache
def _optimiser(recipe: Recipe) -> optax.GradientTransformation:
    steps = recipe.num_rounds * recipe.num_steps
    return optax.adam(optax.cosine_decay_schedule(recipe.learning_rate, steps, 0.05))


def initialise(
    key: Array,
    system: System,
    *,
    recipe: Recipe = DEFAULT,
    start: str = "lqr",
) -> LearnerState:
    """A learner at its start.

        V = ‖φ(x) - φ(x*)‖² + z'(R'R + εI) z,        u = u* + K z,        z = x - x*

    φ is random and small. From LQR, R'R = P scaled such that V is about 1 on ∂D where it is least,
    and K is the LQR gain.

    Args:
      key: of everything random in this run.
      system: the system; one with input bounds gets a saturated controller.
      recipe: sizes of the networks, among others.
      start: "lqr"; or "random", for R and K too, K being led by descent on trajectories to a gain
        that stabilises first (see `lyapjax.learning.warmup`); LQR only sets the unit of time then.

    Returns:
      `LearnerState`; under `jax.vmap` over keys, many at once.

    Raises:
      ValueError: an unknown start, or a linearisation that cannot be stabilised.

    Reference:
      Chang, Roohi & Gao, section 3.1: u from LQR, V random. Departure: here V starts from LQR too;
      they find random controllers to fail mostly.

    Examples:
      >>> import jax, lyapjax as ly
      >>> system = ly.systems.inverted_pendulum()
      >>> ly.initialise(jax.random.key(0), system).u.K[...].round(3).tolist()
      [[-1.977, -0.976]]
    """
    if start not in ("lqr", "random"):
        raise ValueError(f"start: expected 'lqr' or 'random', got {start!r}")
    if not isinstance(system, System):
        raise ValueError(f"system: expected a System, got {type(system).__name__}")
    P, K = jnp.asarray(regulator_of(system).P), jnp.asarray(regulator_of(system).K)
    return _initialise(key, system, recipe, P, K, random=start == "random")


@partial(jax.jit, static_argnames=("random",))
def _initialise(key, system: System, recipe: Recipe, P, K, *, random: bool) -> LearnerState:
    """`initialise`, compiled as one: its single operations would take seconds to compile."""
    n, m = system.state_dim, system.control_dim
    domain = system.domain
    at = np.asarray(system.equilibrium[0])
    half = (np.asarray(domain.hi) - np.asarray(domain.lo)) / 2
    next_key, *keys = jax.random.split(key, 5 + 2 * len(recipe.hidden))
    weights, biases, size = [], [], n
    for i, width in enumerate(recipe.hidden):
        scale = 1.5 / half if i == 0 else 1 / np.sqrt(size)
        weights.append(scale * jax.random.normal(keys[2 * i], (width, size)))
        biases.append(jax.random.normal(keys[2 * i + 1], (width,)))
        size = width
    A = 0.1 * jax.random.normal(keys[-1], (recipe.num_features, size))
    if random:
        M = jax.random.normal(keys[-2], (n, n)) / np.sqrt(n)
        P = (M @ M.T + jnp.eye(n)) / (half[:, None] * half)
        K = jax.random.normal(keys[-3], (m, n))
        K = stabilising_gain(system, K) if m else K
    rim = domain.boundary(jax.random.key(0), 256) - at
    R = jnp.linalg.cholesky(P / jnp.min(jnp.sum((rim @ P) * rim, axis=1))).T
    V = StructuredLyapunov(weights, biases, A, R, equilibrium=system.equilibrium[0])
    pair = system.equilibrium
    u = linear_controller(system, K) if m else LinearController(K, equilibrium=pair)
    return LearnerState(
        V,
        u,
        _optimiser(recipe).init((V, u)),
        jnp.broadcast_to(jnp.asarray(at), (recipe.num_counterexamples, n)),
        jnp.int32(0),
        next_key,
        jnp.int32(0),
        jnp.int32(LearnerStatus.RUNNING),
    )


def _descend(system: System, recipe: Recipe, pair: tuple, opt_state, data: tuple):
    """`num_steps` steps of Adam on one set of points."""
    optimiser = _optimiser(recipe)

    def step(carry, _):
        pair, opt_state = carry
        risk = partial(margin_risk, system, recipe)
        (value, facts), slope = jax.value_and_grad(lambda pair: risk(*pair, data), has_aux=True)(
            pair
        )
        updates, opt_state = optimiser.update(slope, opt_state, pair)
        return (optax.apply_updates(pair, updates), opt_state), (value, facts)

    return lax.scan(step, (pair, opt_state), None, length=recipe.num_steps)


def _round(system: System, recipe: Recipe, state: LearnerState) -> tuple[LearnerState, History]:
    """New samples, steps of descent, a search for counterexamples."""
    domain, at = system.domain, jnp.asarray(system.equilibrium[0])
    half = max(recipe.num_samples // 2, 1)
    next_key, *keys = jax.random.split(state.key, 6)
    rim = domain.boundary(keys[1], half)
    shrink = jnp.exp(-1 - NEAR * jax.random.uniform(keys[3], (half, 1)))
    close = at + shrink * (domain.boundary(keys[2], half) - at)
    x = domain.uniform(keys[0], recipe.num_samples)
    # A place of the buffer that is still empty holds a sample, whose violation is not counted.
    filled = jnp.arange(recipe.num_counterexamples) < state.num_found
    x = jnp.concatenate([x, jnp.where(filled[:, None], state.counterexamples, x[0])])
    filled = jnp.concatenate([jnp.ones(recipe.num_samples, bool), filled])
    (pair, opt_state), (risk, facts) = _descend(
        system, recipe, (state.V, state.u), state.opt_state, (x, close, rim, filled)
    )
    V, u = pair
    rate = recipe.safety * recipe.margin * slowest_rate(system)
    width = max(b - a for a, b in zip(domain.lo, domain.hi))
    found = search(
        keys[4], V, system.closed_loop(u), domain, at, jnp.asarray(1.0), 1e-3 * width,
        jnp.asarray(rate), num_starts=1024, num_steps=15, num_points=NEW,
    )  # fmt: skip
    bad = jnp.isfinite(found.violation) & (found.violation >= 0)  # sorted: the first are bad
    num = jnp.sum(bad, dtype=jnp.int32)
    where = (state.num_found + jnp.arange(NEW)) % recipe.num_counterexamples
    where = jnp.where(bad, where, recipe.num_counterexamples)  # out of bounds: dropped
    buffer = state.counterexamples.at[where].set(found.x, mode="drop")
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(v)) for v in jax.tree.leaves(pair)]))
    finite &= jnp.all(jnp.isfinite(risk))
    nonempty = facts[0][-1] > EMPTY
    clean = (
        ~found.found & nonempty & (facts[1][-1] > 1) & (state.num_rounds + 1 >= recipe.num_rounds)
    )
    status = jnp.where(clean, LearnerStatus.CLEAN, LearnerStatus.RUNNING)
    after = LearnerState(
        V, u, opt_state, buffer, state.num_found + num, next_key, state.num_rounds + 1,
        status.astype(jnp.int32),
    )  # fmt: skip
    kept = state._replace(status=jnp.int32(LearnerStatus.NOT_FINITE))
    after = jax.tree.map(partial(jnp.where, finite), after, kept)
    rows = History(
        risk, facts[0][-1], facts[1][-1], found.violation[0],
        jnp.where(bad[:, None], found.x, jnp.nan),
    )  # fmt: skip
    return after, rows


def _learn(system: System, recipe: Recipe, state: LearnerState, max_rounds: int):
    n = system.state_dim

    def blank(*shape):
        return jnp.full((max_rounds, *shape), jnp.nan)

    empty = History(blank(recipe.num_steps), blank(), blank(), blank(), blank(NEW, n))

    def going(carry):
        state, _, done = carry
        return (state.status == LearnerStatus.RUNNING) & (done < max_rounds)

    def body(carry):
        state, history, done = carry
        state, rows = _round(system, recipe, state)
        return state, jax.tree.map(lambda h, r: h.at[done].set(r), history, rows), done + 1

    state, history, _ = lax.while_loop(going, body, (state, empty, jnp.int32(0)))
    return state, history


# By itself it is compiled without XLA's emitter of fused loops, in 0.7 times the time (jaxlib
# 0.10.2); inside of a caller's `jit` or `vmap` it is compiled as the caller says.
_learn_alone = jax.jit(
    _learn,
    static_argnames=("max_rounds",),
    compiler_options={"xla_cpu_use_fusion_emitters": False},
)
_learn_within = jax.jit(_learn, static_argnames=("max_rounds",))


def learn(
    system: System,
    state: LearnerState,
    *,
    recipe: Recipe = DEFAULT,
    max_rounds: int = 100,
) -> tuple[LearnerState, History]:
    """Learn until the falsifier finds nothing, as one compiled loop.

        θ ← θ - Adam(∇ risk),        then counterexamples into the buffer, a round at a time

    Not before `recipe.num_rounds` rounds, after which the learning rate is low. Rounds done in two
    calls are, bit for bit, those done in one. To go on from CLEAN, set `status` to 0, or call with
    the points that a verifier refuted put in by `add_counterexamples`.

    Args:
      system: the system.
      state: from `initialise`, or from an earlier call, or loaded.
      recipe: the same as for `initialise`.
      max_rounds: most rounds of this call.

    Returns:
      The state after, and `History` of these rounds. NaN is a status, NOT_FINITE; the candidate
      then is that of the last round before it.

    Raises:
      ValueError: `max_rounds` not positive, or a buffer that is not of the recipe's size.

    Reference:
      Chang, Roohi & Gao, Algorithm 1. Departure: the risk has margins (`Recipe`), the optimiser
      is Adam and descends (the print ascends), the falsifier is a search.

    Examples:
      >>> import jax, lyapjax as ly
      >>> system = ly.systems.double_integrator()
      >>> state = ly.initialise(jax.random.key(0), system)
      >>> state, history = ly.learn(system, state)
      >>> ly.LearnerStatus(int(state.status)).name, bool(history.coverage[59] > 0.8)
      ('CLEAN', True)
    """
    if isinstance(max_rounds, bool) or not isinstance(max_rounds, int) or max_rounds < 1:
        raise ValueError(f"max_rounds: expected a positive integer, got {max_rounds!r}")
    if not isinstance(state, LearnerState):
        raise ValueError(f"state: expected a LearnerState, got {type(state).__name__}")
    size = (recipe.num_counterexamples, system.state_dim)
    if state.counterexamples.shape[-2:] != size:
        raise ValueError(
            f"state: expected a buffer of shape {size} (the recipe's of `initialise`), got "
            f"{state.counterexamples.shape}"
        )
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((system, state)))
    return (_learn_within if traced else _learn_alone)(system, recipe, state, max_rounds)


def add_counterexamples(state: LearnerState, x: Array) -> LearnerState:
    """Put points into the buffer, over the oldest, and let the learner run on.

        X ← X ∪ {x_1, …, x_k}

    Args:
      state: of the learner.
      x: (k, n) points, for example those at which a verifier refuted V or could not decide.

    Returns:
      The state with status RUNNING.

    Raises:
      ValueError: points of another dimension, or more than the buffer holds.

    Reference:
      Chang, Roohi & Gao, Algorithm 1, line 21.

    Examples:
      >>> import jax, jax.numpy as jnp, lyapjax as ly
      >>> state = ly.initialise(jax.random.key(0), ly.systems.double_integrator())
      >>> int(ly.add_counterexamples(state, jnp.ones((3, 2))).num_found)
      3
    """
    x = jnp.asarray(x, float)
    size, n = state.counterexamples.shape
    if x.ndim != 2 or x.shape[1] != n or x.shape[0] > size:
        raise ValueError(f"x: expected at most {size} points of shape ({n},), got {x.shape}")
    where = (state.num_found + jnp.arange(x.shape[0])) % size
    return state._replace(
        counterexamples=state.counterexamples.at[where].set(x),
        num_found=state.num_found + x.shape[0],
        status=jnp.int32(LearnerStatus.RUNNING),
    )
