"""Processes of their own that need not start from nothing: forked from one that has imported what takes seconds to import.

What begins with a bare `python` is tested where it matters (quick start, wheel, launchpad, kernels, DVC); here it is the work that counts.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import connection, forkserver
from pathlib import Path
from unittest import mock

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["warm"])
_ONE_AT_A_TIME = threading.Lock()  # whoever starts a process asks all others how they ended: of two threads that ask, one hears 255
INSTALL = [Path(sys.executable).with_name("uv"), "pip", "install", "-q", "--python"]  # then whose Python, and what


def bring_machine_code(copy: Path) -> None:
    """Give a copy of the library what Numba has compiled for this one: that it compiles from nothing the checkout itself shows."""
    library = Path(__file__).parents[1] / "spectramind_nb"
    for path in library.rglob("*.nb[ic]"):
        target = copy / path.relative_to(library)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)


def command() -> None:
    """`spectramind` with the words after the first."""
    from spectramind_nb.apps.cli import main

    main()


def command_elsewhere() -> None:
    """The same as if the package lay in the folder that PYTHONPATH names, with the configurations that lie beside it."""
    import spectramind_nb
    from spectramind_nb.core import config_groups

    for kept in (config_groups.options, config_groups.groups, config_groups.shipped):
        kept.cache_clear()
    spectramind_nb.__file__ = str(Path(os.environ["PYTHONPATH"], "spectramind_nb", "__init__.py"))
    command()


def notebook() -> None:
    """Every cell of the notebook that the second word names; with its fresh outputs it goes to the file that the third word names."""
    from outputs import run

    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))))


def code() -> None:
    """The Python code in the second word, as `python -c` runs it."""
    exec(sys.argv.pop(1), {"__name__": "__main__"})


def _begin(work: Callable, words: list[str], cwd: Path, env: dict, output: str, errors: str) -> None:
    os.setsid()  # a signal to the group reaches what it starts itself, and not the tests
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    multiprocessing.set_start_method(None, force=True)  # else all that it starts itself imports everything anew
    work()


class Forked:
    """What `subprocess.Popen` gives, as far as the tests need it; the process leads a group of its own."""

    def __init__(
        self,
        work: Callable[[], None],  # one of those above
        words: list[str],  # sys.argv
        cwd: Path,
        env: dict[str, str],
    ):
        self.args = [str(word) for word in words]
        self._output, self._errors = tempfile.NamedTemporaryFile("r"), tempfile.NamedTemporaryFile("r")
        self._process = _FORKS.Process(target=_begin, args=(work, self.args, cwd, env, self._output.name, self._errors.name))
        with _ONE_AT_A_TIME:
            with mock.patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent)}):  # Python 3.11 does not tell it where `warm` is
                forkserver.ensure_running()
            self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it lives."""
        with _ONE_AT_A_TIME:
            return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its output and its errors, when it has ended; it is killed if that takes longer than `timeout` seconds."""
        connection.wait([self._process.sentinel], timeout)
        if late := self.poll() is None:
            self._process.kill()
            connection.wait([self._process.sentinel])
        said = self._output.read(), self._errors.read()
        if late:
            raise subprocess.TimeoutExpired(self.args, timeout, *said)
        return said


def run_forked(work: Callable[[], None], words: list[str], cwd: Path, env: dict[str, str], timeout: float | None = None):
    """As `subprocess.run` with `capture_output` and `text`; for the arguments see `Forked`."""
    process = Forked(work, words, cwd, env)
    said = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.poll(), *said)
