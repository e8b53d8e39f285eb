"""The competition's folder: real layout, both editions, and a clear sentence for each damage."""

import pickle
import shutil
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from made_up_visit import as_2024

from spectramind_nb.core import tables
from spectramind_nb.core.errors import DamagedFileError, DataMissingError, SchemaError
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import layout, signals, writing


def rewrite(path, change):
    """Apply `change` to the table in a parquet file."""
    change(pl.read_parquet(path)).write_parquet(path)


def test_what_we_write_has_the_form_of_the_real_files(sample_root, made_up_kept):
    real = {path.name: path for path in sample_root.glob("*.*")}
    for name in ("adc_info.csv", "wavelengths.csv", "sample_submission.csv", "train_star_info.csv"):
        ours, theirs = pd.read_csv(made_up_kept.root / name), pd.read_csv(real[name])
        assert list(ours) == list(theirs) and list(ours.dtypes) == list(theirs.dtypes), name
    ours, theirs = pq.read_schema(made_up_kept.root / "axis_info.parquet"), pq.read_schema(real["axis_info.parquet"])
    assert ours.names == theirs.names and ours.types == theirs.types
    for name in layout.INSTRUMENTS:
        for path in sample_root.glob(f"train/*/{name}_calibration_0/*.parquet"):
            ours = pq.ParquetFile(made_up_kept.root / "train/7" / path.parent.name / path.name)
            theirs = pq.ParquetFile(path)
            assert (
                ours.schema_arrow.equals(theirs.schema_arrow) and ours.metadata.num_rows == theirs.metadata.num_rows
            ), path


def test_grids_equal_the_real_ones(sample_root):
    axis = pd.read_parquet(sample_root / "axis_info.parquet")
    assert np.abs(layout.airs_wavelengths_um() - axis["AIRS-CH0-axis2-um"].dropna()).max() < 1.5e-7
    assert np.abs(layout.wavelength_grid_um() - ch.open_challenge(sample_root).wavelengths_um).max() < 1.5e-7
    for name in layout.INSTRUMENTS:
        assert np.abs(layout.frame_times_h(layout.FULL_FRAMES[name]) - axis[f"{name}-axis0-h"].dropna()).max() < 1e-12


def test_real_sample_opens(sample_root):
    challenge = ch.open_challenge(sample_root)
    assert challenge.edition == "2025" and len(challenge.visits()) == 1
    planet = challenge.planets()[0]
    assert challenge.adc("AIRS-CH0", planet) == (0.4369, -1000.0)
    assert challenge.star("train", planet)["Rs"] > 0
    frames = signals.read_signal(challenge.signal_path("train", planet, 0, "FGS1"), "FGS1")
    long = pd.read_parquet(challenge.signal_path("train", planet, 0, "FGS1")).to_numpy().reshape(50, 32, 32)
    assert np.array_equal(frames.numpy(), long)


@pytest.mark.parametrize("long", [False, True])
def test_signal_round_trip_reads_only_what_is_needed(tmp_path, long):
    raw = np.random.default_rng(0).integers(0, 65535, (6, 32, 356), dtype=np.uint16)
    writing.write_signal(tmp_path / "a.parquet", raw, long=long)
    assert pl.read_parquet_schema(tmp_path / "a.parquet") == (
        {"0": pl.UInt16} if long else {f"column_{k}": pl.UInt16 for k in range(11392)}
    )
    assert np.array_equal(signals.read_signal(tmp_path / "a.parquet", "AIRS-CH0").numpy(), raw)
    use = np.zeros((32, 356), bool)
    use[3:5, 40:300] = True
    part = signals.read_signal(tmp_path / "a.parquet", "AIRS-CH0", use)
    assert (long or len(part.counts) == use.sum()) and np.array_equal(part.numpy(), raw * use)


def test_columns_in_another_order_are_the_same_pixels(tmp_path):
    raw = np.random.default_rng(0).integers(0, 65535, (4, 32, 32), dtype=np.uint16)
    writing.write_signal(tmp_path / "a.parquet", raw)
    rewrite(tmp_path / "a.parquet", lambda table: table.select(table.columns[::-1]))
    assert np.array_equal(signals.read_signal(tmp_path / "a.parquet", "FGS1").numpy(), raw)


