"""A place that cannot be written is one sentence and exit code 3, before the long work; a file stands in for every bad folder."""

import os
import shutil
import subprocess
import sys
from unittest.mock import Mock

import pytest
from test_cli import assert_one_sentence, invoke

from spectramind_nb.apps import comparison_page, doctor
from spectramind_nb.core.config_groups import groups, options
from spectramind_nb.core.environment import check_writable
from spectramind_nb.core.errors import ConfigError, PreflightError, refused_by_system
from spectramind_nb.runs import comparison, execution, run, stages


@pytest.fixture
def spoiled(workspace, monkeypatch):
    """A workspace with a file and a folder in the way, in which nothing heavy may begin."""
    (workspace / "file").write_text("mine")
    (workspace / "folder").mkdir()

    def began(*_, **__):
        raise AssertionError("the long work began")

    for module in (stages, run, execution):
        monkeypatch.setattr(module, "open_data", began)
    return workspace


@pytest.mark.parametrize("words", [
    ("train", "paths.logs=file"), ("train", "paths.cache=file"), ("train", "paths.cache=file/below"), ("train", "paths.debug_log=folder"),
    ("train", "paths.root=file"), ("train", "--result", "folder"), ("train", "--result", "file/x.json"), ("train", "paths.cache=/proc/x"),
    ("calibrate", "paths.cache=file"), ("fit", "paths.logs=file"), ("fit", "paths.cache=file"),
    ("simulate", "--out", "file", "--train", "1", "--test", "0"), ("simulate", "--out", "file/x", "--train", "1", "--test", "0"),
    ("profiles", "new", "mine", "--dir", "file"), ("profiles", "new", "mine", "--dir", "/proc/x"),
    ("bundle", "build", "--out", "file"), ("bundle", "build", "--out", "file/below"), ("kernel", "build", "train", "--out", "file/below"),
])
def test_a_place_of_the_wrong_kind_is_told_before_the_long_work(spoiled, words):
    result = invoke(*words)
    assert result.exit_code in (2, 3), result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Error:" not in lines[0], result.stderr
    assert (spoiled / "file").read_text() == "mine" and not list((spoiled / "folder").iterdir())


@pytest.mark.parametrize("out", ["folder", "file/x.csv", "/proc/x.csv"])
def test_predictions_have_a_place_before_they_are_made(spoiled, out):
    with pytest.raises(PreflightError):
        run.predict("nothing", out=out)
    assert_one_sentence(invoke("notebook", "none.ipynb", "--out", out), 3)


def test_an_executed_notebook_has_a_place_before_it_runs(spoiled, repo):
    for out in ("folder", "file/x.ipynb"):
        assert_one_sentence(invoke("notebook", repo / "kaggle/kernels/train/train.ipynb", "--out", out), 3)


def test_a_comparison_makes_the_folder_of_its_page(workspace, monkeypatch):
    monkeypatch.setattr(comparison, "compare", lambda runs: " beside ".join(runs))
    monkeypatch.setattr(comparison_page, "comparison_page", lambda found: f"<p>{found}</p>")
    result = invoke("compare", "one", "two", "--out", "logs/.pages/both.html")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "logs/.pages/both.html", result.stderr
    assert (workspace / "logs/.pages/both.html").read_text() == "<p>one beside two</p>"


