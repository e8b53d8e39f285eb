"""The detector chain against the organisers' result, against plain NumPy and against astropy."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest
from astropy.stats import sigma_clip
from made_up_visit import as_2024, write_made_up

from spectramind_nb.core import workforce
from spectramind_nb.core.errors import NonFiniteError
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import detector, detector_kernels, layout, signals, writing


def numpy_chain(raw, product, integration_s):
    """The recipe step by step, as the organisers write it."""
    x = raw / 0.4369 - 1000.0
    x = sum(product.linear_corr[k] * x**k for k in range(6))
    x[::2] -= product.dark * integration_s[0]
    x[1::2] -= product.dark * integration_s[1]
    x = (x[1::2] - x[::2]) / product.flat
    bad = product.dead | sigma_clip(product.dark, sigma=5, maxiters=5).mask
    x[:, bad] = np.nan
    return x


@pytest.mark.parametrize(("instrument", "name"), [("AIRS-CH0", "airs"), ("FGS1", "fgs1")])
def test_equals_the_organisers_result_on_real_frames(sample_root, instrument, name):
    expected = np.load(sample_root.parent / "expected_calibrated.npz")
    planet = ch.open_challenge(sample_root).planets()[0]
    found = detector.calibrate_frames(sample_root, planet, 0, instrument)
    assert found.dtype == np.float64 and found.shape == expected[f"{name}_cds"].shape
    assert np.array_equal(np.isnan(found), np.broadcast_to(expected[f"{name}_mask"], found.shape))
    good = ~np.isnan(found)
    np.testing.assert_allclose(found[good], expected[f"{name}_cds"][good], rtol=1e-12, atol=0)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(("instrument", "integration_s"), [("FGS1", (0.1, 0.2)), ("AIRS-CH0", (0.1, 4.6))])
def test_equals_plain_numpy_in_both_layouts(tmp_path, long, instrument, integration_s):
    made_up = write_made_up(tmp_path, long=long)
    expected = numpy_chain(made_up.of[instrument].raw, made_up.of[instrument], integration_s)
    found = detector.calibrate_frames(tmp_path, 7, 0, instrument)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(
        found, expected, rtol=1e-12, atol=1e-9
    )  # 1e-9 of 1600 electrons: what is left after subtraction


def test_2024_layout_gives_the_same_frames(tmp_path):
    write_made_up(tmp_path)
    before = detector.calibrate_frames(tmp_path, 7)
    assert np.array_equal(before, detector.calibrate_frames(as_2024(tmp_path), 7), equal_nan=True)


@pytest.mark.parametrize("per_bin", [1, 3, 7, 512, 1000])
def test_binning_is_the_mean_of_pairs(per_bin):
    rng, pairs = np.random.default_rng(0), 1100  # more than a block of the kernel
    raw = rng.integers(0, 60000, (2 * pairs, 4), dtype=np.uint16)
    frames = signals.Frames(list(np.ascontiguousarray(raw.T)), np.arange(4), 2 * pairs, (2, 2))
    linear_corr = np.zeros((6, 2, 2))
    linear_corr[1] = 1
    mask = np.array([[False, True], [False, False]])
    calibration = detector.Calibration(
        np.zeros((2, 2)), np.full((2, 2), 2.0), np.ones((2, 2)), linear_corr, mask, 0.5, -10.0, (0.1, 0.2)
    )
    found = detector.calibrated_bins(frames, calibration, per_bin)
    pair = (raw[1::2].astype(float) - raw[::2]) / 0.5 / 2.0
    expected = np.array([pair[k : k + per_bin].mean(axis=0) for k in range(0, pairs, per_bin)]).T.reshape(2, 2, -1)
    expected[mask] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


def test_a_cosmic_ray_strikes_few_pixels_and_a_jerk_of_the_telescope_many():
    rng, pairs = np.random.default_rng(1), 700  # more than a block of the kernel
    light = 5000 + rng.normal(0, 20, (pairs, 64))
    light[600, 7] += 3000
    light[650, 20:34] += 400  # the flank of an image that has moved
    light[660] = 0  # a frame that was lost
    counts = np.empty((2 * pairs, 64), np.uint16)
    counts[::2], counts[1::2] = 600, np.round(600 + light)
    frames, plane = signals.Frames(list(np.ascontiguousarray(counts.T)), np.arange(64), 2 * pairs, (8, 8)), np.ones((8, 8))
    linear = np.eye(6)[1][:, None, None] * plane
    chain = detector.Calibration(0 * plane, 2 * plane, plane, linear, plane < 0, 1.0, 0.0, (0.1, 4.6))
    kept, cleaned = (detector.calibrated_bins(frames, chain, 5, sigma).reshape(64, -1) for sigma in (0.0, 6.0))
    changed = kept != cleaned
    assert changed[:, 132].all() and np.allclose(cleaned[:, 132], 2500, atol=20) and np.allclose(kept[:, 132], 2000, atol=20)
    assert np.argwhere(np.delete(changed, 132, axis=1)).tolist() == [[7, 120]]
    assert cleaned[7, 120] == pytest.approx(2500, abs=20) and kept[7, 120] == pytest.approx(2800, abs=20)


def steady(light):
    """Frames and products of an ideal detector that sees (pixels, pairs) electrons."""
    n, pairs = light.shape
    series = np.stack([np.full(light.shape, 600), np.round(600 + light)], axis=-1).reshape(n, -1).astype(np.uint16)
    one = np.ones((1, n))
    calibration = detector.Calibration(0 * one, one, one, np.eye(6)[1][:, None, None] * one, one < 0, 1.0, 0.0, (0.1, 4.6))
    return signals.Frames(list(series), np.arange(n), 2 * pairs, (1, n)), calibration


@pytest.mark.parametrize("per_bin, pairs", [(5, 5625), (1, 1030), (50, 1501), (600, 1805), (5, 80)])
def test_cosmic_rays_are_taken_out_of_every_pair(per_bin, pairs):
    """Also of those at either end of a visit, and of those where one stretch of the kernel ends and the next begins."""
    struck = np.unique([*range(60), *range(500, 530), *range(pairs - 60, pairs), *range(0, pairs, 83)])
    struck = struck[struck < pairs]
    light = 5000 + np.random.default_rng(4).normal(0, 20, (len(struck), pairs))
    hit = light.copy()
    hit[np.arange(len(struck)), struck] += np.where(struck % 2, 4000, -4000)
    clean, found = (detector.calibrated_sets(*steady(x), [(np.arange(len(x)), per_bin)], 6.0)[0] for x in (light, hit))
    in_bin = np.minimum(per_bin, pairs - struck // per_bin * per_bin)
    assert (abs(found - clean)[np.arange(len(struck)), struck // per_bin] * in_bin < 120).all()
    assert (found != clean).sum(axis=1).max() == 1


def test_noise_is_taken_for_cosmic_rays_equally_seldom_everywhere(monkeypatch):
    struck, pairs = [], 5625  # a visit of AIRS
    monkeypatch.setattr(detector, "take_out_strikes", lambda values, strikes, per_bin, pairs: struck.extend(strikes[:, 1]))
    frames, calibration = steady(5000 + np.random.default_rng(5).normal(0, 50, (200, pairs)))
    detector.calibrated_sets(frames, calibration, [(np.arange(200), 5)], 6.0)
    assert len(struck) <= 3
    detector.calibrated_sets(frames, calibration, [(np.arange(200), 5)], 3.0)
    per_pair = np.bincount(np.array(struck, int), minlength=pairs)
    some = np.r_[0, 508:512, 513:517, pairs - 64 : pairs]
    expected = per_pair.mean() * len(some)
    assert expected > 40 and abs(per_pair[some].sum() - expected) < 5 * np.sqrt(expected)


def test_result_does_not_depend_on_where_a_file_is_cut(tmp_path, monkeypatch):
    pairs = 1533
    light = 5000 + np.random.default_rng(6).normal(0, 20, (pairs, 32, 32))
    light[[0, 509, 510, 511, 1019, 1020, 1021, 1531, 1532], np.arange(9), 7] += 4000
    raw = np.full((2 * pairs, 32, 32), 600, np.uint16)
    raw[1::2] += np.round(light).astype(np.uint16)
    plane = np.ones((32, 32))
    chain = detector.Calibration(0 * plane, plane, plane, np.eye(6)[1][:, None, None] * plane, plane < 0, 1.0, 0.0, (0.1, 0.2))
    found = []
    for long in (False, True):
        writing.write_signal(tmp_path / "frames.parquet", raw, long=long)
        signal = replace(signals.open_signal(tmp_path / "frames.parquet", "FGS1"), largest_group=1)
        for piece_bytes, threads in ((48_000_000, 1), (1_500_000, 1), (1_500_000, 2)):
            monkeypatch.setattr(signals, "_PIECE_BYTES", piece_bytes)
            sets = [(np.arange(0, 1024, 3), 1), (np.arange(7, 300, 32), 5)]
            found.append(np.concatenate([values.ravel() for values in detector.calibrated_sets(signal, chain, sets, 6.0, threads)]))
    assert max(map(np.max, found)) < 5200 and all(np.array_equal(found[0], other) for other in found)


def test_result_does_not_depend_on_threads(made_up_kept, monkeypatch):
    monkeypatch.setattr(signals, "_PIECE_BYTES", 1_500_000)
    found = []
    for cores in (1, 3):  # no thread of Numba's: its kernels have none, and asking for them changes those of torch for all later tests
        monkeypatch.setattr(workforce, "cpu_count", lambda: cores)
        found.append(detector.calibrate_frames(made_up_kept.root, 7))
    assert np.array_equal(*found, equal_nan=True)


def test_one_compiled_signature(made_up_kept):
    for instrument in layout.INSTRUMENTS:
        detector.calibrate_frames(made_up_kept.root, 7, instrument=instrument)
    assert len(detector_kernels.calibrate_counts.signatures) == 1


@pytest.mark.parametrize("seed", range(5))
def test_hot_pixels_are_astropys(seed):
    rng = np.random.default_rng(seed)
    dark = rng.standard_t(2, (32, 356))
    for sigma, iterations in ((5, 5), (3, 2), (4, 1)):
        expected = sigma_clip(dark, sigma=sigma, maxiters=iterations).mask
        assert np.array_equal(detector.hot_pixels(dark, sigma, iterations), expected) and expected.any()


def test_edges_of_the_dark_frame():
    assert not detector.hot_pixels(np.full((4, 4), 0.01)).any()
    assert detector.hot_pixels(np.full((4, 4), np.nan)).all()


@pytest.mark.parametrize("product", ["dark", "flat", "read", "linear_corr"])
def test_a_product_of_nan_is_named(made_up, product):
    path = made_up.root / f"train/7/FGS1_calibration_0/{product}.parquet"
    pl.read_parquet(path).select(pl.all() * float("nan")).write_parquet(path)
    with pytest.raises(NonFiniteError, match=f"{product} has no usable value") as caught:
        detector.calibrate_frames(made_up.root, 7, instrument="FGS1")
    assert caught.value.exit_code == 11 and path.name in str(caught.value)


def test_a_pixel_that_hardly_answers_to_light_is_not_used(made_up):
    """A flat of 0.003 that the dead map does not name made the noise of a channel eleven times as large."""
    path = made_up.root / "train/7/FGS1_calibration_0/flat.parquet"
    flat = pl.read_parquet(path).to_numpy().copy()
    flat[3, 4:8] = 0.003, -0.01, np.inf, np.nan
    pl.DataFrame(flat, schema=pl.read_parquet(path).schema).write_parquet(path)
    assert detector.read_calibration(ch.open_challenge(made_up.root), "train", 7, instrument="FGS1").mask[3, 4:8].all()


def test_all_pixels_dead_is_refused(made_up):
    path = made_up.root / "train/7/FGS1_calibration_0/dead.parquet"
    pl.read_parquet(path).select(pl.all() | True).write_parquet(path)
    with pytest.raises(NonFiniteError, match="no usable pixel"):
        detector.calibrate_frames(made_up.root, 7, instrument="FGS1")


READ, GAIN, OFFSET = 13.0, 0.4369, -1000.0
WITH_PLATEAU = (32768, 5e-4)  # what configs/detector/default.yaml has


def long_reads(level, well, pairs, noise_counts, seed=0):
    """Counts of one pixel's long reads, as ExoSim 2 makes them: photons and jitter, the well, then noise, then the converter."""
    rng = np.random.default_rng(seed)
    light = rng.poisson(level * (1 + 0.005 * rng.standard_normal(pairs)))
    return np.floor((np.minimum(light, well) - OFFSET) * GAIN + noise_counts * rng.standard_normal(pairs))


