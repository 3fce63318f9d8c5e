"""What the caller wants of archives: those that are built, built now, none, or one format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from autotune.errors import SpecError
from autotune.home import archive_limit_bytes, disk_cache_limit_bytes
from autotune.resolve.lookup import Source, deployed_names
from autotune.resolve.question import Question
from autotune.spec import STORED_FORMS

if TYPE_CHECKING:
    from autotune.resolve.serving import Places


def archive_pin(archive: str) -> str | None:
    """Give the format that an archive policy fixes; None leaves it to the resolver."""
    if archive in ("if_built", "build"):
        return None
    if archive == "ignore":
        return "files"
    if archive not in STORED_FORMS:
        known = ", ".join(STORED_FORMS)
        raise SpecError(f"archive must be if_built, build, ignore or one of the formats {known}, got {archive!r}")
    return archive


def places_for(archive: str, question: Question, *, source: Source, environ: Mapping[str, str]) -> Places:
    """Give the places under the home folder, and where archives may be built, what must not be removed for them.

    Raises:
        SpecError: The environment names a limit that is no size.
    """
    from autotune.resolve.serving import Places

    home = source.home
    cache_limit = disk_cache_limit_bytes(home, environ)
    kept = _kept(source) if archive == "build" else None
    if kept is None:
        return Places.under(home, disk_cache_limit_bytes=cache_limit)
    cpus = question.machine.cpu_count // question.ranks_on_node
    return Places.under(
        home,
        build=True,
        build_workers=cpus if cpus > 1 else 0,
        archive_limit_bytes=archive_limit_bytes(home, environ),
        disk_cache_limit_bytes=cache_limit,
        kept_archives=kept,
    )


def _kept(source: Source) -> frozenset[str] | None:
    """Name the deployed archives; all there are, where nobody can tell which those are; None where none can be seen."""
    from autotune.data.archives.listing import list_archives

    deployed = deployed_names(source)
    if deployed is not None:
        return deployed
    try:
        return frozenset(entry.name for entry in list_archives(source.home / "archives"))
    except OSError:
        return None
