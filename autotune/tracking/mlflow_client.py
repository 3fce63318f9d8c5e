"""The way into MLflow: whether it is there, and a quiet client with short time-outs."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default one refused call blocks for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",  # its sampling thread would disturb timed windows
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for one JSON document
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow takes these from the environment alone; what the user has set wins."""

_CHATTY = ("mlflow", "alembic", "sqlalchemy", "urllib3")
_REFUSALS = frozenset({"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"})
"""MLflow's codes for what will not go better the next time."""


def mlflow_installed() -> bool:
    """Tell whether MLflow is installed; importing it would not tell, as any folder `mlflow` can be imported."""
    for name in ("mlflow", "mlflow-skinny"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return True
    return False


@contextmanager
def quiet_mlflow(environ: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Give MLflow short time-outs and keep it from printing, for the length of a block.

    The caller's own use of MLflow in this process finds environment and loggers as it left them.
    """
    added = [name for name in _SETTINGS if name not in environ]
    environ.update({name: _SETTINGS[name] for name in added})
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            environ.pop(name, None)


def open_client(tracking_uri: str) -> MlflowClient:
    """Import MLflow and open a client; over a second the first time, more where a schema is created."""
    level = logging.getLogger("mlflow").level
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(level)  # its import sets the level again
    return MlflowClient(tracking_uri=tracking_uri)


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error is about what was sent, so that sending it again is no use."""
    exceptions = sys.modules.get("mlflow.exceptions")
    if exceptions is not None and isinstance(error, exceptions.MlflowException):
        return error.error_code in _REFUSALS
    # requests raises errors that are both: a page that is no JSON comes from a broken server
    return isinstance(error, ValueError | TypeError | KeyError | AttributeError) and not isinstance(error, OSError)
