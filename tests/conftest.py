"""Fixtures shared by all floors, and the rule that a skipped test is never silent."""

import contextlib
import fcntl
import gc
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_process import command, run_forked

REPO = Path(__file__).resolve().parent.parent
pytest_plugins = ["durations"]
# Whoever reads a notebook imports jsonschema, which builds a grammar of links where it can: two seconds in each process, for nothing.
sys.modules.setdefault("rfc3987_syntax", None)
gc.disable()  # while everything is imported: half a million objects that stay
# A thread that waits for another sleeps: where every core works on a test, two threads that wait awake take ten times the processor time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # one composed configuration is thousands of objects; at 700, looking for garbage took 6 % of the time
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """A run in a worker of this suite, also one that a fixture of a module starts, counts its wall time from the test's start:
    the worker itself may be older than the run's budget."""
    execution = sys.modules.get("spectramind_nb.runs.execution")
    if execution is not None:
        began = time.time()
        execution.process_start = lambda: began


@pytest.fixture(scope="session")
def repo() -> Path:
    """The checkout."""
    return REPO


@pytest.fixture(scope="session")
def script():
    """A script of the tests as a module: what it does at full size, a test does smaller."""

    def load(path: str):  # below tests/, such as runs/damages.py
        spec = importlib.util.spec_from_file_location(Path(path).stem, REPO / "tests" / path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def sample_root() -> Path:
    """The real sample: a competition root with one planet, 50 frames an instrument."""
    root = Path(os.environ.get("SPECTRAMIND_TEST_DATA", REPO.parent / "shared" / "data")) / "challenge_sample"
    if not root.is_dir():
        pytest.skip(f"NOT TESTED ON REAL FRAMES: {root} is not there; set SPECTRAMIND_TEST_DATA to its parent folder")
    return root


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of this test run see; what takes long is made there once."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[Path]:
    """The folder, while no other worker is in it."""
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture(scope="session")
def short_root(shared) -> Path:
    """A small simulated data set in the competition's layout: 6 training planets, 2 test planets."""
    from spectramind_nb import simulate

    with one_at_a_time(shared / "short") as folder:
        return simulate(folder / "root", train=6, test=2, seed=1, short=True)


@pytest.fixture(scope="session")
def stores(shared, short_root) -> Path:
    """Its filled stores, for tests of what comes after them; a workspace has them as its `cache`."""
    from spectramind_nb import fit

    with one_at_a_time(shared / "short") as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPECTRAMIND_CACHE", raising=False)
        fit(overrides=[f"data.root={short_root}", "data.workers=1"])
        return folder / "cache"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty current folder with a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPECTRAMIND_CACHE", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def spectramind():
    """Run the command line in a process of its own, as a user does; returns the finished process."""

    def run(*words: str, cwd: Path | None = None, env: dict | None = None, timeout: float = 600):
        return subprocess.run(
            [sys.executable, "-m", "spectramind_nb", *map(str, words)], cwd=cwd, capture_output=True, text=True,
            timeout=timeout, env={**os.environ, "PYTHONPATH": str(REPO), **(env or {})},
        )

    return run


@pytest.fixture(scope="session")
def warm_spectramind():
    """The same in a forked process, where the work counts and not the start: each saves the seconds of importing."""

    def run(*words: str, cwd: Path, env: dict | None = None, timeout: float = 600):
        environment = {**os.environ, "PYTHONPATH": str(REPO), **(env or {})}
        return run_forked(command, ["spectramind", *words], cwd, environment, timeout)

    return run


@pytest.fixture(scope="session")
def filled(tmp_path_factory, stores) -> Path:
    """A workspace with filled stores; shared, so that every test trains on it in seconds."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cache").symlink_to(stores)
    return folder


@pytest.fixture
def here(filled, monkeypatch) -> Path:
    """Work in that workspace."""
    monkeypatch.chdir(filled)
    monkeypatch.delenv("SPECTRAMIND_CACHE", raising=False)
    return filled


def small_run(root: Path) -> list[str]:
    """Overrides of a run that takes a second."""
    return [f"data.root={root}", "data.batch_size=2", "data.workers=1", "trainer.max_epochs=3"]


@pytest.fixture
def words(short_root, here) -> list[str]:
    """Overrides of a small run."""
    return small_run(short_root)


@pytest.fixture(scope="session")
def _kept() -> dict:
    return {}


@pytest.fixture
def whole_run(short_root, here, _kept):  # not `words`: a test may have parameters of that name
    """That run, never interrupted."""
    from spectramind_nb.runs.training import train

    if "run" not in _kept:
        _kept["run"] = train(overrides=small_run(short_root), resume="never")
    return _kept["run"]


def pytest_terminal_summary(terminalreporter):
    """Say aloud what was not tested."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"NOT RUN {report.nodeid}: {reason}", red=True)
