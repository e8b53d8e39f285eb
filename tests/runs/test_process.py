"""What a notebook has done to its process reaches no run, and the notebook gets it back: same bits, same state afterwards."""

import contextlib
import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from spectramind_nb.core import environment
from spectramind_nb.core.environment import place
from spectramind_nb.core.errors import InterruptedRun, PreflightError
from spectramind_nb.records.audit import recorded
from spectramind_nb.runs import process
from spectramind_nb.runs.ranks import cluster_plugins
from spectramind_nb.runs.replay import replay
from spectramind_nb.runs.trainer import ProgressLines
from spectramind_nb.runs.training import train

BACKENDS = [backend for backend in (torch.backends, torch.backends.cuda.matmul) if hasattr(backend, "fp32_precision")]


def state() -> dict:
    """Everything in a process that can change what PyTorch computes."""
    try:
        matmul = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = "mixed"
    return {
        "dtype": torch.get_default_dtype(), "device": torch.get_default_device(), "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(), "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "anomaly": torch.is_anomaly_enabled(), "threads": torch.get_num_threads(), "mkldnn": torch.backends.mkldnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(), "warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "matmul": matmul, "backends": [backend.fp32_precision for backend in BACKENDS], "variables": dict(os.environ),
    }


@contextlib.contextmanager
def notebook(kind: str):
    """A process in which somebody worked before."""
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.callback(torch.set_default_device, None)
        stack.callback(torch.use_deterministic_algorithms, False)
        stack.callback(torch.set_float32_matmul_precision, "highest")
        if kind == "double precision":
            torch.set_default_dtype(torch.float64)
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.set_float32_matmul_precision("medium")
            stack.enter_context(torch.autocast("cpu"))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.autograd.set_detect_anomaly(True))
        if kind == "looking only":
            torch.set_default_device("meta")
            stack.enter_context(torch.inference_mode())
            patch.setattr(torch.backends.cudnn, "benchmark", True)
            stack.callback(torch.backends.mkldnn.set_flags, torch.backends.mkldnn.set_flags(False)[0])
        if kind == "another device":
            stack.enter_context(torch.device("meta"))
        if kind == "newer settings":
            for backend in BACKENDS:
                stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
                backend.fp32_precision = "tf32"
        yield


