"""`make bench`: every benchmark in a process of its own; ratios against a peer measured in the same run."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def median_s(command: list[str], repeats: int = 7) -> float:
    """Median wall time of a whole process, after one run that warms the disk cache."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def start_up() -> None:
    """How long a user waits for help and for the import, beside a bare Python."""
    bare = median_s([sys.executable, "-c", "pass"])
    for words, target_s in (["-c", "import spectramind_nb"], 0.3), (["-m", "spectramind_nb", "--help"], 0.4):
        taken = median_s([sys.executable, *words])
        print(f"{' '.join(words):32} {taken:.2f} s, {taken / bare:.1f} x a bare Python (target {target_s} s)")


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = str(HERE.parent.parent)
    print("start-up", flush=True)
    start_up()
    for path in sorted(HERE.glob("bench_*.py")):
        print(f"\n{path.stem.removeprefix('bench_')}", flush=True)
        subprocess.run([sys.executable, path], check=True)
