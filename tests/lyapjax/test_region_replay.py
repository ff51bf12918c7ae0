"""Certificates of regions: replayed in balls, and refused after any change."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import lyapjax as ly
from lyapjax.certificates import forms, regions, sectors, slopes
from lyapjax.certificates.certificate import exact, inexact, write_program
from lyapjax.certificates.forms import Form
from lyapjax.proofs.regional import Form as Quadratic
from lyapjax.proofs.regional import _Part, search
from lyapjax.readers.ball import balls
from lyapjax.readers.jets import evaluate_jets
from lyapjax.readers.program import Program, trace
from lyapjax.readers.secants import base_of, plan_of
from tests.lyapjax.forging import altered, assert_refused, box_changes, forged, put


@pytest.fixture(autouse=True)
def _precise():
    """The precision of a replay."""
    old, ctx.prec = ctx.prec, 96
    yield
    ctx.prec = old


def loop(system):
    """LQR's closed loop."""
    return system.closed_loop(ly.linear_controller(system, ly.lqr(system).K))


def bumps(x):
    """Features of the tilt and the angular rate."""
    return 0.4 * jnp.tanh(jnp.array([[0.0, 0.0, 1.0, 0.0, 0.0, 0.3]]) @ x)


@functools.cache
def fan(level: float, with_features: bool) -> ly.Certificate:
    """The certificate of the ducted fan under LQR."""
    system = ly.systems.ducted_fan()
    phi = bumps if with_features else None
    found = ly.verify_region(
        loop(system), ly.lqr(system).P, system.domain, features_fn=phi, level=level
    )
    return ly.region_certificate(found, name="ducted fan")


@pytest.mark.parametrize("with_features", [False, True])
def test_the_ducted_fan_is_replayed_from_its_file(with_features, tmp_path):
    proof = fan(0.3 if not with_features else 0.2, with_features)
    path = proof.save(tmp_path / "fan.npz")
    seen = []
    found = ly.replay(path, callback_fn=lambda name, count: seen.append(name))
    assert (found.verdict, found.reason) == (ly.Verdict.PROVED, "")
    assert seen == ["functions", "inside", "cover", "falling"]
    assert found.num_boxes >= len(proof.boxes["region"][0])
    assert ly.Certificate.load(path).document == proof.document
    assert ("|φ(x)|²" in found.statement) == with_features


def test_coupled_and_shifted_systems_are_replayed():
    pole = ly.systems.cart_pole()
    shifted = lambda x: -(x - 1.0) + (x - 1.0) ** 3  # noqa: E731
    for f, P, domain, at, level in (
        (loop(pole), ly.lqr(pole).P, pole.domain, None, 0.5),
        (shifted, np.eye(2), ly.Box((0.0, -1.0), (2.0, 3.0)), (1.0, 1.0), 0.95),
        (lambda x: -x / (1 + x @ x), 2 * np.eye(2), ly.Ball(1.0, (0.1, 0.0)), None, 1.5),
    ):
        found = ly.verify_region(f, P, domain, at, level=level)
        assert found.proved
        again = ly.replay(ly.region_certificate(found))
        assert (again.verdict, again.reason) == (ly.Verdict.PROVED, "")


FUNCTIONS = {
    "waves": lambda x: jnp.stack([jnp.sin(x[0]) * jnp.cos(x[1] - 0.3), jnp.tan(0.5 * x[1])]),
    "nets": lambda x: jnp.tanh(jnp.array([[0.7, -1.2], [2.0, 0.4]]) @ x - 0.3),
    "quotients": lambda x: jnp.stack([x[0] / (3 + x[1] ** 2), (2 + x[0]) ** -2 * x[1] ** 3]),
    "exps": lambda x: jnp.stack([jnp.exp(x[0] * x[1]), jnp.log(3 + x[0]) * jax.nn.sigmoid(x[1])]),
    "roots": lambda x: jnp.stack([jnp.sqrt(2 + x @ x) * x[1], jnp.arctan(x[0] - x[1] ** 2)]),
    "kinks": lambda x: jnp.stack([jnp.maximum(x[0], 0.5 * x[1]), jnp.abs(x[1] - 3) * x[0]]),
    "sums": lambda x: jnp.stack([jnp.sum(jnp.outer(x, x)), -(x[0] - x[1]) + jnp.sum(x**4)]),
}


