"""What nobody can beat, and what many are content with: answers built from the simulator's truth, and popular recipes."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebval, chebvander

from spectramind_nb.core.machine import cpu_count
from spectramind_nb.core.tables import read_table
from spectramind_nb.learning.metrics import ariel_score
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import INSTRUMENTS, LABEL_COLUMNS, PPM, Visit, wavelength_grid_um
from spectramind_nb.observations.lightcurve_files import VisitFiles
from spectramind_nb.observations.lightcurves import lightcurve_store, load_light_curves, visit_key
from spectramind_nb.physics.patterns import joined_covariance
from spectramind_nb.simulation import light_curves, planets, visits
from spectramind_nb.simulation.exposure import SECONDS
from spectramind_nb.simulation.image import image_expansion, pointing
from spectramind_nb.simulation.settings import rng_for, settings

CHANNELS = {"FGS1": slice(0, 1), "AIRS-CH0": slice(1, 283)}


class Truth:
    """A simulated data set at light-curve level with everything that went into it."""

    def __init__(self, root: Path, split: str = "test"):
        self.root, self.split = Path(root), split
        self.recipe = json.loads((self.root / "simulation.json").read_text())["recipe"]
        self.config = settings(self.recipe["settings"])
        self.nuisances = json.loads((self.root / "truth" / "nuisances.json").read_text())
        self.table = read_table(self.root / "truth" / f"{split}.csv", LABEL_COLUMNS)[LABEL_COLUMNS].sort_index()

    @cached_property
    def depth(self) -> torch.Tensor:  # (N, 283)
        return torch.tensor(self.table.to_numpy(np.float64))

    @cached_property
    def stars(self):  # as the catalogue has them
        return open_challenge(self.root).stars(self.split)

    def light_curves(self, planet_id: int, visit: int):
        folder = VisitFiles(self.root / self.split / str(planet_id))
        return load_light_curves(folder, f"light_curves_{visit}")


class TruthOfFrames(Truth):
    """Of a data set of raw frames, with the light curves that were made of them, of whose jitter nothing is known to be left."""

    def __init__(self, root: Path, cache: Path, detector, split: str = "test"):
        super().__init__(root, split)
        self.challenge, self.store = open_challenge(root), lightcurve_store(cache, detector)
        self.config["light_curves"]["jitter_left"] = dict.fromkeys(INSTRUMENTS, 0.0)

    def light_curves(self, planet_id: int, visit: int):
        return load_light_curves(self.store, visit_key(self.store, self.challenge, self.split, Visit(planet_id, visit)))


SKY = ("ln_a_rs", "inclination", "u_sum", "u_difference", "mid_time", "offset")  # degrees, hours; of u1 and u2 at 0.7 um
STEPS = dict(zip(SKY, (1e-3, -0.02, 0.01, 0.01, 1e-3, 1e-3)))  # for derivatives; towards the middle of the star


def oracle_fit(truth: Truth, planet_id: int, drift_known: bool, sky_known: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Depths (283,) and covariance (283, 283) of one who knows noise and pointing, and whom least squares about the truth cost nothing.

    With `drift_known` the drift is a shape in time and wavelength of unknown strength; without, a product of polynomials with coefficients
    of the size that they usually have. With `sky_known` orbit and limb darkening are known; without, their catalogue and its errors.
    """
    about = truth.nuisances[str(planet_id)]
    depth = truth.table.loc[planet_id].to_numpy(np.float64)
    planet = planets.Planet(planet_id, about["star"], depth, np.array(about["limb_darkening"]), about["brightness"], {})
    sky = () if sky_known else SKY
    size = 283 + len(sky[:4])
    curvature, pull = np.zeros((size, size)), np.zeros(size)
    for number, visit in enumerate(about["visits"]):
        seen = truth.light_curves(planet_id, number)
        circumstances = visits.VisitTruth(
            number, visit["mid_time_h"], visit["drift_time"], visit["drift_wavelength"], visit["centre_px"])
        whole, on_data = np.zeros((283 + len(sky),) * 2), np.zeros(283 + len(sky))
        for name, own in CHANNELS.items():
            at = np.r_[np.arange(283)[own], np.arange(283, 283 + len(sky))]
            found, pulled = _instrument(truth, planet, circumstances, seen, name, drift_known, sky)
            whole[np.ix_(at, at)] += found
            on_data[at] += pulled
        if sky:  # the mid-time may be any, both instruments see nearly the same one
            told = visit["mid_time_h"]["FGS1"] - visit["mid_time_h"]["AIRS-CH0"]
            _expect(whole, on_data, [-2, -1], [1.0, truth.config["timing"]["instrument_offset_h"]], [0.0, told])
            whole, on_data = _without(whole, on_data, slice(-2, None))
        curvature += whole
        pull += on_data
    if sky:
        _expect(curvature, pull, range(-4, 0), *_catalogue(truth, planet))
    covariance = np.linalg.inv(curvature)
    return depth + (covariance @ pull)[:283], covariance[:283, :283]


