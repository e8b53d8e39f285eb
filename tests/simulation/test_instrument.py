"""Simulated frames: noise, non-linearity, saturation and cosmic rays by plain statistics."""

import math
import shutil

import numpy as np
import pytest

from spectramind_nb.core.errors import DataMissingError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import PRODUCTS
from spectramind_nb.observations.signals import read_plane
from spectramind_nb.simulation import exposure_kernels
from spectramind_nb.simulation.exposure import expose
from spectramind_nb.simulation.exposure_kernels import fill_normals, raw_response
from spectramind_nb.simulation.image import image_expansion, light_on_pixels, pointing
from spectramind_nb.simulation.pixels import Detector, calibration_digest, draw_detector, pixels_and_files
from spectramind_nb.simulation.planets import star_electrons
from spectramind_nb.simulation.settings import settings

PAIRS = 3000
OFF = {
    "jitter": {"white_px": 0, "red_px": 0},
    "background_e_s": {"FGS1": 0, "AIRS-CH0": 0},
    "noise": {"photon": 0, "cosmic_rays_per_pixel_s": 0},
}
NOTHING, ALL = np.zeros((32, 32)), np.ones((32, 32))
PERFECT = Detector(NOTHING, NOTHING.astype(bool), ALL, NOTHING, np.eye(6)[1][:, None, None] * ALL)


def frames(config, detector=PERFECT, level=2e5, pairs=PAIRS, key=1, shift=None, digitise=False):
    """FGS1 electrons (rows, columns, pairs, 2) before any correction."""
    shift = np.zeros((2, pairs)) if shift is None else shift
    raw = expose("FGS1", np.full(pairs, level), np.ones(356), detector, shift, (0, 0), config, (key, 1), digitise)
    return (raw / config["adc"]["gain"] + config["adc"]["offset"]).reshape(32, 32, pairs, 2)


