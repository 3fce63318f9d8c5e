"""What a dataset keeps from one sample to the next, in digests that are compared before and after reading."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import Dataset

from autotune.data.stages import leaves_of, unfingerprinted_names

_LARGE_BYTES = 1 << 20
"""Arrays from this size on are known by where they lie, as hashing them would take longer than reading samples."""

MODULES = "module's "
"""Start of the names of generators that stand beside the class."""

_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
_FOREIGN_PACKAGES = ("torch", "builtins", "typing", "abc", "collections", "autotune")


@dataclass(frozen=True)
class KeptState:
    """Digests of a dataset's attributes, of those of its classes, and of its modules' random generators.

    Left out are attributes named in `unfingerprinted`, what a `__getstate__` leaves out (generators count
    nevertheless), and what cannot be pickled, such as open files.

    Attributes:
        digests: By name; None where there is none.
    """

    digests: dict[str, str | None]

    @classmethod
    def of(cls, leaf: Any) -> Self:
        """Take the state of one dataset, and of those that one of our wrappers stands before."""
        return cls({name: _digest(value) for name, value in _kept_values(leaf)})

    def changed_in(self, later: KeptState) -> list[str]:
        """Name what has another digest, or appeared."""
        missing = _digest(None)
        names = sorted({*self.digests, *later.digests})
        pairs = [(name, self.digests.get(name, missing), later.digests.get(name, missing)) for name in names]
        return [name for name, one, other in pairs if one != other and None not in (one, other)]


def _kept_values(leaf: Any) -> Iterator[tuple[str, Any]]:
    from autotune.data.wrapped import WrappedDataset  # which stands on the modules below this one

    if isinstance(leaf, WrappedDataset):
        for part in leaves_of(leaf.source):
            yield from _kept_values(part)
        return
    left_out = unfingerprinted_names(leaf)
    kept = {**_class_attributes(leaf), **_own_attributes(leaf)}
    yield from ((name, value) for name, value in kept.items() if name not in left_out)
    yield from _module_generators(leaf)


def _own_attributes(leaf: Any) -> dict[str, Any]:
    own = dict(getattr(leaf, "__dict__", {}))
    try:
        pickled = leaf.__getstate__()
    except Exception:  # noqa: BLE001  # it cannot be pickled as a whole, so its attributes are looked at
        return own
    if not isinstance(pickled, dict):
        return own if pickled is None or not own else {"state": pickled}
    return {**{name: value for name, value in own.items() if isinstance(value, _GENERATORS)}, **pickled}


def _class_attributes(leaf: Any) -> dict[str, Any]:
    """Give what the classes hold besides code: a generator there is as good as one in the object."""
    return {
        name: value
        for base in reversed(_own_classes(leaf))
        for name, value in vars(base).items()
        if not (name.startswith("__") or callable(value) or hasattr(value, "__get__"))
    }


def _module_generators(leaf: Any) -> Iterator[tuple[str, Any]]:
    for base in _own_classes(leaf):
        module = sys.modules.get(base.__module__)
        for name, value in list(vars(module).items()) if module is not None else ():
            if isinstance(value, _GENERATORS):
                yield MODULES + name, value


def _own_classes(leaf: Any) -> list[type]:
    return [base for base in type(leaf).__mro__ if base.__module__.partition(".")[0] not in _FOREIGN_PACKAGES]


def _digest(value: Any) -> str | None:
    # First without pickle's memo: it tells equal objects from one object twice, which is no difference here.
    # Cyclic objects need it.
    return _digest_of(value, fast=True) or _digest_of(value, fast=False)


def _digest_of(value: Any, *, fast: bool) -> str | None:
    sink = _Hashing()
    try:
        _Describing(sink, fast=fast).dump(value)
    except Exception:  # noqa: BLE001  # cyclic without the memo, or not to be pickled at all
        return None
    return sink.hash.hexdigest()


class _Hashing(io.RawIOBase):
    """A file that keeps only the hash of what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.hash = hashlib.blake2b(digest_size=16)

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return len(data)


class _Describing(pickle.Pickler):
    """Writes what tells one state from another; none of it is ever read back.

    Large arrays and tensors go by identity and version, functions by what they captured, and nested datasets
    without what they name in `unfingerprinted`.
    """

    def __init__(self, sink: _Hashing, *, fast: bool) -> None:
        super().__init__(sink, protocol=5)
        self.fast = fast

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, type | types.ModuleType | types.BuiltinFunctionType):
            return "named", id(obj)
        if isinstance(obj, torch.Tensor):
            return _tensor_id(obj)
        if isinstance(obj, np.ndarray) and obj.nbytes >= _LARGE_BYTES and not obj.dtype.hasobject:
            return "array", id(obj), obj.ctypes.data, obj.shape, obj.dtype.str
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType) and obj is not _mark:
            cells = [cell.cell_contents for cell in obj.__closure__ or ()]
            return _mark, (id(obj),), [obj.__defaults__, obj.__kwdefaults__, obj.__dict__, cells]
        if isinstance(obj, io.IOBase):
            raise pickle.PicklingError("an open file is a handle")
        if isinstance(obj, torch.Generator):
            return _mark, (id(obj), obj.get_state())
        if isinstance(obj, Dataset) and unfingerprinted_names(obj) and hasattr(obj, "__dict__"):
            left_out = unfingerprinted_names(obj)
            return _mark, (id(obj),), {name: value for name, value in vars(obj).items() if name not in left_out}
        return NotImplemented


def _tensor_id(tensor: torch.Tensor) -> Any:
    known = id(tensor), tuple(tensor.shape), str(tensor.dtype), str(tensor.device)
    if tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.is_quantized:
        if tensor.numel() * tensor.element_size() < _LARGE_BYTES:
            plain = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
            return "tensor", known[1:], bytes(plain.view(torch.uint8).numpy()) if plain.numel() else b""
        known = (*known, tensor.data_ptr())  # type: ignore[assignment]
    return "tensor", known, None if tensor.is_inference() else tensor._version  # noqa: SLF001


def _mark(*_: Any) -> None:
    """Stand for an object that is described and not rebuilt."""


__all__ = ["MODULES", "KeptState"]