def _catalogue(truth: Truth, planet) -> tuple[np.ndarray, np.ndarray]:  # (4,), (4,)
    """How exactly the first four of SKY are known beforehand, and what is expected of them less what they are."""
    row, star, errors = truth.stars.loc[planet.planet_id], planet.star, truth.config["catalogue"]
    scatter = truth.config["star"]["limb_scatter"]
    draws = rng_for(truth.recipe["seed"], planet.planet_id, -1, "limb darkening").normal(size=2)
    limb = np.array([scatter["sum"], scatter["difference"]])
    widths = np.r_[errors["semi_major_axis"], errors["inclination_deg"], limb]
    return widths, np.r_[np.log(row["sma"] / star["sma"]), row["i"] - star["i"], -limb * draws]


def _expect(curvature, pull, at, width, expected) -> None:
    """Add what is known beforehand of some parameters."""
    at, precision = np.asarray(at), np.asarray(width, dtype=float) ** -2
    curvature[at, at] += precision
    pull[at] += precision * np.asarray(expected)


def _without(curvature, pull, gone: slice) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the other parameters, when these are eliminated."""
    drop = np.arange(len(pull))[gone]
    keep = np.setdiff1d(np.arange(len(pull)), drop)
    share = np.linalg.solve(curvature[np.ix_(drop, drop)], curvature[np.ix_(drop, keep)]).T
    return curvature[np.ix_(keep, keep)] - share @ curvature[np.ix_(drop, keep)], pull[keep] - share @ pull[drop]


def _moved(planet, circumstances, what: str, step: float):
    """The planet and the circumstances of its visit with one of SKY changed."""
    star, limb, mid_time_h = dict(planet.star), planet.limb_darkening, dict(circumstances.mid_time_h)
    if what == "ln_a_rs":
        star["sma"] *= np.exp(step)
    elif what == "inclination":
        star["i"] += step
    elif what.startswith("u_"):
        limb = limb + step * 0.35 / wavelength_grid_um()[:, None] * np.array([1, 1 if what == "u_sum" else -1])
    else:
        mid_time_h = {name: time + step * (name != "FGS1" or what == "mid_time") for name, time in mid_time_h.items()}
    return planets.Planet(planet.planet_id, star, planet.depth, limb, planet.brightness, {}), replace(circumstances, mid_time_h=mid_time_h)


def _jitter(truth, planet, circumstances, name) -> np.ndarray:
    """What the telescope's motions do to the flux, relative, in the bins of simulated light curves."""
    config, address = truth.config, (truth.recipe["seed"], planet.planet_id, circumstances.visit)
    _, electrons = planets.star_electrons(planet.star["Ts"], planet.brightness, config["star"])
    image = image_expansion(name, circumstances.centre_px, config["jitter"]["intra_pixel"], electrons)
    pairs_h = visits.pair_times_h(config["frames"]["full"][name], name)
    per_bin = round(config["light_curves"]["bin_s"][name] / 3600 / (pairs_h[1] - pairs_h[0]))
    shift = pointing(pairs_h, SECONDS[name][1], *address, name, config["jitter"])
    return light_curves.jitter_in_flux(name, image, shift, np.arange(0, len(pairs_h), per_bin))[0]


