"""A number that stands twice, a label that is none: what is wrong with one planet costs no other planet anything."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

from spectramind_nb.core.errors import SchemaError
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.records.journal import events
from spectramind_nb.runs.data import labelled_planets, naive_statistics
from spectramind_nb.runs.run import evaluate
from spectramind_nb.runs.submission import validate
from spectramind_nb.runs.training import train

ONE = ["trainer.max_epochs=1", "data.batch_size=2", "data.workers=1"]


def linked(root, out):
    """The data set again, its files shared: stores know them by their content."""
    shutil.copytree(root, out, copy_function=os.link)
    for table in out.glob("*.csv"):  # a test writes to its own
        table.unlink()
        shutil.copy(root / table.name, table)
    return out


def stars_too(root, number, like, split="test"):
    """A star row for a number, as another planet has it."""
    path = root / "test_star_info.csv"
    table, row = pd.read_csv(path), pd.read_csv(root / f"{split}_star_info.csv").query("planet_id == @like")
    pd.concat([table[table.planet_id != number], row.assign(planet_id=number)]).to_csv(path, index=False)


def learned(root) -> tuple[float, pd.DataFrame]:
    run = train(overrides=[f"data.root={root}", *ONE], resume="never")
    return run.metrics["val/score"], pd.read_csv(run.dir / "submission.csv").set_index("planet_id").sort_index()


def evaluated(root, run) -> float:
    return evaluate(run, [f"data.root={root}"])["val/score"]


def test_a_number_in_both_splits_is_two_planets(short_root, here, tmp_path):
    """With the frames of the training planet of that number, or with another's: as under a number of its own."""
    taken = open_challenge(short_root).planets("train")[-1]
    found = {}
    for number in (taken, taken + 1):
        root = linked(short_root, tmp_path / f"same{number}")
        shutil.copytree(root / f"train/{taken}", root / f"test/{number}", copy_function=os.link)
        stars_too(root, number, taken, "train")
        found[number] = learned(root)
    (score, table), (other_score, other) = found.values()
    assert score == other_score and table.rename(index={taken: taken + 1}).sort_index().equals(other)

    first, second = open_challenge(short_root).planets("test")
    assert first < taken  # sums over the test planets keep their order, and so their last bits
    root = linked(short_root, tmp_path / "other")
    (root / f"test/{second}").rename(root / f"test/{taken}")
    (root / "sample_submission.csv").unlink()
    stars_too(root, taken, second)
    whole_score, whole = learned(short_root)
    score, table = learned(root)
    assert score == whole_score and table.rename(index={taken: second}).equals(whole)


def test_a_planet_without_a_folder_that_the_sample_lists_has_a_row(short_root, here, tmp_path):
    """A grader refuses a file that lacks one of its planets."""
    root = linked(short_root, tmp_path / "root")
    first, second = open_challenge(root).planets("test")
    shutil.rmtree(root / f"test/{second}")
    run = train(overrides=[f"data.root={root}", *ONE], resume="never")
    assert validate(run.dir / "submission.csv", root / "sample_submission.csv").planets == 2
    table = run.predict(split="test").set_index("planet_id")
    assert table.loc[second, "sigma_1"] > table.loc[first, "sigma_1"] > 0  # nothing is known of it but its star

    sample = pd.read_csv(root / "sample_submission.csv")
    sample.assign(planet_id=[7, 8]).to_csv(root / "sample_submission.csv", index=False)
    assert open_challenge(root).asked_for() == [first]  # the sample of another data set
    sample.astype({"planet_id": object}).assign(planet_id=[f"{first}.0", "9" * 30]).to_csv(root / "sample_submission.csv", index=False)
    assert open_challenge(root).asked_for() == [first]  # a number that no planet can have
    (root / "sample_submission.csv").write_text("no table")
    assert open_challenge(root).asked_for() == [first]


CELLS = {"empty": None, "text": "deep", "negative": -0.01, "absurd": 12_000.0, "unlike": 0.2, "infinite": np.inf}


@pytest.fixture
def spoilt(short_root, here, tmp_path):
    """A data set whose train.csv a test may change."""
    root = linked(short_root, tmp_path / "root")
    path = root / "train.csv"
    table = pd.read_csv(path).astype({"wl_5": object})

    def write(change):
        change(table.copy()).to_csv(path, index=False)
        return open_challenge(root)

    return root, table["planet_id"].tolist(), write


@pytest.mark.parametrize("kind", CELLS)
def test_one_cell_of_a_label_costs_its_planet_only(spoilt, kind):
    root, planets, write = spoilt

    def change(table):
        table.loc[2, "wl_5"] = CELLS[kind]
        return table

    challenge = write(change)
    assert sorted(labelled_planets(challenge)) == sorted(set(planets) - {planets[2]})
    (fault,) = challenge.label_faults()
    assert f"planet {planets[2]}" in fault and "wl_5" in fault and "train.csv" in fault
    rest = pd.read_csv(root / "train.csv").drop(index=2).drop(columns="planet_id").to_numpy(float)
    assert np.allclose(naive_statistics(challenge), (rest.mean(), rest.std()), rtol=1e-12)


