"""Frames to light curves: time and memory of one full visit, as ratios to decoding its files.

python tests/benchmarks/bench_observations.py [ROOT]     ROOT: a folder made by `spectramind simulate`; made here when absent
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from spectramind_nb.core import configuration
from spectramind_nb.observations.challenge import INSTRUMENTS, open_challenge
from spectramind_nb.observations.lightcurves import calibrate, extract_visit


def seconds(work, repeats: int = 3) -> tuple[float, float]:
    """Median wall time and median CPU time of all threads; the second says more on a busy machine."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return tuple(map(statistics.median, zip(*times)))


def bench_extract(root: Path) -> None:
    """Extraction of one visit beside decoding its two parquet files with Polars, in the same process."""
    challenge = open_challenge(root)
    visit = challenge.visits("train")[0]
    paths = [challenge.signal_path("train", *visit, name) for name in INSTRUMENTS]

    def decode() -> None:
        for path in paths:
            pl.read_parquet(path)

    decode()
    for option in ("plain", "default"):
        config = configuration.group("detector", option)

        def extract(config=config) -> None:
            extract_visit(challenge, *visit, "train", config)

        extract()  # compiles
        decoding, extracting = seconds(decode), seconds(extract)
        for kind, ours, theirs in zip(("wall", "CPU"), extracting, decoding):
            print(
                f"extract_visit ({option}) {ours:.2f} s {kind}, decoding {theirs:.2f} s: {ours / theirs:.2f} x decoding"
            )


def bench_memory(root: Path) -> None:
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
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    before, peak = (int(kilobytes) / 1e6 for kilobytes in done.stdout.split())
    print(f"extract_visit peak memory {peak:.2f} GB, of which {before:.2f} GB before the visit")


def bench_calibrate(root: Path) -> None:
    """The driver over a split, with one and two visits in flight, and the second call that finds all done."""
    challenge = open_challenge(root)
    count = len(challenge.visits("train"))
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as store:
            (first, _), (second, _) = (
                seconds(lambda: calibrate(challenge, "train", None, store, workers), repeats=1) for _ in range(2)
            )
        print(
            f"calibrate, {workers} in flight: {first / count:.2f} s a visit, found in the store {second / count * 1e3:.0f} ms"
        )


def main(root: str | None = None) -> None:
    """Print all ratios."""
    with tempfile.TemporaryDirectory() as made:
        if root is None:
            from spectramind_nb.physics.simulator import simulate

            root = simulate(Path(made) / "full", train=2, test=1, seed=0)
        bench_extract(Path(root))
        bench_memory(Path(root))
        bench_calibrate(Path(root))


if __name__ == "__main__":
    main(*sys.argv[1:])
