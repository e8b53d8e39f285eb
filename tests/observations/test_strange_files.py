"""Names that are no planets, tables in other units, frames that are lost, files that are closed: a sentence each, and the others go on."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from spectramind_nb.core import configuration
from spectramind_nb.core.errors import DamagedFileError, DataMissingError, PreflightError, SchemaError
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import layout, signals
from spectramind_nb.observations import lightcurves as lc

CONFIG = configuration.group("detector")
NO_PLANETS = ["007", "-7", "7.0", "7 (1)", "planet7", str(10**18), "٧"]


def test_only_a_number_as_the_tables_write_it_is_a_planet(made_up):
    train = made_up.root / "train"
    for name in NO_PLANETS:
        shutil.copytree(train / "7", train / name, copy_function=os.link)
    for name in (".ipynb_checkpoints", str(10**18 - 1), "9"):
        (train / name).mkdir()
    (train / "8").write_bytes(b"x")
    (train / "10").symlink_to("nowhere")
    (train / "11").symlink_to("7")
    (train / "Thumbs.db").write_bytes(b"x")
    challenge = ch.open_challenge(made_up.root)
    assert challenge.planets() == [7, 9, 11, 10**18 - 1]
    told = challenge.faults()
    for name in [*NO_PLANETS, "8", "10"]:
        assert sum(line.startswith(f"{name} in train is left out") for line in told) == 1, name
    assert not [line for line in told if "checkpoints" in line or "Thumbs" in line or line.startswith(("7 in", "11 in"))]
    results = lc.calibrate(challenge, "train", CONFIG, made_up.root / "cache", workers=1)
    assert {visit.planet_id for visit, key in results.items() if isinstance(key, str)} == {7, 11}
    assert all(isinstance(results[(planet, 0)], DataMissingError) for planet in (9, 10**18 - 1))


@pytest.mark.parametrize("column, value, words", [
    ("FGS1_adc_gain", np.nan, "FGS1_adc_gain is nan"), ("FGS1_adc_gain", 0, "FGS1_adc_gain is 0"),
    ("FGS1_adc_gain", -1, "FGS1_adc_gain is -1"), ("FGS1_adc_offset", np.inf, "FGS1_adc_offset is inf"),
    ("FGS1_adc_gain", "large", "FGS1_adc_gain is"),
])
def test_a_converter_that_is_none_is_named(made_up, column, value, words):
    path = made_up.root / "adc_info.csv"
    pd.read_csv(path).astype(object).assign(**{column: value}).to_csv(path, index=False, na_rep="nan")
    with pytest.raises(PreflightError, match=words) as caught:
        lc.calibrate(ch.open_challenge(made_up.root), "train", CONFIG, made_up.root / "cache", workers=1)
    assert "adc_info.csv" in str(caught.value) and "report this" not in str(caught.value)


@pytest.mark.parametrize("factor, words", [
    (1 / 24, "in days"), (60, "in minutes"), (3600, "in seconds"), (-1, "runs backwards"), (0, "over 0"),
])
def test_times_in_other_units_are_named(made_up, factor, words):
    path = made_up.root / "axis_info.parquet"
    pl.read_parquet(path).with_columns(pl.col("^.*-h$") * factor).write_parquet(path)
    with pytest.raises(SchemaError, match=words) as caught:
        lc.extract_visit(made_up.root, 7)
    assert "axis_info.parquet" in str(caught.value) and "-axis0-h" in str(caught.value)


@pytest.mark.parametrize("factor", [1000, 1e-6, np.nan])
def test_wavelengths_in_other_units_are_named(made_up, factor):
    path = made_up.root / "wavelengths.csv"
    (pd.read_csv(path) * factor).to_csv(path, index=False, na_rep="nan")
    with pytest.raises(SchemaError, match="column wl_1 is .*no wavelength in um"):
        ch.open_challenge(made_up.root).wavelengths_um


@pytest.mark.parametrize("lost", ["the end", "the beginning", "every second pair"])
@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_half_the_frames_of_one_instrument_are_no_light_curve(made_up, instrument, lost):
    path = made_up.root / f"train/7/{instrument}_signal_0.parquet"
    table = pl.read_parquet(path)
    half = table.height // 4 * 2
    every_second = table.filter(pl.int_range(pl.len()) // 2 % 2 == 0)
    rows = {"the end": table.head(half), "the beginning": table.tail(half), "every second pair": every_second}
    rows[lost].write_parquet(path)
    with pytest.raises(SchemaError, match=f"{instrument} has 5.% of its frames, .* 100%, and nothing says which are lost") as caught:
        lc.extract_visit(made_up.root, 7)
    assert path.name in str(caught.value)


def test_a_visit_that_is_half_as_long_is_used_and_said(made_up):
    for instrument in layout.INSTRUMENTS:
        path = made_up.root / f"train/7/{instrument}_signal_0.parquet"
        table = pl.read_parquet(path)
        table.head(table.height // 4 * 2).write_parquet(path)
    (said,) = [line for line in lc.remarks(lc.extract_visit(made_up.root, 7)) if "frames" in line]
    assert "the visit has 5" in said and "axis_info.parquet" in said


def test_an_empty_value_among_dead_pixels_is_named(made_up):
    path = made_up.root / "train/7/FGS1_calibration_0/dead.parquet"
    pl.read_parquet(path).with_columns(pl.when(pl.int_range(pl.len()) > 3).then("column_2").alias("column_2")).write_parquet(path)
    with pytest.raises(SchemaError, match="column column_2 has 4 empty values") as caught:
        signals.read_plane(path, (32, 32))
    assert path.name in str(caught.value)


@pytest.fixture
def open_to_all(made_up_kept):
    """A made-up folder, and one for a store, that other users may enter: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as place:
        root, cache = Path(place, "root"), Path(place, "cache")
        shutil.copytree(made_up_kept.root, root)
        cache.mkdir()
        for folder, mode in ((place, 0o755), (root, 0o755), (cache, 0o777)):
            os.chmod(folder, mode)
        # what is imported on first use may lie where only root can read
        lc.calibrate(ch.open_challenge(root), "train", CONFIG, Path(place, "before"), workers=1)
        yield root, cache


@pytest.mark.parametrize("closed", ["FGS1_signal_0.parquet", "AIRS-CH0_calibration_0/dark.parquet", "."])
def test_a_closed_file_is_told_and_costs_its_visit_only(open_to_all, closed):
    """Root may read everything: where this process is root it works as nobody."""
    library = Path(configuration.__file__).resolve()
    if os.getuid() == 0 and not all(folder.stat().st_mode & 0o001 for folder in library.parents):
        pytest.skip("NOT TESTED: nobody may not enter the folder of this checkout")
    root, cache = open_to_all
    shutil.copytree(root / "train/7", root / "train/8")
    (root / "train/8" / closed).chmod(0o000)
    try:
        if os.getuid() == 0:
            os.seteuid(65534)
        results = lc.calibrate(ch.open_challenge(root), "train", CONFIG, cache, workers=1)
    finally:
        os.seteuid(os.getuid())
        (root / "train/8" / closed).chmod(0o755)
    assert isinstance(results[(7, 0)], str) and isinstance(results[(8, 0)], DamagedFileError)
    assert "cannot be read: Permission denied" in str(results[(8, 0)]) and "report this" not in str(results[(8, 0)])


def test_a_quota_is_no_fault_of_the_data(made_up):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(PreflightError, match="the store cannot be written: File too large") as caught:
            lc.calibrate(ch.open_challenge(made_up.root), "train", CONFIG, made_up.root / "cache", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cache" in str(caught.value) and "train/7" not in str(caught.value)
