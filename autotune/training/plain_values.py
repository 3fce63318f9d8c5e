"""What a checkpoint may hold: tensors, and values that are read back without running anything."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

from autotune.errors import CheckpointError

_VALUES = frozenset(
    {bool, bytearray, bytes, complex, float, int, str, type(None), torch.Size, torch.device, torch.dtype}
)
"""Types that `torch.load(weights_only=True)` reads, apart from tensors; none of their subclasses, as NumPy's floats."""
_SEQUENCES = frozenset({list, set, tuple})
_MAPPINGS = frozenset({dict, OrderedDict, Counter})


def check_plain(value: Any, of: str) -> None:
    """Refuse what could be written and not be read back.

    Args:
        value: Tensors, plain values, and dictionaries, lists, tuples and sets of them.
        of: What it is, as the message says it.

    Raises:
        CheckpointError: It holds something else; the message names the place and the class.
    """
    for place, kind in _odd(value, ""):
        raise CheckpointError(
            f"a checkpoint holds tensors and plain values, got {kind.__module__}.{kind.__qualname__} in {of}{place}, "
            "with which it could not be read back; give float(...), int(...) or a tensor in its place"
        )


def _odd(value: Any, place: str) -> Iterator[tuple[str, type]]:
    """Give the places and types of what is not plain."""
    kind = type(value)
    if kind in _MAPPINGS:
        for key, part in value.items():
            yield from _odd(key, f"{place}, as a key")
            yield from _odd(part, f"{place}[{key!r}]")
    elif kind in _SEQUENCES:
        for number, part in enumerate(value):
            yield from _odd(part, f"{place}[{number}]")
    elif kind not in _VALUES and not isinstance(value, torch.Tensor):
        yield place, kind


__all__ = ["check_plain"]
