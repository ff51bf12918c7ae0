"""`enclose` against ball arithmetic: no point of a box may ever leave its enclosure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import lyapjax as ly
from lyapjax.readers import elementary, intervals
from lyapjax.readers.compiled import OPTIONS

MAX = np.finfo(np.float64).max
BOXES = 7_500  # × 3 points × the functions below: more than 10⁶ triples
SPECIAL = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 5e-324, -5e-324, 1e-310, -3e-309, 2.3e-308),
        *(MAX, -MAX, 1e300, -1e300, 1e155, 1e154, 709.78, 710.0, -745.2, -708.4, 37.0, -37.5),
        *(np.pi / 2, -np.pi / 2, np.pi, 3 * np.pi / 2, 2 * np.pi, 1e6, 1e15, 1e22, 2.0**20, 355.0),
        *(np.nextafter(1, 0), np.nextafter(1, 2), -np.nextafter(1, 0), 1 / 3, 18.5, 19.1, -0.4142),
        *(0.6584789484624084, 1.3169578969248166, 0.5773502691896258, 1e-8, -1e-16, 20.0, 1.5707),
    ]
)

UNARY = {
    "neg": lambda x: -x,
    "square": jnp.square,
    "x x": lambda x: x * x,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "sqrt": jnp.sqrt,
    "rsqrt": lax.rsqrt,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "tanh": jnp.tanh,
    "sech2": lambda x: jax.jvp(jnp.tanh, (x,), (jnp.ones_like(x),))[1],
    "logistic": jax.nn.sigmoid,
    "dlogistic": lambda x: jax.jvp(jax.nn.sigmoid, (x,), (jnp.ones_like(x),))[1],
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "atan": jnp.arctan,
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "cube": lambda x: x**3,
    "fourth power": lambda x: x**4,
    "inverse square": lambda x: x**-2,
    "inverse cube": lambda x: x**-3,
    "power 2.5": lambda x: x**2.5,
    "1/x": lambda x: 1 / x,
    "x/3": lambda x: x / 3.0,
    "clip": lambda x: jnp.clip(x, -0.7, 1.3),
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "tanh tanh": lambda x: jnp.tanh(3 * jnp.tanh(0.3 * x) - 1),
    "where": lambda x: jnp.where(x > 0.5, x * x, 3.0 - x),
    "guarded log": lambda x: jnp.log(jnp.where(x > 1.0, x, 1.0)),
}
BINARY = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": jnp.multiply,
    "div": jnp.divide,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "fma": lambda x, y: x * y + x,
    "cancel": lambda x, y: (x + y) - x,
    "where <": lambda x, y: jnp.where((x < y) & ~(x <= -1.0) | (y == 0.0), x, -y),
}


def boxes(key: int, count: int):
    """Ends of boxes: tame and extreme, thin and wide, and those around special numbers."""
    rng = np.random.default_rng(key)
    sign = rng.choice([-1.0, 1.0], count)
    kinds = [
        rng.uniform(-12, 12, count),
        rng.uniform(-1.2, 1.2, count),
        sign * np.exp(rng.uniform(np.log(1e-300), np.log(1e300), count)),
        sign * np.exp(rng.uniform(np.log(1e-6), np.log(1e6), count)),
        rng.choice(SPECIAL, count),
    ]
    middle = np.select([rng.integers(0, 5, count) == k for k in range(5)], kinds, kinds[0])
    with np.errstate(all="ignore"):
        width = np.select(
            [rng.integers(0, 5, count) == k for k in range(4)],
            [
                np.zeros(count),
                np.spacing(np.abs(middle)) * rng.integers(0, 9, count),
                np.exp(rng.uniform(np.log(1e-12), np.log(30), count)),
                np.abs(middle) * rng.uniform(0, 2, count),
            ],
            10.0 ** rng.integers(-320, 307, count),
        )
        lo, hi = middle - width * rng.uniform(0, 1, count), middle + width
    lo, hi = np.clip(np.nan_to_num(lo), -MAX, MAX), np.clip(np.nan_to_num(hi), -MAX, MAX)
    return np.minimum(lo, hi), np.maximum(lo, hi)


def points(lo, hi, key: int):
    """Both ends of each box, and a point inside."""
    t = np.random.default_rng(key).uniform(0, 1, lo.shape)
    with np.errstate(all="ignore"):
        inside = np.clip(np.nan_to_num(lo * (1 - t) + hi * t), lo, hi)
    return [lo, hi, inside]


def violations(found, balls) -> int:
    """How many balls lie outside, or are undefined where the enclosure is bounded."""
    lo, hi = np.asarray(found.lo).ravel(), np.asarray(found.hi).ravel()
    assert not (np.isnan(lo) | np.isnan(hi)).any()
    count = 0
    for a, b, ball in zip(lo.tolist(), hi.tolist(), np.ravel(balls)):
        if not ball.is_finite() and ball.rad() == arb("inf"):
            continue  # beyond what Arb represents: defined, but its size is not known
        if not ball.is_finite():
            count += a != -np.inf or b != np.inf
        elif (a != -np.inf and ball < arb(a)) or (b != np.inf and ball > arb(b)):
            count += 1
    return count


def check(fn, ends, key: int) -> int:
    """Assert that nothing leaves the enclosure of fn over boxes; count the triples."""
    lo, hi = (tuple(jnp.asarray(v) for v in side) for side in zip(*ends))
    program = ly.trace(fn, *lo)
    found = jax.jit(ly.enclose(lambda args: fn(*args)))(lo, hi)
    looked = 0
    for xs in zip(*(points(a, b, key + k) for k, (a, b) in enumerate(ends))):
        balls = ly.evaluate_balls(program, *xs)[0]
        assert violations(found, balls) == 0
        looked += balls.size
    return looked


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_never_leave_their_enclosure(name):
    assert check(UNARY[name], [boxes(1, BOXES)], 2) == 3 * BOXES


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_never_leave_their_enclosure(name):
    assert check(BINARY[name], [boxes(3, BOXES), boxes(4, BOXES)], 5) == 3 * BOXES


@pytest.mark.slow
@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_never_leave_their_enclosure_deeper(name):
    for key in range(10):
        check(UNARY[name], [boxes(100 + key, 30_000)], key)


def tame(key: int, shape):
    rng = np.random.default_rng(key)
    lo = rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3, shape)
    return lo, lo + np.abs(rng.normal(size=shape)) * 10.0 ** rng.integers(-6, 2, shape)


def rows(x):
    return jnp.reshape(x, (4, 3))


W = np.random.default_rng(7).normal(size=(5, 12))
SHAPED = {
    "matrix vector": lambda x: W @ x,
    "long matrix vector": lambda x: jnp.concatenate([x, x, -x]) @ np.tile(W.T, (3, 1)),
    "quadratic": lambda x: x @ (W.T @ W) @ x,
    "dot of two": lambda x: rows(x) @ rows(jnp.sin(x)).T,
    "batched dot": lambda x: jnp.einsum("bij,bjk->bik", x.reshape(2, 2, 3), x.reshape(2, 3, 2)),
    "long dot of two": lambda x: jnp.tile(x, 4) @ jnp.tile(jnp.cos(x), 4),
    "sum": jnp.sum,
    "sum of rows": lambda x: rows(x).sum(1),
    "max": lambda x: rows(x).max(0),
    "min": lambda x: rows(x).min(1),
    "prod": lambda x: rows(x).prod(1),
    "cumsum": lambda x: jnp.cumsum(rows(x), axis=1),
    "reverse cumsum": lambda x: lax.cumsum(x, reverse=True),
    "norm": jnp.linalg.norm,
    "pieces": lambda x: jnp.concatenate([x[2:5], x[::-1][::2], jnp.zeros(2), rows(x).T.ravel()]),
    "gather": lambda x: rows(x)[np.array([2, 0])][:, np.array([1, 1])],
    "dynamic slice": lambda x: lax.dynamic_slice(x, (3,), (4,)),
    "set": lambda x: x.at[2].set(x[0] * 3).at[np.array([4, 5])].set(1.0),
    "pad": lambda x: jnp.pad(rows(x), ((1, 0), (0, 2)), constant_values=2.5),
    "stack": lambda x: jnp.stack([x[0], x[1] ** 2, jnp.float64(3.0)]),
    "split": lambda x: jnp.stack([p.sum() for p in jnp.split(x, 3)]),
    "scan": lambda x: lax.scan(lambda c, y: (0.5 * c + y, jnp.sin(c) * y), x[0], x[:2])[1],
    "rev scan": lambda x: lax.scan(lambda c, y: (0.5 * c + y, c), x[0], x[:2], reverse=True)[1],
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y) + 0.1 * i, x[:1]),
    "remat": jax.checkpoint(lambda x: jnp.sin(x) * x),
    "logsumexp": jax.nn.logsumexp,
    "softmax": jax.nn.softmax,
    "relu gradient": jax.grad(lambda x: jax.nn.relu(x).sum()),
    "tanh gradient": jax.grad(lambda x: jnp.sum(jnp.tanh(W @ x) ** 2)),
    "hessian": jax.hessian(lambda x: jnp.tanh(0.1 * W[0] @ x)),
    "indicator": lambda x: jnp.where(x > 0, 1.0, 0.0) + (x > 1.0).astype(x.dtype),
}


@pytest.mark.parametrize("name", SHAPED)
def test_functions_of_vectors_never_leave_their_enclosure(name):
    fn, looked = SHAPED[name], 0
    enclosed = jax.jit(jax.vmap(ly.enclose(fn)))
    lo, hi = tame(11, (40, 12))
    found = enclosed(lo, hi)
    program = ly.trace(fn, jnp.zeros(12))
    for key, side in enumerate(points(lo, hi, 12)):
        for i in range(len(lo)):
            balls = ly.evaluate_balls(program, side[i])[0]
            assert violations(jax.tree.map(lambda v, i=i: v[i], found), balls) == 0, key
            looked += 1
            direct = np.asarray(fn(jnp.asarray(side[i])), float)
            middle = np.array([float(b.mid()) for b in balls.ravel()]).reshape(balls.shape)
            # The balls read the function that was written, not another.
            np.testing.assert_allclose(direct, middle, rtol=1e-9, atol=1e-9)
    assert looked == 120


def slope(x, W1, b, w2):
    def f(x):
        return jnp.stack([x[1], jnp.sin(x[0]) - jnp.clip(3 * x[0] + x[1], -1.0, 1.0)])

    return jax.jvp(lambda x: jnp.tanh(w2 @ jnp.tanh(W1 @ x + b)), (x,), (f(x),))[1]


@jax.jit
def enclosed_slopes(lo, hi, W1, b, w2):
    return jax.vmap(lambda lo, hi: ly.enclose(lambda x: slope(x, W1, b, w2))(lo, hi))(lo, hi)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 6, 20]), st.floats(-12, 2))
def test_networks_and_their_lie_derivatives_never_leave_their_enclosure(seed, width, log_size):
    rng = np.random.default_rng(seed)
    W1, b, w2 = rng.normal(size=(width, 2)) * 2, rng.normal(size=width), rng.normal(size=width)

    lo = rng.normal(size=(4, 2))
    hi = lo + 10**log_size * rng.uniform(size=(4, 2))
    program = ly.trace(lambda x: slope(x, W1, b, w2), jnp.zeros(2))
    # Weights that are traced, and boxes under vmap, give the same guarantee.
    found = enclosed_slopes(lo, hi, W1, b, w2)
    for x in points(lo, hi, seed):
        balls = [ly.evaluate_balls(program, p)[0][()] for p in x]
        assert violations(found, balls) == 0


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["default", "of the prover"])
def test_margins_of_the_elementary_functions_are_eight_times_the_errors_met(options):
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.uniform(-25, 25, 4000), rng.uniform(-1, 1, 4000)])
    names = ["exp", "expm1", "tanh", "logistic", "sin", "cos", "tan", "atan", "sinh", "cosh"]
    names += ["log", "log1p", "asin", "acos", "sqrt"]
    turns = np.arange(-3000, 3000) * (np.pi / 2)  # where sin, cos or tan nearly vanish
    for name in names:
        x = np.abs(near) if name in ("log", "sqrt") else near
        x = np.concatenate([near, turns]) if name in ("sin", "cos", "tan") else x
        x = near[np.abs(near) < 1] if name in ("log1p", "asin", "acos") else x
        # Alone, and fused with what is done to it in a proof.
        compiled = jax.jit(lambda x, f=UNARY[name]: (f(x), f(x) * 1.5 - 1.0))
        computed = np.asarray(compiled.lower(x).compile(compiler_options=options)(x)[0])
        exact = ly.evaluate_balls(ly.trace(UNARY[name], x), x)[0]
        worst = 0.0
        for number, true in zip(computed.tolist(), exact):
            if true != 0:
                error = abs(arb(number) - true) / abs(true)
                worst = max(worst, float(error.lower()))  # without the ball's own radius
        margin = intervals.FUNCTION_EPS.get(name, intervals.DEFAULT_FUNCTION_EPS)
        assert worst * 8 < margin, (name, worst * 2**53)


def test_enclosures_are_tight_where_they_can_be():
    cases = [
        (jnp.tanh, -1.0, 2.0, np.tanh(-1.0), np.tanh(2.0)),
        (UNARY["sech2"], -1.0, 2.0, 1 - np.tanh(2) ** 2, 1.0),
        (jnp.sin, 0.5, 2.0, np.sin(0.5), 1.0),
        (jnp.cos, 3.0, 3.5, -1.0, np.cos(3.5)),
        (jnp.sin, 100.0, 100.5, np.sin(100.0), np.sin(100.5)),
        (lambda x: x * x, -1.0, 2.0, 0.0, 4.0),
        (lambda x: x**-2, 1.0, 2.0, 0.25, 1.0),
        (jnp.tan, -1.5, 1.5, np.tan(-1.5), np.tan(1.5)),
        (UNARY["dlogistic"], -1.0, 0.1, 0.19661193324148185, 0.25),
    ]
    for fn, lo, hi, least, most in cases:
        found = ly.enclose(fn)(jnp.float64(lo), jnp.float64(hi))
        ordered = sorted([float(found.lo), float(found.hi)])
        np.testing.assert_allclose(ordered, sorted([least, most]), rtol=1e-11, atol=1e-11)


def whole(found) -> bool:
    return bool((found.lo == -jnp.inf).all() and (found.hi == jnp.inf).all())


@pytest.mark.parametrize(
    "fn",
    [
        jnp.log,
        jnp.sqrt,
        lambda x: 1 / x,
        lambda x: x**-3,
        lambda x: jnp.tanh(jnp.log(x)),  # bounded if the NaN were forgotten
        lambda x: jnp.where(x > 5, jnp.sqrt(x), 0.0),
        lambda x: jnp.tanh(1 / x),
        lambda x: jnp.tanh(jnp.tan(x + jnp.pi / 2)),
        lambda x: jnp.clip(jnp.arcsin(3 * x), -1, 1),
        lambda x: jnp.minimum(jnp.log1p(x - 1.5), -9.0),
        lax.rsqrt,
    ],
)
def test_where_a_function_has_no_value_nothing_is_claimed(fn):
    assert whole(ly.enclose(fn)(jnp.float64(-1.0), jnp.float64(1.0)))
    assert whole(jax.jit(ly.enclose(fn))(jnp.float64(-1.0), jnp.float64(1.0)))


@pytest.mark.parametrize("fn", [jnp.log, lambda x: 1 / x, lax.rsqrt, lambda x: jnp.tanh(1 / x)])
def test_at_a_pole_nothing_is_claimed(fn):
    for lo, hi in ((0.0, 0.0), (0.0, 1.0), (5e-324, 1.0)):
        assert whole(jax.jit(ly.enclose(fn))(jnp.float64(lo), jnp.float64(hi)))


def test_nan_and_infinite_numbers_are_never_a_bound():
    enclosed = jax.jit(ly.enclose(lambda x: jnp.tanh(x) * 0.0 + x))
    assert whole(enclosed(jnp.float64(jnp.nan), jnp.float64(1.0)))
    assert whole(enclosed(jnp.float64(2.0), jnp.float64(1.0)))  # traced: reversed ends
    weights = np.array([1.0, np.nan, np.inf])
    found = ly.enclose(lambda x: weights * x)(jnp.ones(3), jnp.ones(3))
    assert not whole(ly.Interval(found.lo[0], found.hi[0]))
    assert whole(ly.Interval(found.lo[1:], found.hi[1:]))
    infinite = ly.enclose(lambda x: 0.0 * x + jnp.exp(x) - jnp.exp(x))
    assert whole(infinite(jnp.float64(-jnp.inf), jnp.float64(jnp.inf)))


def test_subnormal_numbers_are_not_lost():
    tiny = jnp.float64(3e-310)
    found = ly.enclose(lambda x: x * 1e308)(tiny, tiny)
    assert float(found.lo) <= 3e-2 <= float(found.hi)
    weight = np.float64(3e-310)
    found = jax.jit(lambda w: ly.enclose(lambda x: w * x)(jnp.float64(1e308), jnp.float64(1e308)))
    assert float(found(weight).hi) >= 3e-2


def forever(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: c + 1, x)


@pytest.mark.parametrize(
    ("fn", "error", "words"),
    [
        (lambda x: jnp.argmax(x), NotImplementedError, "argmax"),
        (
            lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: c + 1, x),
            NotImplementedError,
            "while",
        ),
        (lambda x: jnp.sort(x), NotImplementedError, "sort"),
        (lambda x: lax.erf_inv(x), NotImplementedError, "erf_inv"),
        (lambda x: x.astype(jnp.float32) * 2, ValueError, "float32"),
        (lambda x: x * jnp.ones(3, jnp.float32), ValueError, "float32"),
        (lambda x: x[jnp.where(x[0] > 0, 1, 0)], NotImplementedError, "int64"),
    ],
)
def test_what_cannot_be_read_is_named(fn, error, words):
    with pytest.raises(error, match=words):
        ly.enclose(fn)(jnp.zeros(3), jnp.ones(3))


def test_bad_boxes_are_named():
    enclosed = ly.enclose(jnp.sin)
    for lo, hi, words in [
        (jnp.zeros(2), jnp.ones(3), "hi: expected the shape of lo"),
        (jnp.ones(2), jnp.zeros(2), "lo: expected lo <= hi"),
        (jnp.full(2, jnp.nan), jnp.ones(2), "lo: expected lo <= hi everywhere, and no NaN"),
        (jnp.zeros(2, jnp.float32), jnp.ones(2), "lo: expected float64"),
        ((jnp.zeros(2),), jnp.ones(2), "hi: expected the structure of lo"),
    ]:
        with pytest.raises(ValueError, match=words):
            enclosed(lo, hi)


def test_enclosures_shrink_with_the_box_and_differentiate():
    fn = ly.enclose(lambda x: jnp.sin(x[0]) * jnp.tanh(x[1]))
    centre = jnp.array([0.7, -0.3])

    def width(r):
        found = fn(centre - r, centre + r)
        return found.hi - found.lo

    assert float(width(0.1)) > float(width(0.01)) > float(width(0.0)) > 0
    numeric = (width(0.1 + 1e-6) - width(0.1 - 1e-6)) / 2e-6
    assert float(jax.grad(width)(0.1)) == pytest.approx(float(numeric), rel=1e-6)


def test_ball_arithmetic_is_left_as_it_was_found():
    before = ctx.prec
    ly.evaluate_balls(ly.trace(jnp.sin, jnp.zeros(())), np.float64(1.0))
    assert ctx.prec == before
    assert elementary.VALUES.keys() >= {"tanh", "sin"}


@pytest.mark.parametrize("wide", [False, True])
def test_many_boxes_at_once_are_what_few_are(wide):
    # jaxlib 0.10.2 computes rows from 16,384 on wrongly in some fused matrix-vector products
    # followed by a reduction (jax issue 39103); the enclosure must not contain such a pair.
    def fn(x):
        z = W @ jnp.tile(x, 4 if wide else 1) if wide else W[:, :3] @ x
        return jnp.sum(z), jnp.sum(z**2), jnp.max(jnp.tanh(z)), z @ z

    if wide:
        assert W.shape[1] == 12  # longer than what is written out as products
    rng = np.random.default_rng(0)
    lo = rng.uniform(-1, 1, (40_000, 3))
    hi = lo + 10.0 ** rng.uniform(-6, -1, (40_000, 1))
    enclosed = jax.jit(jax.vmap(ly.enclose(fn)))
    whole_batch = jax.tree.leaves(enclosed(lo, hi))
    parts = [
        jax.tree.leaves(enclosed(lo[k : k + 5000], hi[k : k + 5000]))
        for k in range(0, 40_000, 5000)
    ]
    for k, found in enumerate(whole_batch):
        few = np.concatenate([part[k] for part in parts])
        np.testing.assert_allclose(np.asarray(found), few, rtol=1e-12, atol=1e-12)
