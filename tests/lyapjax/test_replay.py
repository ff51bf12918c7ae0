"""Certificates: replayed in balls, and refused after any change, honest digests or not."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, ctx

import lyapjax as ly
from lyapjax.certificates.certificate import digests, exact, inexact, read_program, write_program
from lyapjax.certificates.claims import Claim
from lyapjax.certificates.covers import is_covered
from lyapjax.readers.ball import balls
from lyapjax.readers.jets import evaluate_jets

P = jnp.array([[1.5, -0.5], [-0.5, 1.0]])


def van_der_pol(x):
    return jnp.stack([-x[1], x[0] - (1 - x[0] ** 2) * x[1]])


def quadratic(x):
    return x @ P @ x


def net(x):
    W = jnp.asarray([[0.3, -0.2], [0.7, 0.4], [-0.5, 0.9]])
    return quadratic(x) + 0.05 * jnp.sum(jnp.tanh(W @ x) ** 2)


@pytest.fixture(scope="module", params=["ball", "box"])
def proof(request):
    """A certificate of the reversed Van der Pol oscillator, on a ball and on a box."""
    domain = {"ball": ly.Ball(2.0, (0.0, 0.0)), "box": ly.Box((-2.0, -2.5), (2.0, 2.5))}
    domain = domain[request.param]
    found = ly.verify(net, van_der_pol, domain)
    assert found.verdict is ly.Verdict.PROVED
    return ly.certificate(net, van_der_pol, domain, found, name="van der pol")


def test_a_proof_is_replayed_from_its_file(proof, tmp_path):
    path = proof.save(tmp_path / "proof.npz")
    seen = []
    found = ly.replay(path, callback_fn=lambda name, count: seen.append(name))
    assert (found.verdict, found.reason) == (ly.Verdict.PROVED, "")
    assert seen == ["local", "core", "boundary", "shell"]
    assert found.num_boxes >= sum(len(b[0]) for b in proof.boxes.values())
    assert [p.name for p in tmp_path.iterdir()] == ["proof.npz"]
    again = ly.Certificate.load(path)
    assert again.document == proof.document
    assert "tends to [0.0, 0.0]" in again.statement


def numbers(document, path=()):
    """Paths to every hexadecimal number in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from numbers(value, (*path, key))
        elif isinstance(value, str) and value.lstrip("-").startswith("0x"):
            yield (*path, key)


def test_any_changed_number_or_box_is_noticed_and_named(proof):
    rng = np.random.default_rng(0)
    changed = 0
    for path in numbers(proof.document):
        for direction in (-9e9, 9e9):
            document = copy.deepcopy(proof.document)
            place = document
            for key in path[:-1]:
                place = place[key]
            value = float.fromhex(place[path[-1]])
            place[path[-1]] = float(np.nextafter(value, direction)).hex()
            found = ly.replay(ly.Certificate(document, proof.boxes))
            assert found.verdict is ly.Verdict.UNKNOWN
            assert found.reason.startswith(f"digest: the {path[0]} were changed")
            changed += 1
    for name in proof.boxes:
        for _ in range(20):
            boxes = {key: (lo.copy(), hi.copy()) for key, (lo, hi) in proof.boxes.items()}
            corner = boxes[name][rng.integers(2)]
            i = tuple(rng.integers(n) for n in corner.shape)
            corner[i] = np.nextafter(corner[i], rng.choice([-9.0, 9.0]))
            found = ly.replay(ly.Certificate(proof.document, boxes))
            assert found.verdict is ly.Verdict.UNKNOWN
            assert found.reason.startswith(f"digest: the boxes {name} were changed")
            changed += 1
    document = proof.document | {"statement": "everything converges"}
    assert "digest: the statement" in ly.replay(ly.Certificate(document, proof.boxes)).reason
    assert changed >= 100


def forged(proof, change, **options) -> ly.Replay:
    """A replay after a change whose author has also corrected the digests and the words."""
    document = copy.deepcopy(proof.document)
    boxes = {key: (lo.copy(), hi.copy()) for key, (lo, hi) in proof.boxes.items()}
    change(document, boxes)
    if document["statement"] == proof.document["statement"]:
        document["statement"] = Claim(document).statement
    document["digests"] = digests(document, boxes)
    return ly.replay(ly.Certificate(document, boxes), max_seconds=20, **options)


