"""What is deployed, and the events that led there: the rules by which a decision becomes the deployment."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, or_, select, update
from sqlalchemy.orm import aliased

from autotune.registry.rows import Candidate, group_digest, microseconds, time_of
from autotune.registry.tables import DecisionEventRow, DecisionRow, DeploymentRow
from autotune.registry.writes import insert_into, insert_once
from autotune.spec import Action, Decision, DecisionEvent, LoaderConfig
from autotune.spec.study import Promotion

AUTOMATIC_ACTOR = "autotune"
"""Who decided where no person did."""

_WAITING_ENDS = ("deployed", "waiting", "approved", "rejected")
"""Actions that end the waiting of any decision of their group."""
_PERSONAL = ("approved", "rejected", "rolled_back")
"""Actions by which persons say whether a configuration is good enough to be served; nights roll back as well."""


def settle(connection: Connection, decision: Decision, promotion: Promotion) -> None:
    """Deploy a new decision, or have it wait for a person; one that is older than the newest changes nothing.

    What keeps the configuration that is served is deployed always: only the evidence is newer.
    """
    row = _row_for(connection, decision)
    decided_us = microseconds(decision.decided_at)
    if decided_us < row.decided_us:
        return
    why = _why_waiting(connection, row, decision, promotion)
    after = row.decision_key if why else decision.key
    _change(connection, row, decision_key=after, decided_us=decided_us)
    add_event(
        connection, row, decision_key=decision.key, action="waiting" if why else "deployed", actor=decision.decided_by,
        reason=why or decision.why, after=after, at=decision.decided_at,
    )  # fmt: skip


def locked(connection: Connection, group: str) -> Row[Any] | None:
    """Give the deployment of a group and keep it from changing until the transaction ends."""
    statement = select(DeploymentRow.__table__).where(DeploymentRow.group_digest == group).with_for_update()
    return connection.execute(statement).first()


def change(
    connection: Connection,
    row: Row[Any],
    *,
    event: tuple[str, Action],
    actor: str,
    reason: str,
    after: str | None,
    pinned: bool,
) -> int:
    """Change a deployment and say so.

    Args:
        connection: In a transaction that has locked the row.
        row: The deployment.
        event: Key of the decision that it is about, and the action.
        actor: Who does it.
        reason: Why.
        after: Key of the decision that is deployed from then on.
        pinned: Whether it is pinned from then on.

    Returns:
        The number of the event.
    """
    _change(connection, row, decision_key=after, pinned=pinned)
    decision_key, action = event
    return add_event(
        connection, row, decision_key=decision_key, action=action, actor=actor, reason=reason, after=after,
        at=datetime.now(UTC),
    )  # fmt: skip


def add_event(
    connection: Connection,
    row: Row[Any],
    *,
    decision_key: str,
    action: Action,
    actor: str,
    reason: str,
    after: str | None,
    at: datetime,
) -> int:
    """Add an event to a group's history and give its number."""
    columns = {
        "group_digest": row.group_digest,
        "study": row.study,
        "decision_key": decision_key,
        "action": action,
        "actor": actor,
        "reason": reason.replace("\0", ""),
        "at_us": microseconds(at),
        "before_key": row.decision_key,
        "after_key": after,
    }
    return int(
        connection.execute(
            insert_into(connection, DecisionEventRow).returning(DecisionEventRow.id), columns
        ).scalar_one()
    )


def waiting_events() -> Select[Any]:
    """Select the events by which decisions wait for a person still: of each group at most its newest.

    What is taken back, and what is pinned, is about what is deployed, and leaves waiting what waits.
    """
    waited, later = DecisionEventRow, aliased(DecisionEventRow)
    about_it = or_(later.decision_key == waited.decision_key, later.after_key == waited.decision_key)
    ended = or_(later.action.in_(_WAITING_ENDS), and_(later.action == "rolled_back", about_it))
    after = select(later.id).where(later.group_digest == waited.group_digest, later.id > waited.id, ended)
    return event_rows().where(waited.action == "waiting", ~after.exists())


