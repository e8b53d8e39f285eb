"""Simulated data sets: layout of the competition, known truth, the same bytes however they are made."""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import batman
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, DamagedFileError, SchemaError
from spectramind_nb.core.storage import locked_folder
from spectramind_nb.observations.detector import calibrate_frames
from spectramind_nb.observations.lightcurves import extract_visit
from spectramind_nb.observations.writing import write_tables
from spectramind_nb.physics.transit import light_curve
from spectramind_nb.simulation import dataset
from spectramind_nb.simulation.dataset import simulate, visit_frames
from spectramind_nb.simulation.light_curves import observed_light_curves
from spectramind_nb.simulation.planets import catalogue_table, draw_planet
from spectramind_nb.simulation.settings import settings
from spectramind_nb.simulation.visits import (
    draw_visit_truth,
    expected_light,
    gain_drift,
    pair_times_h,
    relative_light,
)

WL = [f"wl_{k}" for k in range(1, 284)]
WIDE = {"frames": {"short": {"FGS1": 24, "AIRS-CH0": 12}}}
TINY = WIDE | {"long_column": True}  # quicker to write: 11,392 columns cost more than their few frames
QUIET = {"switches": compose(simulator="quiet").simulator["switches"]}


def tree(root: Path) -> dict[str, str]:
    """Every file's digest."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def everything(root: Path) -> set[str]:
    """Every file that is there just now, while others come and go."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "root", 3, 2, seed=4, short=True, config=TINY, workers=1)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "wide", 1, 0, seed=4, short=True, config=WIDE)


def test_layout_is_the_competitions(root):
    top = {path.name for path in root.iterdir()}
    stars = {"train_star_info.csv", "test_star_info.csv"}
    tables = {"train.csv", "wavelengths.csv", "adc_info.csv", "axis_info.parquet", "sample_submission.csv"}
    assert top == tables | stars | {"train", "test", "truth", "simulation.json"}
    for split, count in (("train", 3), ("test", 2)):
        planets = sorted((root / split).iterdir())
        assert len(planets) == count
        star = pd.read_csv(root / f"{split}_star_info.csv")
        assert list(star) == ["planet_id", "Rs", "Ms", "Ts", "Mp", "e", "P", "sma", "i"]
        assert set(star["planet_id"].astype(str)) == {path.name for path in planets}
        for planet in planets:
            assert {"AIRS-CH0_signal_0.parquet", "FGS1_signal_0.parquet"} <= {path.name for path in planet.iterdir()}
    assert list(pd.read_csv(root / "train.csv")) == ["planet_id", *WL]
    adc = pd.read_csv(root / "adc_info.csv")
    assert adc.iloc[0].to_dict() == {
        "FGS1_adc_offset": -1000.0, "FGS1_adc_gain": 0.4369, "AIRS-CH0_adc_offset": -1000.0, "AIRS-CH0_adc_gain": 0.4369
    }  # fmt: skip
    assert pd.read_csv(root / "sample_submission.csv").shape == (2, 567)


@pytest.mark.parametrize("name, width, frames", [("AIRS-CH0", 356, 12), ("FGS1", 32, 24)])
def test_any_reader_opens_the_frames(wide, name, width, frames):
    planet = next((wide / "train").iterdir())
    path = planet / f"{name}_signal_0.parquet"
    tables = [pl.read_parquet(path), pd.read_parquet(path), pq.read_table(path).to_pandas()]
    tables = [table.to_numpy() for table in tables]
    assert all(table.shape == (frames, 32 * width) and (table == tables[0]).all() for table in tables)
    schema = pq.read_schema(path)
    assert schema.names == [f"column_{k}" for k in range(32 * width)] and set(map(str, schema.types)) == {"uint16"}
    for product in ("dark", "dead", "flat", "read", "linear_corr"):
        table = pd.read_parquet(planet / f"{name}_calibration_0" / f"{product}.parquet")
        assert table.shape == (192 if product == "linear_corr" else 32, width)
        assert list(table) == [f"column_{k}" for k in range(width)]
        assert set(table.dtypes.astype(str)) == {"bool" if product == "dead" else "float64"}


