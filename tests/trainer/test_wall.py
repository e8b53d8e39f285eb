"""A run leaves within its budget, whatever is slow, and can go on from where it left."""

import os
import random
import time
from pathlib import Path

import pytest
import torch
from own_process import code, run_forked
from pytorch_lightning import Callback, Trainer
from toys import Tiny, fit

from spectramind_nb.core.errors import ConfigError, WallReached
from spectramind_nb.runs import submission
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.safe_points import SafePoints
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals, Wall, Watchdog, wall_anchor


class Clock:
    """Time passes only where work is done; how long it takes is drawn anew each time."""

    def __init__(self, seed):
        self.random, self.now = random.Random(seed), 0.0
        ranges = {"step": (0.2, 5), "validation": (0.2, 20), "save": (0, 4), "fetch": (0, 3)}
        self.mean = {kind: self.random.uniform(*limits) for kind, limits in ranges.items()}

    def work(self, kind):
        self.now += self.mean[kind] * self.random.uniform(0.5, 1.5)

    def __call__(self):
        return self.now


class Waiting(Callback):
    """The loader is slow: time passes before each batch."""

    def __init__(self, clock):
        self.clock = clock

    def on_train_epoch_start(self, trainer, pl_module):
        self.clock.work("fetch")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.clock.work("fetch")


@pytest.mark.parametrize("seed", range(100))
def test_p24_no_schedule_overruns_its_budget_and_each_leaves_a_checkpoint_to_go_on_from(seed, tmp_path, monkeypatch):
    clock, path = Clock(seed), tmp_path / "last.ckpt"
    budget = clock.random.uniform(60, 300)
    honest = Trainer.save_checkpoint

    def slow(self, *args, **kwargs):
        clock.work("save")
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", slow)
    points = SafePoints(Wall(0.0, budget, 30.0, clock=clock), Signals(), path, every_s=40.0)
    interval = clock.random.choice((1.0, 2, 5))
    rhythm = {"val_check_interval": interval, "check_val_every_n_epoch": 1 if interval == 1.0 else None}
    with pytest.raises(WallReached):
        fit(Tiny(clock=clock), [points, Waiting(clock)], max_epochs=10_000, **rhythm)
    assert clock.now <= budget, "an overrun"
    assert clock.now > 0.2 * budget - 30.0, "the budget is used, not only kept"
    left = torch.load(path, weights_only=True)
    again = fit(Tiny(), [], ckpt_path=path, max_epochs=left["epoch"] + 2, **rhythm)
    assert again.global_step > left["global_step"] and again.current_epoch == left["epoch"] + 2


def test_p24_a_validation_that_does_not_fit_is_not_begun(tmp_path):
    """Validation was seen to take 20 s; when 25 s are left with a reserve of 10 s, the run leaves before it."""
    now, validated = [0.0], []

    class Counting(Tiny):
        def training_step(self, batch, batch_idx):
            now[0] += 1.0
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            validated.append(self.global_step)
            now[0] += 10.0
            return super().validation_step(batch, batch_idx)

    wall = Wall(0.0, 3 + 20 + 3 + 25, 10.0, clock=lambda: now[0])
    with pytest.raises(WallReached):
        fit(Counting(), [SafePoints(wall, Signals(), tmp_path / "last.ckpt")], max_epochs=100)
    assert validated == [3, 3] and now[0] == 26.0
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 6


def test_p24_a_validation_of_unknown_length_is_saved_before_it_begins(tmp_path):
    class Hanging(Tiny):
        def validation_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    points = SafePoints(Wall(time.time(), 1000.0, 10.0), Signals(), tmp_path / "last.ckpt")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(Hanging(), [points])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_p24_the_watchdog_ends_a_run_whose_main_thread_is_stuck():
    ended = []
    with Watchdog(Wall(time.time(), 1.3, reserve_s=0.2), Signals(), lambda: ended.append("closed"), ended.append):
        time.sleep(0.7)
    assert ended == ["closed", 75]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_p24_the_watchdog_ends_a_run_whose_record_cannot_be_closed():
    """On a full disk the thread died instead, and the run went on."""
    ended = []

    def refuse():
        raise OSError("no space left on device")

    with Watchdog(Wall(time.time(), 1.0, reserve_s=0.2), Signals(), refuse, ended.append):
        time.sleep(0.7)
    assert ended == [75]


