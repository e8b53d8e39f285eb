"""Light curves out of files: every value at its own time and wavelength, and a sentence where a file is not what it should be."""

import sys
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pandas as pd
import pytest

from spectramind_nb import LightCurves
from spectramind_nb.core.errors import DamagedFileError, DataMissingError, SchemaError
from spectramind_nb.observations.curve_readers import arrays_of_dataset

TIME, WAVELENGTH = 2459000 + np.linspace(0, 0.25, 200), np.array([1.0, 2.0, 3.0])


@pytest.fixture
def table():
    """A row for each sample; the flux says where it belongs."""
    time, wavelength = (grid.ravel() for grid in np.meshgrid(TIME, WAVELENGTH, indexing="ij"))
    place = np.arange(len(time), dtype=float)
    return pd.DataFrame({"time": time, "wavelength": wavelength, "flux": 1000 + place, "error": 1 + place})


def read(table, tmp_path):
    table.to_csv(tmp_path / "made.csv", index=False)
    return LightCurves.from_file(tmp_path / "made.csv")


def test_a_table_with_gaps_keeps_each_value_at_its_time(table, tmp_path):
    """An exposure without flux, another without error, a channel without flux, a sample that has no row."""
    table.loc[table["time"] == TIME[5], "flux"] = np.nan
    table.loc[table["time"] == TIME[150], "error"] = np.nan
    table.loc[table["wavelength"] == 2.0, "flux"] = np.nan
    curves = read(table.drop(index=3 * 20 + 2), tmp_path)
    wanted = table[["flux", "error"]].to_numpy(copy=True).reshape(200, 3, 2)
    wanted[20, 2, 0], wanted[20, 2, 1] = np.nan, np.nanmedian(np.delete(wanted[:, 2, 1], (20, 150)))
    wanted[150, :2, 1] = np.median(np.delete(wanted[:, :2, 1], 150, axis=0), axis=0)  # as of a channel's other samples
    wanted[150, 2, 1] = wanted[20, 2, 1]
    assert np.allclose(curves.time_h["spectrograph"], 24 * (TIME - 2459000)) and curves.wavelengths_um.tolist() == [1, 2, 3]
    for found, what in ((curves.flux, wanted[..., 0]), (curves.noise, wanted[..., 1])):
        assert np.array_equal(found["spectrograph"], what, equal_nan=True)


@pytest.mark.parametrize("change, words", [
    (lambda table: pd.concat([table, table.iloc[[7]]]), "wavelength 2 of spectrograph has more than one row"),
    (lambda table: table.assign(error=["much", *table["error"][1:]]), "column error"),
    (lambda table: table.assign(mask=["perhaps", *[True] * (len(table) - 1)]), "column mask holds 'perhaps'"),
    (lambda table: table.assign(width=["wide", *[0.1] * (len(table) - 1)]), "column width"),
    (lambda table: table.assign(width=[0.2, *[0.1] * (len(table) - 1)]), "column width of a channel of .* holds both 0.1 and 0.2"),
    (lambda table: table.assign(exposure=[2e-3, *[1e-3] * (len(table) - 1)]), "column exposure of spectrograph holds both 0.001 and 0.002"),
    (lambda table: table.assign(instrument=["", *["prism"] * (len(table) - 1)]), "1 rows have no instrument"),
])  # fmt: skip
def test_a_table_that_is_not_clear_is_refused(table, tmp_path, change, words):
    with pytest.raises(SchemaError, match=words) as refused:
        read(change(table), tmp_path)
    assert "made.csv" in str(refused.value) and "\n" not in str(refused.value)


def archive(tmp_path):
    made = tmp_path / "whole.npz"
    np.savez_compressed(made, time=TIME, wavelength=WAVELENGTH, flux=1 + np.random.default_rng(0).random((200, 3)))
    return made.read_bytes()


def spoilt(content: bytes, at: int) -> bytes:
    return content[:at] + bytes(255 - byte for byte in content[at : at + 8]) + content[at + 8 :]


def bare_array(tmp_path):
    np.save(tmp_path / "bare.npy", TIME)
    return (tmp_path / "bare.npy").read_bytes()


