"""The guarded training loop beside the same loop in bare PyTorch: same model, planets, batches, steps, in one process."""

import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from spectramind_nb.core.configuration import compose
from spectramind_nb.core.environment import Place
from spectramind_nb.core.instantiate import build
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.planetset import FEATURES, PlanetSet
from spectramind_nb.records import audit
from spectramind_nb.records.journal import EventLog
from spectramind_nb.records.weights import weights_digest
from spectramind_nb.runs.devices import resolve_devices
from spectramind_nb.runs.process import prepare_process, restored_process
from spectramind_nb.runs.run_attempts import Attempt
from spectramind_nb.runs.session import Session
from spectramind_nb.runs.trainer import quiet_lightning
from spectramind_nb.runs.training_loop import fit_model
from spectramind_nb.runs.wall_and_signals import Signals, Wall

PLANETS, EPOCHS, REPEATS = 120, 6, 5


def planets(count: int, seed: int) -> PlanetSet:
    """Planets with the shapes and sizes of real fits."""
    draw = torch.Generator().manual_seed(seed)
    depth = 0.01 + 1e-4 * torch.randn(count, 283, generator=draw, dtype=torch.float64)
    own, patterns = torch.full_like(depth, 3e-5**2), 3e-5 * torch.randn(count, 8, 283, generator=draw, dtype=torch.float64)
    features = torch.randn(count, len(FEATURES), generator=draw, dtype=torch.float64)
    target = depth + 3e-5 * torch.randn(count, 283, generator=draw, dtype=torch.float64)
    return PlanetSet(torch.arange(count), depth, own, patterns, features, target)


def fresh(config, train: PlanetSet, val: PlanetSet):
    """Model and data module as a run makes them."""
    torch.manual_seed(config.seed)
    model = build(config.model, loss=build(config.loss))
    model.prepare(train)
    loader = config.trainer.loader.plain()
    return model, VisitDataModule(train, val, None, config.data.batch_size, config.seed, loader)


def bare(config, train: PlanetSet, val: PlanetSet) -> tuple[float, str]:
    """The loop as one would write it in a notebook; returns seconds of CPU and the digest of the weights."""
    model, data = fresh(config, train, val)
    model.log = lambda *words, **more: None
    state = SimpleNamespace(fn="fit")
    data.trainer = model.trainer = SimpleNamespace(lightning_module=model, global_rank=0, world_size=1, state=state)
    loader, validation = data.train_dataloader(), data.val_dataloader()
    optimizer = torch.optim.AdamW(model.parameters(), **model.hparams.optimizer)
    began = time.process_time()
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        model.train()
        for number, batch in enumerate(loader):
            optimizer.zero_grad()
            model.training_step(batch, number).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip_val)
            optimizer.step()
        model.eval()
        model.on_validation_epoch_start()
        with torch.inference_mode():
            for number, batch in enumerate(validation):
                model.validation_step(batch, number)
            model.on_validation_epoch_end()
    return time.process_time() - began, weights_digest(model.state_dict())


def guarded(config, train: PlanetSet, val: PlanetSet, folder: Path) -> tuple[float, str]:
    """The loop of a run: every guard, the diary, metrics, best and rolling checkpoints, wall and signals."""
    model, data = fresh(config, train, val)
    with audit.recorded("bench", logs=folder, debug_log=folder / "log.md") as record, Signals() as signals:
        silent = contextlib.redirect_stderr(io.StringIO())
        with silent, quiet_lightning(), restored_process():
            record.fields["weights"] = {}
            log = EventLog(folder / "events.jsonl", flush_s=config.logger.flush_s)
            session = Session(config, Attempt(folder), Wall(time.time(), 3600.0), signals, record, Place(), log)
            session.devices = resolve_devices(config.trainer.plain(), session.here)
            began = time.process_time()
            fit_model(session, model, data)
            taken = time.process_time() - began
    return taken, record.fields["weights"]["final"]


def main() -> None:
    """Alternate both, so that whatever else the machine does hits both alike."""
    words = [f"trainer.max_epochs={EPOCHS}", "trainer.wall.budget=1h", "trainer.accelerator=cpu", *sys.argv[1:]]
    config = compose(overrides=words)
    prepare_process(config)
    train, val = planets(PLANETS, 1), planets(PLANETS // 4, 2)
    times = {"bare": [], "guarded": []}
    for repeat in range(REPEATS + 1):
        with tempfile.TemporaryDirectory() as folder:
            plain_s, plain = bare(config, train, val)
            full_s, full = guarded(config, train, val, Path(folder))
        assert plain == full, "both loops must end with the same weights"
        if repeat:
            times["bare"].append(plain_s)
            times["guarded"].append(full_s)
    steps = EPOCHS * -(-PLANETS // config.data.batch_size)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    ratios = sorted(full / plain for full, plain in zip(times["guarded"], times["bare"], strict=True))
    print(f"{steps} steps of {config.data.batch_size} planets, {EPOCHS} validations: bare PyTorch {middle['bare']:.2f} s of CPU, "
          f"guarded {middle['guarded']:.2f} s; run by run {', '.join(f'{ratio:.2f}' for ratio in ratios)} x, "
          f"median {statistics.median(ratios):.2f} x (target 1.10); equal weights")


if __name__ == "__main__":
    main()
