"""Where metrics go: the file always, everything else only when asked for, and nothing over the network where none is promised."""

import json
import socket
import subprocess
import sys

import pandas as pd
import pytest
import pytorch_lightning.loggers

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import PreflightError
from spectramind_nb.records import training_log
from spectramind_nb.records.training_log import MetricsFile, loggers
from spectramind_nb.runs.training import train


class Recorder(MetricsFile):
    """Stands for a tracker that is not installed here; remembers how it was made."""

    made = []

    def __init__(self, *places, **settings):
        Recorder.made.append({**settings, "place": places})


@pytest.fixture
def trackers(monkeypatch):
    """All three packages seem to be installed."""
    monkeypatch.setattr(training_log, "find_spec", lambda package: package)
    for name in ("TensorBoardLogger", "WandbLogger", "MLFlowLogger"):
        monkeypatch.setattr(pytorch_lightning.loggers, name, Recorder)
    Recorder.made = []
    return Recorder.made


def node(*words):
    return compose(overrides=words).logger


def test_p31_csv_always_and_tensorboard_where_it_is_installed(tmp_path, monkeypatch, trackers):
    found = loggers(node(), tmp_path, 2)
    assert isinstance(found[0], MetricsFile) and len(found) == 2 and trackers[0]["version"] == "attempt2"
    assert len(loggers(node("logger.tensorboard=false"), tmp_path)) == 1
    monkeypatch.setattr(training_log, "find_spec", lambda package: None)
    assert [type(logger) for logger in loggers(node(), tmp_path)] == [MetricsFile]


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "mlflow"])
def test_p52_a_tracker_that_is_not_installed_ends_the_run_before_the_data(words, monkeypatch, package):
    monkeypatch.setattr(training_log, "find_spec", lambda package: None)
    monkeypatch.setattr("spectramind_nb.runs.execution.open_data", None)
    with pytest.raises(PreflightError, match=f"{package} is not installed .*pip install {package}") as caught:
        train(overrides=[*words, f"logger={package}"])
    assert caught.value.exit_code == 3


def test_p52_p53_trackers_are_off_and_stay_on_this_disk_without_a_network(tmp_path, trackers):
    for profile in ("ci_fast", "kaggle_safe", "t4x2", "eval_only"):
        config = compose(profile)
        assert not config.trainer.network and not config.logger.wandb.enabled and not config.logger.mlflow.enabled
    away = "logger.mlflow.tracking_uri=https://tracking.example"
    loggers(node("logger=wandb", "logger.tensorboard=false"), tmp_path, network=False)
    loggers(node("logger=mlflow", "logger.tensorboard=false", away), tmp_path, network=False)
    assert trackers[0]["offline"] is True and trackers[1]["tracking_uri"].startswith("file:")
    trackers.clear()
    loggers(node("logger=wandb", "logger.tensorboard=false"), tmp_path)
    loggers(node("logger=mlflow", "logger.tensorboard=false", away), tmp_path)
    assert trackers[0]["offline"] is False and trackers[1]["tracking_uri"] == "https://tracking.example"


def test_p52_nothing_of_a_tracker_is_imported_at_start():
    code = ("import json, sys, spectramind_nb.runs.training; "
            "print(json.dumps([name for name in ('wandb', 'mlflow', 'tensorboard', 'tensorboardX') if name in sys.modules]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("profile", ["ci_fast", "kaggle_safe"])
def test_p53_a_run_touches_no_network(whole_run, words, monkeypatch, profile):
    """Every attempt to connect or to look up a name, in any thread of the run, would raise."""
    tried = []

    def refuse(self, address, *rest):
        if self.family != socket.AF_UNIX:  # processes on this machine talk through files
            tried.append(address)
            raise OSError("no network here")
        return honest(self, address, *rest)

    honest = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: tried.append(words) or [])
    run = train(profile, [*words, "trainer.max_epochs=1"], resume="never")
    assert run.outcome == "finished" and tried == []


def test_p51_lines_where_nobody_watches_a_bar(whole_run, words, capsys):
    train(overrides=words, resume="never")
    errors = capsys.readouterr().err
    assert "epoch 3/3: train/loss" in errors and "\r" not in errors and "\x1b" not in errors


def test_p51_rows_wait_no_longer_than_they_may(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training_log.time, "monotonic", lambda: now[0])
    file, writes = MetricsFile(tmp_path / "metrics.csv", flush_s=10.0), 0
    honest = MetricsFile.save

    def counted(self):
        nonlocal writes
        writes += bool(self._rows)
        honest(self)

    monkeypatch.setattr(MetricsFile, "save", counted)
    for step in range(1000):
        now[0] += 0.1
        file.log_metrics({"train/loss": float(step)}, step)
    file.finalize("success")
    assert writes <= 100 / 10 + 1 and len(pd.read_csv(tmp_path / "metrics.csv")) == 1000
