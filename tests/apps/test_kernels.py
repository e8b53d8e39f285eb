"""The job notebooks, from raw frames to submission.csv and a report, on a small simulated data set."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from typer.testing import CliRunner

from spectramind_nb import predict
from spectramind_nb.apps.bundle import build_bundle
from spectramind_nb.apps.cli import app
from spectramind_nb.apps.notebooks import parameters_of, run_notebook
from spectramind_nb.runs.job import submit
from spectramind_nb.runs.submission import validate

KERNELS = ("train", "submission")
TIMES = {"reserve": "15s", "predict": "2m", "train": "5m", "budget": "30m"}  # of the submission job


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory, stores):
    """One workspace for this file."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "cache").symlink_to(stores)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPECTRAMIND_CACHE", raising=False)
        yield folder


@pytest.fixture(scope="module")
def trained(place, repo, short_root):
    """What the train kernel leaves when papermill runs it on ci_fast."""
    overrides = [f"data.root={short_root}", "data.batch_size=2"]
    parameters = {"profile": "ci_fast", "data": "synthetic", "overrides": overrides, "result_json": place / "result.json"}
    run_notebook(repo / "kaggle" / "kernels" / "train" / "train.ipynb", parameters, place / "train.ipynb")
    return json.loads((place / "result.json").read_text())


@pytest.fixture(scope="module")
def submitted(place, repo, short_root):
    """What the submission kernel says when nothing is trained yet."""
    parameters = {"profile": "ci_fast", "data": "synthetic", "overrides": [f"data.root={short_root}", "data.batch_size=2"],
                  "out": place / "submission.csv", "job": TIMES, "result_json": place / "submitted.json"}
    run_notebook(repo / "kaggle" / "kernels" / "submission" / "submission.ipynb", parameters, place / "submission.ipynb")
    return json.loads((place / "submitted.json").read_text())


@pytest.mark.parametrize("name", KERNELS)
def test_papermill_reads_the_same_parameters(repo, name):
    import papermill

    path = repo / "kaggle" / "kernels" / name / f"{name}.ipynb"
    ours, theirs = parameters_of(path), papermill.inspect_notebook(str(path))
    assert list(ours) == list(theirs) and all(annotation for annotation, _ in ours.values())
    assert all(entry["help"] for entry in theirs.values())


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_committed_without_outputs_and_parameters_come_first(repo, name):
    cells = nbformat.read(repo / "kaggle" / "kernels" / name / f"{name}.ipynb", 4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code) and code[0].metadata.tags == ["parameters"]


def test_the_train_kernel_leaves_a_complete_run(trained, place):
    run = Path(trained["dir"])
    assert trained["outcome"] == "finished" and run.parent == place / "logs"
    assert validate(run / "submission.csv").planets == 2
    for name in ("light_curve", "spectrum"):
        with Image.open(run / "figures" / f"{name}.png") as picture:
            assert picture.width > 600 and len(set(picture.convert("L").resize((80, 60)).getdata())) > 10
    executed = nbformat.read(place / "train.ipynb", 4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.parametrize("anchor", ["process", 1000000000])  # while it trains, if the kernel was not slow to start; before anything
def test_the_train_kernel_tells_its_result_where_the_wall_stopped_the_run(place, repo, short_root, tmp_path, anchor):
    """Such a run has no final metrics, so no picture of them; the notebook died of that before it had said anything."""
    wall = ["trainer.wall.budget=20s", "trainer.wall.reserve=8s", f"trainer.wall.anchor={anchor}", "trainer.max_epochs=3000"]
    words = [f"data.root={short_root}", "data.batch_size=2", *wall]
    parameters = {"profile": "defaults", "data": "synthetic", "overrides": words, "result_json": tmp_path / "result.json"}
    run_notebook(repo / "kaggle" / "kernels" / "train" / "train.ipynb", parameters, tmp_path / "train.ipynb")
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["outcome"] == "wall" and "scores" not in found["figures"]
    assert "There is no picture of this: the outcome of the run is wall." in (tmp_path / "train.ipynb").read_text()


def test_the_report_needs_nothing_but_itself(trained):
    run = Path(trained["dir"])
    shown = invoke("report", trained["id"])
    assert shown.exit_code == 0 and Path(shown.stdout.strip()) == run / "report.html"
    text = (run / "report.html").read_text()
    assert len(text) < 5e6 and not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    for heading in ("Score", "Spectra", "Light curve and fit", "Calibration", "Envelope", "Record", "Configuration"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("<img alt=") == text.count("<figcaption>") >= 5
    assert trained["id"] in text and json.loads((run / "audit.json").read_text())["config_hash"] in text


def test_a_report_without_the_data_says_so(trained, tmp_path):
    run = shutil.copytree(trained["dir"], tmp_path / "moved")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"(  root: ).*short.*", r"\1/nowhere", config))
    assert invoke("report", run).exit_code == 0
    text = (run / "report.html").read_text()
    assert "No pictures of the data" in text and "nowhere" in text and "<h2>Score</h2>" in text


