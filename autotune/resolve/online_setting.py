"""What is varied while training: worker processes, batches that each keeps ready, and pinning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from autotune.constants import ONLINE_SETTINGS_MAX, ONLINE_WORKERS_MAX
from autotune.errors import SpecError
from autotune.spec import Value
from autotune.spec.base import first_message
from autotune.spec.config import DEFAULT_PREFETCH_FACTOR


class Setting(Value):
    """One setting of a loader that changes when a batch is ready, and never what is in it.

    Attributes:
        num_workers: Worker processes; 0 loads in the training process.
        prefetch_factor: Batches that each worker keeps ready; None is torch's default.
        pin_memory: Copy batches into page-locked memory before the transfer.
    """

    num_workers: int = Field(default=0, ge=0)
    prefetch_factor: int | None = Field(default=None, ge=1)
    pin_memory: bool = False

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.prefetch_factor is not None and self.num_workers == 0:
            raise ValueError(
                f"prefetch_factor needs num_workers >= 1, got prefetch_factor={self.prefetch_factor} "
                "with num_workers=0; leave it None"
            )
        return self

    @property
    def in_flight(self) -> int:
        """Batches that workers have or have made while the consumer has one."""
        return self.num_workers * (self.prefetch_factor or DEFAULT_PREFETCH_FACTOR)

    @property
    def cost(self) -> tuple[int, int, bool]:
        """What it takes, in the order of what matters: workers, batches in memory, pinned ones."""
        return self.num_workers, self.in_flight, self.pin_memory

    def canonical(self, *, has_accelerator: bool) -> Setting:
        """Fold spellings that behave the same into one.

        Args:
            has_accelerator: Whether the machine has a device apart from the CPU.
        """
        prefetch = (self.prefetch_factor or DEFAULT_PREFETCH_FACTOR) if self.num_workers else None
        return Setting(
            num_workers=self.num_workers,
            prefetch_factor=prefetch,
            pin_memory=self.pin_memory and has_accelerator,
        )

    def dataloader_arguments(self, *, persistent: bool) -> dict[str, Any]:
        """Give the arguments of a DataLoader.

        Args:
            persistent: Whether workers, where there are any, outlive a pass.
        """
        arguments: dict[str, Any] = {"num_workers": self.num_workers, "pin_memory": self.pin_memory}
        if self.num_workers:
            arguments["prefetch_factor"] = self.prefetch_factor or DEFAULT_PREFETCH_FACTOR
            arguments["persistent_workers"] = persistent
        return arguments

    def label(self) -> str:
        """Write it as logs show it."""
        parts = [f"{self.num_workers} workers"]
        if self.num_workers:
            parts.append(f"prefetch {self.prefetch_factor or DEFAULT_PREFETCH_FACTOR}")
        return ", ".join([*parts, "pinned"] if self.pin_memory else parts)


SAFE = Setting()
"""Needs no process, no shared memory and no pinned memory: what reads on where another setting fails."""
SETTING_FIELDS = tuple(Setting.model_fields)


def checked_settings(given: Iterable[Setting | Mapping[str, Any]], pins: Mapping[str, Any]) -> list[Setting]:
    """Give the settings that the caller wants tried.

    Args:
        given: Settings, or their fields.
        pins: Fields that the caller fixes, which all settings must have.

    Raises:
        SpecError: Something is no setting, breaks a rule, or contradicts a pin.
    """
    settings = [one if isinstance(one, Setting) else _made(one, pins) for one in given]
    for setting in settings:
        if not _meets(setting, pins):
            pinned = ", ".join(f"{name}={value}" for name, value in pins.items())
            raise SpecError(
                f"settings must keep what is pinned ({pinned}), got {setting.label()}; leave one of them out"
            )
    return settings


def _made(fields: Any, pins: Mapping[str, Any]) -> Setting:
    if not isinstance(fields, Mapping):
        raise SpecError(f"a setting is a mapping of {', '.join(SETTING_FIELDS)}, got {fields!r}")
    inherited = {name: value for name, value in pins.items() if name != "prefetch_factor" or fields.get("num_workers")}
    try:
        return Setting.model_validate({**inherited, **fields})
    except ValidationError as error:
        raise SpecError(f"settings: {first_message(error)}") from error


def proposed_settings(base: Setting, *, cpu_count: int, has_accelerator: bool) -> list[Setting]:
    """Propose what to try beside the resolved setting, the most promising first.

    Workers for every CPU, up to a limit, half of them, one and none; where there are workers already, more batches kept
    ready; and pinning the other way round, where there is an accelerator.

    Args:
        base: The resolved setting.
        cpu_count: CPUs that this process has.
        has_accelerator: Whether the machine has a device apart from the CPU.
    """
    pinned = base.pin_memory
    most = min(cpu_count, ONLINE_WORKERS_MAX)
    counts = [most, max(1, most // 2), 1, 0]
    by_workers = [Setting(num_workers=count, pin_memory=pinned) for count in dict.fromkeys(counts)]
    deeper = Setting(num_workers=base.num_workers or most, prefetch_factor=4, pin_memory=pinned)
    turned = [base.replace(pin_memory=not pinned)] if has_accelerator else []
    return [by_workers[0], *turned, *by_workers[1:], deeper]


def rivals_of(
    base: Setting, tried: Sequence[Setting], *, pins: Mapping[str, Any], has_accelerator: bool
) -> list[Setting]:
    """Give what differs from the resolved setting and keeps the pins, each once."""
    met = [one for one in tried if _meets(one, pins)]
    folded = [one.canonical(has_accelerator=has_accelerator) for one in met]
    return [one for one in dict.fromkeys(folded) if one != base.canonical(has_accelerator=has_accelerator)]


def most_promising(rivals: Sequence[Setting]) -> list[Setting]:
    """Give as many of the proposals as are tried."""
    return list(rivals[:ONLINE_SETTINGS_MAX])


def _meets(setting: Setting, pins: Mapping[str, Any]) -> bool:
    """Tell whether a setting keeps the pins; without workers there is no prefetching to pin."""
    folded = setting.canonical(has_accelerator=True)
    return all(
        getattr(folded, name) == value
        for name, value in pins.items()
        if name in SETTING_FIELDS and (setting.num_workers or name != "prefetch_factor")
    )


__all__ = [
    "SAFE",
    "SETTING_FIELDS",
    "Setting",
    "checked_settings",
    "most_promising",
    "proposed_settings",
    "rivals_of",
]
