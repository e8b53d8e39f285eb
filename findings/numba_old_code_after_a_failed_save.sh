#!/usr/bin/env bash
# numba 0.68.1: when the machine code of a changed source cannot be written, the next process runs the code of the source before the change.
#
# Behaviour: with cache=True the index of a function is written first, and then, under the name that the index already gives, the code. A file of that name is there from before
# the change. If the second write fails (a full disk, a quota, a process killed between the two), the error is raised once; afterwards the index is that of the new
# source and the code that of the old one. Later processes count a cache hit and compute with a function that is no longer written anywhere. Two processes at a time
# need no failure for it: one that reads between the two writes of the other takes the old code too.
# Expected before the run: after a failed write the next process compiles, and gives what the source says.
# Source: IndexDataCacheFile.save in numba/core/caching.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numba==0.68.1 numpy==2.4.6
cd "$folder"
cat >kernel.py <<'PYTHON'
import numba


@numba.njit(cache=True)
def scaled(x):
    return 2.0 * x
PYTHON
run() { venv/bin/python -c "import kernel; print(kernel.scaled(3.0), sum(kernel.scaled.stats.cache_hits.values()))"; }
before=$(run)
sed -i 's/2\.0/5.0/' kernel.py
failed=$( (ulimit -f 4; run 2>&1) | tail -1) || true  # no file may grow beyond 4 kB: the index does not, the code would
after=$(run)
echo "before the change: $before; with no room for the code: $failed; afterwards: $after (the source says 15.0)"
[ "$before" = "6.0 0" ] || { echo "the first process did not compile"; exit 1; }
[[ $failed == OSError* ]] || { echo "numba changed: a failed write is no error any more"; exit 1; }
[ "$after" = "6.0 1" ] || { echo "numba changed: the old code is not used any more"; exit 1; }
