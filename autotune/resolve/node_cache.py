"""One memory cache for all ranks of a machine, in place of one for each."""

from __future__ import annotations

import logging
import platform
from functools import cached_property
from typing import Any, NamedTuple

import torch.distributed
from torch.utils.data import Dataset

from autotune.data.caches.memory import CacheOffer, MemoryCache
from autotune.data.fingerprint import source_fingerprint

_LOG = logging.getLogger(__name__)


class _Member(NamedTuple):
    """What ranks have in common that can share a cache.

    Attributes:
        node: Machine that a rank runs on.
        fingerprint: Fingerprint of the dataset, which is the same for equal samples.
        length: Number of samples.
    """

    node: str
    fingerprint: str
    length: int


class NodeCache:
    """Lets all ranks of a machine keep samples in the memory of the first one.

    Each rank sees other samples each epoch, so caches of their own would come to hold the whole dataset once a rank.
    Only caches of datasets with one fingerprint are joined: rows are known by their number.

    Args:
        source: The caller's dataset.
    """

    def __init__(self, source: Dataset[Any]) -> None:
        self._source = source

    @property
    def joinable(self) -> bool:
        """Whether others can recognise the dataset."""
        return self._member is not None

    def together(self) -> int:
        """Count the ranks that can share a cache with this one, itself included; all ranks must call it."""
        own = self._member
        members = _gathered(own)
        return 1 if own is None else members.count(own)

    def join(self, loaded: Dataset[Any]) -> bool:
        """Use the memory of the first rank of the machine in place of one's own; all ranks must call it.

        Args:
            loaded: What is loaded from: the memory cache, or anything else where a rank has none.

        Returns:
            Whether each rank of the group that can share a cache does so now.
        """
        member = self._member if isinstance(loaded, MemoryCache) else None
        own = _offer(loaded) if member is not None and isinstance(loaded, MemoryCache) else None
        offers = _gathered(None if own is None else (member, own))
        joined = False
        if own is not None and isinstance(loaded, MemoryCache):
            first = next(offer[1] for offer in offers if offer is not None and offer[0] == member)
            is_first = first.addresses == own.addresses
            joined = is_first or _accepted(loaded, first)
            if joined and not is_first:
                _LOG.info("samples are kept in one memory cache with the other ranks of this machine")
        # The first one's memory stays open until everybody has told whether they have it.
        return all(_gathered(member is None or joined))

    @cached_property
    def _member(self) -> _Member | None:
        try:
            fingerprint = source_fingerprint(self._source)
            if fingerprint is None:
                return None
            return _Member(platform.node(), fingerprint, len(self._source))  # type: ignore[arg-type]  # map-style
        except Exception:  # noqa: BLE001  # the dataset's own code runs; a cache of its own serves as well
            _LOG.debug("this rank keeps a memory cache of its own", exc_info=True)
            return None


def share_on_node(source: Dataset[Any], loaded: Dataset[Any]) -> bool:
    """Let all ranks of a machine keep samples in the memory of the first one; see `NodeCache.join`.

    Args:
        source: The caller's dataset.
        loaded: What is loaded from.
    """
    return NodeCache(source).join(loaded)


def _gathered(own: Any) -> list[Any]:
    told: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(told, own)
    return told


def _accepted(cache: MemoryCache, offer: CacheOffer) -> bool:
    try:
        return cache.accept(offer)
    except Exception:  # noqa: BLE001  # the others wait to be told; a cache of its own serves as well
        _LOG.debug("the memory cache of another rank cannot be had", exc_info=True)
        return False


def _offer(cache: MemoryCache) -> CacheOffer | None:
    try:
        return cache.offer()
    except Exception:  # noqa: BLE001  # a cache of its own serves as well
        _LOG.debug("this rank keeps a memory cache of its own", exc_info=True)
        return None
