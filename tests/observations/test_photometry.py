"""Photometry of simulated visits whose truth is known, with the real detector's pixels, against the limits of physics.

SPECTRAMIND_FULL_SIZE=1 makes the visits as long as real ones.
"""

import os
import shutil
from unittest import mock

import numpy as np
import polars as pl
import pytest
from full_visit import PLANET, write_full_visit
from numpy_recipe import plain_sum

from spectramind_nb.core import configuration
from spectramind_nb.core.errors import PreflightError
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import layout, signals, writing
from spectramind_nb.observations import lightcurves as lc
from spectramind_nb.observations.airs import believed_answers, extract_airs, read_trace, trace_background, trace_width, without_motions
from spectramind_nb.observations.detector import calibrated_bins, read_calibration
from spectramind_nb.observations.photometry import extraction_weights
from spectramind_nb.physics.normalised_curves import normalise
from spectramind_nb.simulation.exposure import SECONDS
from spectramind_nb.simulation.image import pointing

CONFIG = configuration.group("detector")
PLAIN = configuration.group("detector", "plain")
FULL = bool(os.environ.get("SPECTRAMIND_FULL_SIZE"))
N_FRAMES = layout.FULL_FRAMES if FULL else {"FGS1": 10_800, "AIRS-CH0": 1_500}
BACKGROUND_S = {"FGS1": 0.1, "AIRS-CH0": 4.5}  # seconds during which a pair gathers light


@pytest.fixture(scope="module")
def noisy(sample_root, tmp_path_factory):
    return write_full_visit(tmp_path_factory.mktemp("noisy") / "root", sample_root, None, N_FRAMES, seed=0)


@pytest.fixture(scope="module")
def quiet(sample_root, tmp_path_factory):
    """The same star, detector and pointing without photon noise."""
    folder = tmp_path_factory.mktemp("quiet") / "root"
    return write_full_visit(folder, sample_root, None, N_FRAMES, seed=0, noiseless=True)


@pytest.fixture(scope="module")
def curves(noisy):
    return {name: lc.extract_visit(noisy.root, PLANET, config=c) for name, c in (("default", CONFIG), ("plain", PLAIN))}


def binned(series, bins):
    per_bin = round(len(series) / bins)
    return np.array([series[k : k + per_bin].mean(axis=0) for k in range(0, len(series), per_bin)])


def relative_residual(visit, curves, instrument):
    """White light over the truth, minus 1."""
    truth = binned(visit.light[instrument], len(curves.time_h[instrument]))
    flux = curves.flux[instrument]
    ratio = flux / truth if flux.ndim == 1 else flux.sum(axis=1) / truth.sum(axis=1)
    return ratio / ratio.mean() - 1


