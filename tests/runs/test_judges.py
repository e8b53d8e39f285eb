"""Who judges a run: never planets that it has learned from; and a signal that comes while planets are fitted ends the command."""

import os
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.apps.scoring import score
from spectramind_nb.core.errors import ConfigError, DataMissingError, InterruptedRun, TerminatedRun, WallReached
from spectramind_nb.learning import standard_curves
from spectramind_nb.learning.planetset import split_planets
from spectramind_nb.observations import lightcurves
from spectramind_nb.physics import fitting
from spectramind_nb.runs.comparison import compare, planet_scores
from spectramind_nb.runs.directory import training_state
from spectramind_nb.runs.learning_curve import learning_curve
from spectramind_nb.runs.run import Run, evaluate
from spectramind_nb.runs.training import train
from spectramind_nb.runs.wall_and_signals import Signals
from spectramind_nb.simulation.dataset import simulate

WORDS = ["data=ariel2025", "data.root=data", "data.batch_size=4", "data.workers=1", "trainer.max_epochs=3"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run on 11 of 12 planets, trained before the twelfth came."""
    folder = tmp_path_factory.mktemp("grown")
    root = simulate(folder / "data", 12, 2, seed=4, short=True, level="lightcurves", workers=1)
    planet = sorted((root / "train").iterdir())[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPECTRAMIND_CACHE", raising=False)
        shutil.move(planet, folder / "held")
        run = train(overrides=WORDS, resume="never")
        before, metrics = planet_scores(run), evaluate(run)
        shutil.move(folder / "held", planet)
    return folder, run, before, metrics


@pytest.fixture
def there(grown, monkeypatch):
    monkeypatch.chdir(grown[0])
    monkeypatch.delenv("SPECTRAMIND_CACHE", raising=False)
    return grown


def test_after_the_data_have_grown_a_run_is_judged_by_what_it_has_not_learned_from(there):
    folder, run, before, metrics = there
    labelled = [int(path.name) for path in (folder / "data" / "train").iterdir()]
    reshuffled = split_planets(labelled, run.config.data.validation_fraction, run.config.data.split_seed)[1]
    assert set(reshuffled) & set(run.learned), "what would be held out now was learned from"
    after = planet_scores(run)
    new = set(labelled) - set(run.learned) - set(before.index)
    assert len(new) == 1 and set(after.index) == set(before.index) | new
    assert (after[before.index] == before).all() and before.mean() == pytest.approx(metrics["val/score"])
    assert evaluate(run)["val/score"] == pytest.approx(after.mean())


def test_a_learning_curve_ends_at_the_run_also_after_the_data_have_grown(there):
    _, run, *_ = there
    last = learning_curve(run, [4]).iloc[-1]
    assert last["planets"] == len(run.learned) and last["score"] == pytest.approx(evaluate(run)["val/score"])


@pytest.mark.parametrize("words", [["data.split_seed=1"], ["data.validation_fraction=0.9"]])
def test_no_other_split_lets_a_run_be_judged_by_what_it_learned_from(there, words):
    _, run, *_ = there
    assert evaluate(run, words)["val/score"] == pytest.approx(evaluate(run)["val/score"])


def test_a_branch_is_not_judged_by_what_its_trunk_learned_from(there):
    _, run, *_ = there
    with pytest.raises(ConfigError, match="learned from before it began"):
        train(overrides=[*run.overrides, "data.split_seed=1", "trainer.max_epochs=9"], fork=run, resume="never")


def test_planets_of_another_data_set_are_split_as_always(there):
    folder, run, *_ = there
    simulate(folder / "other", 6, 1, seed=9, short=True, level="lightcurves", workers=1)
    assert np.isfinite(evaluate(run, ["data.root=other"])["val/score"])


def test_who_knows_all_planets_is_judged_by_nobody(there, monkeypatch):
    folder, run, *_ = there
    everybody = [int(path.name) for path in (folder / "data" / "train").iterdir()]
    monkeypatch.setattr(Run, "learned", property(lambda self: everybody))
    with pytest.raises(DataMissingError, match="learned from all 12 planets"):
        evaluate(run)


def test_a_comparison_says_that_the_data_are_others(there):
    _, run, *_ = there
    later = train(overrides=WORDS, resume="never")
    found = compare([run, later])
    assert found.changed.index.tolist() == ["files of the data"] and len(set(found.changed.loc["files of the data"])) == 2
    judges = set(planet_scores(run).index) & set(planet_scores(later).index)
    assert not judges & set(run.learned) and not judges & set(later.learned)


def test_a_run_that_is_looked_at_from_elsewhere_keeps_its_data(there, tmp_path, monkeypatch):
    folder, run, *_ = there
    known = evaluate(run)
    simulate(tmp_path / "data", 6, 1, seed=9, short=True, level="lightcurves", workers=1)
    monkeypatch.chdir(tmp_path)
    assert evaluate(run.dir) == known


def test_a_run_cannot_end_before_where_it_is(there):
    trunk = train("ablation", WORDS, resume="never")  # which keeps every epoch
    last = max((trunk.dir / "checkpoints").glob("*.ckpt"), key=lambda path: training_state(path)["epoch"])
    with pytest.raises(ConfigError, match="has seen 2 epochs and is to end after 1"):
        train("ablation", [*WORDS[:-1], "trainer.max_epochs=1"], resume=last)


def test_a_submission_of_simulated_planets_is_scored(there):
    folder, run, *_ = there
    known = evaluate(run.dir / "submission.csv", ["data=ariel2025", f"data.root={folder / 'data'}"])["val/score"]
    truth, labels = (pd.read_csv(folder / "data" / name) for name in ("truth/test.csv", "train.csv"))
    assert known == pytest.approx(score(run.dir / "submission.csv", truth, labels)["score"], abs=1e-9)


@pytest.mark.parametrize("number, kind", [(signal.SIGINT, InterruptedRun), (signal.SIGTERM, TerminatedRun), (signal.SIGUSR2, WallReached)])
@pytest.mark.parametrize(
    "module, work",
    [
        (fitting, "fit_visit"),
        (fitting, "load_light_curves"),
        (lightcurves, "extract_visit"),
        (standard_curves, "standard_visit"),
    ],
)
def test_a_signal_while_planets_are_worked_on_is_no_fault_of_a_planet(number, kind, module, work, monkeypatch):
    monkeypatch.setattr(module, work, lambda *words: os.kill(os.getpid(), number))
    for name in ("visit_key", "load_light_curves"):
        if name != work and hasattr(module, name):
            monkeypatch.setattr(module, name, lambda *words: "key")

    class Empty:
        def has(self, key):
            return False

    planet = lightcurves.Visit(1, 0)
    with Signals(), pytest.raises(kind):
        if module is fitting:
            fitting._fit_into_store(None, Empty(), Empty(), {}, fitting.FitTask(planet, "key", None, "address"))
        elif module is lightcurves:
            lightcurves._calibrate_visit(None, "train", {}, Empty(), 1, planet)
        else:
            task = standard_curves.CurvesTask(planet, "key", {}, 0.01, 5000.0, "address")
            standard_curves._curves_into_store(Empty(), Empty(), {}, standard_curves.Bins(8, 8), task)
