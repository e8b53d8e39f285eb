"""NDRs that ExoSim itself makes, in an environment of its own, `.venv-exosim`, which is made at the first use; see exosim_planet.py."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from exosim_planet import WIDTH
from own_process import INSTALL
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.detector import calibrate_frames
from spectramind_nb.observations.exosim_options import open_options, system_row
from spectramind_nb.observations.signals import read_plane, read_signal
from spectramind_nb.physics.catalogue import GEOMETRY, believed, transit_hours

pytestmark = pytest.mark.slow  # where ExoSim and what it made are not kept yet
REPO = Path(__file__).resolve().parents[2]
PINNED = ("exosim==2.2.1", "setuptools")  # batman-package imports distutils, which nothing declares


def python_312() -> str | None:
    """A Python 3.12, which ExoSim 2.2 needs: on the path, or where pyenv keeps its own."""
    kept = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.12*/bin/python3.12"))
    for candidate in (*kept, shutil.which("python3.12")):
        if candidate and subprocess.run([candidate, "-c", "import venv"], capture_output=True).returncode == 0:
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def exosim() -> Path:
    """The interpreter of an environment that has ExoSim."""
    home = REPO / ".venv-exosim"
    python, stamp = home / "bin/python", home / ".installed"
    if not stamp.is_file() or stamp.read_text() != "\n".join(PINNED):
        if (base := python_312()) is None:
            pytest.skip("NOT TESTED ON EXOSIM'S OWN FILES: there is no Python 3.12 here")
        shutil.rmtree(home, ignore_errors=True)
        for words in ([base, "-m", "venv", "--without-pip", home], [*INSTALL, python, *PINNED]):
            made = subprocess.run(words, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"NOT TESTED ON EXOSIM'S OWN FILES: {(made.stderr or made.stdout).strip().splitlines()[-1]}")
        stamp.write_text("\n".join(PINNED))
    return python


@pytest.fixture(scope="module")
def made(exosim) -> Path:
    """A folder in which ExoSim made focal plane, sub-exposures and NDRs of half a minute.

    Kept beside ExoSim: they depend on its version and on what it is told, and on nothing of ours.
    """
    script, home = REPO / "tests/travel/exosim_planet.py", exosim.parents[1]
    folder = home / f"made-{hashlib.sha256(script.read_bytes()).hexdigest()[:16]}"
    if not (folder / "whole").is_file():
        for old in home.glob("made-*"):
            shutil.rmtree(old)
        ran = subprocess.run([exosim, script, folder], capture_output=True, text=True, cwd=home)
        assert ran.returncode == 0, ran.stderr[-3000:]
        (folder / "whole").touch()
    return folder


def command(*words):
    return CliRunner().invoke(app, ["import", "exosim", *map(str, words)])


def test_what_exosim_did_to_the_light_is_undone(made, tmp_path, monkeypatch):
    """Import and calibration give back the electrons that ExoSim's own sub-exposures hold: no noise is in them."""
    monkeypatch.chdir(tmp_path)
    done = command(made / "ndrs.h5", "--out", "data", "--planet", 4)
    assert done.exit_code == 0, done.output
    challenge = open_challenge("data")
    for name, width in WIDTH.items():
        maps = {what: np.load(made / f"{name}_{what}.npy") for what in ("dark", "dead", "flat", "bent")}
        with h5py.File(made / "ndrs.h5") as ndrs, h5py.File(made / "se.h5") as collected:
            frames, times = (ndrs[f"channels/{name}/NDRs/{what}"][()] for what in ("data", "time"))
            light = collected[f"channels/{name}/SubExposures/data"][1::2]
        assert np.array_equal(read_signal(challenge.signal_path("train", 4, 0, name), name).numpy(), frames)
        stored = pd.read_parquet("data/axis_info.parquet")[f"{name}-axis0-h"].dropna()
        assert np.allclose(stored, times, rtol=0, atol=1e-9) and np.allclose(times[:2] * 3600, [0.1, 0.2])
        for what, shape in (("dark", (32, width)), ("dead", (32, width)), ("flat", (32, width))):
            assert np.array_equal(read_plane(challenge.calibration_path("train", 4, 0, name, what), shape), maps[what].reshape(shape))
        found = calibrate_frames("data", 4, instrument=name)
        off = found * maps["flat"] - light  # sub-exposures hold the detector's response, without dark current
        assert light.max() > 3000 and np.isfinite(found).mean() > 0.98
        assert np.nanmax(np.abs(off)) < 2.5 and abs(np.nanmean(off)) < 0.2  # electrons: the converter's steps are 2.3


def test_the_planet_can_exist(made):
    """A row that breaks Kepler's third law is not believed, and its fit knows less than it might."""
    row, _ = believed(system_row(open_options(made / "main.xml")), window_h=3.0)
    assert np.isfinite([row[name] for name in GEOMETRY]).all() and transit_hours(row)[1] < 2


def test_truth_is_within_a_few_ppm_of_what_exosims_pixels_saw(made, tmp_path, monkeypatch):
    """ExoSim smears the planet's spectrum with its line shapes; a band of 1,050 ppm and 0.15 um shows it most."""
    monkeypatch.chdir(tmp_path)
    command(made / "ndrs.h5", "--out", "data")
    with h5py.File(made / "fp.h5") as file:
        group = file["channels/AIRS-CH0"]
        lines, um, light = group["psf/psf_cube"][0], group["psf/wavelength/value"][()], group["sources/star/data"][0, 0]
        columns = group["focal_plane/spectral"][()]
    depth = np.interp(um, *pd.read_csv(made / "rp.ecsv", comment="#").to_numpy().T) ** 2
    line = lines[:, lines.shape[1] // 2] * light[:, None]
    centre = np.round(np.interp(-um, -columns, np.arange(len(columns)))).astype(int)
    seen, weight = np.zeros((2, len(columns)))
    for shift in range(line.shape[1]):
        column, value = centre + shift - line.shape[1] // 2, line[:, shift]
        inside = (column >= 0) & (column < len(columns))
        np.add.at(seen, column[inside], (value * depth)[inside])
        np.add.at(weight, column[inside], value[inside])
    smeared = (seen / weight)[1::3][39:321][::-1]  # the middle sub-pixel
    told = open_challenge("data").labels().iloc[0].to_numpy()
    assert np.ptp(told[1:]) > 1000e-6 and np.abs(told[1:] - smeared).max() < 10e-6


@pytest.mark.parametrize("name, words", [("se.h5", "holds sub-exposures, not NDRs"), ("fp.h5", "holds a focal plane, not NDRs")])
def test_its_other_files_are_told_apart(made, tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    done = command(made / name, "--out", "data")
    assert done.exit_code == 10 and words in done.stderr and not Path("data").exists()
