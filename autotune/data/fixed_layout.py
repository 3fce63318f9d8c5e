"""Samples of one fixed layout as rows of byte blocks, and whole batches gathered from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from autotune.data.batch_buffers import BatchBuffers
from autotune.data.samples import Leaf, Skeleton, put_together, take_apart
from autotune.data.whole_batch import WholeBatch

ByteBlock = npt.NDArray[np.uint8]
"""Rows of one leaf as bytes, shape `(samples, row_bytes)`."""

_NOT_COLLATED = {"none", "bigint", "complex", "str", "bytes"}


@dataclass(frozen=True)
class FixedLayout:
    """Structure that every sample of a dataset shares.

    Attributes:
        skeleton: Structure of a sample, as JSON text.
        dtypes: Type of each leaf, as numpy writes it (`<f4`).
        shapes: Shape of each leaf.
    """

    skeleton: str
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of_parts(cls, skeleton: str, leaves: Sequence[Leaf]) -> Self:
        """Give the layout of a sample that was taken apart."""
        return cls(skeleton, tuple(leaf.dtype.str for leaf in leaves), tuple(leaf.shape for leaf in leaves))

    @classmethod
    def of(cls, sample: Any) -> Self:
        """Give the layout of a sample."""
        return cls.of_parts(*take_apart(sample))

    @cached_property
    def row_bytes(self) -> tuple[int, ...]:
        """Bytes of one sample in each leaf."""
        return tuple(
            np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            for dtype, shape in zip(self.dtypes, self.shapes, strict=True)
        )

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return sum(self.row_bytes)

    @cached_property
    def tree(self) -> Skeleton:
        """The skeleton, parsed."""
        tree: Skeleton = json.loads(self.skeleton)
        return tree

    def __str__(self) -> str:
        leaves = zip(self.dtypes, self.shapes, strict=True)
        return ", ".join(f"{np.dtype(dtype)}{list(shape)}" for dtype, shape in leaves) or "no arrays"

    def row_sample(self, blocks: Sequence[ByteBlock], row: int) -> Any:
        """Rebuild one sample from copies of its rows."""
        leaves = zip(blocks, self.dtypes, self.shapes, strict=True)
        return put_together(self.tree, [self._typed(block[row].copy(), dtype, shape) for block, dtype, shape in leaves])

    def gather(self, blocks: Sequence[ByteBlock], rows: npt.NDArray[np.int64], buffers: BatchBuffers) -> list[Any]:
        """Rebuild the samples of a whole batch with one gather for each leaf.

        Args:
            blocks: Rows of each leaf, uint8 `(samples, row_bytes)`.
            rows: Rows in the order of the batch, all of them there.
            buffers: What is gathered into.
        """

        # One thread: torch's parallel gather is 20 % faster on idle cores and 100 times slower on busy ones.
        # The rows were checked, and `clip` spares the buffer that `raise` needs.
        def take(place: int, out: ByteBlock) -> None:
            np.take(blocks[place], rows, axis=0, out=out, mode="clip")

        return self.collect(len(rows), take, buffers)

    def collect(self, count: int, copy: Callable[[int, ByteBlock], None], buffers: BatchBuffers) -> list[Any]:
        """Rebuild the samples of a whole batch whose rows `copy` knows where to find.

        Args:
            count: Number of samples.
            copy: Called with the number of each leaf and the rows to copy its bytes into.
            buffers: What is copied into, outside of workers.
        """
        leaves: list[_Gathered] = []
        leaf_facts = zip(self.dtypes, self.shapes, self.row_bytes, strict=True)
        for place, (dtype, shape, row_bytes) in enumerate(leaf_facts):
            taken, data = _memory(buffers, place, count * row_bytes)
            copy(place, taken.reshape(count, row_bytes))
            leaves.append(_Gathered(self._typed(taken, dtype, (count, *shape)), data))

        def split() -> list[Any]:
            return _split(self.tree, iter(leaves), count)

        return WholeBatch(_join(self.tree, iter(leaves)), split) if self._collates else split()

    @cached_property
    def _collates(self) -> bool:
        return len(self.shapes) > 0 and _can_join(self.tree, iter(self.dtypes))

    @staticmethod
    def _typed(data: ByteBlock, dtype: str, shape: tuple[int, ...]) -> Leaf:
        return data.reshape(-1).view(dtype).reshape(shape) if data.size else np.empty(shape, dtype)


def row_of(leaf: Leaf) -> ByteBlock:
    """Give the bytes of a leaf, in C order."""
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


class _Gathered(NamedTuple):
    """One leaf of a whole batch, as an array and as the bytes behind it, which know whether they are shared."""

    array: Leaf
    data: torch.Tensor

    def tensor(self, dtype: torch.dtype) -> torch.Tensor:
        """Give the leaf as a tensor on the same storage."""
        if not self.array.size:
            return torch.empty(self.array.shape, dtype=dtype)
        return self.data.view(dtype).reshape(self.array.shape)


def _memory(buffers: BatchBuffers, leaf: int, size_bytes: int) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    if get_worker_info() is None:
        taken = buffers.take(leaf, size_bytes)
        return taken, torch.from_numpy(taken)
    # As torch's own collate does in a worker: what is written here is not copied again on its way out.
    storage: torch.UntypedStorage = torch.UntypedStorage._new_shared(max(1, size_bytes))  # type: ignore[no-untyped-call]  # noqa: SLF001
    data = torch.empty(0, dtype=torch.uint8).set_(storage)[:size_bytes]
    return data.numpy(), data


def _split(tree: Skeleton, leaves: Iterator[_Gathered], count: int) -> list[Any]:
    """Give the samples of a batch, column by column."""
    name = tree[0]
    if name in ("tuple", "list"):
        columns = [_split(child, leaves, count) for child in tree[1]]
        rows: list[Any] = list(zip(*columns, strict=True)) if columns else [()] * count
        return rows if name == "tuple" else [list(row) for row in rows]
    if name == "dict":
        keys = [bool(key[1]) if key[0] == "bool" else key[1] for key, _ in tree[1]]
        columns = [_split(child, leaves, count) for _, child in tree[1]]
        return [dict(zip(keys, row, strict=True)) for row in (zip(*columns, strict=True) if keys else [()] * count)]
    if name in ("none", "bigint"):
        return [put_together(tree, []) for _ in range(count)]
    leaf = next(leaves)
    if name == "tensor":
        return list(leaf.tensor(getattr(torch, tree[1])).unbind(0))
    if name in ("int", "float", "bool"):
        numbers: list[Any] = leaf.array.tolist()
        return numbers
    return [put_together(tree, [leaf.array[row, ...]]) for row in range(count)]


def _can_join(tree: Skeleton, dtypes: Iterator[str]) -> bool:
    """Tell whether `default_collate` would stack this, so that the gathered arrays are its result."""
    name = tree[0]
    if name in ("tuple", "list"):
        return all(_can_join(child, dtypes) for child in tree[1])
    if name == "dict":
        return all(_can_join(child, dtypes) for _, child in tree[1])
    if name in _NOT_COLLATED:
        return False
    dtype = next(dtypes)
    return name == "tensor" or (dtype[0] in "<|" and dtype[1] in "biuf" and dtype not in ("<f12", "<f16"))


def _join(tree: Skeleton, leaves: Iterator[_Gathered]) -> Any:
    """Give what `default_collate` makes of the batch: tuples and lists become lists, numbers tensors."""
    name = tree[0]
    if name in ("tuple", "list"):
        return [_join(child, leaves) for child in tree[1]]
    if name == "dict":
        return {(bool(key[1]) if key[0] == "bool" else key[1]): _join(child, leaves) for key, child in tree[1]}
    leaf = next(leaves)
    return leaf.tensor(getattr(torch, tree[1]) if name == "tensor" else torch.from_numpy(leaf.array[:0]).dtype)
