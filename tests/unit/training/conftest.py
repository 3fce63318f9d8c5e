"""Settings of the tests of training."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute small models in one thread: more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
