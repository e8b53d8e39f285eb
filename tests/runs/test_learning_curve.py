"""The learning curve of a run: what it holds, that it resumes, and that the report shows it."""

import json

import pandas as pd
import pytest
import torch

from spectramind_nb.apps.report import report
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.core.instantiate import build
from spectramind_nb.runs import learning_curve as room
from spectramind_nb.runs.learning_curve import FILE, learning_curve
from spectramind_nb.runs.training import train


@pytest.fixture
def run(words):
    return train(overrides=words)


def test_a_curve_is_asked_for_by_command_and_shown_in_the_report(run, warm_spectramind, here):
    assert "--learning-curve" in report(run).read_text()
    done = warm_spectramind("evaluate", run.dir, "--learning-curve", "3,2,999", cwd=here)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    table = pd.read_csv(run.dir / FILE)
    assert printed["val/score"] == run.metrics["val/score"]
    assert printed["learning_curve"][-1]["score"] == pytest.approx(printed["val/score"], abs=1e-6)  # the last point is the run itself
    assert printed["learning_curve"][-1]["score_fit"] == pytest.approx(printed["val/score_fit"], abs=1e-6)
    assert f"left out: 999 training planets; the run learned from {printed['learning_curve'][-1]['planets']}" in done.stderr
    assert [row["planets"] for row in printed["learning_curve"]] == table["planets"].tolist()
    assert table["planets"].tolist()[:2] == [2, 3] and len(table) == 3  # 999 are more than there are: the run itself is the last
    for name in ("score", "score_fit", "FGS1 rms_z", "AIRS-CH0 coverage_68"):
        assert table[name].notna().all()
    page = report(run).read_text()
    assert "2 training planets" in page and "raw fit" in page and (run.dir / "figures" / "learning_curve.png").is_file()


def test_what_is_there_is_not_computed_again_and_fewer_planets_give_the_same_at_any_time(run, monkeypatch):
    first = learning_curve(run, [2])
    both = learning_curve(run, [2, 3])
    assert both[both["planets"] != 3].reset_index(drop=True).equals(first)
    (run.dir / FILE).unlink()
    assert learning_curve(run, [3, 2]).equals(both)
    monkeypatch.setattr("spectramind_nb.runs.learning_curve._trained", None)
    assert learning_curve(run, [2, 3]).equals(both)
    with pytest.raises(TypeError):
        learning_curve(run, [2, 3], ["trainer.max_epochs=2"])  # another configuration: what is there does not count


def test_the_row_of_the_run_itself_follows_its_weights(run, monkeypatch, request):
    before, trained = learning_curve(run, [2]), run.weights.read_bytes()
    request.addfinalizer(lambda: run.weights.write_bytes(trained))  # other tests look for what was changed among all runs here
    monkeypatch.setattr("spectramind_nb.runs.learning_curve._trained", None)  # what was trained for the curve stays
    kept, model = torch.load(run.weights, weights_only=True), build(run.config.model, loss=build(run.config.loss))
    kept["state_dict"] |= {name: 1.5 * kept["state_dict"][name] for name, _ in model.named_parameters()}
    torch.save(kept, run.weights)
    after = learning_curve(run, [2])
    assert after["score"].iloc[-1] == pytest.approx(run.evaluate()["val/score"], abs=1e-6) != before["score"].iloc[-1]
    assert after.iloc[:-1].equals(before.iloc[:-1])


def test_a_point_begins_from_the_seed_whatever_was_computed_before(run, monkeypatch):
    """Networks began with other numbers when another point came first."""
    drawn, build = [], room.build

    def noted(*arguments, **named):
        drawn.append(torch.initial_seed())
        return build(*arguments, **named)

    monkeypatch.setattr(room, "build", noted)
    torch.manual_seed(1)
    (run.dir / FILE).unlink(missing_ok=True)
    learning_curve(run, [2])
    assert set(drawn) == {run.config.seed}


@pytest.mark.parametrize("fields, said", [({"pretrained": {}}, "began from a pre-training"), ({}, "only the wall ends the training")])
def test_a_run_that_no_point_can_be_like_is_refused(run, monkeypatch, fields, said):
    trainer = run.config.trainer.model_copy(update={} if fields else {"max_epochs": None})
    monkeypatch.setattr(type(run), "config", run.config.model_copy(update={"trainer": trainer}))
    monkeypatch.setattr(type(run), "record", {**run.record, **fields})
    with pytest.raises(ConfigError, match=said):
        learning_curve(run, [2])


@pytest.mark.parametrize("asked", [[1, 40], [], [0]])
def test_numbers_that_are_none_are_refused(run, asked):
    with pytest.raises(ConfigError, match="each at least 2"):
        learning_curve(run, asked)


def test_a_word_that_is_no_number_is_refused_by_the_command(run, warm_spectramind, here):
    done = warm_spectramind("evaluate", run.dir, "--learning-curve", "40,many", cwd=here)
    assert done.returncode == 2 and "each at least 2" in done.stderr and not (run.dir / FILE).exists()


def test_another_model_than_the_run_trained_is_refused(run):
    with pytest.raises(ConfigError, match="do not fit the model"):
        learning_curve(run, [2], ["model.components=2"])
