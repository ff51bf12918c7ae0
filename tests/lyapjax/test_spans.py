"""Plain NumPy intervals: against ball arithmetic, and replays of whole certificates by them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import lyapjax as ly
from lyapjax.readers import ball
from lyapjax.readers.ball import balls
from lyapjax.readers.jets import evaluate_jets
from lyapjax.readers.spans import BELLS, GROWING, WAVES, Span
from tests.lyapjax.test_replay import forged, net, van_der_pol

NAMES = [*GROWING, *BELLS, *WAVES, "tan", "square", "neg"]


def holds(span: Span, exact: arb, i: int) -> bool:
    """Whether the ends are on the safe sides of what the ball may be; NaN claims nothing."""
    lo, hi = (float(v[i] if np.ndim(v) else v) for v in (span.lo, span.hi))
    return not (arb(lo) > exact) and not (arb(hi) < exact)


@pytest.mark.parametrize("name", NAMES)
def test_functions_hold_the_exact_values_and_are_sharp(name):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.uniform(-4, 4, 300),
            rng.normal(size=300) * 10.0 ** rng.uniform(-12, 2.8, 300),
            np.pi / 2 * np.arange(-20, 20),
            np.nextafter(np.pi / 2 * np.arange(-20, 20), 1e9),
            [0.0, -0.0, 1e-300, 700.0, -700.0, 710.0, -745.0, 1e5, -1e5],
        ]
    )
    x = np.abs(x) if name == "sqrt" else x
    old, ctx.prec = ctx.prec, 200
    try:
        with np.errstate(all="ignore"):
            point = Span(x, x.copy()).apply(name)
            wide = Span(x, x + 10.0 ** rng.uniform(-3, 0.5, x.shape)).apply(name)
        inner = [x, x + 1e-3 * rng.uniform(size=x.shape)]
        for i in range(len(x)):
            exact = ball.FUNCTIONS[name](arb(x[i]))
            if exact.is_finite():
                assert holds(point, exact, i), (name, x[i])
                for y in inner:
                    assert holds(wide, ball.FUNCTIONS[name](arb(y[i])), i), (name, x[i])
            if abs(x[i]) <= 4 and name != "tan":
                size = abs(float(exact)) + 1
                assert point.hi[i] - point.lo[i] <= 1e-14 * size, (name, x[i])
    finally:
        ctx.prec = old


def test_arithmetic_holds_the_exact_results():
    rng = np.random.default_rng(1)

    def some():
        lo = rng.normal(size=2000) * 10.0 ** rng.integers(-150, 150, 2000)
        return Span(lo, lo + np.abs(lo) * 10.0 ** rng.uniform(-16, 1, 2000))

    a, b = some(), some()
    cases = {
        "sum": (lambda p, q: p + q),
        "difference": (lambda p, q: p - q),
        "product": (lambda p, q: p * q),
        "quotient": (lambda p, q: p / q),
        "cube": (lambda p, q: p.integer_pow(3) if isinstance(p, Span) else p**3),
        "even power": (lambda p, q: p.integer_pow(4) if isinstance(p, Span) else p**4),
        "inverse square": (lambda p, q: p.integer_pow(-2) if isinstance(p, Span) else p**-2),
    }
    old, ctx.prec = ctx.prec, 300
    try:
        for name, fn in cases.items():
            with np.errstate(all="ignore"):
                found = fn(a, b)
            for t in (0.0, 1.0, 0.37):
                x, y = (np.clip(v.lo + t * (v.hi - v.lo), v.lo, v.hi) for v in (a, b))
                for i in range(0, 2000, 4):
                    exact = fn(arb(x[i]), arb(y[i]))
                    assert holds(found, exact, i), (name, x[i], y[i])
    finally:
        ctx.prec = old


def test_what_is_not_known_is_nan_and_stays_so():
    with np.errstate(all="ignore"):
        across = Span(np.array([-1.0, 1.0]), np.array([1.0, 2.0]))
        quotient = 1.0 / across
        assert np.isnan(quotient.lo[0])
        assert np.isnan(quotient.hi[0])
        assert quotient.lo[1] <= 0.5
        for found in (
            quotient * 0.0,
            quotient - quotient,
            quotient.power(2),
            quotient.apply("exp"),
        ):
            assert np.isnan(found.lo[0])
            assert np.isnan(found.hi[0])
        assert np.isnan(across.apply("sqrt").lo[0])
        assert np.isnan(Span(np.array([1.0]), np.array([2.0])).apply("tan").lo[0])
        assert np.isnan(Span(np.array([1e30]), np.array([1e30])).apply("sin").lo[0])


def test_jets_of_spans_hold_the_jets_of_balls():
    def fn(x):
        return (
            jnp.tanh(x[0] * x[1] - 0.3) / (1.5 + jnp.cos(x[1])) + jnp.exp(-(x[0] ** 2)) * x[1] ** 3
        )

    program = ly.trace(fn, jnp.zeros(2))
    rng = np.random.default_rng(0)
    lo = rng.uniform(-1, 1, (50, 2))
    hi = lo + 0.05
    with np.errstate(all="ignore"):
        many = evaluate_jets(program, [Span(a, b) for a, b in zip(lo.T, hi.T)], 2)[0].item()
    for i in range(50):
        point = balls(rng.uniform(lo[i], hi[i])).tolist()
        one = evaluate_jets(program, point, 2)[0].item()
        pairs = zip(
            (many.value, *many.gradient, *many.hessian), (one.value, *one.gradient, *one.hessian)
        )
        for span, exact in pairs:
            assert holds(Span.of(span), exact, i)


@pytest.fixture(scope="module", params=["ball", "box"])
def proof(request):
    """The certificate of `test_replay`."""
    domain = {"ball": ly.Ball(2.0, (0.0, 0.0)), "box": ly.Box((-2.0, -2.5), (2.0, 2.5))}
    domain = domain[request.param]
    found = ly.verify(net, van_der_pol, domain)
    return ly.certificate(net, van_der_pol, domain, found, name="van der pol")


def test_many_boxes_are_replayed_by_arrays(proof):
    exact = ly.replay(proof)
    found = ly.replay(proof, num_balls=20)
    assert (found.verdict, found.reason) == (ly.Verdict.PROVED, "")
    # All of them by arrays, and twenty of each obligation in balls.
    assert exact.num_boxes <= found.num_boxes <= 1.5 * exact.num_boxes + 4 * 80


def test_forgeries_fail_by_arrays_too(proof):
    c2 = float.fromhex(proof.document["levels"]["c2"])

    def raise_c2(document, boxes):
        document["levels"]["c2"] = (1.5 * c2).hex()

    def raise_c1(document, boxes):
        document["levels"]["c1"] = (1.2 * c2).hex()
        document["levels"]["c2"] = (1.1 * c2).hex()

    for change, starts in ((raise_c2, ("boundary", "shell")), (raise_c1, ("core",))):
        found = forged(proof, change, num_balls=1)
        assert found.verdict is ly.Verdict.UNKNOWN
        assert found.reason.startswith(starts)
        assert "is not proved" in found.reason
