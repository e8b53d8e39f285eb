"""Light curves out of files: every value at its own time and wavelength, and a sentence where a file is not what it should be."""

import numpy as np
import pandas as pd
import pytest

from spectramind_nb import LightCurves
from spectramind_nb.core.errors import SchemaError

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
    wanted[20, 2] = np.nan
    assert np.allclose(curves.time_h["spectrograph"], 24 * (TIME - 2459000)) and curves.wavelengths_um.tolist() == [1, 2, 3]
    for found, what in ((curves.flux, wanted[..., 0]), (curves.noise, wanted[..., 1])):
        assert np.array_equal(found["spectrograph"], what, equal_nan=True)


@pytest.mark.parametrize("change, words", [
    (lambda table: pd.concat([table, table.iloc[[7]]]), "wavelength 2 of spectrograph has more than one row"),
    (lambda table: table.assign(error=["much", *table["error"][1:]]), "column error"),
    (lambda table: table.assign(instrument=["", *["prism"] * (len(table) - 1)]), "1 rows have no instrument"),
])  # fmt: skip
def test_a_table_that_is_not_clear_is_refused(table, tmp_path, change, words):
    with pytest.raises(SchemaError, match=words) as refused:
        read(change(table), tmp_path)
    assert "made.csv" in str(refused.value) and "\n" not in str(refused.value)
