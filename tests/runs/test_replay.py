"""A finished run can be done again from its record, and whatever differs is named."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from own_process import bring_machine_code
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, ReplayMismatch, WallReached
from spectramind_nb.records import audit
from spectramind_nb.records.provenance import environment
from spectramind_nb.runs import replay as module
from spectramind_nb.runs.replay import replay
from spectramind_nb.runs.run import Run, predict
from spectramind_nb.runs.training import train


@pytest.fixture
def copy(whole_run):
    """A copy of the run that may be tampered with."""
    target = whole_run.dir.parent / "copy"
    shutil.copytree(whole_run.dir, target)
    yield Run.open(target)
    shutil.rmtree(target)


def edit(run, **fields):
    path = run.dir / "audit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_p21_a_run_repeats_bit_for_bit(whole_run):
    again = replay(whole_run.id)
    assert again.difference is None and again.verdict.word == "exact" and again.steps == 6
    assert again.again != whole_run.dir and "identical" in str(again)
    record = audit.load(again.again / "audit.json")
    assert (record["command"], record["parent"], record["exit_code"]) == ("replay", whole_run.id, 0)
    assert record["replay"] == {"tolerance": "none", "verdict": "exact", "reasons": [], "steps": 6, "difference": None}


def test_p21_a_run_leaves_no_trace_in_its_process(whole_run, words, monkeypatch):
    """What a profile puts into the environment is gone when its run is over, or the next run would inherit it."""
    variables, threads = dict(os.environ), torch.get_num_threads()
    train("ci_fast", [*words[:-1], "+trainer.env.NCCL_DEBUG=WARN", "trainer.threads=2"], resume="never")
    assert dict(os.environ) == variables and torch.get_num_threads() == threads


def test_p21_what_cannot_change_a_number_may_be_changed(whole_run, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "6640")  # Dask leaves it so in a process that started workers
    again = replay(whole_run, ["trainer.loader.num_workers=1", "logger.flush_s=0.0", "trainer.guards.outputs=false"])
    assert again.difference is None and again.verdict.word == "exact"


def test_p21_a_repetition_that_comes_to_the_wall_has_compared_nothing_and_says_so(whole_run):
    """It ended with 0, as if it had found no difference."""
    late = ["trainer.wall.budget=400s", "trainer.wall.reserve=1s", f"trainer.wall.anchor={time.time() - 500:.1f}"]
    with pytest.raises(WallReached, match=f"the repetition of {whole_run.id} came to its wall, and nothing is compared"):
        replay(whole_run, late)
    done = CliRunner().invoke(app, ["replay", whole_run.id, *late])
    assert done.exit_code == 75 and "nothing is compared" in done.stderr


def test_p21_a_run_whose_attempts_were_not_alike_cannot_be_repeated(words, here, capfd):
    """It was expected to repeat exactly, and failed without a reason."""
    words = [*words[:3], "trainer.checkpoint.every=0s", "run_id=two-ways"]
    first = train(overrides=[*words, "trainer.max_epochs=1"], resume="never")
    edit(first, modules={**first.record["modules"], "learning/posterior.py": "another"})
    again = train(overrides=[*words, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2"], resume=first)
    assert "note: attempt 1 ran with other code: learning/posterior.py\n" in capfd.readouterr().err
    assert again.record["code_changed"] == ["learning/posterior.py"]
    why = "since attempt 1 trainer.accumulate_grad_batches was 1 and is 2; since attempt 1 code file learning/posterior.py changed"
    with pytest.raises(ReplayMismatch, match=f"cannot be repeated exactly: {why}"):
        replay(again)


def test_p21_the_same_gpu_repeats_bits_and_another_only_agrees():
    facts = {**environment(), "gpus": ["Tesla T4"], "cuda": "12.8"}
    record = {"config": {"seed": 1}, "modules": {}, "data": {"files": {}}, "environment": facts}
    assert module.expectation(record, record).word == "exact"
    elsewhere = module.expectation(record, {**record, "environment": {**facts, "gpus": ["NVIDIA H100"]}})
    assert elsewhere.word == "statistical" and "Tesla T4" in str(elsewhere) and "add up in another order" in str(elsewhere)


def test_p21_a_changed_override_is_named_before_anything_runs(whole_run, monkeypatch):
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match="seed was 42 and is 43; trainer.max_epochs was 3 and is 2"):
        replay(whole_run, ["trainer.max_epochs=2", "seed=43"])
    last = audit.entries(Path("logs/audit.jsonl"))[-1]
    assert (last["command"], last["exit_code"], last["parent"]) == ("replay", 20, whole_run.id)


def test_p21_changed_code_is_named_before_anything_runs(copy, monkeypatch):
    edit(copy, modules={**copy.record["modules"], "learning/posterior.py": "0" * 64})
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match="code file learning/posterior.py changed") as caught:
        replay(copy)
    assert caught.value.exit_code == 20


def test_an_edited_configuration_is_named_before_anything_runs(copy, monkeypatch):
    path = copy.dir / "config.yaml"
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match="config.yaml was changed after the run: seed was 42 and is 43"):
        replay(copy)


def test_an_edited_record_is_named_before_anything_runs(whole_run, copy, monkeypatch):
    monkeypatch.setattr(module, "train_again", None)
    config = copy.record["config"]
    edit(copy, config={**config, "seed": 43})
    with pytest.raises(ReplayMismatch, match="the configuration in audit.json is not the one it names"):
        replay(copy)
    text = (whole_run.dir / "audit.json").read_text()
    edit(whole_run, metrics={})
    try:
        with pytest.raises(ReplayMismatch, match="audit.json was changed after the run"):
            replay(whole_run)
    finally:
        (whole_run.dir / "audit.json").write_text(text)


def test_p21_p45_a_changed_data_file_is_named_before_anything_runs(copy, monkeypatch):
    data = copy.record["data"]
    name = next(name for name in data["files"] if name.endswith("FGS1_signal_0.parquet"))
    edit(copy, data={"manifest_root": "0", "files": {**data["files"], name: "0" * 64}})
    monkeypatch.setattr(module, "train_again", None)
    with pytest.raises(ReplayMismatch, match=f"data file {name} changed"):
        replay(copy)


def test_p45_one_flipped_bit_in_the_data_is_named(whole_run, short_root, here, tmp_path):
    moved = tmp_path / "data"
    shutil.copytree(short_root, moved)
    path = sorted(moved.glob("train/*/FGS1_signal_0.parquet"))[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    name = path.relative_to(moved).as_posix()
    with pytest.raises(ReplayMismatch, match=f"data file {name} changed"):
        replay(whole_run, [f"data.root={moved}"])


def test_drift_says_what_is_not_as_it_was(whole_run, copy, warm_spectramind, here):
    unchanged = warm_spectramind("audit", "drift", whole_run.id, cwd=here, env={"OMP_NUM_THREADS": "1"})
    assert unchanged.stdout.strip() == "nothing that can change a number differs", unchanged.stderr
    versions = {**copy.record["environment"]["versions"], "numpy": "1.0"}
    edit(copy, environment={**copy.record["environment"], "versions": versions}, config={**copy.record["config"], "seed": 43})
    lines = warm_spectramind("audit", "drift", whole_run.id, "copy", "--rehash", cwd=here).stdout.splitlines()
    now = whole_run.record["environment"]["versions"]["numpy"]
    assert lines == ["config       seed: 42 -> 43", f"environment  versions.numpy: {now} -> 1.0"]


def test_p21_another_library_is_named_and_makes_the_verdict_statistical(copy, capsys):
    environment = copy.record["environment"]
    environment["versions"]["torch"] = "1.0"
    edit(copy, environment=environment)
    verdict = replay(copy, tolerance="stat").verdict
    assert verdict.word == "statistical" and verdict.reasons == (f"versions.torch was 1.0 and is {torch.__version__}",)


def tampered_diary(run, event, number, change):
    """Change one line of a run's diary."""
    path = run.dir / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change([line for line in lines if line["event"] == event][number])
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_p21_the_first_step_and_tensor_that_differ_are_named(copy):
    def other_loss(line):
        line["loss"] = (float.fromhex(line["loss"]) + 1e-12).hex()

    def other_tensors(line):
        line["tensors"] |= {"deviation.offset": "0", "deviation.level": "0"}

    tampered_diary(copy, "epoch", 1, other_tensors)
    with pytest.raises(ReplayMismatch, match="the weights at the end of epoch 1 differ, deviation.level first"):
        replay(copy)
    tampered_diary(copy, "step", 3, other_loss)
    with pytest.raises(ReplayMismatch, match="the loss at epoch 1, batch 1 was .* that differs after it is deviation.level"):
        replay(copy)
    assert replay(copy, tolerance="stat").difference is None