ARCHIVES = {
    "empty": lambda tmp_path: b"",
    "text": lambda tmp_path: b"time,flux\n",
    "one array": bare_array,
    "cut short": lambda tmp_path: archive(tmp_path)[:2000],
    **{f"spoilt at {at}": lambda tmp_path, at=at: spoilt(archive(tmp_path), at) for at in (60, 90, 2500)},
    "another compression": lambda tmp_path: spoilt(archive(tmp_path), archive(tmp_path).index(b"PK\1\2") + 10),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_what_is_no_archive_is_told(case, tmp_path):
    (tmp_path / "made.npz").write_bytes(ARCHIVES[case](tmp_path))
    with pytest.raises(DamagedFileError, match="made.npz is no archive of numpy") as refused:
        LightCurves.from_file(tmp_path / "made.npz")
    assert "\n" not in str(refused.value)


class Reader:
    """A package that stumbles over a file, as netCDF4 and numpy do."""

    def __init__(self, error):
        self.error = error

    def open_dataset(self, *_, **__):
        raise self.error

    read_rainbow = open_dataset


@pytest.mark.parametrize("name, package", [("made.nc", "xarray"), ("made.h5", "xarray"), ("made.rainbow.npy", "chromatic")])
@pytest.mark.parametrize("error", [RuntimeError("NetCDF: HDF error\nat 7"), EOFError()], ids=["words", "none"])
def test_what_a_package_cannot_read_is_told(name, package, error, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, Reader(error))
    with pytest.raises(DataMissingError, match=f"{name} is missing"):
        LightCurves.from_file(tmp_path / name)
    (tmp_path / name).touch()
    with pytest.raises(DamagedFileError, match=f"{name} cannot be read: (NetCDF: HDF error|EOFError) \\(") as refused:
        LightCurves.from_file(tmp_path / name)
    assert "\n" not in str(refused.value)


def tess(**changed):
    """What lightkurve has of a star, as far as it is looked at."""
    parts = {"time": SimpleNamespace(jd=TIME), "flux": np.ones(200) * u.electron, "flux_err": np.full(200, 1e-3) * u.electron}
    return SimpleNamespace(**parts | {"meta": {"MISSION": "TESS"}} | changed)


@pytest.mark.parametrize("known, wavelength, width", [
    ({}, 0.79, 0.4), ({"width": 0.1}, 0.79, 0.1), ({"wavelength": 0.7}, 0.7, None), ({"wavelength": 0.7, "width": 0.1}, 0.7, 0.1),
    ({"wavelength_unit": "nm"}, 0.79, 0.4), ({"width": 100, "wavelength_unit": "nm"}, 0.79, 0.1),
])  # fmt: skip
def test_a_passband_is_the_mission_s_where_nobody_says_another(known, wavelength, width):
    curves = LightCurves.from_lightkurve(tess(), **known)
    assert np.allclose(curves.wavelengths_um, wavelength)
    assert curves.widths_um is None if width is None else np.allclose(curves.widths_um, width)


def test_an_error_of_lightkurve_keeps_its_unit():
    per_mille = tess(flux=np.ones(200) * u.one, flux_err=np.full(200, 0.1) * u.percent)
    assert np.allclose(LightCurves.from_lightkurve(per_mille).noise["TESS"], 1e-3)


def test_an_exposure_is_the_mission_s_or_a_bin_where_that_is_longer():
    """A folded light curve has steps shorter than its exposures, a binned one longer than the mission's."""
    step_d = 0.25 / 199
    for resolution_d, exposure_d in ((0.0204, 0.0204), (2e-4, step_d)):
        curves = LightCurves.from_lightkurve(tess(meta={"MISSION": "Kepler", "TIMEDEL": resolution_d}))
        assert curves.exposure_h["KEPLER"] == pytest.approx(24 * exposure_d)
    assert LightCurves.from_lightkurve(tess()).exposure_h == {}
    assert LightCurves.from_lightkurve(tess(meta={"MISSION": "TESS", "TIMEDEL": 0.0204}), exposure=0).exposure_h == {"TESS": 0}


def test_an_archive_may_tell_the_exposure(tmp_path):
    np.savez(tmp_path / "made.npz", time=TIME, wavelength=WAVELENGTH, flux=np.ones((200, 3)), error=1e-3, exposure=0.01)
    assert LightCurves.from_file(tmp_path / "made.npz").exposure_h["spectrograph"] == pytest.approx(0.24)
    assert LightCurves.from_file(tmp_path / "made.npz", exposure="1 min").exposure_h["spectrograph"] == pytest.approx(1 / 60)


class Variable:
    """As xarray has it."""

    def __init__(self, dims, values, **attrs):
        self.dims, self.values, self.attrs, self.ndim, self.dtype = dims, values, attrs, values.ndim, values.dtype

    def transpose(self, *dims):
        return Variable(dims, self.values.transpose([self.dims.index(dim) for dim in dims]))


class Dataset(dict):
    variables = property(lambda self: self)


def test_width_and_window_are_in_the_units_of_the_data_set():
    hours = Variable(("time",), 24 * (TIME - TIME[0]), units="h")
    dataset = Dataset(time=hours, flux=Variable(("time", "wave"), np.ones((200, 3))), error=Variable(("wave",), np.full(3, 1e-3)),
                      wavelength=Variable(("wave",), 1000 * WAVELENGTH, units="nm"))  # fmt: skip
    curves = LightCurves.from_xarray(dataset, window=(1.0, 4.0), width=200)
    assert np.allclose(curves.wavelengths_um, WAVELENGTH) and np.allclose(curves.widths_um, 0.2)
    assert np.allclose(curves.time_h["spectrograph"][[0, -1]], [1, 4], atol=0.04)
    edges = {f"wavelength_{side}": Variable(("wave",), WAVELENGTH + shift, units="um") for side, shift in (("lower", -0.1), ("upper", 0.1))}
    assert np.allclose(LightCurves.from_xarray(Dataset(dataset, **edges)).widths_um, 0.2)


@pytest.mark.parametrize("flux_unit, error_unit, factor", [
    ("percent", "ppm", 1e-4), ("", "ppm", 1e-6), ("%", "percent", 1.0), ("ppm", "", 1e6), ("electron", "electron", 1.0),
    ("e-/s", "electron/s", 1.0)])
def test_errors_in_another_unit_than_the_flux(flux_unit, error_unit, factor):
    """Per cent beside ppm were taken for alike: errors ten thousand times too large."""
    made = Dataset(time=Variable(("time",), TIME), flux=Variable(("time", "wave"), np.ones((200, 3)), units=flux_unit),
                   error=Variable(("time", "wave"), np.full((200, 3), 2e-3), units=error_unit),
                   wavelength=Variable(("wave",), WAVELENGTH))  # fmt: skip
    made["flux"].name, made["error"].name = "flux", "error"
    assert np.allclose(arrays_of_dataset(made)["error"], 2e-3 * factor)


def test_errors_in_a_unit_that_the_flux_does_not_have():
    made = Dataset(time=Variable(("time",), TIME), flux=Variable(("time", "wave"), np.ones((200, 3)), units="electron"),
                   error=Variable(("time", "wave"), np.ones((200, 3)), units="ppm"),
                   wavelength=Variable(("wave",), WAVELENGTH))  # fmt: skip
    made["flux"].name, made["error"].name = "flux", "error"
    with pytest.raises(SchemaError, match="error is in 'ppm' and flux in 'electron'. Give both in electron"):
        arrays_of_dataset(made)


def test_a_table_honours_the_names_of_an_archive(table, tmp_path):
    """mask, width and exposure had been ignored in a table: fluxes that somebody had masked were fitted."""
    mask = np.random.default_rng(1).random((200, 3)) < 0.1
    table = table.assign(mask=mask.ravel(), width=0.1 * table["wavelength"], exposure=7e-4, comment="x")
    grids = {name: table[name].to_numpy().reshape(200, 3) for name in ("flux", "error")}
    told = {"mask": mask, "width": 0.1 * WAVELENGTH, "exposure": 7e-4, "comment": "x"}
    np.savez(tmp_path / "made.npz", time=TIME, wavelength=WAVELENGTH, **grids, **told)
    wanted = LightCurves.from_file(tmp_path / "made.npz")
    spelt = {"0, 1": mask.astype(int).ravel(), "words": np.where(mask, "True ", "false").ravel(), "empty": np.where(mask, "", "0").ravel()}
    for found in (read(table, tmp_path), *(read(table.assign(mask=cells), tmp_path) for cells in spelt.values())):
        assert np.array_equal(np.isnan(found.flux["spectrograph"]), mask)
        assert np.array_equal(found.flux["spectrograph"], wanted.flux["spectrograph"], equal_nan=True)
        assert np.allclose(found.widths_um, wanted.widths_um) and found.exposure_h == wanted.exposure_h == {"spectrograph": 24 * 7e-4}
    once = table.assign(width=table["width"].where(table["time"] == TIME[0]), exposure=table["exposure"].where(table.index == 7))
    assert np.allclose(read(once, tmp_path).widths_um, 0.1 * WAVELENGTH) and read(once, tmp_path).exposure_h == wanted.exposure_h
    b = table["wavelength"] == 1
    of_one = table.assign(instrument=np.where(b, "b", "a"), exposure=np.where(b, 7e-4, np.nan))
    assert read(of_one, tmp_path).exposure_h == {"b": 24 * 7e-4}


class DataSet(dict):
    """What is asked of xarray's, before its values are."""

    variables = property(dict.keys)


def test_a_data_set_in_magnitudes_is_refused():
    dims = {"time": ("time",), "wavelength": ("wavelength",), "flux": ("time", "wavelength")}
    made = DataSet({name: SimpleNamespace(dims=of, ndim=len(of), attrs={"units": "mag"}) for name, of in dims.items()})
    with pytest.raises(SchemaError, match="flux is given in mag, which is not linear.* Give linear fluxes"):
        LightCurves.from_xarray(made)
