"""A submission is written whole or not at all, and every fault is named by planet and column."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, NonFiniteError, SchemaError
from spectramind_nb.runs import submission

IDS = [30, 10, 20]


@pytest.fixture
def good(tmp_path):
    rng = np.random.default_rng(0)
    mu, sigma = rng.uniform(0, 0.02, (3, 283)), rng.uniform(1e-6, 1e-3, (3, 283))
    return submission.write(tmp_path / "submission.csv", IDS, mu, sigma), mu, sigma


def rewrite(path, change):
    """Change the file's cells as text."""
    rows = list(csv.reader(path.open()))
    change(rows)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_written_numbers_are_read_back_to_the_bit_by_another_reader(good):
    path, mu, sigma = good
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["planet_id", *(f"wl_{i}" for i in range(1, 284)), *(f"sigma_{i}" for i in range(1, 284))]
    assert [int(row[0]) for row in rows[1:]] == IDS
    assert np.array_equal(np.array([[float(cell) for cell in row[1:]] for row in rows[1:]]), np.hstack([mu, sigma]))
    table = submission.read(path)
    assert np.array_equal(table.iloc[:, 1:].to_numpy(), np.hstack([mu, sigma])) and table["planet_id"].tolist() == IDS


@pytest.mark.parametrize("fault, words", [
    (lambda rows: [row.pop(4) for row in rows], "column wl_4 is missing"),
    (lambda rows: [row.append("0.1") for row in rows], "column 0.1 does not belong"),
    (lambda rows: rows[0].__setitem__(slice(2, 4), ["wl_3", "wl_2"]), "column 3 is wl_3 where wl_2 belongs"),
    (lambda rows: rows[2].__setitem__(566, "-0.001"), "planet 10, column sigma_283 is not positive"),
    (lambda rows: rows[2].__setitem__(284, "0"), "planet 10, column sigma_1 is not positive"),
    (lambda rows: rows[1].__setitem__(2, "-1e-9"), "planet 30, column wl_2 is negative"),
    (lambda rows: rows[3].__setitem__(1, "oops"), "planet 20, column wl_1 holds 'oops'"),
    (lambda rows: rows[3].__setitem__(0, "10"), "planet 10 appears more than once"),
    (lambda rows: rows[3].__setitem__(0, "1e3"), "row 3 has planet_id '1e3'"),
    (lambda rows: rows[2].__setitem__(0, "9" * 30), "row 2 has planet_id '9999.* whole number of at most 18 digits"),
    (lambda rows: rows[2].append("0.1"), "the rows differ in length"),
    (lambda rows: rows.__delitem__(slice(1, None)), "no planets"),
])
def test_a_wrong_table_is_a_schema_error_that_says_where(good, fault, words):
    path = rewrite(good[0], fault)
    with pytest.raises(SchemaError, match=words.replace("(", r"\(")) as caught:
        submission.validate(path)
    assert caught.value.exit_code == 10


@pytest.mark.parametrize("word", ["nan", "", "inf", "-inf"])
def test_a_number_that_is_none_is_a_non_finite_error(good, word):
    path = rewrite(good[0], lambda rows: rows[2].__setitem__(7, word))
    with pytest.raises(NonFiniteError, match="planet 10, column wl_7"):
        submission.validate(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(DataMissingError):
        submission.validate(tmp_path / "nothing.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DamagedFileError):
        submission.validate(tmp_path / "empty.csv")


def test_the_sample_decides_which_planets_belong(good, tmp_path):
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"planet_id": [10, 20, 30], "wl_1": 0.0}).to_csv(sample, index=False)
    assert submission.validate(good[0], sample).planets == 3
    pd.DataFrame({"planet_id": [10, 20, 30, 40]}).to_csv(sample, index=False)
    with pytest.raises(SchemaError, match="planet 40 is missing"):
        submission.validate(good[0], sample)
    pd.DataFrame({"planet_id": [10, 20]}).to_csv(sample, index=False)
    with pytest.raises(SchemaError, match="planet 30 is not in the sample"):
        submission.validate(good[0], sample)
    for wrong in ("ten", "9" * 30):
        pd.DataFrame({"planet_id": [10, wrong]}).to_csv(sample, index=False)
        with pytest.raises(SchemaError, match=f"row 2 has planet_id '{wrong}', which is not a whole number.* .*sample.csv"):
            submission.validate(good[0], sample)


def test_a_refused_prediction_leaves_the_old_file_and_no_litter(good):
    path, mu, sigma = good
    before = path.read_bytes()
    for spoiled_mu, spoiled_sigma in ((mu * np.nan, sigma), (mu, -sigma), (mu[:, 1:], sigma)):
        with pytest.raises((SchemaError, NonFiniteError)):
            submission.write(path, IDS, spoiled_mu, spoiled_sigma)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["submission.csv"]


def test_the_baseline_scores_nothing_and_is_valid(tmp_path):
    from spectramind_nb.learning.metrics import ariel_score

    path = submission.write_baseline(tmp_path / "b.csv", IDS, 0.012, 0.008)
    table = submission.read(path)
    mu, sigma = (table[list(names)].to_numpy() for names in (submission.DEPTH_COLUMNS, submission.SIGMA_COLUMNS))
    truth = np.random.default_rng(1).uniform(0.001, 0.02, mu.shape)
    assert ariel_score(mu, sigma, truth, 0.012, 0.008) == 0.0


def test_a_prediction_replaces_submissions_only(whole_run, short_root, tmp_path):
    """A file name that was mistyped costs no labels, no file of a run, nobody's notes."""
    labels = Path(shutil.copy(short_root / "train.csv", tmp_path))
    (tmp_path / "notes.txt").write_text("words")
    for place in (labels, whole_run.dir / "config.yaml", whole_run.dir / "submission.csv", tmp_path / "notes.txt"):
        before = place.read_bytes()
        with pytest.raises(ConfigError, match="Choose another"):
            whole_run.predict(out=place)
        assert place.read_bytes() == before
    (tmp_path / "empty.csv").touch()
    for name in ("empty.csv", "new.csv", "new.csv", "new.csv.gz", "new.csv.gz"):
        whole_run.predict(out=tmp_path / name)
        assert submission.validate(tmp_path / name).planets == 2
