"""Calibrating a whole split: processes, a Dask cluster, kills at any moment, and twelve kinds of damage.

SPECTRAMIND_KILLS=10 kills ten times instead of twice.
"""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from made_up_visit import write_made_up

from spectramind_nb.apps.cli_data import fill_store
from spectramind_nb.core import configuration
from spectramind_nb.core.errors import ConfigError, PreflightError
from spectramind_nb.core.workforce import in_processes, on_cluster
from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import lightcurves as lc
from spectramind_nb.observations import writing

CONFIG = {**configuration.group("detector"), "pool_from_gb": 0.0}
KILLS = int(os.environ.get("SPECTRAMIND_KILLS", 2))


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Seven planets, alike but for their numbers."""
    root = tmp_path_factory.mktemp("split") / "root"
    write_made_up(root, pairs={"FGS1": 1500, "AIRS-CH0": 100})
    for planet in range(1, 7):
        shutil.copytree(root / "train/7", root / f"train/{planet}")
    return root


@pytest.fixture(scope="module")
def reference(split, tmp_path_factory):
    """What one process makes of them, one after the other."""
    store = tmp_path_factory.mktemp("reference")
    return contents(store, lc.calibrate(ch.open_challenge(split), "train", CONFIG, store, workers=1))


def contents(root, results):
    store = lc.lightcurve_store(root, CONFIG)
    return {key: store.path(key).read_bytes() for key in results.values()}


RUN = """
import sys
from spectramind_nb.core import configuration
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.lightcurves import calibrate
config = {**configuration.group("detector"), "pool_from_gb": 0.0}
results = calibrate(open_challenge(sys.argv[1]), "train", config, sys.argv[2], workers=2)
print(*results.values())
"""


def test_processes_give_the_same_bytes_also_to_a_script_without_a_guard(split, reference, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(RUN)
    done = subprocess.run([sys.executable, script, split, tmp_path], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1  # the workers did not run it again
    assert contents(tmp_path, dict(enumerate(done.stdout.split()))) == reference


def test_two_dask_workers_give_the_same_bytes(split, reference, tmp_path):
    config = {**CONFIG, "executor": "dask"}
    results = lc.calibrate(ch.open_challenge(split), "train", config, tmp_path, workers=2)
    assert contents(tmp_path, results) == reference


def test_without_dask_it_says_so(split, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match="Dask, which is not installed here.*pip install") as caught:
        lc.calibrate(ch.open_challenge(split), "train", {**CONFIG, "executor": "dask"}, tmp_path)
    assert caught.value.exit_code == 2


def test_an_unknown_executor_is_refused(split, tmp_path):
    with pytest.raises(ConfigError, match="there is no executor 'locl'.*Did you mean 'local'"):
        lc.calibrate(ch.open_challenge(split), "train", {**CONFIG, "executor": "locl"}, tmp_path)


def test_who_does_the_work_is_no_part_of_the_address(tmp_path):
    others = ({}, {"executor": "dask", "scheduler": "tcp://10.0.0.1:8786"}, {"pool_from_gb": 5.0})
    assert len({lc.lightcurve_store(tmp_path, {**CONFIG, **other}).key({}) for other in others}) == 1
    assert lc.lightcurve_store(tmp_path, {**CONFIG, "trace_half_rows": 7}).key({}) != lc.lightcurve_store(
        tmp_path, CONFIG
    ).key({})


def test_a_worker_that_dies_costs_its_item_only():
    harmless = [signal.SIGCONT, signal.SIGURG, signal.SIGWINCH]
    results = dict(in_processes(signal.raise_signal, [harmless[0], signal.SIGKILL, *harmless[1:]], workers=2))
    assert "died" in str(results.pop(signal.SIGKILL)) and results == dict.fromkeys(harmless)


def alive(marker):
    """Processes that were started with this word in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended, or belongs to somebody else
            continue
    return found


def test_killed_at_random_moments_nothing_is_lost_or_made_twice(split, reference, tmp_path):
    """SIGKILL anywhere: what is in the store is whole and stays as it is, no worker goes on alone, the last run completes it."""
    chance, marker = random.Random(0), f"SPECTRAMIND_TEST_{uuid.uuid4().hex}"
    arguments = [sys.executable, "-c", RUN, split, tmp_path / "store"]
    environment = {**os.environ, marker: "1"}
    entries = tmp_path / "store/lightcurves"

    def stored():
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in entries.glob("??/[!.]*.npz")}

    before, found = {}, []
    for kill in range(KILLS):
        child = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # at a random moment on the way from what is there to one visit more
        while len(stored()) < min(len(before) + (kill > 0), 6) and child.poll() is None:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        child.kill()
        child.wait()
        for _ in range(200):  # its workers notice at once, but a visit in flight may still be written
            if not alive(marker):
                break
            time.sleep(0.05)
        assert alive(marker) == []
        now = stored()
        assert all(now[path] == stamp for path, stamp in before.items())  # nothing that was done is done again
        before = now
        found.append(len(now))
        for path in now:
            with np.load(path) as entry:  # reads and checks every byte
                assert all(entry[name].size for name in entry.files)
    results = lc.calibrate(ch.open_challenge(split), "train", CONFIG, tmp_path / "store", workers=1)
    after = stored()
    assert all(after[path] == stamp for path, stamp in before.items())
    assert contents(tmp_path / "store", results) == reference and len(after) == 7
    print(f"{KILLS} kills, {found} of 7 visits in the store after each")


def rewrite(path, change):
    change(pl.read_parquet(path)).write_parquet(path)