def left_out(long, read=READ):
    """Whether the chain leaves out each of these pixels, (n, pairs) counts of their long reads."""
    n, pairs = long.shape
    series = np.stack([np.full(long.shape, 900), long], axis=-1).reshape(n, -1).astype(np.uint16)
    one = np.ones((1, n))
    calibration = detector.Calibration(
        0 * one, one, read * one, np.eye(6)[1][:, None, None] * one, one < 0, GAIN, OFFSET, (0.1, 0.2)
    )
    frames = signals.Frames(list(series), np.arange(n), 2 * pairs, (1, n))
    (values,) = detector.calibrated_sets(frames, calibration, [(np.arange(n), 1)], full=WITH_PLATEAU)
    assert np.array_equal(np.isnan(values[:, 0]), np.isnan(values).all(axis=1))
    return np.isnan(values[:, 0])


@pytest.mark.parametrize("noise_counts", [0.0, 0.3, 1.0, 5.7, 20.0, 40.0])
def test_a_full_well_is_a_plateau_as_wide_as_its_noise(noise_counts):
    """Always full; full in a third of the reads; both as long as a visit of AIRS."""
    always, often = (long_reads(level, 1e5, 5625, noise_counts) for level in (1.2e5, 0.9975e5))
    assert left_out(np.array([always, often])).all()


