"""What limits a configuration, and what would move it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.spec import Bottleneck

_MOVES: Mapping[str, str] = {
    "read": "an archive of large files or a cache reads faster, and workers overlap waiting for storage",
    "decode": "a decoded archive or a cache leaves it out, a faster decoder shortens it, workers divide it",
    "augment": "workers divide it; what is random is never stored",
    "collate": "whole batches are put together faster from a decoded archive or a memory cache without workers",
    "send": "each batch is copied between processes; loading in the consuming process saves that",
    "hand over": "each batch is taken over from a worker; larger batches or loading in the consuming process save that",
    "consume": "the step is what takes the time: faster loading buys nothing, a faster step or device would",
}


def bottleneck_text(found: Bottleneck) -> str:
    """Say on one line where the time of a batch goes, what limits the rate, and what would move it."""
    ordered = sorted(found.stages.items(), key=lambda stage: -stage[1])
    shown = ", ".join(f"{name} {milliseconds:.3g} ms" for name, milliseconds in ordered if milliseconds > 0)
    where = "" if found.limit == "consuming process" else f" in the {found.limit}"
    move = _MOVES.get(found.stage, "")
    return f"{found.stage}{where} limits {found.config} ({shown} a batch); {move}"
