"""CPU of a fit beside an earlier commit, alternating, and beside ExoIris; transit curves beside PyTransit. Prints, never asserts.

PYTRANSIT_PYTHON names an interpreter whose environment has PyTransit, EXOIRIS_PYTHON one that has exoiris 1.1.1 and pytransit 2.8.1;
without them these comparisons are left out, in a sentence.
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
EXOIRIS = """
import time
import numpy as np
from exoiris import ExoIris
from exoiris.tsdata import TSData
hours, um = np.linspace(-0.15, 0.15, 300), np.linspace(1.95, 3.9, 282)
flux = 1 + np.random.default_rng(0).normal(0, 1e-3, (282, 300))
flux[:, 90:210] -= 0.01
model = ExoIris("planet", "power-2", data=TSData(hours, um, flux, np.full_like(flux, 1e-3), name="visit"), nk=50)
for name, kind, *values in (("tc_00", "NP", 0.0, 0.01), ("p", "NP", 4.0, 1e-4), ("rho", "UP", 0.5, 2.5), ("b", "UP", 0.0, 0.5)):
    model.set_prior(name, kind, *values)
model.set_prior("radius ratios", "UP", 0.08, 0.12)
model.fit(niter=1, initial_population=model.ps.sample_from_prior(200), plot_convergence=False)
model.sample(niter=1, thin=1, use_tqdm=False)
start = time.process_time()
model.fit(niter=4, plot_convergence=False)
fitted = time.process_time() - start
start = time.process_time()
model.sample(niter=4, thin=1, use_tqdm=False)
print(50 * fitted + 50 * (time.process_time() - start))
"""


def fitted(tree: Path, curves: Path, out: Path) -> dict:
    """What the fit of a source tree makes of some light curves, and its CPU seconds."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, "-c", FIT, str(curves), str(out)], cwd=tree, env=alone, check=True, capture_output=True)
    return dict(np.load(out))


def beside_before(folder: Path, rounds: int = 3) -> float:
    """CPU of one visit, this tree and the earlier commit taking turns; returns that of the last visit, in seconds."""
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
    return float(new["cpu_s"])


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


def beside_exoiris(ours_s: float) -> None:
    """CPU of 200 steps of ExoIris's optimiser and 200 of its sampler on 282 x 300 points, far from converged; 4 of each measured."""
    other = os.environ.get("EXOIRIS_PYTHON")
    if not other:
        print("not compared with ExoIris: EXOIRIS_PYTHON names no interpreter that has it")
        return
    alone = {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    told = subprocess.run([other, "-W", "ignore", "-c", EXOIRIS], env=alone, check=True, capture_output=True, text=True).stdout
    theirs_s = float(told.split()[-1])
    print(f"ExoIris, 200 + 200 steps: {theirs_s:.0f} s of CPU, {theirs_s / ours_s:,.0f} x the fit of a short visit (target 1,500 x)")


if __name__ == "__main__":
    beside_pytransit()
    with tempfile.TemporaryDirectory() as folder:
        ours_s = beside_before(Path(folder))
    beside_exoiris(ours_s)
