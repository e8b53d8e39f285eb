"""Visits that ExoSim 2.2 has simulated, judged: what the toolkit recovers beside what was injected, in a table.

    python tests/travel/exosim_visits.py SIM DATA [planet ..]

SIM has a folder for each planet, named by its number: `ndrs.h5` and its options, and `se.h5` (or of it only the groups
`instantaneous_readout_params`), which knows how the telescope was made to move. DATA is where they are imported, once.
As in the competition the star table knows orbits to 2 % and 0.2 degrees only.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np

from spectramind_nb.observations.challenge import Challenge, open_challenge
from spectramind_nb.observations.exosim_import import import_exosim
from spectramind_nb.observations.exosim_options import open_options, system_row
from spectramind_nb.observations.lightcurves import LightCurves, extract_visit
from spectramind_nb.physics.fitting import fit_visit


def imported(sim: Path, data: Path, planet: int) -> None:
    if (data / "train" / str(planet)).is_dir():
        return
    row, rng = system_row(open_options(sim / str(planet) / "main.xml")), np.random.default_rng(planet)
    told = {"sma": row["sma"] * (1 + 0.02 * rng.normal()), "i": min(90.0, row["i"] + 0.2 * rng.normal())}
    import_exosim([sim / str(planet) / "ndrs.h5"], data, planet, options=sim / str(planet) / "main.xml", star=told)


def applied_shifts(file: Path, per_bin: int) -> np.ndarray:  # (2, T) pixels: along the spectrum, across it
    """By how much ExoSim moved the AIRS image in each bin: by whole sub-pixels, for a pair from its first read to its second."""
    with h5py.File(file) as sub_exposures:
        told = sub_exposures["channels/AIRS-CH0/instantaneous_readout_params"]
        steps = int(told["effective_osf"][()])
        first, last = (told[f"ndr_{end}_cumulative_sequence"][()].astype(int)[1::2] for end in ("start", "end"))
        sums = [np.insert(np.cumsum((told[f"{name}/value"][()] * steps).astype(int)), 0, 0) / steps for name in ("x_jit", "y_jit")]
    shifts = np.array([(total[last] - total[first]) / (last - first) for total in sums])
    starts = np.arange(0, shifts.shape[1], per_bin)
    shifts = np.add.reduceat(shifts, starts, axis=1) / np.diff(np.append(starts, shifts.shape[1]))
    return shifts - shifts.mean(axis=1, keepdims=True)


def white_scatter(curves: LightCurves, instrument: str, per_bin: int) -> float:
    """Scatter of the white light from bin to bin over what its photons make."""
    light = np.median(np.atleast_2d(curves.flux[instrument].T), axis=1).sum() * per_bin
    return curves.white_noise_ppm(instrument) * 1e-6 * light**0.5


def judged(challenge: Challenge, sim: Path, planet: int) -> dict[str, float]:
    curves = extract_visit(challenge, planet)
    fit, truth = fit_visit(curves, challenge.star("train", planet)), challenge.labels().loc[planet].to_numpy()
    off, covariance = fit.depth.numpy() - truth, fit.covariance.numpy()
    sigma, inverse = np.sqrt(np.diag(covariance)), np.linalg.inv(covariance[1:, 1:])
    white, white_sigma = inverse.sum(axis=0) @ off[1:] / inverse.sum(), inverse.sum() ** -0.5
    row = {"FGS1 off": 1e6 * off[0], "+-": 1e6 * sigma[0], "z": off[0] / sigma[0],
           "white off": 1e6 * white, "+- ": 1e6 * white_sigma, "z ": white / white_sigma,
           "chi2/282": off[1:] @ inverse @ off[1:] / 282, "max z": np.abs(off / sigma)[1:].max()}  # fmt: skip
    row |= {f"{name[:4]} noise": white_scatter(curves, name, per_bin) for name, per_bin in (("FGS1", 50), ("AIRS-CH0", 5))}
    shifts, seen = applied_shifts(sim / str(planet) / "se.h5", 5), curves.pointing["AIRS-CH0"][:, 1]
    gain, leak = np.linalg.lstsq(shifts.T, seen, rcond=None)[0]
    row |= {"shift px": (seen - gain * shifts[0]).std(), "leak": leak}
    return row | {"full": sum(map(len, curves.full_wells.values()))}


def main(sim: Path, data: Path, planets: list[int]) -> None:
    planets = planets or sorted(int(path.parent.name) for path in sim.glob("[0-9]*/ndrs.h5"))
    rows = []
    for planet in planets:
        imported(sim, data, planet)
        rows.append(judged(open_challenge(data), sim, planet))
        if len(rows) == 1:
            print("planet", *(f"{name:>10s}" for name in rows[0]))
        print(f"{planet:6d}", *(f"{value:10.4g}" for value in rows[-1].values()), flush=True)
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    mean, rms = ({name: np.mean(column**power) ** (1 / power) for name, column in table.items()} for power in (1, 2))
    print(f"{len(rows)} visits: FGS1 mean z {mean['z']:+.2f}, rms z {rms['z']:.2f}; AIRS white off {rms['white off']:.0f} ppm rms, "
          f"rms z {rms['z ']:.2f}; channels chi2/282 {mean['chi2/282']:.3f}; AIRS noise / photons {mean['AIRS noise']:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sim", type=lambda text: Path(text).resolve())
    parser.add_argument("data", type=lambda text: Path(text).resolve())
    parser.add_argument("planets", type=int, nargs="*")
    main(**vars(parser.parse_args()))
