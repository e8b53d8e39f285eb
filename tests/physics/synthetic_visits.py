"""Light curves with known depths, made by batman with drifts and limb darkening that are not the fit's own."""

import math

import batman
import numpy as np

from spectramind_nb.observations.lightcurves import LightCurves
from spectramind_nb.physics.catalogue import kepler_a_rs


def observe(seed, bins=(900, 180), depth=0.01, shape_ppm=80.0, mid_time_h=None, impact=None, planet_id=1, visit=0,
            period_d=None, a_rs=None, eccentricity=0.0, periastron_deg=90.0, channels=282):  # fmt: skip
    """A visit of 7.5 h with photon and common noise of the real instruments, its star_info row and the true depths."""
    wavelengths = np.r_[0.7, np.linspace(1.9518, 3.8950, channels)]
    rng = np.random.default_rng(seed)
    waves = sum(rng.normal() * np.sin(np.pi * f * wavelengths + rng.uniform(0, 6)) for f in (0.7, 1.5, 2.6, 4.0))
    truth = depth + 1e-6 * min(shape_ppm, 1e5 * depth) * waves
    orbit = batman.TransitParams()
    orbit.per, orbit.a, orbit.limb_dark = rng.uniform(3, 5.5), rng.uniform(9, 13), "quadratic"
    orbit.ecc, orbit.w = eccentricity, periastron_deg
    orbit.per, orbit.a = period_d or orbit.per, a_rs or orbit.a
    impact = rng.uniform(0, 0.75) if impact is None else impact
    nearer = (1 + orbit.ecc * math.sin(math.radians(orbit.w))) / (1 - orbit.ecc**2)
    orbit.inc = math.degrees(math.acos(impact * nearer / orbit.a))
    mid_time_h = 3.75 + rng.normal(0, 0.3) if mid_time_h is None else mid_time_h
    bend = rng.normal(size=4) * [0.05, 0.02, 0.05, 0.02]
    flux, noise, time_h = {}, {}, {}
    for name, n, full, part in (("FGS1", bins[0], 3375, slice(0, 1)), ("AIRS-CH0", bins[1], 1125, slice(1, None))):
        um, t = wavelengths[part], (np.arange(n) + 0.5) / n * 7.5
        orbit.t0 = (mid_time_h + (0.0 if name == "FGS1" else rng.normal(0, 1e-3))) / 24
        orbit.rp, orbit.u = 0.1, [0.1, 0.1]
        model = batman.TransitModel(orbit, t / 24)
        curve = np.ones((n, len(um)))
        for c, (wavelength, p) in enumerate(zip(um, truth[part])):
            orbit.rp = math.sqrt(max(p, 0.0))
            orbit.u = [0.15 - 0.07 * math.log(wavelength / 2) + bend[0] + bend[1] * (wavelength - 2.9),
                       0.24 - 0.13 * math.log(wavelength / 2) + bend[2] + bend[3] * (wavelength - 2.9)]
            curve[:, c] = model.light_curve(orbit) if orbit.rp else 1.0
        drift = 1e-3 * np.polynomial.polynomial.polyval(t / 3.75 - 1, rng.normal(size=5) * [0, 1, 1, 0.5, 0.5])
        slope = 1 + 0.3 * rng.normal() * (um - um.mean()) + 0.2 * rng.normal() * (um - um.mean()) ** 2
        sigma = (np.array([304e-6]) if name == "FGS1" else np.geomspace(1600e-6, 9000e-6, channels)) * math.sqrt(full / n)
        common = (0.0 if name == "FGS1" else 60e-6) * math.sqrt(full / n) * rng.normal(size=(n, 1))
        level = np.array([2.7e5]) if name == "FGS1" else 8e4 * 0.05 ** ((um - 1.95) / 1.95)
        curve = level * (curve * (1 + drift[:, None] * slope) * (1 + common) + sigma * rng.normal(size=curve.shape))
        spread = np.broadcast_to(level * sigma, curve.shape).copy()
        flux[name], noise[name] = (curve[:, 0], spread[:, 0]) if name == "FGS1" else (curve, spread)
        time_h[name] = t
    sma = orbit.a * (1 + 0.03 * rng.normal())
    star = {"Rs": kepler_a_rs(orbit.per) / orbit.a, "Ms": 1.0, "Ts": 5600.0, "Mp": 1.0, "e": eccentricity, "P": orbit.per, "sma": sma,
            "i": min(90.0, orbit.inc + 0.3 * rng.normal())}
    return LightCurves(planet_id, visit, "train", flux, noise, time_h, wavelengths, {}), star, truth
