"""Rows of a report's tables, as text: what was compared, all trials, and what became of the decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from autotune.spec import Decision, DecisionEvent, LoaderConfig, TrialRecord
from autotune.spec.deployment import Action
from autotune.tracking.decision_figures import role
from autotune.tracking.drawing import in_order, number_of
from autotune.tracking.mlflow_values import trial_outcome
from autotune.tracking.report.evidence import StudyEvidence
from autotune.tracking.report.preface import Mood
from autotune.units import format_bytes, format_seconds

NOTHING = "–"

_ACTIONS: Mapping[Action, tuple[str, Mood]] = {
    "deployed": ("deployed", "good"),
    "waiting": ("waits for review", "attention"),
    "approved": ("approved", "good"),
    "rejected": ("rejected", "bad"),
    "pinned": ("pinned", "neutral"),
    "unpinned": ("no longer pinned", "neutral"),
    "rolled_back": ("taken back", "bad"),
}


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One configuration of race and confirm runs.

    Attributes:
        role: What it is in the decision.
        config: The configuration.
        runs: Runs that were measured, in all.
        rate: Median of their rates in samples/s.
        spread: Their lowest and highest rate.
        failed: Runs without a measurement.
    """

    role: str
    config: str
    runs: int
    rate: str
    spread: str
    failed: int


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial of the search, every cell as text."""

    number: str
    config: str
    rate: str
    noise: str
    waiting: str
    device_memory: str
    host_memory: str
    took: str
    result: str
    reason: str
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One thing that became of a decision.

    Attributes:
        at: When, in UTC.
        what: What became of it.
        mood: How that is marked.
        config: Its configuration.
        ratio: What it claims.
        actor: Who did it.
        reason: Why.
        then: What was deployed from then on.
        deployed: Whether what is deployed now was deployed by this.
        key: Key of the decision.
    """

    at: str
    what: str
    mood: Mood
    config: str
    ratio: str
    actor: str
    reason: str
    then: str
    deployed: bool
    key: str


def compared_rows(records: Sequence[TrialRecord], decision: Decision) -> tuple[ComparedRow, ...]:
    """Sum up race and confirm runs by configuration: the chosen one, the default, then the fastest."""
    by_config: dict[LoaderConfig, list[TrialRecord]] = {}
    for record in records:
        by_config.setdefault(record.config, []).append(record)

    def order(config: LoaderConfig) -> tuple[int, float]:
        known = ("chosen", "PyTorch default", "rival").index(role(config, decision))
        return known, -median(_rates(by_config[config]) or [0.0])

    return tuple(_compared_row(config, by_config[config], decision) for config in sorted(by_config, key=order))


def trial_rows(records: Sequence[TrialRecord], chosen: LoaderConfig | None) -> tuple[TrialRow, ...]:
    """Give the trials of a search as they were started."""
    return tuple(_trial_row(record, chosen) for record in in_order(records))


def history_rows(evidence: StudyEvidence) -> tuple[HistoryRow, ...]:
    """Give what became of a study's decisions, newest first."""
    decisions = {decision.key: decision for decision in evidence.decisions}
    served = {one.group: one.decision.key for one in evidence.deployments if one.decision is not None}
    events = sorted(evidence.events, key=lambda event: event.number)
    last = {event.group: event for event in events if event.after_key != event.before_key}
    current = {event.number for event in last.values() if event.after_key == served.get(event.group, "")}
    return tuple(_history_row(event, decisions, now=event.number in current) for event in reversed(events))


def _compared_row(config: LoaderConfig, records: Sequence[TrialRecord], decision: Decision) -> ComparedRow:
    rates = _rates(records)
    return ComparedRow(
        role=role(config, decision),
        config=config.label(),
        runs=len(rates),
        rate=_number(median(rates)) if rates else NOTHING,
        spread=f"{_number(min(rates))} to {_number(max(rates))}" if rates else NOTHING,
        failed=len(records) - len(rates),
    )


def _trial_row(record: TrialRecord, chosen: LoaderConfig | None) -> TrialRow:
    measured, failure = record.measurement, record.failure
    memory = measured.memory if measured else (failure.memory if failure else None)
    return TrialRow(
        number=number_of(record),
        config=record.config.label(),
        rate=_number(measured.samples_per_s) if measured else NOTHING,
        noise=_noise(measured.steady.half_width_share) if measured else NOTHING,
        waiting=f"{measured.data_wait_share:.0%}" if measured else NOTHING,
        device_memory=_bytes(memory.device_peak_bytes if memory else None),
        host_memory=_bytes(memory.host_pss_bytes if memory else None),
        took=format_seconds(record.wall_s),
        result=trial_outcome(record).replace("_", " "),
        reason=f"{failure.kind.replace('_', ' ')}: {failure.message}" if failure else "",
        chosen=record.config == chosen,
    )


def _history_row(event: DecisionEvent, decisions: Mapping[str, Decision], *, now: bool) -> HistoryRow:
    what, mood = _ACTIONS[event.action]
    decision = decisions.get(event.decision_key)
    ratio = decision.ratio if decision else None
    changed = event.after_key != event.before_key
    return HistoryRow(
        at=f"{event.at:%Y-%m-%d %H:%M}",
        what=what,
        mood=mood,
        config=decision.config.label() if decision else NOTHING,
        ratio=f"{ratio.mean:.2f} × ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else NOTHING,
        actor=event.actor,
        reason=event.reason,
        then=_then(event, decisions) if changed else "as before",
        deployed=now,
        key=event.decision_key,
    )


def _then(event: DecisionEvent, decisions: Mapping[str, Decision]) -> str:
    """Say what is deployed from an event on."""
    if event.after_key is None:
        return "the safe default"
    if event.after_key == event.decision_key:
        return "this"
    after = decisions.get(event.after_key)
    return after.config.label() if after else NOTHING


def _rates(records: Sequence[TrialRecord]) -> list[float]:
    return [record.measurement.samples_per_s for record in records if record.measurement is not None]


def _number(samples_per_s: float) -> str:
    """Write a rate without its unit, which the head of the column has."""
    return f"{samples_per_s:,.0f}" if samples_per_s >= 10 else f"{samples_per_s:.2g}"


def _noise(half_width_share: float) -> str:
    return f"± {half_width_share:.1%}" if half_width_share < 1 else "too short to tell"


def _bytes(size: int | None) -> str:
    return NOTHING if size is None else format_bytes(size)
