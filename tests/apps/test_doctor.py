"""The doctor refuses what would fail later, and never shows what should stay hidden."""

import shutil

import pytest
from packaging.requirements import Requirement

from spectramind_nb.apps import doctor
from spectramind_nb.apps.doctor import examine, examine_version, requirements


@pytest.mark.parametrize(
    ("requirement", "installed", "state"),
    [
        ("pytorch-lightning>=2.6,<2.7,!=2.6.2,!=2.6.3", "2.6.6", "ok"),
        ("pytorch-lightning>=2.6,<2.7", "2.6.2", "refused"),
        ("pytorch-lightning>=2.6,<2.7", "2.6.3", "refused"),
        ("lightning", "2.6.3", "refused"),
        ("lightning", "2.6.4", "ok"),
        ("torch>=2.4", "2.10.0+cu128", "ok"),
        ("torch>=2.4", "2.3.1", "refused"),
        ("torch>=2.4", None, "refused"),
        ("papermill>=2.6", "2.5", "refused"),
    ],
)
def test_versions(requirement, installed, state):
    finding = examine_version(Requirement(requirement), installed)
    assert finding.state == state and (state == "ok" or finding.advice)


def test_a_training_and_the_doctor_do_without_notebooks(spectramind, workspace, tmp_path):
    """As in an image with PyTorch alone and the wheels of the bundle: there is no kernel, no papermill, no widget."""
    for name in doctor.ONLY_FOR:
        (tmp_path / f"{name}.py").write_text("raise ImportError('not in this image')")
    env = {"PYTHONPATH": f"{tmp_path}:{doctor.Path(doctor.spectramind_nb.__file__).parents[1]}"}
    done = spectramind("doctor", cwd=workspace, env=env)
    assert done.returncode == 0, done.stderr
    done = spectramind("train", "--cfg", "trainer=ci_fast", cwd=workspace, env=env)
    assert done.returncode == 0 and "max_epochs: 1" in done.stdout
    found = doctor.examine_version(Requirement("ipywidgets>=8"), None)
    assert found.state == "note" and "launchpad" in found.advice


def test_every_dependency_is_looked_at():
    assert {"torch", "pytorch-lightning", "hydra-core", "numpy", "typer"} <= {r.name for r in requirements()}
    assert {r.name for r in requirements()} <= {finding.name for finding in examine()}


def test_secrets_are_not_printed(monkeypatch):
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "hunter2")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert "hunter2" not in "\n".join(map(str, examine()))


def test_a_full_disk_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e6}))
    assert doctor.examine_disk("stores", tmp_path / "not" / "there").state == "note"
