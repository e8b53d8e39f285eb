"""A competition's worth of planets from raw frames to submission.csv on four cores: each part measured on few, the whole projected.

How much more the cores of this machine do than one of them is measured too, and not assumed.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "observations"))

import torch
from full_visit import write_full_visit

from spectramind_nb.core.configuration import RunConfig, compose
from spectramind_nb.core.instantiate import build
from spectramind_nb.core.machine import cpu_count, pin_threads
from spectramind_nb.core.workforce import in_processes
from spectramind_nb.learning.datamodule import VisitDataModule
from spectramind_nb.learning.planetset import planet_set
from spectramind_nb.observations.challenge import Challenge, open_challenge
from spectramind_nb.observations.layout import Visit
from spectramind_nb.observations.lightcurve_files import VisitFiles, adopt_light_curves
from spectramind_nb.observations.lightcurves import calibrate, extract_visit, lightcurve_store, load_light_curves
from spectramind_nb.physics.fitting import FitTask, _fit_into_store, fit_store, fit_visit
from spectramind_nb.runs.run import predict_planets
from spectramind_nb.runs.trainer import bare_trainer, quiet_lightning
from spectramind_nb.simulation.dataset import simulate

PLANETS, VISITS, CORES, TARGET_MIN = 1100, 1300, 4, 8
MEASURED, EPOCHS = 64, 2


def taken(work: Callable, clock: Callable = time.process_time) -> float:
    """How long it takes: what all threads together work, or what passes meanwhile."""
    start = clock()
    work()
    return clock() - start


def gain(work: Callable, tasks: list, cores: int) -> float:
    """How much more tasks a second that many processes do than one, from when all of them work."""
    rates = []
    for workers in (1, cores):
        moments = [time.perf_counter() for _ in in_processes(work, tasks, workers)]
        rates.append((len(moments) - workers) / (moments[-1] - moments[workers - 1]))
    return rates[1] / rates[0]


def fitting(few: Challenge, config: RunConfig, cache: Path) -> tuple[Callable, list[FitTask]]:
    """How a process fits a visit, and all of them to fit."""
    adopt_light_curves(few, "train", config.detector, cache)
    keys, stars = calibrate(few, "train", config.detector, cache), few.stars("train")
    source, store = lightcurve_store(cache, config.detector), fit_store(cache, config.fit)
    rows = {visit: stars.loc[visit.planet_id].to_dict() for visit in keys}
    tasks = [FitTask(visit, key, rows[visit], f"{visit.planet_id:040d}") for visit, key in keys.items()]
    return partial(_fit_into_store, few, source, store, config.plain()["fit"]), tasks


def main() -> None:
    """Print the parts and their sum."""
    pin_threads(1)
    words = ["trainer=kaggle_safe", "trainer.accelerator=cpu", "trainer.loader.num_workers=0"]
    config = compose(overrides=words)
    brief = compose(overrides=[*words, f"trainer.max_epochs={EPOCHS}"])
    with tempfile.TemporaryDirectory() as name, quiet_lightning():
        write_full_visit(Path(name) / "full", None)
        challenge = open_challenge(Path(name) / "full")
        visit = challenge.visits("train")[0]

        def extract() -> None:
            extract_visit(challenge, *visit, "train", config.detector, threads=1)

        extract()  # compiles
        calibrating_s = min(taken(extract) for _ in range(3))
        cores = min(CORES, cpu_count())
        gains = {"frames": gain(partial(extract_visit, challenge, *visit, "train", config.plain()["detector"]), [1] * 12 * cores, cores)}

        root = simulate(Path(name) / "curves", MEASURED, 0, seed=3, level="lightcurves")
        few = open_challenge(root)
        stars, ids, fits = few.stars("train"), sorted(few.planets("train")), {}

        def fit() -> None:
            for planet_id in ids:
                curves = load_light_curves(VisitFiles(root / "train" / str(planet_id)), "light_curves_0")
                fits[Visit(planet_id, 0)] = fit_visit(curves, stars.loc[planet_id].to_dict(), config.fit)

        fitting_s = taken(fit) / len(ids)
        gains["fits"] = gain(*fitting(few, config, Path(name) / "cache"), cores)
        train = planet_set(ids, fits, stars, few.labels())[torch.arange(PLANETS) % MEASURED]  # as many as there are, each often
        train = replace(train, planet_id=torch.arange(PLANETS))
        model = build(config.model, loss=build(config.loss))
        data = VisitDataModule(train, train[:2], None, config.data.batch_size, config.seed)
        preparing_s = taken(lambda: model.prepare(train))
        pin_threads(config.trainer.threads)
        epoch_s = taken(lambda: bare_trainer(brief.trainer).fit(model, datamodule=data), time.perf_counter) / EPOCHS
        pin_threads(1)
        predicting_s = taken(lambda: predict_planets(model, train, config))
    for part, ratio in gains.items():
        print(f"{part}: {cores} cores do {ratio:.2f} x what one does, {ratio / cores:.2f} of {cores} (target 0.85)")
    by_cores = {part: CORES * ratio / cores for part, ratio in gains.items()}
    parts = {
        f"frames to light curves, {VISITS} visits x {calibrating_s:.2f} s on {CORES} cores": VISITS * calibrating_s / by_cores["frames"],
        f"light curves to depths, {VISITS} visits x {fitting_s:.2f} s on {CORES} cores": VISITS * fitting_s / by_cores["fits"],
        f"training, {config.trainer.max_epochs} epochs, {config.trainer.threads} cores": preparing_s + config.trainer.max_epochs * epoch_s,
        "predicting on one core": predicting_s,
    }
    print(f"projected: {PLANETS} planets from raw frames to submission.csv")
    for words, seconds in parts.items():
        print(f"  {words:66s} {seconds / 60:5.1f} min")
    print(f"  {'together':66s} {sum(parts.values()) / 60:5.1f} min; target {TARGET_MIN} min")


if __name__ == "__main__":
    main()
