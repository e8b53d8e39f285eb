"""A run leaves in time with its state saved, and no number passes that is not one."""

import logging
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from spectramind_nb.core.errors import (
    ConfigError,
    InterruptedRun,
    NonFiniteError,
    SchemaError,
    TerminatedRun,
    WallReached,
)
from spectramind_nb.runs.guards import NumericsGuard, SafePoints, Signals, StepSeed, Wall, Watchdog, wall_anchor
from spectramind_nb.runs.journal import EventLog, MetricsFile, events, history, weights_digest

N = 3


class Tiny(LightningModule):
    """Batches in, (mu, sigma) out; `fault` spoils one thing at the third step."""

    def __init__(self, fault=None, clock=None):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.fault, self.clock = torch.nn.Linear(N, N), fault, clock

    def forward(self, batch):
        mu, sigma = self.net(batch["depth"]), torch.ones(len(batch["depth"]), N)
        if self.fault == "sigma" and self.global_step >= 2:
            sigma = -sigma
        if self.fault == "mu" and self.global_step >= 2:
            mu = mu / 0
        return (mu[:, 1:], sigma) if self.fault == "shape" and self.global_step >= 2 else (mu, sigma)

    def training_step(self, batch, batch_idx):
        if self.clock:
            self.clock.work("step")
        loss = ((self(batch)[0] - batch["target"]) ** 2).mean()
        if self.global_step == 2 and self.fault == "loss":
            loss = loss * float("nan")
        if self.global_step == 2 and self.fault == "gradients":
            self.net.weight.register_hook(lambda gradient: gradient * float("inf"))
        if self.global_step == 2 and self.fault == "weights":
            with torch.no_grad():
                self.net.bias.fill_(float("inf"))
            return loss * 0 + self.net.weight.sum() * 0
        return loss

    def validation_step(self, batch, batch_idx):
        if self.clock:
            self.clock.work("validation")
        self.log("val/score", self(batch)[0].mean(), batch_size=len(batch["depth"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Planets(Dataset):
    def __init__(self, spoil=None):
        self.depth = torch.randn(12, N, generator=torch.Generator().manual_seed(1))
        self.spoil = spoil

    def __len__(self):
        return 12

    def __getitem__(self, i):
        item = {"planet_id": 100 + i, "depth": self.depth[i].clone(), "target": self.depth[i].flip(0)}
        if self.spoil == "nan" and i == 7:
            item["depth"][1] = float("nan")
        if self.spoil == "missing":
            del item["target"]
        if self.spoil == "shape":
            item["target"] = item["target"][1:]
        return item


def fit(model, callbacks, spoil=None, **settings):
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, accelerator="cpu")
    trainer = Trainer(**{**quiet, "max_epochs": 2, "num_sanity_val_steps": 0, **settings}, callbacks=callbacks)
    with torch.random.fork_rng():
        trainer.fit(model, DataLoader(Planets(spoil), batch_size=4), DataLoader(Planets(), batch_size=6))
    return trainer


def guard(**switches):
    return NumericsGuard({"depth": (N,), "target": (N,)}, {"mu": (N,), "sigma": (N,)}, **switches)


@pytest.mark.parametrize("fault, error, words", [
    ("sigma", SchemaError, "sigma of planets 108, 109, 110 .* is not positive"), ("mu", NonFiniteError, "the model's mu of planet"),
    ("shape", SchemaError, "mu has shape .4, 2. instead of .4, 3."), ("loss", NonFiniteError, "the loss is nan .*epoch 0, batch 2"),
    ("gradients", NonFiniteError, "the gradient of 'net.weight'"), ("weights", NonFiniteError, "the weight 'net.bias'"),
])
def test_each_fault_of_a_model_has_its_error(fault, error, words):
    with pytest.raises(error, match=words) as caught:
        fit(Tiny(fault), [guard()])
    assert caught.value.exit_code == {SchemaError: 10, NonFiniteError: 11}[error]


@pytest.mark.parametrize("spoil, error, words", [
    ("nan", NonFiniteError, "tensor 'depth' of planet 107 .*batch 1"), ("missing", SchemaError, "no tensor 'target'"),
    ("shape", SchemaError, "tensor 'target' has shape .2,. a planet instead of .3,."),
])
def test_each_fault_of_a_batch_names_batch_and_tensor(spoil, error, words):
    with pytest.raises(error, match=words):
        fit(Tiny(), [guard()], spoil)


def test_a_healthy_model_passes_and_the_guard_changes_nothing():
    bare, guarded = Tiny(), Tiny()
    fit(bare, [])
    fit(guarded, [guard()])
    assert weights_digest(bare.state_dict()) == weights_digest(guarded.state_dict())


def test_the_guard_can_be_switched_off():
    fit(Tiny("loss"), [guard(loss=False, gradients=False, weights=False, outputs_guarded=False)])


def test_every_number_is_a_function_of_seed_epoch_and_batch():
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


class Clock:
    """Time passes only where work is done; how long it takes is drawn anew each time."""

    def __init__(self, seed):
        self.random, self.now = random.Random(seed), 0.0
        ranges = {"step": (0.2, 5), "validation": (0.2, 20), "save": (0, 4)}
        self.mean = {kind: self.random.uniform(*limits) for kind, limits in ranges.items()}

    def work(self, kind):
        self.now += self.mean[kind] * self.random.uniform(0.5, 1.5)

    def __call__(self):
        return self.now


@pytest.mark.parametrize("seed", range(30))
def test_no_schedule_overruns_its_budget_and_each_leaves_a_checkpoint(seed, tmp_path, monkeypatch):
    clock, path = Clock(seed), tmp_path / "last.ckpt"
    budget = clock.random.uniform(60, 300)
    honest = Trainer.save_checkpoint

    def slow(self, *args, **kwargs):
        clock.work("save")
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", slow)
    points = SafePoints(Wall(0.0, budget, 30.0, clock=clock), Signals(), path, every_s=40.0)
    with pytest.raises(WallReached):
        fit(Tiny(clock=clock), [points], max_epochs=10_000)
    assert clock.now <= budget and "loops" in torch.load(path, weights_only=True)
    assert clock.now > 0.2 * budget - 30.0, "the budget is used, not only kept"


def test_the_watchdog_ends_a_run_whose_main_thread_is_stuck():
    ended = []
    with Watchdog(Wall(time.time(), 1.3, reserve_s=0.2), Signals(), lambda: ended.append("closed"), ended.append):
        time.sleep(0.7)
    assert ended == ["closed", 75]


def test_outside_training_the_watchdog_interrupts_the_main_thread():
    wall = Wall(time.time(), 3.0, reserve_s=4.0)
    with pytest.raises(WallReached), Signals() as signals, Watchdog(wall, signals, lambda: None, lambda code: None):
        time.sleep(2.5)
    assert wall.left_s > 0.4


def test_a_watchdog_that_is_not_needed_does_nothing():
    ended = []
    with Watchdog(Wall(time.time(), 1000.0), Signals(), lambda: ended.append(1), ended.append):
        pass
    with Watchdog(Wall(0.0, None), Signals(), lambda: ended.append(1), ended.append):
        pass
    assert ended == []


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, TerminatedRun), (signal.SIGINT, InterruptedRun)])
def test_a_signal_waits_for_a_safe_point_in_training(number, error, tmp_path):
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


