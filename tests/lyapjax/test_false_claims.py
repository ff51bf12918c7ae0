"""Statements that are false, each of which was once proved: what they broke stays mended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_mat, ctx

import lyapjax as ly
from lyapjax.certificates.certificate import Certificate, digests, exact, write_program
from lyapjax.certificates.claims import Claim, _mean_values
from lyapjax.certificates.covers import is_covered
from lyapjax.proofs.attraction import largest_level
from lyapjax.readers.affine import Affine
from lyapjax.readers.ball import balls
from lyapjax.readers.jets import evaluate_jets
from lyapjax.readers.secants import base_of, plan_of, secants
from lyapjax.readers.spans import Span

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


def test_errors_say_what_to_write_instead():
    with pytest.raises(ValueError, match="draw random numbers outside of fn"):
        ly.trace(lambda x: x + jax.random.normal(jax.random.key(0), (2,)), jnp.zeros(2))
    with pytest.raises(NotImplementedError, match=r"write jnp\.where for a choice"):
        ly.trace(lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), jnp.zeros(2))


def test_a_disc_of_fewer_coordinates_than_the_system_is_no_domain():
    """A cylinder had no ends to be checked: a trajectory left through one of them."""
    proof = ly.certificate(lambda x: x @ x, lambda x: -x, DISC, _proved())
    flat = dict(proof.document, domain={"kind": "ball", "numbers": exact([1.0, 0.0])})
    with pytest.raises(Exception, match="domain: expected numbers for 2 coordinates, got 2"):
        Claim(flat)
    flat["digests"] = digests(flat, proof.boxes)
    found = ly.replay(Certificate(flat, proof.boxes))
    assert found.verdict is ly.Verdict.UNKNOWN
    assert found.reason.startswith("domain:")


def _proved():
    return ly.verify(lambda x: x @ x, lambda x: -x, DISC)


def test_boxes_of_fewer_coordinates_cover_nothing_and_are_not_read_as_diagonals():
    lo, hi = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    assert is_covered(lo, hi, lo[None], hi[None])
    assert not is_covered(lo, hi, lo[None, :1], hi[None, :1])
    program = ly.trace(lambda x: jnp.sum(jnp.array([4.0, 1.0]) * x**2), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"expected \(2,\) coordinates, got 1"):
        evaluate_jets(program, [arb(1)], 1)
    endless = ly.trace(lambda x: jnp.minimum(x @ x, jnp.inf * x[0]), jnp.zeros(2))
    with pytest.raises(ValueError, match="expected finite constants, got"):
        evaluate_jets(endless, balls([1.0, 1.0]).tolist(), 1)
    assert write_program(program)["shapes"] == [[2]]


def test_spans_say_nothing_of_a_root_where_a_part_of_a_box_has_none():
    """The upper end was known, and a box proved by it on which the function is undefined."""
    program = ly.trace(lambda x: jnp.sqrt(x[0]) - 5.0, jnp.zeros(1))
    lo, hi = np.array([[-1.0], [0.0], [1.0]]), np.array([[1.0], [1.0], [4.0]])
    found = _mean_values(lambda x: evaluate_jets(program, list(x), 1)[0].item(), lo, hi)
    assert (found.hi < 0).tolist() == [False, True, True]
    inverse = Span(np.array([1.0, 0.0, -1.0]), np.array([4.0, 1.0, 1.0])).apply("rsqrt")
    assert 0.5 - 1e-12 < inverse.lo[0] <= 0.5
    assert 1 <= inverse.hi[0] < 1 + 1e-12
    assert np.isnan([inverse.lo[1:], inverse.hi[1:]]).all()


def test_the_largest_level_fits_the_domain_however_ill_conditioned_P_is():
    """By up to 7 parts in 10⁸ it did not."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        for _ in range(10):
            Q = np.linalg.qr(rng.normal(size=(n, n)))[0]
            P = Q @ np.diag(np.r_[1.0, 10 ** rng.uniform(-8.5, 0, n - 2), 10**-8.5]) @ Q.T
            P = 0.5 * (P + P.T)
            with ctx.workprec(300):
                exact_P = arb_mat(n, n, [arb(v) for v in P.ravel().tolist()])
                inverse = exact_P.inv()
                level = largest_level(P, np.zeros(n), ly.Box((-1.0,) * n, (1.0,) * n))
                reach = max(arb(level) * inverse[i, i] for i in range(n))
                assert reach < 1
                assert reach > 1 - 1e-5
                level = largest_level(P, np.zeros(n), ly.Ball(1.0, (0.0,) * n))
                rest = exact_P - arb_mat(np.eye(n).tolist()) * arb(level)
                assert _is_definite(rest, n)


def _is_definite(matrix: arb_mat, n: int) -> bool:
    rows = matrix.tolist()
    return all(arb_mat([row[:k] for row in rows[:k]]).det() > 0 for k in range(1, n + 1))


@pytest.mark.parametrize("level", [None, np.float64(0.5)])
def test_a_level_of_any_type_is_replayed(level):
    """Of a NumPy float the words of proof and certificate were not the same."""
    found = ly.verify_region(lambda x: -x, np.eye(2), DISC, level=level)
    assert ly.replay(ly.region_certificate(found)).verdict is ly.Verdict.PROVED


def test_an_equilibrium_at_the_edge_of_the_domain_has_an_answer():
    """The search for a first ellipsoid never ended."""
    at = np.array([1.0 - 1e-13, 0.0])
    found = ly.verify(lambda x: x @ x, lambda x: jnp.asarray(at) - x, DISC, at)
    assert found.verdict is ly.Verdict.UNKNOWN
    assert "too close to the boundary of the domain; enlarge" in found.reason
    edge = ly.Box((-1.0, -1.0), (1.0, 1.0))
    with pytest.raises(ValueError, match="well inside the domain"):
        ly.verify_region(lambda x: jnp.asarray(at) - x, np.eye(2), edge, at)
