"""`prove`: what is false is never proved, what is true and simple is, and budgets are kept."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb

import lyapjax as ly
from lyapjax.proofs.statements import Bounding, _template, refutes, statement_of
from lyapjax.readers.compiled import executable

LO, HI = jnp.full(2, -2.0), jnp.full(2, 2.0)


def ring(x):
    return jnp.stack([0.25 - x @ x, x @ x - 4.0])


def test_a_thousand_false_candidates_are_never_proved():
    # A true candidate with a bump: false only within `radius` of `place`, down to 1e-3 of the
    # domain's extent, and there by as little as the last factor says.
    def candidate(x, place, radius, height):
        def V(x):
            return jnp.log1p(x @ x)

        slope = jax.jvp(V, (x,), (-x,))[1]
        away = (x - place) @ (x - place) / radius**2
        bump = 1.0 / (1.0 + away**2)
        return slope + height * bump

    rng = np.random.default_rng(0)
    counts = dict.fromkeys(ly.Verdict, 0)
    for _ in range(1000):
        angle, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.9)
        place = jnp.asarray([r * np.cos(angle), r * np.sin(angle)])
        radius = jnp.asarray(4.0 * 10 ** rng.uniform(-3, -1))
        depth = 2 * r * r / (1 + r * r)  # -V̇ at the place
        height = jnp.asarray(depth * (1 + 10 ** rng.uniform(-6, 0)))

        def margin(x, place=place, radius=radius, height=height):
            return candidate(x, place, radius, height)

        proof = ly.prove(margin, LO, HI, where_fn=ring, max_boxes=40_000)
        counts[proof.verdict] += 1
        if proof.point is not None:
            assert 0.25 <= proof.point @ proof.point <= 4
            assert float(margin(jnp.asarray(proof.point))) > -1e-12
    assert counts[ly.Verdict.PROVED] == 0
    assert counts[ly.Verdict.REFUTED] > 900
    true = ly.prove(lambda x: candidate(x, LO, 0.1, 0.0), LO, HI, where_fn=ring)
    assert true.proved


def test_equalities_are_no_strict_inequalities():
    assert ly.prove(lambda x: -(x @ x), LO, HI).verdict is not ly.Verdict.PROVED
    proof = ly.prove(lambda x: -(x[0] ** 2), jnp.zeros(1), jnp.ones(1))
    assert proof.verdict is not ly.Verdict.PROVED
    assert ly.prove(lambda x: x[0] - 1.0, jnp.zeros(1), jnp.ones(1)).verdict is ly.Verdict.REFUTED
    below = np.nextafter(1.0, 0.0)
    last = ly.prove(lambda x: x[0] - 1.0, np.full(1, below), np.full(1, below))
    assert last.proved  # by 2^-53


def test_where_restricts_and_its_border_belongs_to_it():
    def inside(x):
        return jnp.stack([x @ x - 1.0])

    assert ly.prove(lambda x: x[0] - 1.001, LO, HI, where_fn=inside).proved
    proof = ly.prove(lambda x: x[0] - 0.999, LO, HI, where_fn=inside)
    assert proof.verdict is ly.Verdict.REFUTED
    assert proof.point @ proof.point <= 1
    assert not ly.prove(lambda x: x[0] - 1.0, LO, HI, where_fn=inside).proved
    empty = ly.prove(lambda x: x[0] + 10.0, LO, HI, where_fn=lambda x: jnp.ones(1))
    assert empty.proved


def test_the_boxes_of_a_proof_cover_the_region_and_each_is_proved():
    def margin(x):
        return jnp.sin(3 * x[0]) * x[1] - 0.6 * (x @ x) - 0.4

    proof = ly.prove(margin, LO, HI, where_fn=ring)
    assert proof.proved
    assert proof.share == 1.0
    assert float(np.prod(proof.hi - proof.lo, axis=1).sum()) == pytest.approx(16.0, rel=1e-12)
    points = np.random.default_rng(0).uniform(-2, 2, (500, 2))
    held = ((proof.lo[None] <= points[:, None]) & (points[:, None] <= proof.hi[None])).all(-1)
    assert held.any(axis=1).all()
    values = jax.vmap(margin)(points)
    regions = jax.vmap(ring)(points)
    assert (values[(regions <= 0).all(axis=1)] < 0).all()


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.log(x[0]) - 100.0,
        lambda x: jnp.tanh(1 / x[0]) - 2.0,
        lambda x: jnp.sqrt(x[0] - 0.3) - 100.0,
        lambda x: jnp.tan(x[0]) - 1e30,
        lambda x: jnp.nan * x[0] - 1.0,
        lambda x: jnp.inf * x[0] - 1.0,
        lambda x: jnp.where(x[0] > 0.2, -1.0, jnp.nan),
        lambda x: jnp.minimum(jnp.log(x[0]), -1.0) - jnp.inf,
        lambda x: jnp.exp(1e3 * x[0]) - jnp.exp(1e3 * x[0]) * 2 + x[0],
    ],
)
def test_nan_infinity_and_poles_are_never_a_proof(fn):
    assert ly.prove(fn, np.full(2, -2.0), HI, max_boxes=20_000).verdict is not ly.Verdict.PROVED


def test_huge_numbers_take_the_guarded_way_and_stay_sound():
    wide = ly.prove(lambda x: -1e200 * x[0] ** 2 - 1e200, np.full(2, -1e120), np.full(2, 1e120))
    assert wide.proved
    false = ly.prove(lambda x: 1e-200 * x[0] ** 2 - 1e30, np.full(2, -1e120), np.full(2, 1e120))
    assert false.verdict is ly.Verdict.REFUTED
    small = ly.prove(lambda x: 1e-310 - x[0] * 0.0, LO, HI)
    assert not small.proved


def test_boxes_that_cannot_be_cut_are_not_forgotten():
    lo = np.array([[0.0, 0.0], [1.5, 1.5], [-2.0, -2.0]])
    hi = np.array([[0.0, 0.0], [1.5, 1.5], [-1.0, -1.0]])
    assert ly.prove(lambda x: x[0] - 1.6, lo, hi).proved
    proof = ly.prove(lambda x: x[0] - 1.4, lo, hi)
    assert proof.verdict is ly.Verdict.REFUTED
    assert proof.point.tolist() == [1.5, 1.5]
    assert ly.prove(lambda x: -jnp.abs(x[0]), lo, hi).verdict is ly.Verdict.REFUTED


def test_budgets_end_in_unknown_with_what_is_left():
    def hard(x):  # true, by 1e-9
        return 2 * x[0] * x[1] - x[0] ** 2 - x[1] ** 2 - 1e-9

    seen = []
    proof = ly.prove(hard, LO, HI, max_boxes=3000, callback_fn=lambda *state: seen.append(state))
    assert proof.verdict is ly.Verdict.UNKNOWN
    assert "3" in proof.reason
    assert 0 < proof.share < 1
    assert f"{proof.share:.3%}" in proof.reason
    lo, hi = proof.hardest
    assert (lo < hi).all()
    assert seen[-1][1] == proof.num_boxes
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(seen))
    assert ly.prove(hard, LO, HI, max_seconds=0.0).verdict is ly.Verdict.UNKNOWN
    coarse = ly.prove(hard, LO, HI, rtol=0.1)
    assert "smallest size" in coarse.reason


def test_numbers_may_change_without_compiling_again():
    def family(k):
        return lambda x: -(jnp.tanh(k @ x) ** 2) - k[0]

    ly.prove(family(jnp.array([1.3, 0.4])), LO, HI)
    before = executable.cache_info().misses
    assert ly.prove(family(jnp.array([0.7, -2.0])), LO, HI).proved
    assert not ly.prove(family(jnp.array([-0.7, -2.0])), LO, HI).proved
    assert executable.cache_info().misses == before


def test_new_weights_are_neither_traced_nor_compiled_again():
    def decreasing(stiffness):
        V = ly.quadratic_lyapunov(abs(stiffness) * jnp.array([[2.0, 0.3], [0.3, 1.0]]))
        system = ly.systems.double_integrator()
        u = ly.LinearController([[-stiffness, -2.0]])
        return V, system.closed_loop(u)

    ly.verify_shell(*decreasing(1.0), 0.1, 1.0)
    before = _template.cache_info().misses, executable.cache_info().misses
    results = [ly.verify_shell(*decreasing(s), 0.1, 1.0).verdict for s in (0.9, 1.1, -1.0)]
    # The last controller pushes away from the origin.
    assert [r.value for r in results[:2]] == ["PROVED", "PROVED"]
    assert results[2] is not ly.Verdict.PROVED
    assert (_template.cache_info().misses, executable.cache_info().misses) == before


def test_a_plain_function_is_read_anew_at_every_call():
    shift = {"by": 0.0}

    def margin(x):
        return x[0] - 2.5 + shift["by"]

    assert ly.prove(margin, LO, HI).proved
    shift["by"] = 1.0
    assert ly.prove(margin, LO, HI).verdict is ly.Verdict.REFUTED


def test_a_small_counterexample_of_a_long_proof_is_climbed_to():
    # A narrow ridge whose top is just above 0, in a valley that needs many boxes.
    def margin(x):
        ridge = jnp.exp(-2000.0 * ((x[0] - 0.3217) ** 2 + (x[1] + 0.7123) ** 2))
        return jnp.sin(40 * x[0]) * jnp.sin(40 * x[1]) - 1.0005 + 2.5 * ridge

    proof = ly.prove(margin, LO, HI, max_boxes=400_000)
    assert proof.verdict is ly.Verdict.REFUTED
    assert float(margin(jnp.asarray(proof.point))) >= 0


def test_a_counterexample_is_read_in_balls():
    program = ly.trace(lambda x: (x[0] - 1.0, x[0] - 2.0), jnp.zeros(1))
    assert refutes(program, np.array([1.0]))
    assert not refutes(program, np.array([np.nextafter(1.0, 0)]))
    assert not refutes(program, np.array([2.5]))
    undefined = ly.trace(lambda x: (jnp.log(x[0]),), jnp.zeros(1))
    assert not refutes(undefined, np.array([-1.0]))


def test_bad_input_is_named():
    for kwargs, words in [
        ({"lo": np.zeros(2, np.float32)}, "lo: expected float64"),
        ({"lo": np.full(2, 3.0)}, "lo: expected finite corners with lo <= hi"),
        ({"lo": np.full(2, np.nan)}, "lo: expected finite corners"),
        ({"hi": np.full(2, np.inf)}, "lo: expected finite corners"),
        ({"lo": np.zeros((0, 2)), "hi": np.zeros((0, 2))}, "hi: expected corners"),
        ({"hi": np.zeros(3)}, "hi: expected corners"),
        ({"margin_fn": lambda x: x}, "margin_fn: expected a number"),
        ({"where_fn": lambda x: (x, x)}, "where_fn: expected an array"),
    ]:
        given = {"margin_fn": lambda x: x[0] - 9.0, "lo": np.zeros(2), "hi": np.ones(2), **kwargs}
        with pytest.raises(ValueError, match=words):
            ly.prove(given.pop("margin_fn"), given.pop("lo"), given.pop("hi"), **given)


PIECES = [
    *(jnp.tanh, jnp.sin, jnp.cos, jax.nn.sigmoid, jnp.abs, jnp.arctan, jnp.square),
    *(lambda z: z**3, lambda z: jnp.exp(jnp.tanh(z)), lambda z: jnp.log1p(z * z)),
    *(lambda z: 1 / (1.5 + jnp.sin(z)), lambda z: jnp.clip(z, -0.5, 0.5)),
    lambda z: jnp.sqrt(z * z + 1e-3),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(14))
def test_compiled_bounds_of_random_expressions_hold_against_balls(seed):
    rng = np.random.default_rng(seed)
    k, c = [PIECES[i] for i in rng.integers(0, len(PIECES), 4)], rng.normal(size=8)

    def value(x):
        a = k[0](c[0] * x[0] + c[1] * x[1])
        b = k[1](c[2] * x[0] * a + c[3])
        d = k[2](a * b - c[4] * x[1])
        return k[3](c[5] * d + c[6] * a) * c[7] - jnp.maximum(a, d)

    def slope(x):
        return jax.jvp(value, (x,), (jnp.stack([x[1], -jnp.sin(x[0])]),))[1]

    for fn in (value, slope):
        statement = statement_of(fn, None, 2)
        lo = rng.uniform(-3, 3, (2, 512))
        hi = lo + 10.0 ** rng.uniform(-15, 0, (1, 512))
        bounding = Bounding(statement, lo.T, hi.T, np.zeros(2))
        found = bounding(lo.T, hi.T)
        upper = np.asarray(found.upper)
        for t in (0.0, 1.0, rng.uniform(size=lo.shape)):
            x = np.clip(lo + t * (hi - lo), lo, hi)
            for i in np.flatnonzero(np.isfinite(upper))[::2]:
                ball = ly.evaluate_balls(statement.program, x[:, i])[0][()]
                assert not ball > arb(upper[i])
