"""Many runs by one command: each once, whatever stops it, and compared with the doubt that few planets leave."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.core.errors import ConfigError, DataMissingError, InterruptedRun, SpectraMindError
from spectramind_nb.records import audit
from spectramind_nb.runs import sweep as sweeps
from spectramind_nb.runs.comparison import compare, paired_difference, planet_scores
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.sweep import combinations, members, sweep
from spectramind_nb.runs.training import train

RATES = "model.optimizer.lr=0.003,0.01,1e9"


def test_hydra_says_what_varies():
    assert [words for _, words in combinations(["seed=range(1,4)"])] == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert [words for _, words in combinations(["seed=1,2,1"])] == [["seed=1"], ["seed=2"]]  # what is written twice is one run
    assert len(combinations(["model=choice(posterior,ensemble)", "seed=1,2", "data.root=a,b"])) == 4  # a path is a text with a comma in it


@pytest.mark.parametrize("words, said", [
    (["seed=1"], "nothing varies"), (["seed=1,two"], "seed"), (["trainer.max_epoch=1,2"], "max_epochs"), (["seed"], "not an override"),
    (["seed=1,2", "run_id=mine"], "--name"),
    (["seed=1,2", "trainer=nope"], "no trainer profile"),
])
def test_what_does_not_compose_is_told_before_the_first_run(here, words, said):
    before = set(here.glob("logs/*"))
    with pytest.raises(ConfigError, match=said):
        sweep(words)
    assert {path.name for path in set(here.glob("logs/*")) - before} <= {"invocations", "audit.jsonl"}


@pytest.mark.parametrize("name", ["invocations", "audit.jsonl", "a/b", ".."])
def test_a_sweep_takes_no_folder_that_is_something_else(here, name):
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        sweep(["seed=1,2"], name)


def test_killed_in_the_middle_each_run_is_done_once_and_one_that_fails_costs_the_others_nothing(words, here):
    """Not only is the sweep killed, but also the run that it had begun. The last of the three cannot but fail."""
    asked = [*words[:-1], "trainer=ci_fast", RATES]
    command = [sys.executable, "-m", "spectramind_nb", "sweep", *asked, "--name", "rates"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert process.stdout.readline().startswith("rates-1 model.optimizer.lr=0.003: finished")
    until = time.monotonic() + 60
    while not (here / "logs/rates-2/audit.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    for leader in (process.pid, audit.load(here / "logs/rates-2/audit.json")["pid"]):
        os.killpg(leader, signal.SIGKILL)
    process.communicate()

    first = Run.open("rates-1").record
    with pytest.raises(SpectraMindError, match=r"1 of 3 runs did not finish: rates-3\b"):
        sweep(asked, "rates")
    table = pd.read_csv(here / "logs/rates/table.csv")
    assert Run.open("rates-1").record == first and table["run"].str.slice(0, 7).tolist() == ["rates-1", "rates-2", "rates-3"]
    assert table["outcome"].tolist() == ["finished", "finished", "failed"] and table["exit_code"].tolist() == [0, 0, 11]
    assert "not finite" in (here / "logs/rates/rates-3.txt").read_text()
    alone = [train("ci_fast", [*words[:-1], f"model.optimizer.lr={rate}"]).metrics["val/score"] for rate in (0.003, 0.01)]
    assert table["val/score"].tolist()[:2] == alone
    entries = [(depth, entry["command"]) for depth, entry in audit.lineage(here / "logs") if (entry["run_id"] or "").startswith("rates-")]
    assert len(entries) >= 3 and set(entries) == {(1, "train")}
    with pytest.raises(ConfigError, match="another configuration"):
        sweep([*asked[:-1], "seed=1,2,3"], "rates")


def test_a_run_is_judged_by_its_own_planets(whole_run, words):
    scores = planet_scores(whole_run)
    assert scores.mean() == pytest.approx(whole_run.metrics["val/score"], abs=1e-5)
    bare = train("ci_fast", words, resume="never")
    (judged,) = compare([whole_run, bare.id]).judged["verdict"]
    assert judged == f"only the metrics can be compared; {bare.id}: this run kept no checkpoint, so it cannot predict again"


def test_runs_that_were_judged_by_other_planets_stay_in_the_comparison(whole_run, words):
    other = train("ci_fast", [*words, "data.split_seed=3", "trainer.enable_checkpointing=true"], resume="never")
    again = train("ci_fast", [*words, "trainer.enable_checkpointing=true"], resume="never")
    found = compare([whole_run, other, again])
    common = len(planet_scores(whole_run).index.intersection(planet_scores(other).index))
    assert found.level == 0.975 and "97.5 % interval, which is 95 % for all 2 together" in str(found)
    assert found.judged["planets"].tolist() == [common, len(planet_scores(whole_run))]
    assert (common < 2) == (found.judged["verdict"][0] == "validated on other planets: no comparison")
    assert found.changed.columns.tolist() == [whole_run.id, other.id, again.id] and "data.split_seed" in found.changed.index


def test_branches_are_a_sweep_and_begin_at_one_snapshot(words, here):
    """An ablation: each branch once, its parent the trunk, and its first step the one after the snapshot."""
    few = [*words[:-1], "trainer=ablation", "trainer.val_check_interval=1"]
    with pytest.raises(DataMissingError, match="trunk-of-none"):
        sweep([*few, "model.optimizer.lr=0.01,0.1"], "branches", fork="trunk-of-none")
    trunk = train(overrides=[*few, "trainer.max_epochs=1", "run_id=sweep-trunk"])
    asked = [*few, "trainer.max_epochs=2", "model.optimizer.lr=0.003,0.1"]
    table = sweep(asked, "branches", fork="sweep-trunk")
    assert table["run"].tolist() == ["branches-1", "branches-2"] and table["exit_code"].tolist() == [0, 0]
    steps = trunk.history["step"].max()
    for name in table["run"]:
        branch = Run.open(name)
        assert branch.record["parent"] == trunk.id and branch.record["snapshot"] and branch.history["step"].min() > steps
    unchanged = train(overrides=[*few, "trainer.max_epochs=2", "run_id=by-hand"], fork="sweep-trunk")
    assert unchanged.record["weights"]["final"] == Run.open("branches-1").record["weights"]["final"]
    again = sweep(asked, "branches", fork="sweep-trunk")
    assert again["run"].tolist() == table["run"].tolist() and not (here / "logs/branches-1-2").exists()
    assert members(asked, fork="sweep-trunk")[0] != members(asked)[0]
    for other, fork in ((asked, None), ([*asked, f"data.root={here}"], "sweep-trunk")):
        with pytest.raises(ConfigError, match="branches-1' has another configuration, other data or another snapshot.*another --name"):
            sweep(other, "branches", fork=fork)


def test_planets_that_only_one_run_was_judged_by_are_not_compared():
    """Runs with another split have few planets in common, or none."""
    left, right = pd.Series([0.5, 0.6, 0.1], index=[1, 2, 3], name="one"), pd.Series([0.6, 0.7, 0.9], index=[1, 2, 4], name="other")
    assert paired_difference(left, right)[0] == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="1 validation planets are in both"):
        paired_difference(left, right.loc[[2, 4]])


def test_seeds_that_differ_by_less_than_seeds_do_are_no_difference():
    """However sure the planets are."""
    scores = pd.Series(range(40), name="one") / 80
    mean, low, high, claimed = paired_difference(scores, scores + 0.0015)
    assert low > 0 and not claimed
    assert paired_difference(scores, scores + 0.003)[3]


def test_intervals_of_many_comparisons_hold_together():
    """Of 20 intervals of 95 % one leaves out the truth; read together, one in 20 tables does."""
    rng = np.random.default_rng(3)
    pairs = [(pd.Series(rng.normal(size=60)), pd.Series(rng.normal(size=60))) for _ in range(400)]
    alone, together = (sum(paired_difference(*pair, level=level)[3] for pair in pairs) for level in (0.95, 1 - 0.05 / 20))
    assert 8 <= alone <= 40 and together <= 4


@pytest.mark.parametrize("planets", [2, 3, 5, 12])
def test_few_planets_are_no_proof(planets):
    """Of two planets an interval by bootstrap is what lies between them: pure chance was "better" or "worse" in 46 of 100 cases."""
    rng = np.random.default_rng(planets)
    noise = [pd.Series(0.05 * rng.normal(size=planets)) for _ in range(200)]
    claimed = sum(paired_difference(pd.Series(np.zeros(planets)), one)[3] for one in noise)
    assert claimed <= 20  # 10 are expected, with a scatter of 3


def test_a_sweep_writes_into_no_run(whole_run):
    before = sorted(whole_run.dir.iterdir())
    with pytest.raises(ConfigError, match="is the name of a run"):
        sweep(["seed=1,2"], whole_run.id)
    assert sorted(whole_run.dir.iterdir()) == before


def test_names_of_a_sweep_follow_from_its_words(here):
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        members(["seed=1,2"], "../elsewhere")
    name, runs = members(["trainer=ci_fast", "seed=range(1,12)"])
    assert [run.name for run in runs][::10] == [f"{name}-01", f"{name}-11"]


def test_a_sweep_without_a_name_stands_above_its_runs(workspace, monkeypatch):
    """Its name is known only when its words are read, and its command is on record before that."""
    def done(runs, folder, parallel, codes):
        for run in runs:
            with audit.recorded("train", run_id=run.name, parent=folder.name, apart=True):
                codes[run.name] = 0

    monkeypatch.setattr(sweeps, "_side_by_side", done)
    with audit.recorded("sweep", ["seed=1,2"]):
        sweep(["seed=1,2"])
    assert [(depth, entry["command"]) for depth, entry in audit.lineage(workspace / "logs")] == [(0, "sweep"), (1, "train"), (1, "train")]


NOTES_SIGNALS = """#!/bin/sh
for name in INT TERM HUP; do trap "echo $name >> $0.told" $name; done
touch $0.ready
for turn in $(seq 400); do sleep 0.05; test -s $0.told && sleep 0.2 && exit 143; done
"""


@pytest.mark.parametrize("number, outcome", [
    (signal.SIGINT, "InterruptedRun"), (signal.SIGTERM, "TerminatedRun"), (signal.SIGHUP, "TerminatedRun"),
])
def test_whoever_stops_a_sweep_in_a_terminal_is_told_to_its_runs_once(workspace, monkeypatch, number, outcome):
    """All of a terminal's processes hear Ctrl-C, and twice that it was closed; to a run a second signal means to leave without saving."""
    program = workspace / "program"
    program.write_text(NOTES_SIGNALS)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    name, runs = members(["seed=1,2"])
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(number, signal.SIG_DFL)  # whatever the tests were told to ignore
        try:
            sweeps._side_by_side(runs, workspace, 1, {})
        except BaseException as error:
            Path("ended").write_text(type(error).__name__)
        os._exit(0)
    until = time.monotonic() + 20
    while not Path("program.ready").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(child, number)
    if number == signal.SIGHUP:
        time.sleep(0.02)
        os.killpg(child, number)  # the kernel, then the shell
    os.waitpid(child, 0)
    assert Path("program.told").read_text().split() == ["TERM"] and Path("ended").read_text() == outcome


