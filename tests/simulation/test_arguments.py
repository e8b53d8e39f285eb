"""What cannot be simulated is refused with a sentence, before a folder is made."""

import json

import numpy as np
import pytest

from spectramind_nb.core.errors import ConfigError, DamagedFileError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.simulation import planets
from spectramind_nb.simulation.dataset import simulate
from spectramind_nb.simulation.settings import settings

TINY = {"frames": {"short": {"FGS1": 24, "AIRS-CH0": 12}}, "long_column": True}


@pytest.mark.parametrize("changes, words", [
    ({"population": {"max_impact_parameter": 0}}, "max_impact_parameter: must be greater than 0, not 0"),
    ({"population": {"depth": [0.025, 3e-4]}}, "the smaller first"),
    ({"population": {"depth": [0.025]}}, "two depths"),
    ({"population": {"depth": 0.025}}, "must be a list"),
    ({"population": {"shape_rms_ppm": [200.0, 20.0]}}, "the smaller first"),
    ({"population": {"second_visit": 2}}, "from 0 to 1"),
    ({"jitter": {"red_hours": 0}}, "red_hours: must be greater than 0"),
    ({"drift": {"wavelength_degree": -1}}, "at least 0"),
    ({"drift": {"time_degree": 2.5}}, "a whole number"),
    ({"star": {"airs_electrons": 0}}, "greater than 0"),
    ({"star": {"airs_um": ["red"]}}, "must be a number, not 'red'"),
    ({"frames": {"short": {"FGS1": 25}}}, "an even number"),
    ({"adc": {"gain": 0}}, "greater than 0"),
    ({"star": {"airs_um": [1.0, 2.0]}}, "with a value of airs_shape for each"),
    ({"star": {"airs_um": [4.0, 2.0], "airs_shape": [1.0, 1.0]}}, "must ascend"),
    ({"drift": {"amplitude": None}}, "wrong form"),
])
def test_settings_that_make_no_planet_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        settings(changes)


def test_settings_may_be_numpy_s():
    assert settings({"population": {"depth": np.array([1e-3, 2e-3])}, "drift": {"time_degree": np.int64(2)}}) == settings(
        {"population": {"depth": [1e-3, 2e-3]}, "drift": {"time_degree": 2}})


def test_a_range_that_no_planet_falls_into_ends_the_search(monkeypatch):
    monkeypatch.setattr(planets, "_MOST_DRAWS", 100)
    with pytest.raises(ConfigError, match="none of 100 planets"):
        planets.draw_planet(0, 1, settings({"population": {"depth": [0.8, 0.9]}}))


@pytest.mark.parametrize("arguments, words", [
    ({"seed": -1}, "seed is -1"), ({"seed": 0.5}, "seed is 0.5"), ({"workers": -1}, "workers is -1"), ({"workers": 0}, "workers is 0"),
    ({"train": 1.0}, "train is 1.0"), ({"test": -1}, "test is -1"),
])
def test_numbers_that_count_nothing_are_refused(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        simulate(tmp_path / "root", **{"train": 1, "test": 1, "short": True, "config": TINY} | arguments)
    assert not (tmp_path / "root").exists()


def test_numpy_s_numbers_and_the_home_folder_are_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    made = simulate("~/root", np.int64(1), np.int32(0), seed=np.int64(3), short=True, config=TINY, level="lightcurves")
    assert made == tmp_path / "root" == simulate(made, 1, 0, seed=3, short=True, config=TINY, level="lightcurves")


@pytest.mark.parametrize("note", ["[]", "3", '{"recipe": []}', '{"recipe": {"level": ["x"]}}'])
def test_a_note_of_another_form_is_told(tmp_path, note):
    (tmp_path / "train" / "7").mkdir(parents=True)
    (tmp_path / "simulation.json").write_text(note)
    with pytest.raises(DamagedFileError, match="cannot be read"):
        simulate(tmp_path, 1, 1, short=True, config=TINY)
    assert open_challenge(tmp_path).level == "frames"
    assert json.loads((tmp_path / "simulation.json").read_text()) == json.loads(note)
