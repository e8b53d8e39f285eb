"""Addresses depend on content only; nothing is ever half written."""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from spectramind_nb.core import storage
from spectramind_nb.core.errors import DamagedFileError, NonFiniteError, PreflightError
from spectramind_nb.core.storage import (
    Store,
    append_line,
    atomic_path,
    canonical_json,
    code_digest,
    digest,
    file_digest,
    imported_modules,
    known_digest,
    locked_folder,
)


def test_canonical_json_test_vectors():
    assert canonical_json({"b": 1, "a": [True, None, 0.1, "µ"]}) == '{"a":[true,null,0.1,"µ"],"b":1}'
    assert canonical_json({"x": np.float64(2), "y": np.int64(2)}) == '{"x":2.0,"y":2}'
    assert digest("a") == "ac8d8342bbb2362d13f0a559a3621bb407011368895164b628a54f7fc33fc43c"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), [1, {"a": float("-inf")}]])
def test_what_has_no_canonical_form_is_refused(bad):
    with pytest.raises(NonFiniteError):
        canonical_json(bad)


def test_file_digest_sees_every_change(tmp_path):
    memory, file = tmp_path / "memory", tmp_path / "signal.parquet"
    file.write_bytes(b"one")
    first = file_digest(file, memory)
    file.write_bytes(b"two")  # same size, and within one tick of the clock
    second = file_digest(file, memory)
    assert first != second
    old = time.time() - 100
    os.utime(file, (old, old))
    assert file_digest(file, memory) == second


def test_a_young_file_is_not_remembered(tmp_path, monkeypatch):
    """Its next change may leave its size and its times as they are."""
    memory, file = tmp_path / "memory", tmp_path / "signal.parquet"
    file.write_bytes(b"one")
    written = os.stat(file).st_ctime
    for age, remembered in ((0.5, False), (1.9, False), (2.1, True)):
        monkeypatch.setattr(time, "time", lambda: written + age)
        value = file_digest(file, memory)
        assert known_digest(file, memory) == (value if remembered else None)


def test_a_young_file_may_be_digested_by_two_threads_at_once(tmp_path, monkeypatch):
    file, both, whole = tmp_path / "adc_info.csv", threading.Barrier(2, timeout=30), hashlib.file_digest
    file.write_bytes(b"one")

    def together(*args):
        both.wait()
        found = whole(*args)
        both.wait()
        return found

    monkeypatch.setattr(hashlib, "file_digest", together)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(file_digest, [file] * 2, [tmp_path / "memory"] * 2))
    assert found == [hashlib.sha256(b"one").hexdigest()] * 2


def test_file_digest_does_not_read_twice(tmp_path, monkeypatch):
    memory, file = tmp_path / "memory", tmp_path / "signal.parquet"
    file.write_bytes(b"content")
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + 10)  # the file is no longer fresh
    first = file_digest(file, memory)
    assert first in memory.read_text()
    storage._remembered.cache_clear()  # as in a new process
    monkeypatch.setattr(storage.hashlib, "file_digest", None)  # reading would fail
    assert file_digest(file, memory) == first


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a small package; the imports of `planets.late.fits` are of every kind."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        path = tmp_path.joinpath("planets", *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    write("__init__", "")
    write("core.words", "word = 1\n")
    write("early.frames", "import json\nfrom ..core.words import word\n\ngain = 1\n")
    write("early.curves", "from . import frames\n\ndef light(x):\n    return x + frames.gain\n")
    write("early.seldom", "import planets.late.fits\n\ncount = 1\n")  # a circle
    write("early.apart", "nothing = 1\n")
    write("late.fits", "from planets.early.curves import (\n    light,\n)\n\ndef fit():\n    from ..early import seldom\n")
    return write


def test_a_module_s_imports_are_found_through_every_kind_of_import(package):
    assert list(imported_modules("planets.late.fits")) == [
        "planets.early.curves", "planets.early.frames", "planets.early.seldom", "planets.late.fits"]
    assert list(imported_modules("planets.early.frames")) == ["planets.early.frames"]
    with pytest.raises(ModuleNotFoundError, match="planets.late.fist"):
        code_digest("planets.late.fist")


