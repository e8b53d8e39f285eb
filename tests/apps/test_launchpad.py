"""The launchpad shows what will run, names what is wrong in place, and never freezes or lies."""

import re
import shlex
import sys
import threading

import pytest
from omegaconf import OmegaConf

from spectramind_nb.apps import launchpad as room
from spectramind_nb.apps.launchpad import (
    Launchpad,
    State,
    changed_keys,
    command_line,
    compose_preview,
    follow,
    launchpad,
    page_html,
)
from spectramind_nb.core.configuration import compose, profiles
from spectramind_nb.core.errors import ConfigError


def test_the_preview_is_what_the_command_line_composes():
    overrides = ["trainer.max_epochs=3", "data.simulate={train: 4, test: 2, short: true, seed: 1}"]
    words = shlex.split(command_line("ci_fast", overrides))[2:]
    preview, error = compose_preview("ci_fast", overrides)
    assert error == ""
    shown, typed = OmegaConf.create(preview), compose(overrides=words)
    assert shown.trainer == typed.trainer and shown.data == typed.data


@pytest.mark.parametrize(
    ("profile", "line", "words"),
    [
        ("ci_fast", "trainer.max_epoch=3", "max_epochs"),
        ("ci_fsat", "", "ci_fast"),
        ("ci_fast", "nonsense", "nonsense"),
        ("ci_fast", "trainer.max_epochs=many", "max_epochs"),
    ],
)
def test_an_error_is_a_sentence_in_place(profile, line, words):
    pad = Launchpad(profile, line)
    pad.build()
    assert words in pad.state.error and words in pad.check.value and pad.train.disabled and pad.state.preview == ""
    assert "Traceback" not in pad.check.value


def test_only_what_differs_from_defaults_is_marked():
    assert changed_keys(compose_preview("defaults")[0]) == {}
    state = room.State()
    state.choose("defaults", "trainer.max_epochs=3")
    assert re.findall(r"<b style='border-left[^>]*>\s*(.*?)</b>", room.preview_html(state)) == ["max_epochs: 3"]


def test_controls_follow_each_other():
    pad = launchpad("defaults")
    pad.build()
    assert list(pad.profile.options) == list(profiles())
    pad.profile.set_state({"index": list(profiles()).index("ci_fast")})  # as the browser does it
    assert pad.state.profile == "ci_fast" and "trainer=ci_fast" in pad.command.value
    pad.overrides.value = "# a remark\n\ntrainer.max_epochs=2\n"
    assert pad.state.overrides == ["trainer.max_epochs=2"] and not pad.train.disabled


def test_what_comes_from_outside_is_escaped():
    state = State(message="<img src=x>")
    state.choose("<b>", "a=<script>")
    state.log.append("<script>")
    assert "<script>" not in page_html(state) and "<img" not in page_html(state)


def fake_run(monkeypatch, code, source):
    def start(profile, overrides, result):
        import subprocess

        return subprocess.Popen(
            [sys.executable, "-uc", source, str(result)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    monkeypatch.setattr(room, "start_training", start)


RESULT = (
    "import json, sys; json.dump({'id': 'r', 'dir': 'logs/r', 'metrics': {'val/score': 0.5}}, open(sys.argv[1], 'w'))"
)


@pytest.mark.parametrize(
    ("source", "phase", "words"),
    [
        (f"print('epoch 1'); {RESULT}", "done", "logs/r"),
        ("import sys; print('error: the disk is full.'); sys.exit(3)", "failed", "the disk is full"),
        ("import os; os.abort()", "failed", "Exit code"),
        ("import sys; sys.exit(75)", "stopped", "resumes"),
    ],
)
def test_train_ends_in_a_state_that_says_what_happened(monkeypatch, source, phase, words):
    fake_run(monkeypatch, 0, source)
    pad = Launchpad("ci_fast")
    pad.build()
    pad.train.click()
    state = pad.wait(60)
    assert state.phase == phase and words in state.message and words in pad.status.value
    assert not pad.train.disabled and pad.stop.disabled
    if phase == "done":
        assert state.result["metrics"] == {"val/score": 0.5} and "val/score" in pad.status.value


def test_stop_interrupts_the_run(monkeypatch):
    ready = "print('training', flush=True)"
    fake_run(
        monkeypatch, 0, f"import sys, time\ntry:\n {ready}\n time.sleep(60)\nexcept KeyboardInterrupt:\n sys.exit(130)"
    )
    pad = Launchpad("ci_fast")
    pad.build()
    seen, show = threading.Event(), pad.show
    pad.show = lambda: (show(), seen.set() if pad.state.log else None)
    pad.train.click()
    assert pad.train.disabled and seen.wait(60)
    pad.train.click()  # a second click starts nothing
    pad.stop.click()
    assert pad.wait(60).phase == "stopped" and "resumes" in pad.state.message


def test_a_run_that_cannot_start_is_said(monkeypatch):
    def start(*_):
        raise OSError("no more processes")

    monkeypatch.setattr(room, "start_training", start)
    pad = Launchpad("ci_fast")
    pad.build()
    pad.train.click()
    assert pad.state.phase == "failed" and "no more processes" in pad.status.value


def test_unattended_notebooks_get_no_live_widget(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    launchpad("ci_fast")._ipython_display_()
    assert "trainer=ci_fast" in shown[0].data and not hasattr(shown[0], "comm")


def test_run_true_refuses_what_does_not_compose(workspace):
    with pytest.raises(ConfigError, match="max_epochs"):
        launchpad("ci_fast", ["trainer.max_epoch=1"], run=True)


def test_follow_reads_every_line(tmp_path):
    import subprocess

    process = subprocess.Popen(
        [sys.executable, "-c", "for i in range(100): print(i)"], stdout=subprocess.PIPE, text=True
    )
    state = room.State()
    follow(process, state, tmp_path / "none.json")
    assert state.log[-1] == "99" and len(state.log) == state.log.maxlen


def test_train_starts_the_command_that_is_shown(workspace):
    pad = Launchpad("ci_fast", ["data=ariel2025", "data.root=nowhere"])
    pad.build()
    pad.train.click()
    state = pad.wait(120)
    assert state.phase == "failed" and "Exit code 3" in state.message and "nowhere" in state.message


def test_run_true_trains_here_and_renders_without_widgets(workspace, monkeypatch):
    from types import SimpleNamespace

    from spectramind_nb.runs import runtime

    asked = []
    run = SimpleNamespace(id="r7", dir="logs/r7", outcome="finished", metrics={"val/score": 0.61})
    monkeypatch.setattr(runtime, "train", lambda *words: asked.append(words) or run)
    pad = launchpad("ci_fast", "seed=7", run=True)
    assert asked == [("ci_fast", ["seed=7"])] and pad.box is None
    assert "logs/r7" in pad._repr_html_() and "0.61" in pad._repr_html_()


def test_the_envelope_is_that_of_the_run_not_of_the_profile():
    state = room.State()
    state.choose("kaggle_safe", "trainer.max_epochs=3")
    assert "3 epochs" in room.profile_html(state) and "60 epochs" not in room.profile_html(state)
