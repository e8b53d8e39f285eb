"""What surrounds the code is true: versions agree, every test is in a job, git merges notebooks, durations choose what is quick."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutants
import yaml
from own_process import code, run_forked

REPO = Path(__file__).resolve().parents[2]


def test_there_is_one_version():
    settings = configparser.ConfigParser(delimiters=["="])
    settings.read(REPO / "settings.ini")
    (latest, *_) = re.findall(r"^## (\d+\.\d+\.\d+)", (REPO / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert settings["DEFAULT"]["version"] == latest == yaml.safe_load((REPO / "CITATION.cff").read_text())["version"]


def test_every_test_belongs_to_one_job_of_the_workflow():
    workflow = REPO / ".github/workflows/test.yaml"
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    parts = " ".join(jobs["test"]["strategy"]["matrix"]["part"]).split()
    assert sorted(parts) == sorted({f"tests/{path.parent.name}" for path in REPO.glob("tests/*/test_*.py")})
    assert jobs["test"]["needs"] == "check" and "make check" in [step.get("run") for step in jobs["check"]["steps"]]
    assert "make test" in (REPO / ".ci/run").read_text()


def test_make_targets_and_files_of_contributing_exist():
    text, made = (REPO / "CONTRIBUTING.md").read_text(), re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", text)) <= set(made)
    for name in re.findall(r"((?:tests|nbs)/[\w/]+\.\w+)", text):
        assert (REPO / name).is_file(), name


def notebook(path: Path, **sources: str) -> None:
    cells = [{"cell_type": "code", "id": name, "metadata": {}, "source": [source], "outputs": [], "execution_count": None}
             for name, source in sources.items()]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n")


def test_git_merges_and_shows_notebooks_cell_by_cell(tmp_path):
    """With the settings of `make hooks`: two changes of one cell leave a notebook that opens, and a diff without JSON."""
    def git(*words, expected=0):
        done = subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout

    git("init", "-q", "-b", "main")
    made = subprocess.run(["make", "-n", "-C", REPO, f"VENV={sys.prefix}", "hooks"], capture_output=True, text=True, check=True).stdout
    settings = [line for line in made.splitlines() if line.startswith("git config")]
    assert len(settings) == 2
    for line in settings:
        subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    for name in (".gitattributes", "tests/notebook_text.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, tmp_path / name)

    def commit(message, **sources):
        notebook(tmp_path / "n.ipynb", **sources)
        git("add", "-A")
        git("commit", "-q", "-m", message)

    commit("both", a="x = 1", b="y = 1")
    git("checkout", "-q", "-b", "other")
    commit("theirs", a="x = 2", b="y = 1")
    git("checkout", "-q", "main")
    commit("ours", a="x = 3", b="y = 1")
    assert "+x = 3" in git("diff", "HEAD~1") and '"source"' not in git("diff", "HEAD~1")
    git("merge", "other", expected=1)
    cells = ["".join(cell["source"]) for cell in json.loads((tmp_path / "n.ipynb").read_text())["cells"]]
    assert {"x = 2", "x = 3", "y = 1"} <= set(cells) and any("<<<" in cell for cell in cells)


TESTS = """
import time, pytest
@pytest.fixture(scope="module")
def dear(): time.sleep({dear_s})
def test_slow(): time.sleep(1.1)
def test_quick(): pass
def test_of_something_dear(dear): pass
@pytest.mark.check
def test_always(): time.sleep(1.1)
@pytest.mark.slow
def test_whose_files_are_kept(): pass
"""


def test_durations_choose_what_is_quick_and_what_begins_first(tmp_path):
    (tmp_path / "tests").mkdir()
    plugin = (REPO / "tests/durations.py").read_text().replace("DEAR_S = 5.5", "DEAR_S = 1.0")
    assert "DEAR_S = 1.0" in plugin
    (tmp_path / "tests/durations.py").write_text(plugin)
    (tmp_path / "tests/conftest.py").write_text('pytest_plugins = ["durations"]\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  check\n  slow\n")
    (tmp_path / "tests/test_a.py").write_text("def test_first_by_name(): pass\n")
    (tmp_path / "tests/test_b.py").write_text(TESTS.format(dear_s=2.1))

    def pytest_says(*words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}  # not this suite's worker
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words], cwd=tmp_path, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"::(test_\w+)", done.stdout)

    assert len(pytest_says("--quick", "--collect-only", "-q")) == 5, "what was never measured is quick"
    pytest_says("--record-durations", "-n", "2")
    record = json.loads((tmp_path / "tests/durations.json").read_text())
    assert set(record["tests"]) == {"tests/test_b.py::test_always", "tests/test_b.py::test_slow"}
    assert record["fixtures"]["tests/test_b.py::dear"] >= 2
    assert pytest_says("--quick", "--collect-only", "-q") == ["test_quick", "test_always", "test_first_by_name"]
    pytest_says("--record-durations", "tests/test_a.py")
    assert json.loads((tmp_path / "tests/durations.json").read_text()) == record, "a file that did not run keeps its entries"


HANGING = """
import threading
def test_before(): pass
def test_hangs():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
def test_after(): pass
"""


def test_a_test_that_hangs_is_named_with_its_stack_and_the_others_go_on(tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy(REPO / "tests/durations.py", tmp_path / "tests")
    shutil.copy(REPO / "pytest.ini", tmp_path)
    (tmp_path / "tests/conftest.py").write_text('pytest_plugins = ["durations"]\n')
    (tmp_path / "tests/test_a.py").write_text(HANGING)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "-o", "faulthandler_timeout=1"],
                          cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert re.search("FAILED tests/test_a.py::test_hangs - worker .* crashed", done.stdout)
    assert re.search(r'test_a.py", line 7 in test_hangs', done.stdout + done.stderr)


def test_what_the_tests_fork_from_has_imported_what_takes_long(tmp_path):
    """A module that it cannot import it leaves out without a word, and every fork would import everything again."""
    source = "import gc, sys; print({'warm', 'torch', 'pytorch_lightning'} <= set(sys.modules), gc.get_freeze_count() > 0)"
    done = run_forked(code, ["code", source], tmp_path, dict(os.environ))
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_forked_process_says_how_it_ended_whoever_asks_beside(tmp_path):
    """Of 100 healthy ones that four threads start, some ten used to end with 255: a thread that starts one hears how another's ended."""
    def one(number: int):
        return run_forked(code, ["code", f"print({number})"], tmp_path, dict(os.environ))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(one, range(100)))
    assert [(each.returncode, each.stdout) for each in done] == [(0, f"{number}\n") for number in range(100)]


def test_every_mutant_is_planted_somewhere():
    """A fault whose line has changed would be planted nowhere, and count as found."""
    modules = {module: (REPO / f"spectramind_nb/{module}.py").read_text() for module, _, _ in mutants.MUTANTS}
    assert {(module, line) for module, line, _ in mutants.MUTANTS if modules[module].count(line) != 1} == set()
    assert len(modules) == len(mutants.MUTANTS) >= 30
