"""The same main job on every layout of the competition's files."""

import shutil
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from spectramind_nb.runs.submission import validate
from spectramind_nb.runs.training import train

SHORT = ["trainer=ci_fast", "data.batch_size=2"]


def as_2024(root: Path, out: Path) -> Path:
    """A 2025 data set told in the 2024 layout: no visit numbers, no star table, one ADC row a planet."""
    adc = pd.read_csv(root / "adc_info.csv").iloc[0]
    for split in ("train", "test"):
        planets = sorted(int(path.name) for path in (root / split).iterdir())
        for planet in planets:
            for path in (root / split / str(planet)).rglob("*_0*"):
                name = path.name.replace("_0.parquet", ".parquet").removesuffix("_0")
                if "signal" in path.name or path.is_dir():
                    target = out / split / str(planet) / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
        rows = pd.DataFrame({"planet_id": planets, **{name: adc[name] for name in adc.index}, "star": 0})
        rows.to_csv(out / f"{split}_adc_info.csv", index=False)
    shutil.copy(root / "train.csv", out / "train_labels.csv")
    for name in ("wavelengths.csv", "axis_info.parquet", "sample_submission.csv"):
        shutil.copy(root / name, out)
    return out


def with_long_columns(root: Path, out: Path) -> Path:
    """The same frames, each signal as one long column."""
    shutil.copytree(root, out)
    for path in out.rglob("*_signal_*.parquet"):
        frames = pl.read_parquet(path).to_numpy()
        pl.DataFrame({"0": frames.reshape(-1)}).write_parquet(path)
    return out


@pytest.fixture(scope="module")
def reference(short_root, stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    (folder / "cache").symlink_to(stores)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPECTRAMIND_CACHE", raising=False)
        return train(overrides=[*SHORT, "data=ariel2025", f"data.root={short_root}"])


def test_2025_layout(reference):
    assert reference.outcome == "finished"
    assert validate(reference.dir / "submission.csv")


def test_one_long_column_gives_the_same_submission(reference, short_root, workspace):
    root = with_long_columns(short_root, workspace / "data")
    run = train(overrides=[*SHORT, "data=ariel2025", f"data.root={root}"])
    assert (run.dir / "submission.csv").read_bytes() == (reference.dir / "submission.csv").read_bytes()


def test_2024_layout(short_root, workspace):
    root = as_2024(short_root, workspace / "data")
    run = train(overrides=[*SHORT, "data=ariel2024", f"data.root={root}"])
    assert run.outcome == "finished" and run.config.loss["edition_name"] == "2024"
    assert validate(run.dir / "submission.csv")


def test_wrong_edition_is_told(short_root, workspace):
    with pytest.raises(Exception) as caught:
        train(overrides=[*SHORT, "data=ariel2024", f"data.root={short_root}"])
    assert caught.value.exit_code in (3, 10) and "2024" in str(caught.value)