def event_rows() -> Select[Any]:
    """Select whole events."""
    return select(DecisionEventRow.__table__)


def as_event(row: Row[Any]) -> DecisionEvent:
    """Give the value of a row."""
    return DecisionEvent(
        number=row.id,
        group=row.group_digest,
        study=row.study,
        decision_key=row.decision_key,
        action=row.action,
        actor=row.actor,
        reason=row.reason,
        at=time_of(row.at_us),
        before_key=row.before_key,
        after_key=row.after_key,
    )


def deployed_before(connection: Connection, row: Row[Any]) -> str | None:
    """Give the decision with another configuration that was deployed last; None where there was none.

    Newer evidence for the same configuration is passed over, and so is what was taken back since.
    """
    passed_over = [config_of(connection, row.decision_key)]
    for event in _history(connection, row.group_digest):
        if event.action == "rolled_back":
            passed_over.append(config_of(connection, event.decision_key))
        key = event.before_key
        if key is not None and config_of(connection, key) not in passed_over:
            return str(key)
    return None


def config_of(connection: Connection, key: str | None) -> LoaderConfig | None:
    """Give the configuration of a decision."""
    body = None if key is None else connection.execute(select(DecisionRow.body).where(DecisionRow.key == key)).scalar()
    return None if body is None else Decision.from_json(body).config


def _history(connection: Connection, group: str, actions: Collection[str] | None = None) -> Sequence[Row[Any]]:
    """Give the events of a group, newest first: those of some actions, or all."""
    statement = event_rows().where(DecisionEventRow.group_digest == group).order_by(DecisionEventRow.id.desc())
    if actions is not None:
        statement = statement.where(DecisionEventRow.action.in_(actions))
    return connection.execute(statement).all()


def _row_for(connection: Connection, decision: Decision) -> Row[Any]:
    """Give the locked deployment of a decision's group, made where there is none yet."""
    candidate = Candidate.of(decision)
    group = group_digest(candidate)
    columns = {
        "group_digest": group,
        "type_name": candidate.type_name,
        "machine_class": candidate.machine_class,
        "study": candidate.study,
        "decided_us": candidate.decided_us,
        "decision_key": None,
        "pinned": False,
        "version": 0,
    }
    insert_once(connection, DeploymentRow, columns)
    row = locked(connection, group)
    assert row is not None  # noqa: S101  (it was made a moment ago, and rows are never removed)
    return row


def _why_waiting(connection: Connection, row: Row[Any], decision: Decision, promotion: Promotion) -> str:
    """Say why a decision has to wait for a person; empty where it does not."""
    served = config_of(connection, row.decision_key) or decision.default
    if decision.config == served:
        return ""
    if row.pinned:
        return "what is deployed is pinned"
    if refusal := _refusal(connection, row.group_digest, decision.config):
        return refusal
    return "the study's promotion is review" if promotion == "review" else ""


def _refusal(connection: Connection, group: str, config: LoaderConfig) -> str:
    """Say which person said no to a configuration last; empty where nobody did, or somebody went back to it since."""
    for event in _history(connection, group, _PERSONAL):
        if event.action != "rejected" and config_of(connection, event.after_key) == config:
            return ""
        refused = event.action != "approved" and event.actor != AUTOMATIC_ACTOR
        if refused and config_of(connection, event.decision_key) == config:
            what = "taken it back" if event.action == "rolled_back" else "rejected it"
            return f"{event.actor} has {what} on {time_of(event.at_us):%Y-%m-%d} ({event.reason})"
    return ""


def _change(connection: Connection, row: Row[Any], **changes: Any) -> None:
    statement = update(DeploymentRow).where(DeploymentRow.group_digest == row.group_digest)
    connection.execute(statement.values(version=DeploymentRow.version + 1, **changes))
