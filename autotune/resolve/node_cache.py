"""One memory cache for all ranks of a machine, in place of one for each."""

from __future__ import annotations

import logging
import platform
from typing import Any, NamedTuple

import torch.distributed
from torch.utils.data import Dataset

from autotune.data.caches.memory import CacheOffer, MemoryCache
from autotune.data.fingerprint import source_fingerprint

_LOG = logging.getLogger(__name__)


class _Offer(NamedTuple):
    """What a rank tells the others of its cache.

    Attributes:
        node: Machine that it runs on.
        fingerprint: Fingerprint of the dataset, which is the same for equal samples.
        length: Number of samples.
        cache: The cache.
    """

    node: str
    fingerprint: str
    length: int
    cache: CacheOffer


def share_on_node(source: Dataset[Any], loaded: Dataset[Any]) -> bool:
    """Let all ranks of a machine keep samples in the memory of the first one; all ranks of the group must call it.

    Each rank sees other samples each epoch, so caches of their own would come to hold the whole dataset once a rank.
    Only caches of datasets with one fingerprint are joined: rows are known by their number.

    Args:
        source: The caller's dataset.
        loaded: What is loaded from: the memory cache, or anything else where a rank has none.

    Returns:
        Whether this rank's cache is that of another rank now.
    """
    own = _offer(source, loaded)
    offers: list[_Offer | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(offers, own)
    joined = False
    if own is not None and isinstance(loaded, MemoryCache):
        first = next(offer for offer in offers if offer is not None and offer[:3] == own[:3])
        joined = first.cache.addresses != own.cache.addresses and loaded.accept(first.cache)
    torch.distributed.barrier()  # the first one's memory stays open until everybody has it
    if joined:
        _LOG.info("samples are kept in one memory cache with the other ranks of this machine")
    return joined


def _offer(source: Dataset[Any], loaded: Dataset[Any]) -> _Offer | None:
    if not isinstance(loaded, MemoryCache):
        return None
    try:
        fingerprint = source_fingerprint(source)
        return None if fingerprint is None else _Offer(platform.node(), fingerprint, len(loaded), loaded.offer())
    except Exception:  # noqa: BLE001  # the dataset's own code runs; a cache of its own serves as well
        _LOG.debug("this rank keeps a memory cache of its own", exc_info=True)
        return None
