"""The databases of tests: a registry's, in a file or a real PostgreSQL server, and MLflow's with its tables in it."""

import shutil

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


@pytest.fixture(scope="session")
def _mlflow_tables(tmp_path_factory):
    """A database that MLflow has made, with nothing in it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")).engine.dispose()
    return folder / "mlflow.db"


@pytest.fixture
def make_mlflow_database(_mlflow_tables):
    """Give a function that makes MLflow's database at a path: MLflow itself takes seconds for its tables."""

    def make(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_mlflow_tables, path)

    return make
