"""Keras 3, imported so that it runs on torch where nothing else is chosen."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import MutableMapping
from typing import Any

from autotune.errors import MissingExtraError

BACKEND_VARIABLE = "KERAS_BACKEND"


def imported_keras(environ: MutableMapping[str, str] = os.environ) -> Any:
    """Import Keras.

    Keras fixes its backend when it is imported, for its child processes by the environment. Where neither was done,
    torch is chosen: Keras itself would choose TensorFlow.

    Args:
        environ: Environment; `KERAS_BACKEND` in it names the backend.

    Raises:
        MissingExtraError: Keras is not installed, or the package of its backend is not.
    """
    if "keras" not in sys.modules:
        environ.setdefault(BACKEND_VARIABLE, "torch")
    try:
        return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "keras":
            raise MissingExtraError(
                "the adapters for Keras need the package 'keras'; install it by: "
                "pip install 'dataloader-autotune[keras]'"
            ) from error
        raise MissingExtraError(
            f"Keras runs on the backend {environ.get(BACKEND_VARIABLE)!r}, which needs the package {error.name!r}; "
            f"install it, or set {BACKEND_VARIABLE}=torch before Keras is imported"
        ) from error


def queue_module() -> Any:
    """Import the module that holds Keras's queue of batches, which its public names do not reach."""
    imported_keras()
    return importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter")


__all__ = ["imported_keras", "queue_module"]
