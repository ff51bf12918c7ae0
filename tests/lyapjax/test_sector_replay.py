"""Certificates of proofs by sectors: what is read holds, honest ones replay, no other does."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_mat, ctx

import lyapjax as ly
from lyapjax.certificates import regions, sectors
from lyapjax.certificates.certificate import SECTORS, exact, write_program
from lyapjax.certificates.factors import Reading
from lyapjax.certificates.forms import curve
from lyapjax.certificates.ranges import divided_differences, values
from lyapjax.certificates.regions import RegionClaim
from lyapjax.readers.ball import balls, evaluate_balls
from lyapjax.readers.program import Step, trace
from tests.lyapjax.forging import altered, assert_refused, box_changes, forged, put


@pytest.fixture(autouse=True)
def _precise():
    """The precision of a replay."""
    with ctx.workprec(96):
        yield


def loop(system, factor=1.0):
    """The closed loop of LQR's gain, or a part of it."""
    return system.closed_loop(ly.linear_controller(system, factor * ly.lqr(system).K))


@functools.cache
def links(n: int, level: float | None, **options) -> ly.Region:
    """The proof of n links under LQR."""
    system = ly.systems.n_link(n, radius=6.0)
    return ly.verify_region(loop(system), ly.lqr(system).P, system.domain, level=level, **options)


@functools.cache
def two_links() -> ly.Certificate:
    """Some boxes, cut in all coordinates."""
    return ly.region_certificate(links(2, 0.5))


def moving_mass(x):
    """Forces that are not 0 at 0, so that a mass matrix that varies adds to the change."""
    M = [[3 + jnp.cos(x[0]), x[1]], [x[1], 4 + jnp.square(x[2])]]
    b = jnp.stack([1 + x[1] * x[2], 2 - jnp.sin(x[0]) - x[2]])
    a = ly.systems.solve(jnp.stack([jnp.stack(row) for row in M]), b)
    return jnp.stack([x[1] * a[0], a[1] - 0.5, jnp.tanh(a[0] - x[1])])


FUNCTIONS = {
    "waves": lambda x: jnp.stack([jnp.sin(x[0]) * jnp.cos(x[1] - 0.3) * x[2], jnp.tan(0.5 * x[1])]),
    "nets": lambda x: jnp.tanh(jnp.array([[0.7, -1.2, 0.1], [2.0, 0.4, 0.0]]) @ x - 0.3),
    "quotients": lambda x: jnp.stack([x[0] / (3 + x[1] ** 2), (2 + x[0]) ** -2 * x[1] ** 3 * x[2]]),
    "exps": lambda x: jnp.stack([jnp.exp(x[0] * x[1]), jnp.log(3 + x[2]) * jax.nn.sigmoid(x[1])]),
    "roots": lambda x: jnp.stack([jnp.sqrt(2 + x @ x) * x[1], jnp.arctan(x[0] - x[1] ** 2)]),
    "kinks": lambda x: jnp.stack([jnp.maximum(x[0], 0.5 * x[1]), jnp.abs(x[1] - 3) * x[0]]),
    "least": lambda x: jnp.stack([jnp.minimum(jnp.minimum(x[0], 0.5 * x[1]), x[2] + 3)]),
    "dots": lambda x: jnp.stack([jnp.dot(jnp.sin(x), jnp.cos(x)), jnp.sum(jnp.outer(x, x))]),
    "solutions": moving_mass,
}


def random_place(rng, n: int):
    """A box, the radius of a ball that meets it, and a point of both."""
    while True:
        lo = rng.uniform(-0.6, 0.3, n)
        hi = lo + rng.choice([0.01, 0.2, 0.9], n)
        z, rho = rng.uniform(lo, hi), rng.uniform(0.02, 1.0)
        if z @ z <= rho:
            return lo, hi, rho, z


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_point_is_a_choice_of_the_factors(name):
    """f(x) - f(x*) is the linear function of (z, w), with w = d q and |d| <= h at that point."""
    program = trace(FUNCTIONS[name], jnp.zeros(3), whole=True)
    rng, R, star = np.random.default_rng(0), np.diag([1.0, 0.9, 1.1]), balls(np.zeros(3)).tolist()
    R[0, 2], R[1, 0] = 0.3, -0.2
    matrix, num = regions.exact(R), 0
    base = evaluate_balls(program, star)[0]
    for _ in range(30):
        lo, hi, rho, z = random_place(rng, 3)
        wide = Reading(matrix, star, lo, hi, arb(rho))
        there = wide.entries(program)
        point = Reading(matrix, star, z, z, arb(rho))
        near = point.entries(program)
        assert wide.is_known
        assert point.is_known
        assert len(wide.factors) == len(point.factors)
        d = [b.centre - a.centre for a, b in zip(wide.factors, point.factors)]
        for v, factor in zip(d, wide.factors):
            assert abs(v) <= factor.half + 1e-20
        # w = d Q (z, w)
        z, count = regions.exact(z[:, None]), len(d)
        columns = range(3 + count)
        Q = [[f.rows.get(k, arb(0)) * v for k in columns] for v, f in zip(d, wide.factors)]
        known = arb_mat([row[:3] for row in Q]) * z
        inner = arb_mat([[(i == j) - v for j, v in enumerate(row[3:])] for i, row in enumerate(Q)])
        zeta = [*z.entries(), *inner.solve(known).entries()]
        x = [v[0] for v in (matrix * z).tolist()]
        true = evaluate_balls(program, np.array(x, object))[0]
        for entry, close, value, start in zip(there, near, true, base):
            change = sum((g * zeta[k] for k, g in entry.change.rows.items()), arb(0))
            assert (change - (value - start)).contains(0)
            assert float(change.rad()) < 1e-12
            assert entry.value.overlaps(value)
            assert float((close.value - value).abs_upper()) < 1e-12
            num += 1
    assert num >= 30


