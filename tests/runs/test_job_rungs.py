"""The submission job when training fails, labels are missing or settings contradict each other: never silently the mean.

`tests/runs/failing_training.py` does the same at full size, with trainings that really fail, and prints a table of scores.
"""

import importlib
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pandas as pd
import pytest

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, PreflightError, SpectraMindError
from spectramind_nb.core.quantities import duration_s
from spectramind_nb.observations.layout import Visit
from spectramind_nb.runs import job as job_module
from spectramind_nb.runs import job_attempt, job_fallbacks, job_training
from spectramind_nb.runs.job import submit
from spectramind_nb.runs.job_outcome import Outcome
from spectramind_nb.runs.job_queue import Queue
from spectramind_nb.runs.job_settings import job_settings
from spectramind_nb.runs.job_views import View
from spectramind_nb.runs.job_workers import Answer
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.submission import read, validate
from spectramind_nb.runs.training import train
from spectramind_nb.simulation.dataset import simulate

TIMES = {"budget": "30m", "reserve": "15s", "predict": "1m", "train": "2m"}


class AtOnce:
    """A pool whose work is done here and now."""

    def __init__(self, maker, settings, size, timeout_s, threads=1):
        module, _, name = maker.partition(":")
        with patch.dict(os.environ):  # a worker hides GPUs from its own process, and here that is ours
            self.made = getattr(importlib.import_module(module), name)(json.loads(json.dumps(settings)))

    def work(self, next_task, left_s):
        while left_s() > 0 and (task := next_task()) is not None:
            try:
                yield Answer(task, "done", self.made(json.loads(json.dumps(task))), "", 0.1)
            except Exception as error:
                yield Answer(task, "failed", None, job_fallbacks.reason(error), 0.1)


@pytest.fixture
def quick(here, short_root, tmp_path, whole_run, monkeypatch):  # that run first: it is everybody's, and sees what this machine has
    """A job without processes of its own on the small data set; `trains` says what becomes of each training."""
    began = time.time()
    for module in (job_attempt, job_module):
        monkeypatch.setattr(module, "WorkerPool", AtOnce)
    monkeypatch.setattr(job_attempt, "process_start", lambda: began)  # a worker of this suite may be older than the budget
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(trains=None, words=(), profile="ci_fast", root=short_root, trained=None, place=tmp_path, frames=True, **settings):
        asked = []

        def command(words, limit_s, gpus=True):
            asked.append((compose(overrides=words[1:-2]), limit_s, gpus))  # raises for what does not compose, as the command does
            (trains or refuses)(words[1:-2])

        monkeypatch.setattr(job_training, "command", command)
        if not frames:  # nor are there test planets to predict
            seen = {"train": [Visit(1)], "test": []}
            for module in (job_module, job_training):
                monkeypatch.setattr(module, "work_through", lambda job, split, *_, **__: SimpleNamespace(done=seen[split]))
        words = [f"data.root={root}", "data.batch_size=2", *words]
        outcome = submit(trained, words, profile, place / "submission.csv", {**TIMES, **settings})
        assert validate(outcome.path).planets == len(outcome.made)
        return outcome, asked

    return run


def refuses(words):
    raise SpectraMindError("spectramind train failed: CUDA out of memory")


def only_modest(words):
    """The first training fails, the second is one."""
    if "trainer=defaults" not in words:
        refuses(words)
    train(None, [*words, "trainer.max_epochs=1"], "never")


def rung_of(outcome):
    (rung,) = set(outcome.made.values())
    return rung


def is_mean(outcome):
    return [planet for planet, row in read(outcome.path).set_index("planet_id").iterrows() if row.iloc[:283].nunique() == 1]


def test_a_training_that_fails_is_tried_again_more_modestly(quick, capsys):
    outcome, asked = quick(only_modest)
    assert rung_of(outcome) == "modest" and not is_mean(outcome) and outcome.notes == []
    (first, _, sees_gpus), (second, _, blind) = asked
    assert first.launch.choices["trainer"] == "ci_fast" and sees_gpus and not blind
    assert (second.trainer.accelerator, second.trainer.devices, second.trainer.precision) == ("cpu", 1, "32-true")
    assert second.trainer.max_epochs == 10 and second.trainer.enable_checkpointing and second.data.batch_size == 2
    loud = [line for line in capsys.readouterr().out.splitlines() if line.startswith("STEP DOWN")]
    assert loud == ["STEP DOWN: a model trained as asked: spectramind train failed: CUDA out of memory."]
    assert str(outcome).startswith("NOT AS ASKED") and "out of memory" in str(outcome)
    assert "2 by a model trained more modestly" in str(outcome)
    said = json.loads(outcome.path.with_name("job.json").read_text())["rungs"]
    assert said == [{"rung": "asked", "planets": 0, "reason": "spectramind train failed: CUDA out of memory."},
                    {"rung": "modest", "planets": 2, "reason": ""}]


