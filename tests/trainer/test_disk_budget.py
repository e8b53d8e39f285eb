"""A run stays within the disk it was given, writes no oftener than it may, and says at the end what it used."""

import json
import os
from xml.etree import ElementTree

import pytest
import torch
from toys import Tiny, fit

from spectramind_nb.core.errors import PreflightError, WallReached
from spectramind_nb.records.journal import EventLog, events
from spectramind_nb.runs.envelope import envelope, guardrails, summarise
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.safe_points import SafePoints
from spectramind_nb.runs.storage_budget import BudgetedCheckpointIO, check_storage, directory_bytes
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals, Wall, Watchdog

STATE = {"state_dict": {"w": torch.zeros(2000)}, "global_step": 1}


# -- bytes ----------------------------------------------------------------------------------------------------------


def test_p21c_oldest_snapshots_go_and_the_best_and_the_latest_stay(tmp_path):
    folder, told = tmp_path / "checkpoints", []
    checkpoints = BudgetedCheckpointIO(tmp_path, 60_000, lambda event, **fields: told.append(event))
    for number, name in enumerate(["best", "last", *(f"step{k}" for k in range(8))]):
        checkpoints.save_checkpoint(STATE, folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (number, number))
        assert directory_bytes(tmp_path) <= 60_000
    left, size = {path.stem for path in folder.iterdir()}, (folder / "last.ckpt").stat().st_size
    latest = {f"step{k}" for k in range(8 - (57_000 // size - 2), 8)}
    assert left == {"best", "last"} | latest and len(latest) >= 2
    assert told.count("pruned") == 8 - len(latest) and checkpoints.written == 10


def test_p21c_a_snapshot_without_room_is_left_out_and_the_latest_is_an_error(tmp_path):
    told = []
    checkpoints = BudgetedCheckpointIO(tmp_path, 12_000, lambda event, **fields: told.append(event))
    checkpoints.save_checkpoint(STATE, tmp_path / "checkpoints" / "last.ckpt")
    checkpoints.save_checkpoint(STATE, tmp_path / "checkpoints" / "step1.ckpt")
    assert told == ["checkpoint", "snapshot left out"]
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(PreflightError, match="last.ckpt would make the run .* MB too large"):
        checkpoints.save_checkpoint(STATE, tmp_path / "checkpoints" / "last.ckpt")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_p21c_what_must_be_kept_is_known_through_a_link(tmp_path):
    """Lightning names the real path: where the folder of runs was a link, weights without room were left out like a snapshot."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "logs").symlink_to("scratch")
    checkpoints = BudgetedCheckpointIO(tmp_path / "logs" / "run", 5_000)
    for folder in ("logs", "scratch"):
        with pytest.raises(PreflightError, match="best.ckpt would make the run"):
            checkpoints.save_checkpoint(STATE, tmp_path / folder / "run" / "checkpoints" / "best.ckpt")


def test_p21c_a_run_with_many_snapshots_never_grows_beyond_its_budget(words, monkeypatch):
    seen, honest = [], BudgetedCheckpointIO.save_checkpoint

    def watched(self, *words, **more):
        honest(self, *words, **more)
        seen.append(directory_bytes(self.run_dir))

    monkeypatch.setattr(BudgetedCheckpointIO, "save_checkpoint", watched)
    limits = ["trainer.storage.budget=600KB", "trainer.checkpoint.save_top_k=-1", "trainer.max_epochs=30"]
    run = train(overrides=[*words[:-1], *limits], resume="never")
    assert run.outcome == "finished" and max(seen) <= 600_000 and directory_bytes(run.dir) <= 600_000
    pruned = [line for line in events(run.dir / "events.jsonl") if line["event"] == "pruned"]
    assert pruned and (run.dir / "checkpoints" / "best.ckpt").is_file()
    assert run.record["envelope"]["bytes"] <= run.record["envelope"]["bytes_budget"] == 600_000


def test_p21c_a_budget_that_cannot_be_kept_is_refused_before_the_training(words):
    with pytest.raises(PreflightError, match="needs about .* MB and may use 0.1 MB") as caught:
        train(overrides=[*words, "trainer.storage.budget=100KB", "run_id=too-small"])
    run = Run.open("too-small")
    assert caught.value.exit_code == run.exit_code == 3 and not list(run.dir.rglob("*.ckpt"))
    without = {"max_epochs": 3, "enable_checkpointing": False, "storage": {"budget": "1KB"}}
    with pytest.raises(PreflightError):
        check_storage(torch.nn.Linear(3, 3), run.dir, without, 2)
    endless = {"max_epochs": -1, "max_steps": 800, "enable_checkpointing": False, "storage": {"budget": "200KB"}}
    with pytest.raises(PreflightError):  # it trained on, and wrote more than it may
        check_storage(torch.nn.Linear(3, 3), run.dir / "none", endless, 2)


def test_p21c_what_a_killed_process_left_half_written_is_swept_away(tmp_path):
    checkpoints = BudgetedCheckpointIO(tmp_path, 10**6)
    checkpoints.save_checkpoint(STATE, tmp_path / "checkpoints" / "last.ckpt")
    (tmp_path / "checkpoints" / ".last.ckpt.abc.ckpt").write_bytes(b"half")
    checkpoints.sweep()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


# -- cadence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every_s, batches", [(20.0, 300), (100.0, 300), (1e9, 300)])
def test_p27_p49_checkpoints_are_written_no_oftener_than_they_may(tmp_path, every_s, batches):
    now, written = [0.0], []

    class Slow(Tiny):
        def training_step(self, batch, batch_idx):
            now[0] += 1.0
            return super().training_step(batch, batch_idx)

    class Counting(SafePoints):
        def save(self, trainer):
            written.append(now[0])
            super().save(trainer)

    points = Counting(Wall(0.0, None, clock=lambda: now[0]), Signals(), tmp_path / "last.ckpt", every_s=every_s)
    fit(Slow(), [points], max_epochs=batches // 3)
    assert len(written) == batches // every_s
    assert all(late - early >= every_s for early, late in zip(written, written[1:], strict=False))


def test_p27_the_diary_is_written_no_oftener_than_it_may(tmp_path, monkeypatch):
    log, flushed = EventLog(tmp_path / "events.jsonl", flush_s=1e9), []
    honest = EventLog.flush
    monkeypatch.setattr(EventLog, "flush", lambda self: flushed.append(1) or honest(self))
    for step in range(1000):
        log("step", epoch=0, batch=step, loss="0x1p0")
    assert not flushed
    log("end")
    assert flushed == [1] and len(events(log.path)) == 1001


def test_p48_p27_files_of_a_run_appear_whole(tmp_path, monkeypatch):
    """Whoever looks while a checkpoint is written sees the old one, and nothing when the writing fails."""
    checkpoints = BudgetedCheckpointIO(tmp_path, 10**6)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoints.save_checkpoint(STATE, path)
    before, honest = path.read_bytes(), os.replace

    def late(source, target):
        assert path.read_bytes() == before
        raise OSError("the power is gone")

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(OSError, match="power"):
        checkpoints.save_checkpoint({**STATE, "global_step": 2}, path)
    monkeypatch.setattr(os, "replace", honest)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


# -- what is said ---------------------------------------------------------------------------------------------------


def test_p64_the_guard_rails_are_told_at_the_start_and_recorded(words, capsys):
    run = train("kaggle_safe", [*words, "trainer.max_epochs=1"], resume="never")
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("guardrails: "))
    recorded = run.record["guardrails"]
    assert recorded == guardrails(run.config.trainer.plain(), 42) and recorded["wall"] == "9h less 10m" and recorded["network"] == "no"
    assert all(f"{name} {value}" in line for name, value in recorded.items())
    assert recorded["checks"] == "batches outputs loss gradients weights" and recorded["clipping"] == 1.0


def test_p66_p25_the_envelope_is_told_at_the_end_and_recorded(words, capsys):
    run = train(overrides=[*words, "trainer.wall.budget=1h"], resume="never")
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("envelope: "))
    used = run.record["envelope"]
    assert used["wall_budget_s"] == 3600 and 0 < used["wall_s"] < 3600 and used["precision"] == "32-true"
    assert used["bytes_budget"] == 2 * 10**9 and 0 < used["bytes"] <= directory_bytes(run.dir)
    assert 0.2 < used["peak_memory_gb"] < 50 and used["precision_events"] == [] and used["checkpoints"] >= 1
    assert "of 3600 s" in line and "of 2000 MB" in line and "precision 32-true" in line


def test_p66_changes_of_precision_are_in_the_envelope(tmp_path):
    EventLog(tmp_path / "events.jsonl")("precision", before="16-mixed", now="bf16-mixed")
    used = envelope(tmp_path, Wall(0.0, None), 10**6, "bf16-mixed", 0)
    assert [(event["before"], event["now"]) for event in used["precision_events"]] == [("16-mixed", "bf16-mixed")]


# -- for machines ---------------------------------------------------------------------------------------------------


def test_p29_p30_p33_p61_ci_fast_from_a_filled_store(whole_run, short_root, here, warm_spectramind):
    """As continuous integration runs it: a process of its own, at most 60 s, no checkpoint, summaries."""
    overrides = [f"data.root={short_root}", "data.batch_size=2", "data.workers=1", "run_id=gate"]
    done = warm_spectramind("train", "trainer=ci_fast", *overrides, cwd=here, timeout=60)
    assert done.returncode == 0, done.stderr
    run = Run(here / "logs" / "gate")
    assert not list(run.dir.rglob("*.ckpt")) and run.config.trainer.max_epochs == 1
    summary = json.loads((run.dir / "summary.json").read_text())
    assert (summary["outcome"], summary["exit_code"]) == ("finished", 0) and summary["metrics"] == run.metrics
    suite = ElementTree.parse(run.dir / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("5", "0", "0")
    steps = [line for line in events(run.dir / "events.jsonl") if line["event"] == "step"]
    assert 0 < len(steps) <= run.config.trainer.limit_train_batches


def test_p33_a_failed_stage_is_a_failed_case_and_later_ones_are_skipped(tmp_path):
    (tmp_path / "audit.json").write_text(json.dumps({"run_id": "r", "attempt": 2, "exit_code": 11, "outcome": "failed"}))
    for attempt, error in ((1, "an earlier attempt"), (2, None), (2, 'not finite: <&"\x00>')):
        name = "preflight" if error is None else "training"
        EventLog(tmp_path / "events.jsonl", attempt)("stage", name=name, seconds=1.0, error=error)
    assert [stage["error"] for stage in summarise(tmp_path)["stages"]] == [None, 'not finite: <&"\x00>']
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "3")
    failure = suite.find(".//failure")
    assert failure.get("type") == "11" and failure.get("message") == 'not finite: <&" >'


def test_p33_p24_a_run_without_checkpoints_that_reaches_its_wall_says_so_to_the_gate(words, monkeypatch):
    from spectramind_nb.runs import execution

    wall = Wall(0.0, 100.0, 10.0, clock=lambda: 95.0)
    monkeypatch.setattr(execution, "_run_wall", lambda config: wall)
    monkeypatch.setattr(Watchdog, "__enter__", lambda self: self)
    run = train("ci_fast", [*words[:-1], "run_id=late"])
    assert run.exit_code == WallReached.exit_code
    assert ElementTree.parse(run.dir / "junit.xml").getroot().get("failures") == "1"