@pytest.mark.parametrize("name", ["waves", "nets", "quotients", "exps", "roots", "dots"])
def test_rates_are_derivatives_along_trajectories(name):
    fn = FUNCTIONS[name]
    program, flow = trace(fn, jnp.zeros(3)), trace(lambda x: -jnp.sin(x), jnp.zeros(3))
    rng, star = np.random.default_rng(1), balls(np.zeros(3)).tolist()
    for _ in range(20):
        *_, z = random_place(rng, 3)
        reading = Reading(regions.exact(np.eye(3)), star, z, z, arb(9))
        rates = [entry.change for entry in reading.entries(flow)]
        _, true = jax.jvp(fn, (jnp.asarray(z),), (-jnp.sin(jnp.asarray(z)),))
        for entry, slope in zip(reading.entries(program, rates), true.tolist()):
            # On a point all w are 0.
            found = sum((g * z[k] for k, g in entry.rate.rows.items() if k < 3), arb(0))
            assert float(abs(found - slope).upper()) < 1e-12


def test_ranges_of_functions_are_sharp_and_hold_every_value():
    def values_of(step, whole):
        return values(lambda v: curve(step, v)[0], lambda v: curve(step, v)[1], whole)

    rng = np.random.default_rng(2)
    for op, fn in (("sin", np.sin), ("cos", np.cos), ("tanh", np.tanh), ("exp", np.exp)):
        step = Step(op, (), (), ())
        for _ in range(40):
            lo = rng.uniform(-1.5, 1.0)
            hi = lo + rng.choice([1e-3, 0.3, 1.5])
            star = rng.choice([0.0, 0.4])
            x = np.linspace(lo, hi, 501)
            whole = arb(lo).union(arb(hi))
            away = x[np.abs(x - star) > 1e-6]
            slopes = (fn(away) - fn(star)) / (away - star)
            found = values_of(step, whole), divided_differences(step, whole, arb(star))
            for ball, true in zip(found, (fn(x), slopes)):
                low, high = float(ball.lower()), float(ball.upper())
                assert low <= true.min() + 1e-9
                assert high >= true.max() - 1e-9
                # The parts are an eighth as wide: what is lost is of second order.
                assert high - low <= np.ptp(true) + (hi - lo) ** 2 / 16 + 1e-6
    assert not values_of(Step("log", (), (), ()), arb(0.5, 0.6)).is_finite()


def test_the_greatest_of_a_linear_function_on_a_box_and_a_ball():
    rng, close = np.random.default_rng(3), 0
    for _ in range(60):
        lo, hi, rho, _ = random_place(rng, 3)
        reading = Reading(regions.exact(np.eye(3)), [arb(0)] * 3, lo, hi, arb(rho))
        g = rng.normal(size=3)
        found = float(reading.greatest(balls(g).tolist()).upper())
        z = rng.uniform(lo, hi, (4000, 3))
        z = z[np.sum(z**2, axis=1) <= rho]
        if len(z):
            assert (z @ g).max() <= found
            close += found - (z @ g).max() < 0.2 * np.linalg.norm(g)
    assert close > 30
    whole = Reading(regions.exact(np.eye(3)), [arb(0)] * 3, -np.ones(3), np.ones(3), arb(1))
    assert float(whole.greatest(balls(g).tolist()).upper()) == pytest.approx(np.linalg.norm(g))


def features(x):
    """Three, of all coordinates, mixed."""
    W = jnp.array([[1.0, 0.3, 0.0, 0.1], [0.0, -0.5, 0.2, 0.0], [0.2, 0.2, -0.4, 0.3]])
    A = jnp.array([[0.3, 0.1, 0.0], [0.0, -0.2, 0.2]])
    return A @ jnp.tanh(W @ x)