def test_without_noise_the_image_is_the_point_spread_function():
    config = settings(OFF)
    seen = frames(config, pairs=3)
    image = 2e5 * light_on_pixels("FGS1", (0, 0), config["jitter"]["intra_pixel"], None)
    np.testing.assert_allclose(seen[..., 0], np.repeat(image[..., None], 3, 2), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(seen[..., 1], 2 * seen[..., 0], rtol=1e-12, atol=1e-9)


def test_photon_noise_is_shared_by_the_reads_of_a_ramp():
    seen = frames(settings(OFF | {"noise": {"photon": 1, "cosmic_rays_per_pixel_s": 0}}), level=4e5)
    bright = seen[seen[..., 0].mean(-1) > 3000]
    mean = bright[..., 0].mean(-1)
    assert np.mean(bright[..., 0].var(-1) / mean) == pytest.approx(1, abs=0.03)
    assert np.mean(bright[..., 1].var(-1) / mean) == pytest.approx(2, abs=0.06)
    assert np.mean((bright[..., 1] - bright[..., 0]).var(-1) / mean) == pytest.approx(1, abs=0.03)
    shared = [np.cov(first, second)[0, 1] for first, second in zip(bright[..., 0], bright[..., 1])]
    assert np.mean(shared / mean) == pytest.approx(1, abs=0.04)
    assert len(bright) > 10


def test_read_noise_is_fresh_in_each_read():
    detector = Detector(PERFECT.dark, PERFECT.dead, PERFECT.flat, np.full((32, 32), 14.0), PERFECT.linear_corr)
    seen = frames(settings(OFF), detector, level=0.0)
    assert seen.std() == pytest.approx(14.0, rel=0.002)
    assert (seen[..., 1] - seen[..., 0]).std() == pytest.approx(14.0 * np.sqrt(2), rel=0.003)
    neighbours = np.corrcoef(seen[10, :16, :, 1])
    assert abs(neighbours - np.eye(16)).max() < 0.08  # pixels have streams of their own


def test_linear_corr_straightens_the_frames():
    drawn = draw_detector("FGS1", 0, 1, 0, settings()["detector"])
    detector = Detector(PERFECT.dark, PERFECT.dead, PERFECT.flat, PERFECT.read, drawn.linear_corr)
    config = settings(OFF)
    seen, straight = frames(config, detector, pairs=2, level=3e5), frames(config, pairs=2, level=3e5)
    corrected = sum(c[..., None, None] * seen**k for k, c in enumerate(drawn.linear_corr))
    assert abs(seen - straight).max() > 100
    np.testing.assert_allclose(corrected, straight, atol=1e-6, rtol=1e-9)


@pytest.mark.parametrize("bend, most", [(0.0, 1.4e5), (5e-6, 1.4e5), (-5e-6, 3e4)])  # the real sample's extremes
def test_non_linearity_is_inverted(bend, most):
    electrons = np.linspace(0.0, most, 1000)
    raw, slope = np.empty_like(electrons), np.empty_like(electrons)
    c = np.array([0.14, 1.0, bend, 1.18e-11, -6e-17, 1.34e-22])
    raw_response(electrons, raw, slope, len(raw), c, 2e5)
    back = np.polynomial.polynomial.polyval(raw, c)
    assert abs(back - electrons).max() < 1e-4
    np.testing.assert_allclose(slope, 1 / np.polynomial.polynomial.polyval(raw, c[1:] * np.arange(1, 6)), rtol=1e-4)


def test_full_well_and_converter_bound_the_counts():
    config = settings(OFF)
    assert frames(config, level=5e6, pairs=2).max() == pytest.approx(config["detector"]["saturation_e"])
    low = settings(OFF | {"adc": {"gain": 0.4369, "offset": 50.0}})
    raw = expose("FGS1", np.zeros(2), np.ones(356), PERFECT, np.zeros((2, 2)), (0, 0), low, (1, 1))
    assert raw.dtype == np.uint16 and raw.max() == 0


PHOTONS = OFF | {"noise": {"photon": 1, "cosmic_rays_per_pixel_s": 0}}
READING = Detector(PERFECT.dark, PERFECT.dead, PERFECT.flat, 14.0 * ALL, PERFECT.linear_corr)


def drifting(drift, config):
    """As `frames`, with a gain that drifts."""
    still = np.zeros((2, PAIRS))
    raw = expose("FGS1", np.full(PAIRS, 4e5), np.ones(356), READING, still, (0, 0), config, (1, 1), False, drift)
    return (raw / config["adc"]["gain"] + config["adc"]["offset"]).reshape(32, 32, PAIRS, 2)


def test_a_full_well_is_a_plateau_as_wide_as_the_read_noise():
    """Charge stops, then comes read noise, then the gain, then the converter: ExoSim's order."""
    config = settings(PHOTONS | {"detector": {"saturation_e": 3e4}})
    full = frames(settings(PHOTONS | {"detector": {"saturation_e": 0}}), READING, 4e5)[..., 1].min(axis=-1) > 3e4
    assert full.sum() > 3
    plateau = frames(config, READING, 4e5)[full, :, 1]
    assert abs(plateau.mean() - 3e4) < 1 and plateau.std() == pytest.approx(14.0, rel=0.02)
    assert abs(np.corrcoef(plateau[:2])[0, 1]) < 0.08
    drift = np.linspace(0.99, 1.01, PAIRS)
    np.testing.assert_allclose(drifting(drift, config), frames(config, READING, 4e5) * drift[:, None], atol=1e-9)


def test_a_well_that_is_never_full_changes_nothing():
    free, far, near = (settings(PHOTONS | {"detector": {"saturation_e": well}}) for well in (0, 1.4e5, 9.03e4))
    seen = frames(free, READING, 4e5)
    assert 8.9e4 < seen.max() < 9.03e4 and np.array_equal(frames(far, READING, 4e5), seen)
    drawn_apart = frames(near, READING, 4e5)[seen[..., 1].mean(axis=-1) > 8.8e4]  # photons and read noise, where a well may be full
    mean, variance = drawn_apart.mean(axis=1), drawn_apart.var(axis=1)
    assert not np.isin(drawn_apart, seen).any()
    np.testing.assert_allclose(variance / (mean + 14.0**2), 1, atol=0.1)
    assert np.cov(*drawn_apart[0].T)[0, 1] / mean[0, 0] == pytest.approx(1, abs=0.1)


def test_dark_current_and_flat_act_on_their_pixels():
    dark, flat = np.zeros((32, 32)), np.ones((32, 32))
    dark[3, 4], flat[15, 15] = 50.0, 0.5
    config = settings(OFF)
    spotted = Detector(dark, PERFECT.dead, flat, PERFECT.read, PERFECT.linear_corr)
    seen, perfect = frames(config, spotted, pairs=1), frames(config, pairs=1)
    difference = (seen - perfect)[..., 0, :]
    assert difference[3, 4] == pytest.approx([5.0, 10.0]) and seen[15, 15, 0] == pytest.approx(perfect[15, 15, 0] / 2)
    assert np.count_nonzero(abs(difference).sum(-1) > 1e-9) == 2


def test_cosmic_rays_come_at_their_rate():
    rate = 2e-3
    config = settings(OFF | {"noise": {"photon": 0, "cosmic_rays_per_pixel_s": rate, "cosmic_ray_electrons": 3000.0}})
    seen = frames(config, level=0.0)
    expected = rate * 0.2 * PAIRS * 1024
    assert abs(np.count_nonzero(seen[..., 1] > 100) - expected) < 5 * np.sqrt(expected)
    early = np.count_nonzero(seen[..., 0] > 100)  # half strike before the first read
    assert abs(early - expected / 2) < 5 * np.sqrt(expected)
    assert 2000 < np.median(seen[seen > 100]) < 4500


def test_cosmic_rays_leave_the_noise_as_it_was():
    on, off = settings(), settings({"switches": {"cosmic_rays": False}})
    on["noise"]["cosmic_rays_per_pixel_s"] = 1e-3
    hit = frames(on, level=0.0) - frames(off, level=0.0)
    assert 0 < np.count_nonzero(hit) < 0.01 * hit.size and hit[hit != 0].min() > 100


def test_jitter_moves_the_image_by_what_pointing_says():
    config = settings(OFF | {"jitter": {"white_px": 0.1, "red_px": 0.0, "intra_pixel": 0.0}})
    shift = pointing(np.linspace(0, 7.5, 500), 0.1, 0, 1, 0, "FGS1", config["jitter"])
    cds = np.diff(frames(config, pairs=500, shift=shift), axis=-1)[..., 0]
    rows, columns = np.indices((32, 32))
    for axis, where in enumerate((rows, columns)):
        centroid = (cds * where[..., None]).sum((0, 1)) / cds.sum((0, 1))
        slope = np.polyfit(shift[axis], centroid, 1)[0]
        assert slope == pytest.approx(1, abs=0.1)


def test_expansion_is_the_image_for_small_shifts():
    _, electrons = star_electrons(5800.0, 1.0, settings()["star"])
    for instrument in ("FGS1", "AIRS-CH0"):
        expansion = image_expansion(instrument, (0, 0), 0.2, electrons)
        dy, dx = 0.05, -0.04
        near = np.tensordot([1, dy, dx, dy**2, dx**2, dx * dy], expansion, 1)
        exact = light_on_pixels(instrument, (dy, dx), 0.2, electrons)
        bright = exact > 0.05
        np.testing.assert_allclose(near[bright], exact[bright], rtol=0.02)


def test_normal_deviates_are_normal_to_the_far_tail():
    n = 4_000_000
    x, scratch = np.empty(n), np.empty(n, dtype=np.uint64)
    tables = exposure_kernels.LAYER, exposure_kernels.DENSITY, exposure_kernels.EDGE
    fill_normals(x, scratch, n, np.uint64(11), np.uint64(0x9E3779B97F4A7C15), *tables)
    for limit in (0.5, 1, 2, 3, 3.6, 3.7, 4, 4.5):  # the ziggurat's tail begins at 3.65
        share = math.erfc(limit / math.sqrt(2))
        assert abs((abs(x) > limit).sum() - n * share) < 4 * math.sqrt(n * share), limit
    z = [x.mean() * n**0.5, (x.var() - 1) * (n / 2) ** 0.5, ((x**4).mean() - 3) * (n / 96) ** 0.5]
    assert max(map(abs, [*z, n**0.5 * (x[1:] * x[:-1]).mean()])) < 4


def test_frames_depend_on_the_key_only():
    config = settings()
    detector = draw_detector("FGS1", 0, 1, 0, config["detector"])
    one, same, other = (frames(config, detector, pairs=20, key=key, digitise=True) for key in (5, 5, 6))
    assert (one == same).all() and (one != other).mean() > 0.8


def test_files_are_near_the_pixels_but_not_exact():
    config = settings()
    for instrument in ("FGS1", "AIRS-CH0"):
        pixels, files = pixels_and_files(instrument, 0, 1, 0, config)
        for name, expected in config["calibration"]["errors"].items():
            off = getattr(files, name) / getattr(pixels, name) - 1
            assert off.std() == pytest.approx(expected, rel=0.1), name
        assert (files.dead == pixels.dead).all() and (files.linear_corr == pixels.linear_corr).all()
        exact, same = pixels_and_files(instrument, 0, 1, 0, settings({"switches": {"calibration_errors": False}}))
        assert all((getattr(exact, name) == getattr(same, name)).all() for name in PRODUCTS)


def test_a_real_calibration_set_is_used_as_it_is(sample_root):
    config = settings({"calibration": {"folder": str(sample_root)}})
    challenge = open_challenge(sample_root)
    pixels, files = pixels_and_files("AIRS-CH0", 0, 1, 0, config)
    for name in PRODUCTS:
        path = challenge.calibration_path("train", 342072318, 0, "AIRS-CH0", name)
        stored = read_plane(path, (192, 356) if name == "linear_corr" else (32, 356))
        assert (getattr(files, name).reshape(stored.shape) == stored).all(), name
    assert 5e-4 < np.median(abs(pixels.flat / files.flat - 1)) < 1e-3
    assert calibration_digest(sample_root) == calibration_digest(str(sample_root) + "/")


def test_a_missing_calibration_file_is_named(sample_root, tmp_path):
    shutil.copytree(sample_root, tmp_path / "sample")
    (tmp_path / "sample/train/342072318/FGS1_calibration_0/flat.parquet").unlink()
    with pytest.raises(DataMissingError, match="flat.parquet is missing"):
        calibration_digest(tmp_path / "sample")
