"""Memory that batches are gathered into, used again once nobody holds the batch before."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_KEPT_MOST = 4
"""Kept for each leaf: training holds one batch while the next is made, and prefetching to a device one or two more."""


class BatchBuffers:
    """Buffers for the leaves of batches, in the process that takes them.

    Fresh memory of some megabytes costs a page fault every 4 KiB, which takes longer than to copy a batch into it;
    whether the allocator has such memory at hand is luck. So a buffer is used again, but only when nothing refers to
    it any more: no tensor of an earlier batch, no view and no sample of it. Whoever keeps batches keeps them unchanged.

    It keeps no more than were in use at a time, and they go with the reader that owns them. Pickles and copies have
    none.
    """

    def __init__(self) -> None:
        self._kept: defaultdict[int, deque[npt.NDArray[np.uint8]]] = defaultdict(deque)

    def __reduce__(self) -> tuple[type[BatchBuffers], tuple[()]]:
        return BatchBuffers, ()

    def take(self, leaf: int, size_bytes: int) -> torch.Tensor:
        """Give memory for a leaf of a batch, uint8 `(size_bytes,)`, of any content.

        Args:
            leaf: Number of the leaf.
            size_bytes: Its bytes in the batch.
        """
        kept = self._kept[leaf]
        for _ in range(len(kept)):
            try:
                buffer, references = _first_of(kept)
            except IndexError:  # another thread looks at it
                break
            if references > _UNUSED:
                kept.append(buffer)
            elif len(buffer) >= size_bytes:
                kept.append(buffer)  # from here on held here, too, so that no other thread takes it
                return torch.from_numpy(buffer[:size_bytes])
        # torch's memory is aligned for its kernels; the array in between is what its references are counted by
        buffer = torch.empty(size_bytes, dtype=torch.uint8).numpy()
        if len(kept) < _KEPT_MOST:
            kept.append(buffer)
        return torch.from_numpy(buffer)


def _first_of(kept: deque[Any]) -> tuple[Any, int]:
    """Take the first one out, and count its references: an atomic step, so that no two threads take the same."""
    buffer = kept.popleft()
    return buffer, sys.getrefcount(buffer)


_UNUSED = _first_of(deque([object()]))[1]
"""References to what nothing else refers to, which differ between versions of Python."""
