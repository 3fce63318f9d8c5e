"""What is compared: seed 4's four configurations beside ours as resolved, and the four loading modes."""

from __future__ import annotations

from typing import NamedTuple

from autotune.resolve.resolution import Resolution
from autotune.space.rules import broken_rule
from autotune.spec import Inspection, LoaderConfig, Value


class CommonConfiguration(NamedTuple):
    """A row of seed 4's table "Configuration Comparison"."""

    name: str
    num_workers: int
    pinned: bool


COMMON_CONFIGURATIONS = (
    CommonConfiguration("Single Process", 0, pinned=False),
    CommonConfiguration("Multi-Process", 4, pinned=True),
    CommonConfiguration("Optimized", 8, pinned=True),
    CommonConfiguration("Memory Efficient", 2, pinned=True),
)
"""Seed 4's four rows; workers persist where there are any, as they do there."""
OURS = "Ours, as resolved"


class Contender(Value):
    """One row before it is measured.

    Attributes:
        name: Name of the row.
        config: Its configuration in canonical form.
        notes: What became of the row on this machine, a sentence each.
        refused: Why it cannot run for this dataset; None where it can.
        fills_on_the_way: Whether its cache is filled by the first epoch and not before it.
    """

    name: str
    config: LoaderConfig
    notes: tuple[str, ...] = ()
    refused: str | None = None
    fills_on_the_way: bool = False


def config_contenders(inspection: Inspection, resolution: Resolution) -> list[Contender]:
    """Give seed 4's four rows on this machine, all at the batch size of ours, and ours."""
    batch_size = resolution.config.batch_size
    rows = [_common(row, batch_size, inspection) for row in COMMON_CONFIGURATIONS]
    ours = resolution.config.canonical(has_accelerator=inspection.machine.has_accelerator)
    founded = () if resolution.match == "exact" else (f"{resolution.match}: {resolution.why[0]}",)
    return [*rows, _checked(Contender(name=OURS, config=ours, notes=founded), inspection)]


def mode_contenders(inspection: Inspection, *, batch_size: int, num_workers: int, archive: str) -> list[Contender]:
    """Give the four loading modes.

    Args:
        inspection: What is known of dataset and machine.
        batch_size: Samples in a batch, in every row.
        num_workers: Worker processes, in every row; clamped to the machine's cores.
        archive: Format that the streaming mode reads.
    """
    from autotune.data.modes import LoadingMode, mode_config

    workers, notes = _clamped(num_workers, inspection)
    rows = []
    for mode in LoadingMode:
        config = mode_config(mode, batch_size=batch_size, num_workers=workers, archive=archive)
        rows.append(
            Contender(
                name=mode.value.capitalize(),
                config=config.canonical(has_accelerator=inspection.machine.has_accelerator),
                notes=notes,
                fills_on_the_way=mode is LoadingMode.CACHED,
            )
        )
    return [_checked(row, inspection) for row in rows]


def _common(row: CommonConfiguration, batch_size: int, inspection: Inspection) -> Contender:
    workers, notes = _clamped(row.num_workers, inspection)
    config = LoaderConfig(batch_size=batch_size, num_workers=workers, pin_memory=row.pinned)
    if row.pinned and not inspection.machine.has_accelerator:
        notes = (*notes, "without an accelerator there is nothing to pin memory for")
    canonical = config.canonical(has_accelerator=inspection.machine.has_accelerator)
    return _checked(Contender(name=row.name, config=canonical, notes=notes), inspection)


def _clamped(num_workers: int, inspection: Inspection) -> tuple[int, tuple[str, ...]]:
    cores = inspection.machine.cpu_count
    if num_workers <= cores:
        return num_workers, ()
    return cores, (f"{num_workers} workers asked, {cores} taken: one for each core of this machine",)


def _checked(contender: Contender, inspection: Inspection) -> Contender:
    rule = broken_rule(contender.config, inspection)
    return contender if rule is None else contender.replace(refused=rule.reason)
