"""The library from the notebooks, as `nbdev_export` writes it; a module that says the same keeps its date.

What Numba has compiled counts as long as its file has that date: without this every export would cost half a minute of compiling.
"""

import os
import subprocess
import sys
from pathlib import Path


def export(
    folder: Path,  # a checkout
) -> None:
    """Raises `CalledProcessError` where nbdev fails."""
    before = {path: (path.read_bytes(), path.stat()) for path in folder.glob("spectramind_nb/**/*.py")}
    subprocess.run([Path(sys.prefix, "bin/nbdev_export")], cwd=folder, check=True)
    for path, (content, then) in before.items():
        if path.is_file() and path.read_bytes() == content:
            os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))


if __name__ == "__main__":
    export(Path(__file__).resolve().parents[1])
