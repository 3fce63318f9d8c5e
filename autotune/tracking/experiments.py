"""Experiments of MLflow, found by their name or created."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_LOCAL_SCHEMES = frozenset({"", "file", "sqlite", "postgresql", "mysql", "mssql"})
"""URIs behind which no server keeps artifacts."""


def local_artifacts(tracking_uri: str, artifact_root: Path | None) -> Path | None:
    """Give the folder of artifacts where no server keeps them; None leaves it to MLflow."""
    local = urlsplit(tracking_uri).scheme.partition("+")[0] in _LOCAL_SCHEMES
    return artifact_root.absolute() if artifact_root is not None and local else None


def experiment_id(client: MlflowClient, name: str, artifact_root: Path | None) -> str:
    """Give the id of an experiment, which is created where there is none.

    Args:
        client: MLflow's client.
        name: Name of the experiment.
        artifact_root: Folder of artifacts, as `local_artifacts` gives it.

    Raises:
        ValueError: It was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if artifact_root is None else (artifact_root / name).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"MLflow's experiment {name!r} must be active, got {found.lifecycle_stage}; "
            f"restore it (`mlflow experiments restore -x {found.experiment_id}`) or delete it for good"
        )
    return str(found.experiment_id)


__all__ = ["experiment_id", "local_artifacts"]
