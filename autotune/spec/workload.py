"""`Workload`: what is measured, apart from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from autotune.spec.base import Value
from autotune.units import MIB, parse_bytes

DEVICE_PATTERN = r"^(auto|cpu|cuda(:\d+)?|mps)$"
"""Devices by torch's names, and `auto`."""

LIMIT_MIN_BYTES = MIB
"""Smallest number that is read as bytes without a unit; `memory_limit: 20` surely means something else."""


def _plain(value: Any) -> Any:
    """Turn an argument into plain JSON values, so that it comes back from storage as it went in."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and isfinite(value):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(
        f"arguments must be numbers, text, lists and mappings with text keys, got {value!r}; "
        "build other objects inside the factory"
    )


Arguments = Annotated[Mapping[str, Any], AfterValidator(_plain)]
"""Keyword arguments of a factory, as plain JSON values."""


class DatasetSource(Value):
    """Where a trial's process gets the dataset from.

    Attributes:
        factory: Dotted path `package.module:callable`; None where an object is sent by cloudpickle.
        arguments: Keyword arguments of the factory.
        type_name: Class of the object that is sent.
        objects_digest: Digest of the step and collate function that were sent with it, and of its device transform.
    """

    factory: str | None = None
    arguments: Arguments = Field(default={})
    type_name: str | None = None
    objects_digest: str | None = None

    @field_validator("factory")
    @classmethod
    def _check_path(cls, factory: str | None) -> str | None:
        return None if factory is None else check_dotted_path(factory)

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if self.factory is None and self.type_name is None:
            raise ValueError("a dataset source needs a factory or the type of an object, got neither")
        return self


def check_dotted_path(path: str) -> str:
    """Check the form `package.module:callable`.

    Raises:
        ValueError: It has another form.
    """
    module, separator, name = path.partition(":")
    parts = [*module.split("."), *name.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise ValueError(f"a dotted path has the form package.module:callable, got {path!r}")
    return path


class Consumer(Value):
    """What takes the batches.

    Attributes:
        kind: `loader` (only the transfer), `emulated` (sleeps), `step` (the user's own).
        step_ms: Milliseconds that an emulated step takes for a batch of any size.
        step_ms_per_sample: Further milliseconds for each sample.
        step: Dotted path of a factory that gives a callable `step(batch)`; None where an object is sent.
        step_arguments: Keyword arguments of that factory.
    """

    kind: Literal["loader", "emulated", "step"] = "loader"
    step_ms: float = Field(default=0.0, ge=0)
    step_ms_per_sample: float = Field(default=0.0, ge=0)
    step: str | None = None
    step_arguments: Arguments = Field(default={})

    @field_validator("step")
    @classmethod
    def _check_path(cls, step: str | None) -> str | None:
        return None if step is None else check_dotted_path(step)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind != "emulated" and (self.step_ms or self.step_ms_per_sample):
            raise ValueError(f"step_ms belongs to an emulated consumer, got kind {self.kind!r}")
        if self.kind == "emulated" and not (self.step_ms or self.step_ms_per_sample):
            raise ValueError("an emulated step needs step_ms or step_ms_per_sample above 0, got neither")
        if self.step is not None and self.kind != "step":
            raise ValueError(f"step belongs to the consumer kind 'step', got kind {self.kind!r}")
        if self.step_arguments and self.step is None:
            raise ValueError("step_arguments belong to a step with a dotted path, got none")
        return self

    @property
    def sees_memory(self) -> bool:
        """Whether the memory that a batch size costs in training is seen."""
        return self.kind == "step"


class MemoryLimit(Value):
    """A limit of device memory: a share, or bytes.

    Attributes:
        share: Part of the device's memory (0 to 1]; on CPU of the smaller of RAM and cgroup limit.
        size_bytes: Bytes. Exactly one of the two is given.
    """

    share: float | None = Field(default=None, gt=0, le=1)
    size_bytes: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.share is None) == (self.size_bytes is None):
            raise ValueError("a memory limit is a share (80%) or bytes (20GiB), exactly one of them")
        return self

    @classmethod
    def parse(cls, value: str | float | MemoryLimit) -> MemoryLimit:
        """Read `80%`, `0.8`, `20GiB` or a whole number of bytes.

        Raises:
            ValueError: It is none of these.
        """
        if isinstance(value, MemoryLimit):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"a memory limit is a share such as 80% or a size such as 20GiB, got {value!r}")
        if isinstance(value, str):
            return cls._parse_text(value.strip())
        if isinstance(value, int) and value >= LIMIT_MIN_BYTES:
            return cls(size_bytes=value)
        return cls(share=_checked_share(float(value) if abs(value) <= LIMIT_MIN_BYTES else inf, value))

    @classmethod
    def _parse_text(cls, text: str) -> MemoryLimit:
        if text.endswith("%"):
            try:
                share = float(text[:-1]) / 100
            except ValueError:
                raise ValueError(f"a memory limit is a share such as 80%, got {text!r}") from None
            return cls(share=_checked_share(share, text))
        try:
            return cls(size_bytes=parse_bytes(text))
        except OverflowError:
            raise ValueError(f"a memory limit is a size such as 20GiB, got {text!r}") from None


def _checked_share(share: float, value: object) -> float:
    if not 0 < share <= 1:
        raise ValueError(
            f"a memory limit's share is above 0 % and at most 100 %, and a size has a unit, got {value!r}; "
            "write 80% or 20GiB"
        )
    return share


class Workload(Value):
    """What every trial of a study measures: dataset, consumer, device and circumstances.

    Attributes:
        dataset: Where the dataset comes from.
        consumer: What takes the batches.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        memory_limit: Limit of device memory.
        order: `map` or `streaming`.
        page_cache: State that the files are in before the run: `warm` or `cold`.
        shuffle: Whether the loader shuffles.
        drop_last: Whether an incomplete last batch is dropped.
        loader_class: Dotted path of a class that takes DataLoader's arguments; None is DataLoader itself.
        subset: Measure on this many samples, drawn by `seed`; None is all.
        seed: Seed of order and subset.
    """

    dataset: DatasetSource
    consumer: Consumer = Consumer()
    device: str = Field(default="auto", pattern=DEVICE_PATTERN)
    memory_limit: MemoryLimit = MemoryLimit(share=0.8)
    order: Literal["map", "streaming"] = "map"
    page_cache: Literal["warm", "cold"] = "warm"
    shuffle: bool = True
    drop_last: bool = False
    loader_class: str | None = None
    subset: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("loader_class")
    @classmethod
    def _check_loader_class(cls, path: str | None) -> str | None:
        return None if path is None else check_dotted_path(path)
