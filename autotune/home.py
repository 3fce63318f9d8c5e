"""Where autotune keeps its files, and how much of the disk: registry, archives, caches, and the machine's lock."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from autotune.errors import SpecError
from autotune.units import parse_bytes

HOME_VARIABLE = "AUTOTUNE_HOME"
LOCK_VARIABLE = "AUTOTUNE_LOCK"
ARCHIVE_LIMIT_VARIABLE = "AUTOTUNE_ARCHIVE_LIMIT"
CACHE_LIMIT_VARIABLE = "AUTOTUNE_CACHE_LIMIT"
DEFAULT_LIMIT_SHARE = 0.2
"""Share of the disk that archives may take, and disk caches likewise, where nothing else is said."""


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


def archive_limit_bytes(home: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Give the most bytes of all archives together: `AUTOTUNE_ARCHIVE_LIMIT`, else a fifth of the home's disk.

    Raises:
        SpecError: The variable holds no size.
    """
    return _limit_bytes(ARCHIVE_LIMIT_VARIABLE, home, environ)


def disk_cache_limit_bytes(home: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Give the most bytes of all disk caches together: `AUTOTUNE_CACHE_LIMIT`, else a fifth of the home's disk.

    Raises:
        SpecError: The variable holds no size.
    """
    return _limit_bytes(CACHE_LIMIT_VARIABLE, home, environ)


def _limit_bytes(variable: str, home: Path, environ: Mapping[str, str]) -> int:
    text = environ.get(variable)
    if text:
        try:
            return parse_bytes(text)
        except SpecError as error:
            raise SpecError(f"{variable}: {error}") from error
    for folder in (home, *home.absolute().parents):
        with suppress(OSError):  # not there yet, or not to be looked at: training goes on without it
            return int(shutil.disk_usage(folder).total * DEFAULT_LIMIT_SHARE)
    return 0
