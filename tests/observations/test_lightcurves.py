"""Photometry against known truth, the store's promises, and a report instead of a crash for each kind of damage."""

import shutil

import numpy as np
import polars as pl
import pytest
from made_up_visit import as_2024, write_made_up

from spectramind_nb.core import configuration
from spectramind_nb.core.errors import DamagedFileError, DataMissingError, PreflightError, SchemaError, SpectraMindError
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import layout, writing
from spectramind_nb.observations import lightcurves as lc
from spectramind_nb.physics.normalised_curves import normalise

CONFIG = configuration.group("detector")
PLAIN = configuration.group("detector", "plain")


@pytest.fixture(scope="module")
def curves(made_up_kept):
    return lc.extract_visit(made_up_kept.root, 7, config=CONFIG)


def same(a, b):
    return all(
        np.array_equal(getattr(a, what)[name], getattr(b, what)[name])
        for what in ("flux", "noise", "time_h")
        for name in layout.INSTRUMENTS
    )


def test_airs_ascends_and_no_channel_lacks_the_light_of_bad_pixels(made_up_kept):
    curves = lc.extract_visit(made_up_kept.root, 7, config=CONFIG)
    flux = curves.flux["AIRS-CH0"].mean(axis=0)
    truth = made_up_kept.of["AIRS-CH0"].star.sum(axis=0)[39:321][::-1]
    assert flux.shape == (282,) and (np.diff(curves.wavelengths_um) > 0).all()
    assert np.allclose(flux, truth, rtol=0.03)
    assert flux[0] > 10 * flux[-1]


def test_depths_come_back(made_up_kept, curves):
    for name, pairs in (("FGS1", 40), ("AIRS-CH0", 30)):
        inside = np.abs(np.linspace(-1, 1, pairs)) < 0.4
        light = curves.white(name)
        sigma = curves.white_noise_ppm(name) * 1e-6 * np.sqrt(1 / inside.sum() + 1 / (~inside).sum())
        assert abs(1 - light[inside].mean() / light[~inside].mean() - made_up_kept.depth) < 4 * sigma + 1e-4


def test_bins_follow_the_cadence(made_up_kept):
    config = {**CONFIG, "bin_seconds": {"FGS1": 3 * 27000 / 40, "AIRS-CH0": 24.0}}
    curves = lc.extract_visit(made_up_kept.root, 7, config=config)
    assert len(curves.time_h["FGS1"]) == 14 and len(curves.time_h["AIRS-CH0"]) == 30
    single = lc.extract_visit(made_up_kept.root, 7, config=CONFIG)
    assert np.allclose(curves.time_h["FGS1"][0], single.time_h["FGS1"][:3].mean())
    assert np.isclose(curves.time_h["FGS1"][-1], single.time_h["FGS1"][-1])
    ratio = curves.noise["FGS1"][-1] / curves.noise["FGS1"][0]  # the last bin holds one pair
    assert np.isclose(ratio, np.sqrt(3))


def test_noise_is_the_scatter(tmp_path):
    made_up = write_made_up(tmp_path, pairs={"FGS1": 600, "AIRS-CH0": 60}, depth=0.0)
    curves = lc.extract_visit(made_up.root, 7, config=CONFIG)
    for name in layout.INSTRUMENTS:
        flux = curves.flux[name] if curves.flux[name].ndim == 2 else curves.flux[name][:, None]
        noise = curves.noise[name].reshape(flux.shape)
        z = (flux - flux.mean(axis=0)) / noise
        assert abs(np.sqrt((z**2).mean()) - 1) < 0.05, name
        photons = np.sqrt(made_up.of[name].star.sum() + (np.pi * 4**2 if name == "FGS1" else 282 * 9) * 2 * 14**2)
        assert curves.white_noise_ppm(name) < 1.15 * photons / made_up.of[name].star.sum() * 1e6 * (
            1 if name == "FGS1" else 1.2
        )


