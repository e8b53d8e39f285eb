"""Every invocation is recorded, whatever ends it, and what was changed afterwards shows."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, DataMissingError, PreflightError, TerminatedRun, WallReached
from spectramind_nb.core.machine import steady_time
from spectramind_nb.records import audit, journal, provenance, record, training_log
from spectramind_nb.records.ledger import append, chain_faults, entries, rebuild
from spectramind_nb.runs.envelope import stage


@pytest.fixture
def places(workspace):
    return {"logs": workspace / "logs", "debug_log": workspace / "v50_debug_log.md"}


def invocation(places, name, error=None, overrides=(), **fields):
    """A run with a directory of its own that ends as told."""
    folder = places["logs"] / name
    try:
        with audit.recorded("train", overrides) as record:
            attempt = audit.load(folder / "audit.json").get("attempt", 0) + 1
            record.adopt(folder, **places, attempt=attempt, **fields)
            (folder / "metrics.csv").write_text("step\n1\n")
            if error is not None:
                raise error
    except BaseException as caught:
        assert caught is error
    return audit.load(folder / "audit.json")


def told(places):
    return [line["event"] for line in entries(places["logs"] / "audit.jsonl")]


@pytest.mark.parametrize("error, outcome, code", [
    (None, "finished", 0), (WallReached("x"), "wall", 75), (TerminatedRun("x"), "terminated", 143),
    (KeyboardInterrupt(), "interrupted", 130), (ConfigError("x"), "failed", 2), (ValueError("x"), "failed", 1),
    (SystemExit(3), "failed", 3), (SystemExit(0), "finished", 0),
])
def test_p3_whatever_ends_a_run_is_written_down(places, error, outcome, code):
    record = invocation(places, "a", error)
    assert (record["outcome"], record["exit_code"]) == (outcome, code) and record["finished"] >= record["started"]
    assert told(places) == ["start", "run", "finish"] and audit.verify(**places) == []
    assert f"train: {outcome} ({code})" in places["debug_log"].read_text()


@pytest.mark.parametrize("command", ["evaluate", "predict", "replay"])
def test_where_there_is_only_an_answer_the_wall_goes_on_to_the_caller(places, command):
    """There is no run to go on with: what followed met a name that nobody had given a value."""
    with pytest.raises(WallReached), audit.recorded(command, **places):
        raise WallReached("x")
    assert audit.ended(places["logs"])[-1]["outcome"] == "wall"


@pytest.mark.parametrize("set_by_s", [-3600, 36000])
def test_a_clock_that_is_set_changes_no_duration(places, monkeypatch, set_by_s):
    """As NTP does, or a machine that is resumed: set back, a run had used -3525 s and was finished before it started."""
    honest, folder = time.time, places["logs"] / "a"
    with audit.recorded("train", ()) as record:
        record.adopt(folder, **places, attempt=1)
        log = journal.EventLog(folder / "events.jsonl")
        with stage(log, "data"):
            monkeypatch.setattr(time, "time", lambda: honest() + set_by_s)
        assert audit.close_dead_records(**places) == [], "our own record is that of a living process"
    fields = audit.load(folder / "audit.json")
    assert 0 <= fields["wall"]["used_s"] < 60 and 0 <= next(iter(entries(folder / "events.jsonl")))["seconds"] < 60
    lasted = datetime.fromisoformat(fields["finished"]) - datetime.fromisoformat(fields["started"])
    assert lasted.total_seconds() == pytest.approx(fields["wall"]["used_s"], abs=0.01) and audit.verify(**places) == []


def test_the_latest_run_is_the_one_that_began_last(places, workspace):
    """Not the last of the alphabet, nor the one whose files were copied last."""
    for name in ("beta", "zulu", "alpha"):
        invocation(places, name)
        time.sleep(0.002)  # times are told to the millisecond
    for number, name in enumerate(("alpha", "beta", "zulu")):
        os.utime(places["logs"] / name / "audit.json", (number, number))
    with pytest.raises(DataMissingError, match="The latest is alpha"):
        record.find_run("qqqq")


def test_a_run_at_home_is_found_there(places, monkeypatch):
    invocation(places, "a")
    monkeypatch.setenv("HOME", str(places["logs"].parent.absolute()))
    assert record.find_run("~/logs/a")[0] == places["logs"].absolute() / "a"


def test_p16_p44_the_record_holds_the_promised_fields(places):
    record = invocation(places, "a", overrides=["trainer=ci_fast"])
    promised = ("run_id attempt outcome exit_code argv overrides choices config_hash science_hash run_hash git code modules data weights "
                "metrics wall environment dvc started finished parent files checkpoints").split()
    assert set(promised) <= set(record)
    assert set(record["git"]) == {"commit", "branch", "dirty"} and set(record["wall"]) == {"budget_s", "used_s"}
    assert set(record["weights"]) >= {"initial", "final"} and set(record["data"]) == {"manifest_root", "files"}


def test_p21_the_commit_is_git_s_own(repo):
    if not (repo / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(["git", "-C", repo, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert provenance.git_state()["commit"] == head


def test_p21_a_changed_checkout_is_kept_as_a_patch(repo, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    if subprocess.run(["git", "clone", "-q", repo, clone]).returncode:
        pytest.skip("not a checkout")
    monkeypatch.setattr(provenance, "_package", lambda: clone / "spectramind_nb")
    assert provenance.git_state()["dirty"] is False and provenance.git_difference() == ""
    errors, own = clone / "spectramind_nb/core/errors.py", clone / "configs/trainer/own.yaml"
    changed = errors.read_text() + "\n# changed\n"
    errors.write_text(changed)
    own.write_text("doc: new\n")
    patch = provenance.git_difference()
    assert provenance.git_state()["dirty"] is True and "+# changed" in patch and "+doc: new" in patch
    subprocess.run(["git", "-C", clone, "checkout", "-q", "."], check=True)
    own.unlink()
    subprocess.run(["git", "-C", clone, "apply"], input=patch, text=True, check=True)
    assert errors.read_text() == changed and own.read_text() == "doc: new\n"


def test_p21_a_checkout_in_any_state_is_kept_as_a_patch(repo, tmp_path, monkeypatch):
    """Each of these ended every command with a trace: names with accents, links to nowhere, clones within, bytes of other codes, and the
    checkout as a folder of a larger repository."""
    top = tmp_path / "monorepo"
    clone = top / "tools" / "clone"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a", "-C"]
    if subprocess.run(["git", "clone", "-q", repo, clone]).returncode:
        pytest.skip("not a checkout")
    shutil.rmtree(clone / ".git")
    subprocess.run(["git", "init", "-q", top], check=True)
    subprocess.run([*git, top, "add", "."], check=True)
    subprocess.run([*git, top, "commit", "-qm", "all"], check=True)
    monkeypatch.setattr(provenance, "_package", lambda: clone / "spectramind_nb")
    assert provenance.git_state()["dirty"] is False and provenance.git_difference() == ""
    (clone / "configs/model/größe.yaml").write_text("doc: new\n")
    (clone / "configs/model/nowhere.yaml").symlink_to("not/there")
    subprocess.run(["git", "init", "-q", clone / "configs/own"], check=True)
    (clone / "configs/trainer/defaults.yaml").write_bytes("doc: größer\n".encode("latin-1"))
    patch = provenance.git_difference()
    assert provenance.git_state()["dirty"] is True and "größe.yaml" in patch and "+doc: new" in patch and "+doc: gr" in patch


@pytest.mark.parametrize("lock", ["<<<<<<< HEAD\nstages: {}\n=======\n", "[1, 2]", "stages: 3", ""])
def test_a_dvc_lock_in_the_middle_of_a_merge_stops_no_command(tmp_path, lock):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.lock").write_text(lock)
    (tmp_path / "data.dvc").write_text("outs: [{path: data, md5: abc}]")
    assert provenance.dvc_state(tmp_path)["outs"] == {"data": "abc"}


def test_a_disk_that_cannot_lock_is_no_other_process(places, monkeypatch):
    """Such as a network disk: every command ended with "another process is running this run"."""
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    invocation(places, "a")
    assert audit.verify(**places) == []


def test_no_secret_is_recorded(places, monkeypatch):
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "hunter2")
    monkeypatch.setenv("NCCL_AUTH_KEY", "hunter3")
    monkeypatch.setattr("sys.argv", ["spectramind", "train", "logger.wandb_api_key=hunter4", "--password", "hunter4"])
    error = ConfigError("there is no key 'token' in logger (override 'logger.token=hunter4')", "/home/hunter3/x")
    invocation(places, "a", error, overrides=["logger.token=hunter4", "data.root=/home/hunter2"])
    written = "".join(path.read_text() for path in Path(".").rglob("*") if path.is_file())
    assert "hunter" not in written and "logger.wandb_api_key=***" in written and "logger.token=***" in written


def _twenty(number):
    with audit.recorded("train", run_id=f"r{number}"):
        pass


def test_p44_parallel_processes_leave_an_intact_chain(places):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        pool.map(_twenty, range(20), chunksize=1)
    lines = entries(places["logs"] / "audit.jsonl")
    assert sorted(line["run_id"] for line in lines if line["event"] == "finish") == sorted(f"r{i}" for i in range(20))
    assert [line["seq"] for line in lines] == list(range(1, 41)) and audit.verify(**places) == []
    written = places["debug_log"].read_bytes()
    assert rebuild(places["logs"] / "audit.jsonl", places["debug_log"]) == 20 and places["debug_log"].read_bytes() == written


def changed(lines, kind):
    if kind == "edited":
        return [*lines[:1], lines[1].replace("train", "traim"), *lines[2:]]
    if kind == "deleted":
        return [*lines[:1], *lines[2:]]
    if kind == "swapped":
        return [lines[0], lines[2], lines[1], *lines[3:]]
    return lines[:-1]  # truncated


@pytest.mark.parametrize("with_log", [True, False])
@pytest.mark.parametrize("kind", ["edited", "deleted", "swapped", "truncated"])
def test_p44_a_tampered_ledger_shows(places, kind, with_log):
    for name in "abc":
        invocation(places, name)
    ledger = places["logs"] / "audit.jsonl"
    assert audit.verify(**places) == []
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(changed(lines, kind)) + "\n")
    assert audit.verify(places["logs"], places["debug_log"] if with_log else None)


def test_p44_a_tampered_record_file_or_log_shows(places):
    invocation(places, "a")
    for path, before, after, problem in [
        ("logs/a/audit.json", '"finished"', '"perfect"', "the record a/audit.json was changed after it was closed"),
        ("logs/a/audit.json", '"finished"', '"running"', "the record a/audit.json was changed after it was closed"),
        ("logs/a/metrics.csv", "1", "2", "metrics.csv of a/audit.json was changed after the run"),
        ("v50_debug_log.md", "attempt 1", "attempt 2", "v50_debug_log.md is not what the ledger tells"),
    ]:
        file = Path(path)
        whole = file.read_text()
        file.write_text(whole.replace(before, after, 1))
        audit.close_dead_records(**places)  # as the next invocation does: it must not hide anything
        found = audit.verify(**places)
        assert len(found) == 1 and found[0].startswith(problem)
        file.write_text(whole)
    assert audit.verify(**places) == []


def test_p44_a_run_that_was_removed_is_missed_though_another_has_its_name(places):
    invocation(places, "a")
    shutil.rmtree(places["logs"] / "a")
    assert audit.verify(**places) == ["the record a/audit.json is gone"]
    invocation(places, "a", seconds=3)
    assert audit.verify(**places) == ["the record a/audit.json is gone: another has its name"]


@pytest.mark.parametrize("text", ["[]", "3", "null", '"finished"', "[" * 100_000, "{"])
def test_a_record_that_is_none_is_an_empty_one(places, text):
    for name in "ab":
        invocation(places, name)
    path = places["logs"] / "a" / "audit.json"
    path.write_text(text)
    assert audit.load(path) == {} and audit.close_dead_records(**places) == []
    assert "the record a/audit.json cannot be read" in audit.verify(**places) and invocation(places, "b")["attempt"] == 2


def test_p50_every_attempt_of_a_run_keeps_its_record(places):
    invocation(places, "a", WallReached("time is up"))
    invocation(places, "a")
    first, second = audit.load(Path("logs/a/audit.1.json")), audit.load(Path("logs/a/audit.json"))
    assert (first["outcome"], second["outcome"], second["attempt"]) == ("wall", "finished", 2) and audit.verify(**places) == []
    path = Path("logs/a/audit.1.json")
    path.write_text(path.read_text().replace('"wall"', '"finished"', 1))
    assert audit.verify(**places) == ["the record a/audit.json was changed after it was closed"]


def test_p3_a_killed_run_is_named_by_the_next_invocation_and_a_living_one_is_not(places):
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with audit.recorded("train") as record:
            record.adopt(places["logs"] / "a", **places)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert audit.close_dead_records(**places) == []
    with pytest.raises(PreflightError, match="another process"), audit.held(Path("logs/a")):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert audit.close_dead_records(**places) == ["a"]
    assert audit.load(Path("logs/a/audit.json"))["exit_code"] == 137 and audit.verify(**places) == []


@pytest.mark.parametrize("moment", range(16))
def test_p3_killed_at_any_step_of_writing_a_record_loses_nothing(places, moment, monkeypatch):
    """Every write, rename and ledger line of a whole invocation is once the last thing that its process does."""
    invocation(places, "a", WallReached("first attempt"))
    child = os.fork()
    if child == 0:
        done = 0

        def deadly(function):
            def counted(*args, **kwargs):
                nonlocal done
                if done == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
                return function(*args, **kwargs)
            return counted

        steps = (audit.Record, "_write"), (record, "append"), (os, "replace"), (shutil, "copyfile"), (shutil, "rmtree")
        for owner, name in steps:
            setattr(owner, name, deadly(getattr(owner, name)))
        invocation(places, "a")
        os._exit(done)  # the number of steps there are
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert 12 <= os.WEXITSTATUS(status) <= moment, "there were no more steps to be killed at"
    with audit.recorded("predict"):
        pass
    assert audit.verify(**places) == []
    lines = entries(places["logs"] / "audit.jsonl")
    started = {line["invocation"] for line in lines if line["event"] == "start"}
    assert started <= {line["invocation"] for line in lines if line["event"] == "finish"}
    assert audit.load(Path("logs/a/audit.json"))["attempt"] in (1, 2)


def test_one_invocation_is_one_record(places):
    with audit.recorded("replay") as outer, audit.recorded("train") as inner:
        assert inner is outer
    assert told(places) == ["start", "finish"]


def test_a_process_that_another_one_leads_records_nothing(places, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("SPECTRAMIND_RUN_DIR", "x")
    with audit.recorded("train") as record:
        record.update(metrics={"a": 1.0})
    assert not places["logs"].exists() and record.folder is None


def test_a_run_elsewhere_is_recorded_elsewhere(places, tmp_path):
    with audit.recorded("train", ["paths.root=there"]) as record:
        record.adopt(tmp_path / "there/logs/a", tmp_path / "there/logs", tmp_path / "there/v50_debug_log.md")
    assert not places["logs"].exists() and audit.verify(tmp_path / "there/logs", tmp_path / "there/v50_debug_log.md") == []


def test_only_the_folder_of_runs_is_elsewhere_and_both_logs_tell_the_same(places, tmp_path):
    """A block here of a line there could never be verified."""
    there = tmp_path / "other" / "runs"
    words = [f"paths.logs={there}"]
    told = compose(overrides=words).paths
    assert audit.places(words) == (there, there.parent / "v50_debug_log.md") == (Path(told.logs), Path(told.debug_log))
    assert audit.places([])[1] == Path(compose().paths.debug_log) == places["debug_log"]
    outside = [f"paths.logs={tmp_path.parent / 'runs'}"]  # whose folder need not be ours
    assert audit.places(outside)[1] == Path(compose(overrides=outside).paths.debug_log) == tmp_path.parent / "runs/v50_debug_log.md"
    invocation(places, "a")
    with audit.recorded("fit", words):
        pass
    assert audit.verify(**places) == [] == audit.verify(*audit.places(words)) and "fit" in (tmp_path / "other/v50_debug_log.md").read_text()


@pytest.mark.parametrize("moment", ["closed", "closing", "continued", "begun"])
def test_p44_who_verifies_while_others_work_cries_no_forgery(places, monkeypatch, moment):
    """At its worst moment: between what `verify` reads first and what it reads then."""
    invocation(places, "a", WallReached("later"))
    with contextlib.ExitStack() as other:
        if moment in ("closed", "closing"):
            open_record = other.enter_context(audit.recorded("train"))
            open_record.adopt(places["logs"] / "b", **places)
        once, name = iter([True]), "chain_faults" if moment == "closing" else "entries"
        reads = getattr(audit, name)

        def meanwhile(*rest):
            found = reads(*rest)
            if next(once, False):
                if moment == "closing":
                    monkeypatch.setattr(os, "replace", lambda *names: None if str(names[0]).endswith(record.CLOSING) else rename(*names))
                if moment in ("closed", "closing"):
                    open_record.finish("finished", 0)
                elif moment == "continued":
                    invocation(places, "a")
                else:
                    invocation(places, "c")
            return found

        rename = os.replace
        monkeypatch.setattr(audit, name, meanwhile)
        assert audit.verify(**places) == []
        if moment == "closing":
            assert audit.load(places["logs"] / "b/audit.json")["outcome"] == "running"
            monkeypatch.setattr(os, "replace", rename)
            os.replace(places["logs"] / "b" / record.CLOSING, places["logs"] / "b/audit.json")


def test_p44_ledger_and_human_log_are_read_at_one_moment(places, monkeypatch):
    """Another process may write its line and its block between the two."""
    invocation(places, "a")
    read, other = Path.read_bytes, []

    def slowly(path):
        found = read(path)
        if path.name == "audit.jsonl" and not other:
            other.append(multiprocessing.get_context("fork").Process(target=_twenty, args=(1,)))
            other[0].start()
            other[0].join(0.5)
        return found

    monkeypatch.setattr(Path, "read_bytes", slowly)
    assert chain_faults(places["logs"] / "audit.jsonl", places["debug_log"]) == []
    other[0].join()
    assert other[0].exitcode == 0 and audit.verify(**places) == []


def test_a_text_with_line_ends_of_other_scripts_is_one_line_of_the_ledger(places):
    with pytest.raises(ValueError), audit.recorded("train", ["data.root=/a\u2028b\u0085c"]):
        raise ValueError("half\rdone \u2029 seen")
    assert told(places) == ["start", "finish"] and audit.verify(**places) == []


@pytest.mark.parametrize("line", ["5", "[]", '"finish"', "null", "{}", '{"event":"finish"}'])
def test_p44_a_line_that_was_never_written_is_named(places, line):
    ledger = places["logs"] / "audit.jsonl"
    invocation(places, "a")
    with ledger.open("a") as file:
        file.write(line + "\n")
    (problem,) = audit.verify(**places)
    assert problem == f"line 4 of the ledger {'does not follow line 3' if line.startswith('{') else 'cannot be read'}"
    assert len(audit.lineage(places["logs"])) == 1 and rebuild(ledger, places["debug_log"]) == 1
    invocation(places, "b")


def test_two_commands_at_once_survive_each_other_s_adoption(places, monkeypatch):
    """A record moves into its run's directory while another invocation looks who died."""
    listed, looked = audit.records, []
    with audit.recorded("train") as other:
        def just_before(logs):
            found = listed(logs)
            if not looked:
                looked.append(found)
                other.adopt(places["logs"] / "a", **places)
            return found

        monkeypatch.setattr(audit, "records", just_before)
        assert audit.close_dead_records(**places) == []
    assert looked and not list(places["logs"].glob("invocations/*")) and audit.verify(**places) == []


