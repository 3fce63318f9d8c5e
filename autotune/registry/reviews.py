"""Reviews: what is deployed and why, what waits for a person, and what persons decide about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, case, select

from autotune.errors import ConflictError, SpecError
from autotune.registry import deployment_rows as rows
from autotune.registry.rows import Candidate, group_digest
from autotune.registry.tables import DecisionEventRow, DecisionRow, DeploymentRow
from autotune.registry.transactions import Transactions
from autotune.spec import Action, Decision, DecisionEvent, Deployment, WaitingDecision

SAFE_DEFAULT = "default"
"""What is rolled back to where nothing is to be deployed, so that PyTorch's default is served."""

DEPLOYED_LIMIT = 64
"""Decisions of other studies that are looked at for what to try first: of more, the oldest say least."""

_Work = Callable[[Connection, Row[Any]], int]


class Reviews(Transactions):
    """The part of the registry that people look at and decide in.

    Whoever changes a deployment says which version of it was seen. Where it has changed since, or where somebody
    else has decided already, nothing happens and `ConflictError` says who did what, and when.
    """

    def deployments(self, study: str | None = None) -> list[Deployment]:
        """Give what is deployed to each group: of one study or of all, by study and machine class."""
        statement = _deployments()
        if study is not None:
            statement = statement.where(DeploymentRow.study == study)
        found = self._read(lambda connection: connection.execute(statement).all())
        return [self._deployment(row) for row in found]

    def deployment_of(self, key: str) -> Deployment:
        """Give the deployment of the group that a decision answers for, whether it is deployed there or not.

        Raises:
            SpecError: There is no such decision.
        """

        def work(connection: Connection) -> Row[Any]:
            return connection.execute(_deployments().where(DeploymentRow.group_digest == _group(connection, key))).one()

        return self._deployment(self._read(work))

    def deployed_decisions(self, study: str | None = None) -> list[Decision]:
        """Give the decisions that are deployed, newest first: of one study or of all."""
        statement = (
            select(DecisionRow.body)
            .join(DeploymentRow, DeploymentRow.decision_key == DecisionRow.key)
            .order_by(DecisionRow.decided_us.desc(), DecisionRow.key)
        )
        if study is not None:
            statement = statement.where(DeploymentRow.study == study)
        return self._all(statement, Decision)

    def deployed_anywhere(self, type_name: str, *, limit: int = DEPLOYED_LIMIT) -> list[Decision]:
        """Give what is deployed by any study to any class of machine: first that for a class of dataset, then the rest.

        Args:
            type_name: Class of the dataset whose decisions come first; within it, and after it, the newest.
            limit: Most results.
        """
        same_type = case((DecisionRow.type_name == type_name, 0), else_=1)
        statement = (
            select(DecisionRow.body)
            .join(DeploymentRow, DeploymentRow.decision_key == DecisionRow.key)
            .order_by(same_type, DecisionRow.decided_us.desc(), DecisionRow.key)
            .limit(limit)
        )
        return self._all(statement, Decision)

    def deployed_before(self, key: str) -> Decision | None:
        """Give the decision that rolling a deployed one back would deploy; None where it would be none.

        Raises:
            SpecError: There is no such decision.
        """

        def work(connection: Connection) -> str | None:
            group = _group(connection, key)
            row = connection.execute(select(DeploymentRow.__table__).where(DeploymentRow.group_digest == group)).one()
            before = rows.deployed_before(connection, row)
            statement = select(DecisionRow.body).where(DecisionRow.key == before)
            return None if before is None else connection.execute(statement).scalar_one()

        body = self._read(work)
        return None if body is None else self._parse(Decision, body)

    def undeployed(self, type_name: str) -> list[str]:
        """Give the studies of a class of dataset that deploy nothing, as all waits or was rolled back, sorted."""
        statement = select(DeploymentRow.study).where(
            DeploymentRow.type_name == type_name, DeploymentRow.decision_key.is_(None)
        )
        return sorted(set(self._read(lambda connection: connection.execute(statement).scalars().all())))

    def waiting(self, study: str | None = None) -> list[WaitingDecision]:
        """Give the decisions that wait for a person, longest first: of each group at most its newest one."""
        statement = (
            rows.waiting_events()
            .add_columns(DecisionRow.body)
            .join(DecisionRow, DecisionRow.key == DecisionEventRow.decision_key)
            .order_by(DecisionEventRow.id)
        )
        if study is not None:
            statement = statement.where(DecisionEventRow.study == study)
        found = self._read(lambda connection: connection.execute(statement).all())
        deployments = {deployment.group: deployment for deployment in self.deployments(study)} if found else {}
        return [
            WaitingDecision(
                decision=self._parse(Decision, row.body),
                deployment=deployments[row.group_digest],
                since=rows.as_event(row).at,
                reason=row.reason,
            )
            for row in found
            if row.group_digest in deployments
        ]

    def events(
        self, study: str | None = None, *, decision: str | None = None, limit: int | None = None
    ) -> list[DecisionEvent]:
        """Give what became of decisions, newest first: of a study, of one decision, or of all."""
        statement = rows.event_rows().order_by(DecisionEventRow.id.desc()).limit(limit)
        if study is not None:
            statement = statement.where(DecisionEventRow.study == study)
        if decision is not None:
            statement = statement.where(DecisionEventRow.decision_key == decision)
        found = self._read(lambda connection: connection.execute(statement).all())
        return [rows.as_event(row) for row in found]

    def approve(self, key: str, *, actor: str, reason: str = "", expected_version: int) -> DecisionEvent:
        """Deploy a decision that waits.

        Raises:
            ConflictError: It does not wait any more, the deployment has changed, or is pinned.
            SpecError: There is no such decision.
        """

        def work(connection: Connection, row: Row[Any]) -> int:
            _check_waiting(connection, row, key)
            _check_not_pinned(connection, row)
            return rows.change(
                connection, row, event=(key, "approved"), actor=actor, reason=reason, after=key, pinned=False
            )

        return self._decide(key, work, actor=actor, expected_version=expected_version)

    def reject(self, key: str, *, actor: str, reason: str, expected_version: int) -> DecisionEvent:
        """Have what is deployed stay, rather than a decision that waits.

        Raises:
            ConflictError: It does not wait any more, or the deployment has changed.
            SpecError: There is no such decision, or no reason was given.
        """
        _check_reason("rejecting", reason)

        def work(connection: Connection, row: Row[Any]) -> int:
            _check_waiting(connection, row, key)
            return rows.change(
                connection, row, event=(key, "rejected"), actor=actor, reason=reason, after=row.decision_key,
                pinned=row.pinned,
            )  # fmt: skip

        return self._decide(key, work, actor=actor, expected_version=expected_version)

    def pin(self, key: str, *, actor: str, reason: str, expected_version: int) -> DecisionEvent:
        """Have what is deployed stay, whatever later studies find: they wait for a person.

        Where nothing is deployed, any decision that does not wait stands for the safe default, which is pinned then.

        Raises:
            ConflictError: It is not deployed, is pinned already, or the deployment has changed.
            SpecError: There is no such decision, or no reason was given.
        """
        _check_reason("pinning", reason)
        return self._set_pin(key, pinned=True, actor=actor, reason=reason, expected_version=expected_version)

    def unpin(self, key: str, *, actor: str, reason: str = "", expected_version: int) -> DecisionEvent:
        """Let later studies change what is deployed again.

        Raises:
            ConflictError: It is not deployed, is not pinned, or the deployment has changed.
            SpecError: There is no such decision.
        """
        return self._set_pin(key, pinned=False, actor=actor, reason=reason, expected_version=expected_version)

    def roll_back(
        self, key: str, *, to: str | None = None, actor: str, reason: str, expected_version: int
    ) -> DecisionEvent:
        """Take the deployed decision back.

        Args:
            key: The decision that is deployed.
            to: Key of the decision that is deployed from then on, one of the same group; `SAFE_DEFAULT` deploys
                none; None is the last one with another configuration, else none.
            actor: Who does it.
            reason: Why.
            expected_version: Version of the deployment that was seen.

        Raises:
            ConflictError: It is not deployed, is pinned, or the deployment has changed.
            SpecError: There is no such decision, no reason was given, or `to` answers other questions.
        """
        _check_reason("rolling back", reason)

        def work(connection: Connection, row: Row[Any]) -> int:
            _check_deployed(connection, row, key)
            _check_not_pinned(connection, row)
            after = _target(connection, row, to)
            return rows.change(
                connection, row, event=(key, "rolled_back"), actor=actor, reason=reason, after=after, pinned=False
            )

        return self._decide(key, work, actor=actor, expected_version=expected_version)

    def _set_pin(self, key: str, *, pinned: bool, actor: str, reason: str, expected_version: int) -> DecisionEvent:
        action: Action = "pinned" if pinned else "unpinned"

        def work(connection: Connection, row: Row[Any]) -> int:
            if row.decision_key is not None or _waits(connection, row, key):
                _check_deployed(connection, row, key)
            if row.pinned == pinned:
                raise ConflictError(f"decision {key} of study {row.study!r} is {action} already; nothing was changed")
            return rows.change(
                connection, row, event=(key, action), actor=actor, reason=reason, after=row.decision_key, pinned=pinned
            )

        return self._decide(key, work, actor=actor, expected_version=expected_version)

    def _decide(self, key: str, work: _Work, *, actor: str, expected_version: int) -> DecisionEvent:
        if not actor.strip():
            raise SpecError("a decision needs to know who takes it, got no name; give one")
        written: list[Row[Any]] = []

        def transaction(connection: Connection) -> Row[Any]:
            row = rows.locked(connection, _group(connection, key))
            if written and written[-1] in _events_of(connection, written[-1].id):
                return written[-1]  # it is a repetition, as the reply to its commit was lost
            if row is None or row.version != expected_version:
                raise _conflict(connection, key, row)
            written.extend(_events_of(connection, work(connection, row)))
            return written[-1]

        return rows.as_event(self._write(transaction))

    def _deployment(self, row: Row[Any]) -> Deployment:
        return Deployment(
            group=row.group_digest,
            study=row.study,
            type_name=row.type_name,
            machine_class=row.machine_class,
            decision=None if row.body is None else self._parse(Decision, row.body),
            pinned=row.pinned,
            version=row.version,
        )


