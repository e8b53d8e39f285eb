"""Kill invocations with SIGKILL at random moments of their lives; none that had begun may be missing from the ledger.

    python tests/records/kill_and_audit.py 50 [--seed 0] [--seconds 12]

An invocation begins when its record does. Nothing can record a process that dies before Python has loaded the program: the processor time
that this takes is measured first, in starts that nobody kills; whoever used more than twice the longest of them must be in the ledger.
Prints a line a kill and `k of N`; the exit code is 0 only if every one is there, its end too, and `audit verify` finds nothing.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spectramind_nb.records.audit import verify
from spectramind_nb.records.ledger import entries

REPO = Path(__file__).resolve().parents[2]
COMMANDS = (
    ["train", "trainer=ci_fast", "data.simulate.train=6", "data.simulate.test=2", "data.batch_size=2", "--resume", "never"],
    ["calibrate", "data.simulate.train=6", "data.simulate.test=2"],
    ["train", "trainer.max_epoch=3"],
)


def start(words: list[str], place: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "spectramind_nb", *words], cwd=place, env=environment, **quiet)


def told(place: Path, event: str) -> set[int]:
    """Processes of which the ledger tells this event."""
    return {int(line["invocation"].rpartition("-")[2]) for line in entries(place / "logs" / "audit.jsonl") if line["event"] == event}


def used_s(child: subprocess.Popen) -> float:
    """Processor time of a living process: unlike its age it does not depend on what else the machine does."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def blind_s(place: Path) -> float:
    """Processor time after which the ledger knows of a process."""
    child, used = start(COMMANDS[2], place), 0.0
    while child.pid not in told(place, "start"):
        used = used_s(child)
        time.sleep(0.005)
    child.wait()
    return used + 0.02


def kill_many(number: int, seed: int, longest_s: float) -> bool:
    chance, missing = random.Random(seed), []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        blind = 2 * max(blind_s(place) for _ in range(3))
        print(f"the ledger knows of a process after {blind / 2:.2f} s of processor time")
        for count in range(number):
            words, lives_s, used = chance.choice(COMMANDS), chance.uniform(0, longest_s), float("inf")
            child = start(words, place)
            try:
                child.wait(lives_s)
            except subprocess.TimeoutExpired:
                used = used_s(child)
                child.kill()
                child.wait()
            known = child.pid in told(place, "start")
            missing += [child.pid] if not known and used > blind else []
            print(f"{count + 1}: {words[0]} {'killed' if child.returncode < 0 else 'ended'} after {lives_s:.2f} s, "
                  f"{'recorded' if known else 'not begun' if used <= blind else 'MISSING'} ({used:.2f} s used)", flush=True)
        start(COMMANDS[2], place).wait()  # the next invocation, which settles what died
        open_ends = told(place, "start") - told(place, "finish")
        problems = verify(place / "logs", place / "v50_debug_log.md")
        print(f"{number - len(missing)} of {number}; without an end: {len(open_ends)}; verify: {problems or 'all intact'}")
        return not (missing or open_ends or problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=12.0, help="the longest life")
    arguments = parser.parse_args()
    sys.exit(0 if kill_many(arguments.number, arguments.seed, arguments.seconds) else 1)