def test_a_second_ctrl_c_while_a_record_is_closed_closes_it_all_the_same(places, monkeypatch):
    appended = record.append

    def slowly(*rest):
        if rest[1]["event"] == "finish":
            signal.raise_signal(signal.SIGINT)
        return appended(*rest)

    monkeypatch.setattr(record, "append", slowly)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it may be ignored
    kept = invocation(places, "a", KeyboardInterrupt())
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert kept["outcome"] == "interrupted" and audit.verify(**places) == []


def test_a_signal_that_comes_while_an_inner_record_is_closed_is_not_lost(places, monkeypatch):
    """The record of a pre-training is closed before the run itself begins, and who stops it then means the run too."""
    handled, before = [], signal.signal(signal.SIGTERM, lambda number, frame: handled.append(number))
    left = record._left_behind
    monkeypatch.setattr(record, "_left_behind", lambda *rest: signal.raise_signal(signal.SIGTERM) or left(*rest))
    with audit.recorded("train", [], apart=True):
        pass
    assert handled == [signal.SIGTERM] and signal.signal(signal.SIGTERM, before) is not before


def test_words_that_are_no_text_are_recorded_as_they_were_typed(places, spectramind):
    done = spectramind("train", b"seed=\xff".decode(errors="surrogateescape"), cwd=places["logs"].parent)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "seed" in done.stderr
    (entry,) = audit.ended(places["logs"])
    assert entry["overrides"] == ["seed=\\udcff"] and entry["exit_code"] == 2 and audit.verify(**places) == []