def _deployments() -> Select[Any]:
    return (
        select(DeploymentRow.__table__, DecisionRow.body)
        .join(DecisionRow, DecisionRow.key == DeploymentRow.decision_key, isouter=True)
        .order_by(DeploymentRow.study, DeploymentRow.machine_class, DeploymentRow.group_digest)
    )


def _group(connection: Connection, key: str) -> str:
    body = connection.execute(select(DecisionRow.body).where(DecisionRow.key == key)).scalar()
    if body is None:
        raise SpecError(f"there is no decision {key!r}; autotune review list shows which there are")
    return group_digest(Candidate.of(Decision.from_json(body)))


def _events_of(connection: Connection, number: int) -> Sequence[Row[Any]]:
    return connection.execute(rows.event_rows().where(DecisionEventRow.id == number)).all()


def _target(connection: Connection, row: Row[Any], to: str | None) -> str | None:
    if to is None:
        return rows.deployed_before(connection, row)
    if to == SAFE_DEFAULT:
        return None
    if _group(connection, to) != row.group_digest:
        raise SpecError(
            f"a deployment is rolled back to a decision about the same study, dataset, machine class and versions, "
            f"got {to} of another; leave it out for the one before"
        )
    if to == row.decision_key:
        raise SpecError(f"a deployment is rolled back to another decision, got {to}, which is deployed; nothing to do")
    return to


