"""Which run a command continues, and what a start that trained nothing may not change."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from test_runtime import outcome_of

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, PreflightError
from spectramind_nb.learning.posterior import PosteriorModel
from spectramind_nb.records.record import _left_behind
from spectramind_nb.runs.directory import RunDirectory
from spectramind_nb.runs.replay import tampering
from spectramind_nb.runs.run import Run, evaluate, predict
from spectramind_nb.runs.run_attempts import _newest_checkpoint, branch_checkpoint, named_attempt, readable_checkpoint, unfinished_attempt
from spectramind_nb.runs.storage_budget import BudgetedCheckpointIO
from spectramind_nb.runs.sweep import members
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


def test_a_run_that_cannot_be_written_to_goes_on_in_a_copy(words, whole_run, monkeypatch, tmp_path, capsys):
    """As Kaggle mounts what another session left."""
    run = killed([*words, "trainer.checkpoint.every=0s"], 3, monkeypatch, resume="never")
    mounted = tmp_path / "input" / run.id
    mounted.parent.mkdir()
    run.dir.rename(mounted)
    before, may = {path: path.is_file() and path.read_bytes() for path in mounted.rglob("*")}, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mounted not in (path, *Path(path).parents) and may(path, mode))  # root may all
    again = train(overrides=words, resume=str(mounted))
    assert again.dir == Path("logs", run.id).absolute() and again.record["attempt"] == 2 and outcome_of(again) == outcome_of(whole_run)
    assert before == {path: path.is_file() and path.read_bytes() for path in mounted.rglob("*")}
    assert f"note: {mounted} cannot be written to, so a copy of it goes on" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="there is one of its name in this workspace"):
        train(overrides=words, resume=str(mounted))


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
    with open(run.dir / "config.yaml") as whole, open(run.dir / "overrides.txt") as told:  # as somebody who reads the run meanwhile
        again = train(overrides=words, resume=run.id if by_name else "auto")
        for file in (whole, told):
            assert not os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)), "it was written again in place"
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


@pytest.fixture
def copied(whole_run, tmp_path):
    """A run with snapshots in a folder whose files have the times of an unlucky copy: what is oldest looks newest."""
    folder, kept = tmp_path / "copied" / "checkpoints", torch.load(whole_run.weights, weights_only=True)
    folder.mkdir(parents=True)
    for age, (name, step) in enumerate({"epoch0015-step0000016": 16, "epoch0003-step0000004": 4, "best": 8}.items()):
        torch.save({**kept, "global_step": step}, folder / f"{name}.ckpt")
        os.utime(folder / f"{name}.ckpt", (age, age))
    return folder.parent


def test_the_newest_snapshot_has_seen_most_steps_whatever_the_times_of_a_copy_say(copied):
    assert branch_checkpoint(RunDirectory(copied), None).stem == "epoch0015-step0000016"
    assert _newest_checkpoint(copied).stem == "epoch0015-step0000016"
    (copied / "checkpoints/epoch0015-step0000016.ckpt").unlink()
    assert branch_checkpoint(RunDirectory(copied), None).stem == "best", "whose name does not say how many it has seen"


def test_the_snapshot_of_fewest_steps_makes_room_first_whatever_the_times_of_a_copy_say(copied):
    told, size = [], sum(path.stat().st_size for path in copied.rglob("*.ckpt"))
    checkpoints = BudgetedCheckpointIO(copied, int(size / 0.95) + 1000, lambda event, **fields: told.append((event, fields["path"])))
    checkpoints.save_checkpoint({"global_step": 20}, copied / "checkpoints" / "epoch0019-step0000020.ckpt")
    assert told == [("pruned", "epoch0003-step0000004.ckpt"), ("checkpoint", "epoch0019-step0000020.ckpt")]


def test_of_several_runs_the_one_that_began_last_goes_on(words, whole_run, monkeypatch):
    words = [*words, "seed=23", "trainer.checkpoint.every=0s"]
    older, newer = (killed(words, step, monkeypatch, resume="never") for step in (2, 3))
    os.utime(newer.dir / "audit.json", (0, 0))
    assert unfinished_attempt(compose(overrides=words), "auto").dir.name == newer.id != older.id


@pytest.mark.parametrize("which", [3, None, 2.5])
def test_what_is_neither_a_name_nor_a_path_nor_a_run_is_no_run(which, words):
    with pytest.raises(DataMissingError, match="there is no run"):
        Run.open(which)


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


def spoilt(kept):
    """What is wrong -> the checkpoint with that."""
    weights, (optimizer,), fit = kept["state_dict"], kept["optimizer_states"], kept["loops"]["fit_loop"]
    where = "epoch_loop.batch_progress"
    lacking = {f"no {name}": {k: v for k, v in kept.items() if k != name}
               for name in ("state_dict", "epoch", "global_step", "optimizer_states", "lr_schedulers", "loops")}
    changed = {
        "loops empty": {"loops": {}}, "loops None": {"loops": None}, "fit_loop empty": {"loops": {"fit_loop": {}}},
        "a counter gone": {"loops": {"fit_loop": {**fit, where: {**fit[where], "total": {}}}}},
        "not whether it is the last": {"loops": {"fit_loop": {**fit, where: {**fit[where], "is_last_batch": None}}}},
        "optimizer empty": {"optimizer_states": [{}]}, "no optimizer": {"optimizer_states": []},
        "no groups": {"optimizer_states": [{**optimizer, "param_groups": []}]},
        "state a list": {"optimizer_states": [{**optimizer, "state": []}]},
        "weights are numbers": {"state_dict": dict.fromkeys(weights, 1)},
        "names are numbers": {"state_dict": dict(enumerate(weights.values()))},
        "weights empty": {"state_dict": {}}, "weights None": {"state_dict": None},
    }
    return lacking | {what: {**kept, **change} for what, change in changed.items()}


def test_p50_a_checkpoint_that_no_training_can_go_on_from_is_refused_before_anything_is_recorded_of_it(words, whole_run):
    """A finished run had become a failed one without metrics, and branches had left folders."""
    path, longer = whole_run.dir / "checkpoints" / "spoilt.ckpt", [*words[:-1], "trainer.max_epochs=5"]
    before, folders = (whole_run.dir / "audit.json").read_bytes(), set(Path("logs").iterdir())
    kept = torch.load(whole_run.weights, weights_only=True)
    try:
        torch.save(kept, path)
        assert readable_checkpoint(path)
        for what, checkpoint in spoilt(kept).items():
            torch.save(checkpoint, path)
            assert not readable_checkpoint(path), what
            asked = [lambda: unfinished_attempt(compose(overrides=longer), str(path)),
                     lambda: branch_checkpoint(RunDirectory.open(path), 5)]
            if what in ("no epoch", "loops None", "optimizer empty", "names are numbers"):
                asked += [lambda: train(overrides=longer, resume=str(path)), lambda: train(overrides=longer, fork=str(path))]
            for ask in asked:
                with pytest.raises(DamagedFileError, match="checkpoint"):
                    ask()
            assert (whole_run.dir / "audit.json").read_bytes() == before and set(Path("logs").iterdir()) == folders, what
            if "weights" in what or "names" in what or "state_dict" in what:
                with pytest.raises(DamagedFileError, match="no weights in this checkpoint"):
                    predict(path)
    finally:
        path.unlink()


@pytest.mark.parametrize("end", ["\nabc", "\n"])
def test_half_a_configuration_is_told_in_a_sentence(words, whole_run, end):
    half = Path(shutil.copytree(whole_run.dir, Path("logs") / "half"))
    (half / "config.yaml").write_text((half / "config.yaml").read_text().partition("\nfit:")[0] + end)
    before = (half / "audit.json").read_bytes()
    asked = (lambda: Run.open(half).config, lambda: evaluate(half), lambda: tampering(Run.open(half)),
             lambda: train(overrides=words, resume="half"))
    for ask in asked:
        with pytest.raises(DamagedFileError, match="the configuration of the run cannot be read"):
            ask()
    assert (half / "audit.json").read_bytes() == before
    shutil.rmtree(half)


def test_a_line_of_the_ledger_that_somebody_wrote_is_no_trace(words, whole_run):
    """What looks for tampering ended with a `KeyError` at a line without an event."""
    ledger = whole_run.dir.parent / "audit.jsonl"
    before = ledger.read_bytes()
    try:
        ledger.write_bytes(before + b'{"seq": 7}\n{"event": "finish"}\n')
        assert tampering(whole_run) == []
    finally:
        ledger.write_bytes(before)


def test_words_of_a_run_are_those_that_it_was_given(whole_run, tmp_path):
    """A line end of another script in a value cut it in two."""
    copy = Path(shutil.copytree(whole_run.dir, tmp_path / "copy"))
    words = ["trainer=ci_fast", "data.root=/a\u2028b", "run_id=x\x0by"]
    (copy / "overrides.txt").write_text("".join(f"{word}\n" for word in words))
    assert Run.open(copy).overrides == words
    (copy / "overrides.txt").write_text("")
    assert Run.open(copy).overrides == []


def test_a_branch_is_of_the_model_whose_weights_it_begins_with(words, whole_run):
    """PyTorch had said so, with three thousand letters and exit code 1, after the data had been worked through."""
    with pytest.raises(ConfigError, match="trained PosteriorModel, its branch is to train EncoderModel"):
        train(overrides=[*words[:-1], "trainer.max_epochs=4", "model=encoder"], fork=whole_run)
    with pytest.raises(ConfigError, match="trained PosteriorModel, its branch"):
        members([*words[:-1], "trainer.max_epochs=4", "model=posterior,encoder"], fork=whole_run)
    with pytest.raises(ConfigError, match="weights do not fit this model") as refused:
        train(overrides=[*words[:-1], "trainer.max_epochs=4", "model.outlier_scales=[30.0]", "model.components=3"], fork=whole_run)
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2


def test_a_branch_goes_on_after_the_epochs_that_its_run_has_made_with_and_without_validations(words):
    """What was saved after the last epoch of a run without validations had counted it twice: one epoch more was refused as none."""
    for more in ([], ["trainer.limit_val_batches=0"]):
        run = train(overrides=[*words[:-1], "trainer.max_epochs=1", *more])
        with pytest.raises(ConfigError, match="has seen 1 epochs and the branch ends after 1"):
            branch_checkpoint(run, 1)
        branch = train(overrides=[*words[:-1], "trainer.max_epochs=2", *more], fork=run)
        assert set(branch.history["epoch"].dropna()) == {1} and branch.history["step"].min() > run.history["step"].max()
