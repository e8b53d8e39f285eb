"""Spectra leave with everything a retrieval needs: numbers, order, widths and covariance come back as they were."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.table import QTable
from own_curves import draw
from typer.testing import CliRunner

from spectramind_nb import LightCurves, Spectrum, fit_visit, star_row
from spectramind_nb.apps.cli import app
from spectramind_nb.core.errors import ConfigError, PreflightError, SchemaError
from spectramind_nb.observations.exchange import FORMATS, Spectra, export_spectra, record_of

MICRON = "um"


@pytest.fixture(scope="module")
def fitted():
    """Two instruments, the photometer's wavelength within the spectrograph's, the longest window first."""
    arrays, known, _ = draw(5, 8, ("photometer", "prism"))
    arrays["wavelength"]["photometer"] = np.array([1.9])
    arrays["width"] = {"photometer": 0.4, "prism": None}
    return fit_visit(LightCurves.from_arrays(**arrays, name="WASP-39 b"), star_row(**known))


def test_the_record_is_the_fit_in_the_order_of_wavelengths(fitted):
    record = record_of(fitted)
    order = np.argsort(fitted.wavelengths_um.numpy())
    assert (np.diff(record.wavelength_um) > 0).all() and record.instrument.count("photometer") == 1
    assert np.array_equal(record.depth, fitted.depth.numpy()[order]) and np.array_equal(record.sigma, fitted.sigma.numpy()[order])
    assert np.array_equal(record.covariance, fitted.covariance.numpy()[np.ix_(order, order)])
    photometer = record.instrument.index("photometer")
    assert 0 < photometer < 8 and record.width_um[photometer] == 0.4 and np.allclose(np.delete(record.width_um, photometer), 4.5 / 8)
    assert record.provenance["mid_time_d"] > 2459499 and record.provenance["program"].startswith("spectramind_nb 0.")


@pytest.mark.parametrize("ending", [".ecsv", ".fits"])
def test_astropy_reads_the_table(fitted, tmp_path, ending):
    record = record_of(fitted)
    fitted.to_table(tmp_path / f"made{ending}")
    table = QTable.read(tmp_path / f"made{ending}")
    assert table["wavelength"].unit == table["bandwidth"].unit == MICRON
    for name, values in {"wavelength": record.wavelength_um, "bandwidth": record.width_um}.items():
        assert np.array_equal(table[name].value, values)
    for name, values in {"transit_depth": record.depth, "transit_depth_error": record.sigma, "covariance": record.covariance}.items():
        assert np.array_equal(np.array(table[name]), values)
    assert table["instrument"].tolist() == record.instrument
    meta = {key.lower(): value for key, value in table.meta.items()}
    assert meta["planet"] == "WASP-39 b" and json.loads(meta["provenance"])["period_d"] == fitted.geometry["period_d"]


def test_petitradtrans_finds_its_columns(fitted, tmp_path):
    record = record_of(fitted)
    fitted.to_petitradtrans(tmp_path / "made.fits")
    data = fits.getdata(tmp_path / "made.fits", "SPECTRUM")  # petitRADTRANS reads the file with these lines
    assert np.array_equal(data.field("WAVELENGTH"), record.wavelength_um) and np.array_equal(data.field("FLUX"), record.depth)
    assert np.array_equal(data.field("COVARIANCE"), record.covariance) and np.array_equal(data.field("ERROR"), record.sigma)
    assert "drop the correlations" in str(fits.getheader(tmp_path / "made.fits", "SPECTRUM")["COMMENT"])


def test_taurex_gets_four_columns_and_is_told_what_it_lacks(fitted, tmp_path):
    array = fitted.to_taurex(tmp_path / "made.dat")
    record = record_of(fitted)
    assert np.array_equal(np.loadtxt(tmp_path / "made.dat"), array) and array.shape == (9, 4)
    assert np.array_equal(array.T, [record.wavelength_um, record.depth, record.sigma, record.width_um])
    assert "knows no covariance" in (tmp_path / "made.dat").read_text()


def test_a_photometer_of_unknown_band_is_told_where_widths_are_needed(fitted):
    unknown = SimpleNamespace(**{**vars(fitted), "widths_um": None, "sigma": fitted.sigma, "provenance": {}})
    with pytest.raises(SchemaError, match="bandwidth of photometer is not known"):
        record_of(unknown).known_widths()
    assert np.isnan(record_of(unknown).width_um).sum() == 1


def test_numpy_and_csv_hold_the_same(fitted, tmp_path):
    fitted.to_npz(tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as held:
        assert np.array_equal(held["covariance"], record_of(fitted).covariance) and str(held["planet"]) == "WASP-39 b"
    rows = fitted.to_csv().splitlines()
    assert len(rows) == 10 and np.allclose([float(row.split(",")[3]) for row in rows[1:]], record_of(fitted).depth, rtol=1e-8)


def test_a_format_that_there_is_not_is_told(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'taurex'"):
        export_spectra({}, "taurx", tmp_path)
    assert all(re.fullmatch(r"\.\w+", ending) for _, ending in FORMATS.values())


@pytest.mark.parametrize("form", FORMATS)
def test_two_planets_do_not_share_a_file(form, tmp_path):
    with pytest.raises(ConfigError, match=r"WASP-39 b and WASP-39_b .*WASP-39_b\.\w+") as refused:
        export_spectra({"WASP-39 b": None, "K2-18 b": None, "WASP-39_b": None}, form, tmp_path)
    assert not list(tmp_path.iterdir()) and "\n" not in str(refused.value)


def test_two_formats_do_not_share_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["fit-lightcurves", "made.npz", "--star", "period=3", "--format", "fits", "--format", "csv", "--format", "petitradtrans"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "fits and petitradtrans are both written to spectrum.fits" in done.stderr, done.output
    assert not (tmp_path / "spectrum/spectrum.csv").exists()


def test_spectra_at_home_are_where_it_is_said(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export_spectra({"b": fitted}, "csv", "~/out") == [tmp_path / "out/b.csv"] == list(tmp_path.glob("*/*"))


def test_a_missing_package_is_told(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(PreflightError, match="pip install xarray h5netcdf"):
        fitted.to_xarray()


def test_the_command_writes_spectrum_and_pictures(tmp_path):
    arrays, known, truth = draw(5, 6)
    plain = {key: value["prism"] for key, value in arrays.items()}
    np.savez(tmp_path / "made.npz", **{**plain, "wavelength": 1000 * plain["wavelength"]})
    star = f"period={known['period'] * 24} h,a_rs={known['a_rs']},inclination={known['inclination']},temperature=5700"
    command = [sys.executable, "-m", "spectramind_nb", "fit-lightcurves", "made.npz"]
    words = ["--star", star, "--wavelength-unit", "nm", "--name", "mine", "--exposure", "70 s", "--format", "npz", "--format", "taurex"]
    ran = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in (tmp_path / "spectrum").iterdir()} == {"spectrum.npz", "spectrum.dat", "spectrum.png", "light_curves.png"}
    with np.load(tmp_path / "spectrum/spectrum.npz") as held:
        z = (held["depth"] - truth["prism"]) / held["sigma"]
        assert abs(z).max() < 4 and np.allclose(held["wavelength_um"], plain["wavelength"]) and str(held["planet"]) == "mine"
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 10 and "may be in nm" in failed.stderr and Path(tmp_path / "logs/audit.jsonl").is_file()


def test_covariances_need_not_be_known():
    one = SimpleNamespace(planet_id=7, channels={"FGS1": 1, "AIRS-CH0": 2}, wavelengths_um=np.array([0.7, 2.0, 3.0]), widths_um=None,
                          depth=torch.tensor([0.01, 0.02, 0.03]), sigma=np.full(3, 1e-4), covariance=None, provenance={})  # fmt: skip
    assert record_of(one).width_um.tolist() == [0.2, 1, 1]
    write = FORMATS["petitradtrans"][0]
    assert np.allclose(write(record_of(one))["SPECTRUM"].data.field("COVARIANCE"), 1e-8 * np.eye(3))


def test_what_a_run_predicted_is_written_a_file_a_planet(tmp_path):
    wavelengths = np.r_[0.7, np.linspace(1.95, 3.9, 282)]
    spectra = Spectra({planet: Spectrum(planet, wavelengths, 0.01 + 1e-6 * wavelengths, 1e-5 * wavelengths) for planet in (12, 345)})
    assert [path.name for path in spectra.export("taurex", tmp_path)] == ["12.dat", "345.dat"]
    array = np.loadtxt(tmp_path / "345.dat")
    assert np.array_equal(array[:, 0], wavelengths) and np.array_equal(array[:, 2], 1e-5 * wavelengths)
    assert array[0, 3] == 0.2 and np.allclose(array[1:, 3], np.diff(wavelengths)[1])
    assert "covariance" not in (tmp_path / "345.dat").read_text()
    assert np.array_equal(spectra[12].to_taurex(), np.loadtxt(tmp_path / "12.dat"))


def test_names_in_any_alphabet_come_back(fitted, tmp_path):
    """FITS holds them as Python writes them in ASCII."""
    names = "HD 1 β é", "Gerät"
    one = replace(fitted, planet_id=names[0], channels={names[1]: 1, "prism": 8})
    for ending in ("ecsv", "fits"):
        one.to_table(tmp_path / f"made.{ending}")
        table = QTable.read(tmp_path / f"made.{ending}")
        found = {key.lower(): text for key, text in table.meta.items()}["planet"], next(n for n in table["instrument"] if n != "prism")
        assert names == (found if ending == "ecsv" else tuple(text.encode().decode("unicode_escape") for text in found))
    one.to_petitradtrans(tmp_path / "prt.fits")
    assert fits.getheader(tmp_path / "prt.fits", "SPECTRUM")["COMMENT"][0].encode().decode("unicode_escape") == names[0]


@pytest.mark.parametrize("name", ["X.FITS", "x.fit", "x.fits.gz", "X.FIT.GZ"])
def test_a_table_is_what_its_name_says(fitted, tmp_path, name):
    fitted.to_table(tmp_path / name)
    fitted.to_petitradtrans(tmp_path / f"prt{name}")
    begins = b"\x1f\x8b" if name.lower().endswith(".gz") else b"SIMPLE"
    assert all(path.read_bytes().startswith(begins) for path in tmp_path.iterdir())
    assert np.array_equal(QTable.read(tmp_path / name, format="fits")["transit_depth"], record_of(fitted).depth)
    assert fits.getdata(tmp_path / f"prt{name}", "SPECTRUM")["FLUX"].tolist() == record_of(fitted).depth.tolist()


@pytest.mark.parametrize("method, name", [
    ("to_table", "x.csv"), ("to_table", "x"), ("to_table", "x.hdf5"), ("to_npz", "x.csv"), ("to_csv", "x.npz"), ("to_taurex", "x.fits"),
    ("to_petitradtrans", "x.dat"),
])  # fmt: skip
def test_a_name_of_another_format_is_refused(fitted, tmp_path, method, name):
    with pytest.raises(ConfigError, match=r"Let it end in \.") as refused:
        getattr(fitted, method)(tmp_path / name)
    assert name in str(refused.value) and not list(tmp_path.iterdir())


def test_names_with_line_breaks_break_no_file(fitted, tmp_path):
    """As they are read from a text file: FITS took no such planet, and rows of CSV fell apart."""
    one = replace(fitted, planet_id="WASP-39\tb\n", channels={"pho\rto\x00": 1, 'a "prism",\n': 8})
    one.to_table(tmp_path / "made.fits"), one.to_table(tmp_path / "made.ecsv")
    for table in (QTable.read(tmp_path / "made.fits"), QTable.read(tmp_path / "made.ecsv")):
        assert {key.lower(): text for key, text in table.meta.items()}["planet"] == "WASP-39 b"
        assert set(table["instrument"]) == {"pho to", 'a "prism",'}
    assert one.to_petitradtrans(tmp_path / "prt.fits")["SPECTRUM"].header["COMMENT"][0] == "WASP-39 b"
    assert pd.read_csv(StringIO(one.to_csv())).shape == (9, 5)


def test_the_command_says_what_it_does_not_believe(tmp_path):
    arrays, _, _ = draw(5, 6)
    np.savez(tmp_path / "made.npz", **{key: value["prism"] for key, value in arrays.items()})
    words = ["fit-lightcurves", str(tmp_path / "made.npz"), "--out", str(tmp_path / "out"), "--format", "csv"]
    told, untold = (CliRunner().invoke(app, [*words, "--star", star]) for star in ("period=200,a_rs=100,inclination=90", "period=4"))
    assert told.exit_code == untold.exit_code == 0, told.output
    assert "not believed of its row in the star table: P 200" in told.stdout and "believed" not in untold.stdout
