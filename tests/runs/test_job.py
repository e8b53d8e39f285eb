"""The submission job: a valid file in time, whatever happens to a visit, a process, the disk or the job itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from failing_training import JOB

from spectramind_nb.core.errors import ConfigError, DataMissingError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import Visit
from spectramind_nb.runs.job import submit
from spectramind_nb.runs.job_queue import Queue, VisitTiming
from spectramind_nb.runs.job_settings import job_settings
from spectramind_nb.runs.job_views import View
from spectramind_nb.runs.job_workers import Answer
from spectramind_nb.runs.submission import read, validate


@pytest.fixture(scope="module")
def deadline(script):
    """The script that does this at full size."""
    return script("runs/deadline.py")


@pytest.fixture(scope="module")
def prepared(deadline, tmp_path_factory):
    """A data set of 8 test planets, and a trained run."""
    return deadline.prepare(tmp_path_factory.mktemp("prepared"), 8)


@pytest.fixture
def root(short_root, tmp_path):
    """A copy of the small data set whose first test planet has a second visit."""
    root = shutil.copytree(short_root, tmp_path / "root", copy_function=os.link)
    planet = sorted((root / "test").iterdir(), key=lambda path: int(path.name))[0]
    for path in list(planet.iterdir()):
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, planet / path.name.replace("_0", "_1"))
    return root


def queue(root, tmp_path, left_s=1e9, size=1, **seconds):
    challenge = open_challenge(root)
    views = {quality: View(tmp_path / quality, challenge) for quality in ("full", "plain")}
    timing = VisitTiming(0.5, {"full": seconds.get("full", []), "plain": seconds.get("plain", [])})
    return Queue("test", views, timing, lambda: left_s, size, degrade=True)


def drain(jobs, outcome=lambda task: "done"):
    """Work through a queue; returns what was tried, in order."""
    tried = []
    while (task := jobs.next()) is not None:
        tried.append((task["planet_id"], task["visit"], task["quality"]))
        assert jobs.views[task["quality"]].seen.visits("test").count(Visit(task["planet_id"], task["visit"])) == 1
        jobs.answered(Answer(task, outcome(task), None, "because", 1.0))
    return tried


def test_every_planet_comes_before_any_second_visit(root, tmp_path):
    jobs = queue(root, tmp_path)
    first, second = jobs.views["full"].challenge.planets("test")
    assert drain(jobs) == [(first, 0, "full"), (second, 0, "full"), (first, 1, "full")]
    assert jobs.photometry() == {first: "full", second: "full"}


def test_less_is_done_in_the_stated_order_as_time_runs_short(root, tmp_path):
    first, second = open_challenge(root).planets("test")
    for left_s, expected in (
        (25, {first: "one visit", second: "full"}),  # both in full, no time for the repetition
        (14, {first: "one visit", second: "plain"}),  # one in full if the other is plain
        (9, {first: "plain", second: "plain"}),
    ):
        left = [left_s]
        jobs = queue(root, tmp_path, full=[10.0] * 99, plain=[4.0] * 99)
        jobs.left_s = lambda: left[0]

        def done(task):
            left[0] -= {"full": 10, "plain": 4}[task["quality"]]
            return "done"

        drain(jobs, done)
        assert jobs.photometry() == expected, left_s


def test_what_was_in_the_store_says_nothing_about_the_time(root, tmp_path):
    jobs = queue(root, tmp_path)
    task = jobs.next()
    jobs.answered(Answer(task, "done", True, "", 0.1))
    assert jobs.timing.seconds("full") == 0 and jobs.done
    task = jobs.next()
    jobs.answered(Answer(task, "done", False, "", 9.0))
    assert jobs.timing.seconds("full") == 9


def test_what_fails_in_full_is_tried_in_plain_and_then_keeps_the_mean(root, tmp_path):
    jobs = queue(root, tmp_path)
    first, second = jobs.views["full"].challenge.planets("test")
    tried = drain(jobs, lambda task: "crashed" if task["planet_id"] == second else "done")
    assert [quality for planet, _, quality in tried if planet == second] == ["full", "plain"]
    assert jobs.photometry() == {first: "full", second: "mean"} and jobs.failed == {Visit(second, 0): "because"}
    # what was not finished is not seen by prediction
    assert jobs.views["full"].seen.planets("test") == [first]
    with pytest.raises(DataMissingError):
        jobs.views["plain"].seen.planets("test")


def test_settings_that_do_not_exist_or_do_not_add_up_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'budget'"):
        job_settings({"budgett": "3m"})
    with pytest.raises(ConfigError, match="use up the budget"):
        job_settings({"budget": "5m"})


@pytest.mark.parametrize("wrong", [
    {"worker_memory": 0}, {"worker_memory": "0GB"}, {"visit_timeout": 0}, {"budget": "inf"}, {"workers": 2.7},
])
def test_settings_that_nothing_can_be_done_with_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"job.{next(iter(wrong))} must be"):
        job_settings(wrong)


def test_data_that_are_not_there_are_told_before_anything_else(workspace):
    words = ["data=ariel2025", f"data.root={workspace / 'none'}"]
    for overrides in (words, "\n".join(words)):
        with pytest.raises(DataMissingError):
            submit(overrides=overrides)


TIMES = {"reserve": "15s", "predict": "40s", "visit_timeout": "15s", "workers": 2}


def start(root, run, place, deadline, plan=None, prefix=(), **settings):
    """The job in a process of its own."""
    settings = {**TIMES, "budget": "10m", **settings}
    asked = json.dumps([str(run), [f"data.root={root}"], "ci_fast", "submission.csv", settings])
    return subprocess.Popen([*prefix, sys.executable, "-c", JOB, asked], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=deadline.environment(plan, SPECTRAMIND_CACHE=str(place / "cache")))


def test_killed_then_slow_with_a_crash_and_a_hang_it_leaves_a_valid_degraded_file_in_time(deadline, prepared, tmp_path):
    """One run of tests/runs/deadline.py, smaller: the notebook, through papermill, after a first attempt that was killed."""
    data, run = prepared
    planets, fits = sorted(int(path.name) for path in (data / "test").iterdir()), tmp_path / "cache" / "fits"
    job = start(data, run, tmp_path, deadline, {"seconds": {"full": 1}})
    while len(list(fits.rglob("*.npz"))) < 2:
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    assert validate(tmp_path / "submission.csv").planets == len(planets)  # the baseline, while it works
    job.send_signal(signal.SIGKILL)
    job.communicate()
    before = {path: path.stat().st_mtime_ns for path in fits.rglob("*.npz")}

    plan = {"seconds": {"full": 8, "plain": 1}, "crash": planets[3:5], "hang": planets[5:6], "always": planets[4:5]}
    found = deadline.one_run(tmp_path, data, run, 110, plan, **TIMES)
    assert found["rc"] == 0 and found["valid"] == len(planets) and found["took_s"] <= 110, found
    assert found["notes"] == [] and found["counts"]["full"] >= 2 and found["photometry"][str(planets[4])] == "mean", found
    assert {found["photometry"][str(planet)] for planet in (planets[3], planets[5])} <= {"plain", "mean"}  # in full they cannot be done
    assert "SIGSEGV" in found["failed"][f"test planet {planets[4]} visit 0"]
    # what the first attempt finished was used as it was, and prediction, which reads through the same links, computed nothing
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    done = sum(found["counts"].get(quality, 0) for quality in ("full", "plain"))
    assert done <= len(list(fits.rglob("*.npz"))) <= done + 2  # two were being worked on when the first attempt was killed
    # another kernel may have taken the port of this one's heartbeat, which Jupyter tells in a trace of its own
    log = re.sub(r"Exception in thread Heartbeat:\n(?:.*\n)*?zmq\.error\.ZMQError: Address already in use.*\n", "", found["log"])
    ours = [line for line in log.splitlines() if not line.startswith("[IPKernelApp]")]
    assert len(ours) < 15 and max(map(len, ours)) < 200, found["log"]
    # only the planets without a prediction have the training mean
    table = read(tmp_path / "submission.csv").set_index("planet_id")
    flat = {planet for planet in planets if table.loc[planet].iloc[:283].nunique() == 1}
    assert flat == {int(planet) for planet, got in found["photometry"].items() if got == "mean"}
    assert not list(tmp_path.rglob(".ballast"))


def test_a_full_disk_does_not_cost_the_submission(deadline, prepared, tmp_path):
    """Stores on a disk of 7 MB: some visits fit, the others fail, the file is written with what there is."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("NOT TESTED ON A FULL DISK: a small file system cannot be mounted here, which needs root")
    data, run = prepared
    (tmp_path / "cache").mkdir()
    mount = f"mount -t tmpfs -o size=7m none {tmp_path / 'cache'} && exec \"$@\""
    job = start(data, run, tmp_path, deadline, None, ["unshare", "--mount", "sh", "-c", mount, "sh"], ballast="2MB")
    out, log = job.communicate()
    assert job.returncode == 0, log
    found = json.loads((tmp_path / "job.json").read_text())
    assert validate(tmp_path / "submission.csv", data / "sample_submission.csv").planets == 8
    assert found["counts"].get("mean", 0) > 0 and found["counts"].get("full", 0) > 0 and found["notes"] == [], found
    assert any("No space left" in reason for reason in found["failed"].values()), found["failed"]