KINDS = ["double precision", "looking only", "another device", "newer settings"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_the_same_whatever_the_notebook_did_before(kind, words, whole_run):
    with notebook(kind):
        before = state()
        run = train(overrides=words, resume="never")
        table = run.predict() if kind == "looking only" else None
        assert state() == before
    assert run.record["weights"] == whole_run.record["weights"] and run.metrics == whole_run.metrics
    assert table is None or table.equals(whole_run.predict())


def test_a_replay_in_another_notebook_says_identical(whole_run):
    with notebook("double precision"):
        assert "identical" in str(replay(whole_run))


def test_a_fit_is_the_same_whatever_the_notebook_did_before(short_root, stores, tmp_path):
    """In a process of its own: what comes before the first import decides what the library's own constants become."""
    code = f"""
import torch
torch.set_default_device('meta'), torch.set_default_dtype(torch.float64)
from spectramind_nb.core.configuration import compose
from spectramind_nb.runs.data import open_data
from spectramind_nb.runs.process import restored_process
from spectramind_nb.runs.stages import fill_split
for cache in ({str(tmp_path)!r}, {str(stores)!r}):
    with restored_process():
        config = compose(overrides=["data.root={short_root}", "data.workers=1", "paths.cache=" + cache])
        print([fit.depth.tolist() for fit in fill_split(config, open_data(config), "test", "fit").done.values()])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = done.stdout.splitlines()
    assert ours == theirs and len(ours) > 1000


def test_the_notebooks_random_numbers_go_on_where_they_were():
    drawn = []
    for within in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if within:
            with process.restored_process():
                random.seed(2), np.random.seed(2), torch.manual_seed(2)
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_given_back_after_a_failure_too(kind):
    with notebook(kind):
        before = state()
        with pytest.raises(ZeroDivisionError), process.restored_process():
            torch.set_float32_matmul_precision("high")
            torch.set_default_dtype(torch.float64), os.environ.update(SPECTRAMIND_TEST="1")
            raise ZeroDivisionError
        assert state() == before


# -- started by others ---------------------------------------------------------------------------------------------

BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "batch", "SLURM_NTASKS_PER_NODE": "4"}


@pytest.mark.parametrize("known", [
    BATCH, BATCH | {"SLURM_JOB_NAME": "jupyter"}, {"SLURM_NTASKS": ""}, {"SLURM_NTASKS": "", "SLURM_STEP_ID": "0"}, {"LOCAL_RANK": ""},
    {"TORCHELASTIC_RUN_ID": ""}, {"SPECTRAMIND_RUN_DIR": "/x", "LOCAL_RANK": ""},
])
def test_a_process_of_an_allocation_that_srun_did_not_start_is_alone(known):
    assert place(known).starter == "alone" and place(known).leads


def test_srun_is_told_by_its_step():
    step = BATCH | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}
    assert (place(step).starter, place(step).rank, place(step).world_size) == ("slurm", 3, 4)
    assert place(step | {"SLURM_STEP_NUM_TASKS": "1"}).starter == "alone", "one task of an allocation of four"


@pytest.mark.parametrize("known", [
    {"SLURM_NTASKS": "four", "SLURM_STEP_ID": "0"}, {"TORCHELASTIC_RUN_ID": "x", "RANK": "", "WORLD_SIZE": "2"},
])
def test_a_number_that_is_none_is_named(known):
    with pytest.raises(PreflightError, match="must be a whole number"):
        place(known)


def test_lightning_does_not_wait_for_what_srun_never_started(words, whole_run, monkeypatch):
    for name, value in BATCH.items():
        monkeypatch.setenv(name, value)
    assert [type(plugin).__name__ for plugin in cluster_plugins(place())] == ["LightningEnvironment"]
    run = train(overrides=words, resume="never")
    assert run.record["weights"] == whole_run.record["weights"] and run.evaluate() == whole_run.evaluate()


# -- what is said --------------------------------------------------------------------------------------------------


def test_a_stopped_run_says_what_its_validations_found(words, monkeypatch, capsys):
    def stop(lines, trainer, module, done=ProgressLines.on_validation_end):
        done(lines, trainer, module)
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ProgressLines, "on_validation_end", stop)
    with pytest.raises(InterruptedRun) as caught:
        train(overrides=words, resume="never")
    said = capsys.readouterr().out
    assert "no validation was done" not in said and "stopped early: the last val/score was 0." in said and "in epoch 2" in said
    assert len(caught.value._render_traceback_()) == 1, "a notebook shows one sentence and no trace"


def test_the_first_and_last_lines_of_a_run_speak_of_the_run(words, capsys):
    train(overrides=[*words, "trainer.max_epochs=1"], resume="never")
    said = capsys.readouterr()
    assert "guardrails: this run is held to wall none; disk 2GB" in said.err and "envelope: this run used " in said.out


def test_an_interrupted_command_shows_no_trace_in_a_notebook(workspace):
    with pytest.raises(KeyboardInterrupt) as caught, recorded("fit"):
        raise KeyboardInterrupt
    assert "go on" in caught.value._render_traceback_()[0]


def test_in_a_notebook_progress_is_no_warning(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None)))
    monkeypatch.setenv(environment.UNATTENDED, "1")
    assert list(environment.progress("ab", 2, "fit")) == ["a", "b"]
    said = capsys.readouterr()
    assert said.out == "fit: 2/2, 0 s\n" and said.err == ""


def test_nobody_listening_ends_no_run(monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=Mock(side_effect=BrokenPipeError), flush=lambda: None, isatty=lambda: False))
    environment.tell("epoch 1/3")


def test_only_what_a_run_made_counts_as_kept(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "checkout").write_bytes(bytes(3_000_000))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "platform_name", lambda: "local")
    assert environment.kept_here(tmp_path / "run") == "1.0 MB in 1 files are kept"
    monkeypatch.setattr(environment, "platform_name", lambda: "kaggle")
    assert environment.kept_here(tmp_path / "run") == "4.0 MB in 2 files are kept", "Kaggle keeps the working folder"
