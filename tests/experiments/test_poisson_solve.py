"""The experiment that reads a user's file: right answers, and errors that name file and line."""

import numpy as np
import pytest

from experiments import __main__ as command
from experiments.poisson import solve
from experiments.poisson.errors import exact_error


def write(path, x, f, header=None):
    lines = ([header] if header else []) + [f"{a!r},{b!r}" for a, b in zip(x.tolist(), f.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("header", [None, "x,f", "position (m),source"])
def test_a_file_on_another_interval_is_solved(tmp_path, header):
    # -u'' = sin(x) on (0, π): u = sin(x).
    x = np.linspace(0, np.pi, 101)
    path = write(tmp_path / "data.csv", x, np.sin(x), header)
    results = solve.run(solve.Config(data=path, order=4))
    np.testing.assert_allclose(results["series"]["u"], np.sin(x), atol=1e-8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n0.5,abc\n1,2\n", "line 2: expected two finite numbers x,f, got '0.5,abc'"),
        ("x,f\n0,1\n0.5,2\n1,nan\n", "line 4: expected two finite numbers"),
        ("0,1\n0.5,2,3\n1,2\n", "line 2: expected two finite numbers"),
        ("0,1\n0.4,2\n1,2\n", "line 2: x = 0.4 is off the uniform grid of 3 points"),
        ("1,1\n0.5,2\n0,2\n", "line 3: expected x to increase"),
        ("0,1\n\n1,2\n", "expected at least 3 points, got 2"),
        ("", "expected at least 3 points, got 0"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, text, message, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    argv = ["poisson", "solve", "--data", str(path), "--out", str(tmp_path / "out")]
    assert command.main(argv) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_a_missing_or_binary_file_is_named(tmp_path, capsys):
    argv = ["poisson", "solve", "--out", str(tmp_path / "out"), "--data"]
    assert command.main([*argv, str(tmp_path / "none.csv")]) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    assert command.main([*argv, str(tmp_path / "binary.csv")]) == 2
    assert "binary.csv: cannot be read" in capsys.readouterr().err


def test_another_file_of_the_same_name_is_solved_again(tmp_path):
    x = np.linspace(0, 1, 5)
    argv = ["poisson", "solve", "--out", str(tmp_path), "--data", str(tmp_path / "data.csv")]
    values = []
    for factor in (1.0, 2.0):
        write(tmp_path / "data.csv", x, factor * np.ones(5))
        assert command.main(argv) == 0
        text = (tmp_path / "poisson" / "solve.json").read_text()
        values.append(solve.run(solve.Config(data=tmp_path / "data.csv"))["series"]["u"][2])
        assert f"{float(values[-1])}" in text
    assert float(values[1]) == 2 * float(values[0])


def test_exact_error_agrees_with_the_errata():
    values = [-1.1006, -3.0794, -5.0792, -7.0792, -9.0792, -11.079, -13.079]
    for k, expected in enumerate(values, 1):
        assert exact_error(k) == pytest.approx(expected, abs=2e-4)