def test_columns_types_and_shapes_are_the_real_samples(sample_root, tmp_path):
    """Everything the sample has, side by side; its signals are in the long form."""
    frames = {"frames": {"short": {"FGS1": 50, "AIRS-CH0": 50}}, "long_column": True}
    made = simulate(tmp_path / "data", 1, 0, seed=2, short=True, config=frames)
    ours, real = (next((root / "train").iterdir()) for root in (made, sample_root))
    for path in sorted(real.rglob("*.parquet")):
        mine, theirs = pq.ParquetFile(ours / path.relative_to(real)), pq.ParquetFile(path)
        assert mine.schema_arrow.types == theirs.schema_arrow.types, path.name
        assert mine.metadata.num_rows == theirs.metadata.num_rows, path.name
        assert mine.metadata.num_columns == theirs.metadata.num_columns, path.name
        if "calibration" in path.parent.name:
            assert mine.schema_arrow.names == theirs.schema_arrow.names, path.name
    for name in ("adc_info.csv", "train_star_info.csv", "wavelengths.csv", "sample_submission.csv"):
        mine, theirs = pd.read_csv(made / name), pd.read_csv(sample_root / name)
        assert list(mine) == list(theirs), name
        numbers = [[dtype.kind for dtype in table.dtypes] for table in (mine, theirs)]
        assert numbers[0] == numbers[1], name
    mine, theirs = pd.read_parquet(made / "axis_info.parquet"), pd.read_parquet(sample_root / "axis_info.parquet")
    assert mine.dtypes.to_dict() == theirs.dtypes.to_dict()
    np.testing.assert_allclose(mine["AIRS-CH0-axis2-um"].dropna(), theirs["AIRS-CH0-axis2-um"].dropna(), atol=2e-7)


def test_axis_has_the_samples_fields(root):
    axis = pd.read_parquet(root / "axis_info.parquet")
    assert list(axis) == ["AIRS-CH0-axis0-h", "AIRS-CH0-axis2-um", "AIRS-CH0-integration_time", "FGS1-axis0-h"]
    assert axis.notna().sum().tolist() == [12, 356, 12, 24]
    assert axis["AIRS-CH0-axis2-um"].dropna().is_monotonic_decreasing
    assert axis["AIRS-CH0-axis0-h"].max() < 7.5 and axis["FGS1-axis0-h"].max() > 6.5


def test_truth_is_kept_for_both_splits(root):
    train, test = (pd.read_csv(root / "truth" / f"{split}.csv", index_col="planet_id") for split in ("train", "test"))
    pd.testing.assert_frame_equal(train, pd.read_csv(root / "train.csv", index_col="planet_id"))
    assert list(test) == WL and len(test) == 2 and not set(train.index) & set(test.index)
    nuisances = json.loads((root / "truth" / "nuisances.json").read_text())
    assert set(nuisances) == {str(planet) for planet in [*train.index, *test.index]}
    one = nuisances[str(test.index[0])]
    assert one["split"] == "test" and {"mid_time_h", "drift_time", "centre_px"} <= set(one["visits"][0])
    star = pd.read_csv(root / "test_star_info.csv", index_col="planet_id")
    assert star.loc[test.index[0], "sma"] != one["star"]["sma"]


