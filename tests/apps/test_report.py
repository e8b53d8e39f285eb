"""The report of a run is one page that holds what it says it holds, with the pictures a reader expects."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.apps import report_sections
from spectramind_nb.apps.figures import plot_branches, plot_learning, plot_planets, plot_residuals, png_bytes
from spectramind_nb.apps.predicted_spectra import Answers, answers, shared_errors_of, spectra
from spectramind_nb.apps.report import report
from spectramind_nb.apps.report_sections import family
from spectramind_nb.apps.spectrum import Spectrum, plot_correlation, plot_spectra
from spectramind_nb.core.errors import DataMissingError
from spectramind_nb.runs import submission
from spectramind_nb.runs.directory import checkpoint_step
from spectramind_nb.runs.run import Run, predict
from spectramind_nb.runs.training import train

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
    assert "model.optimizer.lr 0.003 → 0.02" in text and "truth inside the 68 % interval" in text and "as they were written" in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "<script" not in text
    pictures = sorted(found.stem for found in (branch.dir / "figures").glob("*.png"))
    assert {"ablations", "calibration", "correlation", "learning", "light_curve", "light_curve_hardest", "planets", "residuals", "scores",
            "spectrum"} == set(pictures) and text.count("<img alt=") == len(pictures)


def saved(page):
    """The files that a page has inside, by name."""
    found = re.findall(r'<a download="([^"]+)" href="data:application/octet-stream;base64,([^"]+)"', page.read_text())
    return {name: base64.b64decode(content) for name, content in found}


def test_the_numbers_are_in_the_page(whole_run):
    table, files = whole_run.submission(), saved(report(whole_run))
    planets = table["planet_id"].tolist()
    assert set(files) == {"spectra.csv", *(f"{planet}.npz" for planet in planets)}
    rows = pd.read_csv(io.BytesIO(files["spectra.csv"]))
    assert rows.columns.tolist() == ["planet", "instrument", "wavelength_um", "width_um", "depth", "sigma"]
    assert len(rows) == 283 * len(planets)
    assert np.allclose(rows.loc[rows["planet"] == planets[1], "depth"], table.loc[1, "wl_1":"wl_283"].to_numpy(float), rtol=1e-8)
    with np.load(io.BytesIO(files[f"{planets[1]}.npz"])) as held:
        assert np.array_equal(held["sigma"], table.loc[1, "sigma_1":"sigma_283"].to_numpy(float))
        assert np.allclose(np.diag(held["covariance"]), held["sigma"] ** 2, rtol=1e-12, atol=0)


def test_a_report_is_made_from_the_stores_that_the_run_was_told(workspace, short_root, stores):
    """`make demo` put all in a folder of its own, and its report simulated and fitted the planets once more in the current one."""
    words = [f"data.root={short_root}", "data.batch_size=2", "data.workers=1", "paths.root=elsewhere", f"paths.cache={stores}"]
    Path("elsewhere").mkdir()
    report(train("ci_fast", words))
    assert not [path for path in Path("cache").glob("*") if path.is_dir()], "nothing was simulated, calibrated or fitted here"


def test_who_only_looks_leaves_no_record(whole_run):
    ledger = whole_run.dir.parent / "audit.jsonl"
    before = ledger.read_bytes()
    spectra(whole_run), report(whole_run)
    assert ledger.read_bytes() == before


def test_a_report_says_why_there_is_no_covariance(stopped_run):
    shutil.rmtree(stopped_run.dir / "checkpoints")
    page = report(stopped_run)
    assert "No covariance: these are fallback values and no predictions." in words_of(page)
    with np.load(io.BytesIO(next(content for name, content in saved(page).items() if name.endswith(".npz")))) as held:
        assert "covariance" not in held


def test_a_polished_record_is_said_on_the_page(trunk_and_branch):
    audit = trunk_and_branch[0].dir / "audit.json"
    before = audit.read_text()
    try:
        audit.write_text(before.replace('"finished"', '"polished"'))
        assert "was changed after it was closed" in report(trunk_and_branch[0]).read_text()
    finally:
        audit.write_text(before)


def test_what_was_done_to_another_run_is_not_said_of_this_one(trunk_and_branch, monkeypatch):
    """Of `demo` it said what had been done to `demo-2`."""
    run, logs = trunk_and_branch[0], trunk_and_branch[0].dir.parent
    theirs, ours = [f"config.yaml of {run.id}-2/audit.json was changed after the run", "the ledger does not tell how b/audit.json ended"], [
        f"the record {run.id}/audit.json is gone", "line 3 of the ledger cannot be read", "v50_debug_log.md is not what the ledger tells"]
    monkeypatch.setattr(report_sections.audit, "verify", lambda folder: theirs + ours if folder == logs else [])
    said = report_sections.audit_summary(run)
    assert all(one in said for one in ours) and not any(one in said for one in theirs)


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


def test_a_run_knows_how_the_errors_of_its_spectra_go_together(whole_run, tmp_path):
    found = spectra(whole_run)
    for spectrum in found.values():
        covariance = spectrum.covariance
        assert np.allclose(np.diag(covariance), spectrum.sigma**2, rtol=1e-12, atol=0) and np.linalg.eigvalsh(covariance).min() > 0
        assert "no covariance" not in spectrum.provenance
    found.export("npz", tmp_path)
    with np.load(tmp_path / f"{spectrum.planet_id}.npz") as held:
        assert np.array_equal(held["covariance"], covariance)
    bare = spectra(whole_run, covariances=False)
    assert all(spectrum.covariance is None for spectrum in bare.values())
    with pytest.raises(DataMissingError, match=f"planet {spectrum.planet_id} has standard deviations and no covariance"):
        plot_correlation(bare[spectrum.planet_id])


def test_an_answer_that_the_weights_do_not_give_has_no_covariance(stopped_run, whole_run):
    table = whole_run.submission()
    table.loc[0, "wl_7"] *= 1.01
    shared, why = shared_errors_of(stopped_run, Answers(table, "predicted"))
    assert list(shared) == table["planet_id"].tolist()[1:] and "say something else" in why
    shutil.rmtree(stopped_run.dir / "checkpoints")
    assert shared_errors_of(stopped_run, Answers(table, "predicted")) == ({}, "this run kept no checkpoint, so it cannot predict again")


def test_what_users_hold_shows_itself(whole_run):
    from spectramind_nb.observations.lightcurves import LightCurves
    from spectramind_nb.physics.visit_fit import VisitFit

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
    wavelengths_um = np.concatenate([[0.7], np.linspace(1.95, 3.9, 282)])
    left, right = plot_residuals(mu, sigma, truth, planets, wavelengths_um).axes[:2]
    assert left.get_yticks().size == 0 and [tick.get_text() for tick in right.get_xticklabels()] == ["FGS1", "2.5", "3.0", "3.5"]


@pytest.fixture
def stopped_run(whole_run, here):
    """That run as it would be, had it been stopped while it learned: the fallback submission, no final metrics, its checkpoints."""
    folder = here / "logs" / "stopped"
    if not folder.is_dir():
        shutil.copytree(whole_run.dir, folder, ignore=shutil.ignore_patterns("report.html", "figures"))
        record = {**json.loads((folder / "audit.json").read_text()), "outcome": "interrupted", "exit_code": 130, "metrics": {}}
        (folder / "audit.json").write_text(json.dumps(record))
        lines = (folder / "events.jsonl").read_text().splitlines()
        (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines if '"event": "submission"' not in line))
        submission.write_baseline(folder / "submission.csv", whole_run.submission()["planet_id"].tolist(), 0.01, 0.006)
    yield Run.open("stopped")
    shutil.rmtree(folder)


def words_of(page):
    """What a reader sees, from the first line on."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text().split("<body>")[1]))