def _instrument(truth, planet, circumstances, seen, name, drift_known, sky):
    """Normal equations of depths and sky about their true values; levels and drift are eliminated."""
    config, own, time_h = truth.config, CHANNELS[name], seen.time_h[name]
    n = len(time_h)

    def light(planet, circumstances=circumstances):
        return visits.expected_light(planet, circumstances, {name: time_h}, config)[name].reshape(n, -1)

    expected, step = light(planet), 1e-4 * planet.depth[own].mean()
    deeper = planets.Planet(planet.planet_id, planet.star, planet.depth + step, planet.limb_darkening, planet.brightness, {})
    by_depth = (light(deeper) - expected) / step
    by_sky = [(light(*_moved(planet, circumstances, what, STEPS[what])) - expected) / STEPS[what] for what in sky]
    left = config["light_curves"]["jitter_left"][name]
    with_jitter = expected * (1 + left * _jitter(truth, planet, circumstances, name)) if left else expected

    in_time = chebvander(2 * time_h / visits.WINDOW_H - 1, config["drift"]["time_degree"])[:, 1:]
    f_true = np.array(circumstances.drift_time[name])
    f_width = config["drift"]["amplitude"] / np.arange(1, len(f_true) + 1)
    colour, g_true = np.linspace(-1, 1, expected.shape[1]), np.array(circumstances.drift_wavelength)
    g = np.ones(1) if name == "FGS1" else chebval(colour, [1.0, *g_true])
    if drift_known:
        drift, width, off = [(in_time @ f_true)[:, None] * g], np.ones(1), np.zeros(1)
    else:
        drift, width, off = [column[:, None] * g for column in in_time.T], f_width, -f_true
        if name != "FGS1":
            drift += [(in_time @ f_true)[:, None] * column for column in chebvander(colour, len(g_true))[:, 1:].T]
            width, off = np.append(width, np.full(len(g_true), 0.3)), np.append(off, -g_true)

    weight = 1 / np.median(seen.noise[name].reshape(n, -1), axis=0)
    residual = (seen.flux[name].reshape(n, -1) - with_jitter) * weight
    level, by_depth = expected * weight, by_depth * weight
    shared = np.stack([*(term * level for term in drift), *(term * weight for term in by_sky)], axis=2)  # (T, C, K)
    c, k = expected.shape[1], shared.shape[2]
    blocks, curvature, pull = (level, by_depth), np.zeros((2 * c + k, 2 * c + k)), np.zeros(2 * c + k)
    last, diagonal = slice(2 * c, None), np.arange(c)
    for i, one in enumerate(blocks):
        pull[i * c:(i + 1) * c] = (one * residual).sum(axis=0)
        curvature[i * c:(i + 1) * c, last] = np.einsum("tc,tck->ck", one, shared)
        curvature[last, i * c:(i + 1) * c] = curvature[i * c:(i + 1) * c, last].T
        for j, other in enumerate(blocks):
            curvature[diagonal + i * c, diagonal + j * c] = (one * other).sum(axis=0)
    flat = shared.reshape(-1, k)
    curvature[last, last] = flat.T @ flat
    pull[last] = flat.T @ residual.ravel()
    in_drift = slice(2 * c, 2 * c + len(drift))
    _expect(curvature, pull, np.arange(len(pull))[in_drift], width, off)
    return _without(*_without(curvature, pull, in_drift), slice(0, c))


def oracle(truth: Truth, drift_known: bool = True, sky_known: bool = True) -> tuple[torch.Tensor, torch.Tensor]:  # mu, sigma (N, 283)
    """The oracle's answer: its fit, and all that can be known of the spectrum beforehand."""
    fit = partial(oracle_fit, truth, drift_known=drift_known, sky_known=sky_known)
    with ProcessPoolExecutor(cpu_count()) as pool:
        return with_own_spectra(truth, pool.map(fit, truth.table.index, chunksize=4))


def oracle_of_kinds(truth: Truth, fits, model) -> tuple[torch.Tensor, torch.Tensor]:  # mu, sigma (N, 283)
    """The answer of one who sees what all see, and knows what kinds of spectra, stars and orbits there are.

    `fits` are a `PlanetSet`; `model` has learned from many training planets what their stars and orbits have in common.
    """
    depth, relief = model.informed(fits.tensors(), model.standardised(fits.features))
    covariance = joined_covariance(fits.own_variance, fits.patterns) - relief.mT @ relief / PPM**2
    return with_own_spectra(truth, zip((depth / PPM).detach().numpy(), covariance.detach().numpy()))


