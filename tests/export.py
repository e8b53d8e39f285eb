"""The library from the notebooks, as `nbdev_export` writes it; a module that says the same keeps its date.

What Numba has compiled counts as long as its file has that date: without this every export would cost half a minute of compiling. Numba
does not look at what a compiled function calls elsewhere: a module with compiled functions gets a new date too when one that it imports
has changed.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
COMPILED = b"@compiled", b"@njit"


def unchanged(
    before: dict[Path, bytes],  # modules and what they said
    imported: Callable[[Path], set[Path]],  # the modules that one imports, directly or not
) -> list[Path]:
    """Modules that say the same and whose machine code is what would be made of them now."""
    changed = {path for path, content in before.items() if not path.is_file() or path.read_bytes() != content}
    return [path for path, content in before.items() if path not in changed
            and not (any(mark in content for mark in COMPILED) and imported(path) & changed)]


def imported(path: Path) -> set[Path]:
    from spectramind_nb.core.storage import imported_modules

    return set(imported_modules(".".join(path.relative_to(REPO).with_suffix("").parts)).values())


if __name__ == "__main__":
    sys.path.insert(0, str(REPO))
    modules = {path: (path.read_bytes(), path.stat()) for path in REPO.glob("spectramind_nb/**/*.py")}
    subprocess.run([Path(sys.prefix, "bin/nbdev_export")], cwd=REPO, check=True)
    for path in unchanged({path: content for path, (content, _) in modules.items()}, imported):
        os.utime(path, ns=(modules[path][1].st_atime_ns, modules[path][1].st_mtime_ns))