@pytest.mark.parametrize("with_features", [False, True])
def test_the_form_is_the_derivative_of_V(with_features):
    system = ly.systems.n_link(2)
    f, P = loop(system), ly.lqr(system).P
    phi = features if with_features else None
    found = ly.verify_region(f, P, system.domain, features_fn=phi, level=0.1)
    assert found.by_sectors
    proof = ly.region_certificate(found)
    assert ly.replay(proof).verdict is ly.Verdict.PROVED
    claim = RegionClaim(proof.document)
    rng = np.random.default_rng(4)
    for _ in range(10):
        z = rng.uniform(-0.1, 0.1, 4)
        form = sectors.reduced(claim, z, z)
        z_row = regions.exact(np.concatenate([z, np.zeros(len(form.half))])[None])
        value = (z_row * form.C * z_row.transpose())[0, 0]
        x = jnp.asarray(found.R @ z)
        true = ly.lie_derivative(
            lambda y: y @ (P @ y) + (jnp.sum(features(y) ** 2) if with_features else 0.0), f, x
        )
        assert float(abs(value - float(true)).upper()) < 1e-12


HONEST = {
    "2 links": lambda: links(2, 0.5),
    "3 links": lambda: links(3, 0.15),
    "4 links": lambda: links(4, 0.05),
    "quadrotor": lambda: ly.verify_region(
        loop(ly.systems.quadrotor()), ly.lqr(ly.systems.quadrotor()).P,
        ly.systems.quadrotor().domain, level=0.01,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_certificates_are_replayed_from_their_files(name, tmp_path):
    found = HONEST[name]()
    assert found.proved
    assert found.by_sectors
    proof = ly.region_certificate(found, name=name)
    assert proof.document["format"] == SECTORS
    seen = []
    again = ly.replay(proof.save(tmp_path / "a.npz"), callback_fn=lambda *s: seen.append(s[0]))
    assert (again.verdict, again.reason) == (ly.Verdict.PROVED, "")
    assert again.statement == found.statement
    assert seen == ["functions", "inside", "cover", "falling"]
    assert again.num_boxes >= len(found.lo)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "level"), [(3, 0.2), (4, 0.07), (5, 0.025)])
def test_larger_certificates_are_replayed(n, level):
    again = ly.replay(ly.region_certificate(links(n, level)))
    assert (again.verdict, again.reason) == (ly.Verdict.PROVED, "")


def test_secants_of_a_solution_are_replayed():
    """Two coordinates, so that the proof is by secants, and a mass matrix that is not inverted."""

    def f(x):
        M = [[2 + jnp.cos(x[0]), 0.1 * x[0]], [0.1 * x[0], 2.0 + jnp.square(x[0])]]
        M = jnp.stack([jnp.stack([jnp.asarray(v) for v in row]) for row in M])
        return ly.systems.solve(M, -x)

    found = ly.verify_region(f, np.eye(2), ly.Ball(1.0, (0.0, 0.0)), level=0.5)
    assert "solve" in found.functions[0].ops
    assert not found.by_sectors
    again = ly.replay(ly.region_certificate(found))
    assert (again.verdict, again.reason) == (ly.Verdict.PROVED, "")


def sector_changes(proof):
    """More of them than there are of secants."""
    yield from box_changes(proof)
    lo, hi, t = proof.boxes["region"]
    n = lo.shape[1]
    for i, p in zip(*np.nonzero(t)):
        changed = t.copy()
        changed[i, p] = np.nan if p % 2 else -changed[i, p]
        yield "falling", (lo, hi, changed)
    yield "falling", (lo, hi, t[:, :-1])
    yield "falling", (lo, hi, np.concatenate([t, t[:, -1:]], axis=1))
    yield "functions", (lo, hi[:, :-1], t)
    yield "functions", (lo[:, :-1], hi[:, :-1], t)
    yield "functions", (lo, hi, t[:-1])
    yield "functions", (lo, hi, t[:, :n])


def test_forged_boxes_and_multipliers_with_honest_digests_are_refused():
    proof = two_links()
    assert ly.replay(proof).verdict is ly.Verdict.PROVED
    assert_refused(proof, sector_changes(proof))