def test_other_own_modules_are_other_code():
    then, now = ({"modules": {"a.py": "1"}, "environment": {"own_modules": {"mine": digest}}} for digest in "12")
    assert provenance.drift(then, now) == [("code", "mine", "1", "2")] and provenance.drift(then, then) == []


def test_what_a_full_disk_cut_short_costs_no_other_line(workspace):
    path, diary = Path("metrics.csv"), Path("events.jsonl")
    for attempt in (1, 2):
        metrics, log = training_log.MetricsFile(path, attempt), journal.EventLog(diary, attempt)
        for step in (1, 2):
            metrics.log_metrics({"loss": 0.25, "score": 0.5}, step)
            log("note", step=step)
        metrics.save()
        if attempt == 1:
            for file in (path, diary):
                os.truncate(file, file.stat().st_size - 3)
            assert journal.history(path)["step"].tolist() == [1]
    assert journal.history(path).to_dict("list") | {"epoch": 0} == {
        "attempt": [2, 2], "epoch": 0, "step": [1, 2], "loss": [0.25, 0.25], "score": [0.5, 0.5]}
    assert [(line["attempt"], line["step"]) for line in entries(diary)] == [(1, 1), (2, 1), (2, 2)]


def test_a_line_cut_short_by_a_crash_costs_that_line_only(places):
    ledger = places["logs"] / "audit.jsonl"
    append(ledger, {"event": "start"})
    with ledger.open("a") as file:
        file.write('{"event":"fin')
    append(ledger, {"event": "start"})
    assert len(entries(ledger)) == 2 and any("cannot be read" in problem for problem in chain_faults(ledger))


