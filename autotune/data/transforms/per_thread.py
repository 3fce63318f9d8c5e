"""Objects that keep the state of a call in themselves, for use by several threads at once."""

from __future__ import annotations

import copy
import threading
from typing import Any


class PerThread:
    """Holds an object and gives each thread a deep copy of it, the same at every call.

    A pickled or copied holder starts from the original again. The original is never handed out.

    Args:
        original: The object.
    """

    __slots__ = ("_copies", "_original")

    def __init__(self, original: Any) -> None:
        self._original = original
        self._copies = threading.local()

    def mine(self) -> Any:
        """Give this thread's copy."""
        found = getattr(self._copies, "found", None)
        if found is None:
            found = self._copies.found = copy.deepcopy(self._original)
        return found

    def __getstate__(self) -> tuple[Any]:
        return (self._original,)  # never false, or it would not be given back

    def __setstate__(self, state: tuple[Any]) -> None:
        (self._original,) = state
        self._copies = threading.local()


__all__ = ["PerThread"]
