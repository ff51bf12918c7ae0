"""Every experiment with --quick, and what the runner promises: atomic, resumable, recorded."""

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from rich.console import Console

from experiments import __main__ as command
from experiments import bench, catalogue, report, runner

EXPERIMENTS = catalogue.experiments()
IDS = [f"{e.package} {e.name}" for e in EXPERIMENTS]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder of results for this module."""
    return tmp_path_factory.mktemp("results")


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=IDS)
def test_every_experiment_runs_quick_from_the_command_line(experiment, out):
    argv = [experiment.package, experiment.name, "--quick", "--out", str(out)]
    assert command.main(argv) == 0
    record = json.loads(runner.path_of(experiment, out).read_text())
    assert record["config"] == runner.to_plain(experiment.module.QUICK)
    assert record["results"]["table"]
    notes = record["results"].get("notes", [])
    assert isinstance(notes, list)
    assert all(isinstance(note, str) for note in notes)
    for key in ("seed", "commit", "environment", "seconds"):
        assert key in record
    assert {"compile", "run"} == set(record["seconds"])
    assert {"versions", "device", "dtype", "processor", "python"} == set(record["environment"])
    picture = runner.path_of(experiment, out).with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    # The plot and the page need nothing but what is in the JSON.
    plt.close(experiment.module.plot(record["results"]))


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=IDS)
def test_configurations_are_frozen_and_described(experiment):
    module = experiment.module
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.QUICK.anything = 1
    assert experiment.title.endswith(".")
    assert module.Config() is not None
    assert module.run.__doc__
    assert module.plot.__doc__


@dataclasses.dataclass(frozen=True)
class Config:
    """Of the experiment below."""

    size: int = 3
    seed: int = 7


class Module:
    """A tiny experiment.

    Its text.
    """

    Config, QUICK = Config, Config(size=2)

    def __init__(self):
        self.calls = 0

    def run(self, config):
        self.calls += 1
        return {"table": [{"quantity": "q", "paper": 1.0, "here": float("inf")}], "n": config.size}

    def plot(self, results):
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        axes.plot([0, results["n"]])
        return figure


@pytest.fixture
def tiny():
    """An experiment that counts its runs."""
    return catalogue.Experiment("poisson", "tiny", Module())


def test_a_second_run_keeps_what_is_finished(tiny, tmp_path):
    record, computed = runner.run(tiny, Config(), tmp_path)
    assert computed
    assert record["seed"] == 7
    assert record["results"]["table"][0]["here"] == "inf"
    kept, computed = runner.run(tiny, Config(), tmp_path)
    assert not computed
    assert kept == record
    assert tiny.module.calls == 1
    runner.run(tiny, Config(size=4), tmp_path)
    runner.run(tiny, Config(size=4), tmp_path, force=True)
    assert tiny.module.calls == 3


def test_a_result_without_its_picture_or_with_a_broken_record_is_missing(tiny, tmp_path):
    runner.run(tiny, Config(), tmp_path)
    path = runner.path_of(tiny, tmp_path)
    path.with_suffix(".png").unlink()
    runner.run(tiny, Config(), tmp_path)
    path.write_text(path.read_text()[:-20])
    runner.run(tiny, Config(), tmp_path)
    assert tiny.module.calls == 3


def test_a_result_of_other_source_is_computed_again(tiny, tmp_path, monkeypatch):
    runner.run(tiny, Config(), tmp_path)
    monkeypatch.setattr(runner.provenance, "fingerprint", lambda package: "other")
    runner.run(tiny, Config(), tmp_path)
    assert tiny.module.calls == 2


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    runner.write_json(path, {"old": 1})

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        runner.write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_all_reports_a_failure_and_finishes_the_others(tiny, tmp_path, monkeypatch, capsys):
    broken = catalogue.Experiment("poisson", "broken", Module())
    monkeypatch.setattr(broken.module, "run", lambda config: 1 / 0)
    monkeypatch.setattr(catalogue, "experiments", lambda: [broken, tiny])
    assert command.main(["all", "--quick", "--out", str(tmp_path)]) == 1
    assert tiny.module.calls == 1
    assert "poisson broken failed: ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "report.html").exists()


def test_quick_runs_keep_full_results_that_are_up_to_date(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "experiments", lambda: [tiny])
    full, _ = runner.run(tiny, Config(), tmp_path)
    assert command.main(["all", "--quick", "--out", str(tmp_path)]) == 0
    assert runner.load(runner.path_of(tiny, tmp_path)) == full
    assert tiny.module.calls == 1
    assert command.main(["all", "--quick", "--force", "--out", str(tmp_path)]) == 0
    assert runner.load(runner.path_of(tiny, tmp_path))["config"] == {"size": 2, "seed": 7}


def test_an_input_file_that_changed_is_read_again(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class WithFile:
        picture: Path

    module = Module()
    module.run = lambda config: Module.run(module, Config())
    experiment = catalogue.Experiment("poisson", "file", module)
    path = tmp_path / "picture"
    for content, calls in (("a", 1), ("a", 1), ("b", 2)):
        path.write_text(content)
        runner.run(experiment, WithFile(path), tmp_path)
        assert module.calls == calls


def test_the_report_is_self_contained(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "experiments", lambda: [tiny])
    runner.run(tiny, Config(), tmp_path)
    page = report.write(tmp_path).read_text()
    assert "data:image/png;base64," in page
    assert "A tiny experiment." in page
    assert "Its text." in page
    assert 'src="http' not in page
    assert "href=" not in page.replace('href="#', "")
    assert str(tmp_path) not in page
    assert report.summary(tmp_path, 80).row_count == 1


def test_a_table_on_the_terminal_has_the_columns_that_have_room():
    rows = [{"quantity": "q" * 50, "here": 1.5, **{f"column {i}": 10 * i for i in range(20)}}]
    narrow, wide = report.rich_table(rows, "t", 60), report.rich_table(rows, "t", 1000)
    assert [column.header for column in narrow.columns][:3] == ["quantity", "here", "column 0"]
    assert len(narrow.columns) < len(wide.columns) == 22
    assert f"column {len(narrow.columns) - 2}, " in narrow.caption
    assert wide.caption is None
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(narrow)
    # Nothing is folded but the text of the first column.
    assert "1.5" in console.export_text()


def test_bad_command_lines_say_what_there_is(capsys):
    assert command.main(["poisson", "tabel1"]) == 2
    assert "there are: figure1, table1" in capsys.readouterr().err.replace("\n", " ")
    assert command.main(["nothing"]) == 2
    assert "no experiments of 'nothing'" in capsys.readouterr().err
    assert command.main(["bench", "--only", "no such row"]) == 2
    assert "only: no benchmark row" in capsys.readouterr().err


def test_the_list_names_every_experiment():
    done = subprocess.run(
        [sys.executable, "-m", "experiments"], capture_output=True, text=True, check=True
    )
    for experiment in EXPERIMENTS:
        assert experiment.name in done.stdout


def test_bench_refuses_to_time_wrong_answers_and_reports_ratios():
    def contest(difference):
        return bench.Contest(lambda: sum(range(10)), {"p": lambda: 1}, difference, 1e-9)

    with pytest.raises(ValueError, match=r"wrong: answers differ by 0\.1"):
        bench.measure(bench.Row("wrong", 1.0, lambda: contest(0.1)), rounds=1)
    with pytest.raises(ValueError, match="not timed"):
        bench.measure(bench.Row("nan", 1.0, lambda: contest(float("nan"))), rounds=1)
    row = bench.measure(bench.Row("right", None, lambda: contest(0.0)), rounds=3)
    assert row["ratio"] == pytest.approx(row["ours ms"] / row["peer ms"])
    assert row["met"] is None


def test_every_benchmark_row_prepares_contestants_that_agree():
    for row in catalogue.benchmark_rows(quick=True):
        if "1e6" in row.name:
            continue  # the same code as at 1e5
        contest = row.prepare()
        assert contest.difference <= contest.tolerance, row.name
        assert contest.peers
