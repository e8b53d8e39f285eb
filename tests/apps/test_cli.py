"""What a user types: every failure is one sentence with its own exit code, and nothing is lost by it."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from spectramind_nb.apps import cli
from spectramind_nb.apps.cli import app
from spectramind_nb.apps.cli_base import failure_sentence
from spectramind_nb.apps.cli_exchange import export_command
from spectramind_nb.core.errors import ConfigError, ReplayMismatch, WallReached
from spectramind_nb.records import audit
from spectramind_nb.runs import submission


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def assert_one_sentence(result, code, *words):
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert all(word in lines[0] for word in words), lines[0]


@pytest.mark.parametrize("error", [ConfigError("a"), WallReached("b"), ReplayMismatch("c")])
def test_our_errors_keep_their_codes(error):
    assert failure_sentence(error) == (f"error: {error}", error.exit_code)


def test_a_fault_of_the_program_says_how_to_see_the_trace(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(submission, "validate", fail)
    assert_one_sentence(invoke("validate", "x.csv"), 1, "RuntimeError: two lines", "--debug")
    shown = invoke("validate", "x.csv", "--debug")
    assert shown.exit_code == 1 and "Traceback" in shown.stderr


def test_ctrl_c_ends_with_130(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(submission, "validate", interrupt)
    assert invoke("validate", "x.csv").exit_code == 130


def test_ctrl_c_while_libraries_are_loaded_ends_with_130_and_no_trace():
    """Nor is it lost: a library may take an interrupt for one of its parts that is missing, and go on without."""
    code = """
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "spectramind_nb.apps.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["spectramind", "--help"]
runpy.run_module("spectramind_nb", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize(
    "words", [["trian"], ["train", "--resum", "x"], ["score"], ["simulate", "--out", "x"], ["validate"]]
)
def test_wrong_usage_ends_with_2(words):
    assert invoke(*words).exit_code == 2


def test_many_runs_are_not_resumed_as_one():
    done = invoke("train", "-m", "seed=1,2", "--resume", "never")
    assert done.exit_code == 2 and "many runs cannot be resumed" in done.output


def test_help_is_there_for_every_command():
    assert invoke("--help").exit_code == 0
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert invoke(name, "--help").exit_code == 0 and command.callback.__doc__, name


def test_help_time_is_printed_and_loads_nothing_heavy(spectramind, capsys):
    start = time.perf_counter()
    done = spectramind("--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0 and "train" in done.stdout
    with capsys.disabled():
        print(f"\nspectramind --help: {seconds:.2f} s")
    code = "import sys, spectramind_nb.apps.cli; print({'torch', 'numpy', 'hydra', 'papermill'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


LIGHT = """
import sys
from spectramind_nb.apps.cli import main
for line in ("audit list", "audit show first", "audit verify", "train --cfg", "profiles show ci_fast", "validate submission.csv"):
    sys.argv = ["spectramind", *line.split()]
    try:
        main()
    except SystemExit:
        pass
    print(line, {"torch", "pytorch_lightning", "matplotlib", "numba"} & set(sys.modules), file=sys.stderr)
"""


def test_what_trains_nothing_does_not_load_what_trains(tmp_path):
    """It takes seconds, and people wait for them."""
    (tmp_path / "logs/first").mkdir(parents=True)
    (tmp_path / "logs/first/audit.json").write_text('{"outcome": "finished"}')
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "set()" in line or "{" in line]
    assert '"outcome": "finished"' in done.stdout and len(said) == 6 and all("set()" in line for line in said), done.stderr


# -- configuration -------------------------------------------------------------------------------------------------


def test_cfg_prints_the_composed_configuration(workspace):
    from omegaconf import OmegaConf

    result = invoke("train", "--cfg", "trainer=ci_fast", "trainer.max_epochs=3")
    assert result.exit_code == 0 and OmegaConf.create(result.stdout).trainer.max_epochs == 3
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "calibrate", "fit"])
def test_an_unknown_override_suggests_the_right_one(workspace, command):
    assert_one_sentence(invoke(command, "trainer.max_epoch=3"), 2, "max_epoch", "Did you mean 'max_epochs'?")


def test_an_unknown_profile_suggests_the_right_one(workspace):
    assert_one_sentence(invoke("train", "trainer=ci_fsat"), 2, "Did you mean 'ci_fast'?")
    assert_one_sentence(invoke("profiles", "show", "kaggle_save"), 2, "Did you mean 'kaggle_safe'?")


@pytest.mark.parametrize("command", ["train", "calibrate", "fit"])
def test_a_missing_data_root_is_named(workspace, command):
    result = invoke(command, "trainer=ci_fast", "data=ariel2025", f"data.root={workspace / 'nowhere'}")
    assert result.exit_code == 3 and "nowhere" in result.stderr.splitlines()[-1], result.output


def test_profiles_are_listed_and_shown():
    assert all(name in invoke("profiles").stdout for name in ("ci_fast", "defaults", "kaggle_safe"))
    assert invoke("profiles").stdout == invoke("profiles", "list").stdout
    assert "max_epochs: 1" in invoke("profiles", "show", "ci_fast").stdout


# -- submissions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def table():
    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.uniform(0.009, 0.011, (4, 283)), columns=list(submission.DEPTH_COLUMNS))
    sigmas = pd.DataFrame(np.full((4, 283), 1e-4), columns=list(submission.SIGMA_COLUMNS))
    return pd.concat([pd.Series([11, 12, 13, 14], name="planet_id"), frame, sigmas], axis=1)


