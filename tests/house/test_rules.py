"""A cell is a screen with one definition, a module a subject, a name a thing, and types agree."""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
LONGEST_CELL, LONGEST_MODULE = 60, 350  # lines
SHARED = {"calibrate", "fit"}  # of the visits of a split; what users call does it for a whole data set


def exported_cells() -> dict[str, str]:
    """Notebook#cell -> code of every cell that becomes library code, imports apart."""
    return {
        f"{path.parent.name}/{path.stem}#{cell['id']}": "".join(cell["source"]).partition("\n")[2]
        for path in sorted(REPO.glob("nbs/*/[0-9]*.ipynb"))
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code" and cell["source"] and cell["source"][0].startswith("#| export") and cell["id"] != "imports"
    }


def public_definitions(code: str) -> int:
    """Classes and functions of a cell that others may use."""
    return sum(isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") for node in ast.parse(code).body)


def modules() -> dict[str, str]:
    """floor.room -> code of every exported module."""
    return {f"{path.parent.name}.{path.stem}": path.read_text() for path in REPO.glob("spectramind_nb/*/*.py") if path.stem != "__init__"}


def test_a_cell_is_a_screen_with_one_public_definition():
    cells = exported_cells()
    assert len(cells) > 500
    assert {name: lines for name, code in cells.items() if (lines := len(code.strip().splitlines())) > LONGEST_CELL} == {}
    assert {name: count for name, code in cells.items() if (count := public_definitions(code)) > 1} == {}


def test_what_a_definition_is():
    assert public_definitions("def f(): ...\nclass G: ...\n") == 2 and public_definitions("def f(): ...\ndef _g(): ...\nX = 1\n") == 1


def test_a_module_is_short():
    assert {name: lines for name, code in modules().items() if (lines := len(code.splitlines())) > LONGEST_MODULE} == {}


def test_a_name_is_one_thing():
    rooms = defaultdict(set)
    for room, code in modules().items():
        for name in ast.literal_eval(re.search(r"__all__ = (\[.*?\])", code, re.DOTALL)[1]):
            rooms[name].add(room)
    assert {name for name, found in rooms.items() if len(found) > 1} == SHARED


@pytest.mark.check
def test_types_agree():
    """mypy's settings are in pyproject.toml."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Success"), done.stdout[-3000:] + done.stderr[-3000:]


# A process that does not lead leaves when the one that does tells it.
KEPT = {"runs.followers"}


def swallowed(code: str) -> list[int]:
    """Lines of handlers that go on after whatever was raised, Ctrl-C too."""
    handlers = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ExceptHandler)]
    kinds = {handler: {name.id for name in ast.walk(handler.type) if isinstance(name, ast.Name)} if handler.type else {"BaseException"}
             for handler in handlers}
    return [handler.lineno for handler in handlers if kinds[handler] & {"BaseException", "KeyboardInterrupt", "StoppedRun"}
            and not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))]


def test_what_keeps_faults_to_itself_lets_a_stop_pass():
    """Ctrl-C during a fit was taken for a fault of that planet, and the command went on without it to other numbers."""
    assert swallowed("try:\n    f()\nexcept:\n    pass\n") == [3]
    assert swallowed("try:\n    f()\nexcept BaseException:\n    g()\n    raise\nexcept (OSError, StoppedRun):\n    pass\n") == [6]
    assert {name for name, code in modules().items() if swallowed(code)} == KEPT