def noise_limit(visit, quiet, instrument, bins):
    """Relative noise of white light that photons and read noise leave to an extraction that knows everything."""
    challenge = ch.open_challenge(quiet.root)
    calibration = read_calibration(challenge, "train", PLANET, 0, instrument)
    signal = signals.open_signal(challenge.signal_path("train", PLANET, 0, instrument), instrument)
    image = calibrated_bins(signal, calibration, per_bin=signal.n_frames // 2)[..., 0]
    sky = visit.config["background_e_s"][instrument] * BACKGROUND_S[instrument]
    star, variance = np.nan_to_num(image - sky), np.nan_to_num(image, nan=1.0) + 2 * calibration.read**2 + 1
    if instrument == "AIRS-CH0":
        star, variance = star[:, layout.SCIENCE_COLUMNS], variance[:, layout.SCIENCE_COLUMNS]
    information = np.where(star > 0, star**2 / variance, 0).sum(axis=0 if instrument == "AIRS-CH0" else None)
    flux = star.sum(axis=0) if instrument == "AIRS-CH0" else star.sum()
    one_pair = np.sqrt((flux**2 / information).sum()) / flux.sum()
    return one_pair / np.sqrt(len(visit.light[instrument]) / bins)


@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_white_scatter_is_near_the_limit_and_below_plain(noisy, quiet, curves, instrument):
    found = {name: relative_residual(noisy, one, instrument).std() for name, one in curves.items()}
    limit = noise_limit(noisy, quiet, instrument, len(curves["default"].time_h[instrument]))
    print(f"{instrument}: default {found['default'] / limit:.3f}, plain {found['plain'] / limit:.3f} of the limit")
    assert found["default"] <= 1.10 * limit and found["default"] < found["plain"]


@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_estimated_noise_is_the_scatter(noisy, curves, instrument):
    one = curves["default"]
    scatter = relative_residual(noisy, one, instrument).std() * 1e6
    print(f"{instrument}: white noise {one.white_noise_ppm(instrument) / scatter:.3f} of the scatter")
    chance = 1 / np.sqrt(2 * len(one.time_h[instrument]))  # of the scatter itself
    assert one.white_noise_ppm(instrument) == pytest.approx(scatter, rel=0.05 + chance)
    if instrument == "AIRS-CH0":
        truth = binned(noisy.light[instrument], len(one.time_h[instrument]))
        ratio = one.flux[instrument] / truth
        z = (ratio / ratio.mean(axis=0) - 1).std(axis=0) / (one.noise[instrument] / one.flux[instrument]).mean(axis=0)
        assert np.median(z) == pytest.approx(1, abs=0.05) and np.percentile(np.abs(z - 1), 90) < 0.08


def depth_error_ppm(visit, curves, instrument):
    """What a fit of the white light would find too much: the transit's shape in the residual, beside a slow drift."""
    transit = binned(visit.transit[instrument], len(curves.time_h[instrument]))
    transit = transit if transit.ndim == 1 else transit.mean(axis=1)
    time = np.linspace(-1, 1, len(transit))
    shape = (1 - transit) / (1 - transit.min())
    design = np.stack([shape, *(time**k for k in range(4))]).T
    residual = relative_residual(visit, curves, instrument)
    answer = np.linalg.lstsq(design, residual, rcond=None)[0]
    error = (residual - design @ answer).std() * np.sqrt(np.linalg.inv(design.T @ design)[0, 0])
    return -answer[0] * 1e6, error * 1e6


@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_jitter_background_and_bad_pixels_do_not_bias_the_depth(quiet, instrument):
    found = {}
    for name, config in (("default", CONFIG), ("plain", PLAIN)):
        curves = lc.extract_visit(quiet.root, PLANET, config=config)
        found[name] = depth_error_ppm(quiet, curves, instrument)
        print(f"{instrument}: {name} depth {found[name][0]:.1f} +- {found[name][1]:.1f} ppm off")
    # a short visit averages over fewer pairs of jitter: what is left of it is noise of the size of the second number
    assert abs(found["default"][0]) < 5 + 2 * found["default"][1] and found["default"][1] < 12
    assert abs(found["plain"][0]) > 2 * abs(found["default"][0])


def test_an_hour_of_background_costs_a_deep_transit_nothing(tmp_path):
    """The far wings of the image, most of the background, dim with the star. An average that does not made this depth 0.18 % larger."""
    visit, instrument = write_full_visit(tmp_path / "root", None, None, N_FRAMES, seed=1, noiseless=True), "AIRS-CH0"
    config = configuration.group("detector")
    config.jitter = False
    averaged = lc.extract_visit(visit.root, PLANET, config=config).white(instrument)
    config.background_half_bins = {"FGS1": 0, "AIRS-CH0": 0}
    change = averaged - lc.extract_visit(visit.root, PLANET, config=config).white(instrument)
    transit = binned(visit.transit[instrument].mean(axis=1), len(change))
    design = np.column_stack([np.linspace(-1, 1, len(change))[:, None] ** np.arange(5), transit])
    share = np.linalg.lstsq(design, change, rcond=None)[0][-1]  # of the depth; +- 0.012 %
    print(f"{instrument}: {100 * share:.3f} % of a depth of {1 - transit.min():.4f}")
    assert transit.min() < 0.98 and abs(share) < 6e-4


def test_the_background_of_real_frames_is_the_stars_own_light(sample_root):
    challenge, name = ch.open_challenge(sample_root), "AIRS-CH0"
    planet, number = challenge.visits("train")[0]
    calibration = read_calibration(challenge, "train", planet, number, name)
    pixels = read_trace(signals.open_signal(challenge.signal_path("train", planet, number, name), name), calibration, 1, CONFIG)
    channels = pixels.good.shape[1]
    found = trace_background(pixels, np.linspace(4.1, 1.7, channels), CONFIG)
    inner = (found.slow.mean(axis=1) - found.wings)[CONFIG.edge_columns : -CONFIG.edge_columns]
    thirds = [part.mean() for part in np.array_split(inner, 3)]  # alike in all columns, where the whole differs threefold
    print(f"wings {found.wings.mean():.1f} of {found.slow.mean():.1f} electrons; what is left, by thirds: {np.round(thirds, 1)}")
    assert found.wings.mean() > 0.85 * found.slow.mean() and np.ptp(thirds) < 0.1 * found.slow.mean()


@pytest.fixture(scope="module")
def shaken(tmp_path_factory):
    """A telescope that wanders within minutes, which both instruments see, and a detector with many dead pixels."""
    wander = {"jitter": {"white_px": 0.0, "red_px": 0.1, "red_hours": 0.05}, "detector": {"dead": 0.01}}
    frames = {"FGS1": N_FRAMES["FGS1"], "AIRS-CH0": 5_000}
    return write_full_visit(tmp_path_factory.mktemp("shaken") / "root", None, wander, frames, seed=3)


@pytest.fixture(scope="module")
def wandering(tmp_path_factory):
    """A whole visit of AIRS, while the telescope wanders as it usually does."""
    frames = {"FGS1": 40_500, "AIRS-CH0": layout.FULL_FRAMES["AIRS-CH0"]}
    return write_full_visit(tmp_path_factory.mktemp("wandering") / "root", None, None, frames, seed=10)


def true_shifts(visit, bins):
    """(2, bins) rows, columns: what the simulator drew for AIRS."""
    n = "AIRS-CH0"
    shift = pointing(visit.time_h[n], SECONDS[n][1], visit.seed, PLANET, 0, n, visit.config["jitter"])
    shift = binned(shift.T, bins).T
    return shift - shift.mean(axis=1, keepdims=True)


def test_motion_across_is_no_motion_along(shaken):
    """Channels that have lost pixels answer to motion across, which leaks into the shift along if nobody tells them apart."""
    curves = lc.extract_visit(shaken.root, PLANET, config=CONFIG)
    seen = curves.pointing["AIRS-CH0"][:, 1]
    across, along = true_shifts(shaken, len(seen))
    gain, leak = np.linalg.lstsq(np.stack([along, across]).T, seen, rcond=None)[0]
    error = (seen - gain * along).std()
    print(f"a shift along is seen as {gain:.3f}, one across as {leak:+.3f}, error {error:.4f} px")
    assert abs(leak) <= 0.03 and error <= 0.015 and abs(gain) == pytest.approx(1, abs=0.1)  # 0.02 px from the channels alone


def test_light_that_a_trembling_image_loses_is_given_back():
    """Within a bin an image trembles: its wings, which weigh less, then hold more of the light, and the mean shift knows nothing of it."""
    rng, bins, pairs = np.random.default_rng(2), 300, 20
    rows, column, shake = np.arange(-8, 9), np.arange(282), rng.normal(0, 0.3, (bins, pairs))
    profile = np.exp(-0.5 * ((rows - shake[..., None]) / 1.5) ** 2).mean(axis=1).T / 1.5 / np.sqrt(2 * np.pi)  # (rows, bins)
    light = 2e4 * np.exp(-column / 100)
    still = np.exp(-0.5 * (rows / 1.5) ** 2)[:, None] / 1.5 / np.sqrt(2 * np.pi) * np.ones(282)
    weights, _ = extraction_weights(still, still * light + 400, still > -1)
    flux, across, squares = (light[:, None] * np.einsum("rc,r,rt->ct", weights, rows.astype(float) ** k, profile) for k in range(3))
    shifts = np.array([np.zeros(bins), across.sum(axis=0) / flux.sum(axis=0)])
    widths = {"seen": trace_width(flux, squares), "unseen": np.zeros(bins)}
    left = {name: without_motions(flux, shifts, width, np.zeros((2, bins)), CONFIG).sum(axis=0) for name, width in widths.items()}
    scatter = {name: white.std() / white.mean() for name, white in left.items()}
    print({name: f"{1e6 * value:.1f} ppm" for name, value in scatter.items()})
    assert scatter["seen"] < 0.1 * scatter["unseen"] and scatter["unseen"] > 100e-6


def test_answers_that_are_chance_are_not_believed_and_others_are_even_if_terms_are_nearly_alike():
    rng, channels = np.random.default_rng(3), 282
    terms = rng.normal(size=(7, 1125)) * np.array([7e-4, 5e-3, 1e-5, 4e-5, 6e-5, 1e-2, 3e-3])[:, None]
    terms[6] += 0.9 * terms[1]  # what two terms tell together no single one tells
    products, noise = terms @ terms.T, 3e-3 * rng.uniform(0.5, 2, channels)
    errors = (rng.normal(size=(channels, 7)) @ np.linalg.inv(np.linalg.cholesky(products))) * noise[:, None]
    wander = 10 * terms  # what a slow motion of that size does with answers
    effect = lambda answers: np.linalg.norm(answers @ np.linalg.cholesky(wander @ wander.T), axis=1)  # noqa: E731
    assert np.median(effect(believed_answers(errors, noise, products)) / effect(errors)) < 0.4
    true = np.zeros((channels, 7))
    true[:, 1], true[:, 5] = 3.0 * rng.normal(size=channels), 0.5
    found = believed_answers(true + errors, noise, products)
    assert np.median(effect(found - true) / effect(errors)) < 0.8 and np.median(effect(found) / effect(true)) == pytest.approx(1, abs=0.1)


def test_what_fgs1_sees_of_the_pointing_steadies_airs(shaken):
    """White light scatters by little more than its photons, and no transit is taken for motion."""
    found = {"guided": lc.extract_visit(shaken.root, PLANET, config=CONFIG)}
    nothing = np.array([0.0, 8.0]), np.zeros((2, 2))  # hours, shifts
    with mock.patch.object(lc, "extract_airs", lambda *arguments, guide: extract_airs(*arguments, guide=lambda: nothing)):
        found["alone"] = lc.extract_visit(shaken.root, PLANET, config=CONFIG)
    scatter = {name: relative_residual(shaken, one, "AIRS-CH0").std() * 1e6 for name, one in found.items()}
    photons = min(one.white_noise_ppm("AIRS-CH0") for one in found.values())  # from second differences, which slow motions hardly reach
    beyond = {name: np.sqrt(max(value**2 - photons**2, 0)) for name, value in scatter.items()}
    for name, one in found.items():
        bias, error = depth_error_ppm(shaken, one, "AIRS-CH0")
        print(f"AIRS {name}: scatter {scatter[name]:.0f} ppm, {beyond[name]:.0f} beyond photons, depth {bias:.0f} +- {error:.0f} ppm off")
    assert beyond["guided"] < 0.4 * beyond["alone"] and scatter["guided"] < 1.02 * photons
    assert abs(depth_error_ppm(shaken, found["guided"], "AIRS-CH0")[0]) < 2.5 * depth_error_ppm(shaken, found["guided"], "AIRS-CH0")[1]


@pytest.mark.slow
@pytest.mark.parametrize("instrument", layout.INSTRUMENTS)
def test_slow_means_scatter_by_what_photons_leave_of_them(wandering, instrument):
    """What a channel answers to a slow wander is measured on fast variations; chance in that answer would show in slow means alone."""
    curves, light = lc.extract_visit(wandering.root, PLANET, config=CONFIG), wandering.light[instrument]
    bins = len(curves.time_h[instrument])
    flux, noise, truth = (one.reshape(bins, -1) for one in (curves.flux[instrument], curves.noise[instrument], binned(light, bins)))
    sums = np.add.reduceat(np.eye(truth.shape[1]), np.arange(0, truth.shape[1], 47), axis=1)  # six groups of channels that belong together
    for name, add in (("white", np.ones((truth.shape[1], 1))), ("groups", sums), ("channels", np.eye(truth.shape[1]))):
        ratio, sigma = (flux @ add) / (truth @ add), np.sqrt(noise**2 @ add) / (flux @ add)
        slow = (ratio / ratio.mean(axis=0) - 1)[: bins // 50 * 50].reshape(-1, 50, add.shape[1]).mean(axis=1)
        drift = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, len(slow)), 3)
        left = slow - drift @ np.linalg.lstsq(drift, slow, rcond=None)[0]
        z = np.sqrt((left**2).sum(axis=0) / (len(slow) - 4)) / (sigma.mean(axis=0) / np.sqrt(50))
        rms = np.sqrt((z**2).mean())
        print(f"{instrument} {name}: means of 50 bins scatter by {rms:.2f} of what their noise says")
        assert rms < 1 + 2.5 / np.sqrt(2 * z.size * (len(slow) - 4)) + 0.1


