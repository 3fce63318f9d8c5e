"""Putting a resolution into effect: archive and cache around the dataset, or a step back where they cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.data.build import Applied, apply
from autotune.data.caches.memory import available_bytes
from autotune.errors import AutotuneError, CapacityError, RandomSamplesError, SpecError
from autotune.resolve.resolution import Resolution, warn_caller

Pinned = Mapping[str, Any]

_CACHE_FIRST = (CapacityError, RandomSamplesError)
"""Refusals that most likely come from the cache, not from the archive below it."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where stored samples lie, and whether missing ones may be made.

    Attributes:
        archive_root: Folder of archives.
        cache_root: Folder of caches that keep files.
        build_archive: Whether a missing archive is built first.
    """

    archive_root: Path
    cache_root: Path
    build_archive: bool = False

    @classmethod
    def under(cls, home: Path, *, build_archive: bool = False) -> Places:
        """Give the places inside a home folder."""
        return cls(archive_root=home / "archives", cache_root=home / "cache", build_archive=build_archive)


def put_into_effect(
    dataset: Dataset[Any],
    resolution: Resolution,
    places: Places,
    *,
    pinned: Collection[str] = (),
    resolve_again: Callable[[Pinned], Resolution] | None = None,
) -> tuple[Resolution, Applied]:
    """Apply a resolution, stepping back to what can be had; each step warns and joins the reasons.

    Args:
        dataset: The user's dataset.
        resolution: What was resolved.
        places: Where stored samples lie.
        pinned: Fields that the caller fixed; a decoder among them is not given up.
        resolve_again: Resolves with further pins, so that a step back takes the best that was measured
            with them; None replaces the fields only.

    Raises:
        SpecError: Not even plain files without a cache can be had: the caller's own arguments are at fault.
    """
    given_up: dict[str, Any] = {}
    reasons: tuple[str, ...] = ()
    current = resolution
    while True:
        try:
            return current.replace(why=(*current.why, *reasons)), _applied(dataset, current, places)
        except Exception as error:
            # Whatever the dataset's own code raises while samples are probed: the plain loader may never read those.
            step = _step_back(current, error, given_up=given_up, pinned=pinned)
            if step is None:
                raise
            given_up.update(step)
            told = str(error) if isinstance(error, AutotuneError) else f"{type(error).__name__}: {error}"
            reason = f"{', '.join(f'{name}={value}' for name, value in step.items())} instead: {told}"
            warn_caller(f"{reason}. Training goes on without it.")
            reasons = (*reasons, reason)
            current = resolve_again(given_up) if resolve_again else _replaced(current, step)


def _applied(dataset: Dataset[Any], resolution: Resolution, places: Places) -> Applied:
    limit_bytes = None
    if resolution.ranks_on_node > 1 and resolution.config.cache != "none":
        available = available_bytes()
        limit_bytes = None if available is None else available // resolution.ranks_on_node
    return apply(
        dataset,
        resolution.config,
        archive_root=places.archive_root,
        cache_root=places.cache_root,
        limit_bytes=limit_bytes,
        build=places.build_archive,
    )


def _step_back(
    resolution: Resolution, error: Exception, *, given_up: Pinned, pinned: Collection[str]
) -> dict[str, Any] | None:
    config = resolution.config
    steps: list[dict[str, Any]] = []
    if config.archive != "files":
        steps.append({"archive": "files"})
    if config.cache != "none":
        steps.append({"cache": "none"})
    if isinstance(error, (*_CACHE_FIRST, SpecError)):
        steps.reverse()
    if isinstance(error, SpecError) and config.decoder is not None and "decoder" not in pinned:
        steps.insert(0, {"decoder": None})
    left = [step for step in steps if not step.keys() & given_up.keys()]
    return left[0] if left else None


def _replaced(resolution: Resolution, step: Pinned) -> Resolution:
    fields = {**resolution.config.model_dump(), **step}
    if "archive" in step:
        fields["stored"] = None
    if "cache" in step:
        fields["cache_fraction"] = None
    return resolution.replace(config=fields, match="near" if resolution.match == "exact" else resolution.match)
