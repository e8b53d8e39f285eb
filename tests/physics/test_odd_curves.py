"""Light curves that cannot be fitted are refused in one sentence, and those that can be fitted in spite of it all are fitted."""

import copy

import numpy as np
import pytest
import torch
from synthetic_visits import observe

from spectramind_nb.core.errors import NonFiniteError, SchemaError
from spectramind_nb.physics.fitting import fit_visit

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
