"""Addresses depend on content only; nothing is ever half written."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spectramind_nb.core.errors import DamagedFileError, NonFiniteError
from spectramind_nb.core.storage import Store, append_line, atomic_path, canonical_json, code_digest, digest, file_digest


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
    from spectramind_nb.core import storage

    storage._remembered.cache_clear()  # as in a new process
    monkeypatch.setattr(storage.hashlib, "file_digest", None)  # reading would fail
    assert file_digest(file, memory) == first


def test_code_digest_ignores_words_but_no_deed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    def of(source, name):
        (tmp_path / f"{name}.py").write_text(source)
        return code_digest(importlib.import_module(name))

    plain = of("def f(x):\n    return x + 1\n", "plain_a")
    assert of('"""Doc."""\n\n\ndef f(x):  # why\n    """Doc."""\n    return x + 1\n', "plain_b") == plain
    assert of("def f(x):\n    return x + 2\n", "plain_c") != plain


def test_code_that_did_not_change_is_parsed_once(monkeypatch):
    from spectramind_nb.core import storage

    first = code_digest(storage, subprocess)
    monkeypatch.setattr(storage.ast, "parse", None)  # parsing again would fail
    assert code_digest(storage, subprocess) == first
    with pytest.raises(TypeError):
        code_digest(storage)


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


def test_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "submission.csv"
    target.write_text("old")
    code = (
        "import sys, time; from spectramind_nb.core.storage import atomic_path\n"
        f"with atomic_path({str(target)!r}) as path:\n"
        "    path.write_text('new' * 1000); print('writing', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert target.read_text() == "old"


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
