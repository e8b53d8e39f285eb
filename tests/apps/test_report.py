"""The report of a run is one page that holds what it says it holds, with the pictures a reader expects."""

import re

import numpy as np
import pytest

from spectramind_nb.apps.figures import Spectrum, plot_branches, plot_learning, plot_planets, plot_residuals, plot_spectra, png_bytes
from spectramind_nb.apps.report import family, report, spectra
from spectramind_nb.runs.runtime import Run, train

HEADINGS = ["Score", "Spectra", "Light curve and fit", "Planet by planet", "Calibration", "Errors", "Learning", "Learning curve",
            "Ablations", "Metrics", "Envelope", "Record", "Configuration"]


@pytest.fixture
def trunk_and_branch(words, here):
    """A run with a snapshot, and a branch of it with another learning rate."""
    if not (here / "logs" / "trunk").is_dir():
        few = [*words, "trainer.max_epochs=2", "trainer.val_check_interval=1"]
        train("ablation", overrides=[*few, "run_id=trunk"])
        more = [*words, "trainer.max_epochs=4", "trainer.val_check_interval=1", "model.optimizer.lr=0.02", "run_id=branch"]
        train("ablation", overrides=more, fork="trunk")
    return Run.open("trunk"), Run.open("branch")


def test_the_page_has_every_section_and_needs_nothing_else(trunk_and_branch):
    trunk, branch = trunk_and_branch
    assert [run.id for run in family(branch)] == [run.id for run in family(trunk)] == ["trunk", "branch"]
    path = branch.report()
    text = path.read_text()
    assert path == branch.dir / "report.html" and len(text) < 5e6
    assert re.findall("<h2>(.*?)</h2>", text) == HEADINGS
    assert "model.optimizer.lr 0.003 → 0.02" in text and "coverage_68" in text and "as they were written" in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "<script" not in text
    pictures = sorted(found.stem for found in (branch.dir / "figures").glob("*.png"))
    assert {"ablations", "calibration", "learning", "light_curve", "light_curve_hardest", "planets", "residuals", "scores",
            "spectrum"} == set(pictures) and text.count("<img alt=") == len(pictures)


def test_a_polished_record_is_said_on_the_page(trunk_and_branch):
    audit = trunk_and_branch[0].dir / "audit.json"
    before = audit.read_text()
    try:
        audit.write_text(before.replace('"finished"', '"polished"'))
        assert "was changed after it was closed" in report(trunk_and_branch[0]).read_text()
    finally:
        audit.write_text(before)


def test_a_run_without_branches_has_no_ablations(whole_run):
    assert "Ablations" not in report(whole_run).read_text() and family(whole_run) == []


def test_spectra_are_the_rows_of_the_submission(whole_run):
    found, table = spectra(whole_run), whole_run.submission()
    assert list(found) == table["planet_id"].tolist()
    one = found[table["planet_id"][0]]
    assert np.array_equal(one.depth, table.loc[0, "wl_1":"wl_283"].to_numpy(float)) and one.truth is not None
    assert f"planet {one.planet_id}" in repr(one) and "<img alt=" in one._repr_html_()
    blind = Spectrum(one.planet_id, one.wavelengths_um, one.depth, one.sigma)
    assert blind.rms_z is None and png_bytes(blind.plot()) != png_bytes(one.plot())


def test_what_users_hold_shows_itself(whole_run):
    from spectramind_nb.observations.lightcurves import LightCurves
    from spectramind_nb.physics.fitting import VisitFit

    for kind in (Run, LightCurves, VisitFit, Spectrum):
        assert callable(kind._repr_html_) and callable(kind.plot)
    assert whole_run.id in whole_run._repr_html_() and len(whole_run.plot().axes) == 2


def test_pictures_do_not_depend_on_colour_alone():
    """In grey, curves of one panel still differ: in line style, marker or hatching."""
    history = {"step": np.arange(4), "train/loss": np.ones(4), "val/nll": np.ones(4), "val/score": np.ones(4), "val/score_fit": np.ones(4)}
    for ax in plot_learning(history).axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in ax.get_lines()]
        assert len(looks) == 2 == len(set(looks))
    markers = [line.get_marker() for line in plot_branches({"a": 0.4, "b": 0.5}).axes[0].get_lines()]
    assert {"s", "o"} <= set(markers)
    x = np.linspace(1, 2, 283)
    right = plot_spectra({"t": Spectrum(1, x, x, 0 * x + 0.1, x, x)}).axes[1]
    assert {line.get_linestyle() for line in right.get_lines()} == {"-", "--", "None"}


def test_pictures_of_more_planets_than_there_is_room_for_names():
    rng = np.random.default_rng(0)
    truth, planets = 0.01 + 1e-4 * rng.normal(size=(40, 283)), list(range(40))
    assert plot_planets({str(planet): 0.5 for planet in planets}).axes[0].get_xticks().size == 0
    mu, sigma = truth + 1e-5 * rng.normal(size=truth.shape), np.full(truth.shape, 1e-5)
    assert plot_residuals(mu, sigma, truth, planets).axes[0].get_yticks().size == 0
