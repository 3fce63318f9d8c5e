"""`source_fingerprint`: digits that change whenever stored samples might."""

from __future__ import annotations

import functools
import hashlib
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from autotune.data.device_stage import DEVICE_TRANSFORM, device_transform_of, plain_settings
from autotune.data.stages import leaves_of
from autotune.errors import DatasetError

_FOREIGN_MODULES = ("torch.", "builtins", "typing", "abc", "collections.", "enum")
_DEEPEST = 12
_HEAP_TYPE = 1 << 9
"""Flag of classes that were defined in Python; others (an open file) keep state that no attribute shows."""


class _OpaqueError(Exception):
    """A setting has no description that is the same in another process."""


def source_fingerprint(dataset: Dataset[Any]) -> str | None:
    """Give 32 hexadecimal digits for the source of a dataset, or None where none can be had.

    A dataset tells its own by `fingerprint() -> str`, or names its files by `source_paths()`: then sizes,
    modification times, the code of its class and its settings (transforms included) are hashed, but for
    `device_transform`, which changes nothing that is stored. Settings
    whose names start with an underscore count where they are plain; public ones that cannot be described
    (an open file, an object of a compiled class) leave the dataset without a fingerprint.

    Raises:
        DatasetError: A source file is missing.
    """
    parts = _fingerprint_parts(dataset)
    return None if parts is None else _digest(parts)


def device_transform_digest(dataset: Dataset[Any]) -> str | None:
    """Tell what a dataset does to batches on the device apart from anything else; None where it does nothing.

    A method of the dataset goes by its code and the attributes that it reads, where its code shows those and they can
    be described, and else by the numbers and texts among all attributes; other objects go by all that they are made
    of; what cannot be described goes by its class.
    """
    transform = device_transform_of(dataset)
    if transform is None:
        return None
    for what in _made_of(transform):
        with suppress(_OpaqueError):
            return _hash_bytes(_describe(what, 0).encode("utf-8", "surrogatepass"))
    return _hash_bytes(_class_name(type(transform)).encode())


def _made_of(transform: Any) -> Iterator[Any]:
    """Give what tells a device transform from others, the best first."""
    if not (isinstance(transform, types.MethodType) and isinstance(transform.__self__, Dataset)):
        yield transform
        return
    yield transform.__func__, sorted(plain_settings(transform.__self__).items())


def described_alike(one: Any, other: Any) -> bool:
    """Tell whether two objects are made of the same; what cannot be described is like no other."""
    try:
        return _describe(one, 0) == _describe(other, 0)
    except _OpaqueError:
        return False


def why_unrecognisable(dataset: Dataset[Any]) -> str:
    """Say why a dataset has no fingerprint, and the way out."""
    for leaf in leaves_of(dataset):
        name = type(leaf).__qualname__
        if callable(getattr(leaf, "fingerprint", None)):
            if leaf.fingerprint() is None:
                return f"fingerprint() of {name} gives None; let it give text that changes with its samples"
            continue
        if not callable(getattr(leaf, "source_paths", None)):
            return f"{name} has neither fingerprint() nor source_paths(); add one of them"
        try:
            _describe_settings(leaf)
        except _OpaqueError as error:
            return (
                f"the attribute {str(error)!r} of {name} has no description that is the same in another process; "
                f"write unfingerprinted = ({str(error)!r},) in its class if it changes no sample, or add fingerprint()"
            )
    return f"{type(dataset).__qualname__} cannot be recognised; add fingerprint()"


def _fingerprint_parts(dataset: Any) -> list[str] | None:
    if type(dataset) is Subset:
        inner = _fingerprint_parts(dataset.dataset)
        places = np.asarray(dataset.indices, dtype=np.int64)
        return None if inner is None else ["subset", _hash_bytes(places.tobytes()), *inner]
    if type(dataset) is ConcatDataset:
        parts = [_fingerprint_parts(part) for part in dataset.datasets]
        return None if None in parts else ["concat", *(_digest(part) for part in parts if part is not None)]
    own = getattr(dataset, "fingerprint", None)
    if callable(own):
        text = own()
        return None if text is None else ["own", _class_name(type(dataset)), str(text)]
    paths = getattr(dataset, "source_paths", None)
    if not callable(paths):
        return None
    try:
        described = _describe_class(type(dataset), without=DEVICE_TRANSFORM)
        return ["files", described, _describe_settings(dataset), _hash_files(paths())]
    except _OpaqueError:
        return None


