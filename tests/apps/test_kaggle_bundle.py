"""The bundle installs only what it should, is the same every time, and its faults are found before Kaggle finds them."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from typer.testing import CliRunner

from spectramind_nb.apps.bundle import INSTALLER, attached_run, build_bundle, pack_run, unpack_run, write_manifest
from spectramind_nb.apps.bundle_check import bundle_problems, check_bundle, image_problems, needs, read_image
from spectramind_nb.apps.cli import app
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError

DATASET = {"id": "me/spectramind-bundle", "title": "SpectraMind bundle", "licenses": [{"name": "apache-2.0"}]}


def wheel(folder, project, version, module, tag="py3-none-any", needs=(), text="HERE = True\n"):
    """A real, minimal wheel."""
    path = folder / f"{project}-{version}-{tag}.whl"
    info = f"{project}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}.py", text)
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", f"{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    wheel(folder, "spectramind_nb", "0.0.1", "stand_in_one", needs=["torch>=2.4", "hydra-core", 'colorama; sys_platform == "win32"'])
    wheel(folder, "hydra_core", "1.3.2", "stand_in_two", needs=["omegaconf<2.4,>=2.2"])
    (folder / "install.py").write_text(INSTALLER)
    (folder / "dataset-metadata.json").write_text(json.dumps(DATASET))
    write_manifest(folder)
    return folder


def test_a_good_bundle_verifies_and_the_same_wheels_give_the_same_manifest(bundle):
    check_bundle(bundle)
    before = (bundle / "manifest.json").read_bytes()
    assert write_manifest(bundle).read_bytes() == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


HYDRA = "hydra_core-1.3.2-py3-none-any.whl"


@pytest.mark.parametrize(
    ("harm", "culprit"),
    [
        (lambda b: flip(b / HYDRA), f"{HYDRA} is damaged"),
        (lambda b: (b / HYDRA).unlink(), f"{HYDRA} is missing"),
        (lambda b: (b / HYDRA).rename(b / "hydra.whl"), f"{HYDRA} is missing"),
        (lambda b: (b / HYDRA).rename(b / "hydra.whl"), "hydra.whl is not in the manifest"),
        (lambda b: (b / "wheels").mkdir(), "wheels/"),
        (lambda b: (b / "src.tar.gz").write_bytes(b""), "src.tar.gz"),
        (lambda b: (b / "run.zip").write_bytes(b""), "run.zip"),
        (lambda b: wheel(b, "extra", "1", "extra"), "extra-1-py3-none-any.whl is not in the manifest"),
        (lambda b: (b / "install.py").write_text(""), "install.py"),
        (lambda b: (b / "dataset-metadata.json").write_text(json.dumps({**DATASET, "licenses": [{"name": "MIT"}]})), "MIT"),
    ],
)
def test_verify_names_the_culprit(bundle, harm, culprit):
    harm(bundle)
    assert any(culprit in problem for problem in bundle_problems(bundle))
    with pytest.raises(ConfigError, match=culprit.split()[0]):
        check_bundle(bundle)


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        (("hydra_core", "1.3.2", "m", "cp311-cp311-manylinux2014_x86_64"), "hydra-core installs under Python 3.12"),
        (("hydra_core", "1.3.2", "m", "py3-none-win_amd64"), "hydra-core installs under Python 3.13"),
        (("numpy", "1.26.0", "m"), "numpy-1.26.0-py3-none-any.whl belongs to the image"),
        (("nvidia_cublas_cu12", "12.8", "m"), "nvidia_cublas_cu12-12.8-py3-none-any.whl belongs to the image"),
    ],
)
def test_wheels_that_kaggle_could_not_use_are_named(bundle, name, culprit):
    if name[0] == "hydra_core":
        (bundle / HYDRA).unlink()
    wheel(bundle, *name)
    write_manifest(bundle)
    assert any(culprit in problem for problem in bundle_problems(bundle))


def test_a_wheel_that_is_spoilt_inside_is_told(tmp_path):
    """zlib says it in an exception of its own."""
    path = tmp_path / "big-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big-1.dist-info/METADATA", "\n".join(f"Requires-Dist: needed{k}" for k in range(50)))
    content = path.read_bytes()
    path.write_bytes(content[:80] + bytes(255 - byte for byte in content[80:90]) + content[90:])
    with pytest.raises(DamagedFileError, match="big-1-py3-none-any.whl cannot be read as a wheel"):
        needs(path)


def test_a_renamed_wheel_that_the_manifest_knows_is_still_refused(bundle):
    (bundle / HYDRA).rename(bundle / "hydra_core-1.4.0-py3-none-any.whl")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["wheels"]["hydra_core-1.4.0-py3-none-any.whl"] = manifest["wheels"].pop(HYDRA)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert any("hydra_core-1.4.0-py3-none-any.whl is not hydra-core 1.3.2" in problem for problem in bundle_problems(bundle))


def image(tmp_path, *lines):
    path = tmp_path / "image.txt"
    path.write_text("# a comment\n" + "\n".join(lines) + "\n")
    return path


def test_what_the_image_cannot_meet_is_named(bundle, tmp_path):
    assert bundle_problems(bundle, [image(tmp_path, "torch==2.10.0+cpu", "OmegaConf==2.3.0")]) == []
    for lines, words in (
        (["torch==2.10.0"], "hydra-core 1.3.2 needs omegaconf<2.4,>=2.2, which neither the image nor the bundle has"),
        (["torch==2.3.1", "omegaconf==2.3.0"], "spectramind-nb 0.0.1 needs torch>=2.4, the image has 2.3.1"),
        (["torch==2.10.0", "omegaconf==2.4.0"], "hydra-core 1.3.2 needs omegaconf<2.4,>=2.2, the image has 2.4.0"),
    ):
        assert bundle_problems(bundle, [image(tmp_path, *lines)]) == [f"{words} (image.txt)"]
    # the image's own hydra stays, and so does what it needs
    assert image_problems(bundle, read_image(image(tmp_path, "torch==2.10.0", "hydra-core==1.3.1"))) == []
    with pytest.raises(DamagedFileError):
        read_image(image(tmp_path))
    with pytest.raises(DataMissingError):
        read_image(tmp_path / "none.txt")


def install(python, folder):
    return subprocess.run([python, folder / "install.py"], capture_output=True, text=True)


def test_the_installer_installs_only_what_is_missing_wherever_it_lies(bundle, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    new, old = tmp_path / "input/datasets/me/spectramind-bundle", tmp_path / "input/spectramind-bundle"
    new.parent.mkdir(parents=True)
    bundle.rename(new)
    done = install(python, new)
    assert done.returncode == 0 and "installed spectramind-nb==0.0.1, hydra-core==1.3.2" in done.stdout.replace(
        "hydra-core==1.3.2, spectramind-nb==0.0.1", "spectramind-nb==0.0.1, hydra-core==1.3.2"), done.stdout + done.stderr
    new.rename(old)
    done = install(python, old)
    assert done.returncode == 0 and "already there hydra-core 1.3.2" in done.stdout
    assert subprocess.run([python, "-c", "import stand_in_one, stand_in_two"]).returncode == 0
    # a corrected bundle may bear the same version
    wheel(old, "spectramind_nb", "0.0.1", "stand_in_one", text="CORRECTED = True\n")
    write_manifest(old)
    done = install(python, old)
    assert "installed spectramind-nb==0.0.1\n" in done.stdout and "already there hydra-core 1.3.2" in done.stdout
    assert subprocess.run([python, "-c", "from stand_in_one import CORRECTED"]).returncode == 0
    # a stale version of ours is replaced, another package of the image is not
    for name in old.glob("*.whl"):
        name.unlink()
    wheel(old, "spectramind_nb", "0.0.2", "stand_in_one")
    wheel(old, "hydra_core", "1.3.9", "stand_in_two")
    write_manifest(old)
    done = install(python, old)
    assert "installed spectramind-nb==0.0.2" in done.stdout and "already there hydra-core 1.3.2" in done.stdout
    # a developer's own installation shows a checkout, and goes on doing so
    (info,) = (tmp_path / "venv").rglob("spectramind_nb-*.dist-info")
    (info / "direct_url.json").write_text('{"dir_info": {"editable": true}}')
    done = install(python, old)
    assert "installed" not in done.stdout and "spectramind-nb 0.0.2" in done.stdout
    flip(old / "hydra_core-1.3.9-py3-none-any.whl")
    done = install(python, old)
    assert done.returncode == 1 and "hydra_core-1.3.9-py3-none-any.whl is damaged" in done.stderr


@pytest.fixture
def run(tmp_path):
    """As far as it is packed."""
    run = tmp_path / "logs" / "20260101-kaggle_safe"
    for place in ("audit.json", "config.yaml", "overrides.txt", "checkpoints/best.ckpt"):
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        (run / place).write_text(place)
    return run


def test_a_trained_run_travels_in_either_way(bundle, run, tmp_path, capsys):
    mounts, logs = tmp_path / "input", tmp_path / "scratch"
    assert attached_run(logs, mounts) is None
    (mounts / "datasets/me").mkdir(parents=True)
    write_manifest(bundle, run=pack_run(run, bundle))
    check_bundle(bundle)
    bundle.rename(mounts / "datasets/me/spectramind-bundle")
    found = attached_run(logs, mounts)
    assert found == logs / run.name and (found / "checkpoints/best.ckpt").read_text() == "checkpoints/best.ckpt"
    (mounts / "datasets/me/spectramind-bundle/run--config.yaml").write_text("changed")
    with pytest.raises(DamagedFileError, match="run--config"):
        unpack_run(mounts / "datasets/me/spectramind-bundle", logs)
    assert attached_run(logs, mounts) is None  # a kernel goes on, and trains
    said = capsys.readouterr().out
    assert said.startswith(f"STEP DOWN: the run beside {mounts}/datasets/me/spectramind-bundle/manifest.json is of no use: run--config")
    (mounts / "notebooks/me/spectramind-train").mkdir(parents=True)
    run.parent.rename(mounts / "notebooks/me/spectramind-train/logs")
    assert attached_run(logs, mounts) == mounts / "notebooks/me/spectramind-train/logs" / run.name
    with pytest.raises(DataMissingError, match="best checkpoint"):
        pack_run(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"a": ', '{"run": "2024-05-01", "files": []}', '{"run": {"id": "x", "files": {"y": 1}}}'])
def test_a_manifest_of_another_tool_costs_no_submission(run, tmp_path, capsys, text):
    foreign, ours = tmp_path / "input/datasets/you/weights", tmp_path / "input/notebooks/me/spectramind-train/logs"
    foreign.mkdir(parents=True)
    (foreign / "manifest.json").write_text(text)
    ours.parent.mkdir(parents=True)
    run.parent.rename(ours)
    assert attached_run(tmp_path / "scratch", tmp_path / "input") == ours / run.name
    assert capsys.readouterr().out.startswith(f"STEP DOWN: the run beside {foreign / 'manifest.json'} is of no use: ")


def test_the_checkpoint_that_is_named_is_packed(run, tmp_path):
    """It was the best one, whatever was named."""
    named = run / "checkpoints" / "epoch=3.ckpt"
    named.write_text("the third")
    made = build_bundle(tmp_path / "made", user="someone", run=named, extra=())
    assert (unpack_run(made, tmp_path / "there") / "checkpoints/best.ckpt").read_text() == "the third"


def test_the_same_checkout_gives_the_same_bytes(tmp_path):
    """Ours, built twice under different permissions; the other wheels are fixed files of the index."""
    first = build_bundle(tmp_path / "one", user="someone", extra=())
    before = os.umask(0o077)
    try:
        second = build_bundle(tmp_path / "two", user="someone", extra=())
    finally:
        os.umask(before)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}
    with pytest.raises(ConfigError, match="not empty"):
        build_bundle(tmp_path / "one", extra=())
    # without hydra-core it is no bundle, and the command says so
    done = CliRunner().invoke(app, ["bundle", "verify", str(first), "--quick"])
    assert done.exit_code == 2 and "no wheel of hydra-core" in done.stderr


@pytest.mark.parametrize("name", ["kaggle_image_cpu_2026-06.txt", "kaggle_image_2026-08.txt"])
def test_our_requirements_are_met_by_the_images_and_wheels_txt(name, sample_root, repo, tmp_path):
    """Without the network: stand-ins for the other wheels, our own wheel as it is."""
    folder = build_bundle(tmp_path / "bundle", user="someone", extra=())
    for line in (repo / "kaggle/bundle/wheels.txt").read_text().splitlines():
        if line := line.partition("#")[0].strip():
            project, version = line.split("==")
            wheel(folder, project.replace("-", "_"), version, "stand_in")
    write_manifest(folder)
    check_bundle(folder, [sample_root.parent / name])
    ours = next(folder.glob("spectramind_nb-*.whl"))
    tight = folder / "spectramind_nb-0.1.0-py3-none-any.whl"
    assert ours == tight
    wheel(folder, "spectramind_nb", "0.1.0", "stand_in", needs=["numba<0.50"])
    write_manifest(folder)
    assert any("needs numba<0.50, the image has 0.6" in problem for problem in bundle_problems(folder, [sample_root.parent / name]))
