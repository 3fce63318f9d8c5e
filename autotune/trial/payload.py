"""Objects that have no dotted path, on their way from the tuner to the measuring processes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from autotune.errors import DatasetError
from autotune.spec import DatasetSource


def sent_source(payload: Mapping[str, Any]) -> DatasetSource:
    """Describe a dataset that is sent as an object, told apart by everything that its measurements depend on.

    Args:
        payload: What is sent: `dataset`, `step`, `collate_fn`.
    """
    from autotune.data.facts import type_name
    from autotune.data.fingerprint import device_transform_digest

    dataset = payload["dataset"]
    after_transfer = device_transform_digest(dataset)
    told_apart = payload if after_transfer is None else {**payload, "device_transform": after_transfer}
    return DatasetSource(type_name=type_name(dataset), objects_digest=payload_digest(told_apart))


def payload_digest(payload: Mapping[str, Any]) -> str:
    """Tell step and collate function apart from others: what was measured with those does not answer for them."""
    sent = {name: value for name, value in payload.items() if name != "dataset"}
    return hashlib.sha256(pickled(sent)).hexdigest()[:16]


def pickled(objects: Mapping[str, Any]) -> bytes:
    """Write objects that have no dotted path as bytes.

    Raises:
        DatasetError: One of them cannot be pickled.
    """
    try:
        data: bytes = cloudpickle.dumps(dict(objects))
    except Exception as error:
        raise DatasetError(
            f"{', '.join(objects)} cannot be sent to the measuring process ({type(error).__name__}: {error}); "
            "open files and connections lazily, when the first sample is read"
        ) from error
    return data


@contextmanager
def payload_file(payload: Mapping[str, Any] | None, home: Path) -> Iterator[Path | None]:
    """Write objects that have no dotted path to a private file for the measuring processes.

    One place for each host: what a killed tuner left there is replaced by the next one, which holds the machine.
    """
    if payload is None:
        yield None
        return
    with private_file(pickled(payload), home / f"payload-{platform.node()}.pkl") as path:
        yield path


@contextmanager
def private_file(data: bytes, path: Path) -> Iterator[Path]:
    """Keep bytes in a file that nobody else can read, for as long as the block runs; what was there is replaced."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    try:
        path.write_bytes(data)
        yield path
    finally:
        path.unlink(missing_ok=True)
