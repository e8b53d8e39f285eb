"""Simulated planets: a population like the challenge's, physics by independent means, chance without order."""

import numpy as np
import pytest
import torch
from astropy import constants, units
from astropy.modeling.physical_models import BlackBody

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.observations.layout import wavelength_grid_um
from spectramind_nb.physics.limb_darkening import limb_darkening_prior
from spectramind_nb.simulation.planets import BANDS, catalogue_table, draw_planet, limb_darkening, opaque_height, planck_photons
from spectramind_nb.simulation.settings import AMPLITUDES, planet_number, rng_for, settings


@pytest.fixture(scope="module")
def planets():
    config = settings()
    return [draw_planet(5, planet_number(5, index), config) for index in range(1000)]


def test_five_components_carry_the_shapes(planets):
    shape = np.array([planet.depth[1:] - planet.depth[1:].mean() for planet in planets])
    variance = np.linalg.svd(shape - shape.mean(0), compute_uv=False) ** 2
    assert variance[:5].sum() > 0.99 * variance.sum()
    assert variance[:1].sum() < 0.9 * variance.sum()  # and it is not one shape only
    rms_ppm = 1e6 * shape.std(1)
    assert 10 < rms_ppm.min() and rms_ppm.max() < 205 and 25 < np.median(rms_ppm) < 100


def test_population_lies_in_the_challenges_ranges(planets):
    table = catalogue_table(planets, 5, settings()["catalogue"])
    depth = np.array([planet.depth.mean() for planet in planets])
    assert 3e-4 <= depth.min() and depth.max() <= 0.026 and np.log10(depth).std() > 0.2
    for name, low, high in (("Rs", 0.45, 3.0), ("Ms", 0.5, 2.1), ("Ts", 3900, 7250), ("P", 2.7, 7.7), ("i", 84, 90)):
        assert table[name].between(low, high).all(), name
    assert abs(table["sma"].mean() - 10.8) < 0.7 and abs(table["Mp"].mean() - 1.6) < 0.4 and (table["e"] == 0).all()
    correlation = table.corr()
    assert correlation.loc["Rs", "Ms"] > 0.7 and correlation.loc["Ts", "Ms"] > 0.6
    assert correlation.loc["sma", "Rs"] < -0.5
    assert 0.01 < (table["i"] == 90).mean() < 0.2


def test_orbits_obey_kepler(planets):
    for planet in planets[:20]:
        star = planet.star
        a = np.cbrt(constants.G * star["Ms"] * units.Msun * (star["P"] * units.day) ** 2 / (4 * np.pi**2))
        assert star["sma"] == pytest.approx((a / (star["Rs"] * units.Rsun)).to_value(""), rel=1e-3)
        assert star["sma"] * np.cos(np.radians(star["i"])) < 0.9


def test_catalogue_is_near_the_truth_but_not_it(planets):
    table = catalogue_table(planets, 5, settings()["catalogue"])
    for name, expected in (("sma", 0.03), ("Rs", 0.03), ("Ms", 0.04), ("P", 1e-4)):
        off = table[name].to_numpy() / [planet.star[name] for planet in planets] - 1
        assert off.std() == pytest.approx(expected, rel=0.1), name


def test_colour_of_stars_against_astropy():
    wavelength_um = np.array([0.7, 2.0, 3.9])
    photon_rate = [
        BlackBody(t * units.K)(wavelength_um * units.um).value / wavelength_um for t in (4500, 6500)
    ]  # per frequency, over energy x d(frequency)/d(wavelength): B_nu / (h nu) x c / wavelength^2 ~ B_nu / wavelength
    ours = planck_photons(wavelength_um, 4500) / planck_photons(wavelength_um, 6500)
    np.testing.assert_allclose(ours, photon_rate[0] / photon_rate[1], rtol=1e-4)


@pytest.mark.parametrize("molecule, peak_um", [("H2O", 2.7), ("CO2", 2.7), ("CH4", 3.32), ("CO", 2.34), ("NH3", 2.98)])
def test_bands_are_where_molecules_absorb(molecule, peak_um):
    wavelength_um = np.linspace(1.95, 3.6, 500)
    height = opaque_height(wavelength_um, {molecule: 1e-3})
    assert wavelength_um[height.argmax()] == pytest.approx(peak_um, abs=0.05)
    assert set(BANDS) == {"H2O", "CO2", "CH4", "CO", "NH3"}