@pytest.mark.parametrize("words", [["train"], ["calibrate"], ["doctor"], ["profiles", "new", "mine"]])
def test_a_workspace_that_may_only_be_read(tmp_path, words, repo):
    """As anybody: root without its privileges cannot write here either."""
    tmp_path.chmod(0o555)
    plainly = [] if os.getuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    env = {**os.environ, "PYTHONPATH": str(repo)}
    env.pop("SPECTRAMIND_CACHE", None)
    done = subprocess.run([*plainly, sys.executable, "-m", "spectramind_nb", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert str(tmp_path) in done.stderr + done.stdout and list(tmp_path.iterdir()) == []


def test_the_doctor_looks_whether_results_can_be_written(workspace, monkeypatch):
    (workspace / "logs").write_text("a file")
    monkeypatch.setenv("SPECTRAMIND_CACHE", "/proc/stores")
    found = {finding.name: finding.state for finding in doctor.examine()}
    assert found["workspace"] == "ok" and found["runs"] == found["stores"] == "refused"


def test_every_refusal_of_the_system_is_a_sentence(workspace, monkeypatch):
    from spectramind_nb.runs import submission

    errors = PermissionError(13, "Permission denied", "/x"), OSError(28, "No space left on device"), OSError("odd"), IsADirectoryError()
    for error in errors:
        monkeypatch.setattr(submission, "validate", Mock(side_effect=error))
        assert_one_sentence(invoke("validate", "x.csv"), 3, "the system says")
        assert refused_by_system(error).exit_code == 3


def test_to_ask_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b"), check_writable(tmp_path / "a.csv", "file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PreflightError):
        check_writable("/dev/null", "file")  # to replace it would be worse than to fail


@pytest.mark.parametrize("words", ["compare one two --out", "train trainer=ci_fast --result", "notebook {kernel} --out"])
def test_a_mistyped_name_costs_no_file_of_another_kind_and_none_of_a_run(workspace, repo, words):
    """The labels of a data set, somebody's notes, a run's record."""
    (workspace / "logs" / "one").mkdir(parents=True)
    words = words.format(kernel=repo / "kaggle" / "kernels" / "train" / "train.ipynb").split()
    for name in ("train.csv", "notes.txt", "logs/one/audit.json"):
        (workspace / name).write_text("{}")
        assert_one_sentence(invoke(*words, workspace / name), 3, "Give a new name")
        assert (workspace / name).read_text() == "{}"


# -- the command line itself ---------------------------------------------------------------------------------------


def test_a_submission_alone_is_not_evaluated_on_planets_that_would_be_simulated_first(spoiled):
    (spoiled / "submission.csv").write_text("planet_id\n")
    assert_one_sentence(invoke("evaluate", "submission.csv"), 2, "spectramind score submission.csv TRUTH.csv")
    with pytest.raises(ConfigError):
        run.evaluate("submission.csv")


def test_version_short_help_and_completion():
    import spectramind_nb

    assert invoke("--version").stdout.split() == ["spectramind", spectramind_nb.__version__]
    assert invoke("-h").stdout == invoke("--help").stdout and "--install-completion" in invoke("-h").stdout
    assert invoke("train", "-h").exit_code == 0


def test_the_help_of_train_names_groups_options_and_examples():
    shown = invoke("train", "--help").stdout
    assert all(f"{name}=" in shown for name in groups())
    assert all(option in shown for name in groups() for option in options(name))
    assert "spectramind train trainer=ci_fast" in shown and "--cfg" in shown


def test_a_closed_pipe_is_no_error(repo, workspace):
    for words in ("profiles show defaults", "train --cfg"):
        done = subprocess.run(f"set -o pipefail; {sys.executable} -u -m spectramind_nb {words} | true", shell=True, executable="/bin/bash",
                              capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repo)})
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_simulate_says_how_much_it_will_write(workspace, monkeypatch):
    from spectramind_nb.simulation import dataset

    monkeypatch.setattr(dataset, "simulate", lambda *_, **__: "made")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Mock(free=50e9))  # whatever the machine has
    result = invoke("simulate", "--out", "data", "--train", "30", "--test", "3")
    assert result.exit_code == 0 and "about 7.6 GB will be written to data" in result.stderr
    assert_one_sentence(invoke("simulate", "--out", "data", "--train", "300", "--test", "0"), 3, "--short")


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    from spectramind_nb.runs import submission

    monkeypatch.setattr(submission, "validate", Mock(side_effect=KeyboardInterrupt))
    result = invoke("validate", "x.csv")
    assert result.exit_code == 130 and "same command again" in result.stderr


def test_a_tilde_is_a_home_wherever_a_word_has_it(workspace, monkeypatch):
    """A shell makes one of `--out ~/x`, not of `--out=~/x` nor of what is quoted."""
    monkeypatch.setenv("HOME", str(workspace / "home"))
    monkeypatch.setattr(comparison, "compare", lambda runs: " beside ".join(runs))
    monkeypatch.setattr(comparison_page, "comparison_page", lambda found: f"<p>{found}</p>")
    for place, words in (("a.html", ["--out=~/a.html"]), ("b.html", ["--out", "~/b.html"])):
        result = invoke("compare", "one", "two", *words)
        assert result.exit_code == 0 and result.stdout.splitlines()[-1] == str(workspace / "home" / place), result.output
    assert sorted(os.listdir(workspace)) == ["home"]


def test_a_link_may_stand_where_a_file_is_to_be_written(tmp_path):
    """What counts is where it leads to."""
    (tmp_path / "new").symlink_to("far/new.html"), (tmp_path / "notes").symlink_to("notes.txt"), (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "notes.txt").write_text("words")
    check_writable(tmp_path / "new", "file", ".html")
    for name in ("notes", "loop"):
        with pytest.raises(PreflightError):
            check_writable(tmp_path / name, "file", ".html")
