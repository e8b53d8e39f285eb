"""What keeping the record of a run costs: a ci_fast run from filled stores as a user starts it, and the share of it that is audit."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
REPEATS = 3


def clocked(owner: object, name: str, spent: list[float], depth: list[int]) -> None:
    """Replace a function by one whose outermost calls are timed."""
    whole = getattr(owner, name)

    @functools.wraps(whole)
    def timed(*args, **kwargs):
        depth[0] += 1
        began = time.perf_counter()
        try:
            return whole(*args, **kwargs)
        finally:
            depth[0] -= 1
            if not depth[0]:
                spent[0] += time.perf_counter() - began

    setattr(owner, name, timed)


def one_run() -> None:
    """In a process of its own: a whole run with everything that only the record needs under a clock."""
    spent, depth = [0.0], [0]
    from spectramind_nb.records import audit, training_log
    from spectramind_nb.runs import execution, session, training, training_loop

    for owner, names in (
        (audit.Record, ("update", "tell", "adopt", "finish")), (audit, ("close_dead_records", "_identify")),
        (session, ("environment", "data_manifest", "run_hash", "weights_digest")), (training_loop, ("weights_digest",)),
        (execution, ("trace",)),
        (training_log.EventLogger, ("on_train_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end")),
    ):
        for name in names:
            clocked(owner, name, spent, depth)
    from spectramind_nb.core.machine import process_start

    training.train("ci_fast", resume="never")
    print(json.dumps([spent[0], time.time() - process_start()]))


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "PYTHONPATH": str(REPO)}
        shares = []
        for repeat in range(REPEATS + 1):  # the first one fills the stores
            done = subprocess.run([sys.executable, __file__, "run"], cwd=place, env=environment, capture_output=True, text=True, check=True)
            audit_s, whole_s = json.loads(done.stdout.splitlines()[-1])
            shares += [audit_s / whole_s] * (repeat > 0)
    print(f"audit: {100 * sorted(shares)[len(shares) // 2]:.1f} % of a ci_fast run (goal: at most 2 %), "
          f"{1000 * audit_s:.0f} ms of {whole_s:.1f} s in the last")


if __name__ == "__main__":
    one_run() if sys.argv[1:] == ["run"] else main()