def with_own_spectra(truth: Truth, fits) -> tuple[torch.Tensor, torch.Tensor]:  # mu, sigma (N, 283)
    """Fits, (283,) and (283, 283), and the spectra that the simulator draws for just each star and planet, taken as Gaussian."""
    with ProcessPoolExecutor(cpu_count()) as pool:
        answers = list(pool.map(partial(_with_own_spectrum, truth), truth.table.index, fits, chunksize=4))
    mu, sigma = zip(*answers)
    return torch.tensor(np.array(mu)), torch.tensor(np.array(sigma))


def _with_own_spectrum(truth: Truth, planet_id: int, fit, draws: int = 1000) -> tuple[np.ndarray, np.ndarray]:  # (283,) each
    depth, covariance = fit
    level = max(1e-4, np.average(depth[1:], weights=1 / np.diag(covariance)[1:]))
    star, rng = truth.nuisances[str(planet_id)]["star"], np.random.default_rng(planet_id)
    drawn = np.array([planets._draw_spectrum(rng, star, np.sqrt(level), truth.config["population"])[0] for _ in range(draws)])
    shapes = drawn - np.mean(drawn[:, 1:], axis=1, keepdims=True)
    mean, prior = level + shapes.mean(axis=0), np.cov(shapes.T) + 1e-4 + 1e-14 * np.eye(283)  # any level is as likely
    gain = np.linalg.solve(prior + covariance, prior).T
    return mean + gain @ (depth - mean), np.sqrt(np.maximum(np.diag(prior - gain @ prior), 1e-14))


# -- what many are content with ---------------------------------------------------------------------------------------


def box_depths(light_curves, degree: int = 3) -> tuple[float, float]:  # FGS1, AIRS
    """Box transit times polynomial in white light, ingress and egress where the smoothed light falls and rises most."""
    found = []
    time, flux = light_curves.time_h["AIRS-CH0"], light_curves.white("AIRS-CH0")
    n = max(3, len(time) // 40)
    smooth = np.convolve(flux, np.ones(n) / n, mode="same")
    slope, half = np.gradient(smooth), len(time) // 2
    edge = n + 1
    begin, end = time[edge + np.argmin(slope[edge:half])], time[half + np.argmax(slope[half:-edge])]
    for name in INSTRUMENTS:
        time, flux, margin = light_curves.time_h[name], light_curves.white(name), 0.12
        inside = (time > begin + margin) & (time < end - margin)
        outside = (time < begin - margin) | (time > end + margin)
        some = inside | outside
        columns = np.column_stack([np.vander(2 * time / time[-1] - 1, degree + 1, increasing=True), -inside.astype(float)])
        solution = np.linalg.lstsq(columns[some], flux[some], rcond=None)[0]
        found.append(float(solution[-1] / np.median(columns[outside, :-1] @ solution[:-1])))
    return tuple(np.clip(found, 1e-5, 0.1))


def pca_replacement(train, test, components: int = 5) -> torch.Tensor:  # (N, 283)
    """The fit's channels replaced by the principal components of training spectra that match them best, FGS1 as fitted."""
    def shape(spectrum):
        return spectrum - spectrum[:, 1:].mean(1, keepdim=True)

    mean = shape(train.target)[:, 1:].mean(0)
    basis = torch.linalg.svd(shape(train.target)[:, 1:] - mean, full_matrices=False)[2][:components]
    columns = torch.cat([torch.ones(1, 282, dtype=torch.float64), basis])
    weight = 1 / test.sigma[:, 1:]
    left, right = columns.T * weight[..., None], (test.depth[:, 1:] - mean) * weight
    matched = torch.linalg.lstsq(left, right[..., None]).solution[..., 0] @ columns + mean
    return torch.cat([test.depth[:, :1], matched], dim=1).clamp(min=0)


def tuned(mu: torch.Tensor, truth: torch.Tensor) -> tuple[float, float]:
    """The two sigmas, of FGS1 and AIRS, that would have scored best on planets with known spectra."""
    error = truth - mu
    return float(error[:, 0].square().mean().sqrt()), float(error[:, 1:].square().mean().sqrt())


def score_of(mu, sigma, truth, naive) -> float:
    if isinstance(sigma, tuple):
        sigma = torch.tensor([sigma[0], *[sigma[1]] * 282], dtype=torch.float64).expand_as(mu)
    return ariel_score(mu, sigma, truth, *naive)
