"""A submission is written whole or not at all, and every fault is named by planet and column."""

import csv
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from spectramind_nb.apps.scoring import score
from spectramind_nb.core.errors import ConfigError, DamagedFileError, DataMissingError, NonFiniteError, SchemaError
from spectramind_nb.observations.challenge import open_challenge
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


@pytest.mark.parametrize("change, kind, words", [
    (lambda table: pd.concat([table, table.iloc[1:]]), SchemaError, "planet 10 appears more than once"),
    (lambda table: table.assign(wl_3=-1e-3), SchemaError, "planet 30, column wl_3 is negative"),
    (lambda table: table.assign(sigma_2=0), SchemaError, "planet 30, column sigma_2 is not positive"),
    (lambda table: table.assign(wl_3=np.nan), NonFiniteError, "planet 30, column wl_3 is not a finite number"),
    (lambda table: table.assign(wl_3="oops"), SchemaError, "planet 30, column wl_3 holds 'oops'"),
    (lambda table: table.drop(columns="wl_4"), SchemaError, "column wl_4 is missing"),
    (lambda table: table.rename(columns={"wl_4": 4}), SchemaError, "column wl_4 is missing"),
    (lambda table: table.assign(planet_id=["30", "10", "b"]), SchemaError, "row 3 has planet_id 'b'"),
    (lambda table: table.iloc[:0], SchemaError, "no planets"),
])
def test_a_table_is_refused_as_its_file_is(good, change, kind, words):
    path, truth = good[0], submission.read(good[0]).iloc[:, :284]
    with pytest.raises(kind, match=words):
        score(change(submission.read(path)), truth)


@pytest.mark.parametrize("change", [
    lambda table: table.set_index("planet_id"), lambda table: table.astype({"planet_id": str}), lambda table: table.astype(str),
    lambda table: table.astype({"wl_1": "Float64"}), lambda table: table.set_axis([7, 7, 7]),
    pl.from_pandas, lambda table: table.to_dict("list"), lambda table: dict(table.items()),
])
def test_a_table_scores_what_its_file_scores(tmp_path, change):
    ids, depths = np.array(IDS), np.random.default_rng(3).uniform(0.009, 0.011, (3, 283))
    path = submission.write(tmp_path / "s.csv", ids, depths, np.full((3, 283), 1e-4))
    truth = pd.DataFrame(depths + 5e-5, columns=list(submission.DEPTH_COLUMNS)).assign(planet_id=ids)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    found = score(path, tmp_path / "truth.csv", tmp_path / "truth.csv")
    assert score(change(submission.read(path)), truth, truth.set_index("planet_id")) == found and 0 < found["score"] < 1
    assert score(path, pl.from_pandas(truth), truth.to_dict("list")) == found
    with pytest.raises(SchemaError, match="column wl_9 is missing .the table of labels"):
        score(path, truth.drop(columns="wl_9"))


def test_planets_without_an_answer_are_told(tmp_path, capsys):
    ids, depths = np.array(IDS), np.random.default_rng(3).uniform(0.009, 0.011, (3, 283))
    truth = pd.DataFrame(depths, columns=list(submission.DEPTH_COLUMNS)).assign(planet_id=ids)
    table = submission.read(submission.write(tmp_path / "s.csv", ids, depths, np.full((3, 283), 1e-4)))
    score(table, truth)
    assert "note" not in capsys.readouterr().err
    score(table.iloc[:2], truth)
    assert "note: 1 of the 3 planets of the table of labels have no row in the submission" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["s.parquet", "s.fits", "s.h5.gz", "s.csv.parquet", "s.xlsx"])
def test_a_submission_under_the_name_of_something_else_is_refused(good, name, tmp_path, monkeypatch):
    path, mu, sigma = good
    with pytest.raises(ConfigError, match="a submission is a CSV table, and s.* is the name of something else"):
        submission.write(tmp_path / name, IDS, mu, sigma)
    with pytest.raises(ConfigError, match="the name of something else"):
        submission.check_replaceable(tmp_path / name)  # before the long work
    if not name.endswith(".gz"):
        with pytest.raises(ConfigError, match="the name of something else"):
            submission.validate(path.rename(tmp_path / name))


@pytest.mark.parametrize("name", ["s.zip", "s.csv.zip", "S.CSV.GZ", "s.csv.gz", "s.csv.xz", "s.csv.bz2", "s"])
def test_a_packed_submission_holds_one_under_its_own_name(good, tmp_path, name):
    path = submission.write(tmp_path / name, IDS, *good[1:])
    pd.testing.assert_frame_equal(submission.read(path), submission.read(good[0]))
    if name.endswith(".zip"):
        assert zipfile.ZipFile(path).namelist() == ["s.csv"]
    else:
        before = path.read_bytes()
        assert submission.write(path, IDS, *good[1:]).read_bytes() == before and b"s.csv" not in before


