"""The doctor refuses what would fail later, and never shows what should stay hidden."""

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
    ],
)
def test_versions(requirement, installed, state):
    finding = examine_version(Requirement(requirement), installed)
    assert finding.state == state and (state == "ok" or finding.advice)


def test_every_dependency_is_looked_at():
    assert {"torch", "pytorch-lightning", "hydra-core", "numpy", "typer"} <= {r.name for r in requirements()}
    assert {r.name for r in requirements()} <= {finding.name for finding in examine()}


def test_secrets_are_not_printed(monkeypatch):
    monkeypatch.setenv("KAGGLE_USER_SECRETS_TOKEN", "hunter2")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert "hunter2" not in "\n".join(map(str, examine()))


def test_a_full_disk_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e6}))
    assert doctor.examine_disk("stores", tmp_path / "not" / "there").state == "note"
