"""Batches that were read as a whole: collated already, and samples only where somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Any

import torch
from torch.utils.data import default_collate


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def asked(*operands: Any, **kwargs: Any) -> Any:
        for operand in operands:  # the other one, too: two are joined and compared without asking it
            if isinstance(operand, WholeBatch):
                operand.fill()
        return method(*operands, **kwargs)

    return asked


def _filled_when_asked(cls: type[WholeBatch]) -> type[WholeBatch]:
    for name, method in vars(list).items():
        if callable(method) and name not in _OF_ANY_OBJECT:
            setattr(cls, name, _asking(method))
    return cls


_OF_ANY_OBJECT = {"__new__", "__init__", "__getattribute__", "__class_getitem__"}
"""What makes a list, or says nothing of what is in it."""
_FILLING = RLock()


@_filled_when_asked
class WholeBatch(list[Any]):
    """A list of samples that also knows what `default_collate` would make of it.

    It is filled when it is first asked for anything: views of small samples take longer to make than the batch took to
    read, and training wants none of them. What reads a list from C without asking, as `heapq` and `list.sort(batch)`
    do, sees it filled from the first question on; of tensors, which torch stacks without asking, it is full at once.

    Args:
        collated: The finished batch, sharing memory with the samples.
        split: Takes the batch apart into its samples.
    """

    def __init__(self, collated: Any, split: Callable[[], list[Any]]) -> None:
        super().__init__()
        self.collated = collated
        self._split: Callable[[], list[Any]] | None = split
        if isinstance(collated, torch.Tensor):
            self.fill()

    def fill(self) -> None:
        """Make the samples, unless they are there."""
        if self._split is None:
            return
        with _FILLING:  # two threads may ask
            if self._split is not None:
                list.extend(self, self._split())
                self._split = None

    def __radd__(self, other: list[Any]) -> list[Any]:
        """Join behind a plain list, which by itself reads this one without asking."""
        return other + self[:]

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        """Travel as a plain list: the collated batch is of use only where it was read."""
        return list, (self[:],)


def collate_whole(batch: Any) -> Any:
    """Collate as torch does by default, without the copy where the batch was read as a whole."""
    return batch.collated if isinstance(batch, WholeBatch) else default_collate(batch)