def test_a_run_that_begins_while_the_sweep_is_stopped_is_stopped_too(workspace, monkeypatch):
    told = threading.Event()

    class Slow:
        def __init__(self, *words, **settings):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.2)

        def terminate(self):
            told.set()

        def wait(self):
            told.wait(1)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    with pytest.raises(InterruptedRun):
        sweeps._side_by_side(members(["seed=1,2"])[1], workspace, 1, {})
    assert told.is_set()


@pytest.mark.parametrize("codes", [[75, 75], [0, 75]])
def test_a_sweep_that_was_only_stopped_in_time_says_so(codes, words, here, monkeypatch):
    """With 75, which schedulers take for "again, later", and not with 1; in Python the table does, as `train` returns such a run."""
    asked, name = [*words, "seed=1,2"], "-".join(["stopped", *map(str, codes)])
    left = iter([*codes, *codes])
    monkeypatch.setattr(sweeps._Processes, "train", lambda self, member, folder: next(left))
    assert sweep(asked, name)["exit_code"].tolist() == codes
    done = CliRunner().invoke(app, ["sweep", *asked, "--name", f"{name}-again"])
    assert done.exit_code == 75 and "the same command does what is missing" in done.output
    assert audit.ended(here / "logs")[-1]["outcome"] == "wall"


def test_a_sweep_with_a_failed_run_fails(words, monkeypatch):
    monkeypatch.setattr(sweeps._Processes, "train", lambda self, member, folder: {"1": 11, "2": 75}[member.varied[0][-1]])
    with pytest.raises(SpectraMindError, match="2 of 2 runs did not finish") as raised:
        sweep([*words, "seed=1,2"], "failed-and-stopped")
    assert raised.value.exit_code == 1
