import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from synthetic_visits import observe

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.errors import PreflightError, SchemaError, SpectraMindError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import wavelength_grid_um
from spectramind_nb.physics.fitting import fit, fit_store, fit_visit
from spectramind_nb.physics.noise import common_shapes, noise_spectrum, red_over_white, slow_factor
from spectramind_nb.physics.normalised_curves import cosines, normalise
from spectramind_nb.physics.visit_fit import combine_visits


@pytest.fixture(scope="module")
def realisations():
    """32 short visits with random orbits, stars, spectra and drifts, fitted."""
    done = []
    for seed in range(32):
        light_curves, star, truth = observe(seed)
        done.append((fit_visit(light_curves, star), torch.from_numpy(truth)))
    return done


def test_errors_of_depths_are_as_large_as_their_sigmas(realisations):
    z = torch.stack([(result.depth - truth) / result.sigma for result, truth in realisations])
    assert 0.95 < float((z[:, 1:] ** 2).mean() ** 0.5) < 1.05
    assert 0.7 < float((z[:, 0] ** 2).mean() ** 0.5) < 1.3  # 32 values know their rms to 12 %


def test_the_whole_covariance_is_true_not_only_its_diagonal(realisations):
    modes = []
    for result, truth in realisations:
        values, vectors = torch.linalg.eigh(result.covariance)
        modes.append(((result.depth - truth) @ vectors / values.sqrt())[[-1, -2, -3, 0, 1, 2, 100]])
    assert 0.85 < float((torch.stack(modes) ** 2).mean() ** 0.5) < 1.15


def test_white_depth_is_unbiased_and_near_the_noise(realisations):
    z = [(result.diagnostics["white_depth"] - float(truth[1:].mean())) / result.diagnostics["white_sigma"]
         for result, truth in realisations]
    assert abs(np.mean(z)) < 0.6 and 0.7 < np.sqrt(np.mean(np.square(z))) < 1.35


def test_covariance_is_symmetric_positive_definite_and_has_a_common_mode(realisations):
    for result, _ in realisations:
        assert torch.equal(result.covariance, result.covariance.T) and torch.linalg.eigvalsh(result.covariance).min() > 0
        off = result.covariance[1:, 1:] - torch.diag(result.covariance.diagonal()[1:])
        assert off.mean() > 0
        assert result.diagnostics["converged"]


def test_a_full_visit_finds_orbit_and_depth():
    light_curves, star, truth = observe(100, bins=(3375, 1125), impact=0.3, mid_time_h=4.1)
    fit = fit_visit(light_curves, star)
    assert abs(fit.geometry["mid_time_h"] - 4.1) < 0.005 and abs(fit.geometry["impact"] - 0.3) < 0.15
    assert float(fit.sigma[0]) < 150e-6 and fit.diagnostics["white_sigma"] < 100e-6
    assert float((((fit.depth - torch.from_numpy(truth)) / fit.sigma) ** 2).mean()) < 1.3
    assert 0.9 < fit.diagnostics["chi2_AIRS"] < 1.1 and 0.9 < fit.diagnostics["chi2_FGS1"] < 1.1


@pytest.mark.parametrize("mid_time_h", [0.6, 1.5, 6.2, 7.1])
def test_a_transit_cut_by_the_window_is_found_and_less_certain(mid_time_h):
    light_curves, star, truth = observe(7, mid_time_h=mid_time_h)
    fit = fit_visit(light_curves, star)
    assert fit.diagnostics["coverage"] < 0.95
    assert abs(fit.diagnostics["white_depth"] - truth[1:].mean()) < 4 * fit.diagnostics["white_sigma"]


@pytest.mark.parametrize("depth, impact, mid_time_h, period_d, a_rs, told", [
    (0.0263, 0.61, 4.11, 7.45, 10.78, {"sma": 11.79, "i": 84.93}), (0.0205, 0.55, 3.90, 4.74, 6.43, {"sma": 6.73, "i": 82.72}),
])  # fmt: skip
def test_a_deep_transit_is_found_though_the_catalogue_has_the_planet_graze_its_star(depth, impact, mid_time_h, period_d, a_rs, told):
    light_curves, star, truth = observe(0, (450, 90), depth, mid_time_h=mid_time_h, impact=impact, period_d=period_d, a_rs=a_rs)
    fit = fit_visit(light_curves, {**star, **told})
    assert fit.plausible and fit.diagnostics["chi2_FGS1"] < 1.3
    assert abs(fit.diagnostics["white_depth"] - truth[1:].mean()) < 4 * fit.diagnostics["white_sigma"]


