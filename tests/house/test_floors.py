"""The house stands: imports only go down, the package is light, nothing is committed that must not be."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spectramind_nb.core.storage import imported_modules

FLOORS = ["core", "observations", "physics", "simulation", "learning", "records", "runs", "apps"]
REPO = Path(__file__).resolve().parents[2]
ROOMS = {path.parts[-2] + "." + path.stem.split("_", 1)[1]: path for path in sorted(REPO.glob("nbs/*/[0-9]*.ipynb"))
         if path.parts[-2] in FLOORS}


def imported_rooms(module: Path) -> set[str]:
    """Rooms (floor.name) that a module imports, inside functions too."""
    package = ("spectramind_nb", module.parent.name)
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):  # nbdev writes `from ..core.errors import`
            base = ".".join([*package[: 3 - node.level], node.module or ""] if node.level else [node.module]).strip(".")
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {".".join(name.split(".")[1:3]) for name in names if name.startswith("spectramind_nb.")} & set(ROOMS)


def test_every_floor_has_rooms_and_every_room_a_module():
    assert {room.split(".")[0] for room in ROOMS} == set(FLOORS)
    modules = {f"{path.parts[-2]}.{path.stem}" for path in REPO.glob("spectramind_nb/*/*.py") if path.stem != "__init__"}
    assert modules == set(ROOMS)


def test_imported_rooms_are_seen(tmp_path):
    module = tmp_path / "runs/training.py"
    module.parent.mkdir()
    module.write_text("from ..core import errors\nfrom .stages import x\ndef f():\n    import spectramind_nb.apps.cli\n")
    assert imported_rooms(module) == {"core.errors", "runs.stages", "apps.cli"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_only_go_down(room):
    floor, number = FLOORS.index(room.split(".")[0]), ROOMS[room].stem
    assert number[0] == str(floor) and number[:3].isdecimal(), f"the first digit of {number} is not its floor"
    for other in imported_rooms(REPO / f"spectramind_nb/{room.replace('.', '/')}.py") - {room}:
        above = FLOORS.index(other.split(".")[0])
        assert (above, ROOMS[other].stem) < (floor, number), f"{room} imports {other}, which lies above it"


def test_a_store_is_addressed_by_the_code_of_the_module_that_fills_it():
    """A name that a module moves away from would leave its code out of the address, and stale results would be served."""
    named = {}
    for path in REPO.glob("spectramind_nb/*/*.py"):
        own = ".".join(path.relative_to(REPO).with_suffix("").parts)
        calls = [node for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("code_digest")]
        named |= {own: [ast.literal_eval(call.args[0]) for call in calls]} if calls else {}
    assert len(named) >= 4 and all(names == [own] for own, names in named.items()), named


def test_dvc_watches_what_each_stage_runs():
    """Every module behind a stage of dvc.yaml is among what DVC watches for it, alone or with its folder; and nothing else is."""
    entry = {"simulate": "simulation.dataset", "calibrate": "observations.lightcurves", "fit": "physics.fitting",
             "train": "runs.training", "predict": "runs.run"}
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    assert set(stages) == set(entry)
    for stage, module in entry.items():
        behind = {path.relative_to(REPO) for path in imported_modules(f"spectramind_nb.{module}").values()}
        watched = [Path(name) for name in stages[stage]["deps"] if name.startswith("spectramind_nb")]
        assert {path for path in behind if not any(path.is_relative_to(dep) for dep in watched)} == set(), f"{stage} lacks these"
        assert [dep for dep in watched if not any(path.is_relative_to(dep) for path in behind)] == [], f"{stage} does not import these"


def test_the_package_imports_without_torch():
    heavy = "torch", "pytorch_lightning", "numba", "polars", "pandas", "matplotlib", "hydra", "pydantic"
    code = f"import sys, spectramind_nb; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from spectramind_nb.apps import cli\n"
        "print([m for m in ('torch','pytorch_lightning','numba','polars','pandas','matplotlib','hydra','numpy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("work", "needless"),
    [
        ("from spectramind_nb import launchpad; launchpad('ci_fast').widgets", ("torch", "numba", "polars", "matplotlib")),
        ("import spectramind_nb.runs.sweep", ("torch", "numba", "polars", "matplotlib")),
        ("import spectramind_nb.runs.training", ("numba",)),
    ],
)
def test_nobody_waits_for_what_others_need(work, needless):
    """The page looks at runs and a sweep starts them, neither trains; a training whose planets are fitted compiles nothing."""
    code = f"{work}; import sys; print([name for name in {needless!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO, check=True)
    assert done.stdout.strip() == "[]"


def test_what_users_import_is_there():
    import spectramind_nb

    for name in ("train", "evaluate", "predict", "simulate", "calibrate", "fit", "score", "compose", "launchpad", "replay"):
        assert callable(getattr(spectramind_nb, name))
    assert [name for name in spectramind_nb.__all__ if getattr(spectramind_nb, name, None) is None] == []
    with pytest.raises(AttributeError):
        spectramind_nb.nonsense


def tracked_text() -> list[tuple[str, str]]:
    names = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True).stdout.splitlines()
    if not names:
        pytest.skip("NOT RUN: this is not a git checkout")
    return [(name, (REPO / name).read_text(errors="ignore")) for name in names if (REPO / name).is_file()]


def test_nothing_names_a_registry_or_a_machine():
    forbidden = re.compile(r"pypi\.o" r"rg|pythonhosted\.o" r"rg|files\.python|/wor" r"k/(main|shared)|/ro" r"ot/|bash_jo" r"bs")
    guilty = [name for name, text in tracked_text() if forbidden.search(text)]
    assert guilty == []


def test_no_committed_file_is_large():
    assert [(name, len(text)) for name, text in tracked_text() if len(text) > 1_000_000] == []
