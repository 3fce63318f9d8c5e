"""One-call forms: archives as datasets."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "IterableTarArchiveDataset": "autotune.loaders.archive",
    "TarArchiveDataset": "autotune.loaders.archive",
    "WebShards": "autotune.data.archives.web_shards",
    "convert_dataset_to_tar": "autotune.loaders.archive",
    "create_tar_archive": "autotune.loaders.archive",
}
"""Public names and the modules that they are loaded from on first use."""

__all__ = sorted(_HOMES)  # noqa: PLE0605  # one list of names


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
