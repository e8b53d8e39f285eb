"""The real packages in environments of their own, which are made at the first use; see others.py."""

import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from own_process import INSTALL

REPO = Path(__file__).resolve().parents[2]
PINNED = {  # environment -> what is installed into it
    ".venv-others": (
        "chromatic-lightcurves==0.5.1", "astraeus-io==1.0", "lightkurve==2.6.0", "taurex==3.3.2", "xarray==2026.9.0", "h5netcdf==1.8.2",
    ),
    ".venv-petitradtrans": ("petitRADTRANS==3.4.0", "mpich==5.0.2"),  # made from Fortran, which takes a minute or two; needs a libmpi
}


def made(name: str) -> Path:
    """The interpreter of an environment that has these packages, and ours behind them."""
    home, pinned = REPO / name, PINNED[name]
    python, stamp = home / "bin/python", home / ".installed"
    if not stamp.is_file() or stamp.read_text() != "\n".join(pinned):
        venv.create(home, clear=True)
        done = subprocess.run([*INSTALL, python, *pinned], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"NOT TESTED WITH THE REAL PACKAGES: {done.stderr.strip().splitlines()[-1]}")
        Path(sysconfig.get_path("purelib", vars={"base": str(home)}), "zz_ours.pth").write_text(sysconfig.get_path("purelib"))
        stamp.write_text("\n".join(pinned))
    return python


@pytest.fixture(scope="module")
def others() -> Path:
    return made(".venv-others")


@pytest.fixture(scope="module")
def petitradtrans() -> Path:
    if shutil.which("gfortran") is None:
        pytest.skip("NOT TESTED WITH PETITRADTRANS: it is made from Fortran, and gfortran is not there (apt-get install gfortran)")
    return made(".venv-petitradtrans")


def succeed(python: Path, folder: Path, *cases: str) -> None:
    """One process for all cases: each would import Torch, astropy and us anew. One that fails is told by name and costs no other."""
    environment = {**os.environ, "PYTHONPATH": "", "MPLBACKEND": "agg", "HOME": str(folder)}  # petitRADTRANS writes its settings there
    ran = subprocess.run([python, REPO / "tests/travel/others.py", folder, *cases], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_light_curves_and_spectra_come_back_as_they_were(others, tmp_path):
    succeed(others, tmp_path, "rainbow", "eureka", "units", "lightkurve", "taurex", "netcdf", "retrieval")


def test_petitradtrans_reads_spectrum_and_covariance(petitradtrans, tmp_path):
    succeed(petitradtrans, tmp_path, "petitradtrans")
