"""A dataset read from front to back without an archive: divided over workers and ranks, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, Protocol

from autotune.data.facts import sample_nbytes
from autotune.data.streaming import StreamedArchive
from autotune.errors import SampleError


class _LeftOut(Enum):
    LEFT_OUT = "left out"


LEFT_OUT: Final = _LeftOut.LEFT_OUT
"""Takes the place of a broken sample that is left out, up to the end of the stream."""


class Ordered(Protocol):
    """A dataset whose deterministic samples can be had by number."""

    on_broken: str

    def __len__(self) -> int:
        """Give the number of samples."""

    def base_sample(self, index: int) -> Any:
        """Give the deterministic part of one sample."""


class SourceReader:
    """Gives the samples of a dataset in order, as `autotune.data.streaming` asks for them.

    Args:
        source: The dataset.
    """

    def __init__(self, source: Ordered) -> None:
        self._source = source
        self._sample_bytes: int | None = None

    def __len__(self) -> int:
        return len(self._source)

    def stream(self, first: int, stop: int) -> Iterator[Any]:
        """Give the samples of a range; `LEFT_OUT` for broken ones that the dataset leaves out."""
        for index in range(first, stop):
            try:
                yield self._source.base_sample(index)
            except SampleError:
                if self._source.on_broken != "skip":
                    raise
                yield LEFT_OUT

    def range_bytes(self, first: int, stop: int) -> int:
        """Tell roughly how many bytes a range has, by the first sample that was looked at."""
        if self._sample_bytes is None:
            found = next((s for s in self.stream(first, stop) if s is not LEFT_OUT), None)
            self._sample_bytes = sample_nbytes(found)
        return self._sample_bytes * (stop - first)


class StreamedSource(StreamedArchive):
    """The samples of a dataset in streaming order: each exactly once in every epoch, over all workers and ranks.

    Broken samples that the dataset leaves out are left out here, so an epoch may have fewer than `len` says.

    Args:
        source: The dataset.
        buffer: Samples in the shuffle buffer of each worker.
    """

    def __init__(self, source: Any, *, buffer: int = 1024) -> None:
        super().__init__(source, SourceReader(source), encoded=False, buffer=buffer)

    def __iter__(self) -> Iterator[Any]:
        # Not a generator: the epoch begins now, and not when the first sample is asked for.
        return filter(_is_there, super().__iter__())


def _is_there(sample: Any) -> bool:
    return sample is not LEFT_OUT


__all__ = ["LEFT_OUT", "StreamedSource"]
