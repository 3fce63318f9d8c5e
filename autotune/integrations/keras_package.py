"""Keras 3, imported so that it runs on torch where nothing else is chosen."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from autotune.errors import MissingExtraError

BACKEND_VARIABLE = "KERAS_BACKEND"
HOME_VARIABLE = "KERAS_HOME"
"""Folder of Keras's settings, in place of `~/.keras`."""

_UNCHOSEN = {"floatx": "float32", "epsilon": 1e-7, "backend": "tensorflow", "image_data_format": "channels_last"}
"""What Keras writes to `keras.json` by itself, whatever its backend, when it is first imported."""


def imported_keras(environ: MutableMapping[str, str] = os.environ) -> Any:
    """Import Keras.

    Keras fixes its backend when it is imported, by `KERAS_BACKEND`, else by `keras.json` in its folder of settings.
    Where neither names one, torch is chosen: Keras itself would choose TensorFlow. A `keras.json` as Keras writes it
    by itself at its first import names TensorFlow, and is no choice.

    Args:
        environ: Environment; `KERAS_BACKEND` in it names the backend, `KERAS_HOME` the folder of settings.

    Raises:
        MissingExtraError: Keras is not installed, or the package of its backend is not.
    """
    if "keras" not in sys.modules and not environ.get(BACKEND_VARIABLE) and chosen_backend(environ) is None:
        environ[BACKEND_VARIABLE] = "torch"
    try:
        return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "keras":
            raise MissingExtraError(
                "the adapters for Keras need the package 'keras'; install it by: "
                "pip install 'dataloader-autotune[keras]'"
            ) from error
        backend = environ.get(BACKEND_VARIABLE) or chosen_backend(environ)
        raise MissingExtraError(
            f"Keras runs on the backend {backend!r}, which needs the package {error.name!r}; "
            f"install it, or set {BACKEND_VARIABLE}=torch before Keras is imported"
        ) from error


def chosen_backend(environ: Mapping[str, str]) -> str | None:
    """Give the backend that somebody chose in `keras.json`; None where nobody did.

    Args:
        environ: Environment; `KERAS_HOME` in it names the folder of the file.
    """
    try:
        settings = json.loads((_keras_folder(environ) / "keras.json").read_text("utf-8"))
    except (OSError, ValueError, RuntimeError):  # there is none, or Keras itself passes over it; or there is no home
        return None
    if not isinstance(settings, dict) or settings == _UNCHOSEN:
        return None
    backend = settings.get("backend")
    return backend if isinstance(backend, str) and backend else None


def _keras_folder(environ: Mapping[str, str]) -> Path:
    if HOME_VARIABLE in environ:
        return Path(environ[HOME_VARIABLE]).expanduser()
    home = Path.home()
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"  # noqa: S108  # where Keras itself looks


def queue_module() -> Any:
    """Import the module that holds Keras's queue of batches, which its public names do not reach."""
    imported_keras()
    return importlib.import_module("keras.src.trainers.data_adapters.py_dataset_adapter")


__all__ = ["imported_keras", "queue_module"]