def test_where_nothing_can_be_trained_the_prepared_model_predicts(quick, short_root):
    outcome, asked = quick()
    assert rung_of(outcome) == "prepared" and not is_mean(outcome) and len(asked) == 2
    assert set(outcome.reasons) == {"asked", "modest"} and str(outcome).startswith("NOT AS ASKED")
    fits, _ = quick(place=outcome.path.parent / "fits", words=["model=encoder"])
    assert rung_of(fits) == "prepared"  # of an encoder without training nothing is to be had: the model with a closed form answers
    assert read(fits.path).equals(read(outcome.path))


def test_where_no_model_can_be_made_the_fits_meet_a_population(quick, monkeypatch):
    def broken(*_):
        raise RuntimeError("no model today")

    monkeypatch.setattr(job_fallbacks, "predict_prepared", broken)
    outcome, _ = quick()
    assert rung_of(outcome) == "fits" and not is_mean(outcome)
    assert outcome.reasons["prepared"] == "RuntimeError: no model today"
    monkeypatch.setattr(job_fallbacks, "predict_from_fits", broken)
    outcome, _ = quick(place=outcome.path.parent / "worse")
    assert rung_of(outcome) == "mean" and set(outcome.reasons) == {"asked", "modest", "prepared", "fits"}
    assert str(outcome).startswith("NOT AS ASKED") and len(is_mean(outcome)) == 2


@pytest.mark.parametrize("labels", ["none", "empty cell", "no row", "text", "one"])
def test_labels_that_cannot_be_used_cost_only_themselves(quick, short_root, tmp_path, labels):
    root = shutil.copytree(short_root, tmp_path / "root", copy_function=os.link)
    table = pd.read_csv(short_root / "train.csv")
    (root / "train.csv").unlink()
    if labels == "empty cell":
        table.iloc[0, 5] = float("nan")
    elif labels == "text":
        (root / "train.csv").write_text("no table\n")
    else:
        table = table[:1] if labels == "one" else table[1:]
    if labels in ("empty cell", "no row", "one"):
        table.to_csv(root / "train.csv", index=False)
    outcome, asked = quick(root=root)
    usable = labels in ("empty cell", "no row")
    assert rung_of(outcome) == ("prepared" if usable else "fits") and not is_mean(outcome) and outcome.notes == []
    assert len(asked) == (0 if labels in ("none", "text") else 2)
    assert usable or outcome.reasons


@pytest.mark.parametrize(("profile", "words", "settings"), [
    ("kaggle_safe", [], {"train": "10m"}),  # as long as the profile's reserve: what made a submission of means
    ("kaggle_safe", [], {"train": "20s"}),
    ("kaggle_safe", [], {"train": "9h", "budget": "20h", "predict": "1h"}),  # longer than the profile's wall
    ("ci_fast", [], {"train": "1h", "budget": "9h"}),  # the same: its 20 minutes are locked
    ("defaults", ["trainer.wall.reserve=5m"], {"train": "5m"}),
    ("defaults", ["trainer.wall.budget=1h", "trainer.wall.anchor=1000000000"], {}),  # a clock that has run out
    ("defaults", ["trainer.storage.budget=900TB"], {}),
    ("ci_fast", ["run_id=mine"], {}),
])
def test_settings_that_contradict_each_other_are_adapted_before_training(quick, profile, words, settings):
    outcome, asked = quick(None, words, profile, frames=False, **settings)
    config, limit_s, _ = asked[0]  # it composed
    wall, until_s = config.trainer.wall, duration_s(settings.get("train", TIMES["train"]))
    budget_s, reserve_s = duration_s(wall.budget), duration_s(wall.reserve)
    assert config.launch.choices["trainer"] == profile and wall.anchor == "process" and config.trainer.enable_checkpointing
    assert budget_s > reserve_s and until_s * 0.99 <= limit_s <= 1.5 * until_s + 11 or outcome.adapted
    assert ("900TB" in "".join(words)) == any("900TB" in what for what in outcome.adapted)


