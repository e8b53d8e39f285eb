"""Standard curves of a data set: the same bytes whoever makes them, each made once, and one bad visit costs itself."""

import numpy as np
import pytest

from spectramind_nb.core import workforce
from spectramind_nb.core.config_groups import group
from spectramind_nb.learning.planetset import planet_set
from spectramind_nb.learning.standard_curves import Bins, standard_curves
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.lightcurve_files import adopt_light_curves
from spectramind_nb.physics import fitting
from spectramind_nb.simulation import dataset

BINS = Bins(time=20, wavelength=12)
TWICE = {"population": {"second_visit": 0.5}}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A data set, its configuration, and the fits of its training planets, whose light curves are in two caches."""
    folder = tmp_path_factory.mktemp("set")
    challenge = open_challenge(dataset.simulate(folder / "one", 3, 1, seed=3, short=True, config=TWICE, level="lightcurves", workers=1))
    detector, caches = group("detector"), [folder / "alone", folder / "together"]
    for cache in caches:
        adopt_light_curves(challenge, "train", detector, cache)
    return challenge, detector, fitting.fit(challenge, "train", detector, store_root=caches[0], workers=1), caches


def made(fitted, cache, workers):
    challenge, detector, fits, _ = fitted
    return standard_curves(challenge, "train", fits, detector, group("fit"), BINS, cache, workers)


def test_processes_and_one_after_another_make_the_same_bytes(fitted, monkeypatch):
    alone = made(fitted, fitted[3][0], 1)
    monkeypatch.setattr(workforce, "START_S", 0.0)
    started, pool = [], workforce.in_processes
    monkeypatch.setattr(workforce, "in_processes", lambda *words: started.append(words) or pool(*words))
    together = made(fitted, fitted[3][1], 2)
    assert started and list(alone) == list(together) and len(alone) == 3
    assert all(np.array_equal(curves, together[planet]) and (curves[1] > 0).any() for planet, curves in alone.items())
    assert all(np.array_equal(curves, alone[planet]) for planet, curves in made(fitted, fitted[3][1], 2).items())
    assert len(started) == 1  # each was made once


def test_a_visit_that_fails_costs_itself_and_is_named(fitted, monkeypatch, capsys, tmp_path):
    challenge, detector, fits, _ = fitted
    adopt_light_curves(challenge, "train", detector, tmp_path)
    first, *others = sorted(fits)
    del (broken := dict(fits[first].geometry))["mid_time_h"]
    odd = {**fits, first: fitting.replace(fits[first], geometry=broken)}
    curves = standard_curves(challenge, "train", odd, detector, group("fit"), BINS, tmp_path, 1)
    assert f"planet {first.planet_id} visit {first.visit} has no standard curves" in capsys.readouterr().err
    assert not curves[first.planet_id].any() or any(visit.planet_id == first.planet_id for visit in others)
    assert all(curves[visit.planet_id].any() for visit in others)


def test_a_fit_that_is_not_believed_sets_no_clock(fitted, tmp_path):
    """As in `planet_set`: the visit counts as none, be it the only one of its planet or one of two, and be there no other planet."""
    challenge, detector, fits, _ = fitted
    adopt_light_curves(challenge, "train", detector, tmp_path)
    first = next(visit for visit in sorted(fits) if visit.visit == 1)
    alone = next(visit for visit in sorted(fits) if visit._replace(visit=1) not in fits)
    bent = {visit: fitting.replace(fit, nuisance=fit.nuisance + 20) for visit, fit in fits.items()}

    def curves(of):
        return standard_curves(challenge, "train", of, detector, group("fit"), BINS, tmp_path, 1)

    several, seen = curves({**fits, first: bent[first], alone: bent[alone]}), curves({v: f for v, f in fits.items() if v != first})
    assert not several[alone.planet_id].any() and several[first.planet_id].any()
    assert np.array_equal(several[first.planet_id], seen[first.planet_id])
    nobody = curves(bent)
    assert len(nobody) == 3 and not any(found.any() for found in nobody.values())
    planets, stars = challenge.planets("train"), challenge.stars("train")
    for nothing in (nobody, curves({})):
        assert planet_set(planets, bent, stars, curves=nothing).curves.shape == (3, *BINS.shape)
