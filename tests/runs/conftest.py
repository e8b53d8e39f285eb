"""One workspace with filled stores for all tests of runs: each test trains on it in seconds."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def filled(tmp_path_factory) -> Path:
    """A workspace whose stores fill at the first run."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def here(filled, monkeypatch) -> Path:
    """Work in that workspace."""
    monkeypatch.chdir(filled)
    monkeypatch.delenv("SPECTRAMIND_CACHE", raising=False)
    return filled


@pytest.fixture
def words(short_root, here) -> list[str]:
    """Overrides of a small run that takes a second once the stores are filled."""
    return [f"data.root={short_root}", "data.batch_size=2", "data.workers=1", "trainer.max_epochs=3"]


@pytest.fixture(scope="session")
def _kept() -> dict:
    return {}


@pytest.fixture
def whole_run(words, _kept):
    """That run, never interrupted."""
    from spectramind_nb.runs.runtime import train

    if "run" not in _kept:
        _kept["run"] = train(overrides=words, resume="never")
    return _kept["run"]