def test_jitter_is_taken_out(tmp_path):
    rng, pairs = np.random.default_rng(3), 1500
    write_made_up(tmp_path, pairs={"FGS1": pairs, "AIRS-CH0": 2})
    rows, columns = np.mgrid[:32, :32]
    dy, dx = 0.1 * rng.standard_normal((2, pairs, 1, 1))
    star = 2.7e5 / (4.5 * np.pi) * np.exp(-((rows - 15 - dy) ** 2 + (columns - 15.6 - dx) ** 2) / 4.5)
    star *= 1 + 0.1 * np.sin(7 * rows + 3 * columns)  # each pixel responds differently
    electrons = np.full((2 * pairs, 32, 32), 600.0)
    electrons[1::2] += rng.poisson(star)
    electrons += rng.normal(0, 14, electrons.shape)
    writing.write_signal(tmp_path / "train/7/FGS1_signal_0.parquet", np.round((electrons + 1000) * 0.4369).astype(np.uint16))
    scatter = {}
    for name, config in (("default", CONFIG), ("plain", PLAIN)):
        scatter[name] = lc.extract_visit(tmp_path, 7, config=config).white("FGS1").std()
    limit = 1 / np.sqrt(star[0].sum())
    assert scatter["default"] < 1.1 * limit and scatter["plain"] > 1.2 * limit


def test_a_dead_column_borrows_and_gets_no_weight(made_up):
    path = made_up.root / "train/7/AIRS-CH0_calibration_0/dead.parquet"
    pl.read_parquet(path).with_columns(pl.lit(True).alias("column_100")).write_parquet(path)
    curves = lc.extract_visit(made_up.root, 7, config=CONFIG)
    channel = 281 - (100 - 39)
    flux, noise = curves.flux["AIRS-CH0"], curves.noise["AIRS-CH0"]
    assert np.isfinite(flux).all() and np.isinf(noise[:, channel]).all() and not normalise(curves)[1].good[:, channel].any()
    assert np.delete((noise / flux).max(axis=0), channel).max() < 0.2
    assert curves.diagnostics["AIRS-CH0/lost_channels"] == 1


@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_no_star_is_said(made_up, instrument):
    path = made_up.root / f"train/7/{instrument}_signal_0.parquet"
    raw = np.random.default_rng(0).normal(700, 6, (60, *layout.FRAME_SHAPE[instrument]))
    writing.write_signal(path, raw.astype(np.uint16))
    with pytest.raises(PreflightError, match="there is no (star|spectrum)") as caught:
        lc.extract_visit(made_up.root, 7, config=CONFIG)
    assert caught.value.exit_code == 3 and path.name in str(caught.value)


def test_layouts_and_editions_agree(made_up_kept, curves, tmp_path):
    write_made_up(tmp_path / "long", long=True)
    assert same(lc.extract_visit(tmp_path / "long", 7, config=CONFIG), curves)
    assert same(lc.extract_visit(as_2024(tmp_path / "long"), 7, config=CONFIG), curves)


def test_real_sample(sample_root):
    challenge = ch.open_challenge(sample_root)
    curves = lc.extract_visit(sample_root, challenge.planets()[0], config=CONFIG)
    assert curves.flux["AIRS-CH0"].shape == (5, 282) and curves.flux["FGS1"].shape == (1,)
    assert (curves.flux["AIRS-CH0"] > 0).all() and (curves.noise["AIRS-CH0"] > 0).all()
    expected = np.load(sample_root.parent / "expected_calibrated.npz")
    trace = np.nansum(expected["airs_cds"][:, 7:24, 39:321], axis=1).mean(axis=0)[::-1]
    assert np.median(np.abs(curves.flux["AIRS-CH0"].mean(axis=0) / trace - 1)) < 0.03
    spectrum = curves.flux["AIRS-CH0"].mean(axis=0)
    step = np.abs(np.diff(np.log(spectrum)))
    assert step.max() < 0.2  # without care for bad pixels: 0.7


def test_show(curves):
    assert "planet 7" in repr(curves) and "<table>" in curves._repr_html_()
    import matplotlib.pyplot as plt

    plt.close(curves.plot())