def test_p21_the_first_prediction_that_differs_is_named(copy):
    path = copy.dir / "submission.csv"
    header, first, second = path.read_text().splitlines()
    values = second.split(",")
    values[header.split(",").index("wl_7")] = "0.5"
    path.write_text("\n".join([header, first, ",".join(values)]) + "\n")
    with pytest.raises(ReplayMismatch, match=f"submission.csv differs, planet {values[0]} first, in wl_7"):
        replay(copy)


def test_p21_a_second_clone_repeats_the_run_from_its_record_alone(whole_run, repo, tmp_path):
    """Another checkout of the same code, another folder, another process: only audit.json and what it is compared with travel."""
    clone, place = tmp_path / "clone", tmp_path / "place"
    shutil.copytree(repo / "spectramind_nb", clone / "spectramind_nb", ignore=shutil.ignore_patterns("__pycache__"))
    bring_machine_code(clone / "spectramind_nb")
    shutil.copytree(repo / "configs", clone / "configs")
    (place / "record").mkdir(parents=True)
    for name in ("audit.json", "events.jsonl", "submission.csv"):
        shutil.copy(whole_run.dir / name, place / "record")
    code = "from spectramind_nb import replay; import spectramind_nb; print(spectramind_nb.__file__); print(replay('record').verdict)"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(clone)})
    assert done.stdout.splitlines()[0].startswith(str(clone)) and done.stdout.splitlines()[-1] == "exact", done.stderr


