"""The compiled model of a visit says what the plain one says."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference_model import ReferenceModel
from synthetic_visits import observe

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.errors import ConfigError
from spectramind_nb.physics.channel_curves import occultation_terms
from spectramind_nb.physics.instrument_model import functions_at, jacobian_at
from spectramind_nb.physics.noise import common_shapes
from spectramind_nb.physics.normal_equations import wanted_covariance
from spectramind_nb.physics.normalised_curves import normalise
from spectramind_nb.physics.orbit import orbit_prior, separation_gradients
from spectramind_nb.physics.visit_model import VisitModel, noise_patterns, normal_equations


def made_up(seed, white=False, **visit):
    """Curves with pointing and values that are not good, and parameters somewhere about the truth."""
    light_curves, star, truth = observe(seed, bins=(300, 90), **visit)
    rng = np.random.default_rng(seed)
    light_curves.flux["AIRS-CH0"][rng.integers(0, 90, 30), rng.integers(0, 282, 30)] = np.nan
    light_curves.flux["AIRS-CH0"][:, 200] = np.nan
    light_curves.pointing.update({"FGS1": rng.normal(size=(300, 2)), "AIRS-CH0": rng.normal(size=(90, 3))})
    curves, settings = normalise(light_curves), group("fit")
    curves = [c.white() for c in curves] if white else curves
    ours, plain = (kind(curves, orbit_prior(star, 3.75, settings["geometry"]), 5600.0, settings) for kind in (VisitModel, ReferenceModel))
    parameters = ours.mean + 0.5 * ours.width * torch.from_numpy(rng.normal(size=len(ours.mean)))
    parameters[ours.depths] = float(truth.mean()) * torch.from_numpy(rng.uniform(0.98, 1.02, ours.total))
    parameters[ours.shared + ours.total:] = torch.from_numpy(rng.uniform(0.99, 1.01, ours.total))
    return ours, plain, parameters, settings


def whole(equations):
    """The curvature of an arrow as one matrix, and its gradient."""
    n, channels = len(equations.gradient), len(equations.own)
    curvature = torch.zeros(n + 2 * channels, n + 2 * channels, dtype=torch.float64)
    curvature[:n, :n] = equations.shared
    at = n + torch.arange(channels)
    for a in range(2):
        curvature[at + a * channels, :n], curvature[:n, at + a * channels] = equations.cross[:, a], equations.cross[:, a].T
        for b in range(2):
            curvature[at + a * channels, at + b * channels] = equations.own[:, a, b]
    return curvature, torch.cat([equations.gradient, *equations.own_gradient.T])


@pytest.mark.parametrize("visit", [{}, {"white": True}, {"mid_time_h": 0.5}, {"depth": 0.0}, {"channels": 282, "impact": 0.95}])
def test_compiled_normal_equations_are_those_of_the_plain_model(visit):
    ours, plain, parameters, settings = made_up(3, **visit)
    assert torch.equal(ours.mean, plain.mean) and torch.equal(ours.width, plain.width)
    equations, (chi2, curvature, gradient) = normal_equations(ours, parameters), plain.normal_equations(parameters)
    assert equations.chi2 == pytest.approx(chi2, rel=1e-9)
    arrow, downhill = whole(equations)
    scale = curvature.diagonal().sqrt()
    assert ((arrow - curvature) / scale / scale[:, None]).abs().max() < 1e-9
    assert ((downhill - gradient) / scale).abs().max() < 1e-6


def test_step_and_covariance_are_those_of_the_whole_matrix():
    ours, plain, parameters, settings = made_up(4)
    _, curvature, gradient = plain.normal_equations(parameters)
    equations = normal_equations(ours, parameters)
    for damping in (0.0, 1e-2):
        expected = torch.linalg.solve(curvature + damping * torch.diag(curvature.diagonal()), gradient)
        assert torch.allclose(equations.step(damping), expected, rtol=1e-6, atol=1e-9)
    response = torch.linalg.inv(curvature)
    wanted = torch.cat([torch.arange(len(parameters))[ours.depths], ours.nuisances])
    expected = response[wanted][:, wanted].clone()
    patterns = []
    for i, c in enumerate(ours.curves):
        shapes = common_shapes(c, 3)
        power = torch.from_numpy(np.random.default_rng(i).uniform(0, 3, (len(shapes), len(c.time_h))))
        patterns += noise_patterns(ours, i, parameters, shapes, power)
        for shape, strength in zip(shapes, power):
            expected += response[wanted] @ plain.common_response(i, parameters, shape, strength) @ response[:, wanted]
    ratio = wanted_covariance(equations, ours.nuisances, patterns) / expected.diagonal().sqrt().outer(expected.diagonal().sqrt())
    assert (ratio - expected / expected.diagonal().sqrt().outer(expected.diagonal().sqrt())).abs().max() < 1e-6


# -- exposures -------------------------------------------------------------------------------------------------------


def exposed(hours):
    """A model of white light with exposures of so many hours, in which the planet is as deep as it gets, and its parameters."""
    light_curves, star, _ = observe(5, bins=(300, 90))
    curves = [replace(c.white(), exposure_h=hours) for c in normalise(light_curves)]
    model = VisitModel(curves, orbit_prior(star, 3.75, group("fit")["geometry"]), 5600.0, group("fit"))
    parameters = model.mean.clone()
    parameters[0], parameters[1], parameters[model.depths] = 0.1, 0.02, 0.014
    return model, parameters


@pytest.mark.parametrize("minutes", [3, 10, 29.4, 60])
def test_an_exposure_is_the_mean_of_its_moments_to_a_few_ppm(minutes):
    model, parameters = exposed(minutes / 60)
    instrument, _, functions = model.at(1, parameters)
    within = minutes / 60 * ((np.arange(1000) + 0.5) / 1000 - 0.5)
    moments = (instrument.time_h[:, None] + within).ravel()
    alone = instrument._replace(time_h=moments, slow=np.repeat(instrument.slow, 1000, axis=0), within_h=np.zeros(1), share=np.ones(1))
    exact = functions_at(alone, parameters[:4].numpy(), 0.014).reshape(-1, 1000, functions.shape[1]).mean(axis=1)
    first = instrument.slow.shape[1]
    assert np.abs(functions - exact)[:, first:first + 3].max() < 4e-6  # hidden light
    assert (np.abs(functions - exact).max(axis=0) <= 5e-2 * np.abs(exact).max(axis=0) + 1e-12).all()  # derivatives: steep at contacts


def test_derivatives_of_exposures_are_those_of_finite_differences():
    model, parameters = exposed(0.5)
    instrument, channels, functions = model.at(1, parameters)
    jacobian = jacobian_at(instrument, channels, len(model.shared_by(1)))[0]
    at, step = [*model.shared_by(1)[:6].tolist(), model.depths.start + 1], 1e-6
    for row, p in zip([*range(6), -2], at):
        shift = step * torch.eye(len(parameters), dtype=torch.float64)[p]
        slope = (model.residuals(1, parameters - shift) - model.residuals(1, parameters + shift))[:, 0].numpy() / (2 * step)
        found = functions @ jacobian[row] * model.curves[1].good[:, 0].numpy()
        assert np.abs(slope - found).max() < 1e-3 * np.abs(slope).max(), p


def test_exposures_of_nothing_and_the_challenge_s_are_instants():
    assert all(c.exposure_h == 0 for c in normalise(observe(5, bins=(300, 90))[0]))
    for hours in (0.0, 0.005):  # so short that the planet hardly moves
        model, parameters = exposed(hours)
        instrument, _, functions = model.at(1, parameters)
        assert instrument.within_h.tolist() == [0] and instrument.share.tolist() == [1]
    z, _ = separation_gradients(instrument.time_h, parameters[:4].numpy(), 1.0, instrument.middle_h, instrument.period_d)
    first = instrument.slow.shape[1]
    assert np.array_equal(functions[:, first:first + 3], occultation_terms(z, 0.014**0.5)[:, :3])


# -- what is expected of a limb --------------------------------------------------------------------------------------


def in_widths(um, kelvin, u):
    """How far a star's (u1, u2) at a wavelength are from what the fit expects: of their sum and difference, in prior widths."""
    light_curves, star, _ = observe(0, bins=(300, 90))
    curves, settings = normalise(light_curves), group("fit")
    model = VisitModel(curves, orbit_prior(star, 3.75, settings["geometry"]), kelvin, settings)
    i = 0 if um < 1 else 1
    first, channel = (0, 0) if i == 0 else (2, int(np.abs(curves[1].wavelength_um.numpy() - um).argmin()))
    expected, width = model.instruments[i].limb[:, channel], model.width[model.nuisances[2:]].numpy()[first::1 + i][:2]
    off = np.array(u) - expected
    return np.array([off.sum(), off[0] - off[1]]) / width


