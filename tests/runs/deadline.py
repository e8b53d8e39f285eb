"""The submission kernel against the clock: a slow calibration, a visit that crashes, one that hangs, and three minutes.

    python tests/runs/deadline.py [--runs 20] [--at-once 5] [--budget 180] [--planets 60]

Each run is the real notebook through papermill, with a trained run given. Prints one line a run; exit code 1 unless every one
wrote a valid, partly degraded submission.csv within its budget.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FAULTS = REPO / "tests" / "runs" / "faults"


def environment(plan: dict | None = None, **more: str) -> dict[str, str]:
    """Ours, with accidents."""
    path = os.pathsep.join([str(FAULTS), str(REPO)])
    return {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg", "FAULTY_VISITS": json.dumps(plan) if plan else "", **more}


def prepare(place: Path, planets: int) -> tuple[Path, Path]:
    """A data set and a trained run."""
    from spectramind_nb import simulate

    data = simulate(place / "data", train=8, test=planets, seed=5, short=True)
    few = place / "few"  # the run needs only the labelled half
    few.mkdir()
    for path in data.iterdir():
        if path.name != "test":
            (few / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "spectramind_nb", "train", "trainer=ci_fast", f"data.root={few}",
                    "trainer.enable_checkpointing=true"], cwd=place, env=environment(), check=True, capture_output=True)
    return data, next(place.glob("logs/*/checkpoints/best.ckpt")).parents[1]


def one_run(place: Path, data: Path, run: Path, budget_s: float, plan: dict, **job) -> dict:
    """What came out of one run of the notebook, and how long it took."""
    place.mkdir(exist_ok=True)
    job = {"budget": f"{budget_s:.0f}s", **job}
    parameters = {"trained": str(run), "data": "synthetic", "overrides": [f"data.root={data}"], "job": job}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "spectramind_nb", "notebook", REPO / "kaggle/kernels/submission/submission.ipynb", "--out", "done.ipynb",
         "-y", json.dumps(parameters)],
        cwd=place, env=environment(plan, SPECTRAMIND_CACHE=str(place / "cache")), capture_output=True, text=True)
    took = time.monotonic() - began
    from spectramind_nb.runs.submission import validate

    found = json.loads((place / "job.json").read_text()) if (place / "job.json").is_file() else {"counts": {}, "notes": ["no job.json"]}
    try:
        valid = validate(place / "submission.csv", data / "sample_submission.csv").planets
    except Exception as error:  # whatever is wrong with it, the script says so and goes on
        valid = f"{type(error).__name__}: {error}"
    return {"rc": done.returncode, "took_s": took, "valid": valid, "log": done.stderr, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 20), ("at-once", 5), ("budget", 180), ("planets", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    good = 0
    with tempfile.TemporaryDirectory() as scratch:
        data, run = prepare(Path(scratch), given.planets)
        planets = sorted(int(path.name) for path in (data / "test").iterdir())
        plan = {"seconds": {"full": 6, "plain": 2}, "crash": planets[3:5], "hang": planets[7:8], "always": planets[4:5]}
        times = {"reserve": "20s", "predict": f"{given.budget // 3}s", "visit_timeout": "20s", "workers": 2}

        def attempt(number: int) -> tuple[int, dict]:
            return number, one_run(Path(scratch) / f"run{number}", data, run, given.budget, plan, **times)

        with ThreadPoolExecutor(given.at_once) as pool:
            for number, found in pool.map(attempt, range(1, given.runs + 1)):
                counts = found["counts"]
                ok = (found["rc"] == 0 and found["valid"] == given.planets and found["took_s"] <= given.budget and not found["notes"]
                      and counts.get("full", 0) > 0 and sum(counts.values()) - counts["full"] > 1)
                good += ok
                line = f"{'ok ' if ok else 'BAD'} {found['took_s']:5.0f} s  valid {found['valid']}  {counts}  {found['notes']}"
                print(f"{number:2d} {line}", flush=True)
    print(f"{good} of {given.runs} in time, valid and partly degraded")
    return good != given.runs


if __name__ == "__main__":
    sys.exit(main())
