"""Falsifier: it finds what is planted, reports what is true, and finds nothing where nothing is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import lyapjax as ly
from lyapjax.learning.falsifier import spread

UNIT = ly.Ball(1.0, (0.0, 0.0))


def bump(x, centre, size):
    """Positive within `size` of the centre (where it is 1), smooth, zero outside."""
    square = jnp.sum((x - centre) ** 2) / size**2
    return jnp.where(square < 1, (1 - jnp.minimum(square, 1)) ** 2, 0)


def test_planted_violations_of_a_thousandth_of_the_domain_are_found():
    """V̇ = -2‖x‖² but for a disc of 1e-3 of the area, somewhere in D; 40 places."""
    size = np.sqrt(1e-3)
    rng = np.random.default_rng(0)
    angle, length = rng.uniform(0, 2 * np.pi, 40), np.sqrt(rng.uniform(0.04, 0.9, 40))
    places = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def f(centre, x):
        return x * (4 * bump(x, centre, size) - 1)

    V = ly.quadratic_lyapunov(np.eye(2))
    for place in places:
        found = ly.falsify(jax.random.key(1), V, Partial(f, jnp.asarray(place)), UNIT)
        assert bool(found.found)
        assert np.linalg.norm(np.asarray(found.x[0]) - place) < size
        assert float(found.derivative[0]) > 0


def test_what_is_reported_is_true():
    system = ly.systems.van_der_pol()
    V = ly.quadratic_lyapunov(ly.lqr(system).P)
    f = system.closed_loop()
    found = ly.falsify(jax.random.key(0), V, f, system.domain, level=4.0, radius=0.1, rate=0.1)
    assert bool(found.found)
    assert np.all(np.diff(found.violation) <= 0)
    for x, violation, value, slope in zip(*found[:4]):
        assert float(V(x)) == pytest.approx(float(value), rel=1e-12)
        expected = float(ly.lie_derivative(V, f, x))
        assert expected == pytest.approx(float(slope), rel=1e-9, abs=1e-9)
        if np.isfinite(violation):
            assert float(value) <= 4.0
            assert float(jnp.linalg.norm(x)) >= 0.1
            assert float(system.domain.gauge(x)) <= 1
            quotient = max(-value, slope + 0.1 * value) / float(x @ x)
            assert float(violation) == pytest.approx(float(quotient), rel=1e-9, abs=1e-9)


def test_the_search_climbs_to_the_maximum():
    # V̇/‖x‖² = -1 + 0.5 cos(3 x1) cos(2 x2 - 1), greatest -0.5 at x2 = 0.5, x1 = 0.
    def f(x):
        return x / 2 * (-1 + 0.5 * jnp.cos(3 * x[0]) * jnp.cos(2 * x[1] - 1))

    found = ly.falsify(jax.random.key(0), lambda x: x @ x, f, UNIT, num_starts=64)
    assert not bool(found.found)
    assert float(found.violation[0]) == pytest.approx(-0.5, abs=1e-6)
    np.testing.assert_allclose(found.x[0], [0, 0.5], atol=1e-3)


def test_true_lyapunov_functions_have_no_counterexample_and_false_ones_do():
    system = ly.systems.double_integrator()
    regulator = ly.lqr(system)
    V = ly.quadratic_lyapunov(regulator.P)
    key = jax.random.key(0)
    for K, expected in ((regulator.K, False), (regulator.K * [[-0.1, 1]], True)):
        f = system.closed_loop(ly.linear_controller(system, K))
        assert bool(ly.falsify(key, V, f, system.domain).found) is expected
    # V negative somewhere is a counterexample too.
    found = ly.falsify(key, lambda x: x @ x - 0.1, lambda x: -x, UNIT)
    assert bool(found.found)
    assert float(found.V[0]) < 0


def test_only_the_level_set_is_searched():
    # V̇ >= 0 exactly where ‖x‖ >= 0.7, that is V >= 0.49.
    key = jax.random.key(0)

    def V(x):
        return x @ x

    def f(x):
        return x * (x @ x - 0.49)

    assert not bool(ly.falsify(key, V, f, UNIT, level=0.48).found)
    assert bool(ly.falsify(key, V, f, UNIT, level=0.5).found)
    assert bool(ly.falsify(key, V, f, UNIT).found)
    # Nothing admissible at all: nothing found.
    assert not bool(ly.falsify(key, V, f, UNIT, level=1e-9).found)


def test_nan_is_a_counterexample():
    found = ly.falsify(
        jax.random.key(0), lambda x: x @ x, lambda x: -x * jnp.sqrt(0.99 - x[0] ** 2), UNIT
    )
    assert bool(found.found)
    assert np.isnan(float(found.derivative[0]))


def test_the_least_value_on_the_boundary():
    P = np.array([[3.0, 1.0], [1.0, 2.0]])
    V = ly.quadratic_lyapunov(P)
    least = np.linalg.eigvalsh(P)[0]
    c, x = ly.boundary_minimum(jax.random.key(0), V, ly.Ball(2.0, (0.0, 0.0)))
    assert float(c) == pytest.approx(4 * least, rel=1e-8)
    assert float(jnp.linalg.norm(x)) == pytest.approx(2.0)
    # On the face x1 = 1: minimise 3 + 2 t + 2 t², t = -1/2: 2.5; on x2 = ±1 with t = -1/3: 5/3.
    c, x = ly.boundary_minimum(jax.random.key(0), V, ly.Box((-1.0, -1.0), (1.0, 1.0)))
    assert float(c) == pytest.approx(5 / 3, rel=1e-8)
    assert float(jnp.max(jnp.abs(x))) == 1.0


def test_large_batches_are_right():
    """jaxlib 0.10.2 is wrong from row 16384 of a batch on (jax-ml/jax issue 39103)."""
    V = ly.quadratic_lyapunov([[3.0, 1.0], [1.0, 2.0]])
    A = jnp.array([[-1.0, 0.7], [-0.4, -0.5]])
    found = ly.falsify(jax.random.key(0), V, lambda x: A @ x, UNIT, num_starts=40_000, num_steps=0)
    S = A.T @ np.array([[3.0, 1.0], [1.0, 2.0]])
    exact = np.einsum("ki,ij,kj->k", found.x, S + S.T, found.x)
    np.testing.assert_allclose(found.derivative, exact, rtol=1e-12)
    worst = np.linalg.eigvalsh(S + S.T)[-1]
    assert float(found.violation[0]) == pytest.approx(worst, rel=1e-3)


def test_the_starting_points_leave_no_large_gaps():
    x = np.asarray(spread(jax.random.key(3), ly.Box((0.0, 0.0), (1.0, 1.0)), 4096))
    cells = {tuple(cell) for cell in (x * 32).astype(int)}
    assert len(cells) == 32 * 32


def test_deterministic_compiled_and_compiled_once_for_all_weights():
    V = ly.quadratic_lyapunov(np.eye(2))
    system = ly.systems.double_integrator()
    f = [system.closed_loop(ly.LinearController([[-1.0, k]])) for k in (-1.0, -2.0)]
    key = jax.random.key(0)
    ly.falsify(key, V, f[0], UNIT)
    with count_compilations() as count:
        first = ly.falsify(key, V, f[1], UNIT, level=0.5, rate=0.01)
        again = ly.falsify(key, V, f[1], UNIT, level=0.5, rate=0.01)
    assert count[0] == 0
    jax.tree.map(np.testing.assert_array_equal, first, again)
    batch = jax.vmap(lambda level: ly.falsify(key, V, f[1], UNIT, level=level).violation[0])
    levels = jnp.array([0.2, 0.5])
    loop = [ly.falsify(key, V, f[1], UNIT, level=level).violation[0] for level in levels]
    np.testing.assert_allclose(batch(levels), loop, rtol=1e-9, atol=1e-12)


class count_compilations:
    """Counts backend compilations in a `with` block."""

    def __enter__(self):
        self.count = [0]
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self.count

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, duration, **_):
        self.count[0] += event == "/jax/core/compile/backend_compile_duration"


def test_bad_input_is_named():
    key = jax.random.key(0)

    def call(**kwargs):
        domain = kwargs.pop("domain", UNIT)
        return lambda: ly.falsify(key, jnp.sum, lambda x: -x, domain, **kwargs)

    for attempt, match in (
        (call(domain=1.0), "domain: expected a Ball or a Box, got 1.0"),
        (call(equilibrium=np.zeros(3)), r"equilibrium: expected shape \(2,\), got \(3,\)"),
        (call(radius=-1.0), "radius: expected a number of at least 0, got -1"),
        (call(rate=-0.1), "rate: expected a number of at least 0"),
        (call(level=np.nan), "level: expected a number"),
        (call(level=np.ones(2)), r"level: expected a number, got shape \(2,\)"),
        (call(num_starts=0), "num_starts: expected at least 1, got 0"),
        (call(num_points=0), "num_points: expected at least 1, got 0"),
        (call(num_steps=-1), "num_steps: expected at least 0, got -1"),
        (lambda: ly.boundary_minimum(key, jnp.sum, None), "domain: expected a Ball or a Box"),
        (lambda: ly.boundary_minimum(key, jnp.sum, UNIT, num_starts=0), "num_starts: expected"),
    ):
        with pytest.raises(ValueError, match=match):
            attempt()
