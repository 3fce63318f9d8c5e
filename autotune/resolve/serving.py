"""Putting a resolution into effect: archive and cache around the dataset, or a step back where they cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed
from torch.utils.data import Dataset

from autotune.data.apply import Applied, prepare
from autotune.data.archives.listing import built_forms
from autotune.data.archives.store import OpenedArchive
from autotune.data.caches.planning import available_bytes
from autotune.errors import (
    ArchiveDamagedError,
    ArchiveMissingError,
    ArchiveStaleError,
    AutotuneError,
    SpecError,
)
from autotune.resolve.deployed import form_name
from autotune.resolve.resolution import Resolution, warn_caller
from autotune.resolve.worth import worth_of_building
from autotune.units import format_bytes, format_seconds

_LOG = logging.getLogger(__name__)

Pinned = Mapping[str, Any]
ResolveAgain = Callable[[Pinned, frozenset[str] | None], Resolution]
"""Resolves with further pins and with the archives that can be had, as `<format>-<form>`; None is any."""

_BUILDING_HELPS = (ArchiveMissingError, ArchiveStaleError, ArchiveDamagedError)
_TOLD_SHARE = 0.1
"""A build is logged whenever so much more of it is done."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where stored samples lie, and whether missing ones may be made.

    Attributes:
        archive_root: Folder of archives.
        cache_root: Folder of caches that keep files.
        build: Whether an archive that is missing, stale or damaged is built first.
        build_workers: Processes that build it; 0 is this one.
        archive_limit_bytes: Most bytes of all archives together; None is no limit.
        disk_cache_limit_bytes: Most bytes of all disk caches together; None is no limit.
        kept_archives: Archives that are never removed for a new one, as `<fingerprint>/<format>-<form>`.
    """

    archive_root: Path
    cache_root: Path
    build: bool = False
    build_workers: int = 0
    archive_limit_bytes: int | None = None
    disk_cache_limit_bytes: int | None = None
    kept_archives: Collection[str] = ()

    @classmethod
    def under(cls, home: Path, **settings: Any) -> Places:
        """Give the places inside a home folder."""
        return cls(archive_root=home / "archives", cache_root=home / "cache", **settings)


def put_into_effect(
    dataset: Dataset[Any],
    resolution: Resolution,
    places: Places,
    *,
    pinned: Collection[str] = (),
    resolve_again: ResolveAgain | None = None,
    together: int = 1,
) -> tuple[Resolution, Applied]:
    """Apply a resolution, stepping back to what can be had; each step warns and joins the reasons.

    Args:
        dataset: The user's dataset.
        resolution: What was resolved.
        places: Where stored samples lie.
        pinned: Fields that the caller fixed; a decoder among them is not given up.
        resolve_again: Resolves anew for a step back, so that it takes the best that was measured of what is
            left; None replaces the fields only.
        together: Ranks of this machine that keep samples in one memory cache, which has the room of all of them.

    Raises:
        SpecError: Not even plain files without a cache can be had: the caller's own arguments are at fault.
    """
    given_up = _GivenUp()
    reasons: tuple[str, ...] = ()
    current = resolution
    while True:
        try:
            return current.replace(why=(*current.why, *reasons)), _applied(dataset, current, places, together)
        except Exception as raised:  # noqa: BLE001
            # Whatever the dataset's own code raises while samples are probed: the plain loader may never read those.
            # The error gets no name here: its traceback holds this frame, and with it the loader of the caller, whose
            # workers would then live until some collection of cycles and not answer for seconds at their end.
            step = _step_back(current, raised, given_up=given_up.pins, pinned=pinned)
            if step is None:
                raise _cause(raised) from None
            before = current
            if resolve_again is None:
                given_up.pins.update(step)
                current = _replaced(current, step)
            else:
                given_up.add(step, before, _built(dataset, places), pinned=pinned)
                current = resolve_again(given_up.pins, given_up.archives)
            reason = _reason(step, before, current, _cause(raised))
            if "archive" in step and isinstance(_cause(raised), _BUILDING_HELPS) and not places.build:
                reason += worth_of_building(dataset, before, current)
            warn_caller(f"{reason}. Training goes on without it.")
            reasons = (*reasons, reason)


def put_into_effect_on_all(
    dataset: Dataset[Any], resolution: Resolution, places: Places, *, pinned: Collection[str], together: int
) -> tuple[Resolution, Applied]:
    """Apply a resolution on every rank of the process group; all ranks must call it.

    For the arguments see `put_into_effect`.

    Raises:
        SpecError: It cannot be applied here, or on another rank: then none goes on and waits for the others.
    """
    try:
        done = put_into_effect(dataset, resolution, places, pinned=pinned, together=together)
    except Exception as error:
        _told_by_all(f"{type(error).__name__}: {error}")
        raise
    for rank, failure in enumerate(_told_by_all(None)):
        if failure is not None:
            raise SpecError(f"rank {rank} cannot load as rank 0 resolved, so no rank does: {failure}")
    return done


def _told_by_all(own: str | None) -> list[str | None]:
    told: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(told, own)
    return told


class _GivenUp:
    """What was given up in steps back.

    Attributes:
        pins: Fields with what is taken instead.
        archives: Archives that can still be had; None is any.
    """

    def __init__(self) -> None:
        self.pins: dict[str, Any] = {}
        self.archives: frozenset[str] | None = None
        self._tried: set[str] = set()

    def add(
        self,
        step: Pinned,
        resolution: Resolution,
        built: Callable[[], frozenset[str]],
        *,
        pinned: Collection[str],
    ) -> None:
        """Give up one archive for the next best that is built, or fields where there is no choice."""
        form = form_name(resolution.config)
        if step.keys() != {"archive"} or "archive" in pinned or form in self._tried:
            self.pins.update(step)
            return
        self._tried.add(form)
        self.archives = (built() if self.archives is None else self.archives) - self._tried


def _built(dataset: Dataset[Any], places: Places) -> Callable[[], frozenset[str]]:
    return lambda: built_forms(dataset, places.archive_root)


def _reason(step: Pinned, before: Resolution, current: Resolution, error: Exception) -> str:
    told = str(error) if isinstance(error, AutotuneError) else f"{type(error).__name__}: {error}"
    if "archive" not in step:
        return f"{', '.join(f'{name}={value}' for name, value in step.items())} instead: {told}"
    taken = ", ".join(f"{name}={getattr(current.config, name)}" for name in step)
    return f"{taken} instead of {form_name(before.config)}: {told}"


def _applied(dataset: Dataset[Any], resolution: Resolution, places: Places, together: int) -> Applied:
    config, limit_bytes = resolution.config, None
    if config.cache == "disk":
        limit_bytes = places.disk_cache_limit_bytes
    elif resolution.ranks_on_node > together and config.cache == "memory":
        limit_bytes = available_bytes() * together // resolution.ranks_on_node
    told = _Told(form_name(config))
    apply = partial(
        prepare,
        dataset,
        archive_root=places.archive_root,
        cache_root=places.cache_root,
        limit_bytes=limit_bytes,
        build=places.build,
        build_workers=places.build_workers,
        archive_limit_bytes=places.archive_limit_bytes,
        kept_archives=places.kept_archives,
        progress=told,
    )
    if config.archive != "files" and config.cache != "none":
        try:  # the archive by itself first: then it is known which of the two cannot be had
            apply(config.replace(cache="none", cache_fraction=None))
        except Exception as error:
            raise _ArchiveRefusedError(error) from error
    prepared = apply(config)
    told.end(prepared.archive)
    return Applied(prepared.dataset, prepared.arguments)


class _ArchiveRefusedError(Exception):
    """The archive cannot be had, whatever becomes of the cache above it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Told:
    """Logs how far the build of an archive is."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._share = -1.0

    def __call__(self, done: int, total: int) -> None:
        share = done / total
        if share >= self._share + _TOLD_SHARE or done == total:
            self._share = share
            _LOG.info("building the archive %s: %s of %s samples", self._form, f"{done:,}", f"{total:,}")

    def end(self, archive: OpenedArchive | None) -> None:
        """Say what was built, if anything was."""
        if archive is not None and archive.build_s:
            size, took = format_bytes(archive.size_bytes), format_seconds(archive.build_s)
            _LOG.info("built the archive %s: %s in %s", self._form, size, took)


def _step_back(
    resolution: Resolution, error: Exception, *, given_up: Pinned, pinned: Collection[str]
) -> dict[str, Any] | None:
    config, refused = resolution.config, isinstance(error, _ArchiveRefusedError)
    error = _cause(error)
    steps: list[dict[str, Any]] = []
    if config.order == "streaming":
        steps.append({"archive": "files", "order": "map"})
    elif config.archive != "files":
        steps.append({"archive": "files"})
    if config.cache != "none":
        steps.append({"cache": "none"})
    if not refused and not isinstance(error, ArchiveDamagedError):
        steps.reverse()  # the archive could be had by itself, so it is the cache that cannot
    if isinstance(error, SpecError) and config.decoder is not None and "decoder" not in pinned:
        steps.insert(0, {"decoder": None})
    left = [step for step in steps if not step.keys() & given_up.keys()]
    return left[0] if left else None


def _cause(error: Exception) -> Exception:
    return error.error if isinstance(error, _ArchiveRefusedError) else error


def _replaced(resolution: Resolution, step: Pinned) -> Resolution:
    fields = {**resolution.config.model_dump(), **step}
    if "archive" in step:
        fields["stored"] = None
    if "cache" in step:
        fields["cache_fraction"] = None
    return resolution.replace(config=fields, match="near" if resolution.match == "exact" else resolution.match)
