"""Growing regions: the objective's parts, the proof of what was learned, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.growth import controller, features, value


@pytest.fixture(scope="module")
def fan():
    """A few hundred steps for the ducted fan."""
    system = ly.systems.ducted_fan(radius=6.0)
    candidate, history = ly.grow(jax.random.key(1), system, sees=(2,), num_steps=300)
    return system, candidate, history


@pytest.mark.slow
def test_a_learned_region_of_six_states_is_proved_and_larger_than_lqrs(fan):
    system, candidate, (volumes, _) = fan
    proof = ly.verify_candidate(candidate, system)
    assert proof.proved
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    lqr = ly.verify_region(f, regulator.P, system.domain)
    assert proof.volume > 3 * lqr.volume > 0
    # Neural V and neural u, again in ball arithmetic.
    again = ly.replay(ly.region_certificate(proof))
    assert (again.verdict, again.reason) == (ly.Verdict.PROVED, "")
    assert float(volumes[-1]) > float(volumes[0])
    # Trajectories from the edge end up close to the hover.
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8, 6))
    x = jnp.asarray(np.sqrt(0.9 * proof.level) * z / np.linalg.norm(z, axis=1)[:, None] @ proof.R.T)
    loop = system.closed_loop(controller(candidate, system))
    V = jax.vmap(lambda x: value(candidate, jnp.zeros(6), x))

    @jax.jit
    def run(x):
        def step(x, _):
            k1 = loop(x)
            k2 = loop(x + 0.005 * k1)
            return x + 0.01 * k2, V_of(x)

        def V_of(x):
            return value(candidate, jnp.zeros(6), x)

        return jax.lax.scan(step, x, None, length=3000)[1]

    inside = np.asarray(V(x)) <= proof.level
    falls = np.asarray(jax.vmap(run)(x))[inside]
    assert len(falls)
    assert (np.diff(falls, axis=1) < 0).all()


@pytest.mark.slow
def test_networks_see_what_they_are_told_to_and_vanish_at_the_equilibrium(fan):
    system, candidate, _ = fan
    others = [i for i in range(6) if i != 2]
    assert not np.asarray(candidate.W)[:, others].any()
    assert not np.asarray(candidate.W1)[:, others].any()
    assert np.asarray(candidate.W)[:, 2].all()
    zero = jnp.zeros(6)
    assert not np.asarray(features(candidate, zero, zero)).any()
    np.testing.assert_array_equal(controller(candidate, system)(zero), system.equilibrium[1])
    x = jnp.arange(6.0) / 7
    phi = features(candidate, zero, x)
    expected = x @ candidate.P @ x + phi @ phi
    assert float(value(candidate, zero, x)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
def test_three_links_with_networks_in_V_and_u_are_proved_in_few_boxes():
    """The paper's ‖x‖ <= 0.5, six states, all three angles seen by both networks."""
    system = ly.systems.n_link(3, radius=0.5)
    candidate, _ = ly.grow(jax.random.key(0), system, sees=(0, 1, 2), num_steps=800, margin=0.7)
    proof = ly.verify_candidate(candidate, system, level=0.5)
    assert proof.proved
    assert proof.by_sectors
    assert len(proof.lo) < 100
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    lqr = ly.verify_region(f, regulator.P, system.domain)
    assert proof.volume > 100 * lqr.volume > 0
    # Networks that are there: of V some part at the edge, of u some part of a newton metre.
    x = jnp.asarray(np.eye(6)[:3] @ proof.R.T) * np.sqrt(0.5)
    phi = jax.vmap(lambda x: features(candidate, jnp.zeros(6), x))(x)
    assert float(jnp.sum(phi**2, axis=1).max()) > 1e-3
    network = jnp.tanh(x @ candidate.W1.T) @ candidate.W2.T
    assert float(jnp.abs(network).max()) > 1e-3
    # The volume is that of {V <= c}: a lower bound, and close.
    z = np.random.default_rng(0).normal(size=(100_000, 6))
    z *= np.random.default_rng(1).uniform(size=(len(z), 1)) ** (1 / 6) / np.linalg.norm(
        z, axis=1, keepdims=True
    )
    V = jax.vmap(lambda x: value(candidate, jnp.zeros(6), x))
    values = np.asarray(V(jnp.asarray(np.sqrt(0.5) * z @ proof.R.T)))
    ball = np.pi**3 / 6 * 0.5**3 * np.linalg.det(proof.R)
    assert proof.volume == pytest.approx(ball * np.mean(values <= 0.5), rel=0.01)


def test_growing_is_deterministic_and_bad_input_is_named():
    system = ly.systems.double_integrator()
    runs = [ly.grow(jax.random.key(0), system, num_steps=20)[0] for _ in range(2)]
    np.testing.assert_array_equal(runs[0].K, runs[1].K)
    for call, match in (
        (lambda: ly.grow(jax.random.key(0), ly.systems.van_der_pol()), "system: expected inputs"),
        (
            lambda: ly.grow(jax.random.key(0), system, sees=(2,)),
            "sees: expected coordinates from 0",
        ),
        (lambda: ly.grow(jax.random.key(0), system, num_steps=0), "num_steps: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
