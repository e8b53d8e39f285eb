"""CPU of one visit's fit beside that of an earlier commit, alternating; transit curves beside PyTransit. Prints, never asserts.

PYTRANSIT_PYTHON names an interpreter whose environment has PyTransit; without it that comparison is left out, in a sentence.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import batman
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "physics"))
from synthetic_visits import observe

from spectramind_nb.physics.channel_curves import channel_light_curves
from spectramind_nb.physics.transit import limb_darkening_shares, sky_separation

REPO = Path(__file__).resolve().parents[2]
BEFORE = "6872fe4"
VISITS = {"full": (3375, 1125), "short": (900, 180)}
FIT = """
import sys, time
import numpy as np, torch
from spectramind_nb.observations.lightcurves import LightCurves
from spectramind_nb.physics.fitting import fit_visit
torch.set_num_threads(1)
held = np.load(sys.argv[1])
flux, noise, time_h = ({name: held[f"{what}_{name}"] for name in ("FGS1", "AIRS-CH0")} for what in ("flux", "noise", "time_h"))
star = dict(zip(held["names"].tolist(), held["values"].tolist()))
visit = LightCurves(1, 0, "train", flux, noise, time_h, held["wavelengths_um"], {})
seconds = []
for _ in range(6):
    start = time.process_time()
    fit = fit_visit(visit, star)
    seconds.append(time.process_time() - start)
np.savez(sys.argv[2], cpu_s=np.median(seconds[1:]), depth=fit.depth, covariance=fit.covariance)
"""
PYTRANSIT = """
import time
import numpy as np
from pytransit import TSModel
model = TSModel(parallel=False)
model.set_data(np.linspace(-0.156, 0.156, 1125))
k, ldc = np.linspace(0.0995, 0.1005, 283)[None], np.tile([0.15, 0.25], (283, 1))
call = lambda: model.evaluate(k, ldc, 0.0, 4.0, 10.0, np.radians(88.0))
call()
seconds = []
for _ in range(200):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
print(np.median(seconds))
"""


def fitted(tree: Path, curves: Path, out: Path) -> dict:
    """What the fit of a source tree makes of some light curves, and its CPU seconds."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, "-c", FIT, str(curves), str(out)], cwd=tree, env=alone, check=True, capture_output=True)
    return dict(np.load(out))


def beside_before(folder: Path, rounds: int = 3) -> None:
    """CPU of one visit, this tree and the earlier commit taking turns."""
    before = folder / "before"
    before.mkdir()
    packed = subprocess.run(["git", "archive", BEFORE], cwd=REPO, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", str(before)], input=packed, check=True)
    for name, bins in VISITS.items():
        visit, star, _ = observe(1, bins=bins)
        arrays = {f"{what}_{part}": values for what in ("flux", "noise", "time_h") for part, values in getattr(visit, what).items()}
        np.savez(folder / "curves.npz", names=list(star), values=list(star.values()), wavelengths_um=visit.wavelengths_um, **arrays)
        pairs = [[fitted(tree, folder / "curves.npz", folder / "fit.npz") for tree in (before, REPO)] for _ in range(rounds)]
        old, new = pairs[-1]
        sigma = np.sqrt(np.diag(old["covariance"]))
        ratios = [float(a["cpu_s"] / b["cpu_s"]) for a, b in pairs]
        print(f"fit of one {name} visit: {1e3 * float(new['cpu_s']):.0f} ms of CPU, {BEFORE} takes {statistics.median(ratios):.1f} x that "
              f"({min(ratios):.1f} .. {max(ratios):.1f}); depths {np.abs((new['depth'] - old['depth']) / sigma).max():.4f} sigma apart, "
              f"covariance {np.abs((new['covariance'] - old['covariance']) / sigma / sigma[:, None]).max():.5f}")


def beside_pytransit() -> None:
    """283 transit curves of 1,125 times: ours with derivatives, PyTransit's without, and how far ours are from batman's."""
    torch.set_num_threads(1)
    times, k = torch.linspace(-0.156, 0.156, 1125, dtype=torch.float64), torch.linspace(0.0995, 0.1005, 283, dtype=torch.float64)
    written = torch.empty(2, 1125, 283, dtype=torch.float64)
    depth, shares = k**2, torch.stack([s.expand(283) for s in limb_darkening_shares(0.15, 0.25)])

    def ours() -> torch.Tensor:
        """The flux; its derivatives by separation and depth are products of what comes with it, as a fit uses them."""
        return channel_light_curves(sky_separation(times, 0.0, 4.0, 10.0, 88.0), depth, shares, depth.mean())[0]

    def ours_in_full() -> None:
        _, _, by_z, by_depth = channel_light_curves(sky_separation(times, 0.0, 4.0, 10.0, 88.0), depth, shares, depth.mean())
        torch.mm(by_z, shares, out=written[0]), torch.mm(by_depth, shares, out=written[1])

    orbit = batman.TransitParams()
    orbit.t0, orbit.per, orbit.a, orbit.inc, orbit.ecc, orbit.w = 0.0, 4.0, 10.0, 88.0, 0.0, 90.0
    orbit.rp, orbit.u, orbit.limb_dark = 0.1, [0.15, 0.25], "quadratic"
    model, apart = batman.TransitModel(orbit, times.numpy()), 0.0
    for radius, curve in zip(k.tolist(), ours().T.numpy()):
        orbit.rp = radius
        apart = max(apart, float(np.abs(model.light_curve(orbit) - curve).max()))

    def median_s(work) -> float:
        seconds = []
        for _ in range(200):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)

    terms_s, full_s = median_s(ours), median_s(ours_in_full)
    print(f"283 curves of 1,125 times: {1e3 * terms_s:.2f} ms with the terms of all derivatives, {1e3 * full_s:.2f} ms with derivatives\n"
          f"  of every point written out; {1e6 * apart:.2f} ppm from batman")
    other = os.environ.get("PYTRANSIT_PYTHON")
    if not other:
        print("  not compared with PyTransit: PYTRANSIT_PYTHON names no interpreter that has it")
        return
    alone = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    theirs_s = float(subprocess.run([other, "-c", PYTRANSIT], env=alone, check=True, capture_output=True, text=True).stdout.split()[-1])
    ratios = f"{terms_s / theirs_s:.2f} and {full_s / theirs_s:.2f}"
    print(f"  PyTransit's TSModel, without derivatives: {1e3 * theirs_s:.2f} ms; ours take {ratios} x that")


if __name__ == "__main__":
    beside_pytransit()
    with tempfile.TemporaryDirectory() as folder:
        beside_before(Path(folder))