def test_p57_lineage_goes_from_parents_to_children(places):
    invocation(places, "first")
    invocation(places, "other")
    invocation(places, "branch", parent="first")
    invocation(places, "twig", parent="branch")
    with audit.recorded("predict", parent="branch", run_id="branch"):
        pass
    with pytest.raises(ConfigError), audit.recorded("replay", parent="first"):
        raise ConfigError("x")
    seen = [(depth, entry["command"], entry["run_id"]) for depth, entry in audit.lineage(places["logs"])]
    below = [(0, "train", "first"), (1, "train", "branch"), (2, "train", "twig"), (2, "predict", "branch")]
    below.append((1, "replay", None))
    assert seen == [*below, (0, "train", "other")]


def test_p45_one_flipped_byte_changes_the_manifest_and_names_the_file(workspace):
    files = {name: Path(name) for name in ("a.bin", "b.bin")}
    for path in files.values():
        path.write_bytes(bytes(100))
    before = provenance.manifest(files)
    files["b.bin"].write_bytes(bytes(99) + b"\1")
    after = provenance.manifest(files)
    assert before["manifest_root"] != after["manifest_root"]
    assert [name for name in files if before["files"][name] != after["files"][name]] == ["b.bin"]


def test_rehashing_sees_what_time_stamps_hide(workspace, monkeypatch):
    path = Path("a.bin")
    path.write_bytes(bytes(100))
    before = provenance.manifest({"a.bin": path})
    monkeypatch.setattr(provenance, "file_digest", lambda path: before["files"]["a.bin"])  # a cache that was fooled
    path.write_bytes(bytes(99) + b"\1")
    assert provenance.manifest({"a.bin": path}) == before != provenance.manifest({"a.bin": path}, rehash=True)