def test_full_wells_do_not_bias_the_depth(sample_root, tmp_path):
    """The pixels in the middle of a bright star are full out of transit, less often in it; the same visit without a ceiling beside it."""
    bright = {"star": {"fgs1_electrons": 4.9e5}, "detector": {"saturation_e": 1e5}}
    frames = {"FGS1": N_FRAMES["FGS1"], "AIRS-CH0": 60}
    visits = {
        deep: write_full_visit(tmp_path / deep, sample_root, bright | {"switches": {"saturation": deep == "full"}}, frames, seed=1)
        for deep in ("full", "bottomless")
    }
    found, off = {}, {}
    for name, deep, share in (("left out", "full", 5e-4), ("kept", "full", 1.0), ("bottomless", "bottomless", 5e-4)):
        found[name] = lc.extract_visit(visits[deep].root, PLANET, config={**CONFIG, "full_share": share})
        bias, error = depth_error_ppm(visits[deep], found[name], "FGS1")
        off[name] = abs(bias) / error
        print(f"full pixels, {name}: depth {bias:.1f} +- {error:.1f} ppm off")
    assert off["left out"] < 2 and off["bottomless"] < 2 and off["kept"] > 6
    full = found["left out"].full_wells["FGS1"]
    assert full and all(np.hypot(row - 15, column - 15) < 4 for row, column in full)
    assert found["left out"].diagnostics["FGS1/full_wells"] == len(full) and not found["kept"].full_wells["FGS1"]
    (remark,) = lc.remarks(found["left out"])
    assert remark.startswith("wells of FGS1 pixels were full") and f"row {full[0][0]} column {full[0][1]}" in remark
    assert not any(found["bottomless"].full_wells.values())


