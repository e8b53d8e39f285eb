#!/usr/bin/env bash
# pytorch-lightning 2.6.6: `max_time` bounds neither a run nor a session.
#
# Behaviour: the timer looks at the clock only when a training batch is over. Validation is not interrupted: with a limit of one second
# a validation of three seconds runs to its end. The time used is stored in the checkpoint, so a second session that resumes with the same `max_time`
# (the same nine hours of a notebook service) makes no training step, returns normally, and counts as a success.
# Expected before the run: a stop near the limit, and a limit for each session. Keep your own clock, from the start of the process.
# Source: pytorch_lightning/callbacks/timer.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import time

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        time.sleep(0.05)
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch):
        time.sleep(0.3)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def session(checkpoint=None):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(max_epochs=100, max_time={"seconds": 1}, accelerator="cpu", enable_checkpointing=False, **quiet)
    data = DataLoader(TensorDataset(torch.ones(10, 1)))
    before, began = 0 if checkpoint is None else torch.load(checkpoint, weights_only=False)["global_step"], time.monotonic()
    trainer.fit(Line(), data, data, ckpt_path=checkpoint, weights_only=False)
    return trainer, trainer.global_step - before, time.monotonic() - began


first, steps, seconds = session()
print(f"first session, limit 1 s: {steps} steps in {seconds:.1f} s")
assert seconds > 3, "Lightning changed: max_time also ends a validation"
first.save_checkpoint("last.ckpt")
again, steps, seconds = session("last.ckpt")
print(f"resumed session, limit 1 s: {steps} steps, status {again.state.status.value}")
assert steps == 0 and again.state.finished, "Lightning changed: a resumed session has a time of its own"
PYTHON
