"""Several processes train as one: on one machine, on two that torchrun or SLURM started, killed, resumed, poisoned. All on gloo."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from own_process import Forked, command

from spectramind_nb.core.errors import NonFiniteError, SpectraMindError
from spectramind_nb.records import audit
from spectramind_nb.records.journal import events, step_losses
from spectramind_nb.runs import devices, execution, ranks
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.trainer import trainer_arguments
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Wall, Watchdog

TWO = ["trainer=multi_gpu", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.fixture
def two(words):
    """The small run of `words`, in two processes."""
    return [*words, *TWO]


@pytest.fixture
def pair(two, _kept):
    """That run, never interrupted."""
    if "pair" not in _kept:
        _kept["pair"] = train(overrides=two, resume="never")
    return _kept["pair"]


def result(run):
    """What must be equal in equal runs."""
    return run.record["weights"], step_losses(run.dir / "events.jsonl"), run.metrics, (run.dir / "submission.csv").read_bytes()


def agreements(run):
    return [line for line in events(run.dir / "events.jsonl") if line["event"] == "processes agree"]


def test_p37_two_processes_end_with_equal_weights_after_each_epoch(pair):
    assert pair.outcome == "finished" and pair.record["devices"]["devices"] == 2
    assert [(line["epoch"], line["processes"]) for line in agreements(pair)] == [(0, 2), (1, 2), (2, 2)]
    assert len({line["parameters"] for line in agreements(pair)}) == 3, "they learn"


def test_p37_each_process_gets_a_share_of_the_planets(pair, whole_run):
    assert 2 * len(step_losses(pair.dir / "events.jsonl")) == len(step_losses(whole_run.dir / "events.jsonl"))


def test_p48_only_the_first_process_writes(pair):
    lines = [(line["event"], line.get("epoch"), line.get("batch")) for line in events(pair.dir / "events.jsonl")
             if line["event"] in ("start", "step", "epoch", "validation", "submission", "end")]
    assert len(lines) == len(set(lines)), "nothing is told twice"
    assert not list(pair.dir.glob("rank-*"))
    assert (pair.dir / "metrics.csv").read_text().count("attempt") == 1
    ledger = [line["event"] for line in audit.entries(Path("logs/audit.jsonl")) if line.get("run_id") == pair.id]
    assert ledger == ["run", "finish"]


def test_p36_p47_auto_precision_of_a_simulation_is_float32(pair):
    assert pair.config.trainer.precision == "auto" and pair.record["precision"]["trainer"] == "32-true"


def test_p19_the_others_go_by_the_configuration_that_was_frozen(pair):
    order = json.loads((pair.dir / "launch.json").read_text())
    assert order["config_hash"] == pair.record["config_hash"] and order["settings"] == pair.record["devices"]


def test_p35_the_strategy_is_built_from_the_profile(pair):
    arguments = trainer_arguments(pair.config.trainer, devices.Devices("cpu", 2, 1, "32-true"))
    strategy = arguments["strategy"]
    assert type(strategy).__name__ == "DDPStrategy" and strategy._timeout.total_seconds() == 1800
    assert strategy._ddp_kwargs == {"find_unused_parameters": False, "static_graph": False}


def test_p37_the_next_run_in_this_process_is_alone_again(pair, whole_run, words):
    assert not {"LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "SPECTRAMIND_RUN_DIR"} & set(os.environ)
    assert not torch.distributed.is_initialized()
    assert result(train(overrides=words, resume="never")) == result(whole_run)


def test_p34_a_notebook_trains_on_all_devices_with_fresh_processes(pair, words, monkeypatch):
    """Lightning would refuse, because in a notebook it could only repeat the kernel's command line or fork it."""
    monkeypatch.setattr(ranks.accelerator_connector, "_IS_INTERACTIVE", True)
    run = train("ddp_notebook", [*words, *TWO[1:]], resume="never")
    assert run.record["weights"] == pair.record["weights"] and ranks.accelerator_connector._IS_INTERACTIVE


@pytest.mark.parametrize("look", [2, 7])
def test_p24_p37_p50_all_processes_leave_at_the_wall_together_and_resume_exactly(pair, two, monkeypatch, look):
    looks, walled = itertools.count(), [*two, "trainer.wall.budget=9h"]
    wall = Wall(0.0, 1000.0, 1.0, clock=lambda: 0.0 if next(looks) < look else 1e6)
    with monkeypatch.context() as patch:  # in the first process only: its decision must reach the other
        patch.setattr(execution, "_run_wall", lambda config: wall)
        patch.setattr(Watchdog, "__enter__", lambda self: self)
        stopped = train(overrides=walled, resume="never")
    assert (stopped.outcome, stopped.exit_code) == ("wall", 75) and not list(stopped.dir.glob("rank-*"))
    resumed = train(overrides=walled)
    assert resumed.dir == stopped.dir and resumed.record["attempt"] == 2
    assert result(resumed) == result(pair)


POISON = """
import os
if os.environ.get("LOCAL_RANK") == "1":
    from spectramind_nb.learning.posterior import PosteriorModel as Model
    {patch}
"""


