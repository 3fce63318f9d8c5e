"""Batches that were read as a whole: collated already, and samples only where somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.utils.data import default_collate


class WholeBatch(list[Any]):
    """A list of samples that also knows what `default_collate` would make of it.

    It is filled when it is first asked for anything: views of small samples take longer to make than the batch took to
    read, and training wants none of them.

    Args:
        collated: The finished batch, sharing memory with the samples.
        split: Takes the batch apart into its samples.
    """

    def __init__(self, collated: Any, split: Callable[[], list[Any]]) -> None:
        super().__init__()
        self.collated = collated
        self._split: Callable[[], list[Any]] | None = split
        if isinstance(collated, torch.Tensor):  # torch reads lists of tensors without asking
            self._fill()

    def _fill(self) -> None:
        split, self._split = self._split, None
        if split is not None:
            list.extend(self, split())

    def __radd__(self, other: list[Any]) -> list[Any]:
        """Join as a list, which by itself reads the other one without asking."""
        return other + self[:]

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        """Travel as a plain list: the collated batch is of use only where it was read."""
        return list, (self[:],)


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def asked(batch: WholeBatch, *args: Any, **kwargs: Any) -> Any:
        batch._fill()  # noqa: SLF001
        return method(batch, *args, **kwargs)

    return asked


_OF_ANY_OBJECT = {"__new__", "__init__", "__getattribute__", "__class_getitem__"}
for _name, _method in vars(list).items():
    if callable(_method) and _name not in _OF_ANY_OBJECT:
        setattr(WholeBatch, _name, _asking(_method))


def collate_whole(batch: Any) -> Any:
    """Collate as torch does by default, without the copy where the batch was read as a whole."""
    return batch.collated if isinstance(batch, WholeBatch) else default_collate(batch)
