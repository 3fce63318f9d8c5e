"""Deployments, waiting decisions and events as tables, lines and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from autotune.spec import Decision, DecisionEvent, Deployment, WaitingDecision
from autotune.units import format_rate

KEY_SHOWN = 8
"""Digits of a key that people see; commands take the start of a key."""


def waiting_lines(waiting: Sequence[WaitingDecision]) -> Iterator[str]:
    """Write what waits, and how it is decided."""
    if not waiting:
        yield "no decision waits"
    for one in waiting:
        decision = one.decision
        now = one.deployment.decision
        yield (
            f"{decision.key[:KEY_SHOWN]} {decision.study}: waits since {one.since:%Y-%m-%d %H:%M} UTC, as {one.reason}"
        )
        yield f"  would deploy {decision.config.label()}: {decision.why}"
        yield f"  deployed now {'PyTorch default' if now is None else now.config.label()}"
        seen = f"{decision.key[:KEY_SHOWN]} --version {one.deployment.version}"
        yield f"  autotune review approve {seen}, or reject with a --reason"


def deployments_table(deployments: Sequence[Deployment], stand_ins: Mapping[str, str]) -> Table:
    """Draw what is deployed.

    Args:
        deployments: What is deployed.
        stand_ins: Decisions that stand for PyTorch's default, by group.
    """
    table = Table("decision", "study", "configuration", "against default", "decided", "version", "", title="deployed")
    for one in deployments:
        decision = one.decision
        if decision is None:
            key = stand_ins.get(one.group, "")[:KEY_SHOWN]
            table.add_row(key, escape(one.study), "PyTorch default", "", "", str(one.version), _pin(one))
            continue
        table.add_row(
            decision.key[:KEY_SHOWN],
            escape(one.study),
            escape(decision.config.label()),
            _gain(decision),
            f"{decision.decided_at:%Y-%m-%d %H:%M}",
            str(one.version),
            _pin(one),
        )
    return table


def event_line(event: DecisionEvent) -> str:
    """Write an event on one line."""
    after = "the PyTorch default" if event.after_key is None else event.after_key[:KEY_SHOWN]
    served = f"; {after} is served" if event.action in ("rolled_back", "rejected", "waiting") else ""
    why = f": {event.reason}" if event.reason else ""
    done = event.action.replace("_", " ")
    who = f"{event.at:%Y-%m-%d %H:%M} {event.study} {event.decision_key[:KEY_SHOWN]} {done} by {event.actor}"
    return f"{who}{why}{served}"


def waiting_document(one: WaitingDecision) -> dict[str, Any]:
    """Give the JSON form of a waiting decision."""
    return {
        **decision_document(one.decision),
        "since": one.since.isoformat(),
        "reason": one.reason,
        "deployment": deployment_document(one.deployment),
    }


def deployment_document(one: Deployment) -> dict[str, Any]:
    """Give the JSON form of a deployment."""
    return {
        "study": one.study,
        "type_name": one.type_name,
        "machine_class": one.machine_class,
        "pinned": one.pinned,
        "version": one.version,
        "deployed": None if one.decision is None else decision_document(one.decision),
    }


def decision_document(decision: Decision) -> dict[str, Any]:
    """Give the JSON form of a decision as far as a reviewer asks."""
    shown = {"key", "study", "outcome", "config", "default", "samples_per_s", "default_samples_per_s", "ratio", "pairs"}
    return decision.model_dump(mode="json", include={*shown, "why", "notes", "decided_by", "decided_at"})


def event_document(event: DecisionEvent) -> dict[str, Any]:
    """Give the JSON form of an event."""
    return event.model_dump(mode="json")


def _pin(one: Deployment) -> str:
    return "pinned" if one.pinned else ""


def _gain(decision: Decision) -> str:
    rate = "" if decision.samples_per_s is None else format_rate(decision.samples_per_s)
    if decision.ratio is None:
        return rate
    ratio = decision.ratio
    return f"{rate}, {ratio.mean:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
