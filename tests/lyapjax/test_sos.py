"""Polynomials against their values at points, and sums of squares against known regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.baselines.polynomials import Basis, monomials, multiply, substitute, taylor

RNG = np.random.default_rng(0)


def value(polynomial: dict, x) -> float:
    return sum(c * np.prod(np.asarray(x) ** np.asarray(e)) for e, c in polynomial.items())


def random_polynomial(n: int, most: int) -> dict:
    return {e: float(RNG.normal()) for e in monomials(n, 0, most)}


def test_monomials_are_all_there_once():
    for n, degree in ((1, 4), (2, 3), (6, 3)):
        found = monomials(n, 0, degree)
        assert (
            len(set(found))
            == len(found)
            == np.prod([(n + k) / k for k in range(1, degree + 1)]).round()
        )


def test_taylor_polynomials_have_the_derivatives_over_factorials():
    found = taylor(lambda x: jnp.stack([jnp.sin(x[0]) * x[1], jnp.exp(x[1])]), np.zeros(2), 5)
    first = {(1, 1): 1.0, (3, 1): -1 / 6}
    assert found[0] == pytest.approx(first)
    assert found[1] == pytest.approx({(0, k): 1 / np.prod(np.arange(1.0, k + 1)) for k in range(6)})
    # About another point a polynomial stays the same function.
    cubic = taylor(lambda x: jnp.stack([x[0] ** 3 - 2 * x[0] * x[1]]), np.array([1.0, -2.0]), 3)[0]
    assert value(cubic, [0.5, 3.0]) == pytest.approx(1.5**3 - 2 * 1.5 * 1.0)


def test_the_linear_maps_agree_with_polynomials_at_points():
    n = 3
    small, large, target = Basis(n, 2), Basis(n, 4), Basis(n, 6)
    p, q = random_polynomial(n, 2), random_polynomial(n, 4)
    field = [random_polynomial(n, 2) for _ in range(n)]
    product = target.terms(small.times(q, target) @ small.vector(p))
    slope = target.terms(large.derivative(field, target) @ large.vector(q))
    Q = RNG.normal(size=(len(small), len(small)))
    form = target.terms(small.gram(target) @ Q.ravel(order="F"))
    M = RNG.normal(size=(n, n))
    moved = substitute(field, M)
    for x in RNG.normal(size=(5, n)):
        assert value(product, x) == pytest.approx(value(p, x) * value(q, x))
        assert value(multiply(p, q), x) == pytest.approx(value(p, x) * value(q, x))
        z = np.array([np.prod(x ** np.asarray(e)) for e in small.exponents])
        assert value(form, x) == pytest.approx(z @ Q @ z)
        f = np.array([value(component, M @ x) for component in field])
        here = [value(component, x) for component in moved]
        np.testing.assert_allclose(M @ here, f, rtol=1e-9)
        h = 1e-6 * np.array([value(component, x) for component in field])
        difference = (value(q, x + h) - value(q, x - h)) / 2e-6
        assert value(slope, x) == pytest.approx(difference, rel=1e-5, abs=1e-5)


def test_a_polynomial_is_one_function_for_numpy_jax_and_the_checkers():
    terms = random_polynomial(2, 4)
    T = jnp.asarray(RNG.normal(size=(2, 2)))
    p = ly.Polynomial(jnp.array(list(terms.values())), jnp.array([0.3, -0.1]), T, tuple(terms))
    x = jnp.array([0.7, 0.4])
    expected = value(terms, T @ (x - p.center))
    assert float(p(x)) == pytest.approx(expected)
    assert float(jax.jit(lambda p, x: p(x))(p, x)) == pytest.approx(expected)
    bound = ly.enclose(p)(x - 1e-3, x + 1e-3)
    assert float(bound.lo) < expected < float(bound.hi)


def test_van_der_pol_is_proved_nearly_to_its_limit_cycle():
    system = ly.systems.van_der_pol()
    f = system.closed_loop()
    found = ly.sos(f, system.domain, degree=4, num_rounds=7)
    assert found.taylor_degree is None  # a polynomial system is taken as it is
    assert found.volumes[-1] > 1.5 * found.volumes[0]
    proof = ly.verify(found.V, f, system.domain)
    # 13.72 is the area in the limit cycle; x'Px of the linearisation reaches 6.4.
    assert proof.verdict == ly.Verdict.PROVED
    assert 9.0 < proof.volume < 13.72
    assert proof.level == pytest.approx(1.0, abs=0.15)


def test_a_ball_bounds_the_level_set():
    # Everything converges: only the domain limits the region, which is that disc.
    domain = ly.Ball(0.5, (0.0, 0.0))
    found = ly.sos(lambda x: -x, domain, degree=2, num_rounds=4)
    for angle in np.linspace(0, 6.28, 20):
        edge = 0.5 * jnp.array([np.cos(angle), np.sin(angle)])
        assert 1.0 <= float(found.V(edge)) < 1.1
    assert found.volumes[-1] == pytest.approx(np.pi / 4, rel=0.06)


def test_a_transcendental_system_says_that_it_was_expanded_and_is_proved_as_it_is():
    system = ly.systems.inverted_pendulum()
    gain = ly.linear_controller(system, ly.lqr(system).K)
    f = system.closed_loop(gain)
    found = ly.sos(f, ly.Ball(1.5, (0.0, 0.0)), degree=2, taylor_degree=3, num_rounds=2)
    assert found.taylor_degree == 3
    proof = ly.verify(found.V, f, ly.Ball(1.5, (0.0, 0.0)))
    assert proof.verdict == ly.Verdict.PROVED
    assert proof.volume > 0.5


def regulated(system):
    """The closed loop under LQR, and what is proved of LQR's own V."""
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    return f, ly.verify_region(f, regulator.P, system.domain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "num_rounds", "gain"),
    [(ly.systems.cart_pole, 5, 1.5), (lambda: ly.systems.ducted_fan(radius=6.0), 7, 30)],
)
def test_four_and_six_states_are_proved_for_the_system_itself(make, num_rounds, gain):
    system = make()
    f, lqr = regulated(system)
    found = ly.sos(f, system.domain, degree=2, taylor_degree=3, num_rounds=num_rounds)
    assert found.taylor_degree == 3
    # P is that of V, and V that of the true dynamics' proof.
    x = RNG.normal(size=system.state_dim)
    assert x @ found.P @ x == pytest.approx(float(found.V(jnp.asarray(x))), rel=1e-9)
    proof = ly.verify_region(f, found.P, system.domain)
    assert proof.proved
    assert proof.volume > gain * lqr.volume > 0
    assert proof.level > 0.9  # 1 in the search, where a polynomial stood for f


def test_a_V_of_degree_four_has_no_P_and_is_refused_by_name():
    system = ly.systems.van_der_pol()
    found = ly.sos(system.closed_loop(), system.domain, degree=4, num_rounds=1)
    with pytest.raises(ValueError, match="V: expected degree 2"):
        _ = found.P


def test_bad_input_is_named():
    domain = ly.Box((-1.0,), (1.0,))
    with pytest.raises(ValueError, match="degree: expected an even number"):
        ly.sos(lambda x: -x, domain, degree=3)
    with pytest.raises(ValueError, match="taylor_degree: expected at least 1"):
        ly.sos(lambda x: -x, domain, taylor_degree=0)
    with pytest.raises(ValueError, match=r"f: expected a stable linearisation, got the eigen.*1"):
        ly.sos(lambda x: x, domain)
    with pytest.raises(ValueError, match="f: expected f\\(x\\*\\) = 0"):
        ly.sos(lambda x: 1.0 - x, domain)
