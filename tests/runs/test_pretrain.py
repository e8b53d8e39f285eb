"""A run that begins with another one: on record, found again, repeated exactly, stopped and continued in either stage."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from spectramind_nb.core.configuration import compose, pretraining_config
from spectramind_nb.core.environment import Place
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, PreflightError
from spectramind_nb.core.instantiate import build
from spectramind_nb.records import audit
from spectramind_nb.records.weights import tensor_digests, weights_digest
from spectramind_nb.runs import execution, training
from spectramind_nb.runs.replay import replay
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.session import load_pretrained
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Wall, Watchdog

SMALL = ["model.width=16", "model.layers=1", "model.heads=2", "model.time_bins=20", "model.wavelength_bins=12"]
BEGIN = ["experiment=pretrain_finetune", "pretrain.train=8", "pretrain.short=true", "pretrain.max_epochs=2"]


@pytest.fixture
def both(words):
    """Overrides of a small run that begins with a small pre-training."""
    return [*words[:-1], *SMALL, *BEGIN, "trainer.max_epochs=2"]


@pytest.fixture
def tuned(both, _kept):
    """That run, never interrupted."""
    if "tuned" not in _kept:
        _kept["tuned"] = train(overrides=both, resume="never")
    return _kept["tuned"]


def runs() -> set[str]:
    return {path.parent.name for path in Path("logs").glob("*/audit.json")}


def test_the_run_starts_from_the_weights_of_its_parent_and_both_are_on_record(tuned):
    parent = Run.open(tuned.record["parent"])
    known = tuned.record["pretrained"]
    assert (parent.outcome, tuned.outcome) == ("finished", "finished")
    assert known["run"] == parent.id and known["weights"] == parent.record["weights"]["best"]
    assert parent.config.data.name == "synthetic" and parent.config.data.simulate.train == 8 and parent.config.pretrain is None
    assert parent.config.model["optimizer"]["lr"] == 0.001 and tuned.config.model["optimizer"]["lr"] == 0.0002
    assert parent.record["data"]["manifest_root"] != tuned.record["data"]["manifest_root"]
    first = next(json.loads(line) for line in (tuned.dir / "events.jsonl").read_text().splitlines() if '"train start"' in line)
    handed = tensor_digests(torch.load(known["checkpoint"], weights_only=True)["state_dict"])
    same = {name for name, value in handed.items() if value.startswith(first["tensors"][name])}
    networks = {name for name in handed if name.startswith("networks.")}
    assert networks <= same and len(networks) > 60 and not {"naive_mean", "naive_sigma", "expected_level", "mean_shapes"} & same
    wrong = audit.verify(Path("logs"), Path("v50_debug_log.md"))  # of the other runs here, tests have changed some
    assert [one for one in wrong if parent.id in one or tuned.id in one] == []
    lines = [(depth, line["run_id"]) for depth, line in audit.lineage(Path("logs"))]
    assert (0, parent.id) in lines and (1, tuned.id) in lines


def test_the_same_command_finds_the_pre_training_done_and_does_the_same(tuned, both, capsys):
    before = runs()
    again = train(overrides=both, resume="never")
    assert runs() - before == {again.id} and again.record["parent"] == tuned.record["parent"]
    assert again.record["weights"] == tuned.record["weights"]
    assert f"pre-training was done by run {again.record['parent']}" in capsys.readouterr().err
    assert (again.dir / "submission.csv").read_bytes() == (tuned.dir / "submission.csv").read_bytes()


def test_it_predicts_and_evaluates_as_it_did(tuned, tmp_path):
    assert tuned.evaluate().items() <= tuned.metrics.items()
    tuned.predict(out=tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == (tuned.dir / "submission.csv").read_bytes()


def test_other_settings_of_the_pre_training_are_another_pre_training(tuned, both):
    other = pretraining_config(compose(overrides=[*both, "pretrain.seed=8"]))
    assert other.data.simulate.seed == 8
    assert other.hash != Run.open(tuned.record["parent"]).record["config_hash"]


def test_the_run_is_repeated_exactly_from_the_same_weights(tuned):
    comparison = replay(tuned)
    assert comparison.difference is None and comparison.steps > 0


def stopped_at(look: int, monkeypatch, overrides: list[str], resume: str) -> Run:
    """A run whose time is up at a look at the clock."""
    looks = itertools.count()
    wall = Wall(0.0, 1000.0, 1.0, clock=lambda: 0.0 if next(looks) < look else 1e6)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "_run_wall", lambda config: wall)
        patch.setattr(Watchdog, "__enter__", lambda self: self)
        stopped = train(overrides=overrides, resume=resume)
    assert (stopped.outcome, stopped.exit_code) == ("wall", 75)
    return stopped


def test_a_wall_in_the_pre_training_ends_the_command_and_the_same_command_goes_on(tuned, both, monkeypatch):
    fresh, before = [*both, "pretrain.seed=8"], runs()
    stopped_at(2, monkeypatch, fresh, "auto")
    (begun,) = runs() - before
    assert (Run.open(begun).outcome, Run.open(begun).config.data.name) == ("wall", "synthetic")
    resumed = train(overrides=fresh)
    assert runs() - before == {begun, resumed.id} and (resumed.outcome, resumed.record["parent"]) == ("finished", begun)
    assert Run.open(begun).record["attempt"] == 2 and replay(begun).difference is None


def test_a_wall_in_the_run_itself_costs_nothing_of_the_pre_training(tuned, both, monkeypatch):
    before = runs()
    stopped = stopped_at(3, monkeypatch, both, "never")
    resumed = train(overrides=both)
    assert runs() - before == {stopped.id} and resumed.dir == stopped.dir and resumed.record["attempt"] == 2
    assert resumed.record["pretrained"] == tuned.record["pretrained"] and resumed.record["weights"] == tuned.record["weights"]


def test_the_posterior_can_begin_so_too(words):
    run = train(overrides=[*words, "pretrain=simulated", *BEGIN[1:]], resume="never")
    state = torch.load(run.record["pretrained"]["checkpoint"], weights_only=True)["state_dict"]
    assert run.outcome == "finished" and weights_digest(state) == run.record["pretrained"]["weights"]


def test_what_cannot_begin_with_a_pre_training_says_so(tuned, both, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="pretrain=none"):
        train(overrides=both, fork=tuned)
    with monkeypatch.context() as patch:
        patch.setattr(training, "place", lambda: Place(0, 2, "torchrun", "m"))
        with pytest.raises(PreflightError, match="trainer=multi_gpu"):
            train(overrides=both)
    with pytest.raises(ConfigError, match="set trainer.enable_checkpointing=true"):
        compose("ci_fast", overrides=["pretrain=simulated"])
    with pytest.raises(ConfigError, match="pretrain.train: must be at least 2, not 1"):
        compose(overrides=["pretrain=simulated", "pretrain.train=1"])
    model = build(tuned.config.model)
    with pytest.raises(DataMissingError, match="weights of the pre-training are gone"):
        load_pretrained(model, {"checkpoint": str(tmp_path / "none.ckpt"), "weights": ""})
    with pytest.raises(DamagedFileError, match="not those on record"):
        load_pretrained(model, {**tuned.record["pretrained"], "weights": "0"})
