"""The databases that a registry can lie in: a file, or a real PostgreSQL server that the tests of a process share."""

import postgresql_server
import pytest


@pytest.fixture(scope="session")
def postgresql():
    """A server that runs; a test that stops it starts it again."""
    reason = postgresql_server.why_not()
    if reason:
        pytest.skip(reason)
    with postgresql_server.running_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request, tmp_path):
    """Home folder and address of an empty database; the address of a file in the folder is None."""
    if request.param == "sqlite":
        return tmp_path, None
    return tmp_path, request.getfixturevalue("postgresql").new_database()
