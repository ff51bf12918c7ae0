"""Slopes, mean value form and linear bounds: against balls and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

import lyapjax as ly
from lyapjax.readers import intervals as ia
from lyapjax.readers.bounds import best_centre, first_stage, second_stage
from lyapjax.readers.linear import EPS
from lyapjax.readers.planes import planes
from lyapjax.readers.program import JUMPS
from lyapjax.readers.ranges import bounds_of, slopes_of
from tests.lyapjax.test_enclosure import BINARY, SHAPED, UNARY, W, points

CHEAP = ("sum of rows", "max", "min", "norm", "pieces", "set", "softmax")
FUNCTIONS = {  # of vectors, with derivatives or kinks on most of the boxes below
    **{f"unary {k}": (lambda x, f=f: f(x), 4) for k, f in UNARY.items()},
    **{f"binary {k}": (lambda x, f=f: f(x[:2], x[2:]), 4) for k, f in BINARY.items()},
    **{f"shaped {k}": (f, 12) for k, f in SHAPED.items() if k in CHEAP},
}
COSTLY = {f"shaped {k}": (f, 12) for k, f in SHAPED.items() if k not in (*CHEAP, "relu gradient")}


def problem(name: str):
    """A number made of the function, boxes on which it is mostly defined, and its program."""
    fn, n = {**FUNCTIONS, **COSTLY}[name]
    size = jax.eval_shape(lambda x: jnp.ravel(fn(x)), jnp.zeros(n)).shape
    mix = np.random.default_rng(3).normal(size=size)

    def number(x):
        return mix @ jnp.ravel(fn(x))

    rng = np.random.default_rng(4)
    positive = any(word in name for word in ("log", "sqrt", "power", "inverse", "1/x", "div"))
    lo = rng.uniform(0.3, 0.8, (64, n)) if positive else rng.uniform(-0.9, 0.8, (64, n))
    hi = lo + 10.0 ** rng.uniform(-8, -0.7, (64, 1)) * rng.uniform(0, 1, (64, n))
    return number, lo, hi, ly.trace(lambda x: (number(x),), jnp.zeros(n))


HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in COSTLY]


@pytest.mark.parametrize("name", [*FUNCTIONS, *HEAVY])
def test_slopes_hold_the_derivatives_mean_value_form_and_planes_the_values(name):
    number, lo, hi, program = problem(name)

    # Operation by operation: compiling each of these functions would take most of the time.
    x = ia.box(lo.T, hi.T)
    first = first_stage(program, program.constants, x)
    centre = best_centre(lo.T, hi.T, first[1][0])
    found, _, bad = second_stage(program, program.constants, x, first, centre)
    lower, upper = (np.asarray(v) for v in found[0])
    slopes = np.asarray(first[1][0]).swapaxes(0, 1)
    c = a = r = np.zeros(64)
    if not program.ops & JUMPS:
        c, a, r = (np.asarray(v)[0] for v in planes(program, program.constants, lo.T, hi.T))
        assert np.isfinite(r).mean() > 0.5
    middle = 0.5 * lo + 0.5 * hi
    half = np.maximum(hi - middle, middle - lo) * (1 + EPS)
    bounded = np.isfinite(lower) & np.isfinite(upper)
    # Jumps leave only the plain bounds, and poles none; elsewhere something is said.
    assert bounded.mean() > 0.5, name
    gradient = jax.vmap(jax.grad(number))
    for side in points(lo, hi, 5):
        for i in np.flatnonzero(bounded)[:24]:
            ball = ly.evaluate_balls(program, side[i])[0][()]
            assert not ball < arb(lower[i])
            assert not ball > arb(upper[i])
            # Not only the planes' ends hold the value: at each place it is within r of the middle.
            if program.ops & JUMPS:
                continue
            at = arb(c[i])
            for k in range(lo.shape[1]):
                at += arb(a[k, i]) * (arb(side[i, k]) - arb(middle[i, k])) / arb(half[i, k] or 1.0)
            assert not abs(ball - at) > arb(r[i])
        exact = np.asarray(gradient(side))
        slack = 1e-9 * (1 + np.abs(exact))
        inside = ((slopes[:, 0].T - slack <= exact) & (exact <= slopes[:, 1].T + slack)).all(axis=1)
        assert inside[~np.asarray(bad)].all(), name


def test_planes_are_bounded_where_slopes_are_and_unbounded_where_undefined():
    program = ly.trace(lambda x: (jnp.tanh(1 / x[0]), jnp.sqrt(x[0] - 0.5)), jnp.zeros(1))
    lo, hi = np.array([[0.6, -0.1, 0.4]]), np.array([[0.7, 0.1, 0.7]])
    _, _, r = planes(program, program.constants, lo, hi)
    assert np.isfinite(np.asarray(r)).tolist() == [[True, False, False]] * 2


def test_difference_quotients_across_a_kink_are_enclosed():
    def f(x):
        return jnp.maximum(x[0], 2 * x[1]) - jnp.abs(x[0]) + jnp.minimum(x[0], 0.3) + jnp.max(x)

    program = ly.trace(lambda x: (f(x),), jnp.zeros(2))
    lo, hi = np.array([[-0.5, -0.4]]), np.array([[0.6, 0.3]])
    slopes = slopes_of(program, lo, hi)[0, :, :, 0]
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(lo[0], hi[0], (20_000, 2)) for _ in range(2))
    difference = np.asarray(jax.vmap(f)(a) - jax.vmap(f)(b))
    most = np.maximum((a - b) * slopes[:, 0], (a - b) * slopes[:, 1]).sum(axis=1)
    least = np.minimum((a - b) * slopes[:, 0], (a - b) * slopes[:, 1]).sum(axis=1)
    assert (difference <= most + 1e-12).all()
    assert (difference >= least - 1e-12).all()


def test_min_and_max_take_the_slope_of_the_right_operand():
    for fn, expected in ((jnp.minimum, 1.0), (jnp.maximum, 5.0)):
        program = ly.trace(lambda x, fn=fn: (fn(x[0], 5 * x[0] + 3),), jnp.zeros(1))
        slope = slopes_of(program, np.array([[0.1]]), np.array([[0.2]]))
        np.testing.assert_allclose(slope.ravel(), expected, rtol=1e-9)
        program = ly.trace(lambda x, fn=fn: (fn(5 * x[0] + 3, x[0]),), jnp.zeros(1))
        slope = slopes_of(program, np.array([[0.1]]), np.array([[0.2]]))
        np.testing.assert_allclose(slope.ravel(), expected, rtol=1e-9)


def test_across_a_jump_the_mean_value_form_claims_nothing():
    for fn in (
        lambda x: jnp.where(x[0] > 0, 1.0, -1.0),
        lambda x: jnp.sign(x[0]),
        lambda x: (x[0] > 0).astype(x.dtype),
    ):
        program = ly.trace(lambda x, fn=fn: (fn(x),), jnp.zeros(1))
        lower, upper = bounds_of(program, np.array([[-1.0]]), np.array([[1.0]]))[0]
        slopes = slopes_of(program, np.array([[-1.0]]), np.array([[1.0]]))
        assert lower[0] <= (0.0 if fn(jnp.array([-1.0])) == 0 else -1.0)
        assert upper[0] >= 1
        assert np.isinf(slopes).all()


def test_the_mean_value_form_and_planes_converge_quadratically():
    def slope(x):
        return jax.jvp(lambda x: jnp.tanh(W[0, :2] @ jnp.tanh(W[:2, :2] @ x)), (x,), (x[::-1],))[1]

    program = ly.trace(lambda x: (slope(x),), jnp.zeros(2))
    x, excess, flat = np.array([[0.3, -0.2]]), [], []
    samples = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    samples = np.concatenate([samples, np.sign(samples)])
    for r in (1e-1, 1e-2, 1e-3):
        box = ia.box((x - r).T, (x + r).T)
        first = first_stage(program, program.constants, box)
        centre = best_centre(box.lo, box.hi, first[1][0])
        (found,), _, _ = second_stage(program, program.constants, box, first, centre)
        true = float(jax.vmap(slope)(x + r * samples).max())
        excess.append(float(found[1][0]) - true)
        c, a, rest = (np.asarray(v)[0] for v in planes(program, program.constants, *box[:2]))
        flat.append(float((c + np.abs(a).sum(axis=0) + rest)[0]) - true)
    for found in (excess, flat):
        assert found[0] > 0
        assert found[1] < 0.03 * found[0]
        assert found[2] < 0.03 * found[1] + 1e-13