def spoil(name):
    def change(table):
        if name == "missing column":
            return table.drop(columns="wl_7")
        if name == "negative sigma":
            table.loc[2, "sigma_5"] = -1e-4
        if name == "duplicate planet":
            table.loc[3, "planet_id"] = 11
        if name == "words":
            table = table.astype({"wl_3": object})
            table.loc[1, "wl_3"] = "high"
        return table

    return change


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing column", ["wl_7", "missing"]),
        ("negative sigma", ["13", "sigma_5"]),
        ("duplicate planet", ["11"]),
        ("words", ["12", "wl_3", "high"]),
    ],
)
def test_a_bad_submission_ends_with_10_and_stays_as_it_was(tmp_path, table, fault, words):
    path = tmp_path / "submission.csv"
    spoil(fault)(table).to_csv(path, index=False)
    before = path.read_bytes()
    assert_one_sentence(invoke("validate", path), 10, *words)
    assert path.read_bytes() == before


def test_a_good_submission_is_described(tmp_path, table):
    table.to_csv(tmp_path / "submission.csv", index=False)
    result = invoke("validate", tmp_path / "submission.csv")
    assert result.exit_code == 0 and "4 planets" in result.stdout
    assert_one_sentence(invoke("validate", tmp_path / "none.csv"), 3, "none.csv")


def test_score_is_the_metric_of_the_files(tmp_path, table):
    """Against the definition, written out here for one planet after another."""
    depths, sigmas = list(submission.DEPTH_COLUMNS), list(submission.SIGMA_COLUMNS)
    truth = table[["planet_id", *depths]].copy()
    truth[depths] += np.random.default_rng(5).normal(0, 1e-4, (4, 283))
    shuffled = truth.sample(frac=1, random_state=1)
    table.to_csv(tmp_path / "s.csv", index=False)
    shuffled.to_csv(tmp_path / "t.csv", index=False)
    labels = truth[depths].to_numpy()

    def log_density(x, mean, sigma):
        return -0.5 * ((x - mean) / sigma) ** 2 - np.log(sigma * np.sqrt(2 * np.pi))

    ideal = np.array([1e-6] + [1e-5] * 282)
    weights = np.array([57.846] + [1.0] * 282)
    reference = log_density(labels, labels.mean(), labels.std())
    best = log_density(labels, labels, ideal)
    reached = log_density(labels, table[depths].to_numpy(), table[sigmas].to_numpy())
    values = (reached - reference) / (best - reference)
    expected = np.average(values, weights=np.broadcast_to(weights, values.shape))

    assert float(invoke("score", tmp_path / "s.csv", tmp_path / "t.csv").stdout) == pytest.approx(expected, abs=1e-6)
    scored = json.loads(invoke("score", tmp_path / "s.csv", tmp_path / "t.csv", "--json").stdout)
    singles = [np.average(row, weights=weights) for row in values]
    assert [scored["planets"][str(i)] for i in (11, 12, 13, 14)] == pytest.approx(singles)

    truth.iloc[1:].to_csv(tmp_path / "part.csv", index=False)
    assert_one_sentence(invoke("score", tmp_path / "s.csv", tmp_path / "part.csv"), 10, "planet 11")


# -- the rest of the house -----------------------------------------------------------------------------------------


def test_doctor_says_what_is_refused(monkeypatch):
    from spectramind_nb.apps import doctor

    assert invoke("doctor").exit_code == 0
    monkeypatch.setattr(doctor, "examine", lambda: [doctor.Finding("torch", "1.0", "refused", "supported is >=2.4")])
    result = invoke("doctor")
    assert result.exit_code == 3 and "supported is >=2.4" in result.stdout and "torch" in result.stderr


def test_kernel_check_speaks_for_a_folder(tmp_path, repo):
    assert invoke("kernel", "check", repo / "kaggle" / "kernels" / "train").exit_code == 0
    assert_one_sentence(invoke("kernel", "check", tmp_path), 3, "kernel-metadata.json")


def test_notebook_refuses_what_papermill_would_swallow(tmp_path, repo):
    train = repo / "kaggle" / "kernels" / "train" / "train.ipynb"
    out = tmp_path / "out.ipynb"
    assert_one_sentence(
        invoke("notebook", train, "-y", "{profil: ci_fast}", "--out", out), 2, "Did you mean 'profile'?"
    )
    assert_one_sentence(invoke("notebook", train, "-y", "profile=ci_fast", "--out", out), 2, "YAML")
    assert not out.exists()


def test_the_module_is_the_console_script(spectramind, workspace):
    done = spectramind("train", "trainer=ci_fsat", cwd=workspace)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Did you mean 'ci_fast'?" in done.stderr
    assert cli.main.__module__ == "spectramind_nb.apps.cli"


def test_who_closes_the_output_is_told_nothing(tmp_path):
    words = [sys.executable, "-m", "spectramind_nb", "profiles", "list"]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_export_is_on_record(whole_run, here, tmp_path):
    before = len(audit.ended(here / "logs"))
    export_command(str(whole_run.dir), form="csv", out=tmp_path / "spectra")
    (made,) = audit.ended(here / "logs")[before:]
    assert made["command"] == "export" and made["run_id"] == whole_run.id and list((tmp_path / "spectra").iterdir())
