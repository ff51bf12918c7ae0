"""Cells of the image tables: finished ones are kept, and what the tables make of their curves."""

import dataclasses
import json
import math

import numpy as np
import pytest

import phydi
from experiments.phydi import image_cells as cells
from experiments.phydi import language_cells, measured, table1, table2
from experiments.phydi.cells import epochs_to, mean_and_error
from experiments.phydi.image_cells import Cell

CELL = Cell(18, 4, "phydi", 0)


def results(*curves, status="target reached"):
    epochs = [[{"test_accuracy": value} for value in curve] for curve in curves]
    return [{"status": status, "epochs": curve} for curve in epochs]


def test_a_finished_cell_never_runs_again_and_another_setting_is_another_cell(
    tmp_path, monkeypatch
):
    runs = []

    def fit(cell, *rest):
        runs.append(cell)
        return {"status": "target reached", "epochs": []}

    monkeypatch.setattr(cells, "fit_cell", fit)
    first = cells.run_cells([CELL], "digits", None, tmp_path)
    assert cells.run_cells([CELL], "digits", None, tmp_path) == first
    assert runs == [CELL]
    other = Cell(18, 4, "phydi", 0, learning_rate=0.1)
    cells.run_cells([CELL, other], "digits", None, tmp_path)
    assert runs == [CELL, other]
    # Another preset under the same name is another cell, too.
    changed = cells.SCALES | {"digits": cells.Scale(1, 10, 10, 1, 1, 0.5, digits=True)}
    monkeypatch.setattr(cells, "SCALES", changed)
    cells.run_cells([CELL], "digits", None, tmp_path)
    assert len(runs) == 3
    with pytest.raises(ValueError, match="scale: expected one of paper, cpu, digits, got 'gpu'"):
        cells.run_cells([CELL], "gpu", None, tmp_path)


def test_a_cell_that_diverges_ends_with_its_step_and_its_curve(tmp_path, monkeypatch):
    def fit(*args, folder, **options):
        folder.mkdir(parents=True)
        record = {"kind": "epoch", "epoch": 1, "step": 9, "test_accuracy": 0.2}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        raise FloatingPointError("loss is nan at step 12, in epoch 2; the checkpoint is kept")

    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(phydi, "fit", fit)
    monkeypatch.setattr(phydi, "PHResNet", lambda *args, **options: None)
    (found,) = cells.run_cells([CELL], "digits", None, tmp_path)
    assert found["status"] == "diverged: loss is nan at step 12, in epoch 2"
    assert [epoch["test_accuracy"] for epoch in found["epochs"]] == [0.2]
    assert cells.run_cells([CELL], "digits", None, tmp_path) == [found]


def test_epochs_means_and_errors():
    assert epochs_to([0.1, 0.5, 0.8], 0.5) == 2
    assert epochs_to([0.1, 0.5, 0.8], 0.5, strict=True) == 3
    assert epochs_to([0.1], 0.5) is None
    assert mean_and_error([]) == (None, None)
    assert mean_and_error([3]) == (3, None)
    mean, error = mean_and_error([5, 6, 7])
    assert mean == 6
    assert error == pytest.approx(1 / math.sqrt(3))


def test_table_1_counts_epochs_and_says_what_did_not_arrive():
    groups = {
        (152, 4, 64, 0.01): {
            "standard": results([0.1, 0.35, 0.7, 0.85], [0.1, 0.2, 0.3, 0.4]),
            "phydi": results([0.3, 0.8], [0.4, 0.9]),
        }
    }
    rows, curves = table1.compare(groups, "paper", table1.PAPER)
    standard, ours = rows
    assert (standard["paper"], standard["paper error"], standard["paper M2"]) == (22.67, 3.71, 3)
    # PHYDI has 0.35 after one epoch in the mean: the first seed beats that in its third.
    assert (standard["here"], standard["M2"], standard["reached"]) == (4, 3.5, "1 of 2")
    assert (ours["here"], ours["error"], ours["M2"], ours["reached"]) == (2, 0, None, "2 of 2")
    assert standard["best"] == 0.85
    assert "50 epochs" in ours["cut"]
    assert "width" not in ours["cut"]
    cut = table1.compare(groups, "cpu", {})[0][0]["cut"]
    for words in ("width 1/8", "5,000 of 50,000", "8 pixels a side", "target 35%"):
        assert words in cut
    assert curves["152|4|phydi"] == [[0.3, 0.8], [0.4, 0.9]]
    figure = table1.plot({"series": curves, "target": 0.8})
    bars = figure.axes[0].containers
    drawn = {bar.get_label(): bar.lines[0].get_ydata().tolist() for bar in bars}
    assert drawn == {"standard": [4], "phydi": [2]}


def test_the_papers_numbers_have_a_place_each():
    assert len(table1.PAPER) == 9
    assert all(set(row) == {"standard", "wkp", "phydi"} for row in table1.PAPER.values())
    assert len(table2.PAPER) == 6
    with pytest.raises(ValueError, match="depths: expected 18 or 50"):
        table2.run(table2.Config(depths=(152,)))


def test_images_shrink_by_averaging():
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, -1)
    found = cells._shrunk(phydi.Images(image, np.zeros(1, np.int32), ()), 1, 4).image
    np.testing.assert_array_equal(found[0, ..., 0], np.rint([[13.5, 17.5], [45.5, 49.5]]))


def test_what_is_recorded_is_what_the_presets_would_train():
    """A record whose settings are not those of the preset would be passed off for it."""
    found = measured.read(None, "images_cpu.json") + measured.read(None, "text_cpu.json")
    for result in found:
        module = language_cells if "norm" in result["cell"] else cells
        assert result["scale"] == dataclasses.asdict(module.SCALES["cpu"])
        module.Cell(**result["cell"])
    names = [json.dumps(result["cell"], sort_keys=True) for result in found]
    assert len(set(names)) == len(names)


def test_measured_counts_the_finished_cells_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        measured.run(measured.Config(images=tmp_path))
    for seed, curve in ((0, [0.1, 0.4]), (1, [0.2, 0.3, 0.3, 0.4])):
        cell = Cell(50, 3, "wkp", seed)
        record = {"cell": dataclasses.asdict(cell), "status": "target reached"}
        record["epochs"] = [{"test_accuracy": value} for value in curve]
        place = tmp_path / cell.name("cpu")
        place.mkdir()
        (place / "result.json").write_text(json.dumps(record))
    rows = measured.run(measured.Config(images=tmp_path))["table"]
    (row,) = [row for row in rows if row["quantity"].startswith("PHResNet")]
    assert (row["here"], row["error"], row["reached"], row["paper"]) == (3, 1, "2 of 2", 9.0)
    assert row["best"] == 0.4
