"""`synthesize`: the whole chain on the paper's systems, its budget and its resumption."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def pendulum():
    """The paper's first system, synthesised."""
    calls = []
    result = ly.synthesize(
        ly.systems.inverted_pendulum(),
        key=KEY,
        max_seconds=600.0,
        callback_fn=lambda *args: calls.append(args),
    )
    return result, calls


def test_the_pendulum_is_proved_on_a_large_region(pendulum):
    result, calls = pendulum
    assert result.proved
    assert result.reason == ""
    assert result.volume >= 47
    assert result.volume <= result.system.domain.volume
    assert [call[:2] for call in calls[:2]] == [("learn", 0), ("verify", 0)]
    assert result.seconds["total"] >= result.seconds["learn"] + result.seconds["verify"]


def test_trajectories_do_what_is_proved(pendulum):
    """From the edge of the level set, by Runge–Kutta: inside D, V falling, to the equilibrium."""
    result, _ = pendulum
    system, V = result.system, result.V
    f = jax.jit(jax.vmap(system.closed_loop(result.u)))
    x = system.domain.uniform(jax.random.key(1), 4000)
    x = x[np.asarray(jax.vmap(V)(x)) <= result.level]
    assert len(x) / 4000 >= result.volume / system.domain.volume - 0.03
    h = 1e-3
    values = np.asarray(jax.vmap(V)(x))
    for _ in range(3000):
        a = f(x)
        b = f(x + h / 2 * a)
        c = f(x + h / 2 * b)
        x = x + h / 6 * (a + 2 * b + 2 * c + f(x + h * c))
        now = np.asarray(jax.vmap(V)(x))
        assert np.all(now <= values)
        assert float(system.domain.gauge(x).max()) < 1
        values = now
    assert values.max() < 0.6 * result.level


@pytest.mark.slow
def test_random_starts_are_proved_too():
    system = ly.systems.inverted_pendulum()
    for seed in range(3):
        result = ly.synthesize(system, key=jax.random.key(seed), start="random", max_seconds=600.0)
        assert result.proved
        assert result.volume >= 47


def test_a_spent_budget_is_unknown_with_a_reason():
    system = ly.systems.double_integrator()
    result = ly.synthesize(system, key=KEY, max_seconds=1e-6)
    assert result.verdict is ly.Verdict.UNKNOWN
    assert not result.proved
    assert "nothing was verified" in result.reason
    assert np.isnan(result.level)
    assert result.volume == 0
    # What was learned is not lost.
    again = ly.synthesize(system, key=KEY, state=result.state)
    assert again.proved


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path):
    system, path = ly.systems.double_integrator(), tmp_path / "run.npz"
    recipe = ly.Recipe(num_rounds=25, num_steps=10)
    whole = ly.synthesize(system, key=KEY, recipe=recipe, checkpoint=tmp_path / "other.npz")
    seen = []

    def killed(part, number, seconds):
        seen.append(part)
        if seen.count("checkpoint") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ly.synthesize(system, key=KEY, recipe=recipe, checkpoint=path, callback_fn=killed)
    assert path.exists()
    assert "learn" not in seen
    again = ly.synthesize(system, key=KEY, recipe=recipe, checkpoint=path)
    # The rounds before were not done again, and nothing is different at the end.
    assert again.histories[0].risk.shape[0] < whole.histories[0].risk.shape[0]
    for one, other in zip(jax.tree.leaves((again.V, again.u)), jax.tree.leaves((whole.V, whole.u))):
        np.testing.assert_array_equal(one, other)
    assert again.level == whole.level
    with pytest.raises(ValueError, match="checkpoint: expected the state of this run"):
        ly.synthesize(system, key=jax.random.key(9), recipe=recipe, checkpoint=path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is no state of a learner"):
        ly.synthesize(system, key=KEY, recipe=recipe, checkpoint=path)


def test_bad_input_is_named():
    system = ly.systems.double_integrator()
    for call, match in (
        (lambda: ly.synthesize(system.f, key=KEY), "system: expected a System, got function"),
        (lambda: ly.synthesize(system, key=KEY, max_tries=0), "max_tries: expected a positive"),
        (lambda: ly.synthesize(system, key=KEY, max_seconds=0.0), "max_seconds: expected"),
        (lambda: ly.synthesize(system, key=KEY, start="zero"), "start: expected 'lqr' or"),
        (
            lambda: ly.synthesize(ly.System(lambda x, u: x + 0 * x * x, 2, 0), key=KEY),
            "system: its equilibrium is not stable and there is no input",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_the_wrong_dynamics_are_not_proved(pendulum):
    """The same V and u with gravity doubled: what was proved was about this f."""
    result, _ = pendulum
    heavier = ly.systems.inverted_pendulum(gravity=40.0)
    found = ly.verify(
        result.V, heavier.closed_loop(result.u), heavier.domain, jnp.zeros(2), max_seconds=20.0
    )
    assert found.verdict is not ly.Verdict.PROVED


def test_the_certificate_is_saved_and_replayed(tmp_path):
    result = ly.synthesize(ly.systems.double_integrator(), key=KEY, max_seconds=600.0)
    path = result.certificate.save(tmp_path / "integrator.cert.npz")
    found = ly.replay(path)
    assert found.verdict is ly.Verdict.PROVED, found.reason
    assert result.certificate.document["name"] == "double_integrator"
    assert found.statement == result.verification.statement
