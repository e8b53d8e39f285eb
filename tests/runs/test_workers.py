"""Processes that work, fail, crash and hang: the one that counts answers for every task, once."""

import os
import signal
import sys
import time

import pytest

from spectramind_nb.core.errors import SpectraMindError
from spectramind_nb.runs.job_workers import WorkerPool

HERE = "tests.runs.test_workers"  # workers import their work from this very module


def chores(settings):
    """What workers do in these tests."""

    def work(task):
        if task == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "hang":
            time.sleep(1e6)
        if task == "talk":
            print("not an answer")
            os.write(1, b"neither is this\n")
        if task == "wrong":
            raise ValueError("two\nlines")
        return f"{settings['greeting']} {task}"

    return work


def stillborn(settings):
    """A worker that never gets ready."""
    sys.exit("no such library")


@pytest.fixture(autouse=True)
def importable(repo, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repo))


def pool(maker="chores", size=2, timeout_s=60.0, **more):
    return WorkerPool(f"{HERE}:{maker}", {"greeting": "hello"}, size, timeout_s, **more)


def test_every_task_is_answered_once_whatever_it_does():
    tasks = ["a", "crash", "b", "wrong", "talk", "c"]
    waiting = iter(tasks)
    answers = {answer.task: answer for answer in pool().work(lambda: next(waiting, None), lambda: 100)}
    assert sorted(answers) == sorted(tasks)
    assert {task: answer.outcome for task, answer in answers.items() if answer.outcome != "done"} == {"crash": "crashed", "wrong": "failed"}
    assert answers["talk"].value == "hello talk" and "SIGSEGV" in answers["crash"].reason
    assert answers["wrong"].reason == "ValueError: two lines"


def test_a_task_that_hangs_is_ended_and_the_others_go_on():
    waiting = iter(["hang", "a", "b"])
    answers = {a.task: a for a in pool(size=1, timeout_s=3).work(lambda: next(waiting, None), lambda: 100)}
    assert [answers[task].outcome for task in ("hang", "a", "b")] == ["crashed", "done", "done"]
    assert "no answer in 3 s" in answers["hang"].reason


def test_when_the_time_is_over_nobody_is_waited_for():
    waiting, until = iter(["a", "hang", "never"]), []

    def left_s():
        return until[0] - time.monotonic() if until else 100

    found = []
    for answer in (team := pool(size=1)).work(lambda: next(waiting, None), left_s):
        found.append((answer.task, answer.outcome))
        until[:] = [time.monotonic() + 2]  # counted from the first answer: starting a process takes its time
    assert found == [("a", "done"), ("hang", "late")] and next(waiting) == "never" and team.workers == []


def test_workers_are_gone_when_the_caller_leaves_early():
    team = pool()
    waiting = iter(["a", "hang"])
    for answer in team.work(lambda: next(waiting, None), lambda: 100):
        assert answer.task == "a"
        left = [worker.process for worker in team.workers]
        break
    del answer
    import gc

    gc.collect()  # the generator is closed
    assert left and all(process.poll() is not None for process in left)


def test_a_pool_that_cannot_start_says_why():
    with pytest.raises(SpectraMindError, match="no such library"):
        list(pool("stillborn", size=1).work(lambda: "a", lambda: 100))
