"""Training that takes tuned loaders, and records how long it waited for data.

Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.training.callbacks.base import Callback
    from autotune.training.config import Config
    from autotune.training.trainer import Trainer, train_model

_HOMES = {
    "Callback": "autotune.training.callbacks.base",
    "Config": "autotune.training.config",
    "Trainer": "autotune.training.trainer",
    "train_model": "autotune.training.trainer",
}

__all__ = ["Callback", "Config", "Trainer", "train_model"]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