def test_calibrate_and_fit_name_a_damaged_visit_and_go_on(place, short_root, tmp_path):
    root = shutil.copytree(short_root, tmp_path / "root")
    victim = sorted((root / "train").glob("*/AIRS-CH0_signal_0.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:1000])
    for command in ("calibrate", "fit"):
        result = invoke(command, f"data.root={root}")
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stdout.splitlines() if victim.parent.name in line]
        assert len(lines) == 1 and victim.name in lines[0] and "test: 2 of 2 visits" in result.stdout


def test_calibrate_without_a_usable_visit_ends_with_the_code_of_the_failure(place, short_root, tmp_path):
    root = shutil.copytree(short_root, tmp_path / "root")
    for signal in root.glob("*/*/FGS1_signal_*.parquet"):
        signal.write_bytes(b"")
    result = invoke("calibrate", f"data.root={root}")
    assert result.exit_code == 3 and result.stderr.splitlines()[-1].startswith("error: ")


def test_a_run_without_checkpoint_says_that_it_cannot_predict(trained, tmp_path):
    result = invoke("predict", trained["id"], "--out", tmp_path / "s.csv")
    assert result.exit_code == 3 and "no checkpoint" in result.stderr.splitlines()[-1]


def test_unknown_runs_are_named(trained):
    result = invoke("report", trained["id"][:-1])
    assert result.exit_code == 3 and trained["id"] in result.stderr


def test_the_submission_kernel_trains_on_the_spot_and_writes_a_valid_file(submitted, place, short_root):
    """And again from the run it trained, as after a restart; and by the command, from the whole data."""
    assert submitted["planets"] == {"full": 2} and submitted["notes"] == [] and submitted["failed"] == {}
    assert validate(place / "submission.csv", short_root / "sample_submission.csv").planets == 2
    first, overrides = (place / "submission.csv").read_bytes(), [f"data.root={short_root}", "data.batch_size=2"]
    (place / "submission.csv").unlink()
    words = ["data=synthetic", "trainer.storage.budget=100MB", *overrides]  # as the notebook has them: only then it goes on
    outcome = submit(None, words, "ci_fast", place / "submission.csv", TIMES)
    assert str(outcome.run) == submitted["run"] and (place / "submission.csv").read_bytes() == first
    predict(submitted["run"], overrides, place / "again.csv")
    assert (place / "again.csv").read_bytes() == first


def test_a_kernel_needs_nothing_but_what_is_mounted(submitted, script, repo, short_root, tmp_path):
    """As tests/apps/offline.py does it with a Python seeded like Kaggle's; here with this one: no network, nothing left of a secret."""
    offline = script("apps/offline.py")
    if reason := offline.why_not():
        pytest.skip(f"NOT TESTED WITHOUT NETWORK: {reason}")
    bundle = build_bundle(tmp_path / "bundle", user="someone", extra=())
    run = Path(submitted["run"])
    shutil.copytree(run, tmp_path / "output" / "logs" / run.name)  # what a train kernel leaves
    # this Python has the toolkit already, perhaps from another checkout: the path sees to it that it is this one
    found = offline.run("submission", "old", tmp_path / "working", {}, path=str(repo), bundle=bundle, data=short_root,
                        run=tmp_path / "output")
    assert found["rc"] == 0, found["log"][-5:]
    assert found["calls"] > 0 and found["tried"] == [] and found["leaked"] == [] and found["kept_mb"] < 5
    assert validate(tmp_path / "working" / "submission.csv", short_root / "sample_submission.csv").planets == 2
    assert json.loads((tmp_path / "working" / "job.json").read_text())["counts"] == {"full": 2}
    assert len(found["log"]) < 60 and max(map(len, found["log"])) < 300


def test_evaluate_speaks_json_and_nothing_else(place, submitted):
    result = invoke("evaluate", submitted["run"])
    assert result.exit_code == 0, result.output
    assert "val/score" in json.loads(result.stdout)


def test_audit_lists_shows_and_verifies(place, trained):
    listed = invoke("audit", "list")
    assert listed.exit_code == 0 and trained["id"] in listed.stdout and "finished (0)" in listed.stdout
    assert json.loads(invoke("audit", "show", trained["id"]).stdout)["outcome"] == "finished"
    assert invoke("audit", "verify").exit_code == 0
    record = Path(trained["dir"]) / "audit.json"
    before = record.read_bytes()
    record.write_bytes(before.replace(b'"finished"', b'"polished"', 1))
    result = invoke("audit", "verify")
    record.write_bytes(before)
    assert result.exit_code == 1 and trained["id"] in result.stderr
