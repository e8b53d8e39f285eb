"""Training as planets grow, beside an earlier commit: `prepare`, a step, memory, and their log-log slopes. Prints, never asserts.

Planets are copies of some simulated and fitted ones with depths drawn anew from each fit's errors: to simulate a thousand takes minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_fit import BEFORE, REPO

from spectramind_nb.core.configuration import compose
from spectramind_nb.learning.planetset import planet_set
from spectramind_nb.observations.challenge import open_challenge
from spectramind_nb.observations.layout import Visit
from spectramind_nb.observations.lightcurve_files import VisitFiles
from spectramind_nb.observations.lightcurves import load_light_curves
from spectramind_nb.physics.fitting import fit_visit
from spectramind_nb.simulation.dataset import simulate

FITTED, SIZES = 40, (100, 300, 1000)
TRAIN = """
import json, sys, time
import numpy as np, torch
from spectramind_nb.core.configuration import compose
try:
    from spectramind_nb.core.instantiate import build
    from spectramind_nb.learning.planetset import PlanetSet
except ImportError:
    from spectramind_nb.learning.datamodule import PlanetSet
    from spectramind_nb.runs.runtime import build
torch.set_num_threads(1)
held, count = np.load(sys.argv[1], mmap_mode="r"), int(sys.argv[2])
config = compose()
model = build(config.model, loss=build(config.loss))
model.log = lambda *words, **more: None

def memory_gb():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e9

imported_gb = memory_gb()
draw, rows = torch.Generator().manual_seed(0), torch.arange(count) % len(held["depth"])
some = {name: torch.from_numpy(held[name])[rows] for name in held.files}
own, patterns = some.pop("own_variance"), some.pop("patterns")
normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)
error = own.sqrt() * normal(count, 283) + (normal(count, patterns.shape[1], 1) * patterns).sum(1)
whole = {"own_variance": own, "patterns": patterns}
if "own_variance" not in PlanetSet.__dataclass_fields__:
    whole = {"covariance": torch.empty(count, 283, 283, dtype=torch.float64)}
    for k in range(count):
        whole["covariance"][k] = torch.diag(own[k]) + patterns[k].T @ patterns[k]
planets = PlanetSet(planet_id=torch.arange(count), **whole, **some | {"depth": some["target"] + error})
began = time.process_time()
model.prepare(planets)
prepared_s = time.process_time() - began
fields = planets.tensors() if not hasattr(model, "fields") else model.fields(planets)
steps_s = []
for step in range(12):
    chosen = torch.randperm(count, generator=draw)[:32]
    began = time.process_time()
    model.training_step({name: tensor[chosen] for name, tensor in fields.items()}, step).backward()
    steps_s.append(time.process_time() - began)
found = {"prepare_s": prepared_s, "step_s": float(np.median(steps_s[2:]))}
print(json.dumps(found | {"gb": memory_gb() - imported_gb, "in_all_gb": memory_gb()}))
"""


def fitted(folder: Path) -> Path:
    """A file of simulated and fitted planets."""
    config = compose()
    root = simulate(folder / "curves", FITTED, 0, seed=3, level="lightcurves")
    few = open_challenge(root)
    stars, ids = few.stars("train"), sorted(few.planets("train"))
    curves = {planet: load_light_curves(VisitFiles(root / "train" / str(planet)), "light_curves_0") for planet in ids}
    fits = {Visit(planet, 0): fit_visit(curves[planet], stars.loc[planet].to_dict(), config.fit) for planet in ids}
    planets = planet_set(ids, fits, stars, few.labels()).tensors()
    np.savez(folder / "fits.npz", **{name: tensor.numpy() for name, tensor in planets.items() if name != "planet_id"})
    return folder / "fits.npz"


def trained(tree: Path, fits: Path, count: int) -> dict[str, float]:
    """What a source tree needs to prepare a model for so many planets and to take some steps."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, str(fits), str(count)]
    return json.loads(subprocess.run(command, cwd=tree, env=alone, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """A line a size, then slopes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = folder / "before"
        before.mkdir()
        packed = subprocess.run(["git", "archive", BEFORE], cwd=REPO, check=True, capture_output=True).stdout
        subprocess.run(["tar", "x", "-C", str(before)], input=packed, check=True)
        fits, ours = fitted(folder), []
        for count in SIZES:
            old, new = trained(before, fits, count), trained(REPO, fits, count)
            ours.append(new)
            times = {name: old[name] / new[name] for name in ("prepare_s", "step_s")}
            print(f"{count:5d} planets: prepare {new['prepare_s']:.2f} s of CPU, {BEFORE} takes {times['prepare_s']:.1f} x that; "
                  f"a step of 32 {1e3 * new['step_s']:.0f} ms, {times['step_s']:.1f} x; "
                  f"memory {new['gb']:.2f} GB beside {old['gb']:.2f} GB, in all {new['in_all_gb']:.2f} GB", flush=True)
        for name in ("prepare_s", "gb"):
            slope = np.polyfit(np.log(SIZES), np.log([one[name] for one in ours]), 1)[0]
            print(f"log-log slope of {name.partition('_')[0]}: {slope:.2f} (target 1.05)")


if __name__ == "__main__":
    main()