@pytest.mark.parametrize(("module", "source", "same"), [
    ("late.fits", "from planets.early.curves import light\n\ndef fit():\n    pass\n", False),
    ("early.curves", "from . import frames\n\ndef light(x):\n    return x - frames.gain\n", False),
    ("early.frames", "import json\nfrom ..core.words import word\n\ngain = 2\n", False),
    ("early.seldom", "import planets.late.fits\n\ncount = 2\n", False),
    ("early.curves", '"""Doc."""\nfrom . import frames\n\n\ndef light(x):  # why\n    "Doc."\n    return x + frames.gain\n', True),
    ("early.apart", "nothing = 2\n", True),
    ("core.words", "word = 2\n", True),
])
def test_a_store_s_code_changes_with_every_deed_of_every_module_that_contributes(package, module, source, same):
    before = code_digest("planets.late.fits")
    package(module, source)
    assert (code_digest("planets.late.fits") == before) is same


def test_every_module_behind_a_stage_counts(repo, tmp_path, monkeypatch):
    """In a copy of the library, one module after the other does one thing more; each change gives its stages new addresses."""
    copy = shutil.copytree(repo / "spectramind_nb", tmp_path / "spectramind_nb", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(storage, "find_spec", lambda name: SimpleNamespace(origin=tmp_path / name / "__init__.py"))
    behind = {f"spectramind_nb.{stage}": set(imported_modules(f"spectramind_nb.{stage}"))
              for stage in ("observations.lightcurves", "physics.fitting", "learning.standard_curves", "simulation.dataset")}
    assert {"detector", "photometry", "challenge"} < {name.split(".")[-1] for name in behind["spectramind_nb.physics.fitting"]}
    before = {stage: code_digest(stage) for stage in behind}
    for path in sorted(copy.glob("*/*.py")):
        name = ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        path.write_text(path.read_text() + "\n_planted = 1\n")
        now = {stage: code_digest(stage) for stage in behind}
        assert {stage for stage in behind if now[stage] != before[stage]} == {stage for stage in behind if name in behind[stage]}, name
        before = now


def test_code_that_did_not_change_is_parsed_once(monkeypatch):
    first = code_digest("spectramind_nb.physics.fitting")
    monkeypatch.setattr(storage.ast, "parse", None)  # parsing again would fail
    assert code_digest("spectramind_nb.physics.fitting") == first


def test_store_entry_is_plain_numpy(tmp_path):
    store = Store(tmp_path, "fit", {"order": 3}, "code")
    key = store.key({"visit": "abc"})
    path = store.save(key, {"depth": np.arange(283.0)}, {"planet_id": 1, "name": "µ"})
    with np.load(path, allow_pickle=False) as entry:
        assert entry["depth"][282] == 282
    assert store.load(key)[1] == {"planet_id": 1, "name": "µ"}


def test_truncated_entry_is_named(tmp_path):
    store = Store(tmp_path, "fit", {}, "code")
    path = store.save("ab" * 20, {"depth": np.arange(283.0)}, {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match="ab.*npz"):
        store.load("ab" * 20)


def writing(target):
    """A process that has begun to write a file."""
    code = (
        "import sys, time; from spectramind_nb.core.storage import atomic_path\n"
        f"with atomic_path({str(target)!r}) as path:\n"
        "    path.write_text('new' * 1000); print('writing', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    return child


def test_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "submission.csv"
    target.write_text("old")
    child = writing(target)
    child.kill()
    child.wait()
    assert target.read_text() == "old"


@pytest.mark.parametrize("name", ["a.npz", "README", "[a].b.csv"])
def test_what_a_killed_writer_left_is_removed_by_the_next_one_and_nothing_else(tmp_path, name):
    target = tmp_path / name
    theirs = [tmp_path / other for other in (f".{name}.swp", f".{name}.abcdefgh.backup", f".x{name}.abcdefgh{target.suffix}", "abcdefgh")]
    for other in theirs:
        other.write_text("mine")
    killed, alive = writing(target), writing(target)
    killed.kill()
    killed.wait()
    assert len(list(tmp_path.iterdir())) == len(theirs) + 2
    for _ in range(2):
        with atomic_path(target) as path:
            path.write_text("next")
        assert len(list(tmp_path.iterdir())) == len(theirs) + 2  # of the living one, and the target
    alive.communicate()
    assert target.read_text() == "new" * 1000 and set(tmp_path.iterdir()) == {target, *theirs}


def test_where_nothing_can_be_locked_what_is_left_stays(tmp_path, monkeypatch):
    (left := tmp_path / ".a.npz.abcdefgh.npz").write_text("half")

    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_path(tmp_path / "a.npz") as path:
        path.write_text("whole")
    assert (tmp_path / "a.npz").read_text() == "whole" and left.exists()
    append_line(tmp_path / "lines", "first")
    with locked_folder(tmp_path / "folder"):
        append_line(tmp_path / "lines", "second")
    assert (tmp_path / "lines").read_text() == "first\nsecond\n"


def _save(root, number):
    store = Store(root, "fit", {}, "code")
    for _ in range(100):
        store.save("ab" * 20, {"number": np.full(1000, number)}, {"number": number})
        arrays, meta = store.load("ab" * 20)
        assert (arrays["number"] == meta["number"]).all()
    return store.path("ab" * 20).parent


def test_writers_of_one_entry_do_not_take_each_other_for_dead(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        folder = pool.starmap(_save, [(tmp_path, number) for number in range(4)])[0]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: _save(tmp_path, number), range(4)))
    assert len(list(folder.iterdir())) == 1


def test_a_forked_worker_keeps_no_lock_of_what_was_written(tmp_path):
    with atomic_path(tmp_path / "a.txt") as path:
        child = os.fork()
        if not child:
            time.sleep(60)
        path.write_text("x")
    try:
        with open(tmp_path / "a.txt") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_atomic_path_respects_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "a.csv") as path:
            path.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o644


def _append(path, number):
    for line in range(50):
        append_line(path, f"{number}:{line}:" + "x" * 200)


def test_p44_parallel_appends_lose_and_mix_nothing(tmp_path):
    path = tmp_path / "ledger"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_append, [(path, number) for number in range(8)])
    lines = path.read_text().splitlines()
    assert len(lines) == 400 and all(line.endswith("x" * 200) for line in lines)
    assert len({line.split("x")[0] for line in lines}) == 400