def test_several_row_groups_are_one_series(tmp_path):
    raw = np.random.default_rng(0).integers(0, 65535, (40, 32, 32), dtype=np.uint16)
    writing.write_signal(tmp_path / "a.parquet", raw)
    pl.read_parquet(tmp_path / "a.parquet").write_parquet(tmp_path / "b.parquet", row_group_size=7)
    frames = signals.read_signal(tmp_path / "b.parquet", "FGS1")
    assert np.array_equal(frames.numpy(), raw) and all(column.flags.c_contiguous for column in frames.counts)


def test_opening_a_thousand_planets_takes_milliseconds(tmp_path):
    for planet in range(1100):
        (tmp_path / "train" / str(planet)).mkdir(parents=True)
    start = time.perf_counter()
    challenge = ch.open_challenge(tmp_path)
    assert time.perf_counter() - start < 0.1
    assert len(challenge.planets()) == 1100


def test_second_visits_are_found(made_up):
    shutil.copy(made_up.root / "train/7/FGS1_signal_0.parquet", made_up.root / "train/7/FGS1_signal_1.parquet")
    assert ch.open_challenge(made_up.root).visits() == [(7, 0), (7, 1)]


def test_some_of_its_visits_are_a_challenge_too(made_up):
    """As a folder that held these alone, whatever the tables and the sample submission say of the others."""
    shutil.copy(made_up.root / "train/7/FGS1_signal_0.parquet", made_up.root / "train/7/FGS1_signal_1.parquet")
    challenge = ch.open_challenge(made_up.root)
    few = challenge.only([(7, 1)])
    assert few.visits() == [(7, 1)] and few.planets() == [7] and few.asked_for("train") == [7]
    assert few.inputs("train", 7, 1) == challenge.inputs("train", 7, 1) and few.faults() == []
    assert few.only([(7, 0)]).chosen == frozenset() and challenge.chosen is None
    assert few == challenge.only(iter([(7, 1), (7, 1)])) and "1 visits" in repr(few)
    assert pickle.loads(pickle.dumps(few)) == few  # workers get it


@pytest.mark.parametrize("visits", [[("7", "0")], [("7", 0)], np.array([[7, 0]]), [[np.int64(7)]], {layout.Visit(7)}])
def test_a_visit_is_two_numbers_whatever_they_are_written_as(made_up_kept, visits):
    few = ch.open_challenge(made_up_kept.root).only(visits)
    assert few.visits() == [(7, 0)] and all(type(number) is int for visit in few.visits() for number in visit)
    assert few.planets()[0] in few.stars().index


@pytest.mark.parametrize("visits, words", [
    (None, "'None' is not a list of visits"), (7, "'7' is not a list"), ("70", "'70' is not a list"), ([7], "'7' is not a visit"),
    ((7, 0), "'7' is not a visit"), (["70"], "'70' is not a visit"), ([(7, 0, 1)], "'.7, 0, 1.' is not a visit"), ([()], "not a visit"),
    ([("a", 0)], "not a visit"), ([(7.5, 0)], "not a visit"), ([(7, True)], "not a visit"), ([(7, -1)], "not a visit"),
    ([(7, None)], "not a visit"),
])  # fmt: skip
def test_what_is_no_visit_is_told(made_up_kept, visits, words):
    with pytest.raises(SchemaError, match=words):
        ch.open_challenge(made_up_kept.root).only(visits)


@pytest.mark.parametrize("visit", [(7, 5), (8, 0)])
def test_a_visit_that_is_not_there_is_named(made_up, visit):
    for challenge in (ch.open_challenge(made_up.root), ch.open_challenge(as_2024(made_up.root))):
        with pytest.raises(DataMissingError, match="planet {} has no visit {}".format(*visit)):
            challenge.only([visit])


