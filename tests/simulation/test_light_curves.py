"""Data sets of light curves: the same planets as with frames, read by every later stage, nothing but files that are there."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.core.config_groups import group
from spectramind_nb.core.configuration import compose
from spectramind_nb.core.errors import ConfigError, DamagedFileError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.lightcurve_files import VisitFiles, adopt_light_curves
from spectramind_nb.observations.lightcurves import lightcurve_store, load_light_curves, visit_key
from spectramind_nb.runs.data import data_manifest, open_data
from spectramind_nb.runs.stages import fit
from spectramind_nb.runs.training import train
from spectramind_nb.simulation.dataset import simulate
from spectramind_nb.simulation.light_curves import observed_light_curves
from spectramind_nb.simulation.planets import draw_planet
from spectramind_nb.simulation.settings import settings
from spectramind_nb.simulation.visits import draw_visit_truth, expected_light

SETTINGS = {"population": {"second_visit": 0.3}, "frames": {"short": {"FGS1": 240, "AIRS-CH0": 120}}}
ASKED = {"train": 5, "test": 2, "seed": 8, "short": True, "config": SETTINGS, "level": "lightcurves"}


def tree(root):
    """Every file's digest."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("light_curves") / "root", **ASKED, workers=1)


def test_tables_and_truth_are_those_of_the_frames(root, tmp_path):
    frames = {"long_column": True, "frames": {"short": {"FGS1": 4, "AIRS-CH0": 4}}}
    whole = simulate(tmp_path / "frames", **ASKED | {"config": SETTINGS | frames, "level": "frames"})
    for name in ("train.csv", "train_star_info.csv", "truth/test.csv", "truth/nuisances.json", "wavelengths.csv"):
        assert (root / name).read_bytes() == (whole / name).read_bytes(), name
    assert open_challenge(root).visits("train") == open_challenge(whole).visits("train")
    assert open_challenge(whole).level == "frames" and open_challenge(root).level == "lightcurves"
    note = json.loads((whole / "simulation.json").read_text())
    del note["recipe"]["level"]  # as before there were levels
    (whole / "simulation.json").write_text(json.dumps(note))
    assert open_challenge(whole).level == "frames"


def test_bytes_do_not_depend_on_workers(root, tmp_path):
    assert tree(simulate(tmp_path / "root", **ASKED, workers=3)) == tree(root)


def test_without_noise_the_expected_light_is_what_is_seen():
    off = settings({"switches": {"photon_noise": False, "read_noise": False, "jitter": False}})
    planet, visit = draw_planet(0, 5, off), draw_visit_truth(0, 5, 0, off)
    curves = observed_light_curves(planet, visit, "train", off["frames"]["short"], 0, off)
    light = expected_light(planet, visit, curves.time_h, off)
    for name in light:
        assert (curves.flux[name] == light[name]).all() and (curves.noise[name] > 0).all()


def test_noise_is_as_large_as_it_is_said_to_be():
    config, z = settings(), {"FGS1": [], "AIRS-CH0": []}
    for number in range(4):
        planet, visit = draw_planet(0, number, config), draw_visit_truth(0, number, 0, config)
        curves = observed_light_curves(planet, visit, "train", config["frames"]["short"], 0, config)
        light = expected_light(planet, visit, curves.time_h, config)
        for name, values in z.items():
            values.append(((curves.flux[name] - light[name]) / curves.noise[name]).std())
    assert np.mean(z["FGS1"]) == pytest.approx(1, abs=0.05) and np.mean(z["AIRS-CH0"]) == pytest.approx(1, abs=0.01)


def test_every_stage_reads_them_instead_of_frames(root, workspace):
    words = [f"data.root={root}", "data.batch_size=2", "data.workers=1", "trainer.max_epochs=1"]
    filled = {done.split: done for done in fit(overrides=words)}
    challenge = open_challenge(root)
    visits = {split: open_challenge(root).visits(split) for split in ("train", "test")}
    assert len(visits["train"] + visits["test"]) > 7 and challenge.planets("test")
    assert {split: list(done.done) for split, done in filled.items()} == visits and not filled["train"].failed
    depths = pd.DataFrame({p: result.depth.numpy() for (p, v), result in filled["train"].done.items() if v == 0})
    z = [(result.diagnostics["white_depth"] - challenge.labels().loc[p].iloc[1:].mean()) / result.diagnostics["white_sigma"]
         for (p, _), result in filled["train"].done.items()]
    assert depths.shape == (283, 5) and np.sqrt(np.mean(np.square(z))) < 3
    run = train(overrides=words)
    assert run.exit_code == 0 and len(run.submission()) == 2
    config = compose(overrides=words)
    named = [name for name in data_manifest(open_data(config))["files"] if "/" in name]
    assert named and all(name.endswith(".npz") for name in named)


def test_a_damaged_file_costs_its_visit_only(root, tmp_path):
    shutil.copytree(root, tmp_path / "root")
    challenge = open_challenge(tmp_path / "root")
    spoilt, *others = challenge.visits("train")
    challenge.inputs("train", *spoilt)["light_curves"].write_bytes(b"no light curves")
    failed = adopt_light_curves(challenge, "train", group("detector"), tmp_path / "cache")
    assert list(failed) == [spoilt] and isinstance(failed[spoilt], DamagedFileError)
    assert f"light_curves_{spoilt.visit}.npz" in str(failed[spoilt])
    store = lightcurve_store(tmp_path / "cache", group("detector"))
    for visit in others:
        kept = load_light_curves(store, visit_key(store, challenge, "train", visit))
        folder = VisitFiles(challenge.root / "train" / str(visit.planet_id))
        own = load_light_curves(folder, f"light_curves_{visit.visit}")
        assert kept.planet_id == visit.planet_id and kept.visit == visit.visit and kept.split == "train"
        assert all((kept.flux[name] == own.flux[name]).all() for name in own.flux)
    (done,) = [done for done in fit(overrides=[f"data.root={challenge.root}", f"paths.cache={tmp_path / 'cache'}"])
               if done.split == "train"]
    assert list(done.failed) == [spoilt] and isinstance(done.failed[spoilt], DamagedFileError)


def test_a_level_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no level 'spectra'"):
        simulate(tmp_path / "root", 1, 0, level="spectra")
    assert not (tmp_path / "root").exists()