@pytest.mark.parametrize("depth", [330e-6, 490e-6, 0.0])
def test_shallow_planets_and_none_give_finite_depths(depth):
    for seed in range(3):
        light_curves, star, truth = observe(seed, depth=depth)
        fit = fit_visit(light_curves, star)
        assert fit.depth.isfinite().all() and torch.linalg.eigvalsh(fit.covariance).min() > 0
        assert abs(fit.diagnostics["white_depth"] - truth[1:].mean()) < 4 * fit.diagnostics["white_sigma"]


@pytest.mark.parametrize("star", [None, {}, {"sma": math.nan, "P": math.nan, "i": math.nan, "Ts": math.nan}])
def test_an_unknown_star_widens_the_error_but_not_the_bias(star):
    light_curves, known, truth = observe(5, bins=(900, 300), impact=0.2)
    fit = fit_visit(light_curves, star)
    assert abs(fit.diagnostics["white_depth"] - truth[1:].mean()) < 4 * fit.diagnostics["white_sigma"]
    assert fit.diagnostics["white_sigma"] > 0.9 * fit_visit(light_curves, known).diagnostics["white_sigma"]


def test_outliers_and_broken_values_do_not_move_the_depths():
    light_curves, star, _ = observe(3)
    clean = fit_visit(light_curves, star)
    rng = np.random.default_rng(0)
    airs = light_curves.flux["AIRS-CH0"]
    airs[rng.integers(0, len(airs), 60), rng.integers(0, 282, 60)] *= 1.5
    airs[17, 100:110] = np.nan
    airs[:, 200] = np.nan
    light_curves.flux["FGS1"][[5, 333]] *= 1.3
    fit = fit_visit(light_curves, star)
    seen = torch.arange(283) != 201
    assert ((fit.depth - clean.depth)[seen].abs() < 1.0 * clean.sigma[seen]).all()
    assert fit.sigma[201] > 0.05 and fit.depth.isfinite().all()


def test_noise_that_is_larger_than_announced_is_noticed():
    light_curves, star, _ = observe(4)
    told = replace(light_curves, noise={name: noise / 2 for name, noise in light_curves.noise.items()})
    honest, fooled = fit_visit(light_curves, star), fit_visit(told, star)
    assert fooled.diagnostics["chi2_AIRS"] == pytest.approx(4 * honest.diagnostics["chi2_AIRS"], rel=0.1)
    assert torch.allclose(fooled.sigma[1:], honest.sigma[1:], rtol=0.1)


def test_red_noise_common_to_all_channels_widens_the_white_depth():
    light_curves, star, truth = observe(6, bins=(900, 300))
    before = fit_visit(light_curves, star)
    walk = np.zeros(300)
    for i, kick in enumerate(np.random.default_rng(1).normal(size=299), 1):
        walk[i] = 0.92 * walk[i - 1] + 0.4 * kick
    light_curves.flux["AIRS-CH0"][:] *= 1 + 500e-6 * walk[:, None]
    after = fit_visit(light_curves, star)
    assert after.diagnostics["red_AIRS"] > 2 * before.diagnostics["red_AIRS"]
    assert after.diagnostics["white_sigma"] > 1.5 * before.diagnostics["white_sigma"]
    assert abs(float(after.depth[1:].mean()) - truth[1:].mean()) < 3 * after.diagnostics["white_sigma"]


