"""A parameterised notebook either runs with exactly the values it was given, or says why not."""

import json
import os

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from spectramind_nb.apps.notebooks import (
    UNATTENDED,
    check_parameters,
    failure,
    json_text,
    kernel_ended,
    parameters_of,
    parse_parameters,
    plain,
    run_notebook,
)
from spectramind_nb.core.errors import ConfigError, DataMissingError, SpectraMindError, WallReached

PARAMETERS = "n: int = 1  # a number\nrate: float = 0.5  # a rate\nnames: list = []  # words\nroot: str | None = None"


@pytest.fixture
def notebook(tmp_path):
    def make(*cells, tagged=1, name="job.ipynb"):
        nb = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
        for i, source in enumerate(cells):
            nb.cells.append(new_code_cell(source, metadata={"tags": ["parameters"]} if i < tagged else {}))
        nbformat.write(nb, tmp_path / name)
        return tmp_path / name

    return make


def test_values_arrive_with_their_types(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = notebook(
        PARAMETERS,
        "import json, os\njson.dump([n, rate, names, root], open('seen.json', 'w'))",
        f"assert os.environ.get('{UNATTENDED}') == '1'",
    )
    before = path.read_bytes()
    out = run_notebook(
        path, {"n": np.int32(7), "rate": 2, "names": ("a=1", "b=[2,3]"), "root": tmp_path}, tmp_path / "o" / "out.ipynb"
    )
    assert json.loads((tmp_path / "seen.json").read_text()) == [7, 2, ["a=1", "b=[2,3]"], str(tmp_path)]
    assert out.is_file() and path.read_bytes() == before and UNATTENDED not in os.environ


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"m": 1}, "no parameter 'm'"),
        ({"name": []}, "Did you mean 'names'"),
        ({"n": "1"}, "must be int"),
        ({"n": 1.5}, "must be int"),
        ({"n": True}, "must be int"),
        ({"rate": float("nan")}, "finite"),
        ({"n": object()}, "object"),
    ],
)
def test_values_that_do_not_fit_are_refused(notebook, parameters, words):
    with pytest.raises(ConfigError, match=words) as caught:
        check_parameters(notebook(PARAMETERS), parameters)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("cells", "tagged"),
    [
        (["n = 1"], 0),
        (["n = 1", "m = 2"], 2),
        (["n = f()"], 1),
        (["import os"], 1),
        (["n: int"], 1),
        (["n = "], 1),
    ],
)
def test_a_parameters_cell_is_one_cell_of_literals(notebook, cells, tagged):
    with pytest.raises(ConfigError, match="parameters"):
        parameters_of(notebook(*cells, tagged=tagged))


def test_missing_and_broken_notebooks_are_named(tmp_path):
    with pytest.raises(DataMissingError, match=r"nowhere\.ipynb"):
        parameters_of(tmp_path / "nowhere.ipynb")
    (tmp_path / "text.ipynb").write_text("not JSON")
    with pytest.raises(ConfigError, match=r"text\.ipynb"):
        parameters_of(tmp_path / "text.ipynb")


def test_a_failing_cell_keeps_the_output_and_its_exit_code(notebook, tmp_path):
    source = "from spectramind_nb.core.errors import NonFiniteError\nprint('before')"
    path = notebook(PARAMETERS, source, "raise NonFiniteError('the loss is NaN', 'batch 3')")
    with pytest.raises(SpectraMindError, match="the loss is NaN") as caught:
        run_notebook(path, {}, tmp_path / "out.ipynb")
    assert caught.value.exit_code == 11
    outputs = str(nbformat.read(tmp_path / "out.ipynb", 4).cells)
    assert "before" in outputs and "NonFiniteError" in outputs and "out.ipynb" in str(caught.value)


def test_a_cell_may_not_run_for_ever_and_a_dead_kernel_is_noticed(notebook, tmp_path):
    with pytest.raises(SpectraMindError, match="longer than 1 s"):
        run_notebook(notebook(PARAMETERS, "import time; time.sleep(60)"), {}, tmp_path / "out.ipynb", 1)
    path = notebook(PARAMETERS, "print('before')", "import os; os._exit(75)", "x = 1", "y = 2")
    with pytest.raises(WallReached, match="exit status 75.*go on"):
        run_notebook(path, {}, tmp_path / "out.ipynb")
    left = nbformat.read(tmp_path / "out.ipynb", 4).cells
    assert [cell.metadata.papermill.status for cell in left][-4:] == ["completed", "failed", "pending", "pending"]


@pytest.mark.parametrize("name, code", [("WallReached", 75), ("InterruptedRun", 130), ("TerminatedRun", 143), ("SchemaError", 10),
                                        ("KeyError", 1), ("FileNotFoundError", 3)])
def test_a_cell_that_fails_ends_with_the_code_of_what_it_failed_with(tmp_path, name, code):
    """Of a stop, which is no `SpectraMindError`, it was 1."""
    assert failure(name, "the time was up", "train()", tmp_path / "out.ipynb").exit_code == code


@pytest.mark.parametrize("status, code, said", [
    (75, 75, "go on"), (143, 143, "SIGTERM"), (-15, 143, "SIGTERM"), (-2, 130, "SIGINT"),
    (-9, 1, "memory runs out"), (137, 1, "memory runs out"),
    (-11, 1, "SIGSEGV"), (3, 3, "exit status 3"), (1, 1, "exit status 1"), (0, 1, "exit status 0"), (None, 1, "nobody can say"),
])
def test_a_kernel_that_ends_by_itself_keeps_what_its_exit_status_says(tmp_path, status, code, said):
    error = kernel_ended(status, tmp_path / "out.ipynb")
    assert error.exit_code == code and said in str(error)


def test_a_refusal_of_the_system_within_a_notebook_is_one(tmp_path):
    assert failure("PermissionError", "no", "open('x')", tmp_path).exit_code == 3
    assert failure("ValueError", "no", "open('x')", tmp_path).exit_code == 1


def test_a_notebook_never_overwrites_itself(notebook):
    path = notebook(PARAMETERS)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="overwrite"):
        run_notebook(path, {}, path)
    assert path.read_bytes() == before


def test_yaml_is_typed():
    parsed = parse_parameters("{a: false, b: 1e-3, c: 'no', d: [x=1, y=2], e: null, f: 007x}")
    assert parsed == {"a": False, "b": 1e-3, "c": "no", "d": ["x=1", "y=2"], "e": None, "f": "007x"}
    for text in ("a=1", "[a]", "{a: ", "just words"):
        with pytest.raises(ConfigError):
            parse_parameters(text)


def test_plain_and_json_hold_no_surprises():
    assert plain({1: np.arange(2), "x": {2}}) == {"1": [0, 1], "x": [2]}
    assert json.loads(json_text({"a": float("inf"), "b": [np.float32(0.5), float("nan")]})) == {
        "a": None,
        "b": [0.5, None],
    }