def place_of(lo, hi) -> list[Form]:
    """x itself on a box."""
    middle, half = 0.5 * (lo + hi), 0.5 * (hi - lo)
    rows = np.diag(half).tolist()
    return [Form(arb(m), tuple(map(arb, a)), arb(0)) for m, a in zip(middle.tolist(), rows)]


def holds(form: Form, signs: np.ndarray, value) -> bool:
    """Whether a form may take a value at a place; `value` is a ball of rounding only."""
    total = form.c + form.r + sum((v * arb(e) for v, e in zip(form.a, signs.tolist())), arb(0))
    return bool((total + arb(0, 1e-20)).overlaps(value))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_secants_and_tangents_hold_those_of_every_point(name):
    """Rows at a point give f(x) - f(x*) exactly; over a box they hold the rows of its points."""
    program = ly.trace(FUNCTIONS[name], jnp.zeros(2))
    rng = np.random.default_rng(3)
    for wide in (0.0, 1e-9, 0.05, 0.6):
        for star in (np.zeros(2), np.array([0.25, -0.5])):
            lo = rng.uniform(-1.0, 0.4, 2) if wide else star
            hi = lo + wide
            at_star = [arb(v) for v in star.tolist()]
            over = slopes.secants(program, place_of(lo, hi), at_star)
            around = slopes.tangents(program, place_of(lo, hi)) if name != "kinks" else []
            base = evaluate_jets(program, balls(star).tolist(), 1)[0]
            middle, half = 0.5 * (lo + hi), 0.5 * (hi - lo)
            for _ in range(6):
                signs = rng.choice([-1.0, -0.5, 0.0, 0.25, 1.0], 2)
                # Exact: the products are of few bits.
                x = [arb(m) + arb(h) * arb(e) for m, h, e in zip(middle, half, signs)]
                points = [Form(v, (), arb(0)) for v in x]
                there = slopes.secants(program, points, at_star)
                jet = evaluate_jets(program, x, 1)[0]
                for wide_entry, entry, j, b in zip(over, there, jet, base):
                    assert (entry.value.range - j.value).contains(0)
                    assert holds(wide_entry.value, signs, j.value)
                    total = arb(0)
                    for i, row in entry.rows.items():
                        total += row.range * (x[i] - at_star[i])
                        assert holds(wide_entry.rows[i], signs, row.range)
                    assert (total - (j.value - b.value)).contains(0)
                    if name != "kinks":
                        assert float(total.rad()) < 1e-9
                for entry, j in zip(around, jet):
                    for i, slope in enumerate(j.gradient):
                        row = entry.rows.get(i, Form(arb(0), (arb(0),) * 2, arb(0)))
                        assert holds(row, signs, slope)


def test_remainders_are_of_second_order():
    program = ly.trace(FUNCTIONS["quotients"], jnp.zeros(2))
    reach = []
    for half in (1e-2, 1e-3):
        middle = np.array([0.3, -0.4])
        found = slopes.secants(program, place_of(middle - half, middle + half), [arb(0), arb(0)])
        reach.append(max(float(row.r.abs_upper()) for e in found for row in e.rows.values()))
    assert 80 < reach[0] / reach[1] < 120


def test_taylors_formula_is_about_a_centre_that_may_lie_outside():
    x = Form(arb(0), (), arb(3.5, 0.5))
    found = forms.function(slopes.RECIPROCAL, forms.add(x, forms.number(1, 0)))
    assert found.range.contains(arb(1) / 4)
    assert found.range.contains(arb(1) / 5)
    assert forms.derivative(slopes.RECIPROCAL, x._replace(c=arb(1))).range.contains(arb(-1) / 25)


@pytest.mark.parametrize("with_features", [False, True])
def test_the_form_is_the_derivative_of_V(with_features):
    proof = fan(0.3 if not with_features else 0.2, with_features)
    claim = regions.RegionClaim(proof.document)
    system = ly.systems.ducted_fan()
    f, P, R = loop(system), ly.lqr(system).P, inexact(proof.document["R"])

    def V(x):
        return x @ (P @ x) + (jnp.sum(bumps(x) ** 2) if with_features else 0.0)

    rng = np.random.default_rng(0)
    k = proof.boxes["region"][0].shape[1]
    z = rng.uniform(-0.2, 0.2, (40, 6))
    slope = jax.vmap(lambda x: ly.lie_derivative(V, f, x))(jnp.asarray(z @ R.T))
    for i, (point, true) in enumerate(zip(z, np.asarray(slope).tolist())):
        half = [0.0, 0.01, 0.1][i % 3]
        M, parts = claim.form(claim.cell(point[:k] - half, point[:k] + half))
        value = M + sum((part * arb(0) for part in parts), 0 * M)
        row = regions.exact(point[None])
        inside = (row * value * row.transpose())[0, 0]
        assert (inside + arb(0, 1e-10)).contains(arb(true))
        if half == 0:
            assert float(inside.rad()) < 1e-20


