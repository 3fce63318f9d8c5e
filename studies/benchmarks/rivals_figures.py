"""What the clocked runs of a task come to: rates, ratios paired by block, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rivals_blocks import Setup
from rivals_contenders import OURS, Contender, Pick

from autotune.ratios import ratio_interval

_RESOLVED = 1.5
"""Widest interval around 1, end over end, that still says something."""

Result = dict[str, Any]
"""What the document says of one contender in one task."""
Rates = Mapping[Setup, Mapping[int, float]]
"""Samples/s of each loader, by block."""


def rates_of(runs: Sequence[Mapping[str, Any]]) -> Rates:
    """Give the rates of clocked runs."""
    found: dict[Setup, dict[int, float]] = {}
    for run in runs:
        found.setdefault(run["setup"], {})[run["block"]] = run["samples_per_s"]
    return found


def ratio_of(above: Setup, below: Setup, rates: Rates) -> dict[str, float] | None:
    """Give the ratio of two loaders with its 95 % interval, from the blocks that have both; None with too few."""
    one, other = rates.get(above, {}), rates.get(below, {})
    both = sorted(one.keys() & other.keys())
    interval = ratio_interval([one[block] for block in both], [other[block] for block in both])
    return interval.model_dump() if interval else None


def result_of(pick: Pick, tuning_s: float, *, ours: Setup | None, rates: Rates, failed: Mapping[Setup, str]) -> Result:
    """Put together what is known of a contender's pick.

    Args:
        pick: What it recommends.
        tuning_s: Seconds that it took.
        ours: What autotune recommends; None where that failed.
        rates: Rates of all picks.
        failed: Picks that could not be clocked.
    """
    mine = rates.get(pick.setup, {})
    return {
        "pick": pick.setup.label(),
        "config": pick.setup.config.model_dump(),
        "threads": pick.setup.threads,
        "tuning_s": tuning_s,
        "processes": pick.processes,
        "note": pick.note,
        "samples_per_s": fmean(mine.values()) if mine else None,
        "rates": list(mine.values()),
        "same_pick": pick.setup == ours,
        "ratio": ratio_of(ours, pick.setup, rates) if ours else None,
        "failed": failed.get(pick.setup),
        **({"more": dict(pick.more)} if pick.more else {}),
    }


def verdict_of(results: Mapping[str, Result], contenders: Sequence[Contender]) -> dict[str, Any]:
    """Compare autotune's pick with that of the best rival, and with the best that turns the loader's arguments alone.

    The best rival is the one of the highest mean in these very runs, which flatters it a little.

    Args:
        results: What is known of each contender that picked.
        contenders: All of them.
    """
    rivals = [each for each in contenders if each.key != OURS and results.get(each.key, {}).get("samples_per_s")]
    ours = results.get(OURS, {})
    if not rivals or not ours.get("samples_per_s"):
        why = ours.get("failed") or "autotune or all rivals came to nothing"
        return {"verdict": "not measured", "at_least": None, "why": why}
    found = _against(rivals, results)
    alone = [each for each in rivals if not each.own_storage]
    return {**found, "loader_arguments_alone": _against(alone, results) if alone else None}


def _against(rivals: Sequence[Contender], results: Mapping[str, Result]) -> dict[str, Any]:
    best = max(rivals, key=lambda each: results[each.key]["samples_per_s"])
    result = results[best.key]
    ratio = result["ratio"]
    word = "same pick" if result["same_pick"] else _word(ratio)
    return {
        "best_rival": best.key,
        "verdict": word,
        "at_least": {"slower": False, "not resolved": None}.get(word, True),
        "factor": ratio["mean"] if ratio else None,
        "ratio": ratio,
        "why": f"{_sentence(word, ratio)} {best.title} ({result['pick']})",
    }


def _word(ratio: Mapping[str, float] | None) -> str:
    if ratio is None:
        return "not resolved"
    if ratio["low"] > 1:
        return "faster"
    if ratio["high"] < 1:
        return "slower"
    return "within noise" if ratio["high"] / ratio["low"] <= _RESOLVED else "not resolved"


def _sentence(word: str, ratio: Mapping[str, float] | None) -> str:
    if word == "same pick":
        return "the same loader as that of"
    if ratio is None:
        return "too few runs to compare with"
    return f"{ratio['mean']:.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f}) the rate of"
