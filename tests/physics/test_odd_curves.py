"""Light curves that cannot be fitted are refused in one sentence, and those that can be fitted in spite of it all are fitted."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_visits import observe

from spectramind_nb.core.errors import NonFiniteError, SchemaError
from spectramind_nb.observations.lightcurves import LightCurves
from spectramind_nb.physics.fitting import fit_visit
from spectramind_nb.physics.noise import slow_factor
from spectramind_nb.physics.normalised_curves import normalise
from spectramind_nb.physics.transit import light_curve

AIRS, FGS1 = "AIRS-CH0", "FGS1"


def set_all(name, value):
    return lambda curves: getattr(curves, name).update({k: np.full_like(v, value) for k, v in getattr(curves, name).items()})


def only(instrument, name, change):
    return lambda curves: getattr(curves, name).update({instrument: change(getattr(curves, name)[instrument].copy())})


def spoilt(values, rows, value):
    values[rows] = value
    return values


BROKEN = {
    "no flux": (set_all("flux", np.nan), NonFiniteError, "time bins"),
    "no AIRS flux": (only(AIRS, "flux", lambda v: v * np.nan), NonFiniteError, AIRS),
    "zero noise": (set_all("noise", 0.0), NonFiniteError, "noise above 0"),
    "NaN noise": (set_all("noise", np.nan), NonFiniteError, "noise above 0"),
    "infinite noise": (set_all("noise", np.inf), NonFiniteError, "noise above 0"),
    "dark": (set_all("flux", 0.0), NonFiniteError, "flux above 0"),
    "dark FGS1": (only(FGS1, "flux", lambda v: 0 * v), NonFiniteError, FGS1),
    "negative": (only(AIRS, "flux", lambda v: -v), NonFiniteError, "flux above 0"),
    "three good bins": (only(FGS1, "flux", lambda v: spoilt(v, slice(3, None), np.nan)), NonFiniteError, "only 3 of 450"),
    "NaN time": (only(FGS1, "time_h", lambda v: spoilt(v, 7, np.nan)), NonFiniteError, "1 times are not finite"),
    "infinite time": (only(AIRS, "time_h", lambda v: spoilt(v, -1, np.inf)), NonFiniteError, "1 times are not finite"),
    "unsorted": (only(AIRS, "time_h", lambda v: v[::-1]), SchemaError, "do not ascend"),
    "a time twice": (only(FGS1, "time_h", lambda v: spoilt(v, 5, v[4])), SchemaError, "do not ascend"),
    "one time": (only(FGS1, "time_h", lambda v: v[:1]), SchemaError, "1 time bins are too few"),
    "no time": (only(AIRS, "time_h", lambda v: v[:0]), SchemaError, "0 time bins are too few"),
    "lengths": (only(FGS1, "flux", lambda v: v[:-1]), SchemaError, "449"),
    "lengths of noise": (only(AIRS, "noise", lambda v: v[:, :-1]), SchemaError, AIRS),
    "an instrument missing": (lambda curves: curves.flux.pop(AIRS), SchemaError, f"no light curves of {AIRS}"),
}


@pytest.fixture(scope="module")
def visit():
    return observe(2, (450, 90), planet_id=77)


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_fitted_is_refused_in_a_sentence(visit, name):
    light_curves, star, _ = visit
    light_curves = copy.deepcopy(light_curves)
    breaks, kind, words = BROKEN[name]
    breaks(light_curves)
    with pytest.raises(kind, match=words) as error:
        fit_visit(light_curves, star)
    assert "planet 77" in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("unit, hours", [("days", 24), ("minutes", 1 / 60), ("seconds", 1 / 3600)])
def test_times_in_another_unit_are_named(visit, unit, hours):
    light_curves, star, _ = visit
    light_curves = copy.deepcopy(light_curves)
    for times in light_curves.time_h.values():
        times /= hours
    with pytest.raises(SchemaError, match=unit):
        fit_visit(light_curves, star)


@pytest.mark.parametrize("wavelengths", [[0.7], [0.7] + 282 * [np.nan], [0.7] + 282 * [0.0]], ids=["none", "NaN", "zero"])
def test_channels_need_wavelengths(visit, wavelengths):
    light_curves, star, _ = visit
    light_curves = copy.deepcopy(light_curves)
    object.__setattr__(light_curves, "wavelengths_um", np.array(wavelengths))
    with pytest.raises(SchemaError, match=AIRS):
        fit_visit(light_curves, star)


@pytest.mark.parametrize("spoil", [
    lambda curves: curves.flux[AIRS].__setitem__(slice(20, 30), np.nan),
    lambda curves: curves.flux[FGS1].__setitem__(slice(None, None, 3), np.nan),
    lambda curves: curves.flux[AIRS].__setitem__(np.random.default_rng(0).random((90, 282)) < 0.6, np.nan),
    lambda curves: curves.noise[AIRS].__setitem__((slice(None), 100), 0.0),
    lambda curves: curves.flux[AIRS].__setitem__((slice(None), slice(50, 60)), -1.0),
    lambda curves: [t.__iadd__(2459000.5 * 24) for t in curves.time_h.values()],
], ids=["NaN rows", "every third", "60 % of all", "a channel without noise", "negative channels", "BJD in hours"])  # fmt: skip
def test_what_is_left_is_fitted(visit, spoil):
    light_curves, star, truth = visit
    light_curves = copy.deepcopy(light_curves)
    spoil(light_curves)
    fit = fit_visit(light_curves, star)
    assert abs(fit.diagnostics["white_depth"] - truth[1:].mean()) < 3 * fit.diagnostics["white_sigma"] < 0.003
    assert fit.depth.isfinite().all() and torch.linalg.eigvalsh(fit.covariance).min() > 0


@pytest.mark.parametrize("channels", [1, 2, 10, 50])
def test_any_number_of_channels(channels):
    z = []
    for seed in range(4):
        light_curves, star, truth = observe(seed, (450, 90), channels=channels)
        fit = fit_visit(light_curves, star)
        assert fit.depth.shape == (1 + channels,) and "ppm" in fit._repr_html_() and fit.plot() is not None
        z += ((fit.depth - torch.from_numpy(truth)) / fit.sigma)[1:].tolist()
    assert 0.4 < np.mean(np.square(z)) ** 0.5 < 1.6 if channels < 10 else 0.85 < np.mean(np.square(z)) ** 0.5 < 1.25


def test_a_fit_leaves_the_threads_of_the_process_alone(visit, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("the number of threads was changed"))
    fit_visit(*visit[:2])


STAR = {"P": 4.0, "sma": 11.0, "i": 88.5, "e": 0.0, "Ts": 5500.0}


def own_curves(noise=1e-3, bins=400, channels=24, seed=0):
    """(T,) hours, (T, C) flux of a 1 % transit; as many channels as a small spectrograph has."""
    time_h = np.linspace(0, 6, bins)
    flux = light_curve(time_h / 24, 3 / 24, STAR["P"], STAR["sma"], STAR["i"], 0.1, 0.1, 0.15).numpy()[:, None]
    return time_h, flux + noise * np.random.default_rng(seed).standard_normal((bins, channels))


def fitted(time_h, flux, noise=1e-3):
    return fit_visit(LightCurves.from_arrays(time_h / 24, np.linspace(1, 3, flux.shape[1]), flux, noise), STAR)


def test_channels_without_light_take_nothing_from_the_others():
    """Their curvature was that of a mean over all channels: with half of them dead white light was six times too uncertain."""
    time_h, flux = own_curves()
    dead, live = np.arange(24) % 2 == 0, np.arange(24) % 2 == 1
    some = fitted(time_h, np.where(dead, np.nan, flux))
    alone = fit_visit(LightCurves.from_arrays(time_h / 24, np.linspace(1, 3, 24)[live], flux[:, live], 1e-3), STAR)
    assert some.diagnostics["converged"] and abs(some.diagnostics["white_sigma"] / alone.diagnostics["white_sigma"] - 1) < 0.1
    assert float((some.own_variance[live] / alone.own_variance - 1).abs().max()) < 0.05
    assert float((some.sigma[dead] / some.sigma[live].max()).min()) > 30


def test_a_channel_with_half_a_window_knows_half_as_much():
    """Its values were all taken for spikes; what came out was the start of the fit with the error of a whole channel."""
    time_h, flux = own_curves()
    curves = np.where((np.arange(24) < 6) & (time_h[:, None] > 0.48 * 6), np.nan, flux)
    found, whole = fitted(time_h, curves), fitted(time_h, flux)
    assert found.diagnostics["dropped_spectrograph"] == pytest.approx(0.25 * 0.52, abs=0.003)
    assert 1.3 < float((found.own_variance[:6] / whole.own_variance[:6]).sqrt().mean()) < 1.8  # less than half of the transit
    error = (found.depth - 0.01)[:6]
    assert float((error / found.sigma[:6]).abs().max()) < 3.5


def test_a_gap_is_the_same_listed_or_not():
    time_h, flux = own_curves()
    kept = np.abs(time_h - 3.6) > 0.25
    listed, left_out = fitted(time_h, np.where(kept[:, None], flux, np.nan)), fitted(time_h[kept], flux[kept])
    assert torch.equal(listed.depth, left_out.depth) and torch.equal(listed.covariance, left_out.covariance)


def test_contacts_of_a_clean_deep_transit_are_no_spikes():
    """Bins at which the light bends hold star and orbit; a spike stands alone, also beside a gap."""
    time_h, flux = own_curves(5e-5, bins=73, channels=1)
    flux[10], flux[40] = flux[10] + 2e-3, np.nan
    (curves,) = normalise(LightCurves.from_arrays(time_h / 24, [1.0], flux, 5e-5))
    assert len(curves.time_h) == 72 and (~curves.good[:, 0]).nonzero().flatten().tolist() == [10]


def test_slow_noise_is_that_of_channels_with_light():
    time_h, flux = own_curves(channels=12)
    slow = np.cumsum(np.random.default_rng(5).standard_normal((400, 12)), 0)
    (curves,) = normalise(LightCurves.from_arrays(time_h / 24, np.linspace(1, 3, 12), np.where(np.arange(12) < 9, np.nan, flux), 1e-3))
    residual = torch.from_numpy(1e-4 * (slow - slow.mean(0)))
    few = slow_factor(residual * curves.good, curves, 0, 0.5)
    alone = replace(curves, sigma=curves.sigma[9:], good=curves.good[:, 9:])
    assert few == pytest.approx(slow_factor(residual[:, 9:], alone, 0, 0.5), rel=1e-3) and few > 2


def test_the_window_is_that_of_all_instruments(visit):
    """Times without light are left out; where the transit is looked for, and how much of it was seen, is not FGS1's affair alone."""
    light_curves, star, _ = visit
    early = light_curves.time_h[FGS1] < 0.4 * light_curves.time_h[FGS1][-1]
    cut, whole = copy.deepcopy(light_curves), fit_visit(light_curves, star)
    cut.flux[FGS1][~early] = np.nan
    found = fit_visit(cut, star)
    assert found.plausible and found.diagnostics["coverage"] == pytest.approx(whole.diagnostics["coverage"], abs=0.03)
    assert abs(found.geometry["mid_time_h"] - whole.geometry["mid_time_h"]) < 0.1
    assert found.diagnostics["dropped_FGS1"] == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("length", [1, 2])
