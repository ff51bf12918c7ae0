"""SMT-LIB text means what the function means; dReal's answers are used only as far as they go."""

import math
import os
import stat
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lyapjax as ly
from lyapjax import dreal
from lyapjax.dreal import backend
from lyapjax.dreal.smt import TEXT

LO, HI = np.full(2, -1.5), np.full(2, 2.0)


def parse(text: str) -> list:
    """S-expressions as nested lists."""
    stack = [[]]
    for token in text.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    return stack[0]


def value(term, env):
    """A term by Python's own floats: an interpreter that shares nothing with the writer."""
    if isinstance(term, str):
        return env[term] if term in env else {"true": True, "false": False}.get(term) or float(term)
    head, *rest = term
    if head == "ite":
        return value(rest[1] if value(rest[0], env) else rest[2], env)
    v = [value(r, env) for r in rest]
    two = {
        "+": lambda a, b: a + b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b if b else math.nan,
        "^": lambda a, b: a**b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
        "=": lambda a, b: a == b,
        "max": max,
        "min": min,
        "and": lambda a, b: a and b,
    }
    if head == "or":
        return any(v)
    if head == "not":
        return not v[0]
    if head == "-":
        return -v[0] if len(v) == 1 else v[0] - v[1]
    if head in two:
        return two[head](*v)
    if head == "abs":
        return abs(v[0])
    name = {"arctan": "atan", "arcsin": "asin", "arccos": "acos"}.get(head, head)
    try:
        return getattr(math, name)(v[0])
    except ValueError:
        return math.nan


def solution(text: str, x) -> tuple[bool, float]:
    """Whether x satisfies all assertions, and how near the closest comparison is."""
    env = {f"x{i}": float(v) for i, v in enumerate(x)}
    holds = True
    for line in parse(text):
        if line[0] == "define-fun":
            assert line[2] == []
            env[line[1]] = value(line[4], env)
            assert line[3] == ("Bool" if isinstance(env[line[1]], bool) else "Real")
        elif line[0] == "assert":
            holds = holds and value(line[1], env)
    return bool(holds)


def network(x):
    W = jnp.asarray([[0.3, -1.2], [0.7, 0.4], [-0.5, 0.9]])
    return jnp.tanh(W @ x + 0.1) @ jnp.asarray([1.0, -0.5, 0.25])


