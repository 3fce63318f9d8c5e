"""Checkpoints: files that are whole or not there, and that say what they belong to."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from autotune.errors import CheckpointError
from autotune.training.plain_values import check_plain

VERSION = 1
_FORMAT = "autotune.training"
_BEGINS = b"PK\x03\x04"
"""First bytes of the archives that torch writes."""
_SHOWN = 3
"""Differences that a message lists."""

State = dict[str, Any]


def write_checkpoint(path: str | os.PathLike[str], state: State) -> Path:
    """Write a checkpoint in place of the one that is there.

    It is written beside it and takes its place once it is on the disk, so that a kill leaves the former one whole.

    Args:
        path: The file; folders are made.
        state: Tensors, numbers, texts, and dictionaries and lists of them.

    Raises:
        CheckpointError: It cannot be written there, or holds something that could not be read back.
    """
    for name, part in state.items():
        check_plain(part, name)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            torch.save({"format": _FORMAT, "version": VERSION, **state}, file)
            _flush(file)

    return _replaced(Path(path), write)


def _replaced(target: Path, write: Callable[[Path], None]) -> Path:
    """Write a file beside another, and put it in its place once it is on the disk."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        write(partial)
        partial.replace(target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:  # torch tells of a full disk by RuntimeError
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"the checkpoint {target} cannot be written: {error}; the former one is as it was. Free some space, or "
            "name another folder"
        ) from error
    return target


def link_checkpoint(path: Path, name: str) -> Path:
    """Give a checkpoint a second name in its folder, in place of what has that name.

    Checkpoints are replaced and never changed, so both may share their bytes.

    Raises:
        CheckpointError: It cannot be written there.
    """
    target = path.with_name(name)
    return _replaced(target, lambda partial: _link_or_copy(path, partial))


def _link_or_copy(path: Path, partial: Path) -> None:
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:  # not on every file system
        with path.open("rb") as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file)
            _flush(file)


def read_checkpoint(path: str | os.PathLike[str]) -> State:
    """Read a checkpoint into the memory of the CPU. Nothing in it is run.

    Raises:
        CheckpointError: There is none, it is damaged, or it is of another program or version.
    """
    source = Path(path)
    if not source.is_file():
        raise CheckpointError(f"there must be a checkpoint to load, got {str(source)!r} in {Path.cwd()}")
    damaged = f"the checkpoint {source} is truncated or damaged"
    way_out = "take an older one, or begin anew"
    try:
        # torch takes what begins otherwise for a pickle of old, even where a whole archive follows
        with source.open("rb") as file:
            begins = file.read(len(_BEGINS))
        if begins != _BEGINS:
            raise CheckpointError(f"{damaged}: it begins with {begins!r} instead of {_BEGINS!r}; {way_out}")
        with zipfile.ZipFile(source) as archive:  # torch itself does not compare checksums
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(f"{damaged}: the checksum of {broken!r} is another one; {way_out}")
        state = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source} holds more than tensors and plain values, so it is no checkpoint of autotune, and is not "
            "loaded; load what others wrote by torch, and give the model its state_dict"
        ) from error
    except (zipfile.BadZipFile, EOFError, RuntimeError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{damaged} ({type(error).__name__}: {error}); {way_out}") from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError(
            f"{source} is no checkpoint of an autotune training; where it is a model's state_dict, "
            "model.load_state_dict(torch.load(path)) takes it"
        )
    if state["version"] != VERSION:
        raise CheckpointError(
            f"checkpoints of version {VERSION} can be read, got version {state['version']} in {source}; load it with "
            "the version of autotune that wrote it"
        )
    return state


def signature_of(model: nn.Module) -> dict[str, str]:
    """Describe the tensors of a model's state: name, and type with shape, as `float32[8,1,3,3]`."""
    return {
        name: f"{str(value.dtype).removeprefix('torch.')}[{','.join(map(str, value.shape))}]"
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


def check_signature(written: dict[str, str], model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        CheckpointError: Names, types or shapes differ; the message lists some.
    """
    here = signature_of(model)
    if written == here:
        return
    other = [
        f"{name} is {written[name]} there and {here[name]} here"
        for name in written
        if name in here and written[name] != here[name]
    ]
    other += [f"{name} is only in the checkpoint" for name in written if name not in here]
    other += [f"{name} is only in the model" for name in here if name not in written]
    shown = "; ".join(other[:_SHOWN]) + (f"; and {len(other) - _SHOWN} more" if len(other) > _SHOWN else "")
    raise CheckpointError(
        f"the checkpoint {os.fspath(path)} is of another model: {shown}. Build the model with the settings of then; "
        "batch and group normalisation differ too (normalization and group_norm_below of the configuration)"
    )


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of this checkpoint left, which none of this process's own can be."""
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        number = leftover.name.split(".")[-2]
        if number.isdecimal() and not _is_running(int(number)):
            with suppress(OSError):
                leftover.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


__all__ = ["VERSION", "check_signature", "link_checkpoint", "read_checkpoint", "signature_of", "write_checkpoint"]