def poisoned(monkeypatch, tmp_path, patch):
    """Change the model in the second process only."""
    (tmp_path / "sitecustomize.py").write_text(POISON.format(patch=patch))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_p32_p37_an_error_in_another_process_is_told_by_the_first(two, monkeypatch, tmp_path):
    patch = "honest = Model.training_step; Model.training_step = lambda self, *rest: honest(self, *rest) * float('nan')"
    poisoned(monkeypatch, tmp_path, patch)
    began = time.time()
    with pytest.raises(NonFiniteError, match=r"the loss is nan .*rank-1") as caught:
        train(overrides=[*two, "run_id=poisoned-pair"], resume="never")
    assert caught.value.exit_code == 11 and time.time() - began < 60
    run = Run.open("poisoned-pair")
    assert (run.outcome, run.exit_code) == ("failed", 11) and not list(run.dir.rglob("*.ckpt"))


def test_p37_weights_that_drift_apart_end_the_run(two, monkeypatch, tmp_path):
    patch = "Model.on_train_batch_end = lambda self, *rest: [p.data.add_(1e-9) for p in self.parameters()]"
    poisoned(monkeypatch, tmp_path, patch)
    with pytest.raises(SpectraMindError, match="the weights of process 1 differ from those of process 0 .end of epoch 0."):
        train(overrides=[*two, "run_id=drifted"], resume="never")
    assert Run.open("drifted").outcome == "failed"


def test_p37_a_process_that_waits_in_vain_closes_its_record(tmp_path):
    """A complaint that comes while the first process hangs in a collective operation."""
    from spectramind_nb.runs.followers import leave_failure_note, watch_followers

    told = []
    with watch_followers(tmp_path, told.append, patience_s=0.2):
        with leave_failure_note(tmp_path, 3):
            raise NonFiniteError("the loss is nan", "training epoch 2, batch 7")
        deadline = time.time() + 10
        while not told and time.time() < deadline:
            time.sleep(0.05)
    assert str(told[0]) == "the loss is nan (training epoch 2, batch 7, rank-3)." and told[0].exit_code == 11


# -- as users start it ---------------------------------------------------------------------------------------------


def environment(repo, **more):
    return {**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1", **more}


def runs_named(name):
    return Path("logs").absolute() / name


def test_p50_ctrl_c_reaches_all_processes_and_the_run_resumes_exactly(two, repo, _kept):
    long = [*(word for word in two if "max_epochs" not in word), "trainer.max_epochs=20", "trainer.checkpoint.every=0s"]
    whole = train(overrides=[*long, "run_id=long-pair"], resume="never")
    first = Forked(command, ["spectramind", "train", "--resume", "never", "run_id=stopped-pair", *long], Path.cwd(), environment(repo))
    diary, deadline = runs_named("stopped-pair") / "events.jsonl", time.time() + 120
    while time.time() < deadline and first.poll() is None and not (diary.exists() and diary.read_text().count('"checkpoint"') > 4):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does
    said, errors = first.communicate(timeout=60)
    assert first.poll() == 130, errors
    assert "Traceback" not in errors and errors.count("interrupted (state saved)") == 1, errors
    resumed = train(overrides=[*long, "run_id=stopped-pair"], resume="stopped-pair")
    assert resumed.record["attempt"] == 2 and result(resumed) == result(whole)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def finished(processes):
    """Output and exit code of each process."""
    outputs = [process.communicate(timeout=150)[0] for process in processes]
    return [(output, process.returncode) for output, process in zip(outputs, processes, strict=True)]


def test_p39_p43_two_machines_started_by_torchrun_train_as_one(pair, words, repo):
    port = free_port()
    ddp = [*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "run_id=torchrun"]
    start = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
    processes = [
        subprocess.Popen([*start, f"--master-port={port}", f"--node-rank={node}", "-m", "spectramind_nb", "train", *ddp],
                         env=environment(repo), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for node in (0, 1)
    ]
    (said, code), (quiet, other) = finished(processes)
    assert (code, other) == (0, 0), said + quiet
    run = Run.open("torchrun")
    assert f"run {run}" in said and "run torchrun" not in quiet
    assert [line["parameters"] for line in agreements(run)] == [line["parameters"] for line in agreements(pair)]
    assert run.record["weights"] == pair.record["weights"], "two machines are two processes"
    assert not any(Path("logs/.launch").glob("*")), "the meeting is over"


def test_p39_p42_two_machines_started_by_slurm_train_as_one(pair, words, repo):
    ddp = [*words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "run_id=slurm"]
    job = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1",
           "SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    processes = [
        Forked(command, ["spectramind", "train", *ddp], Path.cwd(),
               environment(repo, **job, SLURM_PROCID=rank, SLURM_NODEID=rank, SLURM_LOCALID="0"))
        for rank in ("0", "1")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=150)
        assert process.poll() == 0, errors
    assert Run.open("slurm").record["weights"] == pair.record["weights"]


@pytest.mark.gpu
def test_p34_p36_ddp_on_real_gpus(words):
    if torch.cuda.device_count() < 2:
        pytest.skip("NOT TESTED ON GPUS: there are fewer than two CUDA devices")
    run = train(overrides=[*words, "trainer=multi_gpu"], resume="never")
    assert run.outcome == "finished" and len(agreements(run)) == 3
