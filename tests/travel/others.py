"""What the real packages make of what we write, and we of what they write; runs in an environment of their own.

    python tests/travel/others.py FOLDER CASE...

The environment sees ours behind itself (a .pth file), so that both are in one process. `test_real_packages.py` builds and calls it.
"""

import functools
import gc
import os
import sys
import traceback
from pathlib import Path

import numpy as np

gc.disable()  # for some seconds: most of what is there is libraries
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

TIME = 2459500.0 + np.linspace(0, 0.25, 120)
WAVELENGTH = np.linspace(1.0, 5.0, 6)
FLUX = 1e4 * WAVELENGTH * (1 - 0.01 * (np.abs(TIME - 2459500.12) < 0.05))[:, None] + np.random.default_rng(1).normal(size=(120, 6))
ERROR = np.ones((120, 6)) * np.sqrt(WAVELENGTH)
BAD = (np.arange(120) == 17)[:, None] & (WAVELENGTH > 3)


def same(curves, name, widths=None, masked=BAD):
    """Numbers, order, masks and widths are those that went in."""
    assert np.allclose(curves.wavelengths_um, WAVELENGTH, rtol=1e-12) and np.allclose(curves.time_h[name], 24 * (TIME - 2459500), atol=1e-8)
    assert np.allclose(curves.flux[name], np.where(masked, np.nan, FLUX), rtol=1e-12, equal_nan=True)
    assert np.allclose(curves.noise[name], ERROR, rtol=1e-12)
    assert (curves.widths_um is None) == (widths is None) and (widths is None or np.allclose(curves.widths_um, widths, rtol=1e-9))


def rainbow(folder):
    """chromatic: a Rainbow in memory, its own file, and the early-release team's netCDF that it writes."""
    import astropy.units as u
    import chromatic
    from chromatic.rainbows.writers.xarray_raw_light_curves import to_xarray_raw_light_curves

    from spectramind_nb import LightCurves

    made = chromatic.Rainbow(time=TIME * u.day, wavelength=WAVELENGTH * u.micron, flux=FLUX.T, uncertainty=ERROR.T)
    same(LightCurves.from_chromatic(made, instrument="NIRSpec"), "NIRSpec", masked=False)
    made.fluxlike["ok"] = 1.0 - BAD.T
    same(LightCurves.from_chromatic(made), "spectrograph")
    made.save(f"{folder}/made.rainbow.npy")
    same(LightCurves.from_file(f"{folder}/made.rainbow.npy"), "spectrograph")
    to_xarray_raw_light_curves(made, f"{folder}/made.nc")
    same(LightCurves.from_file(f"{folder}/made.nc"), "spectrograph", widths=0.8, masked=False)


def eureka(folder):
    """astraeus: files as Eureka's Stage 3 and 4 write them."""
    from astraeus import xarrayIO

    from spectramind_nb import LightCurves

    one = ("electrons", "microns", "BJD_TDB")
    parts = {"data": FLUX.T, "err": ERROR.T, "mask": BAD.T}
    parts = {key: xarrayIO.makeLCDA(values, WAVELENGTH, TIME, *one, name=key) for key, values in parts.items()}
    for key, sign in (("wave_low", -1), ("wave_hi", 1)):
        parts[key] = xarrayIO.makeWaveLikeDA(WAVELENGTH + sign * 0.3, WAVELENGTH, "microns", "microns", name=key)
    assert xarrayIO.writeXR(f"{folder}/S4_LCData.h5", xarrayIO.makeDataset(parts), verbose=False)
    same(LightCurves.from_astraeus(f"{folder}/S4_LCData.h5", instrument="NIRSpec"), "NIRSpec", widths=0.6)

    x = np.arange(6)
    spectra = {"optspec": FLUX[:, ::-1], "opterr": ERROR[:, ::-1], "optmask": BAD[:, ::-1]}  # a detector that sees the red first
    import xarray

    spectra = {key: xarray.DataArray(values, coords={"time": TIME, "x": x}, dims=["time", "x"]) for key, values in spectra.items()}
    spectra["wave_1d"] = xarray.DataArray(1000 * WAVELENGTH[::-1], dims=["x"], attrs={"wave_units": "nm"})
    dataset = xarrayIO.makeDataset(spectra)
    dataset["time"].attrs["time_units"] = "BMJD_TDB"
    assert xarrayIO.writeXR(f"{folder}/S3_SpecData.h5", dataset, verbose=False)
    same(LightCurves.from_astraeus(f"{folder}/S3_SpecData.h5"), "spectrograph")


def units(folder):
    """A data set with a unit that we do not read, such as a calendar's: whoever names one is believed."""
    import xarray

    from spectramind_nb import LightCurves
    from spectramind_nb.core.errors import SchemaError

    grids = {key: (("time", "wavelength"), values) for key, values in (("flux", FLUX), ("error", ERROR))}
    calendar = ("time", TIME, {"units": "days since 1858-11-17"})
    dataset = xarray.Dataset(grids, {"time": calendar, "wavelength": ("wavelength", WAVELENGTH, {"units": "um"})})
    same(LightCurves.from_xarray(dataset, time_unit="d"), "spectrograph", masked=False)
    try:
        LightCurves.from_xarray(dataset)
        raise AssertionError("its unit is not known")
    except SchemaError as error:
        assert "days since" in str(error)