def test_white_depth_is_honest_under_slow_noise_that_channels_share():
    z = []
    for seed in range(40, 64):
        light_curves, star, truth = observe(seed, bins=(450, 225))
        rng, walk, fade = np.random.default_rng(seed), np.zeros(225), math.exp(-(7.5 / 225) / 0.6)  # it forgets in 0.6 h
        for i in range(1, 225):
            walk[i] = fade * walk[i - 1] + (1 - fade**2) ** 0.5 * rng.normal()
        light_curves.flux["AIRS-CH0"][:] *= 1 + 400e-6 * walk[:, None]
        fit = fit_visit(light_curves, star)
        z.append((fit.diagnostics["white_depth"] - truth[1:].mean()) / fit.diagnostics["white_sigma"])
    assert 0.6 < np.sqrt(np.mean(np.square(z))) < 1.45  # 1.75 if slow noise only had a factor


def test_slow_noise_of_single_channels_is_noticed():
    light_curves, star, _ = observe(6, bins=(900, 300))
    before = fit_visit(light_curves, star)
    rng = np.random.default_rng(3)
    walk = np.zeros((300, 282))
    for i in range(1, 300):
        walk[i] = 0.92 * walk[i - 1] + 0.4 * rng.normal(size=282)
    airs = light_curves.flux["AIRS-CH0"]
    airs *= 1 + 0.5 * walk * light_curves.noise["AIRS-CH0"] / airs.mean(0)
    after = fit_visit(light_curves, star)
    assert (after.sigma[1:] / before.sigma[1:]).median() > 1.5


def test_white_noise_is_not_taken_for_red():
    curves = normalise(observe(8)[0])[1]
    config, rng = group("fit")["red_noise"], np.random.default_rng(2)
    reds, slow = [], []
    for _ in range(30):
        residual = torch.from_numpy(rng.normal(size=curves.flux.shape)) * curves.sigma
        series = cosines(residual @ (common_shapes(curves, 3)[:1] / curves.sigma**2).T)[:, 0]
        reds.append(red_over_white(noise_spectrum(series**2, torch.ones(len(series)).double(), 7.5, config), 7.5, config["shortest_h"]))
        slow.append(slow_factor(residual, curves, 0, config["shortest_h"]))
    assert np.mean(reds) < 1.15 and max(slow) < 1.05


