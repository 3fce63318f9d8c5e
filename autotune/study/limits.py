"""The limit of device memory, in bytes."""

from __future__ import annotations

from autotune.spec import MachineFacts, MemoryLimit


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