def lightkurve(folder):
    """lightkurve: a white light curve with a masked sample and a longer baseline than a visit."""
    import lightkurve as lk
    from astropy.time import Time
    from astropy.utils.masked import Masked

    from spectramind_nb import LightCurves

    time = np.r_[TIME[0] - 20, TIME, TIME[-1] + 20]
    flux = Masked(np.r_[1.0, FLUX[:, 0], 1.0], mask=np.r_[False, BAD[:, -1], False])
    made = lk.LightCurve(time=Time(time, format="jd"), flux=flux, flux_err=np.r_[1.0, ERROR[:, 0], 1.0])
    made.meta["MISSION"] = "Kepler"
    curves = LightCurves.from_lightkurve(made, window=(TIME[0] - 0.01, TIME[-1] + 0.01))
    assert np.allclose(curves.flux["KEPLER"], np.where(BAD[:, -1], np.nan, FLUX[:, 0]), rtol=1e-12, equal_nan=True)
    assert curves.wavelengths_um.tolist() == [0.64] and np.allclose(curves.noise["KEPLER"], 1)


@functools.cache
def spectrum():
    """A fit of two instruments whose wavelengths interleave."""
    from own_curves import draw

    from spectramind_nb import LightCurves, fit_visit, star_row

    arrays, known, _ = draw(5, 8, ("photometer", "prism"))
    arrays["wavelength"]["photometer"], arrays["width"] = np.array([1.9]), {"photometer": 0.4, "prism": None}
    return fit_visit(LightCurves.from_arrays(**arrays), star_row(**known))


def taurex(folder):
    """TauREx reads the file: numbers, order, widths; its binner averages a model over our bins."""
    from taurex.data.spectrum.array import ArraySpectrum
    from taurex.data.spectrum.observed import ObservedSpectrum

    array = spectrum().to_taurex(f"{folder}/made.dat")
    for observed in (ObservedSpectrum(f"{folder}/made.dat"), ArraySpectrum(array.copy())):
        red_first = array[::-1]
        assert np.array_equal(observed.wavelengthGrid, red_first[:, 0]) and np.array_equal(observed.spectrum, red_first[:, 1])
        assert np.array_equal(observed.errorBar, red_first[:, 2]) and np.array_equal(observed.rawData[:, 3], red_first[:, 3])
        middle, width = red_first[:, 0], red_first[:, 3]
        assert np.allclose(observed.binWidths, 1e4 * width / middle**2, rtol=1e-12)  # the first order of what a bin is
        exact = 1e4 / (middle - width / 2) - 1e4 / (middle + width / 2)  # 1/cm
        assert (np.abs(observed.binWidths / exact - 1) < 0.26 * (width / middle) ** 2).all()
        grid = np.linspace(1500, 20000, 200_000)
        binned = observed.create_binner().bindown(grid, 1e4 / grid)[1]  # a model that is the wavelength itself
        low, high = (1e4 / middle + sign * observed.binWidths / 2 for sign in (-1, 1))
        assert np.allclose(binned, 1e4 * np.log(high / low) / (high - low), rtol=2e-4)


def retrieval(folder):
    """The tutorial on own light curves, with the retrieval that it skips where TauREx is not there."""
    import json

    tutorial = Path(__file__).parents[2] / "nbs/tutorials/07_own_light_curves.ipynb"
    os.chdir(tutorial.parent)
    told = {}
    for cell in json.loads(tutorial.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), told)
        if cell["id"] == "taurex-retrieval":
            break
    assert abs(told["radius"] - 1.344) < 0.001 and 2 < told["error"] / told["diagonal"] < 4


def netcdf(folder):
    """xarray reads the data set: numbers, order, covariance."""
    import xarray

    from spectramind_nb.observations.exchange import record_of

    fit = spectrum()
    fit.to_xarray(f"{folder}/made.nc")
    record = record_of(fit)
    with xarray.open_dataset(f"{folder}/made.nc") as read:
        assert np.array_equal(read.central_wavelength, record.wavelength_um) and read.central_wavelength.attrs["units"] == "micron"
        assert np.array_equal(read.transit_depth, record.depth) and np.array_equal(read.covariance, record.covariance)
        assert np.array_equal(2 * read.bin_half_width, record.width_um) and read.instrument.values.tolist() == record.instrument
        assert read.attrs["planet"] == "own light curves"


def petitradtrans(folder):
    """petitRADTRANS reads the file: numbers, order, covariance, and so the likelihood of a model; widths it has to be given."""
    from petitRADTRANS.retrieval.data import Data

    from spectramind_nb.observations.exchange import record_of

    fit = spectrum()
    fit.to_petitradtrans(f"{folder}/made.fits")
    record = record_of(fit)
    read = Data("made", f"{folder}/made.fits", model_generating_function=lambda *_: None, wavelength_bin_widths=record.width_um)
    for name, values in {"wavelengths": record.wavelength_um, "spectrum": record.depth, "covariance": record.covariance}.items():
        assert np.array_equal(getattr(read, name), values), name
    assert np.allclose(read.uncertainties, record.sigma, rtol=1e-12) and np.array_equal(read.wavelength_bin_widths, record.width_um)
    assert np.allclose(read.inv_cov @ record.covariance, np.eye(len(record.depth)), atol=1e-9)
    assert np.isclose(read.log_covariance_determinant, np.linalg.slogdet(2 * np.pi * record.covariance)[1], rtol=1e-12)
    bare = Data("made", f"{folder}/made.fits", model_generating_function=lambda *_: None)
    assert not np.allclose(bare.wavelength_bin_widths, record.width_um)  # it takes the distances to the next channel instead


if __name__ == "__main__":
    folder, *asked = sys.argv[1:]
    known = {case.__name__: case for case in (rainbow, eureka, units, lightkurve, taurex, netcdf, retrieval, petitradtrans)}
    failed = {}
    for name in asked:
        place = Path(folder, name)
        place.mkdir()
        try:
            known[name](place)
        except BaseException:
            failed[name] = traceback.format_exc()
    print(*(f"{name}: {text}" for name, text in failed.items()), sep="\n", file=sys.stderr)
    sys.exit(len(failed))