def test_forged_boxes_and_multipliers_with_honest_digests_are_refused():
    system = ly.systems.planar_vtol()
    proof = ly.region_certificate(
        ly.verify_region(loop(system), ly.lqr(system).P, system.domain, level=0.5)
    )
    assert ly.replay(proof).verdict is ly.Verdict.PROVED
    assert_refused(proof, box_changes(proof))


def claims():
    """False claims about the ducted fan, by what their replay must say."""

    def program(key, fn):
        return put(key, write_program(ly.trace(fn, jnp.zeros(6))))

    system = ly.systems.ducted_fan()
    f, gain = loop(system), ly.lqr(system).K
    yield "statement", put("statement", "everything converges")
    for factor in (1.01, 1.5, 2.5):
        yield "cover", put("level", (0.3 * factor).hex())
        yield "form", altered("P", lambda P, k=factor: (1 + k) * P)
    for level in (0.0, -1.0, np.inf, np.nan):
        yield "form", put("level", float(level).hex())
    yield "form", altered("P", lambda P: -P)
    yield "form", altered("P", lambda P: P + np.triu(np.full((6, 6), 1e-9), 1))
    yield "cover", altered("R", lambda R: 1.2 * R)
    yield "form", altered("R", lambda R: 1.5 * R)
    yield "form", altered("R", lambda R: 0.0 * R)
    yield "functions", altered("equilibrium", lambda x: x + 1e-12)
    yield "functions", program("f", lambda x: f(x) + 1e-300)
    yield "functions", program("f", lambda x: jnp.where(x[0] > 0.1, f(x), -x))
    yield "functions", program("features", lambda x: 1.0 + x[:1])
    yield "functions", program("features", lambda x: jnp.abs(x[:2]))
    yield "inside", put("domain", {"kind": "ball", "numbers": exact([0.2, *[0.0] * 6])})
    yield "inside", put("domain", {"kind": "ball", "numbers": exact([1.0, *[0.6] * 6])})
    yield "inside", put("domain", {"kind": "box", "numbers": exact([-9.0] * 6 + [0.1] * 6)})
    yield "falling", program("f", lambda x: -f(x))
    yield "falling", program("f", lambda x: f(x) + 0.0 * jnp.log(0.05 + x[2]) * x)
    for k in (-1.0, 0.0, 0.1, 0.2):
        wrong = system.closed_loop(ly.linear_controller(system, k * gain))
        yield "falling", program("f", wrong)
    yield "falling", program("features", lambda x: 30.0 * x[2:3] * (1 - 40 * x[2:3]))


def test_false_claims_with_honest_digests_are_refused():
    count = 0
    for starts, change in claims():
        found = forged(fan(0.3, False), change)
        assert found.verdict is ly.Verdict.UNKNOWN
        assert found.reason.startswith(starts), found.reason
        count += 1
    assert count >= 25


def test_any_changed_number_is_noticed_and_named():
    proof = fan(0.2, True)
    changed = 0
    for key in ("P", "R", "equilibrium", "level"):
        for i in np.ndindex(*np.shape(inexact(proof.document[key]))):
            values = inexact(proof.document[key])
            values[i] = np.nextafter(values[i], 9e9)
            found = ly.replay(ly.Certificate(proof.document | {key: exact(values)}, proof.boxes))
            assert found.reason.startswith(f"digest: the {key} were changed")
            changed += 1
    for k in range(3):
        arrays = [v.copy() for v in proof.boxes["region"]]
        arrays[k][0, 0] = np.nextafter(arrays[k][0, 0], 9e9)
        found = ly.replay(ly.Certificate(proof.document, {"region": tuple(arrays)}))
        assert found.reason.startswith("digest: the boxes region were changed")
    assert changed > 70
    refuted = ly.verify_region(lambda x: x, np.eye(2), ly.Ball(1.0, (0.0, 0.0)))
    with pytest.raises(ValueError, match="region: expected PROVED, got UNKNOWN"):
        ly.region_certificate(refuted)


