"""Removing what is too old: trial records, archives that nothing deploys, superseded searches, reports of nights."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from autotune.compose import Places, prepared_optuna_url
from autotune.errors import ArchiveError
from autotune.registry import Registry
from autotune.resolve.deployed import archive_of, deployed_archives
from autotune.spec import Pruned

_LOG = logging.getLogger(__name__)

REPORTS = "reports"
"""Folder in the home folder where nights leave their reports."""
REPORT_NAME = "nightly-"
"""How the names of those begin; what else lies there is somebody's own."""
_FILE = "sqlite:///"


def archive_names(at: Places) -> frozenset[str]:
    """Name the archives that are there, as `<fingerprint>/<format>-<form>`."""
    from autotune.data.archives.listing import list_archives

    return frozenset(entry.name for entry in list_archives(at.archive_root))


def prune(
    registry: Registry, *, at: Places, keep_days: int, now: datetime, stale: Collection[tuple[str, str]] = ()
) -> Pruned:
    """Remove trial records, archives, superseded searches and reports that are older than the policy has them kept.

    Decisions and their history stay, and of each study the Optuna study that its last search went on with. Archives
    stay that are deployed, wait for a review or are open; those whose sources have changed can never be read again, so
    they go at once: also where a study deploys them still, for a length that its dataset no more has, or until a search
    comes to another decision.

    Args:
        registry: The registry, under the lease of the night.
        at: Where everything is kept.
        keep_days: Days that records stay from their measurement, archives from their last use, searches from their last
            trial.
        now: Time in UTC.
        stale: Studies and the fingerprints that their datasets had before their files changed.
    """
    from autotune.data.archives.listing import list_archives
    from autotune.data.archives.pruning import remove_archive

    before = now - timedelta(days=keep_days)
    wanted = [(name, study) for name, studies in deployed_archives(registry).items() for study in studies]
    wanted += [(name, one.decision.study) for one in registry.waiting() if (name := archive_of(one.decision))]
    kept = {name for name, study in wanted if (study, _fingerprint(name)) not in stale}
    outdated = {fingerprint for _, fingerprint in stale}
    removed = []
    for entry in list_archives(at.archive_root):
        old = _fingerprint(entry.name) in outdated or entry.used_at < before
        if not old or entry.in_use or entry.name in kept:
            continue
        with suppress(ArchiveError):  # it came into use just now
            remove_archive(at.archive_root, entry.name)
            removed.append(entry)
    return Pruned(
        trials=registry.prune_records(before=before),
        searches=_prune_searches(registry, at, before),
        reports=_prune_reports(at, before),
        archives=tuple(entry.name for entry in removed),
        freed_bytes=sum(entry.size_bytes for entry in removed),
    )


def _prune_searches(registry: Registry, at: Places, before: datetime) -> int:
    """Remove superseded Optuna studies, and say how many."""
    from autotune.study.superseded import remove_superseded

    if at.optuna_url.startswith(_FILE) and not Path(at.optuna_url.removeprefix(_FILE)).exists():
        return 0  # nothing was searched here
    try:
        return remove_superseded(prepared_optuna_url(at), registry.studies(), before=before)
    except Exception as error:  # noqa: BLE001  (whatever a database may have, the work of the night is done and stays)
        # without its message, which may have the address of the database with the password
        _LOG.warning("Optuna's database was not pruned, which the next night tries again: %s", type(error).__name__)
        return 0


def _prune_reports(at: Places, before: datetime) -> int:
    removed = 0
    for page in (at.home / REPORTS).glob(f"{REPORT_NAME}*.html"):
        with suppress(OSError):  # somebody else removes it too
            if page.stat().st_mtime < before.timestamp():
                page.unlink()
                removed += 1
    return removed


def _fingerprint(name: str) -> str:
    return name.partition("/")[0]