def claims():
    """False claims about two links, by what their replay must say."""

    def program(fn):
        return put("f", write_program(trace(fn, jnp.zeros(4), whole=True)))

    system = ly.systems.n_link(2)
    f = loop(system)
    for starts, factor in (("cover", 1.01), ("cover", 1.5), ("inside", 9.0)):
        yield starts, put("level", (0.5 * factor).hex())
        yield "form", altered("P", lambda P, k=factor: (1 + k) * P)
    yield "form", altered("P", lambda P: -P)
    yield "cover", altered("R", lambda R: 1.2 * R)
    yield "inside", put("domain", {"kind": "ball", "numbers": exact([0.2, *[0.0] * 4])})
    yield "functions", altered("equilibrium", lambda x: x + 1e-12)
    yield "functions", program(lambda x: f(x) + 1e-300)
    yield "functions", program(lambda x: jnp.where(x[0] > 0.1, f(x), -x))
    yield "functions", put("features", write_program(trace(lambda x: jnp.abs(x[:2]), jnp.zeros(4))))
    yield "falling", program(lambda x: -f(x))
    for k in (-1.0, 0.0, 0.1, 0.3):
        yield "falling", program(loop(system, k))
    # Undefined somewhere, though it adds nothing.
    yield "falling", program(lambda x: f(x) + 0.0 * jnp.log(0.05 + x[2]) * x)

    def with_mass(M_fn):
        def fn(x):
            M = jnp.stack([jnp.stack(row) for row in M_fn(x)])
            one, two = ly.systems.solve(M, -x[:2]), -x[2:]
            return jnp.concatenate([one, two])

        return program(fn)

    # Mass matrices that are singular, or not positive, somewhere inside.
    one, none = lambda x: 1 + 0 * x[0], lambda x: 0 * x[0]
    yield "falling", with_mass(lambda x: [[0.05 + x[0], none(x)], [none(x), one(x)]])
    yield "falling", with_mass(lambda x: [[one(x), none(x)], [none(x), x[1] * x[1] - 0.01]])
    yield "falling", with_mass(lambda x: [[one(x), 0.9 + x[0]], [0.9 + x[0], one(x)]])


def test_false_claims_with_honest_digests_are_refused():
    count = 0
    for starts, change in claims():
        found = forged(two_links(), change)
        assert found.verdict is ly.Verdict.UNKNOWN
        assert found.reason.startswith(starts), found.reason
        count += 1
    assert count >= 20
    lied = forged(two_links(), lambda d, b: d.__setitem__("statement", "all is well"))
    assert lied.reason.startswith("statement: the numbers say: every trajectory")


def test_a_proof_by_secants_is_no_proof_by_sectors():
    def swap(document, boxes):
        document["format"] = "lyapjax certificate of a region 1"

    assert forged(two_links(), swap).reason.startswith("functions: the boxes have not the shapes")


def test_no_multipliers_are_found_where_V_rises():
    """V of a false level, and of gains too small, by boxes that hold a violation."""
    for n, level, factor in ((2, 1.5, 1.0), (3, 0.5, 1.0), (2, 0.1, 0.2), (3, 0.05, 0.2)):
        system = ly.systems.n_link(n)
        document = copy.deepcopy(ly.region_certificate(links(n, 0.05)).document)
        document["level"] = exact(level)
        f = trace(loop(system, factor), jnp.zeros(2 * n), whole=True)
        document["f"] = write_program(f)
        claim = RegionClaim(document)
        top = np.full(2 * n, float(claim.rho.sqrt().upper()))
        form = sectors.reduced(claim, -top, top)
        given = sectors.inexact([form], -top[None], top[None], float(claim.rho))
        proved, t, _, _ = given.prove(1.0)
        assert not proved.any()
        assert not sectors.falls(claim, form, -top, top, t[0].tolist())
    wild = copy.deepcopy(ly.region_certificate(links(2, 0.05)).document)
    wild["f"] = write_program(trace(loop(ly.systems.n_link(2), -1.0), jnp.zeros(4), whole=True))
    with pytest.raises(ValueError, match="region: no multipliers were found in balls for the box"):
        sectors.witness(RegionClaim(wild), *(s * np.full((1, 4), 1e-9) for s in (-1, 1)))


def test_what_is_read_is_sharp():
    """V̇ = -2 Σ x_k² (1 - x_k²): negative up to the level 1 and no further, by one box."""
    cube = trace(lambda x: -x + x**3, jnp.zeros(3))
    document = copy.deepcopy(ly.region_certificate(links(2, 0.05)).document) | {
        "f": write_program(cube),
        "equilibrium": exact(np.zeros(3)),
        "P": exact(np.eye(3)),
        "R": exact(np.eye(3)),
        "domain": {"kind": "ball", "numbers": exact([9.0, 0.0, 0.0, 0.0])},
    }
    for level, holds in ((0.5, True), (0.999, True), (1.001, False), (2.0, False)):
        claim = RegionClaim(document | {"level": exact(level)})
        top = np.full(3, np.sqrt(level) * 1.0001)
        form = sectors.reduced(claim, *claim.clipped(-top, top))
        given = sectors.inexact([form], -top[None], top[None], level)
        t = given.prove(1.0)[1][0]
        assert len(form.half) == 3
        assert sectors.falls(claim, form, -top, top, t.tolist()) == holds