@pytest.fixture
def damaged(tmp_path):
    """Planet 7 is whole; each of the planets 101..112 has one kind of damage."""
    root = tmp_path / "root"
    made_up = write_made_up(root)
    folder, stars = root / "train", pd.read_csv(root / "train_star_info.csv")
    for planet in range(101, 113):
        shutil.copytree(folder / "7", folder / str(planet))
    airs, fgs1 = "AIRS-CH0_signal_0.parquet", "FGS1_signal_0.parquet"
    (folder / "101" / fgs1).unlink()
    whole = (folder / "102" / airs).read_bytes()
    (folder / "102" / airs).write_bytes(whole[: len(whole) // 2])
    rewrite(folder / "103" / airs, lambda table: table.cast(pl.Float32))
    rewrite(folder / "104" / fgs1, lambda table: pl.concat([table, table.head(2)]))
    rewrite(folder / "105" / airs, lambda table: table.head(table.height - 1))
    rewrite(folder / "106/FGS1_calibration_0/flat.parquet", lambda table: table.select(pl.all() * float("nan")))
    rewrite(
        folder / "107/AIRS-CH0_calibration_0/dead.parquet",
        lambda table: table.with_columns(pl.lit(True).alias("column_100")),
    )
    shutil.copy(folder / "7" / fgs1, folder / "108" / airs)
    raw = made_up.of["AIRS-CH0"].raw.copy()
    raw[20:26] = 65535
    writing.write_signal(folder / "111" / airs, raw)
    shutil.rmtree(folder / "112")
    (folder / "112").mkdir()
    rows = [stars.assign(planet_id=planet) for planet in range(101, 113) if planet != 110]
    rows.append(stars.assign(planet_id=109, Rs=2.0))
    pd.concat([stars, *rows]).to_csv(root / "train_star_info.csv", index=False)
    return root


def test_twelve_kinds_of_damage_are_twelve_lines(damaged, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SPECTRAMIND_CACHE", raising=False)
    words = ["data=ariel2025", f"data.root={damaged}", f"paths.root={tmp_path}", f"paths.cache={tmp_path}/c"]
    fill_store("calibrate", words)  # what `spectramind calibrate` runs; it does not raise: exit code 0
    lines = "".join(capsys.readouterr()).splitlines()
    expected = {
        101: "FGS1_signal_0.parquet is missing",
        102: "AIRS-CH0_signal_0.parquet cannot be decoded",
        103: "column column_0 is Float32, not uint16",
        104: "column FGS1-axis0-h has 80 times, the signal 82 frames",
        105: "59 frames: they must come in pairs",
        106: "flat has no usable value",
        107: "1 AIRS-CH0 channels have too little light on usable pixels",
        108: "1024 columns, but a frame has 32 x 356 = 11392 pixels",
        109: "has more than one row in train_star_info.csv",
        110: "has no row in train_star_info.csv",
        111: "3 time bins of AIRS-CH0 are without light",
        112: "is missing",
    }
    for planet, sentence in expected.items():
        about = [line for line in lines if f"planet {planet} " in line]
        assert len(about) == 1 and sentence in about[0], (planet, about)
    assert not [line for line in lines if "planet 7 " in line or "Traceback" in line]
    assert "train: 5 of 13 visits are in the store" in lines  # 7, 107, 109, 110, 111

    fill_store("calibrate", words)
    again = "".join(capsys.readouterr()).splitlines()
    for planet in (109, 110):  # a table's faults are told whatever is done already
        assert [line for line in again if f"planet {planet} " in line and expected[planet] in line]

    for planet in (7, 107, 109, 110, 111):
        shutil.rmtree(damaged / f"train/{planet}")
    with pytest.raises(PreflightError, match="none of 8 visits is usable") as caught:
        fill_store("calibrate", words)
    assert caught.value.exit_code == 3
    lines = "".join(capsys.readouterr()).splitlines()
    assert all(sum(f"planet {planet} " in line for line in lines) == 1 for planet in (101, 102, 103, 104, 105, 106, 108, 112))


def test_nothing_usable_is_exit_code_3_whatever_the_cause(made_up, tmp_path):
    """Also where all causes are alike and have an exit code of their own."""
    rewrite(made_up.root / "train/7/AIRS-CH0_signal_0.parquet", lambda table: table.head(table.height - 1))
    for planets in (1, 2):
        with pytest.raises(PreflightError, match="59 frames: they must come in pairs") as caught:
            lc.calibrate(ch.open_challenge(made_up.root), "train", CONFIG, tmp_path / "cache", workers=1)
        assert caught.value.exit_code == 3 and ("none of 2 visits is usable" in str(caught.value)) == (planets == 2)
        shutil.copytree(made_up.root / "train/7", made_up.root / "train/8", dirs_exist_ok=True)



@pytest.mark.parametrize("address", ["nonsense", "foo://host:1", "tcp://127.0.0.1"])
def test_what_is_no_address_of_a_scheduler_is_refused(address):
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="no address of a Dask scheduler"):
        list(on_cluster(abs, [1], 1, address))


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:1"])
def test_a_refused_scheduler_leaves_no_half_made_client(address):
    """Collected while the next client starts, in the same thread, it would wait for that one's lock for ever."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    gc.collect()
    gc.disable()
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), pytest.raises(ConfigError) as refused:
            list(on_cluster(abs, [1], 1, address))
        assert [left for left in gc.get_objects() if isinstance(left, distributed.Client)] == []
    finally:
        gc.enable()
    assert "scheduler" in str(refused.value)
