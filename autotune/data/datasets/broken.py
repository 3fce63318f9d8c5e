"""Samples that cannot be read: which they are, told to all worker processes and logged once each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from autotune.data.shared_memory import SharedMemory
from autotune.errors import SampleError

_logger = logging.getLogger(__name__)

OnBroken = Literal["raise", "skip", "substitute"]
"""What becomes of a sample that cannot be read."""
BROKEN_POLICIES: Final[tuple[OnBroken, ...]] = ("raise", "skip", "substitute")


class BrokenSamples:
    """A mark for each sample of a dataset, set when it could not be read.

    The marks lie in memory that all workers of a loader share, so that what one of them meets is counted in the
    main process and logged once.

    Args:
        count: Samples of the dataset.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._shared = SharedMemory(max(1, count))
        self._attach()

    def add(self, index: int, error: SampleError, done: str) -> None:
        """Mark a sample, and log it where it is new.

        Args:
            index: The sample.
            error: What is wrong with it.
            done: What is done about it, as the log says it (`left out`).
        """
        if self._marks[index]:
            return
        with self._shared.locked():
            first = not self._marks[index]
            self._marks[index] = 1
        if first:
            _logger.warning("Sample %d is broken and %s: %s", index, done, error)

    def __contains__(self, index: int) -> bool:
        return bool(self._marks[index])

    def __len__(self) -> int:
        return int(np.count_nonzero(self._marks))

    def indices(self) -> list[int]:
        """Give the samples that are marked, in order."""
        found: list[int] = np.flatnonzero(self._marks).tolist()
        return found

    def _attach(self) -> None:
        self._marks: npt.NDArray[np.uint8] = self._shared.array(0, self._count)

    def __getstate__(self) -> dict[str, Any]:
        return {"_count": self._count, "_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()


class NoSamples(list[Any]):
    """A batch of which every sample was left out: empty, and an error with their files for whoever looks inside.

    Args:
        paths: Files behind the samples.
    """

    def __init__(self, paths: Sequence[str] = ()) -> None:
        super().__init__()
        self.paths = tuple(paths)

    def __iter__(self) -> Iterator[Any]:
        self._refuse()

    def __getitem__(self, index: Any) -> Any:
        self._refuse()

    def __reduce__(self) -> tuple[type[NoSamples], tuple[tuple[str, ...]]]:
        """Travel with the paths."""
        return type(self), (self.paths,)

    def _refuse(self) -> NoReturn:
        raise SampleError(
            f"every sample of a batch is broken and left out: {', '.join(self.paths)}; use EfficientDataLoader, which "
            "goes on with the next batch, larger batches, or on_broken='substitute'"
        )


__all__ = ["BROKEN_POLICIES", "BrokenSamples", "NoSamples", "OnBroken"]
