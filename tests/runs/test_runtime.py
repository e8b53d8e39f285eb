"""One path from configuration to submission, and what it promises when it is cut short."""

import itertools
import json
import os
import pty
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from own_process import Forked, command

from spectramind_nb.core.configuration import compose, read_config
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, NonFiniteError, PreflightError, TerminatedRun
from spectramind_nb.core.instantiate import build
from spectramind_nb.records import audit
from spectramind_nb.records.journal import step_losses
from spectramind_nb.runs import execution, submission
from spectramind_nb.runs.run import Run, evaluate, predict
from spectramind_nb.runs.run_attempts import readable_checkpoint
from spectramind_nb.runs.trainer import trainer_arguments
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals, Wall, Watchdog


def outcome_of(run):
    """What must be equal in equal runs."""
    history = run.history.drop(columns="attempt")
    return {
        "weights": run.record["weights"], "losses": step_losses(run.dir / "events.jsonl"), "metrics": run.metrics,
        "history": history.sort_values(["step", "train/loss"]).round(15).to_csv(index=False),
        "submission": (run.dir / "submission.csv").read_bytes(),
    }


def test_p12_p16_a_run_leaves_its_files_its_record_and_a_valid_submission(whole_run, short_root):
    present = {path.name for path in whole_run.dir.iterdir()}
    assert {"config.yaml", "overrides.txt", "audit.json", "events.jsonl", "metrics.csv", "checkpoints", "submission.csv"} <= present
    assert submission.validate(whole_run.dir / "submission.csv", short_root / "sample_submission.csv").planets == 2
    record = whole_run.record
    assert (whole_run.outcome, whole_run.exit_code, record["attempt"]) == ("finished", 0, 1)
    assert record["run_hash"] and record["config_hash"] and len(record["data"]["files"]) > 8 * 12
    assert record["choices"]["trainer"] == "defaults" and record["environment"]["threads"] == 1
    assert whole_run.config.trainer.max_epochs == 3 and "trainer.max_epochs=3" in whole_run.overrides
    assert {"val/score", "val/score_mean", "val/score_fit", "val/nll", "train/loss"} <= set(whole_run.metrics)
    assert not any(whole_run.id in fault for fault in audit.verify(Path("logs"), Path("v50_debug_log.md"))), "tests change those of others"


def test_the_predictions_are_not_the_baseline(whole_run):
    table = whole_run.submission()
    assert table["wl_1"].nunique() == 2 and table[list(submission.SIGMA_COLUMNS)].nunique(axis=1).min() > 100


def test_p45_p54_two_equal_runs_are_equal_to_the_last_bit(whole_run, words):
    again = train(overrides=words, resume="never")
    assert again.dir != whole_run.dir and outcome_of(again) == outcome_of(whole_run)


def test_the_run_predicts_and_evaluates_as_it_did(whole_run, tmp_path):
    out = tmp_path / "s.csv"
    pd.testing.assert_frame_equal(predict(whole_run.id, out=out), whole_run.submission())
    assert out.read_bytes() == (whole_run.dir / "submission.csv").read_bytes()
    assert evaluate(whole_run.dir).items() <= whole_run.metrics.items()
    assert len(Run.open(whole_run.weights).predict(split="train")) == 6


def test_another_seed_is_another_run(whole_run, words):
    other = train(overrides=[*words, "seed=7"])
    assert other.record["config_hash"] != whole_run.record["config_hash"]
    assert other.record["weights"]["final"] != whole_run.record["weights"]["final"]


@pytest.mark.parametrize("look", [3, 8, 11, 16])
def test_p24_p50_a_run_stopped_at_its_wall_goes_on_as_if_nothing_had_happened(whole_run, words, monkeypatch, look):
    looks = itertools.count()
    wall = Wall(0.0, 1000.0, 1.0, clock=lambda: 0.0 if next(looks) < look else 1e6)
    with monkeypatch.context() as patch:
        patch.setattr(execution, "_run_wall", lambda config: wall)
        patch.setattr(Watchdog, "__enter__", lambda self: self)
        stopped = train(overrides=words, resume="never")
    assert (stopped.outcome, stopped.exit_code) == ("wall", 75)
    assert submission.validate(stopped.dir / "submission.csv").planets == 2
    resumed = train(overrides=words)
    assert resumed.dir == stopped.dir and resumed.record["attempt"] == 2 and resumed.outcome == "finished"
    assert outcome_of(resumed) == outcome_of(whole_run)
    assert set(pd.read_csv(resumed.dir / "metrics.csv")["attempt"]) <= {1, 2}


