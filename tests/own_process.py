"""Processes of their own that need not start from nothing: forked from one that has imported what takes seconds to import.

What begins with a bare `python` is tested where it matters (quick start, wheel, launchpad, kernels, DVC); here it is the work that counts.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([
    "matplotlib.pyplot", "execnb.shell", "outputs", "spectramind_nb.apps.cli", "spectramind_nb.apps.report", "spectramind_nb.runs.replay",
])


def command() -> None:
    """`spectramind` with the words after the first."""
    from spectramind_nb.apps.cli import main

    main()


def command_elsewhere() -> None:
    """The same as if the package lay in the folder that PYTHONPATH names, with the configurations that lie beside it."""
    import spectramind_nb

    spectramind_nb.__file__ = str(Path(os.environ["PYTHONPATH"], "spectramind_nb", "__init__.py"))
    command()


def notebook() -> None:
    """Every cell of the notebook that the second word names; with its fresh outputs it goes to the file that the third word names."""
    from outputs import run

    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))))


def _begin(work: Callable, words: list[str], cwd: Path, env: dict, output: str, errors: str) -> None:
    for number, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    work()


def run_forked(
    work: Callable[[], None],  # one of those above
    words: list[str],  # sys.argv
    cwd: Path,
    env: dict[str, str],
    timeout: float | None = None,  # seconds
) -> subprocess.CompletedProcess:
    """As `subprocess.run` with `capture_output` and `text`."""
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        words = [str(word) for word in words]
        process = _FORKS.Process(target=_begin, args=(work, words, cwd, env, output.name, errors.name))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout, output.read(), errors.read())
        return subprocess.CompletedProcess(words, process.exitcode, output.read(), errors.read())