def _hash_files(paths: Iterable[str | os.PathLike[str]]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            facts = Path(path).stat()
        except OSError as error:
            raise DatasetError(f"{os.fspath(path)}: a source file of the dataset cannot be found: {error}") from error
        whole = os.path.abspath(path)  # noqa: PTH100  # resolve() would ask the file system for each part
        digest.update(f"{whole}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _describe_settings(dataset: Any) -> str:
    described = {}
    left_out = {name for cls in type(dataset).__mro__ for name in vars(cls).get("unfingerprinted", ())}
    left_out.add(DEVICE_TRANSFORM)
    for name, value in sorted(vars(dataset).items()):
        if name in left_out:
            continue
        try:
            text = _describe(value, 0)
        except _OpaqueError as error:
            if not name.startswith("_"):
                raise _OpaqueError(name) from error
            continue
        # A handle that is opened lazily must not change the fingerprint, so private None is left out too.
        if not (name.startswith("_") and value is None):
            described[name] = text
    return repr(described)


def _describe(value: Any, depth: int) -> str:
    if depth > _DEEPEST:
        raise _OpaqueError
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return repr(value)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise _OpaqueError
        return f"array {value.dtype.str} {value.shape} {_hash_bytes(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, torch.Tensor):
        return "tensor " + _describe_tensor(value, depth)
    if isinstance(value, np.generic | np.dtype | torch.dtype | torch.device | PurePath | Enum):
        return f"{_class_name(type(value))} {value}"
    return _describe_structure(value, depth)


def _describe_structure(value: Any, depth: int) -> str:
    for kinds, describe in _DESCRIBERS:
        if isinstance(value, kinds):
            return describe(value, depth)
    return _describe_object(value, depth)


def _describe_mapping(value: Mapping[Any, Any], depth: int) -> str:
    items = [(_describe(key, depth + 1), _describe(item, depth + 1)) for key, item in value.items()]
    return f"{_class_name(type(value))} {items}"


def _describe_sequence(value: list[Any] | tuple[Any, ...], depth: int) -> str:
    return f"{_class_name(type(value))} {[_describe(item, depth + 1) for item in value]}"


def _describe_set(value: set[Any] | frozenset[Any], depth: int) -> str:
    return f"set {sorted(_describe(item, depth + 1) for item in value)}"


def _describe_partial(value: functools.partial[Any], depth: int) -> str:
    return f"partial {_describe([value.func, value.args, value.keywords], depth + 1)}"


def _describe_method(value: types.MethodType, depth: int) -> str:
    return f"method {_describe([value.__func__, value.__self__], depth + 1)}"


def _describe_builtin(value: Any, depth: int) -> str:  # noqa: ARG001  # one form for the table
    return f"builtin {getattr(value, '__module__', '')} {getattr(value, '__qualname__', value)}"


def _describe_tensor(value: torch.Tensor, depth: int) -> str:
    try:
        plain = value.detach().cpu().contiguous().flatten()
        data = plain.view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
    except RuntimeError as error:  # sparse, or on no device
        raise _OpaqueError from error
    return f"{value.dtype} {_describe(tuple(value.shape), depth + 1)} {_hash_bytes(data.tobytes())}"


def _describe_object(value: Any, depth: int) -> str:
    settings = getattr(value, "__dict__", None)
    if settings is None or not all(cls.__flags__ & _HEAP_TYPE for cls in type(value).__mro__[:-1]):
        raise _OpaqueError
    items = [(name, _describe(item, depth + 1)) for name, item in sorted(settings.items())]
    # With the name, as the code of torch's own classes is not described: ReLU is no Sigmoid.
    return f"{_class_name(type(value))} {_describe_class(type(value))} {items}"


def _describe_function(function: types.FunctionType, depth: int) -> str:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    captured = _describe([function.__defaults__, function.__kwdefaults__, cells], depth + 1)
    return f"function {_describe_code(function.__code__)} {captured}"


def _describe_class(cls: type, *, without: str | None = None) -> str:
    """Describe the code of a class and its own bases, one member left out.

    Compiled code rather than source: a class that was sent by cloudpickle has no source file any more.
    """
    texts = []
    for base in cls.__mro__:
        if f"{base.__module__}.".startswith(_FOREIGN_MODULES):
            continue
        members = []
        for name, member in sorted(vars(base).items()):
            if name == without:
                continue
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                members.append((name, _describe_code(function.__code__)))
            elif type(member) in (bool, int, float, str, bytes) and not name.startswith("__"):
                members.append((name, repr(member)))
        texts.append(f"{_class_name(base)} {members}")
    return _hash_bytes("\n".join(texts).encode("utf-8", "surrogatepass"))


def _describe_code(code: types.CodeType) -> str:
    constants = [_describe_constant(constant) for constant in code.co_consts]
    text = repr((code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars))
    return _hash_bytes(text.encode("utf-8", "surrogatepass"))


def _describe_constant(constant: Any) -> str:
    if isinstance(constant, types.CodeType):
        return _describe_code(constant)
    if isinstance(constant, frozenset):
        return repr(sorted(map(repr, constant)))
    return repr(constant)


def _class_name(cls: type) -> str:
    """Give the name without the module: a script's class is in `__main__` there and elsewhere in a trial."""
    return cls.__qualname__


def _hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _digest(parts: list[str]) -> str:
    return _hash_bytes("\0".join(parts).encode("utf-8", "surrogatepass"))


_DESCRIBERS: tuple[tuple[Any, Callable[[Any, int], str]], ...] = (
    (Mapping, _describe_mapping),
    (list | tuple, _describe_sequence),
    (set | frozenset, _describe_set),
    (type, lambda value, _: _describe_class(value)),
    (functools.partial, _describe_partial),
    (types.MethodType, _describe_method),
    (types.FunctionType, _describe_function),
    (types.BuiltinFunctionType | np.ufunc, _describe_builtin),
)