@pytest.mark.parametrize("profile", ["defaults", "ci_fast"])
@pytest.mark.parametrize("where", ["load_planets", "write_predictions"])
def test_p50_a_named_run_that_was_stopped_with_nothing_to_go_on_from_begins_anew_under_its_name(words, monkeypatch, profile, where):
    """Ctrl-C while planets are fitted, or at any time in a run without checkpoints: "run the same command again" holds."""
    if (profile, where) == ("defaults", "write_predictions"):
        words = [*words, "trainer.enable_checkpointing=false"]
    words = [*words, f"run_id=early-{profile}-{where}"]
    with monkeypatch.context() as patch:
        patch.setattr(execution, where, lambda *rest: (_ for _ in ()).throw(TerminatedRun("SIGTERM received")))
        with pytest.raises(TerminatedRun):
            train(profile, words)
    again = train(profile, words)
    assert (again.id, again.record["attempt"], again.outcome) == (words[-1].removeprefix("run_id="), 2, "finished")
    assert audit.load(again.dir / "audit.1.json")["outcome"] == "terminated"
    never = train(profile, words[:-1], resume="never")
    final, expected = (outcome_of(run) | {"weights": run.record["weights"]["final"]} for run in (again, never))
    assert final == expected
    with pytest.raises(ConfigError, match="already is a run"):
        train(profile, words)


LONG = ["trainer.max_epochs=30", "trainer.checkpoint.every=0s"]


@pytest.mark.parametrize("number, code, outcome", [
    (signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -9, "killed"),
])
def test_p50_a_run_that_is_signalled_says_so_and_resumes_exactly(words, repo, _kept, number, code, outcome):
    long = [*words[:-1], *LONG]
    if "long" not in _kept:
        _kept["long"] = train(overrides=long, resume="never")
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    before = set(Path("logs").glob("*-defaults*"))
    child = Forked(command, ["spectramind", "train", "--resume", "never", *long], Path.cwd(), environment)
    deadline, saved = time.time() + 120, 0
    while time.time() < deadline and child.poll() is None and saved <= 20:
        time.sleep(0.05)
        diaries = [path / "events.jsonl" for path in set(Path("logs").glob("*-defaults*")) - before]
        saved = sum(path.read_text().count('"event": "checkpoint"') for path in diaries if path.exists())
    os.kill(child.pid, number)
    errors = child.communicate(timeout=60)[1]
    assert child.poll() == code, errors
    assert "Traceback" not in errors
    resumed = train(overrides=long)
    assert resumed.dir in {path.absolute() for path in set(Path("logs").glob("*-defaults*")) - before}
    assert resumed.record["attempt"] == 2 and outcome_of(resumed) == outcome_of(_kept["long"])
    lines = [line for line in audit.entries(Path("logs/audit.jsonl")) if line.get("run_id") == resumed.id]
    assert [line["outcome"] for line in lines if line["event"] == "finish"] == [outcome, "finished"]


