#!/usr/bin/env bash
# TauREx 3.3.2: FluxBinner.bindown sorts the spectrum it is given, but not the widths given with it.
#
# Behaviour: `bindown(wngrid, spectrum, grid_width, error)` puts wavenumbers, spectrum and errors in ascending order and leaves `grid_width`
# in the order of the caller. A spectrum stored by ascending wavelength (descending wavenumber, as most tables are) with unequal widths is
# therefore binned with each sample's width taken from the other end of the grid, and no error is raised.
# Expected before the run: the order of the samples makes no difference. Sort by wavenumber, widths too, before calling it.
# Source: taurex/binning/fluxbinner.py of the installed package, first lines of bindown.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check taurex==3.3.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from taurex.binning import FluxBinner

wavelength_um = np.linspace(2.0, 4.0, 9)  # equal steps in wavelength: unequal ones in wavenumber
wavenumber, width = 1e4 / wavelength_um, 1e4 * 0.25 / wavelength_um**2
depth_percent = 1.0 + np.arange(9) / 10
binner = FluxBinner(np.array([3000.0, 4000.0]), np.array([500.0, 500.0]))
ascending = np.argsort(wavenumber)
sorted_first = binner.bindown(wavenumber[ascending], depth_percent[ascending], grid_width=width[ascending])[1]
as_stored = binner.bindown(wavenumber, depth_percent, grid_width=width)[1]
print("by ascending wavenumber:", sorted_first)
print("by ascending wavelength:", as_stored)
assert abs(as_stored - sorted_first).max() > 0.01, "TauREx changed: the order of the samples makes no difference any more"
PYTHON
