"""No number passes that is not one, no shape that is wrong, and a signal costs nothing."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import N, Tiny, fit

from spectramind_nb.core.errors import InterruptedRun, NonFiniteError, SchemaError, TerminatedRun
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.records.journal import EventLog, events, history
from spectramind_nb.records.training_log import MetricsFile
from spectramind_nb.records.weights import weights_digest
from spectramind_nb.runs.numerics import NumericsGuard, StepSeed
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.safe_points import SafePoints
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals, Wall


def guard(**switches):
    return NumericsGuard({"depth": (N,), "target": (N,)}, {"mu": (N,), "sigma": (N,)}, **switches)


@pytest.mark.parametrize("fault, error, words", [
    ("sigma", SchemaError, "sigma of planets 108, 109, 110 .* is not positive"), ("mu", NonFiniteError, "the model's mu of planet"),
    ("shape", SchemaError, "mu has shape .4, 2. instead of .4, 3."), ("loss", NonFiniteError, "the loss is nan .*epoch 0, batch 2"),
    ("gradients", NonFiniteError, "the gradient of 'net.weight'"), ("weights", NonFiniteError, "the weight 'net.bias'"),
])
def test_p32_each_fault_of_a_model_has_its_error(fault, error, words):
    with pytest.raises(error, match=words) as caught:
        fit(Tiny(fault), [guard()])
    assert caught.value.exit_code == {SchemaError: 10, NonFiniteError: 11}[error]


@pytest.mark.parametrize("spoil, error, words", [
    ("nan", NonFiniteError, "tensor 'depth' of planet 107 .*batch 1"), ("missing", SchemaError, "no tensor 'target'"),
    ("shape", SchemaError, "tensor 'target' has shape .2,. a planet instead of .3,."),
])
def test_p32_each_fault_of_a_batch_names_batch_and_tensor(spoil, error, words):
    with pytest.raises(error, match=words):
        fit(Tiny(), [guard()], spoil)


def test_p32_a_healthy_model_passes_and_the_guard_changes_nothing():
    bare, guarded = Tiny(), Tiny()
    fit(bare, [])
    fit(guarded, [guard()])
    assert weights_digest(bare.state_dict()) == weights_digest(guarded.state_dict())


def test_p32_the_guard_can_be_switched_off():
    fit(Tiny("loss"), [guard(loss=False, gradients=False, weights=False, outputs_guarded=False)])


def test_p32_gradients_that_are_all_zero_are_told_in_the_first_step():
    class Detached(Tiny):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * 0

    with pytest.raises(SchemaError, match="all gradients are zero .*epoch 0, batch 0"):
        fit(Detached(), [guard()])


def test_p32_weights_that_do_not_change_are_told_after_an_epoch():
    class Still(Tiny):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    with pytest.raises(SchemaError, match="no weight changed in 3 steps"):
        fit(Still(), [guard()])


def test_p32_a_metric_that_something_waits_for_must_be_there_and_finite():
    with pytest.raises(SchemaError, match="no 'val/nll' .*Known: val/score"):
        fit(Tiny(), [guard(metrics=["val/nll"])])

    class Lost(Tiny):
        def validation_step(self, batch, batch_idx):
            self.log("val/score", torch.tensor(float("nan")))

    with pytest.raises(NonFiniteError, match="the metric 'val/score' is nan"):
        fit(Lost(), [guard(metrics=["val/score"])])


# -- the same faults in a whole run ---------------------------------------------------------------------------------


def wrong_shape(self, batch, fold=None):
    mu, sigma = HONEST(self, batch, fold)
    return mu[:, 1:], sigma


HONEST = PosteriorModel.forward


def exploding(self, batch, batch_idx, honest=PosteriorModel.training_step):
    loss = honest(self, batch, batch_idx)
    if self.global_step == 3:
        next(self.parameters()).register_hook(lambda gradient: gradient * 1e300 * 1e300)
    return loss


@pytest.mark.parametrize("method, fault, error, told", [
    ("forward", wrong_shape, SchemaError, "the model's mu has shape .2, 282. instead of .2, 283. .training epoch 0, batch 0"),
    ("training_step", exploding, NonFiniteError, "the gradient of '.*' is not finite .training epoch 1"),
])
def test_p3_p32_a_fault_of_the_model_ends_the_run_with_its_code_and_a_record(words, monkeypatch, method, fault, error, told):
    monkeypatch.setattr(PosteriorModel, method, fault)
    with pytest.raises(error, match=told) as caught:
        train(overrides=[*words, f"run_id=fault-{method}"])
    run = Run.open(f"fault-{method}")
    assert (run.outcome, run.exit_code) == ("failed", caught.value.exit_code) and run.record["envelope"]["bytes"] > 0
    assert not (run.dir / "checkpoints" / "last.ckpt").exists()


def lacking(table):
    return table.drop(columns="wl_7")


def emptied(table):
    return table.assign(wl_9=float("nan"))


@pytest.mark.parametrize("edit, more, code, words", [
    (lacking, [], 10, "wl_7"), (emptied, [], 10, "wl_9"),
    (None, ["model.optimizer.lr=1e200", "trainer.gradient_clip_val=null", "trainer.max_epochs=4"], 11, "not finite"),
])
def test_p3_p32_a_fault_ends_the_command_with_its_code(short_root, here, tmp_path, warm_spectramind, edit, more, code, words):
    root = shutil.copytree(short_root, tmp_path / "data", copy_function=os.link)
    if edit:
        table = edit(pd.read_csv(root / "train.csv"))
        (root / "train.csv").unlink()
        table.to_csv(root / "train.csv", index=False)
    name = f"broken-{words.replace(' ', '-')}"
    run = warm_spectramind("train", "trainer=ci_fast", f"data.root={root}", "data.workers=1", f"run_id={name}", *more, cwd=here)
    assert run.returncode == code, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last and "Traceback" not in run.stderr
    summary = (here / "logs" / name / "junit.xml").read_text()
    assert 'failures="1"' in summary and f'type="{code}"' in summary


def test_p54_every_number_is_a_function_of_seed_epoch_and_batch():
    seen = {}

    class Draws(Tiny):
        def training_step(self, batch, batch_idx):
            draw = torch.rand(1).item(), np.random.rand(), random.random()
            seen.setdefault((self.current_epoch, batch_idx), []).append(draw)
            return super().training_step(batch, batch_idx)

    for burn in range(2):
        torch.rand(burn * 100)
        fit(Draws(), [StepSeed(1)])
    assert all(first == second for first, second in seen.values()) and len({draws[0] for draws in seen.values()}) == 6


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, TerminatedRun), (signal.SIGINT, InterruptedRun)])
def test_p50_a_signal_waits_for_a_safe_point_in_training(number, error, tmp_path):
    class Signalled(Tiny):
        def training_step(self, batch, batch_idx):
            if self.global_step == 4:
                os.kill(os.getpid(), number)
            return super().training_step(batch, batch_idx)

    path, before = tmp_path / "last.ckpt", signal.getsignal(number)
    with pytest.raises(error), Signals() as signals, signals.wait_for_safe_point():
        fit(Signalled(), [SafePoints(Wall(0.0, None), signals, path)])
    assert torch.load(path, weights_only=True)["global_step"] == 5
    assert signal.getsignal(number) == before


def test_p50_a_second_signal_does_not_wait():
    with pytest.raises(TerminatedRun), Signals() as signals, signals.wait_for_safe_point():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)


def test_p45_the_digest_sees_names_types_shapes_and_bits():
    base = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": -torch.zeros(2, 3)}, {"a": torch.zeros(2, 3).double()},
              {"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, {"a": torch.zeros(2, 3), "c": torch.tensor(0)}]
    digests = [weights_digest(state) for state in [base, *others]]
    assert len(set(digests)) == len(digests) and weights_digest({"a": torch.zeros(3, 2).T}) == digests[0]


def test_p50_p51_metrics_keep_their_history_over_attempts(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path, 1, flush_s=1e9)
    for step in range(4):
        first.log_metrics({"train/loss": float(step), "epoch": step // 2}, step)
    assert not path.exists()
    first.finalize("failed")
    second = MetricsFile(path, 2, flush_s=0)
    for step in range(2, 6):
        second.log_metrics({"train/loss": 10.0 + step, "epoch": step // 2}, step)
    second.log_metrics({"val/score": 0.5, "epoch": 2}, 5)
    raw, whole = pd.read_csv(path), history(path)
    assert len(raw) == 9 and set(raw.columns) == {"attempt", "epoch", "step", "train/loss", "val/score"}
    assert whole["train/loss"].dropna().tolist() == [0, 1, 12, 13, 14, 15] and whole["val/score"].dropna().tolist() == [0.5]


def test_p16_a_diary_line_cut_short_is_left_out(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", flush_s=1e9)
    log("step", epoch=0, batch=0, loss="0x1p0")
    assert events(log.path) == []
    log("checkpoint")
    with Path(log.path).open("a") as file:
        file.write('{"event": "st')
    assert [line["event"] for line in events(log.path)] == ["step", "checkpoint"]
