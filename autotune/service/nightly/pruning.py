"""Removing what is too old: trial records, and archives that nothing deploys."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

from autotune.compose import Places
from autotune.errors import ArchiveError
from autotune.registry import Registry
from autotune.resolve.deployed import archive_of, deployed_archives
from autotune.spec import Pruned

_LOG = logging.getLogger(__name__)


def archive_names(at: Places) -> frozenset[str]:
    """Name the archives that are there, as `<fingerprint>/<format>-<form>`."""
    from autotune.data.archives.listing import list_archives

    return frozenset(entry.name for entry in list_archives(at.archive_root))


def prune(
    registry: Registry, *, at: Places, keep_days: int, now: datetime, stale: Collection[tuple[str, str]] = ()
) -> Pruned:
    """Remove trial records and archives that are older than the policy has them kept.

    Decisions and their history stay. Archives stay that are deployed, wait for a review or are open; those whose
    sources have changed can never be read again, so they go at once: also where a study deploys them still, for a
    length that its dataset no more has, or until a search comes to another decision.

    Args:
        registry: The registry, under the lease of the night.
        at: Where everything is kept.
        keep_days: Days that records stay from their measurement, and archives from their last use.
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
        archives=tuple(entry.name for entry in removed),
        freed_bytes=sum(entry.size_bytes for entry in removed),
    )


def _fingerprint(name: str) -> str:
    return name.partition("/")[0]
