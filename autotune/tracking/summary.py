"""The table that a study ends with."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autotune.spec import Interval, StudySummary
from autotune.spec.record import Outcome
from autotune.units import format_bytes, format_difference, format_rate, format_seconds

OUTCOME_WORDS: Mapping[Outcome, str] = {
    "gain": "faster than the PyTorch default, beyond noise",
    "nothing_to_gain": "nothing to gain: the default is as fast as anything that was tried",
    "undecided": "undecided: within this budget no gain over the PyTorch default can be shown",
    "nothing_feasible": "nothing feasible: no configuration kept within the limits",
}
"""What each outcome means to a person."""

_STYLES: Mapping[Outcome, str] = {
    "gain": "bold green",
    "nothing_to_gain": "bold cyan",
    "undecided": "bold yellow",
    "nothing_feasible": "bold red",
}

_IS_IT_NOISE: Mapping[Outcome, str] = {
    "gain": "",
    "nothing_to_gain": "The whole interval lies below a gain that would be worth a change.",
    "undecided": "The interval holds both no gain and a worthwhile one; a larger budget narrows it.",
    "nothing_feasible": "",
}


def summary_table(summary: StudySummary) -> RenderableType:
    """Lay out how a study ended: rates, ratio with interval, memory, trials, and why."""
    headline = Text.assemble((summary.study, "bold"), "  ", (OUTCOME_WORDS[summary.outcome], _STYLES[summary.outcome]))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(summary):
        table.add_row(label, escape(value))
    parts: list[RenderableType] = [headline, Padding(table, (1, 0, 1, 2))]
    noise = _IS_IT_NOISE[summary.outcome] if summary.ratio else ""
    sentences = [sentence for sentence in (summary.why, noise) if sentence]
    parts += [Padding(Text(sentence), (0, 0, 0, 2)) for sentence in sentences]
    parts += [Padding(Text(f"- {note}", style="dim"), (0, 0, 0, 2)) for note in summary.notes]
    return Group(*parts)


def _rows(summary: StudySummary) -> list[tuple[str, str]]:
    """Give label and text of each line; what was not measured has none."""
    counts, memory, headroom = summary.trials, summary.memory, summary.headroom
    rows = [
        ("PyTorch default", _with_rate(summary.default.label(), summary.samples_per_s.default)),
        ("best", _with_rate(summary.best.label(), summary.samples_per_s.best)),
    ]
    if summary.ratio is not None:
        rows.append(("ratio", ratio_text(summary.ratio, summary.pairs)))
    if summary.resolution_share is not None:
        told = format_difference(summary.resolution_share)
        rows.append(("resolution", f"less than {told} can't be told in this noise and budget"))
    if summary.batch_size_gain is not None:
        rows.append(("batch size alone", f"{summary.batch_size_gain:.2f} x the same configuration at batch 32"))
    if memory.peak_bytes is not None and memory.limit_bytes is not None:
        share = memory.peak_bytes / memory.limit_bytes
        peak, limit = format_bytes(memory.peak_bytes), format_bytes(memory.limit_bytes)
        rows.append(("device memory", f"{peak} of {limit} ({share:.0%})"))
    if headroom.bound_samples_per_s is not None and headroom.share is not None:
        bound = format_rate(headroom.bound_samples_per_s)
        rows.append(("headroom", f"{headroom.share:.0%} of what any loader could reach here ({bound})"))
    if summary.break_even_epochs is not None:
        rows.append(("break-even", f"build and fill are won back after {summary.break_even_epochs:.2g} epochs"))
    tried = [
        f"{counts.total} run",
        f"{counts.complete} complete",
        f"{counts.stopped_early} stopped early",
        f"{counts.infeasible} infeasible",
        f"{counts.failed} failed",
    ]
    rows.append(("trials", ", ".join(tried)))
    overhead = "" if summary.overhead_share is None else f", {summary.overhead_share:.0%} of trial time is overhead"
    rows.append(("time", f"{format_seconds(summary.wall_s)}, {summary.process_runs} processes{overhead}"))
    return rows


def ratio_text(ratio: Interval, pairs: int) -> str:
    """Write a ratio with its interval and what it rests on."""
    return f"{ratio.mean:.2f} x the default (95 % interval {ratio.low:.2f} to {ratio.high:.2f}, {pairs} pairs)"


def _with_rate(label: str, samples_per_s: float | None) -> str:
    return f"{label}: {format_rate(samples_per_s)}" if samples_per_s is not None else f"{label}: not measured"