def test_common_shapes_are_orthonormal_and_begin_with_the_mean():
    curves = normalise(observe(8)[0])[1]
    shapes = common_shapes(curves, 3) / curves.sigma
    assert torch.allclose(shapes @ shapes.T, torch.eye(4, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(common_shapes(curves, 3)[0].abs(), (curves.sigma**-2).sum() ** -0.5 * torch.ones(282).double())


def test_the_same_visit_gives_the_same_bits():
    light_curves, star, _ = observe(9)
    first, second = fit_visit(light_curves, star), fit_visit(light_curves, star)
    assert torch.equal(first.depth, second.depth) and torch.equal(first.covariance, second.covariance)


def test_two_visits_are_better_than_one_and_as_the_normal_distribution_says():
    one, two = (fit_visit(*observe(seed)[:2]) for seed in (20, 21))
    both = combine_visits([one, two])
    assert (both.sigma < torch.minimum(one.sigma, two.sigma)).all()
    twice = combine_visits([one, one])
    # what the fit was told about star and orbit counts once, what each visit saw counts twice
    told = torch.diag(torch.cat([torch.zeros(283), torch.ones(8)])).double()
    once = torch.linalg.inv(one.joint_covariance)
    expected = torch.linalg.inv(2 * once - told)
    mean = expected @ (2 * once @ torch.cat([one.depth, one.nuisance]))
    assert torch.allclose(twice.depth, mean[:283], rtol=1e-6)
    assert torch.allclose(twice.covariance, expected[:283, :283], rtol=1e-4, atol=1e-13)
    assert (twice.sigma > 0.999 * one.sigma / 2**0.5).all() and (twice.sigma < one.sigma).all()
    assert combine_visits([one]) is one


def test_fits_of_before_fits_kept_their_priors_are_combined_as_those_of_one_star():
    light_curves, star, _ = observe(20)
    one, two = fit_visit(light_curves, star), fit_visit(observe(21)[0], star)
    both, before = combine_visits([one, two]), combine_visits([replace(fit, prior=None) for fit in (one, two)])
    assert torch.equal(both.depth, before.depth) and torch.equal(both.covariance, before.covariance)
    assert torch.equal(one.prior, two.prior) and torch.equal(both.prior, one.prior) and one.prior.shape == (2, 8) and before.prior is None


def test_visits_of_different_planets_are_refused():
    fit = fit_visit(*observe(20)[:2])
    with pytest.raises(SchemaError, match="2 planets") as error:
        combine_visits([fit, replace(fit, planet_id=2)])
    assert error.value.exit_code == 10


def test_curves_that_do_not_fit_together_are_named():
    light_curves, star, _ = observe(1, planet_id=77)
    light_curves.time_h["AIRS-CH0"] = light_curves.time_h["AIRS-CH0"][:-1]
    with pytest.raises(SchemaError, match="planet 77, AIRS-CH0"):
        fit_visit(light_curves, star)


def test_driver_fits_every_visit_once_and_reports_the_one_that_fails(short_root, workspace, monkeypatch):
    root = workspace / "root"
    shutil.copytree(short_root, root)
    challenge = open_challenge(root)
    visits = challenge.visits("test")
    first = fit(challenge, "test", store_root=workspace / "cache", workers=2)
    assert list(first) == visits and all(result.depth.shape == (283,) for result in first.values())

    monkeypatch.setattr("spectramind_nb.physics.fitting.fit_visit", lambda *_: pytest.fail("the store was not used"))
    again = fit(challenge, "test", store_root=workspace / "cache", workers=1)
    for visit in visits:
        assert torch.equal(first[visit].depth, again[visit].depth)
        assert torch.equal(first[visit].covariance, again[visit].covariance)
        assert first[visit].diagnostics == again[visit].diagnostics and first[visit].geometry == again[visit].geometry
        assert torch.equal(first[visit].prior, again[visit].prior)
    monkeypatch.undo()

    challenge.signal_path("test", *visits[0], "FGS1").write_bytes(b"no parquet")
    damaged = fit(open_challenge(root), "test", store_root=workspace / "cache")
    assert isinstance(damaged[visits[0]], SpectraMindError) and "FGS1" in str(damaged[visits[0]])
    assert torch.equal(damaged[visits[1]].depth, first[visits[1]].depth)


def test_another_configuration_is_another_fit(tmp_path):
    changed = OmegaConf.merge(group("fit"), {"depth_width": 0.2})
    keys = {fit_store(tmp_path, config).key({"light_curves": "k"}) for config in (group("fit"), changed)}
    assert len(keys) == 2


def test_when_no_visit_can_be_fitted_the_driver_says_why(sample_root, tmp_path):
    with pytest.raises(PreflightError, match="1 time bins are too few to fit a transit"):
        fit(open_challenge(sample_root), store_root=tmp_path)  # 50 frames last ten seconds


@pytest.mark.parametrize("along", ["columns", "wavelength"])
def test_a_drift_that_is_cubic_along_columns_or_wavelength_bends_no_spectrum(along):
    """Columns are not evenly spaced in wavelength: what is cubic along one is not along the other."""
    curves, star, _ = observe(5, bins=(300, 180), impact=0.3, mid_time_h=3.8)
    um = wavelength_grid_um()
    curves = replace(curves, wavelengths_um=um)
    place = np.linspace(-1, 1, 282) if along == "columns" else (2 * um[1:] - um[1] - um[-1]) / (um[-1] - um[1])
    cubic, phase = np.polynomial.chebyshev.chebval(place, [1, 0.2, 0, 0.5]), curves.time_h["AIRS-CH0"] / 3.75 - 1
    drifting = curves.flux["AIRS-CH0"] * (1 + 6e-3 * (2 * phase**2 - 1)[:, None] * cubic)
    calm, moved = fit_visit(curves, star), fit_visit(replace(curves, flux={**curves.flux, "AIRS-CH0": drifting}), star)
    waves = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, 282), 5)[:, 1:]
    weight = 1 / calm.sigma.numpy()[1:, None] ** 2
    read = np.linalg.solve(waves.T @ (weight * waves), (weight * waves).T)
    change, covariance = read @ (moved.depth - calm.depth).numpy()[1:], read @ moved.covariance.numpy()[1:, 1:] @ read.T
    assert np.abs(change / np.sqrt(np.diag(covariance))).max() < 1.2, "of a drift six times the usual one; 1.8 with one degree less"
