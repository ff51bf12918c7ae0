"""Networks: what holds by construction, the published one, and what the checkers may meet."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lyapjax as ly

SIMPLE = {
    *("dot_general", "tanh", "add", "sub", "mul", "neg", "div", "squeeze", "broadcast_in_dim"),
    *("integer_pow", "square", "transpose", "reshape", "slice", "convert_element_type"),
}


def structured(seed: int, n: int, hidden=(5,), at=None) -> ly.StructuredLyapunov:
    """A structured V with random weights."""
    rng = np.random.default_rng(seed)
    sizes = (n, *hidden)
    weights = [rng.normal(size=(b, a)) for a, b in itertools.pairwise(sizes)]
    biases = [rng.normal(size=b) for b in hidden]
    A, R = rng.normal(size=(2, sizes[-1])), rng.normal(size=(n, n))
    return ly.StructuredLyapunov(weights, biases, A, R, equilibrium=at)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 3))
def test_structured_functions_vanish_at_the_equilibrium_with_their_gradient(seed, n, layers):
    rng = np.random.default_rng(seed)
    at = rng.normal(size=n)
    V = structured(seed, n, (5,) * layers, at)
    x = jnp.asarray(at)
    assert float(V(x)) == 0
    assert np.all(np.asarray(jax.grad(V)(x)) == 0)
    # Compiled, tanh of known and of unknown numbers may be rounded differently.
    assert np.abs(np.asarray(jax.jit(jax.grad(V))(x))).max() <= 1e-12
    assert np.linalg.eigvalsh(jax.hessian(V)(x))[0] >= 2 * V.epsilon * (1 - 1e-6)
    for y in at + rng.normal(size=(10, n)):
        assert float(V(jnp.asarray(y))) >= V.epsilon * np.sum((y - at) ** 2)


def test_structured_functions_are_their_formula():
    V = structured(3, 2, (4, 3), (0.5, -1.0))
    x = np.array([1.2, 0.3])
    (W1, W2), (b1, b2) = (
        [np.asarray(part[...]) for part in parts] for parts in (V.weights, V.biases)
    )
    A, R = np.asarray(V.A[...]), np.asarray(V.R[...])
    z = x - [0.5, -1.0]

    def phi(z):
        return A @ np.tanh(W2 @ np.tanh(W1 @ z + b1) + b2)

    expected = np.sum((phi(z) - phi(0 * z)) ** 2) + z @ (1e-3 * np.eye(2) + R.T @ R) @ z
    assert float(V(jnp.asarray(x))) == pytest.approx(expected, rel=1e-13)


def test_quadratics_are_quadratics():
    P = np.array([[2.0, 0.5], [0.5, 1.0]])
    V = ly.quadratic_lyapunov(P, (1.0, 2.0))
    for x in np.random.default_rng(0).normal(size=(10, 2)):
        z = x - [1.0, 2.0]
        assert float(V(jnp.asarray(x))) == pytest.approx(z @ P @ z, rel=1e-12)


def test_controllers_are_exact_at_the_equilibrium_and_keep_their_bounds():
    at = ((0.1, -0.2), (0.3,))
    rng = np.random.default_rng(0)
    x = jnp.asarray(at[0])
    controllers = (
        ly.LinearController(rng.normal(size=(1, 2)), equilibrium=at),
        ly.SaturatedController(rng.normal(size=(1, 2)), bounds=((-1,), (0.7,)), equilibrium=at),
        ly.TanhController(
            rng.normal(size=(1, 2)), rng.normal(size=(5, 2)), rng.normal(size=(1, 5)),
            equilibrium=at,
        ),
    )  # fmt: skip
    for u in controllers:
        assert u(x).tolist() == [0.3]
    _, saturated, network = controllers
    # Saturation has slope K at the equilibrium and stays within the closer bound.
    np.testing.assert_allclose(jax.jacfwd(saturated)(x), saturated.K[...], rtol=1e-12)
    far = jax.vmap(saturated)(1e9 * jnp.asarray(rng.normal(size=(100, 2))))
    assert float(far.max()) <= 0.7
    assert float(far.min()) >= -0.1 - 1e-15
    slope = network.K[...] + network.W2[...] @ network.W1[...]
    np.testing.assert_allclose(jax.jacfwd(network)(x), slope, rtol=1e-12)


def equations(jaxpr):
    """The primitives of a jaxpr, those of its calls included."""
    for eqn in jaxpr.eqns:
        inner = [v for v in eqn.params.values() if hasattr(v, "jaxpr")]
        if not inner:
            yield eqn.primitive.name
        for closed in inner:
            yield from equations(closed.jaxpr)


def test_networks_use_simple_primitives_only():
    system = ly.systems.saturated_pendulum()
    u = ly.linear_controller(system, [[-2.0, -1.0]])
    V = structured(0, 2, (4, 4), (0.0, 0.0))
    paper = ly.TanhLyapunov([np.eye(2), np.ones((1, 2))], [np.zeros(2), np.zeros(1)])
    x = jnp.zeros(2)
    for function in (V, paper, u, ly.TanhController([[1.0, 2.0]], np.eye(2), [[1.0, 1.0]])):
        names = set(equations(jax.make_jaxpr(function)(x).jaxpr))
        assert names <= SIMPLE, names - SIMPLE
    f = system.closed_loop(u)
    names = set(equations(jax.make_jaxpr(lambda x: ly.lie_derivative(V, f, x))(x).jaxpr))
    assert names <= SIMPLE | {"sin", "stack", "concatenate", "add_any"}, names


def test_networks_are_pytrees_for_optax_grad_and_vmap():
    V = structured(1, 2)
    x = jnp.array([0.3, -0.4])
    slope = jax.grad(lambda V: V(x))(V)
    assert type(slope) is type(V)
    optimiser = optax.sgd(1e-3)
    updates, _ = optimiser.update(slope, optimiser.init(V), V)
    after = optax.apply_updates(V, updates)
    assert float(after(x)) < float(V(x))
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), structured(1, 2), structured(2, 2))
    values = jax.vmap(lambda V: V(x))(many)
    np.testing.assert_allclose(values, [structured(k, 2)(x) for k in (1, 2)], rtol=1e-14)
    assert jax.tree.structure(structured(1, 2)) == jax.tree.structure(structured(2, 2))


def test_bad_networks_are_named():
    eye, one = np.eye(2), np.ones(2)
    for call, match in (
        (lambda: ly.TanhLyapunov([eye], [one]), r"weights\[0\]: expected one row, got \(2, 2\)"),
        (lambda: ly.TanhLyapunov([eye, eye[:, :1]], [one, one]), r"weights\[1\]: expected shape"),
        (lambda: ly.TanhLyapunov([eye], []), "weights: expected as many as biases"),
        (lambda: ly.TanhLyapunov([], []), "weights: expected as many as biases and at least one"),
        (lambda: ly.LinearController(one), "K: expected shape .*any.* got"),
        (lambda: ly.LinearController([[np.inf, 0]]), "K: expected finite values"),
        (lambda: ly.LinearController([["a", 0]]), "K: expected real numbers"),
        (
            lambda: ly.LinearController(eye, equilibrium=((0.0,), (0.0, 0.0))),
            r"equilibrium x\*: expected shape \(2,\)",
        ),
        (
            lambda: ly.SaturatedController([[1.0, 1.0]], bounds=((0.0,), (1.0,))),
            r"bounds: expected lo < u\* < hi, got 0.0, 0.0, 1.0 at index 0",
        ),
        (lambda: ly.quadratic_lyapunov(-eye), "P: expected positive definite, got the eig.* -1"),
        (lambda: ly.quadratic_lyapunov(np.triu(np.ones((2, 2)))), "P: expected a symmetric matrix"),
        (
            lambda: ly.StructuredLyapunov([eye], [one], np.ones((1, 3)), eye),
            r"A: expected shape \('any', 2\), got \(1, 3\)",
        ),
        (
            lambda: ly.StructuredLyapunov([eye], [one], eye, eye, epsilon=0.0),
            "epsilon: expected a positive number",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
