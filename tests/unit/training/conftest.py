"""Settings of the tests of training."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Compute in one thread."""