def test_a_second_signal_does_not_wait():
    with pytest.raises(TerminatedRun), Signals() as signals, signals.wait_for_safe_point():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)


def test_the_budget_starts_where_the_anchor_says(monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STARTED", "123.5")
    assert (wall_anchor("process", 9.0), wall_anchor(77, 9.0), wall_anchor("NOTEBOOK_STARTED", 9.0)) == (9.0, 77.0, 123.5)
    with pytest.raises(ConfigError, match="names no moment"):
        wall_anchor("NO_SUCH_VARIABLE", 9.0)


def test_the_digest_sees_names_types_shapes_and_bits():
    base = {"a": torch.zeros(2, 3)}
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": -torch.zeros(2, 3)}, {"a": torch.zeros(2, 3).double()},
              {"a": torch.zeros(2, 3, dtype=torch.bfloat16)}, {"a": torch.zeros(2, 3), "c": torch.tensor(0)}]
    digests = [weights_digest(state) for state in [base, *others]]
    assert len(set(digests)) == len(digests) and weights_digest({"a": torch.zeros(3, 2).T}) == digests[0]


def test_metrics_keep_their_history_over_attempts(tmp_path):
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


def test_a_diary_line_cut_short_is_left_out(tmp_path):
    log = EventLog(tmp_path / "events.jsonl", flush_s=1e9)
    log("step", epoch=0, batch=0, loss="0x1p0")
    assert events(log.path) == []
    log("checkpoint")
    with Path(log.path).open("a") as file:
        file.write('{"event": "st')
    assert [line["event"] for line in events(log.path)] == ["step", "checkpoint"]