def test_rows_that_are_missing_twice_or_nobodys(spoilt):
    _, planets, write = spoilt
    for change, lost, words in [
        (lambda table: table.drop(index=1), planets[1], f"planet {planets[1]} has no row in train.csv"),
        (lambda table: pd.concat([table, table.loc[[1]].assign(wl_7=0.02)]), planets[1], "more than one row in train.csv"),
        (lambda table: pd.concat([table, table.loc[[1]]]), None, None),
        (lambda table: pd.concat([table, table.loc[[1]].assign(planet_id=5)]), None, "1 planets of train.csv have no folder"),
        (lambda table: table.assign(planet_id=table["planet_id"].astype(str).where(table.index != 1, "new")), planets[1],
         "line 3 of train.csv has planet_id 'new'"),
        (lambda table: table.assign(planet_id=table["planet_id"].astype(float)), None, None),
    ]:
        challenge = write(change)
        assert set(planets) - set(labelled_planets(challenge)) == ({lost} if lost else set())
        assert any(words in fault for fault in challenge.label_faults()) if words else not challenge.label_faults()


def test_a_run_goes_on_without_them_and_says_so_before_the_long_work(spoilt, capsys):
    root, planets, write = spoilt

    def change(table):
        table.loc[2, "wl_5"] = None
        return table.drop(index=4)

    write(change)
    score, table = learned(root)
    lines = capsys.readouterr().err.splitlines()
    told = [number for number, line in enumerate(lines) if line.startswith("left out of training: ")]
    assert len(told) == 2 and np.isfinite(score) and table.notna().all(axis=None)
    assert f"planet {planets[2]}: column wl_5 is empty in train.csv" in lines[told[0]] and f"planet {planets[4]}" in lines[told[1]]
    assert not [line for line in lines[: told[1]] if line.startswith(("calibrating", "fitting"))]


@pytest.mark.parametrize("change, words", [
    (lambda table: table.assign(wl_5=None), "wl_5 is empty in train.csv"),
    (lambda table: table.drop(columns="wl_5"), "column wl_5 is missing"),
    (lambda table: table.head(1), "1 training planets have a label"),
    (lambda table: table.head(0), "0 training planets have a label"),
    (lambda table: table.assign(planet_id=range(6)), "0 training planets have a label"),
    (lambda table: table.set_axis([";".join(table.columns), *table.columns[1:]], axis=1), "column planet_id is missing"),
])
def test_too_few_labels_are_one_sentence_about_train_csv_and_exit_code_10(spoilt, tmp_path, change, words):
    root, _, write = spoilt
    write(change)
    with pytest.raises(SchemaError, match=words) as caught:
        train(overrides=[f"data.root={root}", f"paths.cache={tmp_path / 'empty'}", *ONE], resume="never")
    assert caught.value.exit_code == 10 and "train.csv" in str(caught.value)
    assert "submission.csv" not in str(caught.value) and not list((tmp_path / "empty").rglob("*.npz"))  # before the long work


def test_a_submission_is_scored_against_labels_that_can_be_believed(spoilt, whole_run):
    root, planets, write = spoilt
    table = whole_run.predict(split="train")
    path = root.parent / "submission.csv"
    table.to_csv(path, index=False)

    def change(labels):
        labels.loc[2, "wl_5"] = None
        return labels

    write(change)
    with pytest.raises(SchemaError, match=f"planet {planets[2]}: column wl_5 is empty in train.csv"):
        evaluate(path, [f"data.root={root}", "data=ariel2025"])
    table[table["planet_id"] != planets[2]].to_csv(path, index=False)
    assert 0 <= evaluated(root, path) <= 1


def test_labels_that_were_exchanged_cost_their_planets_only(spoilt, capsys):
    """The tables are in order; only the light curves know that a label is another planet's."""
    root, planets, write = spoilt

    def exchange(table):
        table = table.sort_values("wl_100")
        table.iloc[[0, -1], 1:] = table.iloc[[-1, 0], 1:].to_numpy()
        return table.sort_index()

    depth = pd.read_csv(root / "train.csv").set_index("planet_id")["wl_100"]
    exchanged = {int(depth.idxmin()), int(depth.idxmax())}
    assert depth.max() > 1.5 * depth.min()
    write(exchange)
    run = train(overrides=[f"data.root={root}", *ONE], resume="never")
    told = capsys.readouterr().err
    assert all(f"left out of training and validation: planet {planet}, its label says" in told for planet in exchanged)
    assert run.record["planets"]["train"] + run.record["planets"]["val"] == len(planets) - len(exchanged)
    noted = next(line for line in events(run.dir / "events.jsonl") if line["event"] == "contradictions")
    assert set(noted["left_out"]) == {str(planet) for planet in exchanged}


def test_labels_that_contradict_nearly_everything_are_no_labels(spoilt):
    """Rp/Rs instead of its square, say: then it is the table."""
    root, planets, write = spoilt
    write(lambda table: table.assign(**{name: table[name].astype(float) ** 0.5 for name in table if name.startswith("wl_")}))
    with pytest.raises(SchemaError, match=rf"the labels of {len(planets)} of {len(planets)} planets contradict their light curves"):
        train(overrides=[f"data.root={root}", *ONE], resume="never")