def test_frames_look_like_the_real_ones(sample_root, tmp_path):
    """Levels, width and place of the trace, noise of faint pixels: of the same kind as the real sample's."""
    frames = {"frames": {"short": {"FGS1": 50, "AIRS-CH0": 50}}}
    made = simulate(tmp_path / "data", 1, 0, seed=2, short=True, config=frames)
    planet = int(next((made / "train").iterdir()).name)
    for name in ("AIRS-CH0", "FGS1"):
        real = calibrate_frames(sample_root, 342072318, instrument=name)
        ours = calibrate_frames(made, planet, instrument=name)
        assert ours.shape == real.shape
        level = [np.nansum(cds.mean(0)) for cds in (ours, real)]
        assert 0.3 < level[0] / level[1] < 3
        faint = [np.nanmedian(cds[:, :4, :30].std(axis=0)) for cds in (ours, real)]
        assert faint[0] == pytest.approx(faint[1], rel=0.05)
        rows = [np.nansum(cds.mean(0), axis=1) for cds in (ours, real)]
        middle = [(profile * np.arange(32)).sum() / profile.sum() for profile in rows]
        assert middle[0] == pytest.approx(middle[1], abs=0.6)
        width = [np.sqrt((p * (np.arange(32) - m) ** 2).sum() / p.sum()) for p, m in zip(rows, middle)]
        assert 0.5 < width[0] / width[1] < 1.6


@pytest.mark.parametrize("name", ["FGS1", "AIRS-CH0"])
def test_the_recipe_recovers_the_injected_light(name):
    config = settings(QUIET)
    planet, visit = draw_planet(0, 3, config), draw_visit_truth(0, 3, 0, config)
    n = 60
    frames, files = visit_frames(planet, visit, name, n, 0, config, digitise=False)
    raw = (frames / 0.4369 - 1000.0).reshape(32, -1, n)
    linear = np.polynomial.polynomial.polyval(raw, files["linear_corr"][..., None], tensor=False)
    seconds = 4.5 if name == "AIRS-CH0" else 0.1
    cds = (linear[..., 1::2] - linear[..., ::2] - seconds * files["dark"][..., None]) / files["flat"][..., None]
    light = cds.sum((0, 1)) if name == "FGS1" else cds[:, 39:321].sum(0)[::-1].T
    injected = expected_light(planet, visit, {name: pair_times_h(n, name)}, config)[name]
    error_ppm = 1e6 * ((light / light[0]) / (injected / injected[0]) - 1)
    assert abs(error_ppm).max() < 1e-3


def test_the_projects_chain_recovers_the_injected_light(tmp_path):
    config = QUIET | {"frames": {"short": {"FGS1": 40, "AIRS-CH0": 40}}}
    made = simulate(tmp_path / "data", 1, 0, seed=6, short=True, config=config)
    number = int(next((made / "train").iterdir()).name)
    planet, visit = draw_planet(6, number, settings(config)), draw_visit_truth(6, number, 0, settings(config))
    white = np.nansum(calibrate_frames(made, number)[:, :, 39:321], axis=(1, 2))
    injected = expected_light(planet, visit, {"AIRS-CH0": pair_times_h(40, "AIRS-CH0")}, settings(config))["AIRS-CH0"].sum(1)
    difference_ppm = 1e6 * ((white / white.mean()) / (injected / injected.mean()) - 1)
    assert np.ptp(injected) / injected.max() > 2e-4
    assert abs(difference_ppm).max() < 30  # counts are whole numbers: 2.3 electrons in each of 9,024 pixels


@pytest.mark.parametrize("number", [0, 1, 2, 3, 9])
def test_transits_agree_with_batman(number):
    planet = draw_planet(0, number, settings())
    times = np.linspace(0, 7.5, 400)
    orbit = batman.TransitParams()
    star = planet.star
    orbit.t0, orbit.per, orbit.a, orbit.inc, orbit.ecc, orbit.w = 3.8 / 24, star["P"], star["sma"], star["i"], 0.0, 90.0
    orbit.limb_dark = "quadratic"
    ours = np.column_stack([relative_light(planet, "FGS1", 3.8, times), relative_light(planet, "AIRS-CH0", 3.8, times)])
    for channel in (0, 1, 8, 9, 150, 282):
        orbit.rp, orbit.u = np.sqrt(planet.depth[channel]), list(planet.limb_darkening[channel])
        theirs = batman.TransitModel(orbit, times / 24, max_err=0.1).light_curve(orbit)
        assert 1e6 * abs(ours[:, channel] - theirs).max() < 1