def test_what_is_no_plain_file_is_never_replaced(tmp_path):
    """A device, for which a pipe stands in, a folder, a link to one of them, a link to itself."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, target in (("to_pipe", "pipe"), ("to_folder", "folder"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    before = sorted(os.listdir(tmp_path))
    for name in ("pipe", "folder", "to_pipe", "to_folder", "loop"):
        with pytest.raises(PreflightError, match=f"this is something else .*{name}"), atomic_path(tmp_path / name):
            raise AssertionError("nothing may be written")
    assert sorted(os.listdir(tmp_path)) == before and (tmp_path / "pipe").is_fifo() and (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_written(tmp_path, there):
    (tmp_path / "far").mkdir()
    if there:
        (tmp_path / "far" / "table.csv").write_text("old")
    (tmp_path / "near").symlink_to("far/table.csv")
    (tmp_path / "link").symlink_to("near")
    with atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "near").is_symlink()
    assert (tmp_path / "far" / "table.csv").read_text() == "new" and os.listdir(tmp_path / "far") == ["table.csv"]


def test_what_a_process_prints_to_is_not_replaced(tmp_path):
    """As `/dev/stdout` does, a link leads to a plain file where the shell says so; its later lines would be lost.

    The link is one of our own: a fault must not cost the machine its `/dev/stdout`.
    """
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    code = ("from spectramind_nb.core.storage import atomic_path\n"
            "try:\n with atomic_path('stdout'): pass\nexcept Exception as error: print('told:', error)\n")
    with open(tmp_path / "log", "w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, cwd=tmp_path, check=True)
    assert (tmp_path / "log").read_text().startswith("told: a file is to be written, and this is something else")


def test_a_file_at_home_lies_at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("~/x.csv", "~nobody-of-this-name.csv"):
        with atomic_path(name) as temporary:
            temporary.write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["home", "~nobody-of-this-name.csv"] and os.listdir("home") == ["x.csv"]



LOADED = """
import sys
from spectramind_nb.core import kept_code, storage
from spectramind_nb.core.errors import PreflightError
from spectramind_nb.observations import series
for line in sys.argv[1:]:
    open(series.__file__, "a").write(line)
try:
    storage.code_digest("spectramind_nb.observations.photometry")
except PreflightError as error:
    print(error)
storage.code_digest("spectramind_nb.physics.transit")  # which does not import it
print(kept_code._made_of(series._slide.py_func))
"""


def test_what_a_process_had_loaded_before_a_change_is_not_taken_for_what_the_files_say(repo, tmp_path):
    """Results of the old code were stored under the new code's address, and so was its machine code, for every later process."""
    shutil.copytree(repo / "spectramind_nb", tmp_path / "spectramind_nb", ignore=shutil.ignore_patterns("__pycache__"))

    def said(*changes):
        done = subprocess.run([sys.executable, "-c", LOADED, *changes], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refusal, stale = said("_planted = 1\n")
    assert "series.py was changed after this process had started" in refusal
    (fresh,) = said()
    assert fresh != stale
