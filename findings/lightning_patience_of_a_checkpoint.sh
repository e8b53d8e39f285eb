#!/usr/bin/env bash
# pytorch-lightning 2.6.6: a resumed training keeps the patience of the one that it resumes, whatever its own EarlyStopping is told.
#
# Behaviour: EarlyStopping writes its patience into the checkpoint beside how much of it is used up, and takes both from there. Whoever stops
# a training too early and resumes it with more patience stops it again at the next validation, without a warning, and the callback says that it
# has the old patience. Expected before the run: counters are restored and settings are those given now.
# Remedy: overwrite the entry in a callback's on_load_checkpoint.
# Source: EarlyStopping.state_dict and load_state_dict in pytorch_lightning/callbacks/early_stopping.py of the installed package.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2>/dev/null <<'PYTHON'
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset


class NeverBetter(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch):
        self.log("loss", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def epochs(patience, checkpoint=None):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    stop = EarlyStopping("loss", patience=patience)
    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", enable_checkpointing=False, callbacks=[stop], **quiet)
    data = DataLoader(TensorDataset(torch.ones(2, 1)))
    trainer.fit(NeverBetter(), data, data, ckpt_path=checkpoint, weights_only=False)
    return trainer, trainer.current_epoch, stop.patience


first, seen, has = epochs(2)
print(f"patience 2: {seen} epochs")
first.save_checkpoint("last.ckpt")
_, resumed, has = epochs(10, "last.ckpt")
print(f"resumed with patience 10: {resumed} epochs in all, and the callback has patience {has}")
_, anew, has = epochs(10)
print(f"from the start with patience 10: {anew} epochs")
assert anew > 10 and resumed <= seen + 1 and seen < 5, "Lightning changed: a resumed training has the patience that it is given"
PYTHON