def test_a_submission_at_home(good, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert submission.write("~/s.csv", IDS, *good[1:]) == tmp_path / "home" / "s.csv"
    assert submission.validate("~/s.csv").planets == 3 and not (tmp_path / "~").exists()


def test_a_link_to_a_run_s_submission_costs_the_run_nothing(good, tmp_path):
    """It was a second name of that file; who writes under it writes a file of its own."""
    own = tmp_path / "logs" / "night" / "submission.csv"
    own.parent.mkdir(parents=True)
    own.write_text("on record")
    own.with_name("audit.json").write_text("{}")
    link = tmp_path / "latest.csv"
    link.symlink_to(own)
    with pytest.raises(ConfigError, match="belongs to a run"):
        submission.check_replaceable(link)
    submission.write(link, IDS, *good[1:])
    assert own.read_text() == "on record" and submission.validate(link).planets == 3 and not link.is_symlink()


def test_a_prediction_goes_home_and_through_links(whole_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link.csv").symlink_to("target.csv")
    for name in ("~/home.csv", "~/link.csv"):
        whole_run.predict(out=name)
    assert submission.validate(tmp_path / "home.csv").planets == submission.validate(tmp_path / "target.csv").planets == 2
    assert (tmp_path / "link.csv").is_symlink()


MU, SIGMA = np.full((2, 283), 0.01), np.full((2, 283), 1e-4)


@pytest.mark.parametrize("planets, mu, kind, words", [
    ([7, 8], np.ma.masked_array(MU, mask=np.arange(566).reshape(2, 283) == 285), NonFiniteError, "planet 8, column wl_3 is not a finite"),
    ([7, 8], MU + 1e-3j, SchemaError, "complex"),
    ([7, 8], "x", SchemaError, "no number"),
    ([7, 8], [[0.1], [0.1, 0.2]], SchemaError, "no number"),
    ([7, 8], None, SchemaError, "shape"),
    *(([7, wrong], MU, SchemaError, f"row 2 has planet_id '{wrong}'") for wrong in (1.7, True, -1, "b", float("nan"), None, 10**30)),
    ([7, np.ma.masked], MU, SchemaError, "row 2 has planet_id"),
    ([], MU[:0], SchemaError, "there are no planets"),
    (None, MU, SchemaError, "the planets are 'None', no list"),
    ("78", MU, SchemaError, "the planets are '78', no list"),
])  # fmt: skip
def test_arrays_that_are_no_prediction_are_refused_before_a_file_is_there(tmp_path, planets, mu, kind, words):
    with pytest.raises(kind, match=words):
        submission.write(tmp_path / "s.csv", planets, mu, SIGMA[: len(MU if planets else [])])
    if planets == [7, 8] and mu is not None:
        with pytest.raises(kind):
            submission.check_values(planets, mu, SIGMA)
    assert not list(tmp_path.iterdir())


def test_a_masked_mean_is_no_baseline(tmp_path):
    with pytest.raises(NonFiniteError, match="planet 7, column wl_5"):
        submission.write_baseline(tmp_path / "s.csv", [7, 8], np.ma.masked_equal(np.where(np.arange(283) == 4, -1.0, 0.01), -1), 1e-4)
    with pytest.raises(SchemaError, match="shape"):
        submission.write_baseline(tmp_path / "s.csv", [7, 8], [0.1, 0.2, 0.3], 1e-4)


@pytest.mark.parametrize("planets", [
    ["7", "8"], np.array([7.0, 8.0]), pd.Index([7, 8]), torch.tensor([7, 8]), list(torch.tensor([7, 8])), (7, np.uint8(8)),
])  # fmt: skip
def test_tensors_with_gradients_and_planets_of_any_kind_are_written(tmp_path, planets):
    mu = torch.tensor(MU, requires_grad=True)
    table = submission.read(submission.write(tmp_path / "s.csv", planets, mu, torch.tensor(SIGMA)))
    assert table["planet_id"].tolist() == [7, 8] and (table["wl_1"] == 0.01).all()


@pytest.mark.parametrize("path", [None, 5, b"s.csv"])
def test_what_is_no_path_is_told(path):
    for call in (lambda: submission.write(path, [7, 8], MU, SIGMA), lambda: submission.read(path), lambda: submission.validate(path),
                 lambda: open_challenge(path)):  # fmt: skip
        with pytest.raises(ConfigError, match="a path is needed, and .* is none"):
            call()


@pytest.mark.parametrize("table", [None, np.ones((3, 567)), 5, [1, 2], {"planet_id": [7], "wl_1": [0.1, 0.2]}, pl.Series([1])])
def test_what_is_no_table_has_no_score(good, table):
    for given, what in (((table, good[0]), "the submission"), ((good[0], table), "the truth")):
        with pytest.raises(SchemaError, match=f"{what} is no table but of type {type(table).__name__}"):
            score(*given)