def test_channels_computed_together_are_what_each_is_alone():
    config, times = settings(), np.linspace(0, 7.5, 100)
    for number in range(10):  # small and large planets, central and grazing ones
        planet = draw_planet(0, number, config)
        star, together = planet.star, relative_light(planet, "AIRS-CH0", 3.8, times)
        for channel in (0, 100, 281):
            k, u = np.sqrt(planet.depth[1 + channel]), planet.limb_darkening[1 + channel]
            alone = light_curve(times / 24, 3.8 / 24, star["P"], star["sma"], star["i"], k, *u).numpy()
            assert 1e6 * abs(together[:, channel] - alone).max() < 1e-3, (number, channel)


def test_drift_and_timing_have_the_sizes_of_the_settings():
    config = settings({"timing": {"cut": 0}})
    visits = [draw_visit_truth(0, planet, 0, config) for planet in range(200)]
    middles = np.array([[visit.mid_time_h["FGS1"], visit.mid_time_h["AIRS-CH0"]] for visit in visits])
    assert abs(middles[:, 0].mean() - 3.75) < 0.03 and middles[:, 0].std() == pytest.approx(0.15, rel=0.15)
    assert np.diff(middles).std() == pytest.approx(1e-3, rel=0.15)
    drift = np.array([gain_drift(np.linspace(0, 7.5, 20), "AIRS-CH0", visit) for visit in visits])
    assert 3e-4 < drift.std(axis=1).mean() < 3e-3
    often = settings({"timing": {"cut": 1}})
    cut = [draw_visit_truth(0, planet, 0, often).mid_time_h["FGS1"] for planet in range(200)]
    assert np.ptp(cut) > 4


def test_serial_and_parallel_give_the_same_bytes(root, tmp_path):
    assert tree(simulate(tmp_path / "root", 3, 2, seed=4, short=True, config=TINY, workers=3)) == tree(root)


def test_stopped_and_continued_gives_the_same_bytes(root, tmp_path, monkeypatch):
    made = []

    def stops_after_two(folder, *rest):
        if len(made) == 2:
            *_, workshop, _ = rest
            (workshop / "half").mkdir()  # what a killed process leaves behind
            (workshop / "half" / "AIRS-CH0_signal_0.parquet").write_bytes(b"PAR1")
            raise KeyboardInterrupt
        write_planet(folder, *rest)
        made.append(folder)

    write_planet, code = dataset.write_planet, dataset._code()
    monkeypatch.setattr(dataset, "_code", lambda: code)
    monkeypatch.setattr(dataset, "write_planet", stops_after_two)
    out = tmp_path / "root"
    with pytest.raises(KeyboardInterrupt):
        simulate(out, 3, 2, seed=4, short=True, config=TINY, workers=1)
    assert json.loads((out / "simulation.json").read_text())["complete"] is False
    monkeypatch.setattr(dataset, "write_planet", write_planet)
    kept = {path: path.stat().st_mtime_ns for path in made}
    simulate(out, 3, 2, seed=4, short=True, config=TINY, workers=1)
    assert tree(out) == tree(root)
    assert kept == {path: path.stat().st_mtime_ns for path in made}  # whole planets are not made again


def test_a_planet_does_not_depend_on_how_many_there_are(root, tmp_path):
    fewer = tree(simulate(tmp_path / "root", 2, 1, seed=4, short=True, config=TINY))
    signals = {name: value for name, value in fewer.items() if name.startswith(("train/", "test/"))}
    assert signals and signals.items() <= tree(root).items()


