"""The organisers' recipe as one would write it down: whole arrays, one step after the other, no cleverness."""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.stats import sigma_clip

SECONDS = {"FGS1": (0.1, 0.2), "AIRS-CH0": (0.1, 4.6)}  # even, odd frames
WIDTH = {"FGS1": 32, "AIRS-CH0": 356}
TOGETHER = 1000  # pairs; bounds the memory


def calibrated(root: Path, planet_id: int, instrument: str):
    """Yield (pairs, 32, width) electrons, stretch after stretch, masked pixels NaN."""
    folder, width = Path(root) / "train" / str(planet_id), WIDTH[instrument]
    product = {
        name: pd.read_parquet(folder / f"{instrument}_calibration_0/{name}.parquet").to_numpy()
        for name in ("dark", "dead", "flat", "linear_corr")
    }
    adc = pd.read_csv(Path(root) / "adc_info.csv").iloc[0]
    gain, offset = adc[f"{instrument}_adc_gain"], adc[f"{instrument}_adc_offset"]
    raw = pd.read_parquet(folder / f"{instrument}_signal_0.parquet").to_numpy().reshape(-1, 32, width)
    bad = product["dead"] | sigma_clip(product["dark"], sigma=5, maxiters=5).mask
    linear_corr = product["linear_corr"].reshape(6, 32, width)
    for start in range(0, len(raw), 2 * TOGETHER):
        x = raw[start : start + 2 * TOGETHER] / gain + offset
        x = sum(linear_corr[k] * x**k for k in range(6))
        x[::2] -= product["dark"] * SECONDS[instrument][0]
        x[1::2] -= product["dark"] * SECONDS[instrument][1]
        x = (x[1::2] - x[::2]) / product["flat"]
        x[:, bad] = np.nan
        yield x


def plain_sum(root: Path, planet_id: int, instrument: str, where: dict, per_bin: int) -> np.ndarray:
    """The light in the window of the `plain` recipe, (bins,) or (bins, 282), ascending wavelength."""
    light = []
    for x in calibrated(root, planet_id, instrument):
        if instrument == "FGS1":
            y, column = np.mgrid[:32, :32]
            window = np.hypot(y - where["FGS1/row"], column - where["FGS1/column"]) <= 8
            light.append(np.nansum(x[:, window], axis=1))
        else:
            centre = int(where["AIRS-CH0/trace_row"])
            light.append(np.nansum(x[:, max(centre - 8, 0) : centre + 9, 39:321], axis=1)[:, ::-1])
    light = np.concatenate(light)
    return np.array([light[k : k + per_bin].mean(axis=0) for k in range(0, len(light), per_bin)])
