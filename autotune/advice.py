"""What limits a configuration, and what would move it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.constants import DATA_WAIT_TARGET_SHARE
from autotune.spec import Bottleneck

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
