"""Settings of the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# machines are shared and noisy: no test is timed, property tests neither
settings.register_profile("autotune", deadline=None)
settings.load_profile("autotune")

REAL_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory):
    """Keep the user's own registry out of the tests, in child processes too."""
    before = os.environ.get("AUTOTUNE_HOME")
    os.environ["AUTOTUNE_HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    if before is None:
        del os.environ["AUTOTUNE_HOME"]
    else:
        os.environ["AUTOTUNE_HOME"] = before


@pytest.fixture(scope="session")
def real_data():
    """Folder of real data beside the project; tests that need it are skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder of real data is absent")
    return REAL_DATA