@pytest.mark.parametrize("split", ["x", None, 5])
def test_a_split_that_is_not_there_has_neither_planets_nor_stars(made_up_kept, split):
    here = ch.open_challenge(made_up_kept.root)
    for ask in (here.planets, here.stars, here.visits, here.faults, lambda split: here.star(split, 7)):
        with pytest.raises(DataMissingError, match="there is no planet folder|the folder cannot be read"):
            ask(split)


def test_an_edition_is_a_year(made_up_kept):
    assert ch.open_challenge(made_up_kept.root, 2025) == ch.open_challenge(made_up_kept.root, "2025")


def test_a_folder_without_planets_is_no_split(made_up):
    """Whoever trains has no use for an empty test/, and the finder leaves a file in it; a planet that is misnamed is another matter."""
    shutil.rmtree(made_up.root / "test", ignore_errors=True)
    (made_up.root / "test").mkdir()
    (made_up.root / "test" / ".DS_Store").touch()
    challenge = ch.open_challenge(made_up.root)
    assert challenge.splits == ["train"]
    (made_up.root / "test" / "planet_7").mkdir()
    assert challenge.splits == ["train", "test"]
    with pytest.raises(DataMissingError, match="no planet folder in test"):
        challenge.visits("test")
    for split in ("train", "test"):
        shutil.rmtree(made_up.root / split)
        (made_up.root / split).mkdir()
    assert challenge.splits == ["train", "test"], "something has to be refused"


def test_a_folder_with_zeros_in_front_is_told_what_to_be_called(made_up):
    (made_up.root / "train" / "007").mkdir()
    (made_up.root / "train" / "00x").mkdir()
    assert ch.open_challenge(made_up.root).faults() == [
        "007 in train is left out: a planet's number has no zeros in front; rename it to 7",
        "00x in train is left out: its name is no planet's number as the tables write it",
    ]


@pytest.mark.parametrize("name, why", [
    ("WASP-39b", "Of WASP-39b: its name is no planet's number"),
    ("007", "Of 007: a planet's number has no zeros in front; rename it to 7."),
    (str(10**18), "no planet's number as the tables write it"), ("empty", "Check data.root.")])
def test_the_only_folder_that_is_no_planet_s_is_named(made_up, name, why):
    """It was said that there is none."""
    (made_up.root / "train" / "7").rename(made_up.root / ("train/" + name if name != "empty" else "7"))
    with pytest.raises(DataMissingError, match="there is no planet folder in train") as refused:
        ch.open_challenge(made_up.root).planets("train")
    assert why in str(refused.value)
    with pytest.raises(DataMissingError, match="there is no planet folder in Test.*Choose train or test"):
        ch.open_challenge(made_up.root).planets("Test")


def test_commas_at_the_ends_of_a_sample_s_lines_hide_no_planet(made_up):
    (made_up.root / "sample_submission.csv").write_text("planet_id,wl_1\n7,0.1,\n8,0.1,\n")
    shutil.copytree(made_up.root / "train" / "7", made_up.root / "test" / "7", dirs_exist_ok=True)
    assert ch.open_challenge(made_up.root).asked_for() == [7, 8]


def test_2024_layout(made_up):
    challenge = ch.open_challenge(as_2024(made_up.root))
    assert challenge.edition == "2024" and challenge.visits() == [(7, 0)]
    assert challenge.adc("FGS1", 7) == (0.4369, -1000.0)
    assert challenge.labels().shape == (1, 283)
    assert challenge.stars().isna().all(axis=None) and list(challenge.stars()) == layout.STAR_COLUMNS
    assert all(path.is_file() for path in challenge.inputs("train", 7).values())
    with pytest.raises(SchemaError, match="planet 8 has no row") as caught:
        challenge.adc("FGS1", 8)
    assert caught.value.exit_code == 10


def test_missing_root_and_a_folder_without_data(tmp_path):
    with pytest.raises(DataMissingError, match="does not exist.*Set data.root") as caught:
        ch.open_challenge(tmp_path / "nowhere")
    assert caught.value.exit_code == 3
    with pytest.raises(DataMissingError, match="does not exist.*nobody-of-this-name"):
        ch.open_challenge("~nobody-of-this-name/data")
    with pytest.raises(DataMissingError, match="neither train/ nor test/"):
        ch.open_challenge(tmp_path)


