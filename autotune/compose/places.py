"""Where everything is kept: folders, databases, and the machine's lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.home import archive_limit_bytes, disk_cache_limit_bytes, home_folder, lock_file
from autotune.registry import make_schema_of, optuna_url
from autotune.resolve.lookup import storage_url
from autotune.service_address import service_address


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where everything is kept.

    Attributes:
        home: Folder of registry, archives and caches.
        registry_url: SQLAlchemy URL of the registry; None is a file in `home`.
        tracking_uri: MLflow's tracking URI.
        lock: File whose lock holds the machine.
        archive_limit_bytes: Most bytes of all archives together; None is no limit.
        cache_limit_bytes: Most bytes of all disk caches together; None is no limit.
        service_url: Address of the service, whose pages are linked to; None where none is known.
    """

    home: Path
    registry_url: str | None = None
    tracking_uri: str
    lock: Path
    archive_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None
    service_url: str | None = None

    @property
    def optuna_url(self) -> str:
        """SQLAlchemy URL of Optuna's own database: a schema beside that of a registry in PostgreSQL, else a file."""
        beside = None if self.registry_url is None else optuna_url(self.registry_url)
        return beside or f"sqlite:///{self.home / 'optuna.db'}"

    @property
    def archive_root(self) -> Path:
        """Folder of archives."""
        return self.home / "archives"

    @property
    def cache_root(self) -> Path:
        """Folder of disk caches."""
        return self.home / "cache"


def places(home: str | Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Places:
    """Find out where everything is kept, and make the folder.

    Args:
        home: Folder; None is `AUTOTUNE_HOME`, else the user's data folder.
        environ: Environment; `MLFLOW_TRACKING_URI` and `AUTOTUNE_STORAGE` in it win over databases in the folder,
            `AUTOTUNE_URL` is the service that is linked to.
    """
    from autotune.tracking.mlflow_listener import default_tracking_uri

    folder = home_folder(home, environ)
    folder.mkdir(parents=True, exist_ok=True)
    tracking_uri = environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri(folder)
    return Places(
        home=folder,
        registry_url=storage_url(environ),
        tracking_uri=tracking_uri,
        lock=lock_file(environ),
        archive_limit_bytes=archive_limit_bytes(folder, environ),
        cache_limit_bytes=disk_cache_limit_bytes(folder, environ),
        service_url=service_address(environ),
    )


def prepared_optuna_url(at: Places) -> str:
    """Give the URL of Optuna's database once that can be opened: its schema is made where it is absent.

    Raises:
        RegistryError: The server cannot be reached, or refuses.
    """
    if not at.optuna_url.startswith("sqlite"):
        make_schema_of(at.optuna_url)
    return at.optuna_url
