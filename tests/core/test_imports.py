"""No garbage is looked for while libraries are loaded; afterwards everything is as it was."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from spectramind_nb.core.imports import quick_imports
from spectramind_nb.core.workforce import in_processes
from spectramind_nb.runs.job_workers import WorkerPool


@pytest.mark.parametrize("own_process", [False, True])
@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("failure", [None, ImportError])
def test_the_setting_is_kept_whatever_happens(monkeypatch, own_process, collects, failure):
    monkeypatch.setattr(gc, "freeze", lambda: None)  # the tests' own process is nobody's to freeze
    monkeypatch.setattr(gc, "unfreeze", lambda: None)
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        try:
            with quick_imports(own_process):
                assert not gc.isenabled()
                with quick_imports(own_process):  # one name brings another
                    pass
                assert not gc.isenabled()
                if failure:
                    raise failure
        except ImportError:
            assert failure
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


HEARD = """
import gc, sys, time
looked = []
gc.callbacks.append(lambda phase, info: looked.append(info["generation"]) if phase == "start" else None)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", HEARD + code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return done.stdout.split()


def test_a_notebook_loads_without_looking_and_loses_nothing():
    """What a user made before may become garbage afterwards: nothing of it is frozen. What the user froze stays so."""
    assert run("""
class Figure: pass
mine = Figure(); mine.axes = mine; gone = []
import weakref; weakref.finalize(mine, gone.append, 1)
import spectramind_nb; spectramind_nb.__all__
looked.clear(); spectramind_nb.light_curve; print(len(looked) < 3, gc.isenabled(), gc.get_freeze_count())
del mine; gc.collect(); print(gone)
gc.freeze(); before = gc.get_freeze_count(); spectramind_nb.Spectrum; print(gc.get_freeze_count() >= before > 0)
""") == ["True", "True", "0", "[1]", "True"]


LOOK = "(__import__('gc').isenabled(), __import__('gc').get_freeze_count() > 10_000)"  # what was loaded is frozen


def test_processes_of_our_own_never_look_at_what_they_loaded():
    assert list(in_processes(eval, [LOOK], 1)) == [(LOOK, (True, True))]
    tasks = iter([LOOK])
    pool = WorkerPool("builtins:eval", "eval", size=1, timeout_s=60)
    assert [answer.value for answer in pool.work(lambda: next(tasks, None), lambda: 60.0)] == [[True, True]]
    said = run(f"""
import atexit; atexit.register(lambda: print({LOOK}))
from spectramind_nb.__main__ import main
sys.argv = ["spectramind", "score", "nowhere.csv", "nowhere.csv"]; main()
""")
    assert said == ["(True,", "True)"]
