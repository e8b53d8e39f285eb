"""A finished run can be done again from its record, and whatever differs is named."""

import json
import shutil

import pytest

from spectramind_nb.core.errors import ConfigError, DataMissingError, ReplayMismatch
from spectramind_nb.runs import replay as module
from spectramind_nb.runs.replay import replay
from spectramind_nb.runs.runtime import Run


@pytest.fixture
def copy(whole_run):
    """A copy of the run that may be tampered with."""
    target = whole_run.dir.parent / "copy"
    shutil.copytree(whole_run.dir, target)
    yield Run.open(target)
    shutil.rmtree(target)


def edit(run, **fields):
    path = run.dir / "audit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_p21_a_run_repeats_bit_for_bit(whole_run):
    again = replay(whole_run.id)
    assert again.difference is None and again.verdict.word == "exact" and again.steps == 6
    assert again.again != whole_run.dir and "identical" in str(again)


def test_p21_changed_code_is_named_before_anything_runs(copy, monkeypatch):
    edit(copy, code="0" * 64)
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match="code is another") as caught:
        replay(copy)
    assert caught.value.exit_code == 20


def test_an_edited_configuration_is_named_before_anything_runs(copy, monkeypatch):
    path = copy.dir / "config.yaml"
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match="config.yaml was changed"):
        replay(copy)


def test_p21_p45_a_changed_data_file_is_named_before_anything_runs(copy, monkeypatch):
    data = copy.record["data"]
    name = next(name for name in data["files"] if name.endswith("FGS1_signal_0.parquet"))
    edit(copy, data={"manifest_root": "0", "files": {**data["files"], name: "0" * 64}})
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match=f"data file {name} changed"):
        replay(copy)


def test_another_library_makes_the_verdict_statistical(copy):
    environment = copy.record["environment"]
    environment["versions"]["torch"] = "1.0"
    edit(copy, environment=environment)
    assert replay(copy, tolerance="stat").verdict.word == "statistical"


def test_p21_the_first_step_that_differs_is_named(copy):
    path = copy.dir / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "step"]
    steps[3]["loss"] = (float.fromhex(steps[3]["loss"]) + 1e-12).hex()
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(ReplayMismatch, match="the loss at epoch 1, batch 1 was"):
        replay(copy)
    assert replay(copy, tolerance="stat").difference is None


def test_only_finished_runs_and_known_tolerances(copy):
    edit(copy, outcome="wall")
    with pytest.raises(DataMissingError, match="did not finish"):
        replay(copy)
    with pytest.raises(ConfigError):
        replay(copy, tolerance="some")


def test_a_poisoned_record_runs_nothing(copy, tmp_path):
    path, flag = copy.dir / "config.yaml", tmp_path / "ran"
    text = path.read_text().replace("spectramind_nb.learning.models.PosteriorModel", "os.mkdir\n  path: " + str(flag))
    path.write_text(text)
    with pytest.raises((ConfigError, ReplayMismatch)):
        replay(copy, tolerance="stat")
    assert not flag.exists()