@pytest.mark.parametrize(("profile", "words", "why"), [
    ("nope", [], "there is no trainer profile 'nope'"), ("t4x2", [], "2 GPUs are asked for"), ("eval_only", [], "trains nothing"),
    ("ci_fast", ["trainer.accelerator=gpu"], "GPU"), ("ci_fast", ["trainer.max_epoch=3"], "max_epoch"),
    ("kaggle_safe", ["trainer.guards.loss=false"], "locks it"),
])
def test_what_cannot_be_trained_here_is_told_before_the_long_work(quick, capsys, profile, words, why):
    outcome, asked = quick(None, words, profile, frames=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("STEP DOWN: a model trained as asked: ") and why in first
    assert len(asked) == 1 and asked[0][0].launch.choices["trainer"] == "defaults" and "asked" in outcome.reasons


def test_what_is_wrong_beside_the_profile_is_refused(quick, tmp_path):
    with pytest.raises(ConfigError, match="no key 'roof'"):
        quick(None, ["data.roof=x"])
    assert not (tmp_path / "submission.csv").exists()
    for wrong in ({"train": "soon"}, {"visit_timeout": None}, {"ballast": "much"}, {"plain_cost": -1}, {"workers": 0}, {"modest": 3},
                  {"modest": "trainer=ci_fast"}, {"modest": {"trainer": "ci_fast"}}, {"unlabelled": {"depth": 0, "sigma": 1}}):
        with pytest.raises(ConfigError, match=f"job.{next(iter(wrong))} must be"):
            job_settings(wrong)


def test_a_file_that_cannot_be_written_is_one_sentence(quick, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="the submission cannot be written"):
        quick(place=tmp_path / "file")


def test_a_given_run_that_is_damaged_is_replaced_by_one_of_our_own(quick, whole_run, tmp_path):
    moved = shutil.copytree(whole_run.dir, tmp_path / "moved")
    for path in (moved / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    outcome, asked = quick(only_modest, trained=moved)
    assert rung_of(outcome) == "modest" and {"given", "asked"} == set(outcome.reasons) and len(asked) == 2


def test_a_prediction_that_fails_on_the_gpu_is_made_on_the_processor(quick, whole_run, monkeypatch, capsys):
    def predict(self, words=(), *rest):
        if "trainer.accelerator=cpu" not in words:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return whole(self, words, *rest)

    whole = Run.predict
    monkeypatch.setattr(Run, "predict", predict)
    outcome, asked = quick(trained=whole_run)
    assert rung_of(outcome) == "given" and not asked and not outcome.reasons and not str(outcome).startswith("NOT")
    assert "once more on the processor: RuntimeError: CUDA error" in capsys.readouterr().out
    monkeypatch.setattr(Run, "predict", lambda *_: 1 / 0)
    outcome, _ = quick(trained=whole_run, place=outcome.path.parent / "never")
    assert rung_of(outcome) == "fits" and "ZeroDivisionError" in outcome.reasons["given"]


def test_each_answer_looks_through_the_folders_once_however_many_planets_it_has(quick, whole_run, monkeypatch):
    """It reads every planet's folder, at the end of a job, when time is short."""
    looks, photometry = [], Queue.photometry
    monkeypatch.setattr(Queue, "photometry", lambda queue: looks.append(queue) or photometry(queue))
    outcome, _ = quick(trained=whole_run)
    assert rung_of(outcome) == "given" and set(outcome.photometry.values()) == {"full"} and len(looks) == 2  # the fits, then the run


def test_a_checkpoint_of_a_training_that_failed_late_is_used_and_the_failure_told(quick):
    def dies_late(words):
        train(None, words, "never")
        raise SpectraMindError("spectramind train was ended by signal SIGKILL, often for lack of memory")

    outcome, asked = quick(dies_late)
    assert rung_of(outcome) == "asked" and len(asked) == 1 and "best of its checkpoints is used" in outcome.reasons["asked"]
    assert str(outcome).startswith("NOT ALL AS ASKED")


def test_another_attempt_keeps_what_is_better_and_only_if_the_same_is_asked(quick, whole_run, monkeypatch):
    first, _ = quick(only_modest)
    made = first.path.read_bytes()
    again, asked = quick(refuses)  # a restart: nothing is trained again
    assert not asked and again.run == first.run and rung_of(again) == "modest" and again.path.read_bytes() == made
    assert again.reasons == first.reasons
    monkeypatch.setattr(Run, "predict", lambda *_: 1 / 0)
    worse, _ = quick(refuses)
    assert rung_of(worse) == "modest" and worse.path.read_bytes() == made  # rows are replaced by better ones only
    other, asked = quick(refuses, ["seed=7"])
    assert len(asked) == 2 and rung_of(other) == "prepared"  # something else was asked for: that is no restart


def cut_short(words):
    """A training that its wall stopped, after an epoch."""
    words = [word for word in words if "wall" not in word]  # this process may be older
    audit = train(None, [*words, "trainer.max_epochs=1"], "never").dir / "audit.json"
    audit.write_text(audit.read_text().replace('"finished"', '"wall"'))


def test_what_a_hasty_attempt_trained_is_no_model_for_one_that_has_time(quick):
    first, _ = quick(cut_short, budget="5m")
    again, asked = quick(cut_short, budget="5m")
    assert not asked and again.run == first.run and "training gets" in "".join(again.adapted) and again.adapted == first.adapted
    longer, asked = quick(cut_short)
    assert len(asked) == 1 and longer.run != first.run
    again, asked = quick(cut_short, budget="5m")
    assert not asked and again.run == longer.run


def test_what_was_trained_on_other_labels_is_not_used_again(quick, short_root, tmp_path):
    root = shutil.copytree(short_root, tmp_path / "root", copy_function=os.link)
    first, _ = quick(only_modest, root=root)
    labels = pd.read_csv(root / "train.csv")
    labels.iloc[0, 5] *= 1.01
    (root / "train.csv").unlink()
    labels.to_csv(root / "train.csv", index=False)
    again, asked = quick(only_modest, root=root)
    assert len(asked) == 2 and again.run != first.run


def test_jobs_that_share_a_cache_leave_each_other_their_folders(quick, monkeypatch, tmp_path):
    """A second notebook took away what the first one saw, and the run that the first one had trained had other planets as its data."""
    first, _ = quick(only_modest)
    root = Path(Run.open(first.run).config.data.root)
    before, folders = sorted(root.rglob("*")), []
    for module in (job_module, job_training):
        monkeypatch.setattr(module, "View", lambda folder, challenge: folders.append(folder) or View(folder, challenge))
    for place in ("one", "two"):
        quick(place=tmp_path / place)
    assert len(set(folders)) == len(folders) == 6 and root not in map(Path.absolute, folders)
    assert sorted(root.rglob("*")) == before and not folders[1].exists()  # what only prediction looked at is gone


def test_a_data_set_of_light_curves_is_as_good(quick, tmp_path):
    root = simulate(tmp_path / "curves", train=3, test=1, seed=2, short=True, level="lightcurves")
    outcome, _ = quick(root=root)
    assert rung_of(outcome) == "prepared" and outcome.counts() == {"full": 1} and not is_mean(outcome) and not outcome.failed


def test_no_time_is_said_and_not_a_success(quick, monkeypatch):
    monkeypatch.setattr(job_attempt, "process_start", lambda: time.time() - 7200)
    outcome, _ = quick()
    assert rung_of(outcome) == "mean" and str(outcome).startswith("NOT AS ASKED") and "no time was left" in outcome.reasons["fits"]


def test_success_reads_as_one():
    good = Outcome(Path("s.csv"), made={1: "asked"}, photometry={1: "full"})
    assert str(good) == "s.csv: 1 planets, 1 by a model trained as asked (1 full), 0 of 0 s used"
    assert str(Outcome(Path("s.csv"), made={1: "asked", 2: "fits"})).startswith("NOT ALL AS ASKED: ")


def python(monkeypatch, tmp_path, text):
    """Let `python -m spectramind_nb` be this."""
    (tmp_path / "spectramind_nb").mkdir(parents=True)
    (tmp_path / "spectramind_nb" / "__main__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(monkeypatch, tmp_path):
    """A loader's process that outlives its parent holds the output open: reading to its end would wait for it."""
    child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    python(monkeypatch, tmp_path, child + "open('pid', 'w').write(str(p.pid)); print('so far', flush=True); time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(SpectraMindError, match="spectramind train had not ended after 2 s"):
        job_fallbacks.command(["train"], 2)
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() - began < 10
        time.sleep(0.05)


@pytest.mark.parametrize(("text", "why"), [
    ("import os; print('epoch 1', flush=True); os.kill(os.getpid(), 9)", "was ended by signal SIGKILL, often for lack of memory"),
    ("import sys; print('error: no room. Make some.'); print('later'); sys.exit(3)", "failed: no room. Make some."),
    ("raise MemoryError('all gone')", "failed: MemoryError: all gone"),
    ("import os; assert os.environ['CUDA_VISIBLE_DEVICES'] == ''; raise ValueError('no GPU is seen')", "ValueError: no GPU is seen"),
])
def test_a_command_that_fails_says_why(monkeypatch, tmp_path, text, why):
    python(monkeypatch, tmp_path, text)
    with pytest.raises(SpectraMindError) as caught:
        job_fallbacks.command(["train"], 60, gpus=False)
    assert why in str(caught.value)


def test_a_training_that_is_really_killed_is_done_again_by_the_job_itself(script, short_root, stores, tmp_path):
    """One case of the script, with all its processes."""
    found = script("runs/failing_training.py").one_job(tmp_path / "job", short_root, "killed")
    assert found["rc"] == 0 and found["told"] and found["reached"] == {"modest": 2}, found
    assert "SIGKILL" in found["job"]["reasons"]["asked"] and found["job"]["notes"] == []
