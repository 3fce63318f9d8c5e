"""A night in a few lines: what stands before the studies in the report of a nightly run."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.spec import NightlyReport, Pruned, StudyNight
from autotune.spec.nightly import NightOutcome
from autotune.tracking.report.preface import Mood, Preface, PrefaceRow
from autotune.units import format_bytes, format_seconds

OUTCOMES: Mapping[NightOutcome, tuple[str, Mood]] = {
    "kept": ("kept", "neutral"),
    "promoted": ("promoted", "good"),
    "waiting": ("waits for review", "attention"),
    "rolled_back": ("rolled back", "bad"),
    "nothing_feasible": ("nothing feasible", "bad"),
    "failed": ("failed", "bad"),
    "out_of_budget": ("not reached", "attention"),
}
"""What each outcome of a study is called, and how it is marked."""


def night_preface(night: NightlyReport) -> Preface:
    """Put a night into the lines and the table that its report begins with."""
    return Preface(
        title=f"autotune: night of {night.started_at:%Y-%m-%d}",
        sentences=_sentences(night),
        rows=tuple(_row(study) for study in night.studies),
    )


def _sentences(night: NightlyReport) -> tuple[str, ...]:
    ended = "it has not ended" if night.ended_at is None else f"ended at {night.ended_at:%H:%M} UTC"
    counts = {
        words: sum(study.outcome == outcome for study in night.studies) for outcome, (words, _) in OUTCOMES.items()
    }
    spent, budget = format_seconds(night.spent_s), format_seconds(night.budget_s)
    told = [f"On {night.machine}: began at {night.started_at:%H:%M} UTC, {ended}; {spent} of {budget} were spent."]
    if night.studies:
        became = ", ".join(f"{count} {words}" for words, count in counts.items() if count)
        told.append(f"{_counted(len(night.studies), 'study', 'studies')}: {became}.")
    else:
        told.append("There was no study to look at.")
    if night.rebuilt:
        told.append(f"Deployed archives that were built: {', '.join(night.rebuilt)}.")
    if removed := _removed(night.pruned):
        told.append(f"Removed as too old: {' and '.join(removed)}.")
    return tuple(told)


def _removed(pruned: Pruned) -> list[str]:
    archives = _counted(len(pruned.archives), "archive")
    found = {
        _counted(pruned.trials, "trial"): pruned.trials,
        f"{archives} ({format_bytes(pruned.freed_bytes)})": len(pruned.archives),
        _counted(pruned.searches, "superseded search", "superseded searches"): pruned.searches,
        _counted(pruned.reports, "report of a night", "reports of nights"): pruned.reports,
    }
    return [words for words, count in found.items() if count]


def _row(study: StudyNight) -> PrefaceRow:
    verdict, mood = OUTCOMES[study.outcome]
    return PrefaceRow(
        study=study.study,
        verdict=verdict,
        mood=mood,
        reason=" ".join(_whole(sentence) for sentence in (*study.told, study.why) if sentence),
        rate=_ratios(study),
        seconds=study.wall_s or None,
    )


def _ratios(study: StudyNight) -> str:
    """Write the ratio that was measured this night beside the one on record."""
    now, then = study.measured, study.recorded
    recorded = f"{then.mean:.2f} × on record" if then else ""
    if now is None:
        return recorded
    measured = f"{now.mean:.2f} × ({now.low:.2f} to {now.high:.2f}) this night"
    return f"{measured}, {recorded}" if recorded else measured


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _whole(sentence: str) -> str:
    """End a sentence with a full stop, and begin it with a capital."""
    return sentence[:1].upper() + sentence[1:] + ("" if sentence.endswith((".", "!", "?")) else ".")


__all__ = ["OUTCOMES", "night_preface"]
