"""`StudySpec`: a study as its file describes it, every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from autotune.spec.base import Value
from autotune.spec.config import STORED_FORMS, CacheName, Order, StoredForm
from autotune.spec.workload import DEVICE_PATTERN, Consumer, DatasetSource, MemoryLimit, Workload, check_dotted_path
from autotune.units import parse_seconds

Promotion = Literal["automatic", "review"]


def _read_dataset(value: Any) -> Any:
    if isinstance(value, str):
        return {"factory": value}
    if isinstance(value, Mapping) and value.get("factory") is None and value.get("type_name") is None:
        raise ValueError(f"a dataset needs a factory, got {dict(value)!r}")
    return value


def _read_budget(value: Any) -> Any:
    if isinstance(value, str):
        return {"time_s": parse_seconds(value)}
    if isinstance(value, Mapping) and "time_s" not in value:
        if not isinstance(value.get("time"), str):
            raise ValueError(f"a budget's time is text such as 2m, got {value.get('time')!r}; write {{time: 2m}}")
        rest = {key: item for key, item in value.items() if key != "time"}
        return {**rest, "time_s": parse_seconds(value["time"])}
    if not isinstance(value, Mapping | Budget):
        raise ValueError(f"a budget is a time with a unit (2m) or {{time: 2m, trials: 40}}, got {value!r}")
    return value


def _read_consumer(value: Any) -> Any:
    if value == "step":
        raise ValueError("the consumer step needs a factory, got none; write {step: my_package.train:make_step}")
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, Mapping) or "kind" in value:
        return value
    if len(value) != 1:
        raise ValueError(f"a consumer is one of loader, emulated and step, got {', '.join(map(str, value)) or 'none'}")
    ((kind, rest),) = value.items()
    if kind == "step":
        return {"kind": "step", **_step_fields(rest)}
    if kind == "emulated" and isinstance(rest, Mapping):
        return {"kind": "emulated", **rest}
    if kind == "emulated":
        raise ValueError(f"emulated is {{step_ms: ..., step_ms_per_sample: ...}}, got {rest!r}")
    raise ValueError(f"a consumer without settings is plain text such as loader, got {{{kind}: {rest!r}}}")


def _step_fields(rest: Any) -> dict[str, Any]:
    if isinstance(rest, str):
        return {"step": rest}
    if not isinstance(rest, Mapping) or set(rest) - {"factory", "arguments"} or not rest.get("factory"):
        raise ValueError(f"step is a dotted path or {{factory: ..., arguments: ...}}, got {rest!r}")
    return {"step": rest["factory"], "step_arguments": rest.get("arguments", {})}


def _read_limit(value: Any) -> Any:
    return value if isinstance(value, Mapping) else MemoryLimit.parse(value)


class Budget(Value):
    """How much a study may cost.

    Attributes:
        time_s: Wall time in seconds, confirm phase included.
        trials: Most trials of the search; None is no limit.
    """

    time_s: float = Field(gt=0)
    trials: int | None = Field(default=None, ge=1, strict=True)


class SpaceSpec(Value):
    """Narrowing of the space: the values that each dimension may take; None is the default choice.

    A single value stands for a list of one.
    """

    batch_size: tuple[Annotated[int, Field(ge=1, strict=True)], ...] | None = None
    num_workers: tuple[Annotated[int, Field(ge=0, strict=True)], ...] | None = None
    prefetch_factor: tuple[Annotated[int, Field(ge=1, strict=True)], ...] | None = None
    pin_memory: tuple[Annotated[bool, Field(strict=True)], ...] | None = None
    cache: tuple[CacheName, ...] | None = None
    cache_fraction: tuple[Annotated[float, Field(gt=0, le=1, strict=True)], ...] | None = None
    archive: tuple[str, ...] | None = None
    stored: tuple[StoredForm, ...] | None = None
    decoder: tuple[str, ...] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _wrap_single(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int | float) else value

    @field_validator("*")
    @classmethod
    def _check_values(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("a dimension needs at least one value, got none")
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"each value of a dimension must stand once, got {twice[0]!r} twice; delete one")
        return values

    @field_validator("archive")
    @classmethod
    def _check_formats(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in names or ():
            if name not in STORED_FORMS:
                raise ValueError(f"archive must be one of {', '.join(STORED_FORMS)}, got {name!r}")
        return names


class StudySpec(Value):
    """A whole study: what is measured, over which space, for how long.

    Attributes:
        name: Name in the registry, in Optuna and in MLflow.
        dataset: Dotted factory, or `{factory: ..., arguments: {...}}`.
        budget: Wall time, or `{time: 2m, trials: 40}`.
        consumer: What takes the batches.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        memory_limit: Device memory: share (`80%`) or size (`20GiB`).
        space: Narrowing of any dimension.
        order: `map`, or `streaming` to allow archives that are read in their own order.
        inexact_decoders: Whether decoders that do not give the pixels of the dataset's own may be tried.
        page_cache: `warm` or `cold`.
        horizon_epochs: Epochs over which one-off costs are spread in the score; None reports them apart.
        subset: Measure on this many samples; None is all.
        shuffle: Whether the training loader shuffles.
        loader_class: Dotted path of a class that takes DataLoader's arguments, for training with another library's
            loader; None is DataLoader itself.
        seed: Seed of sampler, order and subset.
        time_cap_s: Longest time in timed windows of one trial of the search.
        confirm_time_cap_s: The same for the runs that decide.
        trial_timeout_s: Longest life of one trial's process.
        promotion: `automatic` deploys what is faster beyond noise; with `review` another configuration than the one
            that is served waits for a person.
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: Annotated[DatasetSource, BeforeValidator(_read_dataset)]
    budget: Annotated[Budget, BeforeValidator(_read_budget)]
    consumer: Annotated[Consumer, BeforeValidator(_read_consumer)] = Consumer()
    device: str = Field(default="auto", pattern=DEVICE_PATTERN)
    memory_limit: Annotated[MemoryLimit, BeforeValidator(_read_limit)] = MemoryLimit(share=0.8)
    space: SpaceSpec = SpaceSpec()
    order: Order = "map"
    inexact_decoders: bool = Field(default=False, strict=True)
    page_cache: Literal["warm", "cold"] = "warm"
    horizon_epochs: int | None = Field(default=None, ge=1, strict=True)
    subset: int | None = Field(default=None, ge=1, strict=True)
    shuffle: bool = Field(default=True, strict=True)
    loader_class: str | None = None
    seed: int = Field(default=0, ge=0, strict=True)
    time_cap_s: float = Field(default=2.0, gt=0, strict=True)
    confirm_time_cap_s: float = Field(default=3.0, gt=0, strict=True)
    trial_timeout_s: float = Field(default=300.0, gt=0, strict=True)
    promotion: Promotion = "automatic"

    @field_validator("loader_class")
    @classmethod
    def _check_loader_class(cls, path: str | None) -> str | None:
        return None if path is None else check_dotted_path(path)

    @property
    def workload(self) -> Workload:
        """What each trial of this study measures."""
        return Workload(
            dataset=self.dataset,
            consumer=self.consumer,
            device=self.device,
            memory_limit=self.memory_limit,
            order=self.order,
            page_cache=self.page_cache,
            shuffle=self.shuffle,
            loader_class=self.loader_class,
            subset=self.subset,
            seed=self.seed,
        )
