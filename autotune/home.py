"""Where autotune keeps its files: registry, archives, caches, generated data, and the machine's lock."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

HOME_VARIABLE = "AUTOTUNE_HOME"
LOCK_VARIABLE = "AUTOTUNE_LOCK"


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


def lock_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Give the file whose lock holds the machine: in a fixed place, not under the home, as the machine is what is held.

    Jobs with temporary folders of their own must exclude each other too, so `TMPDIR` does not move it.

    Args:
        environ: Environment; `AUTOTUNE_LOCK` in it names another file, for users who share none.
    """
    chosen = environ.get(LOCK_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path("/tmp" if os.name == "posix" else tempfile.gettempdir()) / "autotune-machine.lock"  # noqa: S108  (see above)
