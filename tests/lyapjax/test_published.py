"""The networks of the paper's appendix: what the verifier says of V̇ < 0 under their own gains."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly

DATA = Path(__file__).parents[3] / "shared" / "data" / "published_lyapunov_networks.json"
# The system, the radii between which V̇ < 0 is asked for, and the share of states without it.
CASES = {
    "inverted_pendulum": (ly.systems.inverted_pendulum, 0.1, 6.0, 0.0),
    "path_following": (partial(ly.systems.path_following, form="published"), 0.1, 0.8, 0.05),
    "ducted_fan": (ly.systems.ducted_fan, 0.1, 1.0, 0.3),
    "n_link n=2": (partial(ly.systems.n_link, 2), 0.05, 0.5, 0.2),
    "n_link n=3": (partial(ly.systems.n_link, 3), 0.05, 0.5, 0.45),
}


def networks():
    """As they are printed."""
    if not DATA.exists():
        pytest.skip("the published networks are not beside this checkout")
    return json.loads(DATA.read_text())["networks"]


def closed(name):
    """V and the closed loop of a published network."""
    (net,) = (net for net in networks() if net["system"] == name)
    W1, b1, W2, K = (jnp.asarray(net[k]) for k in ("W1", "b1", "W2", "K"))
    system = CASES[name][0]()
    at, rest = (np.asarray(v) for v in system.equilibrium)

    def V(x):
        return jnp.tanh(W2 @ jnp.tanh(W1 @ x + b1) + net["b2"])

    return V, system.closed_loop(lambda x: rest + K @ (x - at))


@pytest.mark.parametrize("name", CASES)
def test_whether_v_falls_is_decided(name):
    """Of the five only the pendulum's falls; the masses of the links are ours, not the paper's."""
    V, f = closed(name)
    _, inner, outer, share = CASES[name]
    n = CASES[name][0]().state_dim

    def where(x):
        return jnp.stack([x @ x - outer**2, inner**2 - x @ x])

    ends = outer * np.ones(n)
    # Far beyond what it takes: how busy the machine is must not decide.
    found = ly.prove(
        lambda x: ly.lie_derivative(V, f, x), -ends, ends, where_fn=where, max_seconds=600.0
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, n))
    x *= rng.uniform(inner, outer, (20_000, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    rises = jax.vmap(lambda x: ly.lie_derivative(V, f, x))(jnp.asarray(x)) >= 0
    assert float(rises.mean()) == pytest.approx(share, abs=0.01)
    if share == 0.0:
        assert found.verdict is ly.Verdict.PROVED
        return
    assert found.verdict is ly.Verdict.REFUTED
    assert inner <= np.linalg.norm(found.point) <= outer
    # The system itself says so, for a step so small that V is a line on it.
    step = 1e-6 * np.asarray(f(jnp.asarray(found.point)))
    assert float(V(found.point + step) - V(found.point - step)) > 0


def test_the_published_network_has_the_values_that_the_errata_say():
    at_zero = {}
    for entry in networks():
        V = ly.TanhLyapunov(
            [entry["W1"], [entry["W2"]]], [entry["b1"], [entry["b2"]]]
        )  # fmt: skip
        at_zero[entry["system"]] = float(V(jnp.zeros(len(entry["state"]))))
        if entry["system"] == "inverted_pendulum":
            c, _ = ly.boundary_minimum(jax.random.key(0), V, ly.Ball(6.0, (0.0, 0.0)))
            assert float(c) == pytest.approx(0.3212, abs=1e-4)
    values = [at_zero[name] for name in ("inverted_pendulum", "path_following")]
    assert sorted(round(v, 2) for v in values) == [0.21, 0.27]


def test_the_published_pendulum_meets_the_other_obligations_below_its_level():
    V, f = closed("inverted_pendulum")
    whole = ly.verify(V, f, ly.Ball(6.0, (0.0, 0.0)))
    # Its usable level is below min V = 0.3212 on the boundary, with an area of 9.39.
    assert whole.verdict is ly.Verdict.PROVED
    assert 0.320 < whole.level < 0.3212
    assert 9.0 < whole.volume < 9.39
    assert ly.verify(V, f, ly.Ball(6.0, (0.0, 0.0)), level=0.33).verdict is ly.Verdict.UNKNOWN
