"""Copies of objects that go just so far that what is opened on first use is opened in the copy alone."""

from __future__ import annotations

import copy
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from itertools import islice
from typing import Any

from torch import nn
from torch.utils.data import Dataset

_CONTAINERS = (dict, list, set, OrderedDict)
"""Where handles are kept that are opened on first use."""
_SHARED_PACKAGES = {*sys.stdlib_module_names, "autotune", "numpy", "torch"} - {"__main__"}
"""Their objects open nothing on first use, or do so in each process anew."""
_ITEMS_MAX = 64
"""A container of more holds samples or paths, and a look at each would take long."""
_DEEPEST = 4
_HEAP_TYPE = 1 << 9
"""Flag of classes that were defined in Python; others keep what no attribute shows."""

Copies = dict[int, tuple[Any, Any]]
"""Copies made so far by the identity of the original, which is kept so that no other object gets its number."""


def object_copy(original: Any, named: Iterable[str] = ()) -> Any:
    """Copy an object, with its containers and the Python objects that it holds; the object itself where it refuses.

    Args:
        original: A dataset.
        named: Attributes that are copied whatever they are.
    """
    return _object_copy(original, frozenset(named), {}, 0)


def _object_copy(original: Any, named: frozenset[str], done: Copies, depth: int) -> Any:
    made = bare_copy(original) if _pickles_its_own_way(original) else own_copy(original)
    done[id(original)] = (original, made)
    if made is original or not hasattr(made, "__dict__"):
        return made
    for name, value in list(vars(made).items()):
        made.__dict__[name] = own_copy(value) if name in named else _part_copy(value, done, depth + 1)
    _outlive(original, made)
    return made


def own_copy(value: Any) -> Any:
    """Copy as `copy.copy` does; an open handle, or an object of a class that cannot be copied, stays shared."""
    try:
        return copy.copy(value)
    except Exception:  # noqa: BLE001  # whatever a class raises
        return value


def bare_copy(original: Any) -> Any:
    """Copy the attributes alone, where pickling sets up what a new process needs."""
    made = object.__new__(type(original))
    made.__dict__.update(vars(original))
    return made


def _part_copy(value: Any, done: Copies, depth: int) -> Any:
    if id(value) in done:
        return done[id(value)][1]
    if type(value) in _CONTAINERS:
        return _container_copy(value, done, depth)
    if depth <= _DEEPEST and _may_open(value):
        named = {name for cls in type(value).__mro__ for name in vars(cls).get("unfingerprinted", ())}
        return _object_copy(value, frozenset(named), done, depth)
    return value


def _container_copy(value: Any, done: Copies, depth: int) -> Any:
    made = own_copy(value)
    done[id(value)] = (value, made)
    if depth <= _DEEPEST and len(value) <= _ITEMS_MAX:
        if isinstance(made, dict):
            made.update((key, _part_copy(item, done, depth + 1)) for key, item in list(made.items()))
        elif isinstance(made, list):
            made[:] = [_part_copy(item, done, depth + 1) for item in made]
    return made


def _may_open(value: Any) -> bool:
    """Tell whether an object may open something on first use that a forked worker must not share."""
    cls = type(value)
    if not getattr(value, "__dict__", None) or isinstance(value, type | Enum | nn.Module):
        return False
    if isinstance(value, Dataset):
        return True
    if cls.__module__.partition(".")[0] in _SHARED_PACKAGES or not all(
        base.__flags__ & _HEAP_TYPE for base in cls.__mro__[:-1]
    ):
        return False
    return not (hasattr(cls, "__del__") and _has_open(value))


def _pickles_its_own_way(original: Any) -> bool:
    """Tell whether a copy would leave out an open handle, and so open it a second time, which LMDB refuses."""
    return hasattr(original, "__dict__") and any("__getstate__" in vars(cls) for cls in type(original).__mro__[:-1])


def _outlive(original: Any, made: Any) -> None:
    """Keep a copy until its original goes, where letting go of it would close what both have open."""
    if hasattr(type(made), "__del__") and _has_open(original):
        with suppress(TypeError):  # a class without weak references
            weakref.finalize(original, id, made).atexit = False


def _has_open(holder: Any) -> bool:
    for value in vars(holder).values():
        held = islice(value.values() if isinstance(value, dict) else value, _ITEMS_MAX) if _contains(value) else [value]
        if any(callable(getattr(item, "close", None)) for item in held):
            return True
    return False


def _contains(value: Any) -> bool:
    return type(value) in _CONTAINERS or type(value) is tuple


__all__ = ["bare_copy", "object_copy", "own_copy"]
