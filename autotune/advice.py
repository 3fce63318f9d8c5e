"""What limits a configuration, what would move it, and which machine would do, in words."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.constants import DATA_WAIT_TARGET_SHARE
from autotune.spec import Bottleneck, Decision, SmallerMachine
from autotune.units import format_bytes

_WHERE: Mapping[str, str] = {
    "consuming process": "",
    "workers": " in the workers",
    "cores": ", with all cores busy,",
}
_MOVES: Mapping[str, str] = {
    "gather": "batches come from memory or a mapped archive already, which is near what this machine can do",
    "read": "an archive of large files or a cache reads faster, and workers overlap waiting for storage",
    "decode": "a decoded archive or a cache leaves it out, a faster decoder shortens it, workers divide it",
    "augment": "workers divide it; what is random is never stored",
    "collate": "whole batches are put together faster from a decoded archive or a memory cache without workers",
    "send": "each batch is copied between processes; loading in the consuming process saves that",
    "hand over": "each batch is taken over from a worker; larger batches or loading in the consuming process save that",
    "consume": "the step is what takes the time: faster loading buys nothing, a faster step or device would",
}


def _loading_share(found: Bottleneck) -> float:
    """Give the share of the consuming process's time that goes into loading."""
    loads_itself = "hand over" not in found.stages
    spent = sum(ms for name, ms in found.stages.items() if loads_itself or name in ("hand over", "consume"))
    return 1 - found.stages.get("consume", 0.0) / spent if spent else 0.0


def bottleneck_text(found: Bottleneck) -> str:
    """Say on one line where the time of a batch goes, what limits the rate, and what would move it."""
    ordered = sorted(found.stages.items(), key=lambda stage: -stage[1])
    shown = ", ".join(f"{name} {milliseconds:.3g} ms" for name, milliseconds in ordered if milliseconds > 0)
    where, move = _WHERE.get(found.limit, ""), _MOVES.get(found.stage, "")
    loading = _loading_share(found)
    if found.stage == "consume" and loading > DATA_WAIT_TARGET_SHARE:
        move = f"loading takes {loading:.0%} of the time beside it, which workers or stored samples take away"
    return f"{found.stage}{where} limits {found.config} ({shown} a batch); {move}"


def smaller_machine_text(decision: Decision) -> str:
    """Say on one line which smaller machine would keep the consumer fed, how that is known, and what it needs."""
    found = decision.smaller
    if decision.workload.consumer.kind == "loader":
        return (
            "cannot be said, as this study measured loading alone; one with the consumer emulated or step tells which "
            "machine keeps that fed"
        )
    if found is None:
        return "cannot be said, as no run of this decision told its CPU time; tune the study again"
    waits = (
        f"the consumer waits for {found.data_wait_share:.1%} of its time (at most {found.target_share:.0%} is wanted)"
    )
    if not found.fed:
        return f"none, as {waits} even with all {_cpus(found.of_cpus)} and {found.config.label()}"
    return "; ".join(
        [f"{_answer(found)} with {found.config.label()}, which takes {_bytes(found)}", waits, *_known(found)]
    )


def _answer(found: SmallerMachine) -> str:
    if found.cpus < found.of_cpus:
        return (
            f"{_cpus(found.cpus)} of the {found.of_cpus} here {'would' if found.state == 'verified' else 'should'} do"
        )
    return "1 CPU is all there is here, and does" if found.cpus == 1 else f"all {_cpus(found.cpus)} here are needed"


def _known(found: SmallerMachine) -> list[str]:
    """Say how the answer is known."""
    told = []
    if found.limited_by is not None:
        limit = {"quota": "a quota of", "affinity": "affinity to"}[found.limited_by]
        told.append(f"verified by a run under {limit} {_cpus(found.cpus)}")
        if found.cpus > 1 and found.too_few is None:
            told.append("fewer were not run, as by their CPU time no configuration that was measured gets by with them")
    elif found.of_cpus > 1:
        told.append(f"with all of them {found.busy_cpus:.2f} are busy")
    if found.too_few is not None and found.too_few_config is not None and found.too_few_wait_share is not None:
        waited = found.too_few_wait_share > found.target_share
        what = f"waited for {found.too_few_wait_share:.1%}" if waited else "was slowed down itself"
        told.append(f"in a run with {_cpus(found.too_few)} and {found.too_few_config.label()} the consumer {what}")
    return [*told, "predicted from that CPU time, not verified by a run"] if found.state == "predicted" else told


def _cpus(count: int) -> str:
    return f"{count} CPU{'s' if count != 1 else ''}"


def _bytes(found: SmallerMachine) -> str:
    """Write what a configuration takes of memory and storage; what it does not use is left out."""
    host = "unknown host memory" if found.host_bytes is None else f"{format_bytes(found.host_bytes)} of host memory"
    parts = [host]
    if found.archive_bytes:
        parts.append(f"{format_bytes(found.archive_bytes)} of archive")
    if found.cache_bytes:
        where = "on disk" if found.config.cache == "disk" else "among that memory"
        parts.append(f"{format_bytes(found.cache_bytes)} of cache {where}")
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"
