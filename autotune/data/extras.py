"""Packages of extras, imported on first use, with the way to install them where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from autotune.errors import MissingExtraError
from autotune.spec.config import FORMAT_PACKAGES, STORED_FORMS

_EXTRAS: Mapping[str, str] = {
    "albumentations": "augment",
    "cv2": "images",
    "diskcache": "disk",
    "h5py": "hdf5",
    "lmdb": "lmdb",
    "PIL": "images",
    "monai": "monai",
    "simplejpeg": "images",
    "tifffile": "tiff",
    "torchmetrics": "training",
    "zstandard": "zstd",
}
"""Extra of this distribution that brings each package, by the name that the package is imported under."""


def needed(package: str, why: str) -> Any:
    """Import a package of an extra.

    Args:
        package: Name that it is imported under.
        why: What needs it, as the message says it (`archive 'lmdb'`).

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(
            f"{why} needs the package {package!r}; install it by: pip install 'dataloader-autotune[{_EXTRAS[package]}]'"
        ) from error


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def installed_formats() -> tuple[str, ...]:
    """Give the archive formats that can be used here."""
    return tuple(name for name in STORED_FORMS if name not in FORMAT_PACKAGES or is_installed(FORMAT_PACKAGES[name]))
