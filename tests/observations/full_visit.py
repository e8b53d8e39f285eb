"""A simulated visit whose pixels are the real detector's, with everything about it known."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas as pd

from spectramind_nb.observations import challenge as ch
from spectramind_nb.observations import layout, signals, writing
from spectramind_nb.observations.detector import read_calibration
from spectramind_nb.simulation import dataset, visits
from spectramind_nb.simulation.pixels import Detector, draw_detector, with_errors
from spectramind_nb.simulation.planets import draw_planet
from spectramind_nb.simulation.settings import settings

PLANET = 342072318


def real_pixels(sample_root: Path, instrument: str) -> Detector:
    """The pixels of the real sample's detector; a masked one keeps what its calibration says of it."""
    challenge = ch.open_challenge(sample_root)
    found = read_calibration(challenge, "train", challenge.planets()[0], 0, instrument)
    dead = signals.read_plane(
        challenge.calibration_path("train", challenge.planets()[0], 0, instrument, "dead"), found.mask.shape
    )
    return Detector(found.dark, dead, found.flat, found.read, found.linear_corr)


def write_full_visit(
    root: Path,
    sample_root: Path | None,  # the real sample; None: pixels drawn by the simulator
    config: Mapping | None = None,  # what differs from configs/simulator/default.yaml
    n_frames: Mapping[str, int] = layout.FULL_FRAMES,
    seed: int = 0,
    long: bool = False,
    noiseless: bool = False,  # no photon noise, no cosmic rays, read noise of less than a count: what is left is bias
) -> SimpleNamespace:
    """Write planet PLANET, visit 0, and say what it is made of: `.light[instrument]` is the truth, electrons per pair."""
    root, quiet = Path(root), {"noise": {"photon": 0.0, "cosmic_rays_per_pixel_s": 0.0}} if noiseless else {}
    config = settings({**(config or {}), **quiet})
    planet = draw_planet(seed, PLANET, config)
    circumstances = visits.draw_visit_truth(seed, PLANET, 0, config)
    stars = pd.DataFrame([planet.star], index=pd.Index([PLANET], name="planet_id"))
    stars = stars.reindex(columns=layout.STAR_COLUMNS).fillna(1.0)
    labels = pd.DataFrame([planet.depth], index=stars.index, columns=layout.LABEL_COLUMNS)
    writing.write_tables(root, {"train": stars}, labels, n_frames)
    times = {name: visits.pair_times_h(n_frames[name], name) for name in layout.INSTRUMENTS}
    for name in layout.INSTRUMENTS:
        pixels = real_pixels(sample_root, name) if sample_root else draw_detector(name, seed, PLANET, 0, config["detector"])
        files = with_errors(pixels, name, seed, PLANET, 0, config["calibration"]["errors"])
        read = pixels.read
        pixels = replace(pixels, read=1.5 + 0 * read) if noiseless else pixels
        with mock.patch.object(dataset, "pixels_and_files", lambda *_, both=(pixels, files): both):
            frames, products = dataset.visit_frames(planet, circumstances, name, n_frames[name], seed, config)
        folder = root / "train" / str(PLANET)
        writing.write_signal(folder / f"{name}_signal_0.parquet", frames.T, long=long)
        writing.write_calibration(folder / f"{name}_calibration_0", **{**products, "read": read})
    light = visits.expected_light(planet, circumstances, times, config)
    transit = {
        name: visits.relative_light(planet, name, circumstances.mid_time_h[name], times[name])
        for name in layout.INSTRUMENTS
    }
    return SimpleNamespace(root=root, seed=seed, planet=planet, light=light, transit=transit, time_h=times, config=config)