def test_only_finished_runs_and_known_tolerances(copy):
    edit(copy, outcome="wall")
    with pytest.raises(DataMissingError, match="did not finish"):
        replay(copy)
    with pytest.raises(ConfigError):
        replay(copy, tolerance="some")


def test_a_poisoned_record_runs_nothing(copy, tmp_path):
    path, flag = copy.dir / "config.yaml", tmp_path / "ran"
    text = path.read_text().replace("spectramind_nb.learning.posterior.PosteriorModel", "os.mkdir\n  path: " + str(flag))
    path.write_text(text)
    with pytest.raises((ConfigError, ReplayMismatch)):
        replay(copy, tolerance="stat")
    assert not flag.exists()


class Payload:
    """What a pickle runs when it is loaded carelessly."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.mkdir, (str(self.flag),)


def test_a_poisoned_checkpoint_runs_nothing(copy, words, tmp_path):
    flag = tmp_path / "ran"
    checkpoint = copy.dir / "checkpoints" / "best.ckpt"
    kept = torch.load(checkpoint, weights_only=True)
    for path in (checkpoint, copy.dir / "checkpoints" / "last.ckpt"):
        torch.save({**kept, "hyper_parameters": Payload(flag)}, path)
    for attempt in (
        lambda: predict(copy), lambda: predict(checkpoint), copy.evaluate, lambda: train(overrides=words, fork=copy),
        lambda: train(overrides=words, resume=copy.id),
    ):
        with pytest.raises(DamagedFileError):
            attempt()
    edit(copy, outcome="killed")
    assert train(overrides=words).dir != copy.dir  # resume=auto passes it by
    assert not flag.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint, weights_only=True)
    torch.load(checkpoint, weights_only=False)
    assert flag.exists(), "the payload was alive all the time"


@pytest.mark.parametrize("where", ["model", "loss", "trainer.strategy"])
def test_a_poisoned_record_runs_nothing_wherever_the_poison_is(copy, where, tmp_path):
    flag = tmp_path / "ran"
    config = copy.record["config"]
    node = config
    *above, last = where.split(".")
    for key in above:
        node = node[key]
    node[last] = {"_target_": "os.system", "command": f"mkdir {flag}"}
    from spectramind_nb.core.identity import config_hash

    edit(copy, config=config, config_hash=config_hash(config))
    (copy.dir / "config.yaml").unlink()
    with pytest.raises((ConfigError, ReplayMismatch)):
        replay(copy, tolerance="stat")
    assert not flag.exists()
