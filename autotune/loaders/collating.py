"""How lists of samples become batches: stacked, as a list, or padded with their lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

import torch
from torch.nn.utils.rnn import pad_sequence

from autotune.data.datasets.broken import NoSamples
from autotune.errors import SpecError

Pair = tuple[Any, Any]
"""A sample of two parts, the second a tensor without dimensions or a number."""


class CustomCollateFn:
    """Collate functions for pairs of a tensor and a target; each goes into `collate_fn` as it is."""

    @staticmethod
    def image_collate(batch: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stack images and targets: `(N, C, H, W)` and `(N,)`.

        Raises:
            SpecError: Images differ in shape, or a sample is no pair.
        """
        images, targets = _columns(batch, "image_collate")
        return _stacked(images, "image_collate", "resize them in the dataset"), _stacked_targets(targets)

    @staticmethod
    def text_collate(batch: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
        """Stack texts of one length and targets: `(N, L)` and `(N,)`.

        Raises:
            SpecError: Texts differ in length, or a sample is no pair.
        """
        texts, targets = _columns(batch, "text_collate")
        way_out = "pad them in the dataset, or use padded_collate"
        return _stacked(texts, "text_collate", way_out), _stacked_targets(targets)

    @staticmethod
    def variable_length_collate(batch: Sequence[Pair]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Give sequences as a list, each with its own length, and targets stacked: N tensors and `(N,)`.

        Raises:
            SpecError: A sample is no pair.
        """
        texts, targets = _columns(batch, "variable_length_collate")
        return list(texts), _stacked_targets(targets)

    @staticmethod
    def padded_collate(
        batch: Sequence[Pair], *, padding_value: float = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pad sequences to the longest of the batch: `(N, L, ...)`, targets `(N,)` and lengths int64 `(N,)`.

        Args:
            batch: Pairs of a sequence `(l, ...)` and a target.
            padding_value: What shorter ones are filled up with.

        Raises:
            SpecError: Sequences differ in more than their length, or a sample is no pair.
        """
        texts, targets = _columns(batch, "padded_collate")
        shapes = {tuple(text.shape[1:]) if text.ndim else None for text in texts}
        if len(shapes) > 1 or None in shapes or len({text.dtype for text in texts}) > 1:
            raise SpecError(f"padded_collate pads sequences that differ in length alone, got {_told(texts)}")
        lengths = torch.tensor([len(text) for text in texts])
        padded = pad_sequence(list(texts), batch_first=True, padding_value=padding_value)
        return padded, _stacked_targets(targets), lengths


class _NoBatch(Enum):
    NO_BATCH = "no batch"


NO_BATCH: Final = _NoBatch.NO_BATCH
"""Comes in the place of a batch of which every sample is broken and left out."""


class SkippingCollate:
    """Collates what is left of a batch, and gives `NO_BATCH` where nothing is.

    Args:
        collate: What makes a batch of a list of samples.
    """

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Any) -> Any:
        """Collate the samples of a batch."""
        return NO_BATCH if isinstance(samples, NoSamples) else self._collate(samples)


def _columns(batch: Sequence[Pair], name: str) -> tuple[tuple[torch.Tensor, ...], tuple[Any, ...]]:
    for sample in batch:
        if not isinstance(sample, tuple | list) or len(sample) != 2 or not isinstance(sample[0], torch.Tensor):
            told = f"{type(sample).__qualname__} of {len(sample)}" if isinstance(sample, tuple | list) else repr(sample)
            raise SpecError(f"{name} takes samples of a tensor and a target, got {told[:200]}")
    first, second = zip(*batch, strict=True)
    return first, second


def _stacked(tensors: Sequence[torch.Tensor], name: str, way_out: str) -> torch.Tensor:
    if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
        raise SpecError(f"{name} stacks tensors of one shape and type, got {_told(tensors)}; {way_out}")
    return torch.stack(list(tensors))


def _stacked_targets(targets: Sequence[Any]) -> torch.Tensor:
    made = [torch.as_tensor(target) for target in targets]
    if len({(target.shape, target.dtype) for target in made}) > 1:
        raise SpecError(f"targets of a batch have one shape and type, got {_told(made)}")
    return torch.stack(made)


def _told(tensors: Sequence[torch.Tensor]) -> str:
    found = [f"{str(one.dtype).removeprefix('torch.')}{list(one.shape)}" for one in tensors]
    return " and ".join(list(dict.fromkeys(found))[:4])


__all__ = ["NO_BATCH", "CustomCollateFn", "SkippingCollate"]