def test_a_metric_that_is_nan_is_null_in_the_record(places):
    with audit.recorded("train") as record:
        record.adopt(places["logs"] / "a", **places)
        record.update(metrics={"val/score": float("nan"), "val/nll": 0.5})
    assert json.loads(Path("logs/a/audit.json").read_text())["metrics"] == {"val/score": None, "val/nll": 0.5}


def test_p3_p44_no_invocation_that_was_killed_is_missing(repo):
    done = subprocess.run([sys.executable, repo / "tests/records/kill_and_audit.py", "4", "--seconds", "8"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(repo)})
    assert done.returncode == 0 and "verify: all intact" in done.stdout, done.stdout + done.stderr


def test_the_ledger_can_be_read_from_the_command_line(places, warm_spectramind):
    invocation(places, "first")
    invocation(places, "branch", parent="first")
    listed = warm_spectramind("audit", "list", "--tree", cwd=places["logs"].parent).stdout.splitlines()
    assert [line[21:].split()[2:] for line in listed] == [["train", "first"], ["train", "branch"]] and "  train" in listed[1]
    written = places["debug_log"].read_bytes()
    places["debug_log"].write_text("lost\n")
    assert warm_spectramind("audit", "verify", cwd=places["logs"].parent).returncode == 1
    assert "2 blocks" in warm_spectramind("audit", "rebuild", cwd=places["logs"].parent).stdout
    assert places["debug_log"].read_bytes() == written and warm_spectramind("audit", "verify", cwd=places["logs"].parent).returncode == 0


def test_where_the_disk_cannot_lock_the_process_itself_tells_whether_a_record_is_alive(tmp_path, monkeypatch):
    """A killed run was said to be running for ever, and nothing went on with it."""

    def cannot(*arguments):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", cannot)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        fields = {"outcome": "running", "pid": child.pid, "clock": steady_time(), "host": os.uname().nodename}
        assert audit.is_running(tmp_path, fields) and not audit.is_running(tmp_path, {**fields, "clock": steady_time() - 3600})
        child.communicate(b"\n")
    assert not audit.is_running(tmp_path, fields), "it has ended"
    assert audit.is_running(tmp_path, {**fields, "host": "elsewhere"}), "nobody here can tell"
