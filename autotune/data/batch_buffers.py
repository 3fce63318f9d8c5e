"""Memory that batches are gathered into, used again once nobody holds the batch before."""

from __future__ import annotations

import sys
from collections import defaultdict, deque
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

_T = TypeVar("_T")
ByteBuffer = npt.NDArray[np.uint8]

_REUSED = not torch.backends.mps.is_available()
"""On Apple's devices a copy that does not block reads its source later on (pytorch issue 189690), and holds nothing."""
_KEPT_MOST = 4
"""Kept for each leaf: training holds one batch while the next is made, and prefetching to a device one or two more."""


class BatchBuffers:
    """Buffers for the leaves of batches, in the process that takes them.

    Fresh memory of some megabytes costs a page fault every 4 KiB, which takes longer than to copy a batch into it;
    whether the allocator has such memory at hand is luck. So a buffer is used again, but only when nothing refers to
    it any more: no tensor of an earlier batch, no view and no sample of it. Whoever keeps batches keeps them unchanged,
    though tensors in such memory cannot be resized in place.

    At most as many are kept as were in use at a time, of the size of the largest batch, until the reader that owns
    them goes. Pickles and copies have none.
    """

    def __init__(self) -> None:
        self._kept: defaultdict[int, deque[ByteBuffer]] = defaultdict(deque)

    def __reduce__(self) -> tuple[type[BatchBuffers], tuple[()]]:
        return BatchBuffers, ()

    def take(self, leaf: int, size_bytes: int) -> ByteBuffer:
        """Give memory for a leaf of a batch, uint8 `(size_bytes,)`, of any content.

        Args:
            leaf: Number of the leaf.
            size_bytes: Its bytes in the batch.
        """
        if not size_bytes or not _REUSED:
            return np.empty(size_bytes, np.uint8)
        kept = self._kept[leaf]
        for _ in range(len(kept)):
            try:
                buffer, references = _first_of(kept)
            except IndexError:  # another thread looks at it
                break
            # counted beside each other: how many there are at least differs between versions of Python, and tracers
            if references > _first_of(deque([object()]))[1]:
                kept.append(buffer)
            elif len(buffer) >= size_bytes:
                kept.append(buffer)  # from here on held here, too, so that no other thread takes it
                return buffer[:size_bytes]
        # torch's memory is aligned for its kernels; the array around it is what its references are counted by
        buffer = torch.empty(size_bytes, dtype=torch.uint8).numpy()
        if len(kept) < _KEPT_MOST:
            kept.append(buffer)
        return buffer[:]


def _first_of(kept: deque[_T]) -> tuple[_T, int]:
    """Take the first one out, and count its references: an atomic step, so that no two threads take the same."""
    buffer = kept.popleft()
    return buffer, sys.getrefcount(buffer)