def test_the_report_of_a_stopped_run_predicts_with_its_best_checkpoint(stopped_run, whole_run):
    found = answers(stopped_run)
    assert found.table.equals(whole_run.submission()) and found.origin == "predicted with its best checkpoint"
    page = words_of(report(stopped_run))
    assert "submission.csv holds the training mean" in page[:200] and "spectramind predict stopped --out submission.csv" in page[:400]
    assert "score on test planets 0.000" not in page and "the best of 3 validations so far" in page and "Metrics" not in page
    assert {spectrum.origin for spectrum in spectra(stopped_run).values()} == {found.origin}


def test_a_checkpoint_that_is_named_answers_itself(trunk_and_branch):
    """Whatever was named, what the run had submitted was exported."""
    trunk = trunk_and_branch[0]
    first = min((trunk.dir / "checkpoints").glob("[!.]*.ckpt"), key=checkpoint_step)
    found = answers(first)
    assert found.table.equals(predict(first)) and not found.table.equals(trunk.submission())
    assert {spectrum.origin for spectrum in spectra(first, covariances=False).values()} == {f"predicted with its {first.stem} checkpoint"}


def test_without_a_checkpoint_the_report_begins_with_what_it_shows(stopped_run):
    shutil.rmtree(stopped_run.dir / "checkpoints")
    page = words_of(report(stopped_run))
    assert page.startswith(" Run stopped These are fallback values and no predictions: this run kept no checkpoint")
    assert f"Real ones come from: spectramind train {stopped_run.overrides[0]}" in page
    assert re.search(r"score on test planets \d\.\d{3} \(training mean\)", page) and "Predicted" not in page
    assert all("training mean" in repr(spectrum) for spectrum in spectra(stopped_run).values())


