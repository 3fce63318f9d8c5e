"""What is deployed, and what became of each decision: deployed, waiting, approved, rejected, pinned, rolled back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from autotune.spec.base import Value
from autotune.spec.record import Decision

Action = Literal["deployed", "waiting", "approved", "rejected", "pinned", "unpinned", "rolled_back"]
"""`deployed` is by the rules alone, `approved` by a person; `rolled_back` names the decision that was taken back."""


class DecisionEvent(Value):
    """One thing that became of a decision; events are only ever added.

    Attributes:
        number: Grows from event to event.
        group: Digest of the group of questions that the decision answers.
        study: Name of the study.
        decision_key: The decision.
        action: What became of it.
        actor: A person's name, or `autotune`.
        reason: Why; empty where none was needed.
        at: Time in UTC.
        before_key: What was deployed before; None where nothing was.
        after_key: What is deployed from then on; None is nothing, so that the safe default is served.
    """

    number: int
    group: str
    study: str
    decision_key: str
    action: Action
    actor: str = Field(min_length=1)
    reason: str = ""
    at: datetime
    before_key: str | None = None
    after_key: str | None = None


class Deployment(Value):
    """What the resolver serves to one group of questions.

    Attributes:
        group: Digest of study, dataset, machine class, consumer, loader class and major versions.
        study: Name of the study.
        type_name: Class of the dataset.
        machine_class: Class of the machine.
        decision: What is deployed; None where all that there is waits for its review.
        pinned: Whether it stays whatever later studies find.
        version: Grows with each change; whoever changes it says which one was seen.
    """

    group: str
    study: str
    type_name: str
    machine_class: str
    decision: Decision | None
    pinned: bool = False
    version: int = Field(ge=1)


class WaitingDecision(Value):
    """A decision that a person has to approve or reject.

    Attributes:
        decision: The decision.
        deployment: What is served meanwhile.
        since: Time in UTC.
        reason: Why it waits.
    """

    decision: Decision
    deployment: Deployment
    since: datetime
    reason: str
