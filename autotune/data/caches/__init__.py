"""Cache modes, one a module."""

from collections.abc import Mapping

from autotune.data.caches._base import CachedDataset, CacheMode
from autotune.data.caches.device import DeviceCacheMode
from autotune.data.caches.disk import DiskCacheMode
from autotune.data.caches.memory import MemoryCacheMode
from autotune.data.caches.none import NoCache

CACHE_MODES: Mapping[str, CacheMode] = {
    "none": NoCache(),
    "memory": MemoryCacheMode(),
    "disk": DiskCacheMode(),
    "device": DeviceCacheMode(),
}

__all__ = ["CACHE_MODES", "CacheMode", "CachedDataset"]
