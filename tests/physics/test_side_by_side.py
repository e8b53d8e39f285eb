"""Visits are fitted and simulated by processes where that pays: the same bytes, whoever made them, and a worker's death costs one visit."""

from functools import partial

import pytest
from mortal import dies

from spectramind_nb.core import workforce
from spectramind_nb.core.errors import SpectraMindError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.lightcurve_files import adopt_light_curves
from spectramind_nb.physics import fitting
from spectramind_nb.simulation import dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return dataset.simulate(tmp_path_factory.mktemp("set") / "one", 3, 1, seed=3, short=True, level="lightcurves", workers=1)


def fits_in(root, cache, workers, executor="local"):
    challenge = open_challenge(root)
    detector = {**fitting.group("detector"), "executor": executor}
    adopt_light_curves(challenge, "train", detector, cache)
    return fitting.fit(challenge, "train", detector, store_root=cache, workers=workers)


def test_processes_and_one_after_another_give_the_same_bytes(root, tmp_path, monkeypatch):
    alone = fits_in(root, tmp_path / "alone", 1)
    monkeypatch.setattr(workforce, "START_S", 0.0)
    started = []
    pool = workforce.in_processes
    monkeypatch.setattr(workforce, "in_processes", lambda *words: started.append(words) or pool(*words))
    together = fits_in(root, tmp_path / "together", 2)
    assert started and list(alone) == list(together)
    for visit, fit in alone.items():
        assert fit.diagnostics == together[visit].diagnostics
        assert (fit.depth == together[visit].depth).all() and (fit.covariance == together[visit].covariance).all()
    again = dataset.simulate(tmp_path / "two", 3, 1, seed=3, short=True, level="lightcurves", workers=2)
    assert len(started) == 2
    files = sorted(path.relative_to(root) for path in root.rglob("light_curves_*.npz"))
    assert len(files) >= 4 and all((root / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_a_cluster_fits_the_same(root, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="NOT TESTED ON DASK: it is not installed")
    asked = []
    cluster = fitting.on_cluster
    monkeypatch.setattr(fitting, "on_cluster", lambda *words: asked.append(words) or cluster(*words))
    alone, there = fits_in(root, tmp_path / "alone", 1), fits_in(root, tmp_path / "there", 1, "dask")
    assert asked and list(alone) == list(there)
    assert all((alone[visit].covariance == there[visit].covariance).all() for visit in alone)


def test_a_worker_that_dies_costs_its_item_alone(monkeypatch):
    monkeypatch.setattr(workforce, "START_S", 0.0)
    found = dict(workforce.side_by_side(partial(dies), [0, 1, 2, 3], workers=2, each_s=1.0))
    assert [found[number] for number in (0, 2, 3)] == [0, -2, -3]
    assert isinstance(found[1], SpectraMindError)