@pytest.fixture
def begun(tmp_path):
    """Begin to make `root` again, in a process of its own."""
    processes = multiprocessing.get_context("forkserver")  # imports once; a fork of this process would share its threads
    processes.set_forkserver_preload(["spectramind_nb.simulation.dataset"])

    def begin(said=tmp_path / "said"):
        process = processes.Process(target=_simulate_again, args=(tmp_path / "root", said))
        process.start()
        return process

    return begin


def _simulate_again(root, said):
    """What a process of `begun` does; the server that it was forked from writes to the test that began the server."""
    with open(said, "a") as sys.stderr:
        simulate(root, 3, 2, seed=4, short=True, config=TINY, workers=2)


def test_who_wants_it_while_another_makes_it_waits(root, tmp_path, begun):
    files, until = [tmp_path / "one", tmp_path / "other"], time.monotonic() + 120
    waits = "is being filled by another process"
    with locked_folder(tmp_path / "root"):
        together = [begun(file) for file in files]
        while not all(file.exists() and waits in file.read_text() for file in files) and time.monotonic() < until:
            time.sleep(0.1)
    for process in together:
        process.join()
    told = "".join(file.read_text() for file in files)
    assert told.count(waits) == 2 and told.count("simulate: 5/5") == 1
    assert [process.exitcode for process in together] == [0, 0] and tree(tmp_path / "root") == tree(root)


def test_killed_anywhere_and_run_again_gives_the_same_bytes(root, tmp_path, begun):
    """SIGKILL at random moments; SPECTRAMIND_KILLS says how many (two here, 50 for the proof)."""
    out, rng = tmp_path / "root", np.random.default_rng(0)
    met = set()  # how many planets were whole when a process died
    for _ in range(int(os.environ.get("SPECTRAMIND_KILLS", "2"))):
        before, seen, wanted = everything(out), set(), rng.integers(10, 70)
        process = begun()
        while process.is_alive() and len(seen) < wanted:  # files of finished planets, unfinished ones and tables
            seen |= everything(out) - before
        process.kill()
        process.join()
        if process.exitcode:
            met.add(len(list(out.glob("t*/*[0-9]"))))
        else:
            assert tree(out) == tree(root)
            shutil.rmtree(out)
    last = begun()
    last.join()
    assert last.exitcode == 0 and tree(out) == tree(root)
    assert met - {0}, "no process was killed between two planets"


def test_complete_data_sets_are_left_alone(root, monkeypatch):
    before = tree(root)
    monkeypatch.setattr(dataset, "draw_planet", lambda *_: pytest.fail("a complete data set was drawn again"))
    assert simulate(root, 3, 2, seed=4, short=True, config=TINY) == root
    assert tree(root) == before