def test_to_look_at_a_run_begins_no_long_work(stopped_run, monkeypatch):
    diary = stopped_run.dir / "events.jsonl"
    diary.write_text("".join(line for line in diary.read_text().splitlines(True) if '"event": "fit"' not in line))
    shutil.rmtree(stopped_run.dir / "checkpoints")
    monkeypatch.setattr("spectramind_nb.apps.report_data.fill_split", lambda *_: pytest.fail("a report fills stores"))
    assert "ended before its test planets were fitted" in words_of(report(stopped_run))


def test_the_page_begins_with_outcome_profile_data_and_scores_and_names_no_folder(whole_run, here):
    path = report(whole_run)
    text, page = path.read_text(), words_of(path)
    counts = whole_run.record["planets"]
    first = page[: page.index(" Score ")]
    for said in ("outcome finished after", "profile defaults", f"{counts['train']} planets to learn from; {counts['val']} held out",
                 f"score on validation planets {whole_run.metrics['val/score']:.3f} (raw fit", "score on test planets 0."):
        assert said in first
    assert str(here) not in text and "width=device-width" in text
    assert f'href="logs/{whole_run.id}/report.html"' in path._repr_html_()
    (asked,) = re.findall(r"--learning-curve ([\d,]+)", text)
    assert all(int(count) < counts["train"] for count in asked.split(",")), "numbers that the run did not have are recommended"


def test_what_plots_itself_leaves_no_figure_open(whole_run):
    """In a notebook an open figure is shown a second time, after the one that the cell returns."""
    import matplotlib.pyplot as plt
    import torch

    from spectramind_nb.observations.lightcurves import LightCurves
    from spectramind_nb.physics.visit_fit import VisitFit

    flux = {"FGS1": np.linspace(1, 1.1, 90), "AIRS-CH0": np.linspace(1, 1.1, 60 * 282).reshape(60, 282)}
    times = {"FGS1": np.linspace(0, 7, 90), "AIRS-CH0": np.linspace(0, 7, 60)}
    x = np.linspace(0.7, 4, 283)
    curves = LightCurves(1, 0, "train", flux, {name: 0 * one + 1 for name, one in flux.items()}, times, x, {})
    fitted = SimpleNamespace(depth=torch.full((283,), 0.01), covariance=1e-10 * torch.eye(283), channels={"FGS1": 1, "AIRS-CH0": 282})
    plt.close("all")
    figures = [curves.plot(), VisitFit.plot(fitted, x), whole_run.plot(), Spectrum(1, x, x, 0 * x + 0.1).plot()]
    assert plt.get_fignums() == []
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures[2:]), "a kernel without pyplot shows no picture"
    assert all("um" not in ax.get_xlabel() + ax.get_ylabel() for figure in figures for ax in figure.axes)


def test_curves_of_one_point_are_seen():
    once = {"step": np.array([3.0]), "train/loss": np.array([0.5]), "val/score": np.array([0.4]), "val/score_fit": np.array([0.3])}
    for ax in plot_learning(once).axes:
        assert ax.get_lines() and all(line.get_marker() != "None" for line in ax.get_lines())
        assert 0 <= ax.get_xlim()[0] < 3 < ax.get_xlim()[1] < 4
