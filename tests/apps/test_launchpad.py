"""The launchpad shows what will run, names what is wrong in place, and never freezes or lies."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from spectramind_nb.apps import jobs
from spectramind_nb.apps.choice import MENUS, Choice, changed_keys, composed, faults_of
from spectramind_nb.apps.estimate import estimate
from spectramind_nb.apps.launchpad import ClickQueue, JobWatcher, launchpad
from spectramind_nb.apps.launchpad_actions import ACTIONS, reopen_run
from spectramind_nb.apps.launchpad_state import PageState, choose
from spectramind_nb.apps.launchpad_views import RUN_BUTTONS, page_html, preview_html
from spectramind_nb.apps.notebooks import run_notebook
from spectramind_nb.apps.past_runs import recent_runs
from spectramind_nb.core.config_groups import groups, options, profiles
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.runs.submission import validate

PATIENCE_S = 300


def launched(profile="ci_fast", overrides=()):
    """A launchpad whose widgets are there."""
    pad = launchpad(profile, overrides)
    assert pad.widgets.box is not None
    return pad


def test_the_preview_is_what_the_command_line_composes():
    choice = Choice("ci_fast", experiment="demo", text="trainer.max_epochs=3\ndata.simulate.seed=1")
    typed = compose(overrides=shlex.split(choice.command)[2:])
    assert composed(choice.words) == typed and typed.data.simulate.train == 32


def test_words_of_a_command_line_become_a_choice_and_back():
    words = ["trainer=ci_fast", "data=ariel2025", "data.root=/x", "experiment=demo", "seed=7"]
    choice = Choice.of(words, profile="defaults")
    assert (choice.profile, choice.data, choice.experiment, choice.text) == ("ci_fast", "ariel2025", "demo", "data.root=/x\nseed=7")
    assert set(choice.words) == set(words) and Choice.of(choice.words) == choice
    assert Choice.of("experiment=null").experiment == "none"


@pytest.fixture
def acted(monkeypatch):
    """(button, what was chosen) of all that was acted on, instead of what it does."""
    done = []
    for name in ACTIONS:
        monkeypatch.setitem(ACTIONS, name, lambda state, name=name: done.append((name, state.choice.text)))
    return done


def in_a_kernel(work):
    """Run a coroutine as a kernel does, in an event loop; the tests of browsers leave one of their own in this thread."""
    with ThreadPoolExecutor(1) as kernel:
        kernel.submit(asyncio.run, work()).result(PATIENCE_S)


@pytest.fixture
def live():
    """A launchpad that somebody at a browser looks at."""
    pad = launched("ci_fast")
    pad.page.reader.live = True
    return pad


def test_a_click_that_overtakes_what_was_typed_before_it_waits_for_it(live, acted):
    """A browser holds changes back while the kernel is busy with one, but sends a click at once."""
    async def somebody_is_quick() -> None:
        live.widgets.overrides.value = "trainer.max_epochs=2"
        live.widgets.train.click()
        live.widgets.overrides.value = "trainer.max_epochs=25"
        until = time.monotonic() + PATIENCE_S
        while not acted and time.monotonic() < until:
            await asyncio.sleep(0.05)

    in_a_kernel(somebody_is_quick)
    assert acted == [("Train", "trainer.max_epochs=25")]


def test_clicks_keep_their_order_and_stop_waits_for_nothing(live, acted):
    async def clicks() -> None:
        for name in ("Reopen", "Train", "Report", "Stop", "Predict"):
            live.page._press(name)
            await asyncio.sleep(0.01)
        until = time.monotonic() + PATIENCE_S
        while len(acted) < 5 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        live.page._press("Stop")
        assert len(acted) == 6

    in_a_kernel(clicks)
    assert [name for name, _ in acted] == ["Reopen", "Train", "Report", "Stop", "Predict", "Stop"]


def test_code_need_not_wait_for_a_click(live, acted):
    async def cell() -> None:
        live.widgets.overrides.value = "seed=3"
        live.widgets.train.click()
        live.wait(PATIENCE_S)
        assert acted == [("Train", "seed=3")]
        await asyncio.sleep(2 * ClickQueue.HELD_BACK_S)

    in_a_kernel(cell)
    with ThreadPoolExecutor(1) as no_kernel:  # there is no event loop
        no_kernel.submit(live.page._press, "Report").result(PATIENCE_S)
    assert acted == [("Train", "seed=3"), ("Report", "seed=3")]


@pytest.mark.parametrize(
    ("profile", "text", "line", "words", "better"),
    [
        ("ci_fast", "seed=7\ntrainer.max_epoch=3", 2, "max_epochs", "trainer.max_epochs=3"),
        ("ci_fast", "# a remark\n\nmax_epochs=3", 3, "no key 'max_epochs'", "trainer.max_epochs=3"),
        ("ci_fast", "nonsense", 1, "not an override", None),
        ("ci_fast", "trainer.max_epochs=many", 1, "whole number", None),
        ("ci_fast", "trainer.precision=16mixed", 1, "16-mixed", "trainer.precision=16-mixed"),
        ("ci_fast", "trainer.wall.budget=3h", 1, "locks", None),
        ("ci_fast", "trainer=t4x2", 1, "menu Profile", None),
        ("ci_fast", "trainer.max_epochs=1,2", 1, "several runs", None),
        ("ddp", "trainer.devices=2\ntrainer.max_epoch=3", 2, "max_epochs", "trainer.max_epochs=3"),
        ("ci_fsat", "", None, "ci_fast", None),
    ],
)
def test_an_error_is_a_sentence_in_place(profile, text, line, words, better):
    pad = launched(profile, "")
    pad.widgets.overrides.value = text
    fault = pad.state.faults[0]
    assert fault.line == line and words in str(fault)
    shown = pad.widgets.parts["check"].value
    assert words in re.sub("&#x27;", "'", shown) and ("line" not in shown or f"line {line}" in shown)
    assert pad.widgets.train.disabled and "nothing to show" in pad.widgets.parts["preview"].value and "Traceback" not in shown
    assert better is None or better == pad.widgets.suggestions[0].description


def test_a_suggestion_replaces_its_line_only():
    pad = launched("ci_fast", "")
    pad.widgets.overrides.value = "seed=7\ntrainer.max_epoch=3\n# kept"
    pad.widgets.suggestions[0].click()
    assert pad.widgets.overrides.value == "seed=7\ntrainer.max_epochs=3\n# kept" and not pad.state.faults and not pad.widgets.train.disabled


def test_every_option_of_every_menu_composes_or_says_what_it_needs():
    for menu, group in MENUS.items():
        for option in options(group):
            found = faults_of(Choice(**{menu: option}))
            assert found == [] or (option, found[0].line) == ("ddp", None), (option, found)


def test_only_what_differs_from_defaults_is_marked():
    assert changed_keys(composed([])) == {}
    state = PageState()
    choose(state, Choice(text="trainer.max_epochs=3"))
    assert re.findall(r"<b>\s*(.*?)</b>", preview_html(state)) == ["max_epochs: 3"]


def test_controls_follow_each_other():
    pad = launched("defaults")
    assert list(pad.widgets.menus["profile"].options) == list(profiles()) and set(MENUS.values()) <= set(groups())
    pad.widgets.menus["profile"].set_state({"index": list(profiles()).index("ci_fast")})  # as the browser does it
    assert pad.state.choice.profile == "ci_fast" and "trainer=ci_fast" in pad.widgets.parts["command"].value
    assert "Smoke run" in pad.widgets.parts["about"].value and "20m" in pad.widgets.parts["about"].value
    pad.widgets.overrides.value = "# a remark\n\ntrainer.max_epochs=2\n"
    assert pad.state.choice.words == ["trainer=ci_fast", "trainer.max_epochs=2"] and not pad.widgets.train.disabled
    assert "2 epochs" in pad.widgets.parts["about"].value and "allowed" in pad.widgets.parts["estimate"].value


def test_what_comes_from_outside_is_escaped():
    state = PageState(training=jobs.Task("running", "<img src=x>", jobs.CommandProcess(["train"], 1), lines=["1: 1/2, <script>"]))
    choose(state, Choice("<b>", text="a=<script>"))
    assert "<script>" not in page_html(state) and "<img" not in page_html(state)


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["trainer.wall.budget=20s", "trainer.wall.reserve=5s"], "wall"),
        (["trainer.storage.budget=1MB", "trainer.max_epochs=100000"], "disk budget"),
        (["data.simulate={train: 5000000, test: 1, short: false, seed: 1}"], "disk is too small"),
        (["trainer.max_epochs=1"], None),
    ],
)
def test_an_estimate_warns_of_what_will_not_fit(words, warning):
    found = estimate(composed(words)).warnings
    assert (warning is None and not found) or any(warning in sentence for sentence in found), found


def test_nothing_is_guessed_about_data_that_are_not_there(workspace):
    found = estimate(composed(["data=ariel2025"]))
    assert found.seconds is None and "not found" in found.basis


# -- jobs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch, workspace):
    """Let every button start a small script instead of `spectramind`."""

    def use(source):
        def start(words, output=None):
            output = tempfile.TemporaryFile()
            process = subprocess.Popen([sys.executable, "-uc", source], stdout=output, stderr=output)
            return jobs.CommandProcess(list(words), process.pid, process, output)

        monkeypatch.setattr(jobs, "start", start)
        monkeypatch.setattr(JobWatcher, "INTERVAL_S", 0.02)

    return use


@pytest.mark.parametrize(
    ("source", "phase", "words"),
    [
        ("print('epoch 1')", "done", "Everything is in"),
        ("import sys; print('error: the disk is full.'); sys.exit(3)", "failed", "Exit code 3: the disk is full"),
        ("import os; os.abort()", "failed", "Exit code -6"),
        ("import sys; sys.exit(75)", "stopped", "The wall was reached"),
    ],
)
def test_train_ends_in_a_state_that_says_what_happened(fake, source, phase, words):
    fake(source)
    pad = launched()
    pad.widgets.train.click()
    state = pad.wait(PATIENCE_S)
    assert state.training.phase == phase and words in state.training.message and words in pad.widgets.parts["status"].value
    assert not pad.widgets.train.disabled and pad.widgets.stop.disabled


def test_stop_interrupts_the_job(fake):
    # a shell that starts the tests in the background lets its children ignore interrupts: `start` undoes that, so must its fake
    fake("import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
         "try:\n print('training', flush=True)\n time.sleep(600)\nexcept KeyboardInterrupt:\n sys.exit(130)")
    pad = launched()
    pad.widgets.train.click()
    assert pad.widgets.train.disabled
    until = time.monotonic() + PATIENCE_S
    while "training" not in pad.widgets.parts["status"].value:
        assert time.monotonic() < until
        time.sleep(0.02)
    first = pad.state.training.job.pid
    pad.widgets.train.click()  # a second click starts nothing
    pad.widgets.stop.click()
    state = pad.wait(PATIENCE_S)
    assert state.training.phase == "stopped" and state.training.job.pid == first and "not begun" in state.training.message


def test_a_child_of_a_kernel_that_ignores_interrupts_does_not(workspace):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a kernel does between two cells
    try:
        job = jobs.start(["profiles"])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    ignored = int(re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{job.pid}/status").read_text())[1], 16)
    assert not ignored & 1 << (signal.SIGINT - 1)
    assert job.process.wait(PATIENCE_S) == 0


def test_a_job_that_cannot_start_is_said(monkeypatch, workspace):
    def start(words, output=None):
        raise OSError("no more processes")

    monkeypatch.setattr(jobs, "start", start)
    pad = launched()
    pad.widgets.train.click()
    assert pad.state.training.phase == "not started" and "no more processes" in pad.widgets.parts["status"].value


def test_buttons_without_a_run_are_off_and_say_why(workspace):
    pad = launched()
    assert all(button.disabled for button in pad.widgets.buttons.values())
    for name in RUN_BUTTONS:
        ACTIONS[name](pad.state)
        assert pad.state.asked.phase == "not possible" and "press Train first" in pad.state.asked.message


# -- unattended ---------------------------------------------------------------------------------------------------


def test_unattended_notebooks_get_no_live_widget(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    launchpad("ci_fast")._ipython_display_()
    assert "trainer=ci_fast" in shown[0].data and not hasattr(shown[0], "comm")


def test_run_true_refuses_what_does_not_compose(workspace):
    with pytest.raises(ConfigError, match="line 1, trainer.max_epoch=1.*max_epochs"):
        launchpad("ci_fast", ["trainer.max_epoch=1"], run=True)


def test_the_kernel_trains_in_batch_and_shows_a_page_without_widgets(repo, short_root, here, monkeypatch):
    kernel = repo / "kaggle" / "kernels" / "launchpad" / "launchpad.ipynb"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")  # what "Save & Run All" sets: nobody says run=True there
    monkeypatch.setenv("SPECTRAMIND_CACHE", str(here / "cache"))
    parameters = {"overrides": [f"data.root={short_root}", "data.batch_size=2", "data.workers=1"], "result_json": here / "result.json"}
    done = nbformat.read(run_notebook(kernel, parameters, here / "done.ipynb", PATIENCE_S), 4)
    outputs = [output.get("data", {}) for cell in done.cells for output in cell.get("outputs", [])]
    page = next(data["text/html"] for data in outputs if "SpectraMind launchpad" in data.get("text/html", ""))
    assert "finished" in page and "data:image/png" in page
    assert not any("application/vnd.jupyter.widget-view+json" in data for data in outputs)
    result = json.loads((here / "result.json").read_text())
    assert result["outcome"] == "finished" and validate(here / "submission.csv").planets == 2


# -- a real run ---------------------------------------------------------------------------------------------------


def wait_for(condition):
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_run_true_trains_here_and_renders_without_widgets(words, whole_run):
    overrides = [*words, "trainer.max_epochs=2", "run_id=unattended"]
    pad = launchpad("ci_fast", overrides, run=True)
    page = pad._repr_html_()
    assert pad.run.outcome == "finished" and pad.page is None and f"{pad.run.metrics['val/score']:.4f}" in page
    assert "data:image/png" in page and "widget-view" not in page and "epoch 2 of 2" in page
    known = pad.state
    choose(known, Choice.of(overrides))
    assert known.estimate.cache_bytes == 0  # the stores are full, and it is known from a run


def test_stop_then_resume_then_hand_in_compare_and_reopen(words, whole_run, here):
    """The whole story of a run on the page, with the real command."""
    pad = launched("defaults", [*words, "trainer.max_epochs=400", "run_id=story"])
    pad.widgets.train.click()
    wait_for(lambda: pad.state.progress is not None and pad.state.progress.epoch >= 1 or not pad.state.busy)
    pad.widgets.stop.click()
    state = pad.wait(PATIENCE_S)
    assert state.training.phase == "stopped" and "Resume continues it" in state.training.message, state.training
    assert pad.widgets.train.description == "Resume" and state.continues.id == "story" == state.selected
    reached = state.progress.epoch
    pad.widgets.buttons["Submission"].click()  # valid at any time, and honest
    shown = pad.widgets.parts["answer"].value
    assert "training mean" in shown and "Predict makes one" in shown and "done" not in shown and not pad.widgets.buttons["Predict"].disabled

    pad.widgets.overrides.value = pad.widgets.overrides.value.replace("=400", "=401")
    assert pad.widgets.train.description == "Train"  # another choice continues nothing
    reopen_run(state)
    pad.page.show()
    assert "trainer.max_epochs=400" in pad.widgets.overrides.value and pad.widgets.train.description == "Resume"

    # a page in a kernel that is killed: the run goes on, and the next page finds it, follows it and stops it
    source = ("import os, signal, sys\nfrom spectramind_nb import launchpad\n"
              "from spectramind_nb.apps.launchpad_actions import begin_training\n"
              "begin_training(launchpad(overrides=sys.argv[1:]).state)\nos.kill(os.getpid(), signal.SIGKILL)")
    killed = subprocess.run([sys.executable, "-c", source, *state.choice.words], timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL
    wait_for(lambda: [run.outcome for run in recent_runs(here / "logs") if run.id == "story"] == ["running"])
    os.utime(whole_run.dir / "audit.json")  # the page lists the twenty newest, and the tests before may have made as many
    late = launched("ci_fast")
    late.widgets.picked.value = "story"
    late.widgets.buttons["Reopen"].click()  # Reopen
    assert late.state.training.phase == "running" and "still going" in late.state.training.message
    assert "max_epochs=400" in late.widgets.overrides.value
    wait_for(lambda: late.state.progress.epoch > reached or not late.state.busy)
    assert late.state.busy and late.state.progress.attempt == 2
    late.widgets.stop.click()
    assert late.wait(PATIENCE_S).training.phase == "stopped" and "Resume continues it" in late.state.training.message

    late.widgets.picked.value, late.widgets.against.value = "story", (whole_run.id,)
    late.widgets.buttons["Compare"].click()  # Compare
    assert late.wait(PATIENCE_S).asked.phase == "done", late.state.asked
    panel = late.widgets.parts["panel"].value
    assert "trainer.max_epochs" in panel and "400" in panel and "data:image/png" in panel and "Against story" in panel

    late.widgets.picked.value = whole_run.id
    late.widgets.buttons["Submission"].click()  # Submission
    assert late.state.asked.phase == "done" and "valid, 2 planets" in late.state.asked.message and "mean" not in late.state.asked.message
    assert (here / "submission.csv").read_bytes() == (whole_run.dir / "submission.csv").read_bytes()
    (here / "submission.csv").unlink()
    late.widgets.buttons["Predict"].click()  # Predict
    assert late.wait(PATIENCE_S).asked.phase == "done" and (here / "submission.csv").is_file()


def test_a_started_run_reads_as_its_configuration(whole_run):
    choice = Choice.of(whole_run.overrides)
    again = composed(choice.words).plain()
    then = whole_run.config.plain()
    assert {key: again[key] for key in ("trainer", "data", "model")} == {key: then[key] for key in ("trainer", "data", "model")}