@pytest.mark.parametrize(
    "changes",
    [{"seed": 5}, {"train": 4}, {"short": False}, {"level": "lightcurves"}, {"config": TINY | {"drift": {"amplitude": 0}}}],
    ids=str,
)
def test_other_settings_do_not_touch_a_data_set(root, changes):
    before = tree(root)
    with pytest.raises(ConfigError, match="made with other settings") as caught:
        simulate(root, **({"train": 3, "test": 2, "seed": 4, "short": True, "config": TINY} | changes))
    assert caught.value.exit_code == 2 and tree(root) == before


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="did not make"):
        simulate(tmp_path, 1, 1, short=True, config=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_spoilt_note_is_reported(tmp_path):
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        simulate(tmp_path, 1, 1, short=True, config=TINY)


def test_unfinished_data_sets_of_another_version_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_code", lambda: "older")
    monkeypatch.setattr(dataset, "write_planet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "root", 1, 0, short=True, config=TINY)
    monkeypatch.setattr(dataset, "_code", lambda: "newer")
    with pytest.raises(ConfigError, match="another version"):
        simulate(tmp_path / "root", 1, 0, short=True, config=TINY)


def test_nothing_to_make_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no data set"):
        simulate(tmp_path / "root", 0, 0)
    assert not (tmp_path / "root").exists()


def spectra_file(path: Path, rows: int = 3, **spoil) -> Path:
    depth = np.linspace(0.005, 0.006, 283) + 1e-4 * np.arange(rows)[:, None]
    table = pd.DataFrame(depth, columns=WL, index=pd.Index([70, 5, 900][:rows], name="planet_id"))
    for name, value in spoil.items():
        table.iloc[1, table.columns.get_loc(name)] = value
    table.to_csv(path)
    return path


def test_given_spectra_are_the_truth(tmp_path):
    spectra = spectra_file(tmp_path / "spectra.csv")
    made = simulate(tmp_path / "root", 2, 1, short=True, spectra=spectra, config=TINY)
    given = pd.read_csv(spectra, index_col="planet_id")
    train, test = (pd.read_csv(made / "truth" / f"{split}.csv", index_col="planet_id") for split in ("train", "test"))
    assert sorted(train.index) == [5, 70] and list(test.index) == [900]
    pd.testing.assert_frame_equal(pd.read_csv(made / "train.csv", index_col="planet_id"), given.loc[[5, 70]])
    pd.testing.assert_frame_equal(test, given.loc[[900]])


@pytest.mark.parametrize(
    "spoil, rows, error, words",
    [
        ({"wl_7": -0.001}, 3, ConfigError, "planet 5"),
        ({"wl_7": np.nan}, 3, ConfigError, "planet 5"),
        ({}, 2, ConfigError, "2 spectra for 3 planets"),
        ({"wl_7": "deep"}, 3, SchemaError, "wl_7"),
        ({"planet_id": -5}, 3, ConfigError, "planet -5"),
    ],
)
def test_bad_spectra_are_refused(tmp_path, spoil, rows, error, words):
    path = spectra_file(tmp_path / "spectra.csv", rows)
    if spoil:
        table = pd.read_csv(path, index_col="planet_id").astype(object)
        table.iloc[1, 6] = spoil.get("wl_7", 0.01)
        table = table.rename(index={5: spoil.get("planet_id", 5)})
        table.to_csv(path)
    with pytest.raises(error, match=words):
        simulate(tmp_path / "root", 2, 1, short=True, spectra=path, config=TINY)
    assert not (tmp_path / "root").exists()


def test_second_visits_share_the_planet_not_the_noise(tmp_path):
    made = simulate(tmp_path / "root", 1, 0, short=True, config=TINY | {"population": {"second_visit": 1.0}})
    folder = next((made / "train").iterdir())
    first, second = (pl.read_parquet(folder / f"AIRS-CH0_signal_{visit}.parquet").to_numpy() for visit in (0, 1))
    assert (first != second).mean() > 0.5
    nuisances = json.loads((made / "truth" / "nuisances.json").read_text())[folder.name]
    one, other = nuisances["visits"]
    assert one["mid_time_h"] != other["mid_time_h"]


def test_the_long_form_holds_the_same_frames(root, wide):
    planet = next((wide / "train").iterdir()).name
    long, frames = (pl.read_parquet(r / "train" / planet / "FGS1_signal_0.parquet").to_numpy() for r in (root, wide))
    assert long.shape == (24 * 1024, 1) and (long.reshape(24, 1024) == frames).all()


# A fifth of a visit's pairs over the whole window: as many bins as a full visit, each with a fifth of the pairs.
FIFTH = {"frames": {"short": {"FGS1": 27_000, "AIRS-CH0": 2_250}}}


def scatter_ppm(flux: np.ndarray) -> np.ndarray:
    """Noise of a bin from second differences, robust; for full bins."""
    relative = flux / flux.mean(0)
    bend = relative[2:] - 2 * relative[1:-1] + relative[:-2]
    return 1e6 * np.median(abs(bend), 0) / 0.6745 / np.sqrt(6) / np.sqrt(5)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A visit of a star of the reference temperature, half, once and 1.5 times as bright, from frames and without."""
    config = settings(FIFTH | {"switches": {"cut_transits": False, "second_visits": False}})
    out, found = tmp_path_factory.mktemp("noisy"), {}
    (out / "unfinished").mkdir()
    for brightness in (0.5, 1.0, 1.5):
        planet = replace(draw_planet(0, 3, config, np.full(283, 1e-4)), brightness=brightness)
        planet.star["Ts"] = config["star"]["temperature_k"]
        root, n_frames = out / str(brightness), config["frames"]["short"]
        (root / "train").mkdir(parents=True)
        dataset.write_planet(root / "train" / "3", planet, 0, n_frames, config, out / "unfinished")
        write_tables(root, {"train": catalogue_table([planet], 0, config["catalogue"])}, n_frames=n_frames)
        for pipeline in ("default", "plain") if brightness == 1 else ("default",):
            found[brightness, pipeline] = extract_visit(root, 3, config=group("detector", pipeline))
        visit = draw_visit_truth(0, 3, 0, config)
        found[brightness, "shortcut"] = observed_light_curves(planet, visit, "train", n_frames, 0, config)
    return found


def test_noise_is_that_of_the_real_data(noisy):
    curves = noisy[1.0, "default"]
    fgs1, plain = (scatter_ppm(noisy[1.0, name].flux["FGS1"]) for name in ("default", "plain"))
    assert fgs1 == pytest.approx(304, rel=0.15) and 1.5 * 0.85 < plain / fgs1 < 1.7 * 1.15
    assert 130 * 0.85 < scatter_ppm(curves.white("AIRS-CH0")) < 152 * 1.15
    told = 1e6 * np.median(curves.noise["AIRS-CH0"] / curves.flux["AIRS-CH0"], axis=0) / np.sqrt(5)
    assert told[0] == pytest.approx(1600, rel=0.15) and told[-1] == pytest.approx(9000, rel=0.15)
    assert np.median(scatter_ppm(curves.flux["AIRS-CH0"]) / told) == pytest.approx(1, abs=0.05)


def test_noise_scales_with_the_star_as_photon_noise_does(noisy):
    bright, faint = (noisy[brightness, "default"] for brightness in (1.5, 0.5))
    photons = np.sqrt(3.0)
    assert scatter_ppm(faint.flux["FGS1"]) / scatter_ppm(bright.flux["FGS1"]) == pytest.approx(photons, rel=0.15)
    ratio = scatter_ppm(faint.flux["AIRS-CH0"]) / scatter_ppm(bright.flux["AIRS-CH0"])
    assert np.median(ratio[:140]) == pytest.approx(photons, rel=0.15)  # farther red read noise takes over: up to 3


@pytest.mark.parametrize("name", ["FGS1", "AIRS-CH0"])
@pytest.mark.parametrize("brightness", [0.5, 1.0, 1.5])
def test_the_shortcut_is_what_the_pipeline_makes_of_the_frames(noisy, brightness, name):
    """Same transit, drift and noise: their difference is as large as both noises together."""
    frames, shortcut = (noisy[brightness, level] for level in ("default", "shortcut"))
    np.testing.assert_allclose(frames.time_h[name], shortcut.time_h[name], atol=1e-4)
    level = [curves.flux[name].mean(0) for curves in (frames, shortcut)]
    difference = frames.flux[name] / level[0] - shortcut.flux[name] / level[1]
    noise = np.hypot(frames.noise[name] / level[0], shortcut.noise[name] / level[1])
    assert (difference / noise).std() == pytest.approx(1, abs=0.08)
    ratio = np.median(frames.noise[name] / level[0] / (shortcut.noise[name] / level[1]), axis=0)
    assert np.median(ratio) == pytest.approx(1, abs=0.15)
    assert np.median(np.asarray(level[0]) / level[1]) == pytest.approx(1, abs=0.05)
