"""Proofs that are stopped and go on: the same verdict, the same boxes, as many of them."""

import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax.proofs import checkpoint


class Stopped(Exception):
    """What a run is killed by."""


def killer(after: int):
    """A callback that ends the run at the given call."""
    calls = []

    def call(*seen):
        calls.append(seen)
        if len(calls) == after:
            raise Stopped

    return call


def run_to_the_end(prove, path) -> tuple:
    """The outcome of a proof that is killed again and again, and how often it was."""
    kills = 0
    while True:
        try:
            return prove(callback_fn=killer(2), checkpoint=path), kills
        except Stopped:
            kills += 1
            assert path.exists()
            assert kills < 200


def ordered(lo, hi) -> np.ndarray:
    """Boxes in an order of their own."""
    rows = np.concatenate([lo, hi], axis=1)
    return rows[np.lexsort(rows.T)]


def margin(x):
    """-(x_1 - x_2)² - 1e-5, multiplied out: thousands of boxes along the diagonal."""
    return 2 * x[0] * x[1] - x[0] ** 2 - x[1] ** 2 - 1e-5


def test_prove_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    lo, hi = np.full(2, -2.0), np.full(2, 2.0)

    def prove(**options):
        return ly.prove(margin, lo, hi, max_seconds=500.0, **options)

    whole = prove()
    assert whole.proved
    found, kills = run_to_the_end(prove, tmp_path / "state.npz")
    assert kills >= 2
    assert found.proved
    assert found.num_boxes == whole.num_boxes
    np.testing.assert_array_equal(ordered(found.lo, found.hi), ordered(whole.lo, whole.hi))
    assert list(tmp_path.iterdir()) == []


def test_prove_goes_on_after_its_budget_and_not_in_another_proof(tmp_path):
    lo, hi, path = np.full(2, -2.0), np.full(2, 2.0), tmp_path / "state.npz"
    first = ly.prove(margin, lo, hi, max_boxes=600, checkpoint=path)
    assert first.verdict is ly.Verdict.UNKNOWN
    assert path.exists()
    with pytest.raises(ValueError, match="checkpoint: expected the state of this proof"):
        ly.prove(margin, lo, 2 * hi, checkpoint=path)
    rest = ly.prove(margin, lo, hi, checkpoint=path, max_seconds=500.0)
    assert rest.proved
    assert rest.num_boxes == ly.prove(margin, lo, hi, max_seconds=500.0).num_boxes
    assert not path.exists()
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"checkpoint: .* is no state of a proof"):
        ly.prove(margin, lo, hi, checkpoint=path)


@pytest.mark.parametrize(
    ("make", "level"),
    [
        (ly.systems.cart_pole, 2.0),
        (ly.systems.cart_pole, None),
        (lambda: ly.systems.n_link(2), 0.53),  # by sectors
    ],
)
def test_verify_region_goes_on_where_it_was_killed(make, level, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    system = make()
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))

    def prove(**options):
        return ly.verify_region(
            f, regulator.P, system.domain, level=level, max_seconds=500.0, **options
        )

    whole = prove()
    found, kills = run_to_the_end(prove, tmp_path / "state.npz")
    assert kills >= 2
    assert (
        (found.verdict, found.level)
        == (whole.verdict, whole.level)
        == (
            ly.Verdict.PROVED,
            whole.level,
        )
    )
    assert found.num_boxes == whole.num_boxes
    for name in ("lo", "hi", "multipliers"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert list(tmp_path.iterdir()) == []


def test_verify_region_goes_on_after_its_budget(tmp_path):
    system, path = ly.systems.cart_pole(), tmp_path / "state.npz"
    regulator = ly.lqr(system)
    f = system.closed_loop(ly.linear_controller(system, regulator.K))
    first = ly.verify_region(
        f, regulator.P, system.domain, level=2.0, max_boxes=20, checkpoint=path
    )
    assert first.verdict is ly.Verdict.UNKNOWN
    with pytest.raises(ValueError, match="checkpoint: expected the state of this proof"):
        ly.verify_region(f, regulator.P, system.domain, level=1.9, checkpoint=path)
    rest = ly.verify_region(f, regulator.P, system.domain, level=2.0, checkpoint=path)
    assert rest.proved
    assert rest.num_boxes > first.num_boxes
    assert not path.exists()
    assert ly.replay(ly.region_certificate(rest)).verdict is ly.Verdict.PROVED


def oscillator():
    """V, f and a domain; V̇ is negative below a level of about 2.29."""
    P = jnp.array([[1.5, -0.5], [-0.5, 1.0]])

    def f(x):
        return jnp.stack([-x[1], x[0] - (1 - x[0] ** 2) * x[1]])

    return lambda x: x @ P @ x, f, ly.Ball(2.0, (0.0, 0.0))


@pytest.mark.parametrize("level", [None, 2.2])
def test_verify_goes_on_where_it_was_killed_and_makes_no_proof_again(level, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    path, calls = tmp_path / "state.npz", []

    def prove(**options):
        return ly.verify(*oscillator(), level=level, max_seconds=500.0, **options)

    whole = prove(callback_fn=lambda *seen: calls.append(seen))
    found, kills = run_to_the_end(prove, path)
    assert found.verdict is ly.Verdict.PROVED
    assert kills >= 3
    # A killed run makes two rounds, of which the first at least is kept; none is made anew.
    assert kills <= len(calls)
    assert (found.level, found.inner_level) == (whole.level, whole.inner_level)
    for name, proof in whole.proofs.items():
        assert found.proofs[name].num_boxes == proof.num_boxes
        np.testing.assert_array_equal(found.proofs[name].lo, proof.lo)
        np.testing.assert_array_equal(found.proofs[name].hi, proof.hi)
    assert list(tmp_path.iterdir()) == []


def test_verify_goes_on_after_its_budget_and_not_in_another_proof(tmp_path):
    V, f, domain = oscillator()
    path = tmp_path / "state.npz"
    first = ly.verify(V, f, domain, level=2.2, max_boxes=600, checkpoint=path)
    assert first.verdict is ly.Verdict.UNKNOWN
    with pytest.raises(ValueError, match="checkpoint: expected the state of this proof"):
        ly.verify(V, f, domain, level=2.1, checkpoint=path)
    rest = ly.verify(V, f, domain, level=2.2, checkpoint=path)
    whole = ly.verify(V, f, domain, level=2.2)
    assert rest.verdict is whole.verdict is ly.Verdict.PROVED
    assert rest.proofs["shell"].num_boxes == whole.proofs["shell"].num_boxes
    assert not path.exists()


def test_verify_shell_goes_on_after_its_budget(tmp_path):
    V, f, _ = oscillator()
    path = tmp_path / "state.npz"
    whole = ly.verify_shell(V, f, 0.01, 1.0)
    first = ly.verify_shell(V, f, 0.01, 1.0, max_boxes=600, checkpoint=path)
    assert first.verdict is ly.Verdict.UNKNOWN
    assert path.exists()
    rest = ly.verify_shell(V, f, 0.01, 1.0, checkpoint=path)
    assert rest.verdict is whole.verdict is ly.Verdict.PROVED
    for name, proof in whole.proofs.items():
        assert rest.proofs[name].num_boxes == proof.num_boxes
    assert not path.exists()
