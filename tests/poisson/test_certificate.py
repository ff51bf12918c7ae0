"""The certificate against exact rational arithmetic: it must hold always, and be sharp."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import poisson
from poisson.certificate import _pieces, _residual, _split
from tests.poisson.conftest import distance

METHODS = ["green", "toeplitz", "thomas", "partition", "lapack"]


def holds(f, solution, left=0.0, right=0.0, order=2) -> float:
    """Assert the bound at every point; return how many times too large it is."""
    exact = poisson.rational_solution(f, left=left, right=right, order=order)
    error = distance(solution.u, exact)
    bound = np.asarray(solution.certificate.algebraic, np.float64)
    # The bound is a float: it must not be below the exact error.
    assert all(
        abs(Fraction(float(v)) - e) <= Fraction(float(b)) if np.isfinite(b) else True
        for v, e, b in zip(solution.u, exact, bound)
    )
    return float(bound.max() / error.max()) if error.max() else 1.0


def test_rational_solution_satisfies_the_equations():
    rng = np.random.default_rng(0)
    for order in (2, 4, 6):
        f = [Fraction(v) for v in rng.normal(size=9)]
        v = poisson.rational_solution([float(x) for x in f], left=0.5, right=-3.0, order=order)
        assert v[0] == Fraction(1, 2)
        assert v[-1] == -3
        for i in range(1, 8):
            left = 64 * (2 * v[i] - v[i - 1] - v[i + 1])
            if order == 2:
                right = f[i]
            elif order == 4:
                right = (f[i - 1] + 10 * f[i] + f[i + 1]) / 12
            else:

                def second(j, f=f):
                    return f[j - 1] - 2 * f[j] + f[j + 1]

                def fourth(j, second=second):
                    return second(j - 1) - 2 * second(j) + second(j + 1)

                inside = {1: 2 * fourth(2) - fourth(3), 7: 2 * fourth(6) - fourth(5)}
                right = f[i] + second(i) / 12
                right -= (inside[i] if i in inside else fourth(i)) / 240
            assert left == right


@pytest.mark.float32
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [3, 4, 8, 33, 100, 257, 1000])
def test_it_holds_for_random_problems(method, n, dtype):
    rng = np.random.default_rng(n)
    for _ in range(3):
        f = jnp.asarray(rng.normal(size=n) * 10.0 ** rng.integers(-6, 6), dtype)
        left, right = (float(np.asarray(v, dtype)) for v in rng.normal(size=2))
        solution = poisson.solve(f, left=left, right=right, method=method)
        ratio = holds(f, solution, left, right)
        if jax.config.jax_enable_x64:
            assert ratio < 1.01


@pytest.mark.float32
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([8, 9, 23, 70]),
    st.integers(0, 2**31),
    st.sampled_from([2, 4, 6]),
    st.integers(-30, 30),
    st.booleans(),
)
def test_it_holds_for_adversarial_right_hand_sides(n, seed, order, exponent, sparse):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=n) * 10.0 ** rng.integers(-12, 12, n) * 2.0**exponent
    if sparse:
        f = f * (rng.uniform(size=n) < 0.2)
    f = jnp.asarray(f)
    holds(f, poisson.solve(f, order=order), order=order)


@pytest.mark.float32
@settings(max_examples=60, deadline=None)
@given(st.sampled_from([3, 4, 17, 66, 120]), st.integers(0, 2**31), st.floats(1e-12, 1.0))
def test_it_holds_for_any_u_not_only_computed_ones(n, seed, size):
    rng = np.random.default_rng(seed)
    f = jnp.asarray(rng.normal(size=n))
    u = jnp.asarray(rng.normal(size=n) * size)
    proof = poisson.certify(f, u, left=u[0], right=u[-1])
    exact = poisson.rational_solution(f, left=float(u[0]), right=float(u[-1]))
    error = distance(u, exact)
    assert (error <= np.asarray(proof.algebraic, np.float64)).all()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6])
def test_it_is_sharp_on_the_papers_problem(k):
    n = 10**k + 1
    f = poisson.source(n)
    for method in ("green", "thomas") if k < 6 else ("green",):
        solution = poisson.solve(f, method=method, derivative_bound=1e4)
        proof = solution.certificate
        if k < 6:
            assert holds(f, solution) < 1.01
        else:  # the closed solution instead of a million fractions; it is rounded itself
            error = float(jnp.abs(solution.u - poisson.discrete_solution(n)).max())
            assert 0.3 * error < float(proof.algebraic.max()) < 3 * error
        truncation = float(jnp.abs(poisson.discrete_solution(n) - poisson.exact_solution(n)).max())
        assert truncation <= float(proof.discretisation) <= 100 * truncation
        total = float(jnp.abs(solution.u - poisson.exact_solution(n)).max())
        assert total <= float(proof.algebraic.max() + proof.discretisation)


def test_it_proves_relative_accuracy_at_every_point():
    solution = poisson.solve(poisson.source(10**5 + 1))
    relative = solution.certificate.algebraic[1:-1] / jnp.abs(solution.u[1:-1])
    assert float(relative.max()) < 5e-15


@pytest.mark.parametrize(("order", "derivative"), [(4, 1e6), (6, 1e8)])
def test_discretisation_bounds_of_higher_orders(order, derivative):
    for n in (11, 41, 161):
        solution = poisson.solve(poisson.source(n), order=order, derivative_bound=derivative)
        error = float(jnp.abs(solution.u - poisson.exact_solution(n)).max())
        bound = float(solution.certificate.discretisation)
        # -u'' = f, so the order-th derivative of f is 10^order · 100: the bound given above.
        rounding = float(solution.certificate.algebraic.max())
        assert error <= bound + rounding
        assert bound <= 100 * error


@pytest.mark.float32
def test_it_certifies_the_numbers_returned_when_all_is_fused():
    # In one jit XLA may compute u twice and round differently; the bound is about the u that the
    # caller gets. f is computed inside too, so that it can be fused as well.
    n = 3000

    @jax.jit
    def pipeline(x, scale):
        f = scale * jnp.exp(-10 * x)
        return f, poisson.solve(f)

    f, solution = pipeline(poisson.grid(n), 100.0)
    holds(f, solution)
    fs, batch = jax.jit(jax.vmap(pipeline, in_axes=(None, 0)))(poisson.grid(n), jnp.array([1.0, 3]))
    for i in range(2):
        holds(fs[i], jax.tree.map(lambda leaf, i=i: leaf[i], batch))


@pytest.mark.float32
def test_certify_in_a_users_jit_is_about_the_users_numbers():
    # Products that would be fused into the residual, were f and u not materialised first.
    @jax.jit
    def pipeline(f, scale, left):
        f, left = f * scale, left * left + scale
        u = poisson.solve(f, left=left).u
        return f, left, u, poisson.certify(f, u, left=left).algebraic

    for scale in (0.7, 1.3, 1.0405107111884346):
        f, left, u, bound = pipeline(poisson.source(101), scale, 0.3)
        error = distance(u, poisson.rational_solution(f, left=left))
        assert (error <= np.asarray(bound, np.float64)).all()


def test_boundary_values_are_certified_as_given():
    f = jnp.ones(9, jnp.float32)
    solution = poisson.solve(f, left=0.1, right=0.3)
    holds(f, solution, 0.1, 0.3)
    assert float(solution.certificate.algebraic[0]) >= abs(float(solution.u[0]) - 0.1) > 1e-10
    tiny = np.full(9, 1e-40, np.float32)
    holds(tiny, poisson.solve(tiny))
    u = np.ones(9)
    bound = poisson.certify(np.zeros(9), u, left=-1e-17, right=-1e-17).algebraic
    assert all(Fraction(float(b)) >= 1 + Fraction(1e-17) for b in bound)


def test_float64_is_not_rounded_silently_without_x64():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match="f: float64 values would be rounded"):
            poisson.certify(np.full(3, 2.0), np.zeros(3, np.float32))
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.float32
@pytest.mark.parametrize("bad", [-1.0, float("nan"), np.ones(3), "abc"])
def test_a_bad_derivative_bound_is_named(bad):
    for call in (poisson.solve, lambda f, **o: poisson.certify(f, f, **o)):
        with pytest.raises(ValueError, match="derivative_bound: expected"):
            call(jnp.ones(9), derivative_bound=bad)


@pytest.mark.float32
def test_the_discretisation_bound_does_not_underflow():
    z = jnp.zeros(100_001, jnp.float32)
    bound = poisson.certify(z, z, order=6, derivative_bound=1e30).discretisation
    assert float(bound) == pytest.approx(31 / 60480 / 8 * 1e-30 * 1e30, rel=1e-3)


@pytest.mark.float32
def test_a_wrong_solution_gets_an_honest_bound():
    f = poisson.source(101)
    u = poisson.solve(f).u
    wrong = u.at[50].add(0.01)
    bound = poisson.certify(f, wrong).algebraic
    assert 0.01 <= float(bound[50]) < 0.0103  # float32 alone is looser
    shifted = u + 0.5  # also at the boundary
    assert float(poisson.certify(f, shifted).algebraic.min()) >= 0.5


@pytest.mark.float32
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_nan_and_infinity_are_never_a_proof(bad):
    f = jnp.ones(20)
    u = poisson.solve(f).u.at[4].set(bad)
    assert np.isinf(np.asarray(poisson.certify(f, u).algebraic)[1:-1]).all()


@pytest.mark.float32
def test_without_a_derivative_bound_nothing_is_said_of_the_discretisation():
    assert float(poisson.solve(jnp.ones(9)).certificate.discretisation) == jnp.inf


@pytest.mark.float32
def test_the_certificate_has_no_derivative_but_lets_others_pass():
    def value(f):
        solution = poisson.solve(f)
        return solution.u.sum() + solution.certificate.algebraic.max()

    f = jnp.ones(10)
    np.testing.assert_array_equal(
        jax.grad(value)(f), jax.grad(lambda f: poisson.solve(f).u.sum())(f)
    )


@pytest.mark.float32
def test_bad_input_is_named():
    f = jnp.ones(9)
    with pytest.raises(ValueError, match=r"u: expected floating values of shape \(9,\)"):
        poisson.certify(f, f[:-1])
    with pytest.raises(ValueError, match="order: expected one of"):
        poisson.certify(f, f, order=1)
    with pytest.raises(ValueError, match="f: expected a vector of at least 8"):
        poisson.certify(f[:5], f[:5], order=6)


@pytest.mark.float32
@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_split_parts_multiply_pieces_exactly(seed):
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=20) * 10.0 ** rng.integers(-20, 20, 20))
    bits = 26 if x.dtype == jnp.float64 else 12
    head, tail = _split(x)
    number = int(rng.integers(1, 10**7)) ** 2 * 12
    pieces = _pieces(number, bits)
    assert sum(pieces) == number
    for i in range(20):
        assert Fraction(float(head[i])) + Fraction(float(tail[i])) == Fraction(float(x[i]))
        for part in (head[i], tail[i]):
            for piece in pieces:
                product = np.asarray(part) * np.asarray(piece, x.dtype)
                assert Fraction(float(product)) == Fraction(float(part)) * piece


@pytest.mark.float32
@pytest.mark.parametrize("order", [2, 4, 6])
def test_the_residuals_own_rounding_is_covered(order):
    rng = np.random.default_rng(order)
    for n in (8, 50, 400):
        f = jnp.asarray(rng.normal(size=n))
        u = jnp.asarray(rng.normal(size=n))
        r, rounding = _residual(f, u, order, float(jnp.finfo(f.dtype).tiny))
        exact_u = [Fraction(float(v)) for v in u]
        N = n - 1
        # rational_solution's v satisfies the equations exactly; so r = N² A (v - u) inside.
        v = poisson.rational_solution(f, order=order)
        gap = [a - b for a, b in zip(v, exact_u)]
        gap[0] = v[0] - exact_u[0]
        for i in range(1, N):
            exact = N * N * (2 * gap[i] - gap[i - 1] - gap[i + 1])
            assert abs(Fraction(float(r[i - 1])) - exact) <= Fraction(float(rounding[i - 1]))
