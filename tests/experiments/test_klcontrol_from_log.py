"""Learning from a user's log: right answers, and errors that name file and line."""

import numpy as np
import pytest

from experiments import __main__ as command
from experiments.klcontrol import from_log

HEADER = "x,cost,x'\n"


def write_log(path, q, cost, count, seed=0):
    rng = np.random.default_rng(seed)
    x, lines = 0, []
    for _ in range(count):
        y = rng.choice(len(cost), p=q[x])
        lines.append(f"s{x},{cost[x]!r},s{y}")
        x = y
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


def test_a_log_is_learned_to_its_own_solution(tmp_path):
    q = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.6, 0.0, 0.4]])
    path = write_log(tmp_path / "log.csv", q, [0.0, 1.0, 0.5], 2000)
    results = from_log.run(from_log.Config(data=path, beta=1.5, passes=100))
    by_name = {row["quantity"]: row for row in results["table"]}
    assert by_name["transitions"]["here"] == 2000
    found = by_name["λ learned"]
    assert found["here"] == pytest.approx(found["of the empirical chain"], rel=0.01)
    series = results["series"]
    assert series["names"] == ["s0", "s1", "s2"]
    np.testing.assert_allclose(series["learned"], series["exact"], atol=0.05)


def test_costs_that_vary_and_names_that_are_numbers(tmp_path):
    # Two equal states; the cost of a step is 0 or log 4, evenly: λ* = (1 + 1/4)/2.
    lines = [f"{i % 2 + 9},{c},{(i + 1) % 2 + 9}" for i in range(40) for c in (0.0, np.log(4))]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    results = from_log.run(from_log.Config(data=path, passes=300))
    assert results["series"]["names"] == ["9", "10"]
    row = next(r for r in results["table"] if r["quantity"] == "λ learned")
    assert row["of the empirical chain"] == pytest.approx(0.625, rel=1e-9)
    assert row["here"] == pytest.approx(0.625, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1,b\nb,abc,a\n", "line 2: expected a state, a finite cost and the next state"),
        (HEADER + "a,1,b\nb,nan,a\n", "line 3: expected a state, a finite cost"),
        ("a,1,b\nb,1\n", "line 2: expected a state, a finite cost"),
        ("a,1,b\n,1,a\n", "line 2: expected a state, a finite cost"),
        ("a,1,b\nb,1,c\n", "line 2: state 'c' is entered but never left"),
        ("", "expected at least one transition"),
        (HEADER, "expected at least one transition"),
    ],
)
def test_a_malformed_log_is_named_with_its_line(tmp_path, text, message, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    argv = ["klcontrol", "from_log", "--data", str(path), "--out", str(tmp_path / "out")]
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_a_missing_log_is_named(tmp_path, capsys):
    argv = ["klcontrol", "from_log", "--out", str(tmp_path), "--data", str(tmp_path / "none.csv")]
    assert command.main(argv) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err
