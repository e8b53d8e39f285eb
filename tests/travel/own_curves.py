"""Light curves of other people's instruments: batman transits with known depths, in the units and shapes that people have.

As a script it draws many and prints the root mean square of errors in units of sigma: `python tests/travel/own_curves.py 200`.
"""

import math
import sys

import batman
import numpy as np

from spectramind_nb import LightCurves, fit_visit, star_row
from spectramind_nb.core.errors import SchemaError

INSTRUMENTS = {  # shortest and longest wavelength (um), seconds between samples, noise of a channel of a tenth of the range at a sample
    "photometer": (0.6, 0.6, 20, 400e-6),
    "prism": (0.7, 5.2, 70, 350e-6),
    "mid-infrared": (5.0, 12.0, 130, 700e-6),
}


def limb_darkening(wavelength_um, seed):
    """Of stars about the Sun, no two alike, and of no form that the fit knows: it falls like a power of the wavelength."""
    both, apart = np.random.default_rng([seed, 1]).normal(size=2) * [0.05, 0.1]
    redder = wavelength_um / 0.6
    return (0.42 + (both + apart) / 2) * redder**-0.75, 0.10 + (0.18 + (both - apart) / 2) * redder**-0.4


def pink(seed, times, channels):
    """Noise of each channel with a power of 1/f, from four visits on; its mean is 0 and its scatter 1 in a visit."""
    rng, strength = np.random.default_rng([seed, 77]), np.fft.rfftfreq(4 * times)[:, None].clip(1e-9) ** -0.5
    strength[0] = 0
    waves = strength * rng.normal(size=(2, len(strength), channels))
    noise = np.fft.irfft(waves[0] + 1j * waves[1], 4 * times, axis=0)[:times]
    noise -= noise.mean(axis=0)
    return noise / noise.std()


def draw(seed, channels, instruments=("prism",), depth=0.012, visit_d=None, longer=1.0, slow=0.0):
    """A planet seen by one to three instruments: arguments of `LightCurves.from_arrays`, of `star_row`, and the true depths.

    `visit_d`: days that the visit takes, with 800 exposures, instead of two transits' length; `longer`: how much longer periods are;
    `slow`: scatter of slow noise (1/f) that each channel has of its own, over that of its white noise.
    """
    rng = np.random.default_rng(seed)
    orbit = batman.TransitParams()
    orbit.per, orbit.a, orbit.limb_dark, orbit.ecc, orbit.w = rng.uniform(2, 6), rng.uniform(8, 14), "quadratic", 0.0, 90.0
    orbit.per, orbit.a = longer * orbit.per, longer ** (2 / 3) * orbit.a
    impact = rng.uniform(0, 0.7)
    orbit.inc = math.degrees(math.acos(impact / orbit.a))
    duration_d = orbit.per / math.pi * math.asin(math.sqrt(1.1**2 - impact**2) / orbit.a)
    orbit.t0 = 2459500.0 + rng.uniform(0, 1)
    start, end = orbit.t0 - rng.uniform(1.0, 1.6) * duration_d, orbit.t0 + rng.uniform(1.0, 1.6) * duration_d
    if visit_d:
        start = orbit.t0 - rng.uniform(0.35, 0.65) * visit_d
        end = start + visit_d
    waves = rng.normal(size=4) * 60e-6, rng.uniform(0, 6, size=4)
    arrays, truth = {key: {} for key in ("time", "wavelength", "flux", "error")}, {}
    for name in instruments:
        low, high, step_s, noise = INSTRUMENTS[name]
        count = 1 if low == high else channels
        time = np.arange(start + rng.uniform(0, 0.02), end, visit_d / 800 if visit_d else step_s / 86400)
        edges = np.linspace(low, high, count + 1)
        wavelength = (edges[1:] + edges[:-1]) / 2
        true = depth + sum(a * np.sin((k + 1) * wavelength + b) for k, (a, b) in enumerate(zip(*waves)))
        model, curves = batman.TransitModel(orbit_of(orbit, 0.1), time), []
        for one, p in zip(wavelength, true):
            orbit.rp, orbit.u = math.sqrt(p), list(limb_darkening(one, seed))
            curves.append(model.light_curve(orbit))
        curve = np.stack(curves, axis=1)
        phase = np.linspace(-1, 1, len(time))
        drift = 1e-3 * np.polynomial.polynomial.polyval(phase, rng.normal(size=4) * [0, 1, 0.7, 0.3])
        slope = 1 + 0.3 * rng.normal() * (wavelength - wavelength.mean()) / max(high - low, 1)
        sigma = noise * math.sqrt(max(count, 10) / 10) * rng.uniform(0.7, 1.5, size=count)  # unequal, and told
        flux = curve * (1 + drift[:, None] * slope) + sigma * rng.normal(size=curve.shape)
        flux += slow * sigma * pink(seed, *flux.shape) if slow else 0.0
        level = rng.uniform(1e3, 1e5, size=count)
        one = {"time": time, "wavelength": wavelength, "flux": flux * level, "error": sigma * level}
        for key, values in one.items():
            arrays[key][name] = values[..., 0] if count == 1 and key == "flux" else values
        truth[name] = true
    known = {"period": orbit.per, "a_rs": orbit.a * (1 + 0.03 * rng.normal()), "temperature": 5700,
             "inclination": min(90.0, orbit.inc + 0.3 / longer ** (2 / 3) * rng.normal())}  # fmt: skip
    return arrays, known, truth


