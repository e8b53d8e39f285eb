"""Made-up folders as fixtures."""

import copy
import shutil

import pytest
from made_up_visit import write_made_up


@pytest.fixture(scope="session")
def made_up_kept(tmp_path_factory):
    """One made-up folder for tests that only read."""
    return write_made_up(tmp_path_factory.mktemp("made_up") / "root")


@pytest.fixture
def made_up(tmp_path, made_up_kept):
    """A copy of it that a test may damage."""
    fresh = copy.deepcopy(made_up_kept)
    fresh.root = shutil.copytree(made_up_kept.root, tmp_path / "root")
    return fresh
