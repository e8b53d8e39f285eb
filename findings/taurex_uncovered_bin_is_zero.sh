#!/usr/bin/env bash
# TauREx 3.3.2: a bin that the spectrum does not reach comes out as depth 0 with error 0.
#
# Behaviour: FluxBinner.bindown begins with arrays of zeros and skips bins outside the spectrum's range. What comes back for them is a
# transit depth of exactly 0 with an error of exactly 0, and no warning: with inverse-variance weights that is the best measured channel of all.
# Expected before the run: NaN, or an error that names the bin. Compare the ranges before binning a model on an observation's grid.
# Source: taurex/binning/fluxbinner.py of the installed package, the `continue` in bindown's loop.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check taurex==3.3.2 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import numpy as np
from taurex.binning import FluxBinner

wavenumber = np.linspace(2500.0, 5000.0, 251)  # 2 to 4 um
depth, error = np.full(251, 0.01), np.full(251, 1e-4)
grid = 1e4 / np.array([5.0, 3.0])  # um: the first bin lies outside
_, binned, noise, _ = FluxBinner(grid, np.array([50.0, 50.0])).bindown(wavenumber, depth, error=error)
print("bins at 5 and 3 um: depth", binned, "error", noise)
assert binned[0] == 0 and noise[0] == 0, "TauREx changed: an uncovered bin is no longer zero"
assert np.isclose(binned[1], 0.01) and noise[1] > 0
PYTHON
