"""What the launchpad makes of the runs beside it: which go on, which can answer what, and what they tell about the next one."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from spectramind_nb.apps import jobs
from spectramind_nb.apps import launchpad as launchpad_room
from spectramind_nb.apps.choice import Choice, composed, faults_of, limits_in_words, words_of
from spectramind_nb.apps.comparison_page import comparison_page
from spectramind_nb.apps.estimate import RunTiming, addresses, estimate, steps_of
from spectramind_nb.apps.launchpad import JobWatcher, launchpad
from spectramind_nb.apps.launchpad_actions import ACTIONS, follow, put_submission, show_progress, watch_run
from spectramind_nb.apps.launchpad_state import PageState, choose, look_around, why_not
from spectramind_nb.apps.launchpad_views import progress_html
from spectramind_nb.apps.past_runs import hand_in, output_path, recent_runs, run_timings
from spectramind_nb.core.config_groups import config_dir
from spectramind_nb.core.configuration import pretraining_config
from spectramind_nb.core.errors import PreflightError
from spectramind_nb.records import audit
from spectramind_nb.runs import submission
from spectramind_nb.runs.comparison import compare
from spectramind_nb.runs.run import Run

PATIENCE_S = 120


@pytest.fixture
def past(workspace):
    """Make a run of a choice as one leaves it: `outcome`, a diary of some steps half a second apart, checkpoints or none."""

    def made(name, words, outcome="interrupted", steps=0, checkpoints=(), **more):
        config, folder = composed(words), workspace / "logs" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(config.yaml())
        record = {"outcome": outcome, "overrides": words, "config_hash": config.hash, "started": "2026-01-01T00:00:00+00:00"}
        (folder / "audit.json").write_text(json.dumps(record | more))
        lines = [{"event": "start"}, {"event": "train start", "step": 0}] + [{"event": "step"}] * steps
        moments = (f"2026-01-01T00:{n // 120:02}:{n / 2 % 60:06.3f}+00:00" for n in range(len(lines)))
        (folder / "events.jsonl").write_text("".join(f"{json.dumps({'time': at, **line})}\n" for at, line in zip(moments, lines)) + '{"cut')
        submission.write_baseline(folder / "submission.csv", [1, 2], 0.01, 0.002)
        for checkpoint in checkpoints:
            (folder / "checkpoints" / f"{checkpoint}.ckpt").touch()
        return folder

    return made


def test_words_pasted_on_one_line_are_read_as_a_shell_reads_them(workspace):
    assert words_of("spectramind train trainer=ci_fast 'data.root=/my data' seed=7")[1:] == ["data.root=/my data", "seed=7"]
    for one in ("data.root=/my data", "a={x: 1, y: 2}", "# seed=1 seed=2", "max epochs 3", "a='"):
        assert words_of(one) == [one]
    assert faults_of(Choice(text="trainer.max_epochs=3 seed=7")) == []
    fault, = faults_of(Choice(text="seed=7 trainer.max_epoch=3"))
    assert (fault.line, fault.word) == (1, "trainer.max_epoch=3")
    pad = launchpad()
    pad.widgets.overrides.value = "seed=7 trainer.max_epoch=3"
    pad.widgets.suggestions[0].click()
    assert pad.widgets.overrides.value.splitlines() == ["seed=7", "trainer.max_epochs=3"] and not pad.state.faults
    pad.widgets.overrides.value += "\nspectramind train trainer=ci_fast data=ariel2024 data.root=/x"
    assert pad.widgets.overrides.value.splitlines()[2:] == ["data.root=/x"]
    assert (pad.widgets.menus["profile"].value, pad.widgets.menus["data"].value) == ("ci_fast", "ariel2024")


@pytest.mark.parametrize("words, steps, told", [
    ([], 10, "2 epochs"), (["trainer.max_epochs=0"], 0, "no training"),
    (["trainer.max_epochs=-1", "trainer.max_steps=100"], 100, "100 steps"),
    (["trainer.max_epochs=null", "trainer.max_steps=100"], 100, "100 steps"),
    (["trainer.max_steps=3"], 3, "2 epochs or 3 steps"), (["trainer.max_epochs=-1", "trainer.wall.budget=1h"], math.inf, "until the wall"),
    (["trainer.limit_train_batches=0"], 0, "2 epochs"),
])
def test_an_estimate_counts_what_ends_the_run(words, steps, told, workspace):
    """Without a number of epochs there were no steps, or -63."""
    config = composed(["trainer=defaults", "trainer.max_epochs=2", "data.simulate.train=80", *words])
    assert steps_of(config, 80) == steps and f"devices 1 · {told} · " in limits_in_words(config.trainer)
    known = estimate(config)
    assert known.seconds is not None and math.isfinite(known.seconds) and math.isfinite(known.run_bytes)


def test_a_run_whose_last_line_was_cut_is_listed(past, workspace):
    """A disk that was full for a moment: the line ended every look at the folder, or was the best score of all."""
    folder = past("cut", ["trainer=defaults"])
    for last in ("1,2,12,-", "1,2,12,0", "1,2"):
        (folder / "metrics.csv").write_text(f"attempt,epoch,step,val/score\n1,0,4,-2\n1,1,8,-1\n{last}")
        assert [run.score for run in recent_runs(workspace / "logs")] == [-1.0]


def test_who_waits_for_a_page_does_not_wait_for_ever(workspace, monkeypatch):
    """What went wrong in its thread left it busy."""
    def fails(state):
        raise RuntimeError("a defect")

    monkeypatch.setattr(launchpad_room, "follow", fails)
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    watcher = JobWatcher(SimpleNamespace(busy=True, elsewhere=False), lambda: None)
    watcher.attend()
    assert watcher.idle.wait(5)


def test_a_job_begins_on_a_disk_that_cannot_lock(workspace, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(jobs.fcntl, "flock", refuse)
    with jobs._printed_to(workspace / "logs" / "said.txt") as file:
        file.write(b"begun")
    assert (workspace / "logs" / "said.txt").read_bytes() == b"begun"


def test_an_interrupted_run_is_a_measure_too(past, workspace):
    words = ["trainer=defaults", "trainer.max_epochs=300"]
    config = composed(words)
    past("slow", words, steps=100)
    measure, = run_timings(recent_runs(workspace / "logs"))
    assert (measure.steps, measure.training_s) == (100, 50.0)
    known = estimate(config, [measure])
    assert known.basis == "measured in run slow" and known.cache_bytes == 0
    assert known.seconds == pytest.approx(0.5 * steps_of(config, 48), abs=10)
    past("cut", words)  # it never came to a step
    assert [timing.steps for timing in run_timings(recent_runs(workspace / "logs"))].count(0) == 1


def test_buttons_that_cannot_work_say_why(past):
    past("bare", ["trainer=ci_fast"], outcome="finished")
    pad = launchpad()
    why = pad.widgets.parts["answer"].value
    for name, words in (("Predict", "kept no checkpoint"), ("Compare", "no other run")):
        assert pad.widgets.buttons[name].disabled and words in pad.widgets.buttons[name].tooltip and f"{name}: " in why and words in why
    ACTIONS["Predict"](pad.state)
    assert pad.state.asked.phase == "not possible" and "kept no checkpoint" in pad.state.asked.message
    past("half", ["trainer=defaults"], checkpoints=["best", "last"])
    look_around(pad.state)
    pad.widgets.picked.options = [(run.line, run.id) for run in pad.state.runs]
    pad.widgets.picked.value = "half"
    assert not pad.widgets.buttons["Predict"].disabled and "did not finish" in pad.widgets.buttons["Replay"].tooltip


@pytest.mark.parametrize("name, kept, change, goes_on", [
    ("branch", "last", {"snapshot": "best.ckpt", "parent": "trunk"}, False), ("moved", "last", {"config": {"data": {"root": "/a"}}}, False),
    ("nan", "last", {"outcome": "failed", "precision": {}}, False), ("tried", "last", {"outcome": "failed", "attempt": 2}, True),
    ("half", "best", {}, True),
])
def test_train_reads_resume_where_the_command_would_continue(past, name, kept, change, goes_on):
    """No branch and no run of other data; but one whose last start failed before it trained, and one that kept only its best."""
    path, state = past(name, [f"run_id={name}"], checkpoints=[kept]) / "audit.json", PageState()
    known = json.loads(path.read_text())
    path.with_name("audit.1.json").write_text(json.dumps({**known, "precision": {}}))
    path.write_text(json.dumps(known | change))
    look_around(state)
    choose(state, Choice(text=f"run_id={name}"))
    assert (state.continues is not None) == goes_on
    choose(state, Choice(text=f"run_id={name} data.root=/a"))
    assert (state.continues is not None) == (name == "moved")


def test_a_fallback_that_is_handed_in_is_not_called_done(past, workspace):
    past("half", ["trainer=defaults"], checkpoints=["best", "last"])
    state = PageState()
    choose(state, Choice())
    look_around(state)
    put_submission(state)
    assert state.asked.phase == "no prediction" and (workspace / "submission.csv").is_file()
    assert "training mean" in state.asked.message and "Predict makes one" in state.asked.message


def test_any_number_of_runs_is_beside_the_selected_one(past):
    for name, words in (("one", []), ("two", ["seed=7"]), ("three", ["seed=8"])):
        past(name, words)
    state = PageState(selected="one", others=("one", "three", "gone", "two"))
    look_around(state)
    assert [run.id for run in state.compared] == ["one", "three", "two"] and why_not(state, "Compare") == ""
    state.others = ("one",)
    assert why_not(state, "Compare") == "Choose other runs to compare with."


def test_commands_find_the_runs_that_the_page_lists_wherever_they_lie(past, workspace, monkeypatch):
    for name in ("one", "two"):
        past(name, [], outcome="finished", checkpoints=["best"])
    shutil.move(workspace / "logs", workspace / "far" / "logs")
    asked, state = [], PageState(selected="one", others=("two",))
    monkeypatch.setattr(jobs, "start", lambda words, output=None: asked.append(words))
    choose(state, Choice(text=f"paths.root={workspace / 'far'}"))
    look_around(state)
    for button in ("Predict", "Report", "Replay", "Compare"):
        ACTIONS[button](state)
        assert asked[-1][0] == button.lower() and Run.open(asked[-1][1]).dir == workspace / "far" / "logs" / "one"
        state.asked = jobs.Task()
    assert Run.open(asked[-1][2]).id == "two"


def test_a_run_that_has_just_begun_is_not_said_to_have_ended(past):
    past("one", [])
    past("long", ["seed=7"])
    state = PageState(selected="long", others=("one",))
    look_around(state)
    state.runs = [replace(run, outcome="running", configured=False) if run.id == "long" else run for run in state.runs]
    for button in ("Predict", "Report", "Compare", "Replay"):
        assert why_not(state, button) == "long is going on and has not got so far yet."
    state.runs = [replace(run, outcome="failed") for run in state.runs]
    assert why_not(state, "Compare") == "long ended before it was configured."


def test_half_a_configuration_and_a_record_that_is_none_cost_the_page_nothing(past):
    """A configuration was read while its run wrote it; the thread that looks after runs ended with a trace, or the page did not come up."""
    half, whole = past("half", ["trainer=ci_fast"], steps=4), past("whole", ["trainer=ci_fast"], steps=4)
    text = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(text.partition("\nfit:")[0] + "\nabc")
    (past("other", ["trainer=ci_fast"]) / "audit.json").write_text("[]")
    (half / "events.jsonl").write_text("".join(f"{json.dumps({'attempt': 1, **json.loads(line)})}\n"
                                               for line in (half / "events.jsonl").read_text().splitlines()[:2]))
    pad = launchpad("ci_fast")
    assert {run.id for run in pad.state.runs} == {"half", "whole"} and [timing.steps for timing in run_timings(pad.state.runs)] == [4]
    show_progress(pad.state, half)
    progress = pad.state.progress
    assert progress.epochs is None and "epoch 0" in progress_html(pad.state)
    (half / "config.yaml").write_text(text)
    with open(half / "events.jsonl", "a") as diary:
        diary.write('{"event": "end", "attempt": 1, "time": "2026-01-01T00:01:00+00:00"}\n')
    assert progress.update() and progress.epochs == 1
    shutil.rmtree(whole)


def test_who_follows_a_talkative_training_looks_at_all_runs_as_well(monkeypatch):
    looks, state = [], SimpleNamespace(busy=True, elsewhere=[])
    monkeypatch.setattr(launchpad_room, "follow", lambda state: True)  # each look brings news
    monkeypatch.setattr(launchpad_room, "look_around", looks.append)
    monkeypatch.setattr(JobWatcher, "CLOCK_S", 0.05)
    monkeypatch.setattr(JobWatcher, "INTERVAL_S", 0.01)
    watcher = JobWatcher(state, lambda: setattr(state, "busy", len(looks) < 3 and time.monotonic() < until))
    until = time.monotonic() + 10
    watcher.attend()
    assert watcher.idle.wait(PATIENCE_S) and len(looks) == 3


def test_runs_without_metrics_are_named_on_the_page_of_a_comparison(past):
    found = compare([past("one", []), past("two", ["seed=7"]), past("three", ["seed=8"])])
    assert "metrics, of each run on its own validation planets; one ended before its final validation, or goes on; two ended" in str(found)
    page = comparison_page(found)
    assert all(f"{name} has no metrics" in page for name in ("one", "two", "three"))
    assert "only the metrics can be compared; one: this run kept no checkpoint" in page and "<th>seed</th>" in page


def test_runs_of_one_name_are_told_apart_by_their_folders(past):
    folders = [str(past("elsewhere/first", [])), str(past("first", ["seed=7"]))]
    for folder, score in zip(folders, ("0.1", "0.2")):
        Path(folder, "audit.json").write_text(json.dumps({"outcome": "finished", "metrics": {"val/score": float(score)}}))
    found = compare(folders)
    assert found.changed.loc["seed"].to_dict() == {folders[0]: 42, folders[1]: 7}
    assert found.metrics.loc["val/score"].to_dict() == {folders[0]: 0.1, folders[1]: 0.2} and found.judged["run"].tolist() == folders[1:]
    assert f"against {folders[0]}" in str(found) and f"Against {folders[0]}" in comparison_page(found)


def test_a_stage_that_counts_its_visits_moves_a_bar(workspace):
    lines = ["note: x", "fitting train (2 done): 3/6, about 4 s left"]
    state = PageState(training=jobs.Task("running", "", jobs.CommandProcess(["train"], 1), lines))
    assert "max='6' value='3'" in progress_html(state) and "fitting train (2 done): 3 of 6" in progress_html(state)
    state.training.lines.append("epoch 1/40: train/loss 0.5")
    assert "value='3'" not in progress_html(state)


def test_the_same_run_is_not_started_twice(workspace, monkeypatch):
    output = output_path(workspace / "logs", "f" * 64, None)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **more: popen(["sleep", "60"], **more))  # what runs does not matter here
    first = jobs.start(["train"], output)
    try:
        with pytest.raises(PreflightError, match="started from another page"):
            jobs.start(["train"], output)
    finally:
        first.process.kill()
        first.process.wait(PATIENCE_S)
    second = jobs.start(["train"], output)  # the lock is gone with its process, whoever still reads the file
    second.process.kill()
    second.process.wait(PATIENCE_S)


def test_a_training_is_followed_from_its_pre_training_into_the_run_itself(workspace):
    def told(name, outcome, finished=None):  # the run's record began first and lies among the invocations until the pre-training is done
        folder = workspace / "logs" / name
        folder.mkdir(parents=True, exist_ok=True)
        record = {"pid": 4711, "started": {"first": "2026-01-01T00:00:01", "itself": "2026-01-01T00:00:00"}[name], "finished": finished}
        (folder / "audit.json").write_text(json.dumps({**record, "outcome": outcome}))
        return folder

    job = jobs.CommandProcess(["train"], 4711, SimpleNamespace(poll=lambda: None), logs=workspace / "logs")
    first = told("first", "running")
    assert job.find_run() == first
    told("first", "finished", "2026-01-01T00:01:00")
    assert job.find_run() == first  # the run itself is still to come
    itself = told("itself", "running")
    assert job.find_run() == itself
    told("itself", "finished", "2026-01-01T00:02:00")
    late = jobs.CommandProcess(["train"], 4711, SimpleNamespace(poll=lambda: 0), logs=workspace / "logs")  # of a page that slept meanwhile
    assert job.find_run() == late.find_run() == itself


def test_a_run_that_goes_on_elsewhere_is_shown_and_not_started_again(past):
    words = ["trainer=defaults", "run_id=elsewhere"]
    folder = past("elsewhere", words, outcome="running")
    source = ("import signal, sys, time; from pathlib import Path; from spectramind_nb.records import audit\n"
              "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a suite in the background would have it ignore
              "with audit.held(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(600)")
    holder = subprocess.Popen([sys.executable, "-c", source, str(folder)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        record = json.loads((folder / "audit.json").read_text())
        (folder / "audit.json").write_text(json.dumps({**record, "pid": holder.pid}))
        pad = launchpad("defaults", ["run_id=elsewhere"])
        assert "elsewhere</b> is going on" in pad.widgets.parts["going"].value and pad.widgets.watch.layout.display == ""
        pad.widgets.train.click()
        assert pad.state.training.phase == "not started" and "elsewhere is the same run" in pad.widgets.parts["status"].value
        pad.widgets.end.click()
        assert holder.wait(PATIENCE_S) and pad.wait(PATIENCE_S).training.phase in ("stopped", "failed")
        assert pad.widgets.watch.layout.display == "none"
    finally:
        holder.kill()
        holder.wait(PATIENCE_S)


def test_handing_in_costs_no_other_run_its_submission(workspace):
    """Where the grader looks, somebody may have put a link to what an earlier run has on record."""
    for name, planet in (("first", 1), ("second", 2)):
        (workspace / "logs" / name).mkdir(parents=True)
        submission.write_baseline(workspace / "logs" / name / "submission.csv", [planet], 0.01, 0.002)
    (workspace / "submission.csv").symlink_to("logs/first/submission.csv")
    hand_in(workspace / "logs" / "second", workspace)
    assert [submission.read(path)["planet_id"].tolist() for path in ("submission.csv", "logs/first/submission.csv")] == [[2], [1]]


def test_a_run_is_not_shown_what_an_earlier_one_printed(past, workspace, monkeypatch):
    """A page started the same configuration yesterday; its last line was said to be what ended the run of today."""
    words, state, folders = ["trainer=defaults", "seed=9"], PageState(), [workspace / "logs" / "today", workspace / "logs" / "second"]
    left = output_path(workspace / "logs", composed(words).hash, None)
    left.parent.mkdir(parents=True)
    left.write_text("run yesterday: finished\n")
    os.utime(left, (946684800, 946684800))
    monkeypatch.setattr(audit, "is_running", lambda folder, record: record.get("outcome") == "running")
    for folder, said in zip(folders, ("the disk is full", "The run says so.")):
        record = past(folder.name, words, outcome="running", pid=4711) / "audit.json"
        choose(state, Choice(text="seed=9"))
        look_around(state)
        watch_run(state)
        follow(state)
        assert state.training.busy and state.training.lines == ([] if folder == folders[0] else ["error: The run says so."])
        record.write_text(json.dumps({**json.loads(record.read_text()), "outcome": "failed", "exit_code": 3, "error": "the disk is full"}))
        follow(state)
        assert state.training.phase == "failed" and state.training.message == f"Exit code 3: {said}"
        left.write_text("error: The run says so.\n")


def ended(state, code, folder=None, phase="running", lines=(), **more):
    """What the page says of a training that ended so."""
    job = jobs.CommandProcess(["train"], 1, SimpleNamespace(poll=lambda: code), run_dir=folder, **more)
    state.training = jobs.Task(phase, "", job, [*lines])
    job.lines = lambda most=12: [*lines]
    follow(state)
    return state.training.phase, state.training.message


@pytest.mark.parametrize("code, line, phase", [
    (3, "error: the disk is full", "failed"), (-9, "epoch 1", "failed"), (1, "error: a defect", "failed"), (130, "interrupted", "stopped"),
    (-2, "epoch 1", "stopped"), (1, "KeyboardInterrupt", "stopped"), (75, "the wall", "stopped"), (143, "terminated", "stopped"),
])
def test_who_presses_stop_still_sees_a_failure(workspace, code, line, phase):
    found, said = ended(PageState(), code, phase="stopping", lines=[line])
    assert found == phase and (phase == "stopped" or line.removeprefix("error: ") in said)


def test_a_branch_is_not_said_to_be_resumed_by_the_page(past):
    """Train has no --fork: after Reopen it began something else from the start."""
    branch = {"snapshot": "best.ckpt", "parent": "trunk", "precision": {}, "config": {"data": {"root": None}}}
    folder, state = past("branch", ["trainer=ablation", "run_id=branch"], checkpoints=["last"], **branch), PageState()
    choose(state, Choice())
    command = f"spectramind train trainer=ablation run_id=branch --resume {folder}"
    assert ended(state, 130, folder) == ("stopped", f"Stopped. {command} continues it.")
    ACTIONS["Reopen"](state)
    assert f"it began at best.ckpt of run trunk, and {command} continues it." in state.asked.message and state.continues is None
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert ended(state, 130, folder)[1] == "Stopped. It kept no checkpoint, and began at best.ckpt of run trunk."
    ACTIONS["Reopen"](state)
    assert state.asked.message.endswith("it began at best.ckpt of run trunk.")


def test_a_page_that_was_asked_for_is_shown_whatever_is_selected_now(past, workspace):
    for name, words in (("one", []), ("two", ["seed=7"])):
        past(name, words)
    page, state = workspace / "compared.html", PageState(selected="one", others=("two",))
    look_around(state)
    page.write_text("<p>the comparison</p>")
    for command in ("compare", "report"):
        job = jobs.CommandProcess([command, "logs/one", "logs/two"], 1, SimpleNamespace(poll=lambda: 0))
        job.lines = lambda most=12: [str(page)]
        state.asked, state.selected, state.panel = jobs.Task("running", "", job), "two", ""  # only one is left to compare
        follow(state)
        assert state.asked.phase == "done" and "the comparison" in state.panel
    page.unlink()
    state.asked.phase, state.asked.command = "running", job
    follow(state)
    assert state.asked.phase == "failed" and "compared.html" in state.asked.message


def test_a_training_is_followed_where_it_runs_whatever_folder_is_current_or_chosen(past, workspace, monkeypatch):
    begun = []
    monkeypatch.setattr(jobs, "start", lambda words, output: begun.append(output) or jobs.CommandProcess(words, 4711, process))
    state, process, here = PageState(), SimpleNamespace(poll=lambda: None), workspace / "here"
    choose(state, Choice(text="seed=11"))
    here.mkdir()
    monkeypatch.chdir(here)
    ACTIONS["Train"](state)
    assert state.logs == here / "logs" == state.training.job.logs == begun[0].parents[1]
    folder = past("mine", ["trainer=defaults", "seed=11"], checkpoints=["last"], pid=4711, precision={}, config={"data": {"root": None}})
    shutil.move(folder, here / "logs" / "mine")
    os.utime(here / "logs" / "mine" / "audit.json")
    elsewhere = f"--resume {here / 'logs' / 'mine'} continues it."
    for text, said in (("seed=11", "Resume continues it."), (f"paths.root={workspace / 'far'}", elsewhere),
                       ("nonsense", "Reopen mine to resume it.")):
        choose(state, Choice(text=text))  # meanwhile
        state.training.phase, state.training.job.run_dir, process.poll = "running", None, lambda: 130
        follow(state)
        assert state.training.phase == "stopped" and state.training.message.endswith(said)
        assert state.progress.run_dir == here / "logs" / "mine"
    process.poll, state.training.phase, state.training.job.run_dir, state.training.job.pid = lambda: 0, "running", None, 1
    follow(state)
    assert state.training.message == f"Everything is in {here / 'logs'}."
    choose(state, Choice(text="paths.root=far"))  # which is far from here
    ACTIONS["Train"](state)
    monkeypatch.chdir(workspace)
    assert state.training.job.logs == here / "far" / "logs" == begun[-1].parents[1]


def test_an_estimate_counts_light_curves_as_light_curves(workspace):
    """Frames were counted, forty times as many bytes."""
    sizes = {level: estimate(composed([f"data.simulate={{train: 100, test: 10, short: false, level: {level}, seed: 1}}"]))
             for level in ("frames", "lightcurves")}
    assert sizes["lightcurves"].cache_bytes == pytest.approx(110 * 2 * 5.5e6) and sizes["frames"].cache_bytes > 20e9
    assert sizes["lightcurves"].seconds < sizes["frames"].seconds / 3


@pytest.mark.parametrize("words", [[], ["pretrain.max_epochs=3", "model=ensemble", "pretrain.lr=0.001"]])
def test_an_estimate_counts_a_pre_training_until_it_is_finished(workspace, words):
    words = ["data.simulate={train: 10, test: 2}", "pretrain=simulated", *words]
    config = composed(words)
    first, alone = pretraining_config(config), estimate(composed(words[:1]))
    both = estimate(config)
    assert both.basis == alone.basis + ", its pre-training included" and both.cache_bytes - alone.cache_bytes == 500 * 2 * 5.5e6
    assert both.seconds - alone.seconds > steps_of(first, 500) * 0.1
    data, model = addresses(first.plain())
    timing = RunTiming("first", data, model, training_s=2.0, steps=20, finished=first.hash)
    assert estimate(config, [timing]).seconds <= alone.seconds
    assert "pre-training" in estimate(config, [replace(timing, finished="")]).basis


def test_a_finished_run_tells_its_configuration(past, workspace):
    for name, outcome in (("whole", "finished"), ("half", "interrupted")):
        past(name, ["trainer=defaults"], outcome=outcome, checkpoints=["best"], steps=4)
    found = {timing.run_id: timing.finished for timing in run_timings(recent_runs(workspace / "logs"))}
    assert found == {"whole": composed(["trainer=defaults"]).hash, "half": ""}


def test_the_page_composes_what_files_and_variables_say_now(workspace, monkeypatch):
    """What was edited, or exported, while the page was open was first seen by the training."""
    copy = workspace / "configs"
    shutil.copytree(config_dir(), copy)
    monkeypatch.setattr("spectramind_nb.core.config_groups.config_dir", lambda: copy)
    monkeypatch.setattr("spectramind_nb.apps.choice.config_dir", lambda: copy)
    profile, words = copy / "trainer" / "defaults.yaml", ["trainer=defaults", "data.root=${oc.env:SEEN,nowhere}"]
    before = composed(words)
    assert composed(words) is before
    profile.write_text(profile.read_text().replace("max_epochs: 40", "max_epochs: 50"))
    assert (before.trainer.max_epochs, composed(words).trainer.max_epochs) == (40, 50)
    monkeypatch.setenv("SPECTRAMIND_CACHE", str(workspace / "other"))
    assert composed(words).paths.cache == str(workspace / "other")
    monkeypatch.setenv("SEEN", "/there")
    assert composed(words).data.root == "/there"
