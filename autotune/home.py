"""Where autotune keeps its files: registry, archives, caches and generated data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "AUTOTUNE_HOME"


def home_folder(explicit: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Give the folder that holds everything autotune stores; nothing is created.

    Args:
        explicit: A folder that the caller named; wins over everything.
        environ: Environment; `AUTOTUNE_HOME` in it wins over the user data folder of the platform.
    """
    chosen = explicit or environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("autotune", appauthor=False)
