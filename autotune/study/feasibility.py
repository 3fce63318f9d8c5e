"""Breaches that are known before a process is spent on them."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.constants import DEVICE_HEADROOM_SHARE
from autotune.spec import Failure, Inspection, LoaderConfig, MachineFacts, MemoryLimit, MemoryUse, TrialRecord
from autotune.units import format_bytes


def limit_bytes(limit: MemoryLimit, machine: MachineFacts, device: str = "auto") -> int:
    """Give the limit of device memory in bytes; on CPU the share is of the smaller of RAM and cgroup limit.

    Args:
        limit: The limit.
        machine: Where.
        device: Where batches are consumed; `cpu` is so on a machine with an accelerator, too.
    """
    if limit.size_bytes is not None:
        return limit.size_bytes
    whole = machine.accelerator_memory_bytes if device != "cpu" else None
    return int((limit.share or 1.0) * (whole or machine.memory_bytes))


def predicted_breach(
    config: LoaderConfig, *, inspection: Inspection, limit: int, failures: Iterable[TrialRecord]
) -> Failure | None:
    """Say why a configuration must break the device-memory limit, or None where it may hold.

    Both grounds are certain, no estimates: one batch alone is larger than what may be used, or the same
    configuration with a smaller batch has broken the limit already.

    Args:
        config: Canonical configuration.
        inspection: Bytes of a sample.
        limit: Limit in bytes.
        failures: Records of trials that failed.
    """
    usable = int(limit * DEVICE_HEADROOM_SHARE)
    needed = config.batch_size * inspection.sample_bytes
    if needed > usable:
        return Failure(
            kind="device_memory",
            phase="predict",
            message=f"one batch of {config.batch_size} takes {format_bytes(needed)}, "
            f"the limit leaves {format_bytes(usable)}; take a smaller batch",
            excess=needed / usable - 1,
            memory=MemoryUse(device_limit_bytes=limit),
        )
    for record in failures:
        if record.failure is None or record.failure.kind != "device_memory":
            continue
        smaller = record.config.batch_size <= config.batch_size
        if smaller and record.config.replace(batch_size=config.batch_size) == config:
            return Failure(
                kind="device_memory",
                phase="predict",
                message=f"the same with batch size {record.config.batch_size} broke the limit already",
                excess=record.failure.excess,
                memory=record.failure.memory,
            )
    return None