def test_p50_a_terminal_that_is_closed_is_no_error(tmp_path):
    """What is written to it from then on would be one: the run failed, and did not go on."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            with Signals() as signals, signals.wait_for_safe_point():
                (tmp_path / "ready").touch()
                while signals.received is None:
                    time.sleep(0.01)
                print("epoch 7/60", flush=True)
                (tmp_path / "told").write_text(str(signals.error(signals.received)))
        finally:
            os._exit(0)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.close(terminal)
    os.waitpid(child, 0)
    assert (tmp_path / "told").read_text().startswith("the terminal was closed")


def test_p30_ci_fast_keeps_no_checkpoint_and_says_so_plainly(words):
    run = train("ci_fast", words[:-1])
    assert run.outcome == "finished" and not list(run.dir.rglob("*.ckpt"))
    for again in (predict, evaluate):
        with pytest.raises(DataMissingError, match="kept no checkpoint"):
            again(run.id)
    assert run.predict().equals(run.submission())  # whoever trained holds the weights: README's example goes on like this
    assert run.evaluate()["val/score"] == run.metrics["val/score"]
    assert submission.validate(run.dir / "submission.csv").planets == 2


def test_p32_a_nan_in_the_loss_ends_the_run_with_its_own_code_and_is_never_resumed(words, monkeypatch):
    from spectramind_nb.learning.posterior import PosteriorModel

    honest = PosteriorModel.training_step

    def poisoned(self, batch, batch_idx):
        loss = honest(self, batch, batch_idx)
        return loss * float("nan") if self.global_step == 3 else loss

    words = [*words, "trainer.checkpoint.every=0s", "run_id=poisoned"]
    monkeypatch.setattr(PosteriorModel, "training_step", poisoned)
    with pytest.raises(NonFiniteError, match="the loss is nan .training epoch 1, batch 1.") as caught:
        train(overrides=words)
    assert caught.value.exit_code == 11
    run = Run.open("poisoned")
    assert (run.outcome, run.exit_code) == ("failed", 11) and "the loss is nan" in run.record["error"]
    for checkpoint in run.dir.rglob("*.ckpt"):
        assert all(torch.isfinite(tensor).all() for tensor in torch.load(checkpoint, weights_only=True)["state_dict"].values())
    with pytest.raises(ConfigError, match="already is a run"):
        train(overrides=words)


def test_p32_weights_that_are_not_finite_never_become_the_best(words, monkeypatch):
    from spectramind_nb.learning.posterior import PosteriorModel

    def step(self, *args, **kwargs):
        with torch.no_grad():
            next(iter(self.parameters())).fill_(float("nan"))

    monkeypatch.setattr(PosteriorModel, "on_before_zero_grad", step)
    with pytest.raises(NonFiniteError, match="not finite"):
        train(overrides=[*words, "run_id=nan-weights"])
    assert not list(Run.open("nan-weights").dir.rglob("*.ckpt"))


def test_p3_an_override_that_does_not_compose_is_recorded_too(here):
    with pytest.raises(ConfigError, match="max_epochs"):
        train(overrides=["trainer.max_epoch=3"])
    last = audit.entries(Path("logs/audit.jsonl"))[-1]
    assert (last["outcome"], last["exit_code"], last["run_id"]) == ("failed", 2, None)


def test_missing_data_end_before_anything_heavy(here):
    with pytest.raises(DataMissingError) as caught:
        train(overrides=["data=ariel2025", "data.root=nowhere"])
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("word", ["trainer.accelerator=gpu", "trainer.storage.budget=9999999TB"])
def test_p34_p53_missing_devices_and_disk_end_with_code_3(words, word):
    if "gpu" in word and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    began = time.time()
    with pytest.raises(PreflightError) as caught:
        train(overrides=[*words, word])
    assert caught.value.exit_code == 3 and time.time() - began < 10


def test_p15_every_trainer_argument_comes_from_the_profile(here):
    import inspect

    import pytorch_lightning as pl

    ours = {"self", "logger", "callbacks", "default_root_dir", "plugins", "model_registry"}
    arguments = trainer_arguments(compose().trainer)
    assert set(inspect.signature(pl.Trainer.__init__).parameters) - ours == set(arguments)


@pytest.mark.parametrize("target", [
    "os.system", "torch.os.system", "builtins.exec", "spectramind_nb.runs.training.train", "torch.load",
])
def test_a_configuration_cannot_run_what_it_names(tmp_path, target):
    flag = tmp_path / "ran"
    with pytest.raises(ConfigError, match="may not be built"):
        build({"_target_": target, "command": f"touch {flag}", "loss": {"_target_": "torch.nn.MSELoss"}})
    assert not flag.exists()


class Payload:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (str(self.flag),)


def test_a_poisoned_checkpoint_is_refused_and_nothing_in_it_runs(whole_run, tmp_path):
    flag, checkpoint = tmp_path / "ran", whole_run.dir / "checkpoints" / "poisoned.ckpt"
    torch.save({"state_dict": {}, "loops": Payload(flag)}, checkpoint)
    try:
        assert not readable_checkpoint(checkpoint)
        with pytest.raises(DamagedFileError):
            predict(checkpoint)
        assert not flag.exists()
        torch.load(checkpoint, weights_only=False)
        assert flag.exists(), "the payload would have run: this test can fail"
    finally:
        checkpoint.unlink()


def test_resuming_by_name_allows_only_trainer_settings_to_change(whole_run, words):
    with pytest.raises(ConfigError, match="another seed"):
        train(overrides=[*words, "seed=8"], resume=whole_run.id)
    with pytest.raises(DataMissingError, match="no checkpoint to continue"):
        train(overrides=words, resume=whole_run.id)
    with pytest.raises(DataMissingError, match="there is no run 'nowhere'"):
        train(overrides=words, resume="nowhere")


def test_the_record_of_a_run_is_shown_escaped(whole_run, tmp_path):
    folder = tmp_path / "<b>x"
    folder.mkdir()
    (folder / "audit.json").write_text(json.dumps({"outcome": "<script>"}))
    html = Run(folder)._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert whole_run.id in whole_run._repr_html_() and len(whole_run._repr_html_()) < 2000


def test_p12_p65_the_saved_configuration_composes_the_same_hash(whole_run):
    saved = read_config(whole_run.dir / "config.yaml")
    assert saved.hash == whole_run.record["config_hash"] == compose(overrides=whole_run.overrides).hash