class TestStore:
    def fill(self, root, store, config=CONFIG, **options):
        return lc.calibrate(ch.open_challenge(root), "train", config, store, **options)

    def test_second_call_computes_nothing(self, made_up, tmp_path, monkeypatch):
        first = self.fill(made_up.root, tmp_path / "store")
        monkeypatch.setattr(lc, "extract_visit", lambda *_: pytest.fail("computed again"))
        assert self.fill(made_up.root, tmp_path / "store") == first

    def test_content_is_the_extraction(self, made_up_kept, curves, tmp_path):
        (key,) = self.fill(made_up_kept.root, tmp_path).values()
        store = lc.lightcurve_store(tmp_path, CONFIG)
        stored = lc.load_light_curves(store, key)
        assert same(stored, curves) and stored.diagnostics == curves.diagnostics and stored.split == "train"
        with np.load(store.path(key)) as plain:  # numpy alone opens it
            assert np.array_equal(plain["AIRS-CH0/flux"], curves.flux["AIRS-CH0"])

    def test_config_and_bytes_are_part_of_the_key(self, made_up, tmp_path):
        (first,) = self.fill(made_up.root, tmp_path / "store").values()
        (other,) = self.fill(made_up.root, tmp_path / "store", PLAIN).values()
        path = made_up.root / "train/7/FGS1_calibration_0/dark.parquet"
        table = pl.read_parquet(path)
        table.with_columns(pl.col("column_15") + 1e-9).write_parquet(path)
        (third,) = self.fill(made_up.root, tmp_path / "store").values()
        assert len({first, other, third}) == 3
        table.write_parquet(path)
        (fourth,) = self.fill(made_up.root, tmp_path / "store").values()
        assert fourth == first

    def test_resumes_after_the_visits_that_are_done(self, made_up, tmp_path, monkeypatch):
        for planet in (8, 9):
            shutil.copytree(made_up.root / "train/7", made_up.root / f"train/{planet}")
        original, done = lc.extract_visit, []

        def dies_at_the_second(*arguments):
            if done:
                raise KeyboardInterrupt
            done.append(arguments)
            return original(*arguments)

        monkeypatch.setattr(lc, "extract_visit", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            self.fill(made_up.root, tmp_path / "store", workers=1)
        seen = []
        monkeypatch.setattr(lc, "extract_visit", lambda *a: seen.append(a[1]) or original(*a))
        assert len(self.fill(made_up.root, tmp_path / "store", workers=1)) == 3
        assert seen == [8, 9]

    def test_workers_do_not_change_the_result(self, made_up, tmp_path):
        shutil.copytree(made_up.root / "train/7", made_up.root / "train/8")
        one, two = (self.fill(made_up.root, tmp_path / str(n), workers=n) for n in (1, 2))
        assert one == two
        for key in one.values():
            paths = [lc.lightcurve_store(tmp_path / n, CONFIG).path(key) for n in ("1", "2")]
            assert same(*(lc.load_light_curves(lc.lightcurve_store(tmp_path / n, CONFIG), key) for n in ("1", "2")))
            assert all(path.is_file() for path in paths)

    def test_a_bad_visit_does_not_stop_the_others(self, made_up, tmp_path):
        folder = made_up.root / "train"
        for planet in (8, 9, 10, 11):
            shutil.copytree(folder / "7", folder / str(planet))
        (folder / "8/AIRS-CH0_signal_0.parquet").write_bytes(b"PAR1 cut")
        (folder / "9/FGS1_calibration_0/flat.parquet").unlink()
        shutil.copy(folder / "7/FGS1_signal_0.parquet", folder / "10/AIRS-CH0_signal_0.parquet")
        shutil.rmtree(folder / "11")
        (folder / "11").mkdir()
        results = self.fill(made_up.root, tmp_path / "store")
        kinds = {visit.planet_id: type(result) for visit, result in results.items()}
        assert kinds == {7: str, 8: DamagedFileError, 9: DataMissingError, 10: SchemaError, 11: DataMissingError}
        assert all("/8/" in str(result) for visit, result in results.items() if visit.planet_id == 8)

    def test_unforeseen_trouble_is_a_report_too(self, made_up, tmp_path, monkeypatch):
        shutil.copytree(made_up.root / "train/7", made_up.root / "train/8")
        original = lc.extract_visit
        monkeypatch.setattr(lc, "extract_visit", lambda *a: 1 / 0 if a[1] == 8 else original(*a))
        results = self.fill(made_up.root, tmp_path / "store")
        assert isinstance(results[layout.Visit(7)], str)
        assert isinstance(results[layout.Visit(8)], SpectraMindError) and "ZeroDivisionError" in str(results[layout.Visit(8)])

    def test_raises_when_nothing_is_usable(self, made_up, tmp_path):
        folder = made_up.root / "train"
        shutil.copytree(folder / "7", folder / "8")
        (folder / "7/FGS1_calibration_0/flat.parquet").unlink()
        (folder / "8/FGS1_calibration_0/flat.parquet").unlink()
        with pytest.raises(DataMissingError, match="none of 2 visits is usable") as caught:
            self.fill(made_up.root, tmp_path / "store")
        assert caught.value.exit_code == 3
        (folder / "8/FGS1_calibration_0/flat.parquet").write_bytes(b"")
        with pytest.raises(PreflightError, match="none of 2 visits is usable") as caught:
            self.fill(made_up.root, tmp_path / "store")
        assert type(caught.value) is PreflightError and caught.value.exit_code == 3

    def test_memory_and_size_of_a_short_visit(self, made_up_kept, tmp_path):
        (key,) = self.fill(made_up_kept.root, tmp_path).values()
        assert lc.lightcurve_store(tmp_path, CONFIG).path(key).stat().st_size < 1e6


def test_cosmic_rays_leave_no_trace(made_up, tmp_path):
    clean = lc.extract_visit(made_up.root, 7, config=CONFIG)
    raw = made_up.of["AIRS-CH0"].raw.copy()
    hits = [(11, 13, 100), (31, 17, 200), (45, 14, 300)]
    for frame, row, column in hits:
        raw[frame, row, column] += 2200  # 5000 electrons
    writing.write_signal(made_up.root / "train/7/AIRS-CH0_signal_0.parquet", raw)
    hit = {
        name: lc.extract_visit(made_up.root, 7, config=config)
        for name, config in (("default", CONFIG), ("plain", PLAIN))
    }
    for frame, _, column in hits:
        pair, channel = frame // 2, 320 - column
        sigma = clean.noise["AIRS-CH0"][pair, channel]
        change = {
            name: curves.flux["AIRS-CH0"][pair, channel] - clean.flux["AIRS-CH0"][pair, channel]
            for name, curves in hit.items()
        }
        assert abs(change["default"]) < 3 * sigma and change["plain"] > 10 * sigma


@pytest.mark.parametrize("instrument, middle_s", [("FGS1", 0.05), ("AIRS-CH0", 2.25)])
def test_a_bin_has_the_time_at_which_its_light_was_collected(made_up_kept, tmp_path, instrument, middle_s):
    """Stored times are starts of integrations, as in ExoSim 2; a pair's light is what its long read gathers after the short one's end."""
    challenge, bins, lasts_h = ch.open_challenge(made_up_kept.root), {}, {}
    for bin_h in (0.0, 2.0):
        config = {**configuration.group("detector"), "bin_seconds": {"FGS1": 3600 * bin_h, "AIRS-CH0": 3600 * bin_h}}
        store = lc.lightcurve_store(tmp_path, config)
        lc.save_light_curves(store, "a" * 64, lc.extract_visit(challenge, 7, config=config))
        curves = lc.load_light_curves(store, "a" * 64)
        bins[bin_h], lasts_h[bin_h] = curves.time_h[instrument], curves.exposure_h[instrument]
    long_starts = challenge.time_h(instrument, 2 * len(bins[0.0]))[1::2]
    np.testing.assert_allclose(3600 * (bins[0.0] - long_starts), middle_s, atol=1e-9)
    per_bin = round(2 / (bins[0.0][1] - bins[0.0][0]))
    assert per_bin > 5
    np.testing.assert_allclose(bins[2.0], [bins[0.0][k : k + per_bin].mean() for k in range(0, len(bins[0.0]), per_bin)])
    # the fit averages the transit over that long: of bins of ten minutes, taken for instants, it made 130 to 740 ppm too much or too little
    first_s, last_s = (3600 * bins[0.0][k] + sign * middle_s for k, sign in ((0, -1), (per_bin - 1, 1)))
    np.testing.assert_allclose([lasts_h[0.0] * 3600, lasts_h[2.0] * 3600], [2 * middle_s, last_s - first_s], rtol=1e-6)