@pytest.mark.parametrize("um, kelvin, u", [
    (0.7, 5772, (0.34, 0.28)),  # the Sun
    (0.7, 4800, (0.45, 0.20)), (0.7, 6500, (0.30, 0.30)), (2.0, 5800, (0.087, 0.184)), (3.8, 5800, (0.038, 0.142)),  # ExoSim's settings
    (0.7, 4500, (0.28, 0.34)), (0.7, 5800, (0.23, 0.38)), (0.7, 7000, (0.18, 0.42)), (2.9, 5800, (0.137, 0.168)),  # a simulator of ours had
])  # fmt: skip
def test_the_prior_of_limb_darkening_covers_the_sun_and_what_simulators_take(um, kelvin, u):
    assert (np.abs(in_widths(um, kelvin, u)) < 2.5).all()


def test_settings_of_an_older_version_are_refused_in_a_sentence():
    light_curves, star, _ = observe(0, bins=(300, 90))
    settings = {**group("fit"), "limb_darkening": {"u1": {"level": 0.15, "width": 0.08}, "u2": {"level": 0.24, "width": 0.1}}}
    with pytest.raises(ConfigError, match="older version.*fit.limb_darkening"):
        VisitModel(normalise(light_curves), orbit_prior(star, 3.75, settings["geometry"]), 5600.0, settings)
