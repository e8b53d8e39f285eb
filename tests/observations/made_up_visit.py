"""A small made-up visit, written with the library's writers from numbers this file knows."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from spectramind_nb.observations import layout, writing


def write_made_up(
    root: Path, long: bool = False, pairs: dict | None = None, seed: int = 0, depth: float = 0.01
) -> SimpleNamespace:
    """Planet 7, visit 0: a star on both detectors, bad pixels, and everything the chain must undo."""
    rng, pairs = np.random.default_rng(seed), pairs or {"FGS1": 40, "AIRS-CH0": 30}
    stars = pd.DataFrame(1.0, index=pd.Index([7], name="planet_id"), columns=layout.STAR_COLUMNS)
    labels = pd.DataFrame(depth, index=stars.index, columns=layout.LABEL_COLUMNS)
    writing.write_tables(root, {"train": stars}, labels, n_frames={name: 2 * n for name, n in pairs.items()})
    truth = {}
    for name in layout.INSTRUMENTS:
        rows, columns = np.mgrid[: layout.FRAME_SHAPE[name][0], : layout.FRAME_SHAPE[name][1]]
        shape, n = rows.shape, pairs[name]
        if name == "FGS1":
            star = 2.7e5 / (4.5 * np.pi) * np.exp(-((rows - 15) ** 2 + (columns - 15.6) ** 2) / 4.5)
        else:
            spectrum = np.interp(columns, [0, 39, 320, 356], [0, 4e3, 8e4, 0])
            star = spectrum * np.exp(-0.5 * ((rows - 15.5) / 1.6) ** 2) / 4.01
        transit = 1 - depth * (np.abs(np.linspace(-1, 1, n)) < 0.4)
        product = SimpleNamespace(
            dark=rng.normal(0.01, 0.002, shape),
            dead=rng.random(shape) < 0.004,
            flat=rng.normal(1, 0.03, shape),
            read=np.abs(rng.normal(14, 1, shape)),
            linear_corr=np.array([0.16, 0.99988, -1.5e-10, 1.2e-11, -6e-17, 1.4e-22])[:, None, None]
            * rng.normal(1, 1e-4, (6, *shape)),
            star=star,
        )
        product.dark.ravel()[rng.choice(product.dark.size, 5, replace=False)] = 12.0
        electrons = np.full((2 * n, *shape), 600.0)
        electrons[1::2] += rng.poisson((star * transit[:, None, None] + 20) * product.flat)
        electrons += rng.normal(0, 1, electrons.shape) * product.read
        product.raw = np.round((electrons + 1000) * 0.4369).clip(0, 65535).astype(np.uint16)
        folder = root / "train" / "7"
        writing.write_calibration(
            folder / f"{name}_calibration_0",
            product.dark,
            product.dead,
            product.flat,
            product.read,
            product.linear_corr,
        )
        writing.write_signal(folder / f"{name}_signal_0.parquet", product.raw, long=long)
        truth[name] = product
    return SimpleNamespace(
        root=root, depth=depth, **{name.replace("-", "_"): value for name, value in truth.items()}, of=truth
    )


def as_2024(root: Path) -> Path:
    """Rename a 2025 folder's files to what the 2024 edition calls them."""
    for path in sorted(root.glob("train/*/*_0*")):
        path.rename(path.with_name(path.name.replace("_signal_0", "_signal").replace("_calibration_0", "_calibration")))
    adc = pd.read_csv(root / "adc_info.csv")
    adc.insert(0, "planet_id", 7)
    adc["star"] = 1
    adc.to_csv(root / "train_adc_info.csv", index=False)
    (root / "adc_info.csv").unlink()
    (root / "train_star_info.csv").unlink()
    (root / "train.csv").rename(root / "train_labels.csv")
    return root