@pytest.fixture(scope="module")
def whole(sample_root, tmp_path_factory):
    """A visit for the comparison with NumPy, which takes a minute and gigabytes for a full one."""
    n_frames = layout.FULL_FRAMES if FULL else {"FGS1": 2_000, "AIRS-CH0": 120}
    return write_full_visit(tmp_path_factory.mktemp("whole") / "root", sample_root, None, n_frames, seed=1)


def test_plain_equals_the_written_down_recipe(whole, tmp_path):
    wide = lc.extract_visit(whole.root, PLANET, config=PLAIN)
    shutil.copytree(whole.root, tmp_path / "long")
    for name in layout.INSTRUMENTS:
        path = tmp_path / f"long/train/{PLANET}/{name}_signal_0.parquet"
        writing.write_signal(path, pl.read_parquet(path).to_numpy(), long=True)
    long = lc.extract_visit(tmp_path / "long", PLANET, config=PLAIN)
    for name in layout.INSTRUMENTS:
        per_bin = round(len(whole.light[name]) / len(wide.time_h[name]))
        expected = plain_sum(whole.root, PLANET, name, wide.diagnostics, per_bin)
        for found in (wide, long):
            np.testing.assert_allclose(found.flux[name], expected, rtol=1e-12, atol=0)

    wide, long = (lc.extract_visit(root, PLANET, config=CONFIG) for root in (whole.root, tmp_path / "long"))
    for name in layout.INSTRUMENTS:  # the layout changes no bit
        assert np.array_equal(wide.flux[name], long.flux[name]) and np.array_equal(wide.noise[name], long.noise[name])
    assert wide.diagnostics == long.diagnostics