def _check_reason(doing: str, reason: str) -> None:
    if not reason.strip():
        raise SpecError(f"{doing} needs a reason that others can read later, got none; give one")


def _check_waiting(connection: Connection, row: Row[Any], key: str) -> None:
    if not _waits(connection, row, key):
        raise _conflict(connection, key, row)


def _waits(connection: Connection, row: Row[Any], key: str) -> bool:
    statement = rows.waiting_events().where(
        DecisionEventRow.group_digest == row.group_digest, DecisionEventRow.decision_key == key
    )
    return connection.execute(statement).first() is not None


def _check_deployed(connection: Connection, row: Row[Any], key: str) -> None:
    if row.decision_key != key:
        raise _conflict(connection, key, row)


def _check_not_pinned(connection: Connection, row: Row[Any]) -> None:
    if row.pinned:
        statement = rows.event_rows().where(
            DecisionEventRow.group_digest == row.group_digest, DecisionEventRow.action == "pinned"
        )
        last = connection.execute(statement.order_by(DecisionEventRow.id.desc()).limit(1)).first()
        told = "" if last is None else f" by {last.actor} ({last.reason})"
        raise ConflictError(f"what study {row.study!r} deploys is pinned{told}; unpin it first")


def _conflict(connection: Connection, key: str, row: Row[Any] | None) -> ConflictError:
    """Say who decided what meanwhile, and when."""
    statement = rows.event_rows().order_by(DecisionEventRow.id.desc()).limit(1)
    group = "" if row is None else row.group_digest
    last = connection.execute(statement.where(DecisionEventRow.group_digest == group)).first()
    if last is None:
        return ConflictError(f"decision {key} was never deployed, nor has it waited; nothing was changed")
    event = rows.as_event(last)
    why = f" ({event.reason})" if event.reason else ""
    return ConflictError(
        f"decision {key} of study {event.study!r} is not as it was seen: {event.actor} has "
        f"{_DONE[event.action]} {event.decision_key} at {event.at:%Y-%m-%d %H:%M:%S} UTC{why}; "
        "nothing was changed, look at it again"
    )


_DONE: dict[Action, str] = {
    "deployed": "deployed",
    "waiting": "come to the newer decision",
    "approved": "approved",
    "rejected": "rejected",
    "pinned": "pinned",
    "unpinned": "unpinned",
    "rolled_back": "rolled back",
}
