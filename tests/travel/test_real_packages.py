"""The real packages in an environment of their own, `.venv-others`, which is made at the first use; see others.py."""

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PINNED = ("chromatic-lightcurves==0.5.1", "astraeus-io==1.0", "lightkurve==2.6.0", "taurex==3.3.2", "xarray==2026.9.0", "h5netcdf==1.8.2")


@pytest.fixture(scope="module")
def others() -> Path:
    """The interpreter of an environment that has these packages, and ours behind them."""
    home = REPO / ".venv-others"
    python, stamp = home / "bin/python", home / ".installed"
    if not stamp.is_file() or stamp.read_text() != "\n".join(PINNED):
        venv.create(home, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINNED]
        made = subprocess.run(install, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"NOT TESTED WITH THE REAL PACKAGES: {made.stderr.strip().splitlines()[-1]}")
        Path(sysconfig.get_path("purelib", vars={"base": str(home)}), "zz_ours.pth").write_text(sysconfig.get_path("purelib"))
        stamp.write_text("\n".join(PINNED))
    return python


@pytest.mark.parametrize("case", ["rainbow", "eureka", "lightkurve", "taurex", "netcdf"])
def test_light_curves_and_spectra_come_back_as_they_were(others, case, tmp_path):
    environment = {**os.environ, "PYTHONPATH": "", "MPLBACKEND": "agg"}
    ran = subprocess.run([others, REPO / "tests/travel/others.py", case, tmp_path], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