def test_damaged_signals(made_up):
    path = made_up.root / "train/7/FGS1_signal_0.parquet"
    whole = path.read_bytes()

    def refused(kind, exit_code, *words):
        with pytest.raises(kind) as caught:
            signals.read_signal(path, "FGS1")
        assert caught.value.exit_code == exit_code
        for word in (path.name, *words):
            assert word in str(caught.value)
        path.write_bytes(whole)

    path.write_bytes(whole[: len(whole) // 2])
    refused(DamagedFileError, 3, "cannot be decoded", "Download")
    path.write_bytes(whole[: len(whole) // 2] + bytes(1000) + whole[len(whole) // 2 + 1000 :])
    refused(DamagedFileError, 3, "cannot be decoded")
    path.write_bytes(b"")
    refused(DamagedFileError, 3)
    path.unlink()
    refused(DataMissingError, 3, "missing")
    rewrite(path, lambda table: table.with_columns(pl.col("column_5").cast(pl.Float64)))
    refused(SchemaError, 10, "column_5", "Float64", "uint16")
    rewrite(path, lambda table: table.drop("column_1023"))
    refused(SchemaError, 10, "1023 columns", "32 x 32 = 1024")
    rewrite(path, lambda table: table.rename({"column_9": "pixel_9"}))
    refused(SchemaError, 10, "column_9 is missing")
    rewrite(path, lambda table: table.head(7))
    refused(SchemaError, 10, "7 frames", "pairs")
    rewrite(path, lambda table: table.head(0))
    refused(SchemaError, 10, "0 frames")
    rewrite(
        path, lambda table: table.with_columns(pl.when(pl.int_range(pl.len()) > 3).then("column_2").alias("column_2"))
    )
    refused(SchemaError, 10, "column_2", "empty values")
    pl.DataFrame({"0": np.zeros(1500, np.uint16)}).write_parquet(path)
    refused(SchemaError, 10, "1500 values", "32 x 32 = 1024")
    shutil.copy(made_up.root / "train/7/AIRS-CH0_signal_0.parquet", path)
    refused(SchemaError, 10, "11392 columns", "another instrument")


def test_damaged_calibration_products(made_up):
    path = made_up.root / "train/7/FGS1_calibration_0/dead.parquet"
    rewrite(path, lambda table: table.cast(pl.Int64))
    with pytest.raises(SchemaError, match="column_0 is Int64, not Boolean"):
        signals.read_plane(path, (32, 32))
    with pytest.raises(SchemaError, match="32 x 32 values, expected 32 x 356"):
        signals.read_plane(path, (32, 356))


def test_damaged_tables(made_up):
    challenge = ch.open_challenge(made_up.root)
    stars = made_up.root / "train_star_info.csv"
    table = pd.read_csv(stars)

    pd.concat([table, table]).to_csv(stars, index=False)
    assert len(challenge.stars()) == 1 and challenge.faults() == [f"planet 7 has more than one row in {stars.name}"]
    pd.concat([table, table.assign(Rs=2.0)]).to_csv(stars, index=False)  # which one is right?
    assert len(challenge.stars()) == 0 and challenge.faults() == [f"planet 7 has more than one row in {stars.name}"]
    with pytest.raises(SchemaError, match="planet 7 has no row"):
        challenge.star("train", 7)
    # what cannot be read of a star is not known: its planet is fitted all the same, and told
    for change, sentence in [
        (table.drop(columns=["sma"]), "column sma is missing in train_star_info.csv"),
        (table.assign(Rs="large"), "planet 7: column Rs is 'large' in train_star_info.csv, not a finite number"),
        (table.assign(Rs=np.inf), "planet 7: column Rs is 'inf' in train_star_info.csv, not a finite number"),
        (table.assign(Rs=np.nan), "planet 7: column Rs is empty in train_star_info.csv"),
    ]:
        change.to_csv(stars, index=False)
        assert challenge.faults() == [sentence] and challenge.stars().loc[7].isna().sum() == 1
    for change, sentences in [
        (table.assign(planet_id=9), ["planet 7 has no row in train_star_info.csv"]),
        (table.assign(planet_id="7b"), ["line 2 of train_star_info.csv has planet_id '7b', which is no whole number",
                                        "planet 7 has no row in train_star_info.csv"]),
    ]:
        change.to_csv(stars, index=False)
        assert challenge.faults() == sentences and 7 not in challenge.stars().index
    with pytest.raises(SchemaError, match="planet 7 has no row"):
        challenge.star("train", 7)
    for content in (b"\x00\xff\x00\xff", b"", table.to_csv(index=False, sep=";").encode()):
        stars.write_bytes(content)
        assert len(challenge.stars()) == 0 and len(challenge.faults()) == 1 and "no star is known" in challenge.faults()[0]
    stars.unlink()
    assert len(challenge.stars()) == 0 and "train_star_info.csv is missing" in challenge.faults()[0]

    labels = made_up.root / "train.csv"
    pd.read_csv(labels).drop(columns=["wl_3", "wl_4", "wl_5", "wl_6", "wl_7"]).to_csv(labels, index=False)
    with pytest.raises(SchemaError, match="column wl_3, wl_4, wl_5, wl_6 and 1 more is missing"):
        challenge.labels()
    adc = made_up.root / "adc_info.csv"
    table = pd.read_csv(adc)
    pd.concat([table, table]).to_csv(adc, index=False)
    assert challenge.adc("FGS1", 7) == (table["FGS1_adc_gain"][0], table["FGS1_adc_offset"][0])
    pd.concat([table.assign(FGS1_adc_gain=0.9), table]).to_csv(adc, index=False)  # the first one was taken, silently
    with pytest.raises(SchemaError, match="column FGS1_adc_gain has 2 different rows, and one is for all .*adc_info.csv"):
        challenge.adc("FGS1", 7)
    pd.read_csv(adc).drop(columns=["AIRS-CH0_adc_gain"]).to_csv(adc, index=False)
    with pytest.raises(SchemaError, match="column AIRS-CH0_adc_gain is missing"):
        challenge.adc("FGS1", 7)
    wavelengths = made_up.root / "wavelengths.csv"
    table = pd.read_csv(wavelengths)
    pd.concat([table, table + 0.01]).to_csv(wavelengths, index=False)
    with pytest.raises(SchemaError, match="column wl_1 has 2 different rows"):
        challenge.wavelengths_um
    table.to_csv(wavelengths, index=False)
    pd.read_csv(wavelengths).iloc[:, ::-1].set_axis(layout.LABEL_COLUMNS, axis=1).to_csv(wavelengths, index=False)
    with pytest.raises(SchemaError, match="do not ascend"):
        challenge.wavelengths_um
    with pytest.raises(SchemaError, match="FGS1-axis0-h has 80 times, the signal 90 frames"):
        challenge.time_h("FGS1", 90)


def test_unknown_edition(made_up_kept):
    with pytest.raises(SchemaError, match="Editions are 2025 and 2024"):
        ch.open_challenge(made_up_kept.root, edition="2026")


def test_labels_are_read_once_as_long_as_the_file_stays_as_it_is(made_up, monkeypatch):
    challenge, times = ch.open_challenge(made_up.root), []
    monkeypatch.setattr(tables.pd, "read_csv", lambda *words, read=pd.read_csv, **more: times.append(1) or read(*words, **more))
    mine = challenge.labels()
    mine.iloc[:] = 0.0  # which is nobody else's
    assert (challenge.labels() > 0).all(axis=None) and challenge.label_faults() == [] and len(times) == 1
    labels = pd.read_csv(challenge.labels_path)
    labels.assign(wl_1=0.02).to_csv(challenge.labels_path, index=False)
    assert challenge.labels()["wl_1"].tolist() == [0.02]
