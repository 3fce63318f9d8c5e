"""A night in one line for a log, and in one page for people."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from autotune.compose import Places
from autotune.registry import Registry
from autotune.service.nightly.pruning import REPORT_NAME, REPORTS
from autotune.spec import NightlyReport
from autotune.tracking.report import gather, render_report
from autotune.tracking.report.night import night_preface
from autotune.tracking.report.page_file import write_page
from autotune.units import format_seconds

_NAMED = ("promoted", "rolled_back", "waiting", "nothing_feasible", "failed", "out_of_budget")
"""Outcomes whose studies are named: those that somebody may want to look at."""


def summary_line(report: NightlyReport) -> str:
    """Write a night on one line."""
    counts = Counter(one.outcome for one in report.studies)
    parts = [f"{counts['kept']} kept"] if counts["kept"] else []
    for outcome in _NAMED:
        names = [one.study for one in report.studies if one.outcome == outcome]
        if names:
            parts.append(f"{len(names)} {outcome.replace('_', ' ')} ({', '.join(names)})")
    became = ", ".join(parts) or "nothing to do"
    return (
        f"autotune nightly {report.started_at:%Y-%m-%d %H:%M} UTC on {report.machine}: {len(report.studies)} studies "
        f"in {format_seconds(report.spent_s)} of {format_seconds(report.budget_s)}: {became}; exit {report.exit_code}"
    )


def written_report(report: NightlyReport, registry: Registry, *, at: Places, path: Path | None = None) -> Path:
    """Write the page of a night, with the evidence of all its studies, and say where it lies.

    Args:
        report: The night.
        registry: The registry.
        at: Where everything is kept.
        path: The file; None is one of its own in the folder `reports` of the home folder.
    """
    target = path or at.home / REPORTS / f"{REPORT_NAME}{report.started_at:%Y-%m-%d-%H%M}-{report.key[:8]}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    known = set(registry.studies())
    studies = [gather(registry, one.study) for one in report.studies if one.study in known]
    page = render_report(studies, made_at=datetime.now(UTC), preface=night_preface(report), address=at.service_url)
    write_page(page, target)
    return target
