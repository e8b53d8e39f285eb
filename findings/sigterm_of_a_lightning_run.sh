#!/usr/bin/env bash
# pytorch-lightning 2.6.6: a training that SIGTERM ended leaves with exit status 0.
#
# Behaviour: `trainer.fit` in a plain script, terminated from outside as schedulers and container services do. Lightning finishes the step,
# leaves the fit loop by way of SystemExit without a code, and the process exits with 0: to make, CI, SLURM or DVC a training that never
# came to its end is a success, and what was to follow begins.
# Expected before the run: 143, or -15 as the shell of a process that SIGTERM ended sees it. Map the signal to an exit code yourself.
# Source: pytorch_lightning/trainer/call.py and connectors/signal_connector.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
cat > run.py <<'PYTHON'
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        print("step", flush=True)
        time.sleep(0.1)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
pl.Trainer(max_epochs=1000, accelerator="cpu", **quiet).fit(Line(), DataLoader(TensorDataset(torch.ones(10, 1))))
print("trained to the end")
PYTHON
"$folder/venv/bin/python" -W ignore run.py > out.txt 2>/dev/null & run=$!
until [ "$(grep -c step out.txt)" -gt 3 ]; do sleep 0.2; done
kill -TERM $run
code=0; wait $run || code=$?
echo "steps before and after SIGTERM: $(grep -c step out.txt), trained to the end: $(grep -c end out.txt || true), exit status: $code"
[ "$code" = 0 ] && ! grep -q end out.txt || { echo "Lightning changed: SIGTERM has another exit status"; exit 1; }
