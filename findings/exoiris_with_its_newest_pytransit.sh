#!/usr/bin/env bash
# ExoIris 1.1.1 installs with PyTransit 2.10.1 and cannot compute a likelihood with it; with 2.8.1 it can.
#
# Behaviour: ExoIris asks for PyTransit without an upper bound. From 2.9 on PyTransit's transmission spectroscopy model lacks an attribute that
# ExoIris's model reads, so installation, import and set-up succeed and the first likelihood raises AttributeError.
# Expected before the run: what the installer chooses works. Pin pytransit below 2.9 beside this version of ExoIris.
# Source: both packages as installed; ExoIris's requirement is in its metadata.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for version in 2.8.1 2.10.1; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q --disable-pip-version-check exoiris==1.1.1 pytransit==$version numpy==2.4.6
  "$folder/$version/bin/python" -W ignore - $version <<'PYTHON'
import sys

import numpy as np
from exoiris import ExoIris
from exoiris.tsdata import TSData

time, wavelength = np.linspace(-0.1, 0.1, 50), np.linspace(1.0, 2.0, 20)
flux = 1 + np.random.default_rng(0).normal(0, 1e-3, (20, 50))
flux[:, 15:35] -= 0.01
data = TSData(time, wavelength, flux, np.full_like(flux, 1e-3), name="visit")
model = ExoIris("planet", "power-2", data=data, nk=5)._tsa
draw = model.ps.sample_from_prior(1)
try:
    seen = f"ln posterior {float(np.squeeze(model.lnposterior(draw))):.4g}"
except AttributeError as error:
    seen = f"AttributeError: {error}"
print(f"PyTransit {sys.argv[1]}: {seen}")
assert seen.startswith("ln posterior") == (sys.argv[1] == "2.8.1"), "the two work together otherwise than they did"
PYTHON
done
