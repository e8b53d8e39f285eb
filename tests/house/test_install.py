"""The wheel holds all that is needed and works in an empty folder of a machine that has only it."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from own_process import bring_machine_code

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"  # built from a copy: setuptools leaves a build folder behind
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPO, capture_output=True, text=True)
    for name in files.stdout.splitlines():
        if (REPO / name).is_file():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPO / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, tree], check=True,
                   capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_package_and_configs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [REPO / "spectramind_nb/py.typed", *REPO.glob("spectramind_nb/**/*.py"), *REPO.glob("configs/**/*.yaml")]:
        inside = path.relative_to(REPO).as_posix()
        assert (inside if inside.startswith("spectramind_nb") else f"spectramind_nb/{inside}") in names
    assert not [name for name in names if name.startswith(("nbs/", "tests/", "kaggle/", "configs/"))]


def test_wheel_alone_trains_in_an_empty_folder(wheel, tmp_path):
    """A fresh environment with the wheel (its dependencies borrowed from this one) runs the main job."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = Path(subprocess.run([venv / "bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                               capture_output=True, text=True, check=True).stdout.strip())
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel],
                   check=True)
    bring_machine_code(site / "spectramind_nb")
    borrowed = [path for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    # a path file comes after the wheel's own folder, and does not process the editable install's hook
    (site / "borrowed.pth").write_text("\n".join(borrowed))
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SPECTRAMIND_CACHE")}
    work = tmp_path / "work"
    work.mkdir()
    where = subprocess.run([venv / "bin/python", "-c", "import spectramind_nb; print(spectramind_nb.__file__)"], env=env,
                           cwd=work, capture_output=True, text=True, check=True).stdout
    assert where.startswith(str(site))
    done = subprocess.run([venv / "bin/python", "-m", "spectramind_nb", "train", "trainer=ci_fast",
                           "data.simulate.train=6", "data.simulate.test=2"],
                          cwd=work, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(work.glob("logs/*/submission.csv")) and (work / "v50_debug_log.md").is_file()
