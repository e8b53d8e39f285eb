"""A model, planets and a trainer so small that a run takes milliseconds."""

import logging

import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

N = 3


class Tiny(LightningModule):
    """Batches in, (mu, sigma) out; `fault` spoils one thing at the third step."""

    def __init__(self, fault=None, clock=None):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.fault, self.clock = torch.nn.Linear(N, N), fault, clock

    def forward(self, batch):
        mu, sigma = self.net(batch["depth"]), torch.ones(len(batch["depth"]), N)
        if self.fault == "sigma" and self.global_step >= 2:
            sigma = -sigma
        if self.fault == "mu" and self.global_step >= 2:
            mu = mu / 0
        return (mu[:, 1:], sigma) if self.fault == "shape" and self.global_step >= 2 else (mu, sigma)

    def training_step(self, batch, batch_idx):
        if self.clock:
            self.clock.work("step")
        loss = ((self(batch)[0] - batch["target"]) ** 2).mean()
        if self.global_step == 2 and self.fault == "loss":
            loss = loss * float("nan")
        if self.global_step == 2 and self.fault == "gradients":
            self.net.weight.register_hook(lambda gradient: gradient * float("inf"))
        if self.global_step == 2 and self.fault == "weights":
            with torch.no_grad():
                self.net.bias.fill_(float("inf"))
            return loss * 0 + self.net.weight.sum() * 0
        return loss

    def validation_step(self, batch, batch_idx):
        if self.clock:
            self.clock.work("validation")
        self.log("val/score", self(batch)[0].mean(), batch_size=len(batch["depth"]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Planets(Dataset):
    def __init__(self, spoil=None):
        self.depth = torch.randn(12, N, generator=torch.Generator().manual_seed(1))
        self.spoil = spoil

    def __len__(self):
        return 12

    def __getitem__(self, i):
        item = {"planet_id": 100 + i, "depth": self.depth[i].clone(), "target": self.depth[i].flip(0)}
        if self.spoil == "nan" and i == 7:
            item["depth"][1] = float("nan")
        if self.spoil == "missing":
            del item["target"]
        if self.spoil == "shape":
            item["target"] = item["target"][1:]
        return item


def fit(model, callbacks, spoil=None, ckpt_path=None, **settings):
    """Train on a processor; returns the trainer."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, accelerator="cpu")
    trainer = Trainer(**{**quiet, "max_epochs": 2, "num_sanity_val_steps": 0, **settings}, callbacks=callbacks)
    with torch.random.fork_rng():
        trainer.fit(model, DataLoader(Planets(spoil), batch_size=4), DataLoader(Planets(), batch_size=6), ckpt_path=ckpt_path)
    return trainer