@pytest.mark.parametrize("pairs, share", [(5625, 0.02), (67_500, 0.01)])
@pytest.mark.parametrize("well", [8e4, 1e5, 1.4e5])
def test_a_pixel_that_is_seldom_full_is_found(pairs, share, well):
    """Full in so many of the reads only, with the read noise of a real pixel upon it."""
    z = NormalDist().inv_cdf(1 - share)
    level = well * (1 - z * np.sqrt(0.005**2 + 1 / well))
    assert left_out(np.array([long_reads(level, well, pairs, 5.7, seed) for seed in range(3)])).all()


def test_healthy_pixels_are_kept():
    """Whatever else makes their light vary: jitter, a transit, drift, cosmic rays, a star that is steadiest where it is brightest."""
    rng, n, kept = np.random.default_rng(3), 150, 0
    for pairs in (40, 360, 2250):
        time = np.linspace(-1, 1, pairs)
        shapes = [
            np.ones(pairs), 1 - 0.02 * (abs(time) < 0.4), 1 + 0.002 * time, 1 - 0.01 * abs(np.sin(40 * time)),
            1 - 0.1 * (0.1 * rng.standard_normal(pairs)) ** 2, 1 + 0.02 * rng.standard_normal(pairs),
        ]  # fmt: skip
        for shape in shapes:
            for bend in (1.0, 0.85):  # a response that bends makes photon noise narrower
                light = 1.1e5 * shape
                electrons = light + bend * np.sqrt(light) * rng.standard_normal((n, pairs))
                electrons += READ * rng.standard_normal((n, pairs)) + 2000 * (rng.random((n, pairs)) < 1e-4)
                assert not left_out(np.floor((electrons - OFFSET) * GAIN)).any()
                kept += n
    assert kept > 5000


def test_full_share_decides_and_one_is_never():
    often = long_reads(0.9975e5, 1e5, 1000, 5.7)
    tops = np.zeros((1, 2, 5))
    series = np.column_stack([np.full(1000, 900), often]).astype(np.uint16).ravel()
    for k in range(2):
        detector_kernels._note_top(series, 500 * k, 500 * (k + 1), 32768, GAIN, OFFSET, READ, tops[0, k])
    found = [detector.full_wells(tops, np.array([READ]), GAIN, share)[0] for share in (5e-4, 0.1, 0.9, 1.0)]
    assert found == [True, True, False, False]
    always = np.array([[[500.0, 1e5, 170.0, 490.0, 499.0]]])  # as quiet as read noise
    assert detector.full_wells(always, np.array([READ]), GAIN, 0.9)[0] and not detector.full_wells(always, np.array([READ]), GAIN, 1.0)[0]
