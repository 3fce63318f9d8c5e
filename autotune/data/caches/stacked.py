"""Samples of one fixed layout as one tensor for each leaf, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autotune.data.fixed_layout import FixedLayout, row_of
from autotune.data.samples import Skeleton, take_apart
from autotune.data.whole_batch import WholeBatch
from autotune.errors import ArchiveError

Leaves = Sequence[torch.Tensor]

_LEFT_ALONE = {
    "none": "None",
    "bigint": "an int of more than 64 bits",
    "complex": "a complex number",
    "str": "text",
    "bytes": "bytes",
}
"""Parts that `default_collate` makes no tensor of."""
_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


class StackedRows:
    """Rows of samples on a device: for each leaf a tensor `(rows, words)` of the widest integers that fit.

    Integers, because a gather of whole words is as fast as of the values themselves and every device has
    it for them, which is not so for each type of values.

    Args:
        layout: Layout of every sample.
        count: Number of rows.
        device: Where they lie.
    """

    def __init__(self, layout: FixedLayout, count: int, device: torch.device) -> None:
        self.layout = layout
        self.count = count
        self.device = device
        self._types = _types(layout)
        self._words = [_words(size) for size in layout.row_bytes]
        self._blocks = [
            torch.empty((count, size // words.itemsize), dtype=words, device=device)
            for size, words in zip(layout.row_bytes, self._words, strict=True)
        ]

    @staticmethod
    def check(layout: FixedLayout) -> None:
        """Refuse a layout of which `default_collate` does not make tensors alone.

        Raises:
            ArchiveError: Some part stays what it is, or is of a type that torch does not have.
        """
        if not layout.shapes:
            raise ArchiveError("a sample on the device is made of tensors and numbers, and there is none in it")
        _types(layout)

    @property
    def size_bytes(self) -> int:
        """Bytes of all rows."""
        return self.count * self.layout.sample_bytes

    def leaves_of(self, samples: Sequence[Any]) -> list[torch.Tensor]:
        """Stack samples on the host and move them as one tensor `(samples, words)` for each leaf.

        Raises:
            ArchiveError: One has another layout, or cannot be taken apart.
        """
        hosts = [np.empty((len(samples), size), np.uint8) for size in self.layout.row_bytes]
        for place, sample in enumerate(samples):
            skeleton, leaves = take_apart(sample)
            found = FixedLayout.of_parts(skeleton, leaves)
            if found != self.layout:
                raise ArchiveError(f"the others are ({self.layout}), got ({found})")
            for host, leaf in zip(hosts, leaves, strict=True):
                host[place] = row_of(leaf)
        return [
            torch.from_numpy(host).view(words).to(self.device) if host.size else self._none(len(samples), words)
            for host, words in zip(hosts, self._words, strict=True)
        ]

    def put(self, rows: npt.NDArray[np.int64], leaves: Leaves) -> None:
        """Keep samples, as `leaves_of` gave them."""
        places = torch.from_numpy(rows).to(self.device)
        for block, leaf in zip(self._blocks, leaves, strict=True):
            if leaf.numel():
                block.index_copy_(0, places, leaf)

    def gather(
        self,
        rows: npt.NDArray[np.int64],
        *,
        there: npt.NDArray[np.bool_] | None = None,
        others: Leaves | None = None,
    ) -> WholeBatch:
        """Give a batch with one gather for each leaf.

        Args:
            rows: Rows in the order of the batch.
            there: Which of them are taken from the rows; None is all.
            others: The samples in between, as `leaves_of` gave them, in order.
        """
        if there is None or others is None:
            places = torch.from_numpy(rows).to(self.device)
            taken = [block.index_select(0, places) for block in self._blocks]
        else:
            taken = self._merged(rows, there, others)
        shaped = [
            leaf.view(dtype).view(len(rows), *shape) if leaf.numel() else self._empty(len(rows), shape, dtype)
            for leaf, dtype, shape in zip(taken, self._types, self.layout.shapes, strict=True)
        ]
        tree = self.layout.tree
        return WholeBatch(_batch(tree, iter(shaped)), partial(_samples, tree, shaped, len(rows)))

    def moved(self, sample: Any) -> Any:
        """Move a sample of another layout, part by part.

        Raises:
            ArchiveError: Some part is none that `default_collate` makes a tensor of.
        """
        skeleton, leaves = take_apart(sample)
        layout = FixedLayout.of_parts(skeleton, leaves)
        return StackedRows(layout, 1, self.device).only(sample)

    def only(self, sample: Any) -> Any:
        """Keep and give the one sample that there is room for."""
        self.put(np.zeros(1, np.int64), self.leaves_of([sample]))
        return self.gather(np.zeros(1, np.int64))[0]

    def _merged(self, rows: npt.NDArray[np.int64], there: npt.NDArray[np.bool_], others: Leaves) -> list[torch.Tensor]:
        """Gather what is there and put the others in between."""
        from_rows = torch.from_numpy(rows[there]).to(self.device)
        kept = torch.from_numpy(np.flatnonzero(there)).to(self.device)
        rest = torch.from_numpy(np.flatnonzero(~there)).to(self.device)
        taken = []
        for block, other in zip(self._blocks, others, strict=True):
            whole = torch.empty((len(rows), block.shape[1]), dtype=block.dtype, device=self.device)
            whole.index_copy_(0, kept, block.index_select(0, from_rows))
            whole.index_copy_(0, rest, other)
            taken.append(whole)
        return taken

    def _none(self, count: int, words: torch.dtype) -> torch.Tensor:
        return torch.empty((count, 0), dtype=words, device=self.device)

    def _empty(self, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty((count, *shape), dtype=dtype, device=self.device)


def _types(layout: FixedLayout) -> list[torch.dtype]:
    """Give the type that `default_collate` gives each leaf."""
    found: list[torch.dtype] = []
    _find_types(layout.tree, iter(layout.dtypes), found)
    return found


def _find_types(tree: Skeleton, dtypes: Iterator[str], found: list[torch.dtype]) -> None:
    name = tree[0]
    if name in ("tuple", "list"):
        for child in tree[1]:
            _find_types(child, dtypes, found)
    elif name == "dict":
        for _, child in tree[1]:
            _find_types(child, dtypes, found)
    elif name in _LEFT_ALONE:
        raise ArchiveError(
            f"samples on the device are made of tensors, arrays and numbers, got {_LEFT_ALONE[name]}; leave it out, "
            "or use cache 'memory'"
        )
    elif name == "tensor":
        next(dtypes)
        found.append(getattr(torch, tree[1]))
    else:
        found.append(_type_of_array(next(dtypes)))


def _type_of_array(dtype: str) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except (TypeError, ValueError) as error:
        raise ArchiveError(
            f"arrays on the device are of a type that torch has, got {np.dtype(dtype)!r}; convert them in the "
            "dataset, or use cache 'memory'"
        ) from error


def _words(row_bytes: int) -> torch.dtype:
    return next(dtype for size, dtype in _WORDS.items() if row_bytes % size == 0)


def _samples(tree: Skeleton, leaves: Sequence[torch.Tensor], count: int) -> list[Any]:
    columns = [leaf.unbind(0) for leaf in leaves]
    return [_sample(tree, iter([column[place] for column in columns])) for place in range(count)]


def _sample(tree: Skeleton, leaves: Iterator[torch.Tensor]) -> Any:
    """Build one sample with a tensor for each leaf."""
    name = tree[0]
    if name == "tuple":
        return tuple([_sample(child, leaves) for child in tree[1]])
    if name == "list":
        return [_sample(child, leaves) for child in tree[1]]
    if name == "dict":
        return {_key(key): _sample(child, leaves) for key, child in tree[1]}
    return next(leaves)


def _batch(tree: Skeleton, leaves: Iterator[torch.Tensor]) -> Any:
    """Build the batch as `default_collate` does: tuples become lists."""
    name = tree[0]
    if name in ("tuple", "list"):
        return [_batch(child, leaves) for child in tree[1]]
    if name == "dict":
        return {_key(key): _batch(child, leaves) for key, child in tree[1]}
    return next(leaves)


def _key(key: list[Any]) -> Any:
    return bool(key[1]) if key[0] == "bool" else key[1]
