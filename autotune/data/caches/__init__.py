"""Cache modes, one a module."""

from collections.abc import Mapping

from autotune.data.caches._base import CacheMode
from autotune.data.caches.memory import MemoryCache, MemoryCacheMode
from autotune.data.caches.none import NoCache

CACHE_MODES: Mapping[str, CacheMode] = {"none": NoCache(), "memory": MemoryCacheMode()}

__all__ = ["CACHE_MODES", "CacheMode", "MemoryCache"]