def test_clouds_flatten_and_haze_slopes():
    wavelength_um = np.linspace(0.7, 3.9, 200)
    assert np.ptp(opaque_height(wavelength_um, {"H2O": 1e-4}, cloud=1e-20)) < 0.02
    hazy = opaque_height(wavelength_um, {}, haze=1e4, haze_slope=4.0)
    assert np.polyfit(np.log(wavelength_um), hazy, 1)[0] == pytest.approx(-4.0)


@pytest.mark.parametrize("off", [(0, 0), (0.1, 0.25), (0.1, -0.25), (-0.1, 0.25), (-0.1, -0.25)])  # two and a half of their widths
def test_limb_darkening_is_physical(off):
    wavelength_um = np.linspace(0.7, 3.9, 50)
    cool, _, hot = both = [limb_darkening(wavelength_um, temperature_k, off) for temperature_k in (4000, 5800, 7000)]
    for u1, u2 in (u.T for u in both):
        assert (u1 > 0).all() and (u1 + 2 * u2 > 0).all()  # the star falls off everywhere, in its middle and at its limb
        assert (u1 + u2 < 1).all()
    assert (cool.sum(1) > hot.sum(1)).all() and all((np.diff(u.sum(1)[::10]) < 0).all() for u in both)


def test_what_the_fit_expects_of_a_limb_is_true_of_our_stars():
    config, um = settings(), wavelength_grid_um()
    planets = [draw_planet(0, number, config) for number in range(300)]
    expected = np.array([limb_darkening_prior(torch.from_numpy(um), planet.star["Ts"]).numpy().T for planet in planets])
    off = np.array([planet.limb_darkening for planet in planets]) - expected
    for value, name in ((off.sum(2), "sum"), (off[..., 0] - off[..., 1], "difference")):
        width, scatter = group("fit").limb_darkening[name]["width"], config["star"]["limb_scatter"][name]
        assert abs(value[:, 0].mean()) < scatter / 4 and value[:, 0].std() == pytest.approx(scatter, rel=0.15)
        assert (abs(value) < 3.5 * width).all()


def test_a_planet_does_not_depend_on_others_or_on_other_effects():
    config = settings()
    alone = draw_planet(5, planet_number(5, 3), config)
    draw_planet(5, planet_number(5, 2), config)
    after = draw_planet(5, planet_number(5, 3), settings({"star": {"brightness": 0.0}, "catalogue": {"radius": 0.5}}))
    assert (alone.depth == after.depth).all() and alone.star == after.star and after.brightness == 1.0
    assert not np.array_equal(alone.depth, draw_planet(6, planet_number(5, 3), config).depth)


def test_streams_are_unrelated():
    draws = {
        name: rng_for(*name[:3], name[3]).normal(size=2000)
        for name in [(0, 1, 0, "a"), (1, 1, 0, "a"), (0, 2, 0, "a"), (0, 1, 1, "a"), (0, 1, -1, "a"), (0, 1, 0, "b")]
    }
    correlation = np.corrcoef(list(draws.values())) - np.eye(len(draws))
    assert abs(correlation).max() < 0.1


def test_given_depths_are_kept():
    depth = np.linspace(0.01, 0.02, 283)
    planet = draw_planet(0, 1, settings(), depth)
    assert (planet.depth == depth).all() and planet.atmosphere == {}


def test_a_switch_takes_an_effect_out_whatever_its_amplitude():
    for effect, paths in AMPLITUDES.items():
        tree, before = settings({"switches": {effect: False}}), settings()
        for path in paths:
            section, name = path.split(".") if "." in path else (None, path)
            values = (tree if section is None else tree[section])[name], (before if section is None else before[section])[name]
            off, on = (list(v.values()) if isinstance(v, dict) else [v] for v in values)
            assert not any(off) and all(on), path
        changed = {name for name in tree if tree[name] != before[name]} - {"switches"}
        assert changed == {path.split(".")[0] for path in paths}
    assert set(AMPLITUDES) == set(settings()["switches"])


@pytest.mark.parametrize(
    "changes, words",
    [({"jiter": {}}, "Did you mean 'jitter'"), ({"jitter": {"whte_px": 1}}, "white_px"), ({"jitter": 3}, "form")],
)
def test_unknown_settings_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        settings(changes)
    assert caught.value.exit_code == 2