def test_p24_outside_training_the_watchdog_interrupts_the_main_thread():
    wall = Wall(time.time(), 3.0, reserve_s=4.0)
    with pytest.raises(WallReached), Signals() as signals, Watchdog(wall, signals, lambda: None, lambda code: None):
        time.sleep(2.5)
    assert wall.left_s > 0.4


def test_p24_a_watchdog_that_is_not_needed_does_nothing():
    ended = []
    with Watchdog(Wall(time.time(), 1000.0), Signals(), lambda: ended.append(1), ended.append):
        pass
    with Watchdog(Wall(0.0, None), Signals(), lambda: ended.append(1), ended.append):
        pass
    assert ended == []


def test_p24_the_budget_starts_where_the_anchor_says(monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STARTED", "123.5")
    assert (wall_anchor("process", 9.0), wall_anchor(77, 9.0), wall_anchor("NOTEBOOK_STARTED", 9.0)) == (9.0, 77.0, 123.5)
    with pytest.raises(ConfigError, match="names no moment"):
        wall_anchor("NO_SUCH_VARIABLE", 9.0)


@pytest.mark.parametrize("left_s", [-3600.0, 0.5])
def test_p24_a_budget_used_up_before_the_run_is_said_and_leaves_the_process_alive(words, left_s, capfd):
    """As in a notebook whose kernel is older than the budget."""
    anchor = f"trainer.wall.anchor={time.time() - 1200.0 + left_s:.1f}"
    run = train("ci_fast", [*words[:-1], anchor], resume="never")
    assert (run.outcome, run.exit_code) == ("wall", 75)
    errors = capfd.readouterr().err
    assert "used up before the run began" in errors and "Restart the kernel" in errors and "Traceback" not in errors


# -- real runs with a real clock ------------------------------------------------------------------------------------

CHILD = """
import sys, time
from spectramind_nb.learning.posterior import PosteriorModel as Model
from spectramind_nb.runs.training import train
honest = getattr(Model, {method!r})
def slow(self, batch, batch_idx):
    time.sleep({seconds} if self.global_step >= {step} else 0)
    return honest(self, batch, batch_idx)
setattr(Model, {method!r}, slow)
sys.exit(train(overrides=sys.argv[1:]).exit_code)
"""


def timed(words, repo, **fault):
    """A run in a process of its own; its code, its errors, and the seconds from start to end of the process."""
    environment = {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"}
    run_forked(code, ["-c", ""], Path.cwd(), environment)  # whoever forks must have started before the time is taken
    began = time.time()
    child = run_forked(code, ["-c", CHILD.format(**fault), *words], Path.cwd(), environment)
    return child.returncode, child.stderr, time.time() - began


def test_p24_p66_a_run_of_20_s_with_a_validation_of_15_s_leaves_in_time_and_resumes_exactly(whole_run, words, repo):
    three = ["data.batch_size=1", "data.validation_fraction=0.5", "trainer.max_epochs=4"]  # batches of validation
    slow = [*words, *three, "trainer.wall.budget=20s", "trainer.wall.reserve=3s"]
    ended, errors, seconds = timed(slow, repo, method="validation_step", seconds=5.0, step=0)
    assert ended == 75 and seconds <= 20.0, (ended, seconds, errors)
    assert "Run the same command again to resume" in errors
    stopped = Run(max(Path("logs").glob("*-defaults*/audit.json"), key=lambda path: path.stat().st_mtime).parent.absolute())
    used = stopped.record["envelope"]
    assert stopped.outcome == "wall" and used["wall_s"] <= used["wall_budget_s"] == 20.0
    assert submission.validate(stopped.dir / "submission.csv").planets == 2
    plain = [word for word in slow if "wall" not in word]
    resumed, whole = train(overrides=plain, resume=stopped), train(overrides=plain, resume="never")
    assert resumed.dir == stopped.dir and resumed.record["weights"]["final"] == whole.record["weights"]["final"]


def test_p24_a_step_that_never_ends_does_not_overrun_the_budget(whole_run, words, repo):
    stuck = [*words, "trainer.wall.budget=18s", "trainer.wall.reserve=2s", "trainer.checkpoint.every=0s", "run_id=stuck"]
    ended, errors, seconds = timed(stuck, repo, method="training_step", seconds=1e6, step=3)
    assert ended == 75 and seconds <= 18.0, (ended, seconds, errors)
    run = Run.open("stuck")
    assert (run.outcome, run.exit_code) == ("wall", 75) and "stuck" in run.record["error"]
    assert torch.load(run.dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