def test_forgeries_with_honest_digests_fail_at_the_obligation_they_break(proof):
    c2 = float.fromhex(proof.document["levels"]["c2"])
    level = float.fromhex(proof.document["local"]["level"])

    def raise_c2(document, boxes):
        document["levels"]["c2"] = (1.5 * c2).hex()

    def lower_c1_below_everything(document, boxes):
        document["levels"]["c1"] = (-1.0).hex()

    def raise_c1(document, boxes):
        document["levels"]["c1"] = (1.2 * c2).hex()
        document["levels"]["c2"] = (1.1 * c2).hex()

    def enlarge_the_ellipsoid(document, boxes):
        document["local"]["level"] = (4 * level).hex()

    def claim_the_core(document, boxes):
        document["local"]["core"] = document["local"]["level"]

    def turn_P(document, boxes):
        document["local"]["P"] = exact(-inexact(document["local"]["P"]))

    def turn_time(document, boxes):
        document["f"] = write_program(ly.trace(lambda x: -van_der_pol(x), jnp.zeros(2)))

    def move_the_equilibrium(document, boxes):
        document["equilibrium"] = exact([0.0, 0.01])

    def enlarge_the_domain(document, boxes):
        document["domain"]["numbers"] = exact(1.1 * inexact(document["domain"]["numbers"]))

    def exaggerate(document, boxes):
        document["statement"] = "every trajectory from everywhere tends to [0.0, 0.0]"

    def drop(name):
        def change(document, boxes):
            lo, hi = boxes[name]
            boxes[name] = lo[1:], hi[1:]

        return change

    def shrink(name):
        def change(document, boxes):
            lo, hi = boxes[name]
            inner = int(np.argmax((lo < hi).all(axis=1)))
            hi[inner, 1] = np.nextafter(hi[inner, 1], -9.0)

        return change

    expected = {
        exaggerate: "statement: the numbers say",
        raise_c2: "boundary: |shell: ",
        lower_c1_below_everything: "shell: ",
        raise_c1: "core: ",
        enlarge_the_ellipsoid: "local: ",
        turn_P: "local: P is not",
        turn_time: "local: P J",
        move_the_equilibrium: "local: f",
        enlarge_the_domain: "boundary: |core: ",
        drop("core"): "core: the boxes do not cover",
        drop("shell"): "shell: the boxes do not cover",
        drop("boundary"): "boundary: the boxes do not cover",
        drop("local"): "local: the boxes do not cover",
        shrink("core"): "core: the boxes do not cover",
        shrink("shell"): "shell: the boxes do not cover",
    }
    if float.fromhex(proof.document["local"]["core"]) < 0.5 * level:
        expected[claim_the_core] = "local: P J"
    for change, starts in expected.items():
        found = forged(proof, change)
        assert found.verdict is ly.Verdict.UNKNOWN, change.__name__
        assert found.reason.startswith(tuple(starts.split("|"))), (change.__name__, found.reason)


def test_covers_of_random_cuts_and_nothing_else():
    rng = np.random.default_rng(0)
    for turn in range(40):
        n = 1 + turn % 3
        los, his = [np.full(n, -1.0)], [np.full(n, 2.0)]
        for _ in range(30):
            k, axis = rng.integers(len(los)), rng.integers(n)
            at = rng.uniform(los[k][axis], his[k][axis])
            above, below = los[k].copy(), his[k].copy()
            above[axis] = below[axis] = at
            los.append(above)
            his.append(his[k])
            his[k] = below
        los, his = np.array(los), np.array(his)
        order = rng.permutation(len(los))
        lo, hi = np.full(n, -1.0), np.full(n, 2.0)
        assert is_covered(lo, hi, los[order], his[order])
        assert is_covered(lo + 0.1, hi - 0.1, los, his)
        assert not is_covered(lo, hi, los[order[1:]], his[order[1:]])
        k = order[0]
        thin = his.copy()
        thin[k, 0] = np.nextafter(thin[k, 0], -9.0)
        assert not is_covered(lo, hi, los, thin)
        assert not is_covered(lo - 1e-9, hi, los, his)
    assert not is_covered(np.zeros(2), np.ones(2), np.zeros((0, 2)), np.zeros((0, 2)))


