"""Linear bounds where numbers are very small or very large: compiled as proofs are, against balls.

XLA flushes results below 2^-1022 to zero; what is multiplied by a large number afterwards must not
be lost by that.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

import lyapjax as ly
from lyapjax.proofs.statements import statement_of
from lyapjax.readers.compiled import OPTIONS
from lyapjax.readers.planes import planes

LEAST = 2.0**-1022
EDGES = [2.0**-990 * (1 + k * 2.0**-50) for k in (-1, 0, 1)]  # of what a step adds
WEIGHTS = [2.0**-60, 2.0**-61, 1e-19, 1e-160, *EDGES, 2 * LEAST, LEAST, LEAST / 2, 5e-324]


def compiled(fn, n: int, num: int):
    """(constants, lo, hi) -> the planes of fn over boxes (num, n), and its program."""
    program = ly.trace(lambda x: (fn(x),), jnp.zeros(n))
    box = jnp.zeros((n, num))
    read = jax.jit(lambda constants, lo, hi: planes(program, constants, lo, hi))
    code = read.lower(program.constants, box, box).compile(compiler_options=OPTIONS)
    return lambda v, lo, hi: [np.asarray(x)[0] for x in code(v, lo.T, hi.T)], program


def outside(program, lo, hi, c, a, r, rng) -> int:
    """At how many corners and points of boxes with bounds the value is not between the planes."""
    found, n = 0, lo.shape[1]
    for i in np.flatnonzero(np.isfinite(r)):
        reach = arb(r[i]) + sum((abs(arb(v)) for v in a[:, i]), arb(0))
        for t in (np.zeros(n), np.ones(n), rng.integers(0, 2, n), rng.uniform(size=n)):
            x = np.clip(lo[i] + t * (hi[i] - lo[i]), lo[i], hi[i])
            ball = ly.evaluate_balls(program, x)[0][()]
            found += abs(ball - arb(c[i])) > reach
    return found


def extreme(rng, num: int):
    """Boxes of two numbers from 1e-310 to 1e300, thin and wide."""
    middle = rng.choice([-1.0, 1.0], (num, 2)) * 10.0 ** rng.uniform(-310, 300, (num, 2))
    reach = np.abs(middle) * 10.0 ** rng.uniform(-16, 0.3, (num, 1))
    return middle - reach, middle + reach


def exponents(rng, num: int):
    """Boxes for exp, whose value may be flushed in the middle of a box and not at its end."""
    middle = rng.uniform(-1500, 700, (num, 2))
    reach = 10.0 ** rng.uniform(-5, 3, (num, 1))
    return middle - reach, middle + reach


@pytest.mark.parametrize(
    ("fn", "boxes", "share"),
    [
        pytest.param(lambda x: 1 / x[0], extreme, 0.9, id="reciprocal"),
        pytest.param(lambda x: x[0] / x[1], extreme, 0.5, id="quotient"),
        pytest.param(lambda x: x[0] ** -3, extreme, 0.2, id="power"),
        pytest.param(lambda x: x[0] * x[1] + x[0], extreme, 0.7, id="product"),
        pytest.param(lambda x: jnp.maximum(x[0], x[1]), extreme, 0.9, id="max"),
        pytest.param(lambda x: jnp.arctan(x[0]) + jax.lax.rsqrt(x[1]), extreme, 0.2, id="generic"),
        pytest.param(lambda x: jnp.exp(x[0]), exponents, 0.5, id="exp"),
        pytest.param(lambda x: jnp.exp(x[1]) / jnp.exp(x[0]), exponents, 0.1, id="ratio of exps"),
    ],
)
def test_planes_hold_at_every_size_of_numbers(fn, boxes, share):
    rng = np.random.default_rng(0)
    lo, hi = boxes(rng, 512)
    read, program = compiled(fn, 2, 512)
    c, a, r = read(program.constants, lo, hi)
    assert np.isfinite(r).mean() > share
    assert outside(program, lo, hi, c, a, r, rng) == 0


def test_a_value_that_is_flushed_may_be_large_at_the_end_of_its_box():
    # exp(-710) is 0 to XLA, operation by operation; exp(-600) 2^900 is 2e10.
    def fn(x):
        value = jnp.exp(x[0])
        for _ in range(15):
            value = value * 2.0**60
        return value

    lo, hi = np.array([[-820.0]]), np.array([[-600.0]])
    program = ly.trace(lambda x: (fn(x),), jnp.zeros(1))
    c, a, r = (np.asarray(v)[0] for v in planes(program, program.constants, lo, hi))
    assert c[0] + abs(a[0, 0]) + r[0] > 2e10


@pytest.mark.parametrize("n", [3, 12])  # contractions written out, and matrix products
def test_weights_have_no_lower_limit(n):
    rng = np.random.default_rng(n)
    scales = np.array([1e-200, 1.0, 1e200])[rng.integers(0, 3, n)]
    signs, read = rng.normal(size=(n, n)), None
    for size in WEIGHTS:
        w = signs * np.where(rng.uniform(size=(n, n)) < 0.8, size, 1.0)

        def fn(x, w=w):
            y = scales * x[:n]
            return (w @ y) @ jnp.tanh(w @ x[:n]) + jnp.maximum(w @ y, y)[0] * x[n]

        lo = rng.uniform(-1, 1, (16, n + 1))
        hi = lo + 10.0 ** rng.uniform(-8, 0, (16, 1))
        program = ly.trace(lambda x, fn=fn: (fn(x),), jnp.zeros(n + 1))
        read = compiled(fn, n + 1, 16)[0] if read is None else read
        c, a, r = read(program.constants, lo, hi)
        assert np.isfinite(r).all()
        assert outside(program, lo, hi, c, a, r, rng) == 0


def test_a_tiny_weight_neither_costs_guarded_intervals_nor_boxes():
    def margin(weight):
        P = jnp.array([[2.0, weight], [weight, 1.0]])
        return lambda x: (
            jax.jvp(lambda x: x @ P @ x, (x,), (jnp.stack([x[1], -x[0] - x[1]]),))[1]
            - 1e-3 * (x @ x)
        )

    lo, hi = np.full(2, -1.0), np.full(2, 1.0)
    stages = [len(statement_of(margin(w), None, 2).prepared(lo, hi).stages) for w in (1e-19, 0.0)]
    assert stages == [1, 1]
    found = [ly.prove(margin(w), lo, hi, max_boxes=5000) for w in (0.0, 1e-19, 5e-324)]
    assert len({(proof.verdict, proof.num_boxes) for proof in found}) == 1


def test_where_a_program_jumps_intervals_are_guarded_against_tiny_divisors():
    def margin(x):
        return jnp.where(x[0] > 0, x[0] * 0.0, 1.0 / 5e-324) - 1e300

    lo, hi = np.full(1, -1.0), np.full(1, 1.0)
    assert not ly.prove(margin, lo, hi, max_boxes=2000).proved
