"""What Kaggle would refuse is refused here first, and the bundle installs only what it should."""

import json
import subprocess
import sys
import zipfile

import pytest

from spectramind_nb.apps.kaggle import (
    INSTALLER,
    bundle_problems,
    kernel_check,
    kernel_problems,
    metadata_problems,
    verify_bundle,
    write_manifest,
)
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError

GOOD = {
    "id": "me/spectramind-train",
    "title": "SpectraMind train",
    "code_file": "train.ipynb",
    "language": "python",
    "kernel_type": "notebook",
    "is_private": True,
    "enable_gpu": True,
    "enable_internet": False,
    "machine_shape": "NvidiaTeslaT4",
    "dataset_sources": ["me/bundle"],
    "competition_sources": ["ariel-data-challenge-2025"],
}


@pytest.mark.parametrize("name", ["train", "submission"])
def test_our_kernels_are_accepted(repo, name):
    assert kernel_problems(repo / "kaggle" / "kernels" / name) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"enable_internet": True}, "enable_internet"),
        ({"enable_internet": "false"}, "enable_internet"),
        ({"enable_internet": 0}, "enable_internet"),
        ({"title": "Something else"}, "slug"),
        ({"title": "Abc", "id": "me/abc"}, "5"),
        ({"id": "train"}, "owner/slug"),
        ({"machine_shape": "NvidiaTeslaP100"}, "P100"),
        ({"language": "r"}, "language"),
        ({"kernel_type": "script"}, "kernel_type"),
        ({"enable_gpus": True}, "enable_gpu"),
        ({"is_private": "yes"}, "is_private"),
        ({"dataset_sources": ["bundle"]}, "bundle"),
        ({"competition_sources": ["a/b"]}, "a/b"),
        ({"model_sources": ["a/b/c"]}, "a/b/c"),
        ({"docker_image_pinning_type": "newest"}, "docker_image_pinning_type"),
    ],
)
def test_each_fault_is_one_sentence(change, words):
    assert metadata_problems(GOOD) == []
    problems = metadata_problems({**GOOD, **change})
    assert len(problems) == 1 and words in problems[0]


@pytest.mark.parametrize("key", ["id", "title", "code_file", "enable_internet", "competition_sources"])
def test_a_missing_key_is_named(key):
    assert metadata_problems({k: v for k, v in GOOD.items() if k != key}) == [f"key '{key}' is missing"]


def test_kernel_folders_without_their_files(tmp_path):
    with pytest.raises(DataMissingError, match="kernel-metadata"):
        kernel_check(tmp_path)
    (tmp_path / "kernel-metadata.json").write_text("{")
    with pytest.raises(DamagedFileError):
        kernel_check(tmp_path)
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(GOOD))
    with pytest.raises(ConfigError, match=r"train\.ipynb"):
        kernel_check(tmp_path)


def wheel(folder, project, version, module):
    """A real, minimal wheel."""
    path = folder / f"{project}-{version}-py3-none-any.whl"
    info = f"{project}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}.py", "HERE = True\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nRequires-Dist: torch\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    wheel(folder, "spectramind_nb", "0.0.1", "stand_in_one")
    wheel(folder, "hydra_core", "1.3.2", "stand_in_two")
    (folder / "install.py").write_text(INSTALLER)
    write_manifest(folder)
    return folder


def test_a_good_bundle_verifies_and_the_same_wheels_give_the_same_manifest(bundle):
    verify_bundle(bundle)
    before = (bundle / "manifest.json").read_bytes()
    assert write_manifest(bundle).read_bytes() == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "culprit"),
    [
        (lambda b: flip(b / "hydra_core-1.3.2-py3-none-any.whl"), "hydra_core-1.3.2-py3-none-any.whl is damaged"),
        (lambda b: (b / "hydra_core-1.3.2-py3-none-any.whl").unlink(), "hydra_core-1.3.2-py3-none-any.whl is missing"),
        (lambda b: (b / "wheels").mkdir(), "wheels/"),
        (lambda b: (b / "src.tar.gz").write_bytes(b""), "src.tar.gz"),
        (lambda b: wheel(b, "extra", "1", "extra"), "extra-1-py3-none-any.whl is not in the manifest"),
        (lambda b: (b / "install.py").write_text(""), "install.py"),
    ],
)
def test_verify_names_the_culprit(bundle, harm, culprit):
    harm(bundle)
    assert any(culprit in problem for problem in bundle_problems(bundle))
    with pytest.raises(ConfigError, match=culprit.split()[0]):
        verify_bundle(bundle)


def test_a_renamed_wheel_and_a_platform_wheel_are_named(bundle):
    (bundle / "hydra_core-1.3.2-py3-none-any.whl").rename(bundle / "hydra.whl")
    assert any("hydra.whl" in problem for problem in bundle_problems(bundle))
    (bundle / "hydra.whl").rename(bundle / "hydra_core-1.3.2-cp311-cp311-linux_x86_64.whl")
    write_manifest(bundle)
    assert any("platform" in problem for problem in bundle_problems(bundle))


def test_the_installer_installs_only_what_is_missing(bundle, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    for words in ("will be installed", "is there"):
        done = subprocess.run([python, bundle / "install.py"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count(words) == 2, done.stdout + done.stderr
    assert subprocess.run([python, "-c", "import stand_in_one, stand_in_two"]).returncode == 0
    flip(bundle / "hydra_core-1.3.2-py3-none-any.whl")
    done = subprocess.run([python, bundle / "install.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "hydra_core-1.3.2-py3-none-any.whl is damaged" in done.stderr
