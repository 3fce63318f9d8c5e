"""What archive and cache of a trial cost, as its measurement tells."""

from __future__ import annotations

from autotune.data.apply import Prepared
from autotune.spec import ArchiveUse, CacheUse


def archive_use(prepared: Prepared) -> ArchiveUse | None:
    """Give what the archive takes; None without one."""
    archive = prepared.archive
    if archive is None or archive.manifest is None:
        return None
    return ArchiveUse(size_bytes=archive.size_bytes, build_s=archive.manifest.build_s)


def cache_use(prepared: Prepared) -> CacheUse | None:
    """Give what the cache holds and did; None without one."""
    cache = prepared.cache
    if cache is None:
        return None
    return CacheUse(
        fraction=cache.fraction,
        size_bytes=cache.size_bytes,
        filled=cache.filled,
        hits=cache.hits,
        misses=cache.misses,
    )
