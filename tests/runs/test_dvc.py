"""The pipeline in dvc.yaml, run by the real DVC, which lives in an environment of its own (`make test` makes it)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def dvc(repo, tmp_path):
    """Run DVC in a fresh repository that holds the pipeline, with fewer planets."""
    tool = Path(os.environ.get("SPECTRAMIND_DVC", repo / ".venv-dvc" / "bin" / "dvc"))
    if not tool.is_file():
        pytest.skip(f"NOT TESTED WITH DVC: {tool} is not there; make test installs it, or set SPECTRAMIND_DVC")
    left = shutil.ignore_patterns("*.tmp.*", "tmp", "cache")  # what Python and Numba have compiled comes along: its sources are the same
    for name in ("spectramind_nb", "configs", ".dvc"):
        shutil.copytree(repo / name, tmp_path / name, ignore=left)
    shutil.copy(repo / ".dvcignore", tmp_path)
    (tmp_path / "dvc.yaml").write_text((repo / "dvc.yaml").read_text().replace("{train: 12, test: 4}", "{train: 6, test: 2}"))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(*words):
        return subprocess.run([tool, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def test_p21_dvc_runs_the_pipeline_and_the_second_time_nothing(dvc, tmp_path):
    assert "Running stage 'predict'" in dvc("repro")
    record = json.loads((tmp_path / "pipeline/logs/pipeline/audit.json").read_text())
    assert record["outcome"] == "finished" and record["dvc"]["lock"] is not None
    assert set(record["dvc"]["outs"]) == {"pipeline/data", "pipeline/cache/lightcurves", "pipeline/cache/fits"}
    written = (tmp_path / "pipeline/submission.csv").read_bytes()
    again = dvc("repro")
    assert "Running stage" not in again and again.count("didn't change, skipping") == 5
    loss = tmp_path / "configs/loss/gll.yaml"
    loss.write_text(loss.read_text() + "# looked at again\n")
    changed = dvc("repro", "--dry")
    assert [stage in changed for stage in ("Running stage 'fit'", "Running stage 'train'")] == [False, True]
    assert (tmp_path / "pipeline/submission.csv").read_bytes() == written
