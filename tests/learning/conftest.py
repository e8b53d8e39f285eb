"""What tests of models share."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """As `trainer.threads: 1`: how many threads share a sum decides its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