def pushed(x, numbers):
    """A turning, falling flow that pushes outward in a small ball; -f(0) is exactly 0."""
    A, centre, size, push = numbers
    bump = jnp.exp(-jnp.sum(jnp.square((x - centre) / size)))
    return A @ x + push * bump * x


@functools.cache
def pushed_program(n: int) -> Program:
    """Traced once; the numbers are put in later."""
    marks = (np.full((n, n), 0.123), np.full(n, 0.234), np.float64(0.345), np.float64(0.456))
    return trace(lambda x: pushed(x, marks), jnp.zeros(n))


def with_numbers(program: Program, numbers) -> Program:
    """The program with its marks replaced."""
    places = {float(m): v for m, v in zip((0.123, 0.234, 0.345, 0.456), numbers)}
    found = []
    for value in program.constants:
        value = np.asarray(value)
        found.append(np.asarray(places.get(float(value.flat[0]), value), float))
        assert found[-1].shape == value.shape
    return dataclasses.replace(program, constants=tuple(found))


def candidates(n: int, count: int, seed: int):
    """Numbers of flows whose V = |x|² rises at a point of {V <= 1}, in a small part of it."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        direction = rng.normal(size=n)
        centre = rng.uniform(0.05, 0.95) * direction / np.linalg.norm(direction)
        turn = rng.normal(size=(n, n))
        A = turn - turn.T - np.diag(rng.uniform(0.5, 1.5, n))
        # The push wins where exp(-r²/size²) > 1/1.1 at least, and nowhere beyond r = 1.1 size.
        size, push = np.exp(rng.uniform(np.log(0.03), np.log(0.3))), 1.1 * 1.5
        assert centre @ (A @ centre) + push * centre @ centre > 0
        yield A, centre, np.float64(size), np.float64(push)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "count"), [(2, 850), (3, 150)])
def test_a_thousand_false_candidates_are_never_proved(n, count):
    """V rises in less than 1e-3 of the volume of most; without the push they are proved."""
    x, refuted = np.zeros(n), 0
    for i, numbers in enumerate(candidates(n, count, n)):
        for push in (numbers[3], np.float64(0.0)) if i % 50 == 0 else (numbers[3],):
            program = with_numbers(pushed_program(n), (*numbers[:3], push))
            base = base_of(program, x)
            part = _Part(program, base, plan_of(program, base, x))
            form = Quadratic(part, None, np.eye(n), np.eye(n), n, 1e-12, 1.0)
            found = search(form, x, 1.0, 16, np.inf)
            assert found.verdict is not ly.Verdict.PROVED or push == 0
            assert found.verdict is ly.Verdict.PROVED or push > 0
            refuted += found.verdict is ly.Verdict.REFUTED
            if found.point is not None:
                rise = numbers[0] @ found.point + push * found.point * np.exp(
                    -np.sum(((found.point - numbers[1]) / numbers[2]) ** 2)
                )
                assert found.point @ rise >= 0
    assert refuted > count / 20, refuted


@pytest.mark.parametrize("n", [2, 3])
def test_a_certificate_of_a_pushed_flow_is_refused(n):
    """Boxes and multipliers of a flow that is pulled inward, the words of one that is pushed.

    In two dimensions by secants, in three by sectors; then with multipliers that were looked for.
    """
    turn = 0.7 * (np.eye(n, k=1) - np.eye(n, k=-1))
    calm = [turn - np.eye(n), np.zeros(n), np.float64(1.0), np.float64(-0.1)]
    found = ly.verify_region(
        lambda x: pushed(x, calm), np.eye(n), ly.Ball(2.0, (0.0,) * n), level=1.0
    )
    assert found.by_sectors == (n == 3)
    proof = ly.region_certificate(found)
    assert ly.replay(proof).verdict is ly.Verdict.PROVED
    for numbers in candidates(n, 100, 9):
        pushed_f = write_program(with_numbers(pushed_program(n), numbers))
        again = forged(proof, lambda d, b, f=pushed_f: d.__setitem__("f", f))
        assert again.verdict is ly.Verdict.UNKNOWN
        assert again.reason.startswith("falling: the box from")
        if found.by_sectors:
            claim = regions.RegionClaim(proof.document | {"f": pushed_f})
            form = sectors.reduced(claim, found.lo[0], found.hi[0])
            t = sectors.inexact([form], found.lo[:1], found.hi[:1], 1.0).prove(1.0)[1][0]
            assert not sectors.falls(claim, form, found.lo[0], found.hi[0], t.tolist())
