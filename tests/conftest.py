"""Settings of the whole suite."""

import gc
import os
from pathlib import Path

# the matrices of a study are small: BLAS threads of parallel tests would only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# machines are shared and noisy: no test is timed, property tests neither; all of them run in minutes, each time on
# examples of its own
settings.register_profile("autotune", deadline=None, max_examples=30)
settings.load_profile("autotune")

pytest_plugins = ("databases", "fault_report", "pytester")

REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def pytest_collection_finish():
    """Leave all that was imported until now out of later collections, of which each takes a second otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory):
    """Keep the user's own registry and lock out of the tests, in child processes too."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTUNE_HOME", str(folder))
        patch.setenv("AUTOTUNE_LOCK", str(folder / "machine.lock"))
        yield


@pytest.fixture(scope="session")
def real_data():
    """Folder of real data beside the project; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real data is absent")
    return REAL_DATA


@pytest.fixture
def one_thread():
    """Compute small models in one thread: more of them only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