def test_plain_equals_the_written_down_recipe_on_real_frames(sample_root):
    planet = ch.open_challenge(sample_root).planets()[0]
    found = lc.extract_visit(sample_root, planet, config=PLAIN)
    for name in layout.INSTRUMENTS:
        per_bin = -(-25 // len(found.time_h[name]))
        expected = plain_sum(sample_root, planet, name, found.diagnostics, per_bin)
        np.testing.assert_allclose(found.flux[name], expected, rtol=1e-12, atol=0)


def test_saturated_stretches_get_no_weight(made_up):
    """A fifth of a visit may be without light; more, and it is refused."""
    for share, usable in ((0.1, True), (0.5, False)):
        for name in layout.INSTRUMENTS:
            raw = made_up.of[name].raw.copy()
            first = len(raw) // 4 * 2
            raw[first : first + int(share * len(raw))] = 65535
            writing.write_signal(made_up.root / f"train/7/{name}_signal_0.parquet", raw)
        if not usable:
            with pytest.raises(PreflightError, match="of the time is without light; the detector may be saturated"):
                lc.extract_visit(made_up.root, 7, config=CONFIG)
            continue
        curves = lc.extract_visit(made_up.root, 7, config=CONFIG)
        for name in layout.INSTRUMENTS:
            dark = np.isinf(curves.noise[name]).reshape(len(curves.flux[name]), -1)
            assert (dark.any(axis=1) == dark.all(axis=1)).all()
            assert dark.all(axis=1).sum() == curves.diagnostics[f"{name}/bins_without_light"] == int(share * len(dark))
            assert (np.abs(curves.white(name) - 1) < 0.03).all() and 0 < curves.white_noise_ppm(name) < 10_000
        left = {one.instrument: one.time_h for one in normalise(curves)}
        for name in layout.INSTRUMENTS:  # the fit looks at nothing that was bridged
            lit = np.isfinite(curves.noise[name].reshape(len(curves.flux[name]), -1)).all(axis=1)
            np.testing.assert_array_equal(left[name], curves.time_h[name][lit])
