#!/usr/bin/env bash
# ExoIris 1.1.1: a data set with descending wavelengths is accepted and binned into numbers of other wavelengths.
#
# Behaviour: TSData takes wavelengths in any order, and bin_wavelength walks along them as if they rose. With the same spectrum the other way round
# every bin but the last gets the flux of the reddest sample and its unbinned error, the last one a mean of both ends; nothing is raised.
# Expected before the run: the same ten bins, or an error. Reverse wavelengths, fluxes and errors before making a TSData.
# Source: exoiris/bin1d.py and tsdata.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check exoiris==1.1.1 pytransit==2.8.1 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
from exoiris.tsdata import TSData

time, wavelength = np.linspace(-0.1, 0.1, 50), np.linspace(1.0, 2.0, 100)
flux = np.repeat(1 + 0.01 * wavelength[:, None], 50, axis=1)
error = np.full_like(flux, 1e-3)
rising = TSData(time, wavelength, flux, error, name="rising").bin_wavelength(nb=10)
falling = TSData(time, wavelength[::-1], flux[::-1], error, name="falling").bin_wavelength(nb=10)
print("bins, um:          ", rising.wavelength)
print("rising wavelengths: ", rising.fluxes[:, 0].round(4))
print("falling wavelengths:", falling.fluxes[:, 0].round(4))
assert np.allclose(rising.fluxes[:, 0], 1 + 0.01 * rising.wavelength, atol=1e-4)
assert np.allclose(falling.fluxes[:9, 0], 1.02), "ExoIris changed: falling wavelengths are binned otherwise"
PYTHON
