"""Statements that are false, each of which was once proved: what they broke stays mended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

import lyapjax as ly
from lyapjax.readers.affine import Affine
from lyapjax.readers.ball import balls
from lyapjax.readers.secants import base_of, plan_of, secants

DISC = ly.Ball(1.0, (0.0, 0.0))


@pytest.mark.parametrize("join", [jnp.minimum, jnp.maximum])
@pytest.mark.parametrize("star", [0.0, 0.6, -0.7])
def test_secants_of_extremes_hold_difference_quotients(join, star):
    """Of min the other factor was taken: x' = -x + clip(3 x, -1, 1) was proved stable."""
    program = ly.trace(lambda x: join(3 * x, 1 - x**2), jnp.zeros(1), whole=True)
    base = base_of(program, np.array([star]))
    middle, half = np.linspace(-2, 2, 41), 0.05
    place = Affine((star + middle)[None], np.full((1, 1, 41), half), np.zeros((1, 41)))
    plan = plan_of(program, base, np.array([star]))
    (found,) = secants(program, base, plan, place, np.eye(1))
    (start,) = ly.evaluate_balls(program, balls([star]))[0]
    for e in (-1.0, -0.3, 0.0, 0.8, 1.0):
        z = middle + e * half
        ends = found.matrix.c[0, 0] + e * found.matrix.a[0, 0, 0], found.matrix.r[0, 0]
        for i in range(len(z)):
            (value,) = ly.evaluate_balls(program, np.array([arb(star) + arb(z[i])]))[0]
            error = abs(value - start - arb(ends[0][i]) * arb(z[i]))
            assert error <= arb(ends[1][i]) * abs(arb(z[i])) + arb(1e-15)


def test_a_saturated_loop_is_proved_as_far_as_it_holds_and_not_beyond():
    def loop(gain):
        def f(x):
            return jnp.stack([x[1], x[0] + jnp.clip(gain * (2 * x[0] + 2 * x[1]), -1.0, 1.0)])

        return f

    P = np.array([[3.0, 1.0], [1.0, 1.0]])
    unstable = ly.verify_region(loop(0.25), P, ly.Ball(0.1, (0.0, 0.0)))
    assert unstable.verdict is ly.Verdict.UNKNOWN
    found = ly.verify_region(loop(-1.0), P, ly.Ball(4.0, (0.0, 0.0)))
    # x_1 + x_2 grows from 1 on, whatever an input of at most 1 does.
    assert found.proved
    top = np.ones(2) @ np.linalg.solve(P, np.ones(2))
    assert 0.01 < found.level <= 1 / top


def test_features_with_derivatives_of_somebodys_making_are_refused():
    """V rose along trajectories, and was proved with φ' = 0."""

    @jax.custom_jvp
    def phi(x):
        return 3.0 * jnp.tanh(x[:1])

    phi.defjvp(lambda x, t: (phi(x[0]), 0.0 * t[0][:1]))
    A = jnp.array([[-0.1, 1.0], [-1.0, -0.1]])
    with pytest.raises(ValueError, match=r"features_fn: .*custom_jvp_call.*write features_fn"):
        ly.verify_region(lambda x: A @ x, np.eye(2), DISC, features_fn=phi)
    with pytest.raises(ValueError, match="exp2"):
        ly.verify(lambda x: jnp.sum(jnp.exp2(x**2)), lambda x: -x, DISC)


def test_a_linear_system_is_read_as_it_is_solved_from_the_lower_triangle():
    """Of [[1, 5], [0, 1]] the elimination sees the identity, and the secants saw the 5."""

    def f(x):
        M = jnp.array([[1.0, 5.0], [0.0, 1.0]]) + 0.0 * x[0]
        return ly.systems.solve(M, jnp.stack([-x[0] - 5 * x[1], -x[1]]))

    x = jnp.array([-0.3, 0.4])
    assert float(x @ f(x)) > 0
    assert ly.verify_region(f, np.eye(2), DISC, max_boxes=2000).verdict is not ly.Verdict.PROVED


def test_nothing_is_claimed_where_a_test_for_nan_hides_that_a_number_is_undefined():
    """JAX takes the other branch there: the tested number must not be dropped."""
    lo, hi = np.array([-1.0]), np.array([1.0])
    for is_known in (lambda v: jnp.isfinite(v), lambda v: v == v, lambda v: ~jnp.isnan(v)):

        def margin(x, is_known=is_known):
            return jnp.where(is_known(jnp.log(x[0])), -1.0, 1.0)

        assert float(margin(jnp.array([-0.5]))) == 1.0
        assert ly.prove(margin, lo, hi, max_boxes=2000).verdict is ly.Verdict.UNKNOWN
        assert ly.prove(margin, np.array([0.25]), hi).proved


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.maximum(x[0] > 0.5, x[1] > 0.5).astype(float),
        lambda x: jnp.max(x > 0.5).astype(float),
        lambda x: ((x[0] > 0) == (x[1] > 0)).astype(float),
        lambda x: x.at[0].apply(jnp.square),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fn):
    with pytest.raises(NotImplementedError, match=r"no rule for (max|reduce_max|eq|x\.at)"):
        ly.trace(fn, jnp.zeros(2))
