"""What a run runs on: devices that are there and compute, in machines that are alike. Numbers are those of the promises."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.environment import Place, place
from spectramind_nb.core.errors import ConfigError, PreflightError
from spectramind_nb.runs import devices, launch
from spectramind_nb.runs.devices import Gpu, one_device, resolve_devices
from spectramind_nb.runs.launch import check_request, requested_config, write_message
from spectramind_nb.runs.ranks import synchronised_batchnorm
from spectramind_nb.runs.rendezvous import (
    announce_stores,
    process_identity,
    rendezvous_follower,
    rendezvous_leader,
    wait_for_stores,
)
from spectramind_nb.runs.trainer import trainer_arguments

T4, A100, H100 = Gpu("Tesla T4", (7, 5)), Gpu("A100", (8, 0)), Gpu("H100", (9, 0))
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"}


def works(index):
    return None


def trainer(profile, *overrides):
    return compose(profile, [f"trainer.{word}" for word in overrides]).trainer.plain()


def refused(profile, here, present, fault=works):
    with pytest.raises(PreflightError) as caught:
        resolve_devices(profile, here, present, fault)
    assert caught.value.exit_code == 3
    return str(caught.value)


# -- how many ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked, present, used", [
    ("auto", [T4, T4], [0, 1]), (-1, [T4, T4], [0, 1]), (1, [T4, T4], [0]), ("2", [A100] * 4, [0, 1]), ("1,3", [A100] * 4, [1, 3]),
    ([2], [A100] * 4, [2]),
])
def test_p34_devices_are_counted(asked, present, used):
    settled = resolve_devices(trainer("multi_gpu") | {"devices": asked}, Place(), present, works)
    assert (settled.devices, settled.world_size) == (used, len(used))


def test_p34_more_devices_than_there_are_is_refused_before_any_process_starts():
    message = refused(trainer("multi_gpu", "devices=4"), Place(), [T4, T4])
    assert "4 GPUs are asked for and 2 are here" in message and "trainer.devices=2" in message
    assert "there is no GPU 5" in refused(trainer("multi_gpu") | {"devices": [0, 5]}, Place(), [T4, T4])


def test_p34_one_visible_device_is_a_single_process_with_a_note():
    settled = resolve_devices(trainer("multi_gpu"), Place(), [T4], works)
    assert settled.world_size == 1 and settled.notes == ("one device is here, so the run is a single process",)
    assert trainer_arguments(compose("multi_gpu").trainer, settled)["strategy"] == "auto"


def test_p23_idle_devices_are_mentioned():
    assert resolve_devices(trainer("defaults"), Place(), [T4] * 3, works).notes == ("2 more GPUs are idle; trainer=multi_gpu uses all",)
    assert resolve_devices(trainer("defaults"), Place(), [T4], works).notes == ()


@pytest.mark.parametrize("profile, words", [("multi_gpu", ["devices=4"]), ("ddp", ["devices=8", "num_nodes=2"])])
def test_p62_p63_without_a_gpu_the_sentence_says_how_to_simulate(profile, words):
    message = refused(trainer(profile, *words), Place(), [])
    assert "there is none here" in message and "trainer.accelerator=cpu trainer.devices=2" in message


def test_p62_the_sentence_comes_before_torch_is_imported(repo, workspace):
    code = ("import sys; from spectramind_nb.records.audit import recorded; from spectramind_nb.runs.launch import requested_config\n"
            "try:\n"
            "    with recorded('train'): requested_config(['trainer=multi_gpu', 'trainer.devices=4'])\n"
            "finally: print([name for name in ('torch', 'pytorch_lightning', 'pandas') if name in sys.modules])")
    environment = {**os.environ, "PYTHONPATH": str(repo), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]" and "4 GPUs are asked for and there is none here" in done.stderr
    record = (workspace / "logs" / "audit.jsonl").read_text()
    assert '"outcome":"failed"' in record and '"exit_code":3' in record


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_p62_hidden_gpus_do_not_count(monkeypatch, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert launch.visible_gpus() == 0


# -- what they can do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile, present, enough", [
    ("a100", [A100], True), ("a100", [H100, A100], True), ("a100", [A100, T4], False), ("h100", [A100], False), ("h100", [H100], True),
    ("t4x2", [T4, T4], True), ("t4x2", [Gpu("P100", (6, 0))] * 2, False),
])
def test_p56_gpus_that_are_too_old_are_refused(profile, present, enough):
    if enough:
        assert resolve_devices(trainer(profile), Place(), present, works).accelerator == "cuda"
    else:
        assert "compute capability" in refused(trainer(profile), Place(), present)


def test_p56_a_gpu_that_is_visible_but_does_not_compute_is_refused():
    broken = {1: "CUDA error: no kernel image is available for execution on the device"}
    message = refused(trainer("multi_gpu"), Place(), [T4, T4], broken.get)
    assert "GPU 1 (Tesla T4) is visible but does not compute: CUDA error: no kernel image" in message


def test_apple_gpus_have_no_float64():
    assert "float64" in refused(trainer("defaults", "accelerator=mps"), Place(), [])


@pytest.mark.gpu
def test_p56_a_real_gpu_computes():
    if not torch.cuda.is_available():
        pytest.skip("NOT TESTED ON A GPU: there is no CUDA device")
    assert devices.kernel_fault(0) is None and launch.visible_gpus() == torch.cuda.device_count() == len(devices.gpus())
    settled = resolve_devices(trainer("multi_gpu"), Place())
    assert settled.native_bf16 == torch.cuda.is_bf16_supported(including_emulation=False)


# -- batch normalisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerator, count, with_bn, synchronised", [
    ("cuda", 2, True, True), ("cuda", 2, False, False), ("cuda", 1, True, False), ("cpu", 2, True, False),
])
def test_p40_batch_normalisation_is_synchronised_only_where_that_works(accelerator, count, with_bn, synchronised):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2) if with_bn else torch.nn.ReLU())
    assert synchronised_batchnorm(True, devices.Devices(accelerator, count, 1, "32-true"), model) is synchronised
    assert synchronised_batchnorm(False, devices.Devices(accelerator, count, 1, "32-true"), model) is False


# -- several machines ----------------------------------------------------------------------------------------------


def test_p39_several_machines_need_someone_to_start_them():
    profile = trainer("ddp", "accelerator=cpu", "devices=1", "num_nodes=2")
    message = refused(profile, Place(), [])
    assert "2 machines are asked for and this process was started alone" in message and "torchrun --nnodes=2" in message
    assert resolve_devices(profile, Place(0, 2, "torchrun"), [], works).world_size == 2


@pytest.mark.parametrize("here, starter", [(place(TORCHRUN), "torchrun"), (place(SLURM), "slurm")])
def test_p39_the_number_of_processes_is_that_of_torchrun_or_slurm(here, starter):
    assert here.starter == starter and not here.leads
    message = refused(trainer("ddp", "accelerator=cpu", "devices=3", "num_nodes=2"), here, [])
    assert f"{starter} started {here.world_size} processes and the configuration asks for 6" in message
    check_request(trainer("ddp", "accelerator=cpu", f"devices={here.world_size // 2}", "num_nodes=2"), here, 0)
    assert "asks for 1" in refused(trainer("defaults"), here, []), "a profile for one device is not what was started"


def test_p39_a_shell_inside_an_allocation_is_no_job():
    assert place(SLURM | {"SLURM_JOB_NAME": "interactive"}).starter == "alone"
    assert place({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).leads
    assert place({"LOCAL_RANK": "1"}).leads, "left over from something else: nobody left an order"


def test_looking_needs_one_device_only():
    for asked, first in (("auto", 1), (4, 1), ("2,3", [2]), ([1, 2], [1])):
        looking = one_device(trainer("ddp", "devices=8", "num_nodes=2") | {"devices": asked})
        assert (looking["devices"], looking["num_nodes"], looking["strategy"]) == (first, 1, "auto")


def meet(folders, facts, patience_s=10.0):
    """Let two threads play two machines; returns what came of each: a value or an error."""
    found = [None, None]

    def one(rank):
        here = Place(rank, 2, "torchrun", "x")
        try:
            found[rank] = (rendezvous_leader(folders[0], here, facts[0], launch.Path("logs/run"), patience_s) if rank == 0
                           else rendezvous_follower(folders[1], here, facts[1], patience_s))
        except PreflightError as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (1, 0)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return found


def test_p43_processes_that_share_storage_meet(tmp_path):
    leading, following = meet([tmp_path, tmp_path], [{"torch": "2"}] * 2)
    assert leading is None and following[0] == launch.Path("logs/run")


def test_p43_processes_that_share_no_storage_are_told(tmp_path):
    leading, following = meet([tmp_path / "a", tmp_path / "b"], [{}, {}], patience_s=0.5)
    assert leading.exit_code == following.exit_code == 3
    assert "1 of 2 processes did not come to the meeting" in str(leading) and "all of them share" in str(leading)
    assert "must share this folder" in str(following)


def test_p43_what_an_earlier_start_left_means_nothing(tmp_path):
    meet([tmp_path, tmp_path], [{}, {}])
    with pytest.raises(PreflightError, match="did not come"):
        rendezvous_leader(tmp_path, Place(0, 2, "torchrun"), {}, launch.Path("logs/run"), 0.3)
    with pytest.raises(PreflightError, match="did not come"):
        rendezvous_follower(tmp_path, Place(1, 2, "torchrun"), {}, 0.3)
    assert meet([tmp_path, tmp_path], [{}, {}])[1][0] == launch.Path("logs/run"), "and does not stand in the way"


@pytest.mark.parametrize("name", ["configuration", "code", "torch", "gpus", "driver", "python"])
def test_p42_machines_that_are_not_alike_are_refused(tmp_path, name):
    ours = process_identity(compose("ci_fast"))
    theirs = ours | {name: "something else"}
    leading, following = meet([tmp_path, tmp_path], [ours, theirs])
    assert leading.exit_code == following.exit_code == 3
    assert f"process 1 has another {name} than process 0: something else" in str(leading) and leading.what == following.what


def test_p42_equal_machines_have_equal_identities():
    assert process_identity(compose("ci_fast")) == process_identity(compose("ci_fast")) != process_identity(compose("defaults"))


def test_p19_a_frozen_configuration_that_was_changed_is_refused(tmp_path):
    config = compose("ci_fast")
    (tmp_path / "config.yaml").write_text(config.yaml())
    assert launch.frozen_config(tmp_path, config.hash) == config
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("max_epochs: 1", "max_epochs: 2"))
    with pytest.raises(ConfigError, match="not the one this run was started with"):
        launch.frozen_config(tmp_path, config.hash)


def test_stores_are_waited_for_as_long_as_the_leading_process_lives(tmp_path):
    write_message(tmp_path / "leader.json", {"word": "w"})
    (tmp_path / "run").mkdir()
    waiting = threading.Thread(target=wait_for_stores, args=(tmp_path, "w", tmp_path / "run"))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive()
    announce_stores(tmp_path)
    waiting.join(2)
    assert not waiting.is_alive()
    (tmp_path / "run" / "audit.json").write_text('{"outcome": "failed"}')
    with pytest.raises(PreflightError, match="ended before its stores were full"):
        wait_for_stores(tmp_path, "another", tmp_path / "run")


@pytest.mark.parametrize("words, said", [
    (["fit=own"], "train with fit=default"), (["trainer=eval_only"], "trains nothing"), (["trainer.max_steps=0"], "trains nothing"),
    (["trainer.limit_train_batches=0"], "trains nothing"),
])
def test_what_cannot_be_trained_is_told_before_anything_is_done(words, said):
    """`fit=own` ended in a sentence of PyTorch after all visits were fitted, without steps a run was "finished"."""
    with pytest.raises(ConfigError, match=said):
        requested_config(words)
