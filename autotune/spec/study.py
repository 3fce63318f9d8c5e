"""`StudySpec`: a study as its file describes it, every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from autotune.spec.base import Value
from autotune.spec.config import STORED_FORMS, CacheName, StoredForm
from autotune.spec.workload import Consumer, DatasetSource, MemoryLimit, Workload
from autotune.units import parse_seconds


def _read_dataset(value: Any) -> Any:
    return {"factory": value} if isinstance(value, str) else value


def _read_budget(value: Any) -> Any:
    if isinstance(value, str):
        return {"time_s": parse_seconds(value)}
    if isinstance(value, Mapping) and "time" in value:
        rest = {key: item for key, item in value.items() if key != "time"}
        if not isinstance(value["time"], str):
            raise ValueError(f"a budget's time is text such as 2m, got {value['time']!r}")
        return {**rest, "time_s": parse_seconds(value["time"])}
    if isinstance(value, int | float):
        raise ValueError(f"a budget is a time with a unit (2m) or {{time: 2m, trials: 40}}, got {value!r}")
    return value


def _read_consumer(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, Mapping) and len(value) == 1 and "kind" not in value:
        ((kind, rest),) = value.items()
        if kind == "step":
            step = {"step": rest} if isinstance(rest, str) else _step_fields(rest)
            return {"kind": "step", **step}
        return {"kind": kind, **(rest if isinstance(rest, Mapping) else {})}
    return value


def _step_fields(rest: Any) -> dict[str, Any]:
    if not isinstance(rest, Mapping) or set(rest) - {"factory", "arguments"}:
        raise ValueError(f"step is a dotted path or {{factory: ..., arguments: ...}}, got {rest!r}")
    return {"step": rest.get("factory"), "step_arguments": rest.get("arguments", {})}


class Budget(Value):
    """How much a study may cost.

    Attributes:
        time_s: Wall time in seconds, confirm phase included.
        trials: Most trials of the search; None is no limit.
    """

    time_s: float = Field(gt=0)
    trials: int | None = Field(default=None, ge=1)


class SpaceSpec(Value):
    """Narrowing of the space: the values that each dimension may take; None is the default choice."""

    batch_size: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    num_workers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    prefetch_factor: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    pin_memory: tuple[bool, ...] | None = Field(default=None, min_length=1)
    cache: tuple[CacheName, ...] | None = Field(default=None, min_length=1)
    cache_fraction: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(default=None, min_length=1)
    archive: tuple[str, ...] | None = Field(default=None, min_length=1)
    stored: tuple[StoredForm, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        for name in self.archive or ():
            if name not in STORED_FORMS:
                raise ValueError(f"archive must be one of {', '.join(STORED_FORMS)}, got {name!r}")
        return self


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
        page_cache: `warm` or `cold`.
        horizon_epochs: Epochs over which one-off costs are spread in the score; None reports them apart.
        subset: Measure on this many samples; None is all.
        shuffle: Whether the training loader shuffles.
        seed: Seed of sampler, order and subset.
        time_cap_s: Longest time in timed windows of one trial of the search.
        confirm_time_cap_s: The same for the runs that decide.
        trial_timeout_s: Longest life of one trial's process.
    """

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dataset: Annotated[DatasetSource, BeforeValidator(_read_dataset)]
    budget: Annotated[Budget, BeforeValidator(_read_budget)]
    consumer: Annotated[Consumer, BeforeValidator(_read_consumer)] = Consumer()
    device: str = "auto"
    memory_limit: Annotated[MemoryLimit, BeforeValidator(_read_limit)] = MemoryLimit(share=0.8)
    space: SpaceSpec = SpaceSpec()
    order: Literal["map", "streaming"] = "map"
    page_cache: Literal["warm", "cold"] = "warm"
    horizon_epochs: int | None = Field(default=None, ge=1)
    subset: int | None = Field(default=None, ge=1)
    shuffle: bool = True
    seed: int = Field(default=0, ge=0)
    time_cap_s: float = Field(default=2.0, gt=0)
    confirm_time_cap_s: float = Field(default=3.0, gt=0)
    trial_timeout_s: float = Field(default=300.0, gt=0)

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
            subset=self.subset,
            seed=self.seed,
        )


def _read_limit(value: Any) -> Any:
    return value if isinstance(value, Mapping) else MemoryLimit.parse(value)