FUNCTIONS = {
    "network": network,
    "lie": lambda x: ly.lie_derivative(network, lambda y: jnp.stack([y[1], -jnp.sin(y[0])]), x),
    "smooth": lambda x: jnp.exp(x[0]) * jnp.cos(x[1]) - jnp.log1p(x[0] ** 2) + jnp.arctan(x[1]),
    "powers": lambda x: x[0] ** 3 - 2 * x[1] ** 4 + 1 / (3 + x[0]) - (3 + x[1]) ** -2,
    "kinks": lambda x: jnp.maximum(jnp.abs(x[0]), x[1]) - jnp.clip(x[0] * x[1], -0.5, 0.5),
    "cases": lambda x: jnp.where((x[0] > 0) & (x[1] < 1), x[0] - 1, jnp.sign(x[1]) * 0.5),
    "sums": lambda x: jnp.sum(jnp.cumsum(jnp.outer(x, x), axis=1)) - jnp.max(x) * jnp.prod(x),
    "sigmoid": lambda x: jax.nn.sigmoid(3 * x[0]) - 0.7 + jnp.expm1(0.1 * x[1]),
    "slope": lambda x: jax.grad(lambda y: jax.nn.sigmoid(y @ y))(x)[0],
    "roots": lambda x: jnp.sqrt(3 + x[0]) - 1.3 + jnp.arcsin(0.4 * x[1]) * jax.lax.rsqrt(4 + x[1]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_text_has_the_counterexamples_of_the_function_and_no_others(name):
    fn = FUNCTIONS[name]

    def where(x):
        return jnp.stack([0.2 - x @ x, x[0] - 1.8])

    text = ly.smt2(fn, LO, HI, where_fn=where)
    rng, seen = np.random.default_rng(0), set()
    for x in rng.uniform(LO - 0.2, HI + 0.2, size=(150, 2)):
        margin, region = float(fn(jnp.asarray(x))), np.asarray(where(jnp.asarray(x)))
        expected = bool((x >= LO).all() and (x <= HI).all() and (region <= 0).all() and margin >= 0)
        if min(abs(margin), abs(region).min()) < 1e-9:
            continue
        assert solution(text, x) == expected, (x, margin)
        seen.add(expected)
    assert seen == {True, False}


def test_every_operation_has_a_term():
    # Those that move entries or sum them are handled apart.
    from lyapjax.readers.program import BINARY, UNARY

    assert set(TEXT) >= UNARY | BINARY | {"integer_pow", "select", "indicator", "sech2"}


def test_where_the_function_has_no_value_there_is_no_proof():
    text = ly.smt2(lambda x: -1 - 1 / x[0] ** 2, -np.ones(1), np.ones(1))
    assert solution(text, [0.0])
    assert not solution(text, [0.5])
    text = ly.smt2(lambda x: jnp.log(x[0]) - 9, -np.ones(1), np.ones(1))
    assert solution(text, [-0.5])
    assert not solution(text, [0.5])


def test_numbers_are_exact_decimals():
    numbers = [0.1, -1 / 3, 1e-30, 5e-324, 1e300, 2.0]
    text = ly.smt2(lambda x: x @ jnp.asarray(numbers), -np.ones(6), np.ones(6))
    found = {
        Fraction(Decimal(t))
        for t in text.replace("(", " ").replace(")", " ").split()
        if t[0].isdigit()
    }
    assert {abs(Fraction(v)) for v in numbers} <= found


def test_shared_steps_are_written_once():
    def deep(x):
        y = x[0]
        for _ in range(40):
            y = jnp.sin(y) * y + y
        return y

    # Written out, the term would have 3^40 leaves.
    assert len(ly.smt2(deep, -np.ones(1), np.ones(1)).splitlines()) < 200


def test_bad_input_is_named():
    for call, match in (
        (lambda: ly.smt2(network, LO, HI[:1]), r"hi: expected corners of one shape \(n,\)"),
        (lambda: ly.smt2(network, HI, LO), "lo: expected finite corners with lo <= hi"),
        (lambda: ly.smt2(lambda x: x[0] + jnp.inf, LO, HI), "expected finite constants, got inf"),
        (lambda: dreal.check(network, LO, HI, delta=0.0), "delta: expected a positive number"),
        (lambda: dreal.check(network, LO, HI, timeout=-1.0), "timeout: expected a positive number"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_without_dreal_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(dreal, "backend", lambda: None)
    with pytest.raises(ImportError, match=r"libibex 2\.7\.4.*coinor-libclp1.*on PATH"):
        dreal.check(network, LO, HI)


def a_program(tmp_path, monkeypatch, script: str):
    """A `dreal` on PATH that answers what we want."""
    path = tmp_path / "dreal"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(dreal, "backend", lambda: "executable")


def test_answers_of_the_executable_count_only_as_far_as_they_go(tmp_path, monkeypatch):
    def margin(x):
        return x[0] - 0.5

    ask = (margin, np.zeros(1), np.ones(1))
    a_program(tmp_path, monkeypatch, "echo unsat")
    assert dreal.check(*ask).verdict is ly.Verdict.PROVED
    a_program(tmp_path, monkeypatch, "echo 'delta-sat with delta = 0.001'; echo 'x0 : [0.7, 0.8]'")
    found = dreal.check(*ask)
    assert found.verdict is ly.Verdict.REFUTED
    assert found.point.tolist() == [0.75]
    # A candidate that is none: within δ only.
    a_program(tmp_path, monkeypatch, "echo 'delta-sat with delta = 1'; echo 'x0 : [0.4, 0.41]'")
    found = dreal.check(*ask)
    assert found.verdict is ly.Verdict.UNKNOWN
    assert "smaller delta" in found.reason
    a_program(tmp_path, monkeypatch, "exec sleep 30")
    found = dreal.check(*ask, timeout=0.3)
    assert found.verdict is ly.Verdict.UNKNOWN
    assert "0.3 s are over" in found.reason
    a_program(tmp_path, monkeypatch, "echo broken >&2; exit 3")
    with pytest.raises(RuntimeError, match="dReal failed: broken"):
        dreal.check(*ask)


needs_dreal = pytest.mark.skipif(
    backend() is None, reason="dReal is not installed here: no binding that imports, no executable"
)


@needs_dreal
@pytest.mark.parametrize("name", FUNCTIONS)
def test_dreal_agrees_with_prove(name):
    fn = FUNCTIONS[name]
    # Corners included, where several of the functions are largest.
    points = np.stack(np.meshgrid(*np.linspace(LO, HI, 65).T), axis=-1).reshape(-1, 2)
    top = float(jax.vmap(fn)(jnp.asarray(points)).max())
    for shift, verdict in ((0.3, ly.Verdict.PROVED), (-0.1, ly.Verdict.REFUTED)):

        def margin(x, shift=shift):
            return fn(x) - (top + shift)

        ours = ly.prove(margin, LO, HI)
        theirs = dreal.check(margin, LO, HI, delta=1e-2, timeout=60)
        assert ours.verdict is verdict
        assert theirs.verdict in (verdict, ly.Verdict.UNKNOWN), theirs
