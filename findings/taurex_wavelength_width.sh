#!/usr/bin/env bash
# TauREx 3.3.2: the "wavelength width" of a binned spectrum is one over its wavenumber width.
#
# Behaviour: FluxBinner.generate_spectrum_output stores `binned_wlwidth` beside `binned_wlgrid` (in micrometres). A bin that is dn wide in
# wavenumber (1/cm) at wavelength w (um) is about 1e-4 * w^2 * dn micrometres wide. What is stored is 1 / dn instead, whatever w is:
# wider bins get smaller widths. Two bins of 0.05 um at 2 and 4 um come out as 0.008 and 0.032.
# Expected before the run: 0.05 um for both bins. Whoever plots or exports a retrieval's result with these widths draws wrong error bars in
# wavelength; take `binned_wnwidth` and convert it.
# Source: taurex/binning/fluxbinner.py of the installed package, last lines of generate_spectrum_output.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check taurex==3.3.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from taurex.binning import FluxBinner

wavelength_um = np.array([2.0, 4.0])
width_um = np.array([0.05, 0.05])
wavenumber, wavenumber_width = 1e4 / wavelength_um, 1e4 * width_um / wavelength_um**2
fine = np.linspace(2000.0, 6000.0, 4001)
binner = FluxBinner(wavenumber, wavenumber_width)
output = binner.generate_spectrum_output((fine, np.full_like(fine, 0.01), np.zeros((1, fine.size)), None))
order = np.argsort(output["binned_wlgrid"])
seen, expected = output["binned_wlwidth"][order], width_um
print("wavelength, um:      ", output["binned_wlgrid"][order])
print("width given, um:     ", expected)
print("binned_wlwidth:      ", seen)
print("1 / wavenumber width:", 1 / wavenumber_width)
assert np.allclose(seen, 1 / wavenumber_width), "TauREx changed: binned_wlwidth is no longer the reciprocal"
assert not np.allclose(seen, expected, rtol=0.5)
PYTHON
