#!/usr/bin/env bash
# pytorch-lightning 2.6.6: SLURM_NTASKS alone, even empty, makes a process a member of a SLURM job.
#
# Behaviour: whoever asks the cluster for a shell and starts Python in it without srun has SLURM_NTASKS in the environment, and is one process. Lightning
# looks at whether that variable is there (and at the name of the job), not at whether srun started this process (SLURM_STEP_ID): with SLURM_NTASKS=4
# it refuses to make a Trainer. An empty value, as containers that blank variables pass on, counts as SLURM, too.
# Expected before the run: a process that srun did not start trains alone. Take the variable away, or set SLURM_JOB_NAME=interactive.
# Source: lightning_fabric/plugins/environments/slurm.py (detect) of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import os

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment

for name in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[name]
assert not SLURMEnvironment.detect()
os.environ["SLURM_NTASKS"] = ""
print(f"SLURM_NTASKS empty: detected {SLURMEnvironment.detect()}")
assert SLURMEnvironment.detect(), "Lightning changed: an empty variable is no SLURM"

os.environ["SLURM_NTASKS"] = "4"
try:
    pl.Trainer(devices=1, accelerator="cpu", logger=False)
except RuntimeError as error:
    print(f"SLURM_NTASKS=4: {error}")
else:
    raise SystemExit("Lightning changed: one process of an allocation of four makes a Trainer")
os.environ["SLURM_JOB_NAME"] = "interactive"
print(f"SLURM_JOB_NAME=interactive: detected {SLURMEnvironment.detect()}")
assert not SLURMEnvironment.detect()
pl.Trainer(devices=1, accelerator="cpu", logger=False)
PYTHON
