#!/usr/bin/env bash
# distributed 2026.8.0: starting worker processes sets PYTHONHASHSEED=6640 in the environment of the process that starts them, and leaves it there.
#
# Behaviour: a LocalCluster of processes gives its workers one common hash seed, so that hashes of text agree between them. It is written into os.environ
# of the caller just before a worker is spawned and not taken back when the cluster is closed. The caller's own hashing stays as it was, but every process
# that is started later, by whatever, inherits the fixed seed, and a record of the environment taken before differs from one taken after.
# Expected before the run: the caller's environment is the same after the cluster as before it.
# Source: distributed/nanny.py (Nanny.__init__ and WorkerProcess.start) of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check dask==2026.8.0 distributed==2026.8.0
cd "$folder"
cat >cluster.py <<'PYTHON'
import os
import subprocess
import sys

from distributed import Client, LocalCluster


def seed_of_a_child():
    code = "import os; print(os.environ.get('PYTHONHASHSEED'), hash('a spectrum'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    os.environ.pop("PYTHONHASHSEED", None)
    before = seed_of_a_child(), seed_of_a_child()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        assert client.submit(sum, [1, 2]).result() == 3
    after = seed_of_a_child(), seed_of_a_child()
    print("before:", *before, "after:", *after, "this process:", os.environ.get("PYTHONHASHSEED"))
    assert before[0][0] == "None" and before[0] != before[1], "hashing is not random here to begin with"
    assert os.environ.get("PYTHONHASHSEED") == "6640", "distributed changed: the environment is as it was"
    assert after[0] == after[1] and after[0][0] == "6640"
PYTHON
"$folder/venv/bin/python" cluster.py
