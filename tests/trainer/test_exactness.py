"""Killed and resumed is the same as never interrupted, to the last bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from toys import Tiny, fit

from spectramind_nb.core.errors import ConfigError, TerminatedRun
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.safe_points import SafePoints
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals, Wall

SCRIPT = Path(__file__).parent / "kill_and_resume.py"


@pytest.mark.parametrize("variants, runs", [("single,workers,accumulate", 3), pytest.param("ddp", 1, marks=pytest.mark.slow)])
def test_p50_runs_killed_at_random_moments_end_as_if_they_had_never_been(short_root, stores, repo, variants, runs):
    """`kill_and_resume.py 30` does the same at length. The killed run must equal another one: what is not repeatable at all fails, too."""
    command = [sys.executable, SCRIPT, str(runs), "--root", short_root, "--cache", stores, "--variants", variants]
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == f"{runs} of {runs}", done.stdout + done.stderr


@pytest.mark.parametrize("accumulate", [2, 3])
def test_p50_no_checkpoint_between_batches_whose_gradients_belong_together(tmp_path, accumulate):
    """Twelve planets, three batches an epoch: the optimizer steps after `accumulate` batches and at the end of each epoch."""
    saved = []

    class Noting(SafePoints):
        def save(self, trainer):
            saved.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)
            super().save(trainer)

    points = Noting(Wall(0.0, None), Signals(), tmp_path / "last.ckpt", every_s=0.0)
    fit(Tiny(), [points], accumulate_grad_batches=accumulate, max_epochs=2)
    at_steps = [batch for batch in (1, 2, 3) if batch % accumulate == 0 or batch == 3]
    assert set(saved) == set(at_steps)


def test_p50_a_validation_between_such_batches_is_refused(tmp_path):
    points = SafePoints(Wall(0.0, None), Signals(), tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="val_check_interval"):
        fit(Tiny(), [points], accumulate_grad_batches=2, val_check_interval=1)


def test_p50_checkpoints_hold_tensors_and_plain_values_only(whole_run):
    for path in (whole_run.dir / "checkpoints").glob("*.ckpt"):
        assert {"state_dict", "optimizer_states", "loops"} <= set(torch.load(path, weights_only=True))


def test_p50_metrics_keep_their_history_when_a_run_goes_on_with_more_epochs(words):
    first = train(overrides=[*words, "run_id=longer", "trainer.checkpoint.every=0s"], resume="never")
    rows = len(pd.read_csv(first.dir / "metrics.csv"))
    more = [word for word in words if "max_epochs" not in word]
    again = train(overrides=[*more, "trainer.max_epochs=5", "run_id=longer"], resume=first)
    table = pd.read_csv(again.dir / "metrics.csv")
    assert again.record["attempt"] == 2 and set(table["attempt"]) == {1, 2} and len(table) > rows
    assert Run.open("longer").history["epoch"].max() == 4
    whole = train(overrides=[*more, "trainer.max_epochs=5"], resume="never")
    assert again.record["weights"]["final"] == whole.record["weights"]["final"]


def test_p50_a_run_killed_in_its_last_validation_keeps_its_training_metrics(whole_run, words, monkeypatch):
    """kill_and_resume.py found this: nothing is trained after such a resume, and the last training loss was lost."""
    from spectramind_nb.learning.posterior import PosteriorModel

    def killed(self):
        if self.trainer.state.fn == "fit" and self.global_step == whole_run.history["step"].max() + 1:
            raise KeyboardInterrupt

    last_step = [*words, "run_id=last", "trainer.checkpoint.every=0s"]
    with monkeypatch.context() as patch:
        patch.setattr(PosteriorModel, "on_validation_epoch_start", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(overrides=last_step, resume="never")
    resumed = train(overrides=last_step, resume="last")
    assert resumed.metrics == whole_run.metrics and resumed.record["attempt"] == 2


@pytest.mark.parametrize("model, more, step", [("ensemble", ["model.folds=3"], 2), ("posterior", [], 4)])  # of four, two in an epoch
def test_p50_stopped_at_the_end_of_an_epoch_that_no_validation_follows(words, monkeypatch, model, more, step):
    """What an epoch has counted scales sigma when it ends, which a run that was stopped just there did not come to again."""
    words = [*words, f"model={model}", *more, "trainer.limit_val_batches=0", "trainer.max_epochs=2"]

    def stopped(self, trainer, next_work_s, save=False):
        if trainer.global_step == step:
            self.signals.received = signal.SIGTERM
        safe_point(self, trainer, next_work_s, save)

    whole, safe_point = train(overrides=[*words, f"run_id=whole-{model}"], resume="never"), SafePoints.safe_point
    with monkeypatch.context() as patch:
        patch.setattr(SafePoints, "safe_point", stopped)
        with pytest.raises(TerminatedRun):
            train(overrides=[*words, f"run_id=cut-{model}"], resume="never")
    again = train(overrides=[*words, f"run_id=cut-{model}"])
    assert again.record["attempt"] == 2 and again.record["weights"] == whole.record["weights"]
    assert again.metrics == whole.metrics
    assert (again.dir / "submission.csv").read_bytes() == (whole.dir / "submission.csv").read_bytes()
