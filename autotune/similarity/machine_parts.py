"""What is alike in two machines."""

from __future__ import annotations

from autotune.similarity._base import SHARES, Circumstances, Part, ratio_part, told_bytes

_CPUS, _MEMORY = 0.2, 0.1
"""Powers of ratios: 2 of 8 CPUs are 0.76. Best configurations change with workers first, with what fits memory next."""


def compare_cpus(here: Circumstances, there: Circumstances) -> Part:
    """Compare the CPUs that may be used."""
    one, other = here.machine.cpu_count, there.machine.cpu_count
    return ratio_part("CPUs", one, other, power=_CPUS, told=lambda *_: f"{one} instead of {other} CPUs")


def compare_memory(here: Circumstances, there: Circumstances) -> Part:
    """Compare the host memory that may be used."""
    amounts = here.machine.memory_bytes, there.machine.memory_bytes
    return ratio_part("memory", *amounts, power=_MEMORY, told=told_bytes("of memory"))


def compare_accelerators(here: Circumstances, there: Circumstances) -> Part:
    """Compare what batches go to."""
    one, other = _accelerator_of(here), _accelerator_of(there)
    if one == other:
        return Part(name="accelerator", share=1.0, reason="same accelerator" if one else "no accelerator in either")
    key = "other accelerator" if one and other else "with and without an accelerator"
    reason = f"{one or 'no accelerator'} instead of {other or 'none'}"
    return Part(name="accelerator", share=SHARES[key], reason=reason)


def compare_systems(here: Circumstances, there: Circumstances) -> Part:
    """Compare operating system and architecture."""
    same = here.machine.system == there.machine.system
    reason = "same system" if same else f"{here.machine.system} instead of {there.machine.system}"
    return Part(name="system", share=1.0 if same else SHARES["other system"], reason=reason)


def compare_versions(here: Circumstances, there: Circumstances) -> Part:
    """Compare the major versions of the libraries that both know."""
    one, other = here.machine.versions, there.machine.versions
    shared = sorted(one.keys() & other.keys())
    differing = [name for name in shared if _major(one[name]) != _major(other[name])]
    told = ", ".join(f"{name} {_major(one[name])} instead of {_major(other[name])}" for name in differing)
    share = SHARES["other major version"] ** len(differing)
    return Part(name="versions", share=share, reason=told or "same major versions")


def _accelerator_of(circumstances: Circumstances) -> str | None:
    """Name what the batches go to; a study on the CPU leaves an accelerator alone."""
    machine = circumstances.machine
    if circumstances.workload.device == "cpu" or machine.accelerator is None:
        return None
    return f"{machine.accelerator_count} {machine.accelerator}"


def _major(version: str) -> str:
    return version.partition(".")[0]
