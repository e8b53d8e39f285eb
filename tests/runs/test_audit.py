"""Every invocation is recorded, whatever ends it, and what was changed afterwards shows."""

import json
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

from spectramind_nb.core.errors import ConfigError, PreflightError, TerminatedRun, WallReached
from spectramind_nb.runs import audit


@pytest.fixture
def places(workspace):
    return {"ledger": Path("logs/audit.jsonl"), "debug_log": Path("v50_debug_log.md")}


def invocation(places, name, error=None, **fields):
    path = Path("logs") / name / "audit.json"
    try:
        with audit.recorded(path, command="train", run_id=name, **places, **fields):
            if error is not None:
                raise error
    except BaseException as caught:
        assert caught is error
    return audit.load(path)


@pytest.mark.parametrize("error, outcome, code", [
    (None, "finished", 0), (WallReached("x"), "wall", 75), (TerminatedRun("x"), "terminated", 143),
    (KeyboardInterrupt(), "interrupted", 130), (ConfigError("x"), "failed", 2), (ValueError("x"), "failed", 1),
    (SystemExit(3), "failed", 3), (SystemExit(0), "finished", 0),
])
def test_p3_whatever_ends_a_run_is_written_down(places, error, outcome, code):
    record = invocation(places, "a", error)
    assert (record["outcome"], record["exit_code"]) == (outcome, code) and record["finished"] >= record["started"]
    assert [line["event"] for line in audit.entries(places["ledger"])] == ["start", "finish"]
    assert f"train: {outcome} ({code})" in places["debug_log"].read_text()


def test_p16_p44_the_record_holds_the_promised_fields(places):
    record = invocation(places, "a", overrides=["trainer=ci_fast"])
    promised = ("run_id attempt outcome exit_code argv overrides choices config_hash run_hash git data weights metrics wall "
                "environment started finished").split()
    assert set(promised) <= set(record)
    assert set(record["git"]) == {"commit", "dirty"} and set(record["wall"]) == {"budget_s", "used_s"}
    assert set(record["weights"]) >= {"initial", "final"} and set(record["data"]) == {"manifest_root", "files"}


def test_p21_the_commit_is_git_s_own(repo):
    if not (repo / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", repo, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert audit.git_state()["commit"] == head


def test_no_secret_is_recorded(places, monkeypatch):
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "hunter2")
    monkeypatch.setenv("NCCL_AUTH_KEY", "hunter2")
    monkeypatch.setattr("sys.argv", ["spectramind", "train", "logger.wandb_api_key=hunter2", "--password", "hunter2"])
    invocation(places, "a", overrides=["logger.token=hunter2"])
    written = "".join(path.read_text() for path in Path(".").rglob("*") if path.is_file())
    assert "hunter2" not in written and "logger.wandb_api_key=***" in written


def _twenty(number):
    audit.append(Path("logs/audit.jsonl"), {"run_id": f"r{number}", "event": "start"})


def test_p44_parallel_processes_leave_an_intact_chain(places):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_twenty, range(20), chunksize=1)
    lines = audit.entries(places["ledger"])
    assert sorted(line["run_id"] for line in lines) == sorted(f"r{i}" for i in range(20))
    assert [line["seq"] for line in lines] == list(range(1, 21)) and audit.verify(Path("logs")) == []


def changed(lines, kind):
    if kind == "edited":
        return [*lines[:1], lines[1].replace("finish", "finisH"), *lines[2:]]
    if kind == "deleted":
        return [*lines[:1], *lines[2:]]
    if kind == "swapped":
        return [lines[0], lines[2], lines[1], *lines[3:]]
    return lines[:-1]  # truncated


@pytest.mark.parametrize("kind", ["edited", "deleted", "swapped", "truncated"])
def test_p44_a_tampered_ledger_shows(places, kind):
    for name in "abc":
        invocation(places, name)
    assert audit.verify(Path("logs"), places["debug_log"]) == []
    lines = places["ledger"].read_text().splitlines()
    places["ledger"].write_text("\n".join(changed(lines, kind)) + "\n")
    assert audit.verify(Path("logs"), places["debug_log"])


def test_p44_a_tampered_record_shows(places):
    invocation(places, "a")
    path = Path("logs/a/audit.json")
    path.write_text(path.read_text().replace('"finished"', '"perfect"', 1))
    assert audit.verify(Path("logs")) == ["the record a/audit.json was changed after it was closed"]


def test_p3_a_killed_run_is_named_by_the_next_invocation_and_a_living_one_is_not(places):
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with audit.held(Path("logs/a")), audit.recorded(Path("logs/a/audit.json"), command="train", run_id="a", **places):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert audit.settle(Path("logs"), places["debug_log"]) == []
    with pytest.raises(PreflightError, match="another process"), audit.held(Path("logs/a")):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert audit.settle(Path("logs"), places["debug_log"]) == ["a"]
    assert audit.load(Path("logs/a/audit.json"))["exit_code"] == 137 and audit.verify(Path("logs")) == []


def test_a_line_cut_short_by_a_crash_costs_that_line_only(places):
    audit.append(places["ledger"], {"event": "start"})
    with places["ledger"].open("a") as file:
        file.write('{"event":"fin')
    audit.append(places["ledger"], {"event": "start"})
    assert len(audit.entries(places["ledger"])) == 2 and any("cannot be read" in p for p in audit.verify(Path("logs")))


def test_p45_one_flipped_byte_changes_the_manifest_and_names_the_file(workspace):
    files = {name: Path(name) for name in ("a.bin", "b.bin")}
    for path in files.values():
        path.write_bytes(bytes(100))
    before = audit.manifest(files)
    files["b.bin"].write_bytes(bytes(99) + b"\1")
    after = audit.manifest(files)
    assert before["manifest_root"] != after["manifest_root"]
    assert [name for name in files if before["files"][name] != after["files"][name]] == ["b.bin"]


def test_a_metric_that_is_nan_is_null_in_the_record(places):
    with audit.recorded(Path("logs/a/audit.json"), command="train", run_id="a", **places) as record:
        record.update(metrics={"val/score": float("nan"), "val/nll": 0.5})
    assert json.loads(Path("logs/a/audit.json").read_text())["metrics"] == {"val/score": None, "val/nll": 0.5}