FUNCTIONS = {
    "net": net,
    "waves": lambda x: jnp.sin(x[0] * x[1]) + jnp.cos(x[0]) * jnp.tan(0.3 * x[1]),
    "exps": lambda x: jnp.exp(x[0]) * jax.nn.sigmoid(x[1]) + jnp.expm1(x[0] * 0.1),
    "logs": lambda x: jnp.log(3 + x[0]) + jnp.log1p(x[1] ** 2) + jnp.sqrt(4 + x @ x),
    "quotients": lambda x: x[0] / (3 + x[1]) + (3 + x[0]) ** -2 + x[1] ** 5 - x[0] ** 4,
    "arcs": lambda x: jnp.arctan(x[0]) * jnp.arcsin(0.3 * x[1]) + jnp.arccos(0.2 * x[0]),
    "hyperbolic": lambda x: jnp.sinh(x[0]) * jnp.cosh(x[1]) + jax.lax.rsqrt(4 + x[0]),
    "slope": lambda x: ly.lie_derivative(net, van_der_pol, x),
    "sigmoid slope": lambda x: jax.grad(lambda y: jax.nn.sigmoid(y @ y))(x)[0],
    "reductions": lambda x: jnp.sum(jnp.outer(x, x)) + jnp.prod(x + 2) - jnp.linalg.norm(x + 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jets_hold_values_gradients_and_hessians(name):
    fn = FUNCTIONS[name]
    program = read_program(json.loads(json.dumps(write_program(ly.trace(fn, jnp.zeros(2))))))
    rng = np.random.default_rng(0)
    at_all = jax.jit(jax.vmap(lambda x: (fn(x), jax.grad(fn)(x), jax.hessian(fn)(x).ravel())))
    old, ctx.prec = ctx.prec, 96
    try:
        for width in (0.0, 0.05, 0.4):
            lo = rng.uniform(-1.5, 1.1, 2)
            hi = lo + width
            jet = evaluate_jets(program, list(balls(lo, hi)), 2)[0].item()
            found = [jet.value, *jet.gradient, *jet.hessian]
            values = at_all(jnp.asarray(rng.uniform(lo, hi, size=(20, 2))))
            for true in np.column_stack([np.asarray(v) for v in values]):
                for inside, number in zip(found, true):
                    # JAX's own rounding, far below what a wrong rule would miss by.
                    slack = 1e-10 * (1 + abs(float(number)))
                    assert (inside + arb(0, slack)).contains(arb(float(number)))
            if width == 0:
                assert all(float(v.rad()) < 1e-20 * (1 + abs(float(v))) for v in found)
    finally:
        ctx.prec = old


def test_kinks_have_all_slopes():
    program = ly.trace(lambda x: jnp.clip(jnp.abs(x[0]), 0.5, 2.0), jnp.zeros(1))
    for lo, hi, least, most in ((-1, 1, -1, 1), (0.6, 1, 1, 1), (-0.2, 0.2, 0, 0), (0, 1, 0, 1)):
        jet = evaluate_jets(program, list(balls([lo], [hi])), 1)[0].item()
        assert jet.gradient[0].contains(arb(least))
        assert jet.gradient[0].contains(arb(most))


def test_what_is_no_certificate_is_said(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, document=np.array("{}"))
    text = tmp_path / "text.npz"
    text.write_text("hello")
    for path in (other, text):
        with pytest.raises(ValueError, match=r"path: .* is (no certificate|not of the format)"):
            ly.replay(path)
    unknown = ly.verify(net, lambda x: -van_der_pol(x), ly.Ball(2.0, (0.0, 0.0)))
    with pytest.raises(ValueError, match="verification: expected PROVED, got UNKNOWN"):
        ly.certificate(net, van_der_pol, ly.Ball(2.0, (0.0, 0.0)), unknown)