def test_spikes_of_a_bin_or_two_are_found(length):
    time_h, flux = own_curves(channels=4)
    struck = [50, 51, 300, 301] if length == 2 else [50, 300]
    flux[struck] *= 1.1
    (curves,) = normalise(LightCurves.from_arrays(time_h / 24, np.linspace(1, 3, 4), flux, 1e-3))
    assert (~curves.good).any(1).nonzero().flatten().tolist() == struck


def test_what_was_bridged_or_borrowed_has_no_weight(visit):
    """Half an hour without light at egress, bridged by a line with a noise as large as its flux, cost 700 ppm, and a borrowed
    channel came out as a measurement."""
    curves, star, *_ = visit
    gap_h = float(curves.time_h[AIRS].mean()) + np.array([0.5, 1.0])
    gap = {name: (time_h > gap_h[0]) & (time_h < gap_h[1]) for name, time_h in curves.time_h.items()}
    bridged, left_out = copy.deepcopy(curves), copy.deepcopy(curves)
    for name, dark in gap.items():
        bridged.flux[name][dark] = bridged.flux[name][~dark].mean(axis=0)
        bridged.noise[name][dark] = np.inf
        left_out.flux[name][dark] = np.nan
    bridged.flux[AIRS][:, 60] = bridged.flux[AIRS][:, [59, 61]].mean(axis=1)
    bridged.noise[AIRS][:, 60] = np.inf
    left_out.flux[AIRS][:, 60] = np.nan
    one, other = fit_visit(bridged, star), fit_visit(left_out, star)
    assert torch.equal(one.depth, other.depth) and torch.equal(one.covariance, other.covariance)
    assert one.sigma[61] > 3 * one.sigma[60]
