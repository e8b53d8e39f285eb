"""Kill runs with SIGKILL at random moments, resume them, and compare with a run that was never interrupted.

    python tests/trainer/kill_and_resume.py 30 [--root DIR] [--cache DIR] [--variants single,workers,accumulate,ddp] [--seed 0]

Prints a line a run and `k of N`; the exit code is 0 only if all N are equal: weights, every step's loss, metrics, submission.
Runs of one process are forked from this one, which has imported everything and started no thread; DDP is started as a user does.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import datetime
from pathlib import Path

from spectramind_nb.records.journal import events, step_losses
from spectramind_nb.runs.run import Run
from spectramind_nb.runs.training import train

REPO = Path(__file__).resolve().parents[2]
SMALL = ["data.batch_size=2", "data.workers=1", "trainer.max_epochs=16", "trainer.checkpoint.every=0.1s", "trainer.accelerator=cpu"]
VARIANTS = {
    "single": [],
    "workers": ["trainer.loader.num_workers=2", "trainer.loader.persistent_workers=true", "trainer.loader.prefetch_factor=2"],
    "accumulate": ["trainer.accumulate_grad_batches=2"],
    "ddp": ["trainer=multi_gpu", "trainer.devices=2"],
}


def spectramind(*words: object) -> None:
    """The command line, for what would start threads here."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, "-m", "spectramind_nb", *map(str, words)], env=environment, check=True, stdout=sys.stderr)


def start(variant: str, words: list[str], place: Path) -> int:
    """Begin or resume the run that lives in `place`; returns a process that leads a group of its own."""
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        with (place / "output.txt").open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        code = train(overrides=words).exit_code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int, place: Path, limit_s: float = 300) -> None:
    """Until the process ends by itself; it must end well."""
    deadline = time.time() + limit_s
    while time.time() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                sys.exit(f"a run that nobody killed ended with status {status}:\n{(place / 'output.txt').read_text()[-3000:]}")
            return
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    sys.exit(f"a run did not end within {limit_s} s:\n{(place / 'output.txt').read_text()[-3000:]}")


def diary(place: Path) -> list[dict]:
    """Events of the latest run in `place`."""
    found = sorted(place.glob("logs/*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    return events(found[-1]) if found else []


def count(place: Path, event: str) -> int:
    return sum(line["event"] == event for line in diary(place))


def moment(place: Path, event: str) -> float:
    """When something happened, in seconds since the epoch."""
    return next(datetime.fromisoformat(line["time"]).timestamp() for line in diary(place) if line["event"] == event)


def kill_in_training(child: int, place: Path, after_s: float, attempts: int) -> str | None:
    """SIGKILL to the whole group some time after training began; says where. None: the run was already over."""
    while count(place, "train start") < attempts:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return None if not status else sys.exit(f"a run ended with status {status}:\n{(place / 'output.txt').read_text()[-3000:]}")
        time.sleep(0.005)
    time.sleep(after_s)
    os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return None
    steps = [line for line in diary(place) if line["event"] == "saving"]
    return f"after the checkpoint of step {steps[-1]['step']}" if steps else "before its first checkpoint"


def outcome(place: Path) -> dict:
    """What must be equal in an interrupted and an uninterrupted run."""
    run = Run(max(place.glob("logs/*/audit.json"), key=lambda path: path.stat().st_mtime).parent)
    assert run.outcome == "finished", run.record
    history = run.history.drop(columns="attempt").sort_values(["step", "train/loss"]).round(15)
    return {
        "weights": run.record["weights"], "metrics": run.metrics, "losses": step_losses(run.dir / "events.jsonl"),
        "history": history.to_csv(index=False), "submission": (run.dir / "submission.csv").read_text(),
    }


def undisturbed(variant: str, words: list[str], place: Path) -> tuple[dict, float]:
    """Outcome of a run that nobody kills, and how long its training took."""
    place.mkdir()
    wait(start(variant, words, place), place)
    began, ended = (moment(place, event) for event in ("train start", "fit end"))
    return outcome(place), ended - began


def trial(variant: str, words: list[str], place: Path, took_s: float, draw: random.Random) -> tuple[dict, str]:
    """Kill one run once or twice, let it finish, and say where it was hit."""
    hits: list[str] = []
    while not hits:
        place = place.with_name(f"{place.name}x")
        place.mkdir()
        for attempt in range(draw.choice((1, 1, 2))):
            fresh = sum(path.is_dir() for path in place.glob("logs/*"))
            child = start(variant, words, place)
            while sum(path.is_dir() for path in place.glob("logs/*")) == fresh == 0:
                time.sleep(0.005)
            known = count(place, "train start") if attempt else 0
            where = kill_in_training(child, place, draw.uniform(0.0, 0.95 * took_s), known + 1 if hits else 1)
            if where is None:
                break
            hits.append(where)
        if hits and where is not None:
            wait(start(variant, words, place), place)
    return outcome(place), " and ".join(hits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int)
    parser.add_argument("--root", type=Path, help="a small data set; simulated if it is not given")
    parser.add_argument("--cache", type=Path, help="where the stores are kept")
    parser.add_argument("--variants", default="single,workers,accumulate,ddp")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    os.environ["SPECTRAMIND_CACHE"] = str(asked.cache or folder / "cache")
    root = asked.root or folder / "data"
    if asked.root is None:
        spectramind("simulate", "--out", root, "--train", 6, "--test", 2, "--short")
    spectramind("fit", f"data.root={root}", "data.workers=1", f"paths.root={folder}")
    draw, variants, whole, equal = random.Random(asked.seed), asked.variants.split(","), {}, 0
    for number in range(asked.runs):
        variant = variants[number % len(variants)]
        words = [*VARIANTS[variant], f"data.root={root}", *SMALL]
        if variant not in whole:
            whole[variant] = undisturbed(variant, words, folder / variant)
        expected, took_s = whole[variant]
        found, where = trial(variant, words, folder / f"{variant}-{number}", took_s, draw)
        differing = [name for name in expected if expected[name] != found[name]]
        equal += not differing
        verdict = f"DIFFERENT in {', '.join(differing)} ({folder})" if differing else "equal"
        if differing and undisturbed(variant, words, folder / f"{variant}-{number}-again")[0] != expected:
            verdict += "; not even two uninterrupted runs are equal"
        print(f"{number + 1:3d} {variant:10} killed {where}: {verdict}", flush=True)
    print(json.dumps({variant: whole[variant][0]["weights"]["final"][:16] for variant in whole}))
    if equal == asked.runs:
        shutil.rmtree(folder)
    print(f"{equal} of {asked.runs}")
    return 0 if equal == asked.runs else 1


if __name__ == "__main__":
    sys.exit(main())
