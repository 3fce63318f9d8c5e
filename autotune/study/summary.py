"""The summary that a run ends with: counts, costs, and what people should know."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.spec import Decision, DecisionEvent, MemorySummary, Rates, StudySummary, TrialRecord
from autotune.study.ledger import Ledger
from autotune.study.runs import Runs
from autotune.study.setting import Setting


def summarise(
    setting: Setting, runs: Runs, *, decision: Decision, event: DecisionEvent | None, wall_s: float
) -> StudySummary:
    """Put together how a run ended.

    Args:
        setting: The run.
        runs: What was measured in it, in all phases.
        decision: What it came to.
        event: What became of the decision; None where nobody knows.
        wall_s: Wall time of this run.
    """
    ledger = runs.ledger
    return StudySummary(
        study=setting.spec.name,
        decision_key=decision.key,
        outcome=decision.outcome,
        best=decision.config,
        default=decision.default,
        samples_per_s=Rates(best=decision.samples_per_s, default=decision.default_samples_per_s),
        ratio=decision.ratio,
        pairs=decision.pairs,
        headroom=decision.headroom,
        resolution_share=decision.resolution_share,
        memory=MemorySummary(peak_bytes=decision.peak_bytes, limit_bytes=decision.limit_bytes),
        trials=ledger.counts(),
        process_runs=runs.processes,
        wall_s=wall_s,
        overhead_share=_overhead_share(runs.records),
        batch_size_gain=decision.batch_size_gain,
        break_even_epochs=_break_even_epochs(ledger, decision),
        smaller=decision.smaller,
        why=decision.why,
        notes=(*_waiting(event), *decision.notes, *_notes(setting, runs.records)),
    )


def _waiting(event: DecisionEvent | None) -> tuple[str, ...]:
    """Say that a person has to decide, where one has."""
    if event is None or event.action != "waiting":
        return ()
    way_out = f"autotune review approve {event.decision_key[:8]} deploys it"
    return (f"this configuration is not deployed yet, as {event.reason}: {way_out}",)


def _overhead_share(records: Sequence[TrialRecord]) -> float | None:
    """Give the share of the trials' wall time outside build, warm-up and windows."""
    measured = [(record, record.measurement) for record in records if record.measurement]
    wall = sum(record.wall_s for record, _ in measured)
    if not wall:
        return None
    useful = sum(sum(m.phases.model_dump().values()) for _, m in measured)
    return max(0.0, 1 - useful / wall)


def _break_even_epochs(ledger: Ledger, decision: Decision) -> float | None:
    """Give the epochs after which build and fill time are won back against the default."""
    record, once_s = ledger.get(decision.config), ledger.one_off_s(decision.config)
    if record is None or record.measurement is None or not once_s:
        return None
    fast, slow = decision.samples_per_s, decision.default_samples_per_s
    if not fast or not slow or fast <= slow:
        return None
    saved_s = record.measurement.epoch_samples * (1 / slow - 1 / fast)
    return once_s / saved_s


def _notes(setting: Setting, records: Sequence[TrialRecord]) -> tuple[str, ...]:
    notes = []
    measured = [record.measurement for record in records if record.measurement]
    if unsteady := sum(1 for m in measured if m.unsteady):
        notes.append(f"{unsteady} of {len(measured)} runs were unsteady: first and second half differ by over 5 %")
    if aside := sum(1 for m in measured for window in m.windows if window.set_aside):
        notes.append(f"{aside} windows were set aside because other programs took CPU time")
    if any(m.page_cache == "unknown" for m in measured):
        notes.append("the state of the page cache could not be verified in every run")
    if setting.inspection.random and not setting.inspection.dataset.staged:
        notes.append(
            "samples are random, so neither archives nor caches were tried; with read, decode and augment "
            "the first two could be stored"
        )
    if setting.inspection.dataset.iterable and not setting.inspection.shards_itself:
        notes.append("every worker of this iterable dataset repeats all samples: at most one worker was tried")
    if not setting.spec.consumer.sees_memory:
        notes.append("the batch size is handed out only by a study that runs your own step")
    return tuple(notes)
