"""Own light curves of days, of few samples, of partly known orbits: right depths, or a sentence that says what to doubt."""

import astropy.units as u
import numpy as np
import pytest

from spectramind_nb import LightCurves, fit_visit, light_curve, star_row
from spectramind_nb.physics.normalised_curves import normalise


def white(time_d, period_d, a_rs, inclination, k, noise, exposure_d=0.0, seed=0):
    """A white light curve with a transit at 0."""
    flux = light_curve(time_d, 0.0, period_d, a_rs, inclination, k, 0.35, 0.25, exposure_d=exposure_d).numpy()
    return flux * (1 + noise * np.random.default_rng(seed).normal(size=flux.shape))


LONG = {"P": 30.0, "sma": 40.0, "i": 89.8}


@pytest.mark.parametrize("told", [("P", "sma", "i"), ("P", "sma"), ("P",), ()], ids=" ".join)
def test_what_is_told_of_an_orbit_is_used_and_no_transit_made_up(told):
    """Without an inclination the period was taken to be 5 days, and a second transit fitted into eight: 5139 ppm +- 354."""
    time = np.arange(-1.5, 6.5, 20 / 1440)
    curves = LightCurves.from_arrays(time, 1.0, white(time, 30.0, 40.0, 89.8, 0.1, 4e-4), 4e-4, exposure=0)
    fit = fit_visit(curves, {name: LONG[name] for name in told} or None)
    assert abs(fit.depth[0] - 0.01) < 4 * fit.sigma[0] < 0.002
    assert (fit.geometry["period_d"] == 30) == ("P" in told)
    remark = fit.diagnostics.get("remark", "")
    assert ("nobody told a period" in remark) == ("P" not in told) and "neighbouring" not in remark
    assert fit.geometry["mid_time_d"] == pytest.approx(0, abs=0.01)  # also where times begin near 0


def test_a_short_transit_is_found_with_the_period_alone():
    """TRAPPIST-1 b in four hours: at the speed of a planet of 5 days its transit was sought for 2.5 h, an hour off."""
    time = np.arange(-2 / 24, 2 / 24, 1 / 1440)
    curves = LightCurves.from_arrays(time, 1.0, white(time, 1.51, 20.4, 89.6, 0.085, 1e-3), 1e-3, exposure=0)
    fit = fit_visit(curves, {"P": 1.51, "Rs": 0.12, "Ms": 0.09})
    assert abs(fit.depth[0] - 0.085**2) < 4 * fit.sigma[0] < 0.002 and abs(fit.geometry["mid_time_d"]) < 0.01


@pytest.mark.parametrize("phase", [0.0, 0.25, 0.5])
def test_the_bottom_of_a_transit_of_few_samples_is_no_spike(phase):
    """TrES-2 b as Kepler's long cadence sees it, 3 to 4 samples of a V: one or two had been dropped, 1295 ppm +- 435 for 15625."""
    time = (np.arange(-30, 30) + phase) * 29.42 / 1440
    flux = white(time, 2.4706, 7.9, 83.9, 0.125, 4e-5, 29.42 / 1440)
    curves = LightCurves.from_arrays(time, 0.64, flux, 4e-5, exposure="29.42 min")
    assert normalise(curves)[0].good.all()
    fit = fit_visit(curves, star_row(period=2.4706, a_rs=7.9, inclination=83.9, temperature=5850))
    assert abs(fit.depth[0] - 0.125**2) < 4 * fit.sigma[0] < 0.006
    flux[10], flux[20:22] = 1.003, 0.996  # and what sticks out of a steady light is one
    (seen,) = normalise(LightCurves.from_arrays(time, 0.64, flux, 4e-5))
    assert (~seen.good[:, 0]).nonzero().flatten().tolist() == [10, 20, 21]


def test_several_transits_and_hours_that_were_taken_for_days_are_told():
    time = np.arange(-0.3, 6.6, 10 / 1440)
    flux, star = white(time, 3.0, 9.0, 88.0, 0.1, 3e-4), star_row(period=3.0, a_rs=9.0, inclination=88.0)
    remark = fit_visit(LightCurves.from_arrays(time, 1.0, flux, exposure=0), star).diagnostics["remark"]
    assert "3 transits are expected in 6.9 days: the period of 3 days is taken as exact" in remark and "neighbouring" not in remark
    hours = np.arange(-3.0, 3.0, 1 / 60)
    flux = white(hours / 24, 3.0, 9.0, 88.0, 0.1, 3e-4)
    fit = fit_visit(LightCurves.from_arrays(hours, 1.0, flux, exposure=0), star)
    assert "times what neighbouring samples differ by" in fit.diagnostics["remark"]
    fit = fit_visit(LightCurves.from_arrays(hours, 1.0, flux, time_unit="h", exposure=0), star)
    assert "remark" not in fit.diagnostics and abs(fit.depth[0] - 0.01) < 4 * fit.sigma[0]


def test_a_channel_without_light_and_one_far_from_the_others_are_named():
    time, um = np.arange(-0.1, 0.1, 1 / 1440), np.linspace(1, 2, 6)
    k = np.full(6, 0.1)
    k[2] = 0.03**0.5
    flux = np.stack([white(time, 3.0, 9.0, 88.0, each, 2e-4, seed=n) for n, each in enumerate(k)], axis=1)
    flux[:, 4] = np.nan
    fit = fit_visit(LightCurves.from_arrays(time, um, flux, 2e-4, exposure=0), star_row(period=3.0, a_rs=9.0, inclination=88.0))
    remark = fit.diagnostics["remark"]
    assert "no usable light at 1.8 um" in remark and "the depth at 1.4 um is far from" in remark


def test_plain_numbers_have_the_unit_of_what_they_belong_to():
    """An exposure of 120 s, said as 0.0333 beside hours, was 0.8 h: 43 % too deep without a word."""
    hours, um = np.arange(0, 6, 1 / 60), np.array([1.0, 1.1])
    told = {"exposure": 2 / 60, "width": 20, "window": (1, 5)}
    curves = LightCurves.from_arrays(hours * u.hour, 1000 * um * u.nm, np.ones((360, 2)), 1e-3, **told)
    assert curves.exposure_h["spectrograph"] == pytest.approx(2 / 60) and curves.widths_um.tolist() == pytest.approx([0.02, 0.02])
    assert len(curves.time_h["spectrograph"]) == 241
    days = {"spectrograph": hours / 24 * u.day}
    assert len(LightCurves.from_arrays(days, um, np.ones((360, 2)), 1e-3, window=(1 / 24, 0.2)).time_h["spectrograph"]) == 229
