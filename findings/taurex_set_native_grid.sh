#!/usr/bin/env bash
# TauREx 3.3.2: set_native_grid of a transmission model raises UnboundLocalError for a plain array.
#
# Behaviour: `model.set_native_grid(wavenumbers)` reads a name that only the branch for astropy quantities has bound; for a quantity that branch
# asks for the unit `u.k`, which is a wavenumber in no system. So a model whose molecules have no opacities (scattering and clouds alone), which
# has no grid of its own, cannot be given one.
# Expected before the run: the grid is taken. Assign `model._native_grid`, sorted, in 1/cm.
# Source: taurex/model/simplemodel.py of the installed package, set_native_grid.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check taurex==3.3.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from taurex.chemistry import TaurexChemistry
from taurex.contributions import RayleighContribution
from taurex.model import TransmissionModel

model = TransmissionModel(chemistry=TaurexChemistry(fill_gases=["H2", "He"], ratio=0.17), nlayers=10)
model.add_contribution(RayleighContribution())
grid = np.linspace(2000.0, 10000.0, 100)
try:
    model.set_native_grid(grid)
except UnboundLocalError as error:
    print("set_native_grid:", error)
else:
    raise SystemExit("TauREx changed: a plain array is taken")
model._native_grid = grid
model.build()
print("depth at both ends of the grid:", model.model()[1][[0, -1]])
PYTHON
