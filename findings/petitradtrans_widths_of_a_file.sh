#!/usr/bin/env bash
# petitRADTRANS 3.4.0: Data takes no bin widths from a FITS file, and makes them from the distances between channels.
#
# Behaviour: `Data(name, "spectrum.fits", ..)` reads WAVELENGTH, FLUX and COVARIANCE of the extension SPECTRUM. A column of widths is not looked
# at: each channel is as wide as the next one is far. Where a photometer's band lies among a spectrograph's channels, both get widths that
# neither has, and a model is averaged over the wrong wavelengths without a word.
# Expected before the run: 0.1 um for all channels and 0.4 um for the photometer. Pass `wavelength_bin_widths`.
# Source: petitRADTRANS/retrieval/data.py of the installed package, __init__ and loadfits. Needs gfortran.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check petitRADTRANS==3.4.0 mpich==5.0.2
HOME="$folder" "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np
from astropy.io import fits
from petitRADTRANS.retrieval.data import Data

wavelength, width = np.array([1.0, 1.1, 1.15, 1.2]), np.array([0.1, 0.1, 0.4, 0.1])
columns = [fits.Column("WAVELENGTH", "D", array=wavelength), fits.Column("FLUX", "D", array=0.01 + 0 * wavelength),
           fits.Column("COVARIANCE", "4D", array=1e-8 * np.eye(4)), fits.Column("BIN_WIDTH", "D", array=width)]
fits.BinTableHDU.from_columns(columns, name="SPECTRUM").writeto(f"{sys.argv[1]}/spectrum.fits")
read = Data("one", f"{sys.argv[1]}/spectrum.fits", model_generating_function=lambda *_: None)
print("widths in the file:", width)
print("widths taken:      ", read.wavelength_bin_widths)
assert np.allclose(read.wavelength_bin_widths, [0.1, 0.05, 0.05, 0.05]), "petitRADTRANS changed: other widths are taken"
PYTHON
