"""The notebooks are the source: exported code is in sync, every notebook runs, README and metadata are current."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from outputs import SHOWN, differences
from own_process import notebook, run_forked

from spectramind_nb.apps.notebooks import parameters_of

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(REPO.glob("nbs/**/[0-9i]*.ipynb"))
KERNELS = sorted(REPO.glob("kaggle/kernels/*/*.ipynb"))


def ids(paths):
    return [path.relative_to(REPO).as_posix() for path in paths]


@pytest.fixture(scope="session")
def store(shared):
    """Empty at first; what one notebook simulates and fits is there for the next, in whichever worker."""
    folder = shared / "store"
    folder.mkdir(exist_ok=True)
    return folder


def changed() -> set[Path]:
    """Files that differ from those of the branch `main`: in later commits, uncommitted, or new."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True).stdout.split()

    base = git("merge-base", "HEAD", "origin/main") or git("merge-base", "HEAD", "main") or ["HEAD"]
    return {REPO / name for name in git("diff", "--name-only", *base) + git("ls-files", "-o", "--exclude-standard")}


CHANGED = changed()
RUNNING = [pytest.param(path, marks=[pytest.mark.check] * (path in CHANGED), id=id) for path, id in zip(NOTEBOOKS, ids(NOTEBOOKS))]


@pytest.mark.parametrize("path", RUNNING)
def test_notebook_runs(path, store, tmp_path):
    """Every example and assertion of a notebook holds, in a process of its own; what README and tutorials show is what runs."""
    env = {**os.environ, "MPLBACKEND": "agg", "SPECTRAMIND_CACHE": str(store), "PYTHONPATH": str(REPO)}
    done = run_forked(notebook, ["notebook", path, tmp_path / "fresh.ipynb"], REPO, env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if path in SHOWN:
        assert differences(*(json.loads(one.read_text()) for one in (path, tmp_path / "fresh.ipynb"))) == [], "run `make outputs`"


def export(folder: Path, command: str | None = None) -> Path:
    for name in ("nbs", "configs", "settings.ini", "pyproject.toml"):
        source = REPO / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    package = folder / "spectramind_nb"
    package.mkdir()
    shutil.copy(REPO / "spectramind_nb/__init__.py", package)
    done = subprocess.run([command or Path(sys.executable).with_name("nbdev_export")], cwd=folder, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return package


def modules(package: Path) -> dict[str, str]:
    return {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}


@pytest.mark.check
def test_exported_code_is_in_sync(tmp_path):
    fresh, here = modules(export(tmp_path)), modules(REPO / "spectramind_nb")
    here.pop("__main__.py")  # what happens before anything of ours is loaded
    assert sorted(fresh) == sorted(here)
    assert [name for name in fresh if fresh[name] != here[name]] == [], "run `make notebooks`"


def test_modules_carried_back_leave_the_notebooks_as_they_are(tmp_path):
    export(tmp_path)
    subprocess.run([Path(sys.executable).with_name("nbdev_update")], cwd=tmp_path, capture_output=True, check=True)
    assert ids(rewritten(tmp_path)) == [], "findings/nbdev_update_of_a_parent_import.sh has one reason"


def rewritten(copy: Path) -> list[Path]:
    """The notebooks that say something else in a copy of them."""
    return [path for path in NOTEBOOKS if (copy / path.relative_to(REPO)).read_text() != path.read_text()]


def test_nbdev_3_exports_the_same_and_leaves_the_notebooks_as_they_are(tmp_path):
    command = REPO / ".venv-nbdev3/bin/nbdev-export"
    if not command.exists():
        pytest.skip("NOT TESTED UNDER NBDEV 3: `make test` makes .venv-nbdev3, which this run lacks")
    fresh, here = modules(export(tmp_path, command)), modules(REPO / "spectramind_nb")
    ours = {"__main__.py", "_modidx.py"}
    assert {k: v for k, v in fresh.items() if k not in ours} == {k: v for k, v in here.items() if k not in ours}
    new, old = {}, {}
    for index, found in ((fresh, new), (here, old)):
        exec(index["_modidx.py"], found)
    assert new["d"]["syms"] == old["d"]["syms"] and new["d"]["settings"]["git_url"] == old["d"]["settings"]["git_url"]
    subprocess.run([command.with_name("nbdev-clean")], cwd=tmp_path, capture_output=True, check=True)
    assert ids(rewritten(tmp_path)) == []


def test_every_notebook_has_a_number_of_its_own_and_every_cell_a_name_of_its_own():
    rooms = [path for path in NOTEBOOKS if path.name != "index.ipynb"]
    numbers = [(path.parent.name, path.name.split("_")[0]) for path in rooms]
    assert sorted({number for number in numbers if numbers.count(number) > 1}) == []
    for path in NOTEBOOKS + KERNELS:
        names = [cell["id"] for cell in json.loads(path.read_text())["cells"]]
        assert sorted({name for name in names if names.count(name) > 1}) == [], path.name


@pytest.mark.check
def test_readme_is_current():
    done = subprocess.run([sys.executable, REPO / "tests/readme.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_nbdev_generations_read_the_same_settings():
    old = configparser.ConfigParser(delimiters=["="])
    old.read(REPO / "settings.ini")
    new = tomllib.loads((REPO / "pyproject.toml").read_text())
    project = new["project"]
    assert project["urls"]["Repository"] == f"https://github.com/{old['DEFAULT']['user']}/{old['DEFAULT']['repo']}"
    assert set(project) == {"name", "dynamic", "urls"} and project["name"] == old["DEFAULT"]["lib_name"]
    for key, value in new["tool"]["nbdev"].items():
        expected = value if isinstance(value, str) else " ".join(value) if isinstance(value, list) else str(value)
        assert old["DEFAULT"][key] == expected, key


@pytest.mark.parametrize("path", NOTEBOOKS + KERNELS, ids=ids(NOTEBOOKS + KERNELS))
def test_notebook_is_clean(path):
    notebook = json.loads(path.read_text())
    assert "widgets" not in notebook["metadata"]
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert not cell["id"].isdigit() and len(cell["id"]) > 2, "cells have readable names"
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    assert path.stat().st_size < 600_000


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.parent.name not in ("nbs", "tutorials")], ids=lambda p: p.stem)
def test_notebook_teaches(path):
    """Title and promise first; prose before code; every notebook asserts something."""
    cells = json.loads(path.read_text())["cells"]
    first = "".join(cells[0]["source"])
    assert first.startswith("# ") and "\n> " in first
    assert any("assert" in "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    exported = [cell for cell in cells if "".join(cell["source"]).startswith("#| export")]
    prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
    assert len(prose) >= len(exported) / 2, "there is more code than explanation"


@pytest.mark.parametrize("path", KERNELS, ids=ids(KERNELS))
def test_kernel_has_one_parameters_cell(path):
    assert parameters_of(path)
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells), "kernels are committed without outputs"


def test_what_other_notebooks_call_parameters_can_be_given_to_them():
    cells = [(path, cell) for path in NOTEBOOKS for cell in json.loads(path.read_text())["cells"]]
    tagged = [path for path, cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert {path.stem: list(parameters_of(path)) for path in tagged} == {"06_what_buys_score": ["train", "test", "epochs"]}