def orbit_of(orbit, rp):
    """The orbit with a planet of some size, which batman wants from the beginning."""
    orbit.rp, orbit.u = rp, [0.1, 0.1]
    return orbit


def errors(seed, channels, instruments, **how):
    """Depths minus truth in units of sigma, of all channels, and seconds that the fit took."""
    import time

    arrays, known, truth = draw(seed, channels, instruments, **how)
    curves = LightCurves.from_arrays(**arrays, exposure=0)  # batman's are instants
    began = time.perf_counter()
    fit = fit_visit(curves, star_row(**known))
    seconds = time.perf_counter() - began
    assert fit.plausible and (fit.diagnostics["converged"] or how.get("slow"))  # where noise is all there is, 1 of 200 says that it is not
    true = np.concatenate([truth[name] for name in fit.channels])
    return ((fit.depth.numpy() - true) / fit.sigma.numpy()), seconds


LONG = ((5, 1), (5, 30), (20, 100), (15, 1))  # days of a visit, and how much longer than 2 to 6 days periods are; two hold many transits


def tell(what, found):
    """Print what many draws have shown."""
    z, seconds = np.concatenate([one for one, _ in found]), [s for _, s in found]
    print(f"{len(found)} draws of {what}: rms z {np.sqrt(np.mean(z**2)):.3f}, worst {abs(z).max():.1f}, "
          f"{np.median(seconds):.2f} s a fit, at most {max(seconds):.2f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for channels in (10, 50, 283, 1000):
        for instruments in (("prism",), ("photometer", "prism"), ("prism", "photometer", "mid-infrared")):
            found = [errors(seed, channels, instruments) for seed in range(draws if channels < 1000 else max(4, draws // 20))]
            tell(f"{channels} channels, {' + '.join(instruments)}", found)
    for channels, slow in ((10, 0.5), (10, 1), (10, 3), (50, 1), (283, 1)):
        tell(f"{channels} channels with slow noise of their own, {slow} times their white noise",
             [errors(seed, channels, ("prism",), slow=slow) for seed in range(draws)])
    for visit_d, longer in LONG:
        found, refused = [], 0
        for seed in range(draws):
            try:
                found.append(errors(seed, 10, ("prism",), visit_d=visit_d, longer=longer))
            except SchemaError:  # a transit that is shorter than four samples
                refused += 1
        times = f"visits of {visit_d} days, a sample in {visit_d * 1.8:.0f} min"
        tell(f"{times}, periods of {2 * longer} to {6 * longer} days ({refused} refused as too coarse)", found)
