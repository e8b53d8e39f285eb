"""Which run a command continues, and what a start that trained nothing may not change."""

import json
import shutil
from pathlib import Path

import pytest
from test_runtime import outcome_of

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, PreflightError
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.records.record import _left_behind
from spectramind_nb.runs.directory import RunDirectory
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.run_attempts import branch_checkpoint, named_attempt, unfinished_attempt
from spectramind_nb.runs.storage_budget import BudgetedCheckpointIO
from spectramind_nb.runs.training import train


def killed(words, at_step, monkeypatch, **more):
    """A run as SIGKILL leaves it when its `at_step`-th step begins: nothing is saved and nobody says goodbye."""
    honest, before = PosteriorModel.training_step, set(Path("logs").glob("*/audit.json"))

    def step(self, batch, batch_idx):
        if self.global_step == at_step:
            raise RuntimeError("killed here")
        return honest(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(PosteriorModel, "training_step", step)
        with pytest.raises(RuntimeError, match="killed here"):
            train(overrides=words, **more)
    (path,) = set(Path("logs").glob("*/audit.json")) - before
    path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": "killed", "exit_code": None}))
    return Run.open(path.parent)


NOWHERE = ["paths.cache=/proc/nope"]
NO_DISK = ["trainer.storage.budget=9999999TB"]


def test_p50_starts_that_train_nothing_do_not_change_whether_a_run_can_go_on(words, whole_run, monkeypatch):
    """Neither does what they asked for: a resumption that failed with another trainer setting leaves the run to the first command too."""
    run = killed([*words, "trainer.checkpoint.every=0s"], 3, monkeypatch, resume="never")
    words = [*words, "trainer.checkpoint.every=0s"]
    with pytest.raises(PreflightError):
        train(overrides=[*words, *NOWHERE])
    with pytest.raises(PreflightError):
        train(overrides=[*words, *NO_DISK], resume=run.id)
    assert (run.outcome, run.record["attempt"]) == ("failed", 3)
    again = train(overrides=words)
    assert (again.id, again.record["attempt"]) == (run.id, 4)
    assert outcome_of(again) == outcome_of(whole_run)


def test_p50_a_named_run_that_failed_before_it_trained_begins_under_its_name(words, whole_run):
    words = [*words, "run_id=failed-early"]
    for _ in range(2):
        with pytest.raises(PreflightError):
            train(overrides=[*words, *NOWHERE])
    again = train(overrides=words)
    assert (again.id, again.record["attempt"], again.outcome) == ("failed-early", 3, "finished")
    assert again.record["weights"] == whole_run.record["weights"]


def test_p50_a_run_on_other_data_is_another_run(words, short_root, tmp_path, monkeypatch):
    words = [*words, "seed=17", "trainer.checkpoint.every=0s"]
    run, same = killed(words, 3, monkeypatch), tmp_path / "same"
    same.symlink_to(short_root)
    found = [unfinished_attempt(compose(overrides=[*words, f"data.root={root}"]), "auto") for root in (same, tmp_path)]
    assert found[0].dir.name == run.id and found[1] is None


@pytest.mark.parametrize("by_name", [False, True])
def test_p50_a_named_run_that_was_killed_before_its_first_rolling_checkpoint_goes_on_from_its_best(words, whole_run, monkeypatch, by_name):
    words = [*words, f"run_id=only-best-{by_name}"]
    run = killed(words, 3, monkeypatch)
    (run.dir / "checkpoints" / ".last.ckpt.x1.ckpt").write_bytes(b"half")
    assert [path.name for path in (run.dir / "checkpoints").glob("[!.]*")] == ["best.ckpt"]
    again = train(overrides=words, resume=run.id if by_name else "auto")
    assert (again.id, again.record["attempt"], again.outcome) == (run.id, 2, "finished")
    assert again.history["attempt"].tolist().count(2) < len(again.history)
    assert outcome_of(again) == outcome_of(whole_run)
    with pytest.raises(ConfigError, match="already is a run"):
        train(overrides=words)


def test_what_a_killed_process_left_half_written_is_no_checkpoint(whole_run, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    best = Path(shutil.copy(whole_run.dir / "checkpoints" / "best.ckpt", folder))
    (folder / ".last.ckpt.x1.ckpt").write_bytes(b"half")  # the newest
    assert branch_checkpoint(RunDirectory(tmp_path), None) == best
    assert list(_left_behind(tmp_path)["checkpoints"]) == ["best.ckpt"]
    told = []
    BudgetedCheckpointIO(tmp_path, 1, lambda event, **fields: told.append(fields["path"])).save_checkpoint({}, folder / "step.ckpt")
    assert told == ["step.ckpt"]  # left out, and nothing pruned


def test_a_command_that_is_refused_takes_no_name(words):
    """Nor does a folder in which nothing is; but somebody's files are left alone."""
    with pytest.raises(ConfigError, match="may not be built"):
        train(overrides=[*words, "run_id=free", "model._target_=os.system"])
    assert not Path("logs/free").exists()
    Path("logs/free").mkdir()
    Path("logs/free/.lock").touch()
    assert named_attempt(compose(overrides=["run_id=free"])).dir.name == "free"
    Path("logs/free/notes.txt").touch()
    with pytest.raises(ConfigError, match="already is a run 'free'"):
        named_attempt(compose(overrides=["run_id=free"]))
