"""ExoSim's NDRs become the competition's files: numbers come back, visits join, what is wrong is said before anything is written."""

import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from exosim_file import GAIN, OFFSET, SHAPE, channel, digitised, start_times_h, write_ndrs
from typer.testing import CliRunner

from spectramind_nb.apps.cli import app
from spectramind_nb.core.storage import locked_folder
from spectramind_nb.observations import exosim_import
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.detector import calibrate_frames
from spectramind_nb.observations.exosim_import import import_exosim
from spectramind_nb.observations.layout import Visit, mid_exposure_h
from spectramind_nb.observations.signals import read_signal

DEAD, FLAT, BENT = (f"simulation_data/{name}" for name in
                    ("dead_pixel_map/dead_pixel_map", "qe_variation_map/data", "pixel_non_linearity/map"))  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """Both channels of a short visit, which a test may change before it writes them."""
    return {name: channel(name) for name in SHAPE}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words):
    return CliRunner().invoke(app, ["import", "exosim", *map(str, words)])


def digests(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def test_frames_come_back_as_they_were(made, tmp_path):
    files = [write_ndrs(tmp_path / f"{name}/ndrs.h5", {name: made[name]}) for name in made]  # a file each, as well as both in one
    assert import_exosim(files[::-1], tmp_path / "data", planet=7) == [Visit(7, 0)]
    challenge = open_challenge(tmp_path / "data")
    for name, parts in made.items():
        assert np.array_equal(read_signal(challenge.signal_path("train", 7, 0, name), name).numpy(), parts["NDRs/data"])
        assert np.allclose(challenge.time_h(name), parts["NDRs/time"], rtol=0, atol=1e-12)  # starts of integrations
        assert challenge.adc(name, 7) == (GAIN, OFFSET)
    collected = start_times_h("AIRS-CH0", 12)[1::2] + 4.5 / 2 / 3600  # what counts falls in between the first read and the second
    assert np.allclose(mid_exposure_h(challenge.time_h("AIRS-CH0"), "AIRS-CH0"), collected, atol=1e-9)


def test_electrons_are_those_that_exosim_put_in(made, tmp_path):
    """Converter, order of the reads, direction of the non-linearity, dead pixels, dark current, flat field."""
    rng, light = np.random.default_rng(2), {}
    for name, parts in made.items():
        short, long = np.array([0.1, 4.6 if name == "AIRS-CH0" else 0.2])
        write_ndrs(tmp_path / "ndrs.h5", made)  # makes the map of the dark current
        dark = np.load(tmp_path / f"{name}_dark.npy")
        rate = rng.uniform(50, 70_000, SHAPE[name]) / long
        charge = np.stack([(rate * parts[FLAT][0] + dark) * seconds for seconds in [short, long] * 12])
        seen = sum(order * charge ** (k + 1) for k, order in enumerate(parts[BENT]))
        parts["NDRs/data"] = digitised(np.where(parts[DEAD], 0, seen))
        light[name] = np.where(parts[DEAD], np.nan, rate * (long - short))
    import_exosim([write_ndrs(tmp_path / "ndrs.h5", made)], tmp_path / "data")
    for name, true in light.items():
        found = calibrate_frames(tmp_path / "data", 1, instrument=name)
        off = (found - true) * made[name][FLAT][0]
        assert np.isnan(found[:, made[name][DEAD]]).all() and np.isfinite(found).mean() > 0.98
        assert np.nanmax(np.abs(off)) < 1.3 / GAIN  # one count up or down, a little more where the response is flatter
        assert abs(np.nanmean(off)) < 0.05 / GAIN


def test_truth_and_star_are_those_of_the_options(made, tmp_path):
    import_exosim([write_ndrs(tmp_path / "ndrs.h5", made)], tmp_path / "data", planet=3)
    challenge = open_challenge(tmp_path / "data")
    um = np.r_[0.7, challenge.wavelengths_um[1:]]
    off = challenge.labels().loc[3] - np.interp(um, [0.4, 2.0, 4.7], [0.09, 0.10, 0.11]) ** 2
    assert np.abs(off[1:]).max() < 1e-9 and abs(off.iloc[0]) < 2e-6  # FGS1's is the mean over its band
    star = challenge.star("train", 3)
    assert np.allclose([star[key] for key in ("Rs", "Ms", "Ts", "e", "P", "sma", "i")], [1.1, 1.05, 5800, 0, 2.9, 16, 88.6])
    assert challenge.label_faults() == [] and np.isnan(star["Mp"])


def test_a_test_planet_keeps_its_truth_apart_and_a_star_can_be_told(made, tmp_path):
    words = "--planet 5 --split test --star a_rs=15.5 --star".split()
    done = command(write_ndrs(tmp_path / "ndrs.h5", made), "--out", "data", *words, "period=70 h")
    assert done.exit_code == 0 and done.stdout == "data: planet 5 visit 0 of test\n"
    challenge = open_challenge(tmp_path / "data")
    assert challenge.asked_for("test") == [5] and not challenge.labels_path.exists()
    assert pd.read_csv(tmp_path / "data/truth/test.csv").shape == (1, 284)
    star = challenge.star("test", 5)
    assert star["sma"] == 15.5 and np.isclose(star["P"], 70 / 24) and star["Ts"] == 5800


def test_same_files_same_bytes_and_visits_join(made, tmp_path):
    first = write_ndrs(tmp_path / "a/ndrs.h5", made)
    longer = {name: channel(name, pairs=16, seed=9) | {"NDRs/time": start_times_h(name, 16, 100.0)} for name in made}
    second = write_ndrs(tmp_path / "b/ndrs.h5", longer)
    for out in ("one", "two"):
        assert command(first, "--out", out).exit_code == 0
        assert command(second, "--out", out, "--visit", 1).exit_code == 0
        assert command(first, second, "--out", out, "--planet", 2, "--visit", 3).stdout.count("planet 2 visit") == 2
    assert digests(tmp_path / "one") == digests(tmp_path / "two") and len(digests(tmp_path / "one")) == 4 * 12 + 6
    challenge = open_challenge(tmp_path / "one")
    assert challenge.visits() == [(1, 0), (1, 1), (2, 3), (2, 4)] and list(challenge.labels().index) == [1, 2]
    assert len(challenge.time_h("FGS1")) == 32
    assert np.array_equal(read_signal(challenge.signal_path("train", 2, 4, "FGS1"), "FGS1").numpy(), longer["FGS1"]["NDRs/data"])


@pytest.mark.parametrize("change, words", [
    ({"NDRs/time": start_times_h("FGS1", 12, 90.0)}, "FGS1-axis0-h"), ({"NDRs/metadata/ADC/gain": 0.5}, "adc_info.csv"),
])  # fmt: skip
def test_a_visit_that_contradicts_the_data_set_does_not_join(made, tmp_path, change, words):
    command(write_ndrs(tmp_path / "a.h5", made), "--out", "data")
    before = digests(tmp_path / "data")
    done = command(write_ndrs(tmp_path / "b.h5", made | {"FGS1": made["FGS1"] | change}), "--out", "data", "--visit", 1)
    assert done.exit_code == 10 and words in done.stderr and digests(tmp_path / "data") == before


def test_another_planet_of_the_same_number_is_refused(made, tmp_path):
    file = write_ndrs(tmp_path / "ndrs.h5", made)
    command(file, "--out", "data")
    again = command(file, "--out", "data")
    assert again.exit_code == 2 and "planet 1 has a visit 0 already" in again.stderr and "--visit 1" in again.stderr
    (tmp_path / "rp.ecsv").write_text("Wavelength,rp/rs\n0.4,0.2\n5.0,0.2\n")
    other = command(file, "--out", "data", "--visit", 1)
    assert other.exit_code == 2 and "knows another planet 1" in other.stderr


def test_what_is_no_data_set_is_left_alone(made, tmp_path):
    file = write_ndrs(tmp_path / "sim/ndrs.h5", made)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/draft.txt").write_text("mine")
    for name in ("simulated/simulation.json", "simulated/train/7/light_curves_0.npz", "of2024/train/7/x", "of2024/train_adc_info.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    for place in ("thesis", "thesis/draft.txt", "simulated", "of2024"):
        done = command(file, "--out", place)
        assert done.exit_code == 2 and done.stderr.count("\n") == 1, done.output
    assert os.listdir(tmp_path / "thesis") == ["draft.txt"]


def renamed(parts: dict, old: str, new: str) -> dict:
    return {key.replace(old, new): values for key, values in parts.items()}


FILES = {  # what is wrong -> what becomes of the two channels, the exit code, words of the sentence
    "sub-exposures": (lambda parts: renamed(parts, "NDRs", "SubExposures"), 10, "holds sub-exposures, not NDRs"),
    "focal plane": (lambda parts: {"focal_plane/data": np.zeros((1, 128, 128))}, 10, "holds a focal plane, not NDRs"),
    "other pixels": (lambda parts: parts | {"NDRs/data": np.zeros((24, 64, 40), np.uint16)}, 10, "frames are 64 x 40 pixels"),
    "32 bits": (lambda parts: parts | {"NDRs/data": parts["NDRs/data"].astype(np.uint32)}, 10, "uint32.*ADC_num_bit"),
    "no converter": (lambda parts: parts | {"NDRs/data": parts["NDRs/data"].astype(float)}, 10, "float64, not uint16"),
    "three reads": (lambda parts: parts | {"NDRs/metadata/n_groups_per_ramp": 3}, 10, "n_groups"),
    "odd frames": (lambda parts: parts | {"NDRs/data": parts["NDRs/data"][1:]}, 10, "read twice"),
    "fewer times": (lambda parts: parts | {"NDRs/time": parts["NDRs/time"][:-2]}, 10, "24 frames have 22 times"),
    "falling times": (lambda parts: parts | {"NDRs/time": parts["NDRs/time"][::-1]}, 10, "times do not rise"),
    "days": (lambda parts: parts | {"NDRs/time_units": b"parsec"}, 10, "'parsec'.*not known"),
    "other reads": (lambda parts: parts | {"NDRs/metadata/integration_times/value": np.tile([0.1, 2.0], 12)}, 10, "0.1 s and 2 s"),
    "no gain": (lambda parts: {key: value for key, value in parts.items() if "gain" not in key}, 10, "no NDRs/metadata/ADC/gain"),
    "flat of another": (lambda parts: parts | {FLAT: np.ones((1, 8, 8))}, 10, "qe_variation_map"),
    "turned round": (lambda parts: parts | {"NDRs/spectral": parts["NDRs/spectral"][::-1]}, 10, "wavelengths do not fall"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", FILES)
def test_a_wrong_file_gets_a_sentence(made, tmp_path, wrong):
    change, code, words = FILES[wrong]
    path = write_ndrs(tmp_path / "ndrs.h5", made | {"AIRS-CH0": change(made["AIRS-CH0"])} if wrong not in ("sub-exposures", "focal plane")
                      else {name: change(parts) for name, parts in made.items()})  # fmt: skip
    done = command(path, "--out", "data")
    assert done.exit_code == code and re.search(words, done.stderr), done.output
    assert done.stderr.count("\n") == 1 and "ndrs.h5" in done.stderr and not (tmp_path / "data").exists()


def test_what_is_not_of_exosim_gets_a_sentence(made, tmp_path):
    good = write_ndrs(tmp_path / "ndrs.h5", made)
    (tmp_path / "text.h5").write_text("time,flux\n")
    (tmp_path / "short.h5").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["data"] = np.zeros(3)
    write_ndrs(tmp_path / "old.h5", made, version="2.0.1")
    write_ndrs(tmp_path / "new.h5", made, version="2.20.0")
    write_ndrs(tmp_path / "vis.h5", {"VISPhot": made["FGS1"]})
    write_ndrs(tmp_path / "half.h5", {"FGS1": made["FGS1"]})
    for name, code, words in (
        ("nowhere.h5", 3, "is missing"), ("text.h5", 3, "is not HDF5"), ("short.h5", 3, "is cut short"), (".", 3, "is missing"),
        ("mine.h5", 10, "not of ExoSim 2"), ("old.h5", 10, "ExoSim 2.0.1"), ("new.h5", 10, "ExoSim 2.20.0"), ("vis.h5", 10, "of VISPhot"),
        ("half.h5", 10, "1 of FGS1 and 0 of AIRS-CH0"),
    ):  # fmt: skip
        done = command(tmp_path / name, "--out", "data")
        assert done.exit_code == code and words in done.stderr and done.stderr.count("\n") == 1, (name, done.output)
    assert not (tmp_path / "data").exists()


def edited(path: Path, pattern: str, words: str) -> None:
    path.write_text(re.sub(pattern, words, path.read_text()))


OPTIONS = {
    "none": (lambda folder: (folder / "main.xml").unlink(), 3, "--options"),
    "two": (lambda folder: shutil.copy(folder / "main.xml", folder / "other.xml"), 3, "2 main files"),
    "part is gone": (lambda folder: (folder / "sky.xml").unlink(), 3, "sky.xml, which is missing"),
    "not XML": (lambda folder: (folder / "sky.xml").write_text("<root><source>"), 3, "sky.xml is not XML"),
    "in itself": (lambda folder: (folder / "sky.xml").write_text("<root><a><config>sky.xml</config></a></root>"), 2, "inside itself"),
    "no detector": (lambda folder: (folder / "FGS1.xml").write_text("<root></root>"), 10, "no detector of FGS1"),
    "no read noise": (lambda folder: edited(folder / "FGS1.xml", "<read_noise_sigma.*?</read_noise_sigma>", ""), 10, "read_noise of FGS1"),
    "map of another": (lambda folder: np.save(folder / "FGS1_dark.npy", np.zeros((8, 8))), 10, "32 x 32"),
    "map in an archive": (lambda folder: np.savez(open(folder / "FGS1_dark.npy", "wb"), np.zeros(3)), 3, "FGS1_dark.npy is no array"),
    "map is gone": (lambda folder: (folder / "AIRS-CH0_dark.npy").unlink(), 3, "AIRS-CH0_dark.npy"),
    "no radius": (lambda folder: (folder / "rp.ecsv").write_text("a,b\n1,2\n"), 10, "rp.ecsv"),
    "period in metres": (lambda folder: edited(folder / "sky.xml", "hour", "m"), 10, "period is given in m"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", OPTIONS)
def test_wrong_options_get_a_sentence(made, tmp_path, wrong):
    path = write_ndrs(tmp_path / "sim/ndrs.h5", made)
    change, code, words = OPTIONS[wrong]
    change(tmp_path / "sim")
    done = command(path, "--out", "data")
    assert done.exit_code == code and words in done.stderr and done.stderr.count("\n") == 1, done.output
    assert not (tmp_path / "data").exists()


def test_options_elsewhere_can_be_named(made, tmp_path):
    path = write_ndrs(tmp_path / "sim/ndrs.h5", made)
    shutil.copytree(tmp_path / "sim", tmp_path / "kept", ignore=shutil.ignore_patterns("*.h5"))
    (tmp_path / "sim/main.xml").unlink()
    assert command(path, "--out", "data", "--options", "kept/main.xml").exit_code == 0
    wrong = command(path, "--out", "data2", "--options", "kept/sky.xml")
    assert wrong.exit_code == 10 and "main file" in wrong.stderr


def test_without_h5py_the_package_is_named(made, tmp_path, monkeypatch):
    path = write_ndrs(tmp_path / "ndrs.h5", made)
    monkeypatch.setitem(sys.modules, "h5py", None)
    done = command(path, "--out", "data")
    assert done.exit_code == 3 and "pip install h5py" in done.stderr


def test_a_full_disk_leaves_no_half_of_a_visit(made, tmp_path, repo):
    """Too small beforehand, and full in the middle: the limit of a file's size is reached where the disk would be full."""
    path = write_ndrs(tmp_path / "ndrs.h5", made)
    limited = f"ulimit -f 200; exec {sys.executable} -m spectramind_nb import exosim {path} --out data"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repo)})
    assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("data/train/1/*")) and not list(tmp_path.glob("data/.import-*"))
    assert command(path, "--out", "data").exit_code == 0


def test_an_import_waits_for_another_one(made, tmp_path, capfd):
    path, data = write_ndrs(tmp_path / "ndrs.h5", made), tmp_path / "data"
    with locked_folder(data):
        (data / ".import-going-on").mkdir()
        other = threading.Thread(target=import_exosim, args=[[path], data])
        other.start()
        other.join(5)
        assert [place.name for place in data.iterdir()] == [".import-going-on"]
        (data / ".import-going-on").rmdir()
    other.join()
    assert (data / "train.csv").is_file() and "waiting for it" in capfd.readouterr().err


def test_of_two_imports_of_a_visit_at_once_the_second_is_refused(made, tmp_path, monkeypatch):
    """Both have looked before either writes; the other one's frames differ."""
    first, data = write_ndrs(tmp_path / "a/ndrs.h5", made), tmp_path / "data"
    second = write_ndrs(tmp_path / "b/ndrs.h5", {name: channel(name, seed=9) for name in made})

    @contextmanager
    def other_was_faster(folder):
        monkeypatch.setattr(exosim_import, "locked_folder", locked_folder)
        assert command(first, "--out", "data").exit_code == 0
        before.update(digests(data))
        with locked_folder(folder):
            yield

    before = {}
    monkeypatch.setattr(exosim_import, "locked_folder", other_was_faster)
    late = command(second, "--out", "data")
    assert late.exit_code == 2 and "planet 1 has a visit 0 already" in late.stderr and "--visit 1" in late.stderr
    assert digests(data) == before


def test_what_a_killed_import_left_is_cleared_away(made, tmp_path):
    (tmp_path / "data/.import-abc").mkdir(parents=True)
    (tmp_path / "data/train/1/FGS1_calibration_0").mkdir(parents=True)
    assert command(write_ndrs(tmp_path / "ndrs.h5", made), "--out", "data").exit_code == 0
    assert not list(tmp_path.glob("data/.import-*")) and len(os.listdir(tmp_path / "data/train/1/FGS1_calibration_0")) == 5
