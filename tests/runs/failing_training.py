"""Training made to fail in every way we know of: which rung the submission job reaches, and what that scores.

    python tests/runs/failing_training.py [--train 12] [--test 4] [--only killed nan+]

Each line is the real job in a process of its own; a `+` means that every training fails so, else only the one as asked. Exit code 1 unless
every submission scores at least 0.9 times what the prepared model scores, the reason is told, and nothing reads as a success.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
JOB = """
import json, sys
from spectramind_nb.core.imports import quick_imports
with quick_imports(own_process=True):
    from spectramind_nb.runs.job import submit
print(submit(*json.loads(sys.argv[1])))
"""
TIMES = {"budget": "30m", "reserve": "15s", "predict": "1m", "train": "3m"}
CASES = {  # name -> profile, changes of the settings, words, what the reason says
    "nothing": ("ci_fast", {}, [], None),
    "wall": ("kaggle_safe", {"train": "10m"}, [], None),  # as long as its profile's reserve: adapted, no failure
    "no time": ("ci_fast", {"train": "1s"}, ["trainer.max_epochs=5000"], ""),  # it hangs, has no checkpoint yet, or predicts
    "GPU missing": ("ci_fast", {}, ["trainer.accelerator=gpu"], "GPU"),
    "profile refused": ("nope", {}, [], "no trainer profile"),
    "refused": ("ci_fast", {}, ["trainer.accelerator=auto"], "does not compute"),
    "refused+": ("ci_fast", {}, ["trainer.accelerator=auto"], "does not compute"),
    "memory": ("ci_fast", {}, [], "memory"), "memory+": ("ci_fast", {}, [], "memory"),
    "killed": ("ci_fast", {}, [], "SIGKILL"), "killed+": ("ci_fast", {}, [], "SIGKILL"),
    "nan": ("ci_fast", {}, [], "loss is nan"), "nan+": ("ci_fast", {}, [], "loss is nan"),
    "hung": ("ci_fast", {"train": "30s"}, [], "had not ended"), "hung+": ("ci_fast", {"train": "30s"}, [], "had not ended"),
    "disk": ("ci_fast", {}, [], "large"), "disk+": ("ci_fast", {}, [], "large"),
}
MEASURE = "memory+"  # no training comes to an end, the prepared model predicts


def one_job(place: Path, data: Path, name: str) -> dict:
    """What came out of one case, how long it took and what it scored."""
    profile, settings, words, why = CASES[name]
    place.mkdir(parents=True)
    asked = [None, [f"data.root={data}", *words], profile, "submission.csv", {**TIMES, **settings}]
    fault = name if name.rstrip("+") in ("refused", "memory", "killed", "nan", "hung", "disk") else ""
    path = os.pathsep.join([str(REPO / "tests" / "runs" / "faults"), str(REPO)])
    environment = {**os.environ, "PYTHONPATH": path, "FAULTY_TRAINING": fault, "SPECTRAMIND_CACHE": str(data.parent / "cache")}
    if not fault.startswith("refused"):
        environment["CUDA_VISIBLE_DEVICES"] = ""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", JOB, json.dumps(asked)], cwd=place, env=environment, capture_output=True, text=True)
    took = time.monotonic() - began
    job = json.loads((place / "job.json").read_text())
    told = not why or any(why in reason for reason in job["reasons"].values())
    last = [line for line in done.stdout.splitlines() if "submission.csv: " in line][-1]
    honest = why == "" or (why is None) == (not last.startswith("NOT"))
    reached = {rung["rung"]: rung["planets"] for rung in job["rungs"] if rung["planets"]}
    return {"rc": done.returncode, "took_s": took, "reached": reached, "score": score(place / "submission.csv", data),
            "told": told and honest, "job": job, "log": done.stdout}


def score(path: Path, data: Path) -> float:
    """The official metric of the submission."""
    import pandas as pd

    from spectramind_nb.learning.metrics import ariel_score
    from spectramind_nb.runs import submission

    table, labels = submission.read(path).set_index("planet_id"), pd.read_csv(data / "train.csv", index_col=0).to_numpy()
    truth = pd.read_csv(data / "truth" / "test.csv", index_col=0).loc[table.index, list(submission.DEPTH_COLUMNS)].to_numpy()
    mu, sigma = (table[list(columns)].to_numpy() for columns in (submission.DEPTH_COLUMNS, submission.SIGMA_COLUMNS))
    return ariel_score(mu.copy(), sigma.copy(), truth.copy(), labels.mean(), labels.std())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=12)
    parser.add_argument("--test", type=int, default=4)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    from spectramind_nb import simulate

    bad, prepared, cases = 0, 0.0, [MEASURE, *(name for name in given.only if name != MEASURE)]
    with tempfile.TemporaryDirectory() as scratch:
        data = simulate(Path(scratch) / "data", train=given.train, test=given.test, seed=7, short=True)
        for name in cases:
            found = one_job(Path(scratch) / "jobs" / name.replace(" ", "_"), data, name)
            prepared = found["score"] if name == MEASURE else prepared
            good = found["rc"] == 0 and found["told"] and found["score"] >= 0.9 * prepared and "mean" not in found["reached"]
            bad += not good
            line = f"{'ok ' if good else 'BAD'} {name:16} {found['took_s']:4.0f} s  score {found['score']:.3f}  {found['reached']}"
            print(line, flush=True)
            for rung, why in found["job"]["reasons"].items():
                print(f"{'':20} {rung}: {why}", flush=True)
    print(f"{len(cases) - bad} of {len(cases)} score at least 0.9 x {prepared:.3f}, that of the prepared model, and say why")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
