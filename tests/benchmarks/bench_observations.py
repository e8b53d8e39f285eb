"""Frames to light curves: time and memory of one full visit with the real detector's pixels, as ratios to decoding its files.

python tests/benchmarks/bench_observations.py [--peer] [ROOT]
--peer: also the package `ariel-data-preprocessing` 1.5 on the same visit, installed into .venv-peer (or set SPECTRAMIND_BENCH_PEER=1)
ROOT: a folder in the competition's layout; a visit is simulated when absent
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from spectramind_nb.core import configuration
from spectramind_nb.observations.challenge import Challenge, open_challenge
from spectramind_nb.observations.layout import INSTRUMENTS
from spectramind_nb.observations.lightcurves import calibrate, extract_visit, lightcurve_store, load_light_curves
from spectramind_nb.observations.writing import write_signal

REPO = Path(__file__).resolve().parents[2]
SAMPLE = Path(os.environ.get("SPECTRAMIND_TEST_DATA", REPO.parent / "shared" / "data")) / "challenge_sample"


def seconds(*works, repeats: int = 5) -> list[tuple[float, float]]:
    """Median wall time and CPU time of all threads of each work, taken in turns; the second says more on a busy machine."""
    times = [[] for _ in works]
    for _ in range(repeats):
        for work, found in zip(works, times):
            start = time.perf_counter(), time.process_time()
            work()
            found.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return [tuple(map(statistics.median, zip(*found))) for found in times]


def full_visit(root: Path) -> Path:
    """A full visit, its pixels those of the real sample where that is at hand."""
    sys.path.insert(0, str(REPO / "tests" / "observations"))
    from full_visit import write_full_visit

    if not SAMPLE.is_dir():
        print("the real sample is not here: the simulator draws the detector's pixels")
    write_full_visit(root, SAMPLE if SAMPLE.is_dir() else None)
    return root


def rewritten(root: Path, folder: Path, layout: str) -> Path:
    """The same visit stored otherwise: as pandas writes it, packed tighter, or as one long column."""
    challenge = open_challenge(root)
    for path in root.rglob("*"):
        target = folder / path.relative_to(root)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif "_signal" not in path.name:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        elif layout == "long":
            write_signal(target, pl.read_parquet(path).to_numpy(), long=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            compression = "zstd" if "zstd" in layout else "snappy"
            pq.write_table(pl.read_parquet(path).to_arrow(), target, compression=compression)
    assert challenge.planets() == open_challenge(folder).planets()
    return folder


def bench_extract(challenge: Challenge, layout: str) -> float:
    """Extraction of one visit beside decoding its two parquet files with Polars, in the same process."""
    visit = challenge.visits("train")[0]
    paths = [challenge.signal_path("train", *visit, name) for name in INSTRUMENTS]

    def decode() -> None:
        for path in paths:
            pl.read_parquet(path)

    works = [decode]
    for option in ("plain", "default"):
        config = configuration.group("detector", option)
        works.append(lambda config=config: extract_visit(challenge, *visit, "train", config))
    for work in works:
        work()  # compiles, and warms the disk cache
    decoding, plain, default = seconds(*works)
    for option, ours, target in (("plain", plain, 1.3), ("default", default, 1.6)):
        ratios = ", ".join(
            f"{mine / theirs:.2f} x decoding by {kind} time ({mine:.2f} s, {theirs:.2f} s)"
            for kind, mine, theirs in zip(("wall", "CPU"), ours, decoding)
        )
        print(f"{layout}: extract_visit ({option}) {ratios}; target {target} x", flush=True)
    return default[1]


_PEER = """
import sys, time
import numpy as np, pandas as pd
from ariel_data_preprocessing import signal_correction_functions as chain
from ariel_data_preprocessing.calibration_data import CalibrationData
root, planet = sys.argv[1], sys.argv[2]
start = time.perf_counter(), time.process_time()
for name, width, kind in (("FGS1", 32, "fgs"), ("AIRS-CH0", 356, "airs")):
    raw = pd.read_parquet(f"{root}/train/{planet}/{name}_signal_0.parquet").to_numpy().reshape(-1, 32, width)
    raw = (raw[:, :, 39:321] if kind == "airs" else raw).astype(np.float64)
    known = CalibrationData(root, f"{root}/train/{planet}", airs_frames=11250, fgs_frames=135000, cut_inf=39, cut_sup=321)
    dark, dead, flat, linear, dt = (
        getattr(known, f"{what}_{kind}") for what in ("dark", "dead", "flat", "linear_corr", "dt")
    )
    signal = chain.ADC_convert(raw, 0.4369, -1000.0)
    del raw
    signal = chain.apply_linear_corr(linear, chain.mask_hot_dead(signal, dead, dark))
    signal = chain.get_cds(chain.clean_dark(signal, dead, dark, dt))
    signal = chain.correct_flat_field(signal, flat, dead)
    signal.sum(axis=1)
    del signal
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1e6
print(time.perf_counter() - start[0], time.process_time() - start[1], peak)
"""


def bench_peer(challenge: Challenge, ours_s: float) -> None:
    """The public package on the same visit: its chain up to the calibrated frames and their sum over rows."""
    venv = REPO / ".venv-peer"
    python = venv / "bin" / "python"
    if not (venv / ".installed").is_file():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # of its requirements `hdf5` does not exist, and TensorFlow is not used by the chain
        subprocess.run([*pip, "--no-deps", "ariel-data-preprocessing==1.5"], check=True)
        subprocess.run([*pip, "numpy", "pandas<3", "pyarrow", "astropy"], check=True)
        (venv / ".installed").touch()
    planet = str(challenge.planets()[0])
    done = subprocess.run([python, "-c", _PEER, challenge.root, planet], capture_output=True, text=True, check=True)
    wall, cpu, peak = map(float, done.stdout.split())
    print(
        f"ariel-data-preprocessing 1.5: {wall:.1f} s wall, {cpu:.1f} s CPU, {peak:.1f} GB; "
        f"extract_visit (default) is {cpu / ours_s:.0f} x as fast by CPU time; target 25 x",
        flush=True,
    )


def bench_memory(challenge: Challenge) -> None:
    """Peak memory of a process that extracts one visit."""
    code = (
        "import re, sys\n"
        "from spectramind_nb.observations.lightcurves import extract_visit, open_challenge\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "challenge = open_challenge(sys.argv[1])\n"
        "extract_visit(challenge, *challenge.visits('train')[0])\n"
        "print(before, peak())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, challenge.root], capture_output=True, text=True, check=True)
    before, peak = (int(kilobytes) / 1e6 for kilobytes in done.stdout.split())
    print(f"extract_visit peak memory {peak:.2f} GB, of which {before:.2f} GB before the visit; target 1.5 GB", flush=True)


def bench_calibrate(challenge: Challenge) -> None:
    """The driver on one visit, the second call that finds it done, and the entry in the store."""
    config, count = configuration.group("detector"), len(challenge.visits("train"))
    with tempfile.TemporaryDirectory() as folder:
        results = {}

        def work() -> None:
            results.update(calibrate(challenge, "train", config, folder, 1))

        ((first, _),), ((second, _),) = seconds(work, repeats=1), seconds(work, repeats=3)
        print(f"calibrate: {first / count:.2f} s a visit with its digests, found in the store {second / count * 1e3:.0f} ms")
        store, key = lightcurve_store(folder, config), next(iter(results.values()))
        ((opened, _),) = seconds(lambda: load_light_curves(store, key))
        size = store.path(key).stat().st_size / 1e6
        print(f"store: {size:.1f} MB a visit (target 20 MB), opened in {opened * 1e3:.1f} ms", flush=True)


def main(*words: str) -> None:
    """Print all ratios."""
    peer = "--peer" in words or bool(os.environ.get("SPECTRAMIND_BENCH_PEER"))
    roots = [Path(word) for word in words if word != "--peer"]
    with tempfile.TemporaryDirectory() as made:
        root = roots[0] if roots else full_visit(Path(made) / "full")
        challenge = open_challenge(root)
        ours_s = bench_extract(challenge, "wide, as simulated")
        for layout in ("wide, as pandas writes it", "wide, zstd", "long"):
            bench_extract(open_challenge(rewritten(root, Path(made) / layout, layout)), layout)
        bench_memory(challenge)
        bench_calibrate(challenge)
        if peer:
            bench_peer(challenge, ours_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
