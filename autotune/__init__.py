"""Makes input pipelines fast without guesswork: measures loader settings and hands out the fastest.

Names are loaded when they are first used, so `import autotune` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.compose import tune
    from autotune.data.apply import apply
    from autotune.resolve.best import best_config, best_loader
    from autotune.resolve.explain import explain
    from autotune.resolve.online import online_loader
    from autotune.spec import LoaderConfig, StudySpec, StudySummary

__version__ = "0.1.0"

_HOMES = {
    "LoaderConfig": "autotune.spec",
    "StudySpec": "autotune.spec",
    "StudySummary": "autotune.spec",
    "apply": "autotune.data.apply",
    "best_config": "autotune.resolve.best",
    "best_loader": "autotune.resolve.best",
    "explain": "autotune.resolve.explain",
    "online_loader": "autotune.resolve.online",
    "tune": "autotune.compose",
}

__all__ = [
    "LoaderConfig",
    "StudySpec",
    "StudySummary",
    "apply",
    "best_config",
    "best_loader",
    "explain",
    "online_loader",
    "tune",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autotune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return [*__all__, "__version__"]
