"""Made-up folders as fixtures."""

import pytest
from made_up_visit import write_made_up


@pytest.fixture
def made_up(tmp_path):
    """A fresh made-up folder that a test may damage."""
    return write_made_up(tmp_path / "root")


@pytest.fixture(scope="session")
def made_up_kept(tmp_path_factory):
    """One made-up folder for tests that only read."""
    return write_made_up(tmp_path_factory.mktemp("made_up") / "root")
