"""Dotted paths and datasets built from what a study names."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from autotune.errors import DatasetError, FactoryError
from autotune.spec import DatasetSource
from autotune.spec.workload import check_dotted_path

PAYLOAD_DATASET = "dataset"
"""Key of the dataset among objects that travel by cloudpickle."""


def load_object(path: str) -> Any:
    """Import what a dotted path `package.module:name` names.

    The current folder is importable, as it is for a script.

    Raises:
        FactoryError: The path has another form, or there is no such module or name.
        DatasetError: The module is there, and fails while it is imported.
    """
    try:
        check_dotted_path(path)
    except ValueError as error:
        raise FactoryError(str(error)) from error
    module_name, _, name = path.partition(":")
    _make_current_folder_importable()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise FactoryError(
                f"{path}: there is no module {error.name!r} in {Path.cwd()} or among the installed packages"
            ) from error
        raise DatasetError(f"{path}: importing {module_name} failed: {error}") from error
    except Exception as error:
        raise DatasetError(f"{path}: importing {module_name} failed with {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise FactoryError(f"{path}: {module_name} has no {name!r}")
        found = getattr(found, part)
    return found


def load_callable(path: str) -> Callable[..., Any]:
    """Import what a dotted path names, which must be a class or function.

    Raises:
        FactoryError: There is no such thing, or it cannot be called.
        DatasetError: Its module fails while it is imported.
    """
    found = load_object(path)
    if not callable(found):
        raise FactoryError(f"{path} must be callable, got {type(found).__qualname__}")
    return found  # type: ignore[no-any-return]  # what it takes is its caller's business


def build_dataset(
    source: DatasetSource,
    payload: Mapping[str, object] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset[Any]:
    """Build the dataset that a study names, or take the object that was sent.

    Args:
        source: Dotted factory with arguments, or the note that an object is sent.
        payload: Objects that were sent by cloudpickle; the dataset lies under `dataset`.
        progress: Handed to a factory that takes an argument of this name, for what it has to generate.

    Raises:
        FactoryError: The factory cannot be found.
        DatasetError: The factory fails, or gives no dataset.
    """
    if source.factory is None:
        if payload is None or PAYLOAD_DATASET not in payload:
            raise DatasetError(f"the dataset of type {source.type_name} was to be sent as an object, but is not there")
        return _checked(payload[PAYLOAD_DATASET], source.type_name or "the object")
    factory = load_callable(source.factory)
    try:
        built = factory(**_with_progress(factory, dict(source.arguments), progress))
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(
            f"{source.factory}({', '.join(source.arguments)}) failed with {type(error).__name__}: {error}"
        ) from error
    return _checked(built, source.factory)


def _with_progress(
    factory: Callable[..., Any], arguments: dict[str, Any], progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    if progress is None or "progress" in arguments:
        return arguments
    with suppress(TypeError, ValueError):  # some builtins have no signature
        if "progress" in inspect.signature(factory).parameters:
            return {**arguments, "progress": progress}
    return arguments


def _checked(built: Any, name: str) -> Dataset[Any]:
    readable = hasattr(type(built), "__getitem__") or hasattr(type(built), "__iter__")
    if readable and not isinstance(built, str | bytes):
        return built  # type: ignore[no-any-return]  # torch takes any object with one of these methods
    raise DatasetError(f"{name} must give a dataset (with __getitem__ or __iter__), got {type(built).__qualname__}")


def _make_current_folder_importable() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
