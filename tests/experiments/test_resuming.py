"""Parts of an experiment are computed once: a run that was stopped goes on with the others."""

import numpy as np
import pytest

from experiments import provenance
from experiments.lyapjax import beyond, compare
from experiments.resuming import kept, place, stamp


def test_what_is_kept_is_plain_and_computed_once(tmp_path):
    path, calls = tmp_path / "deep" / "part.json", []

    def compute():
        calls.append(None)
        return {"values": np.arange(3.0), "none": np.nan}

    plain = {"values": [0.0, 1.0, 2.0], "none": None}
    assert kept(path, compute) == kept(path, compute) == plain
    assert len(calls) == 1
    assert kept(None, compute) == kept(None, compute) == plain
    assert len(calls) == 3

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(tmp_path / "other.json", fails)
    assert not (tmp_path / "other.json").exists()


def test_a_part_depends_on_its_settings_and_on_the_source(tmp_path, monkeypatch):
    first = place(tmp_path, "lyapjax", "3 links", 600.0)
    assert first == place(tmp_path, "lyapjax", "3 links", 600.0)
    assert first != place(tmp_path, "lyapjax", "3 links", 45.0)
    assert place(None, "lyapjax", "3 links") is None
    monkeypatch.setattr(provenance, "fingerprint", lambda package: "changed")
    assert first != place(tmp_path, "lyapjax", "3 links", 600.0)
    assert stamp(1, "a") != stamp(1, "b")


def test_the_source_of_subpackages_counts(tmp_path, monkeypatch):
    inner = tmp_path / "made" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("")
    monkeypatch.setattr(
        provenance.importlib.util,
        "find_spec",
        lambda name: type("Spec", (), {"submodule_search_locations": [str(inner.parent)]}),
    )
    before = provenance.fingerprint("made")
    (inner / "__init__.py").write_text("x = 1")
    assert provenance.fingerprint("made") != before


@pytest.mark.parametrize(("module", "study"), [(beyond, "_study"), (compare, "_plane")])
def test_systems_that_have_ended_are_not_computed_again(module, study, tmp_path, monkeypatch):
    names, calls = ("a", "b", "c"), []

    def compute(name, *_):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return {"row": {"system": name}, "course": [], "section": {}}

    monkeypatch.setattr(module, study, compute)
    fields = {"systems": names} if module is beyond else {"plane": names, "large": ()}
    config = module.Config(**fields, cells=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        module.run(config)
    found = module.run(config)
    assert calls == ["a", "b", "b", "c"]
    assert [row["system"] for row in found["table"]] == list(names)
    assert len(list(tmp_path.iterdir())) == 3
