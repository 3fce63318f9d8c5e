"""The documents that go in and out, apart from values of `spec`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from autotune.resolve.resolution import Resolution
from autotune.spec import Decision, DecisionEvent, Deployment, QueuedStudy, WaitingDecision
from autotune.spec.base import SCHEMA_VERSION

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
TEXT_PATTERN = r"^[^\x00]*$"
"""PostgreSQL keeps no NUL."""
_SHOWN = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
"""Anything but control characters, which a terminal that shows a reason would obey; lines and tabs may be."""
ANY_REASON_PATTERN = rf"^{_SHOWN}*$"
REASON_PATTERN = rf"^{_SHOWN}*[^\x00-\x20\x7f-\xa0\s]{_SHOWN}*$"
"""A reason is more than white space."""
VERSION_MAX = 2**31 - 1

StudyName = Annotated[str, Path(min_length=1, max_length=100, pattern=NAME_PATTERN, description="Name of a study.")]
Key = Annotated[str, Path(min_length=1, max_length=64, pattern=KEY_PATTERN, description="Key of a decision or entry.")]


class Received(BaseModel):
    """What a client sends: nothing unknown is in it."""

    model_config = ConfigDict(extra="forbid")


class Document(BaseModel):
    """What goes out, with the version of its form."""

    schema_version: Literal[1] = 1


class ResolutionDocument(Resolution, Document):
    """A configuration, how well it is founded, and why."""


class QueuedStudyDocument(QueuedStudy, Document):
    """A study that somebody asked for."""


class Studies(Document):
    """Names of studies.

    Attributes:
        studies: All that have records or decisions, sorted.
    """

    studies: list[str]


class Decisions(Document):
    """What a study came to, again and again.

    Attributes:
        decisions: The newest first.
    """

    decisions: list[Decision]


class Queue(Document):
    """Studies that somebody asked for.

    Attributes:
        queue: In the order in which they were asked for.
    """

    queue: list[QueuedStudy]


class Deployments(Document):
    """What is deployed.

    Attributes:
        deployments: By study and class of machine.
    """

    deployments: list[Deployment]


class Waiting(Document):
    """What waits for a person.

    Attributes:
        waiting: The longest first.
    """

    waiting: list[WaitingDecision]


class Events(Document):
    """What became of decisions.

    Attributes:
        events: The newest first.
    """

    events: list[DecisionEvent]


class EventDocument(DecisionEvent, Document):
    """What became of a decision."""


class DecisionDocument(Document):
    """A decision and what became of it.

    Attributes:
        decision: The decision, with its evidence.
        deployment: What is deployed to those who ask the same question.
        events: What became of the decision, newest first.
    """

    decision: Decision
    deployment: Deployment
    events: list[DecisionEvent]


class LimitQuery(Received):
    """How much is wanted.

    Attributes:
        limit: Most entries.
    """

    limit: int = Field(default=20, ge=1, le=100)


class Review(Received):
    """What a person decides.

    Attributes:
        expected_version: Version of the deployment that the person saw; another one is a conflict.
        reason: Why, for those who ask later.
    """

    expected_version: int = Field(ge=1, le=VERSION_MAX)
    reason: str = Field(default="", max_length=2000, pattern=ANY_REASON_PATTERN)


class ReasonedReview(Review):
    """What a person decides, and has to say why.

    Attributes:
        reason: Why, for those who ask later.
    """

    reason: str = Field(min_length=1, max_length=2000, pattern=REASON_PATTERN)


class Rollback(ReasonedReview):
    """What is taken back, and for what.

    Attributes:
        to: Key of an earlier decision, or `default`; left out, it is the last one with another configuration.
    """

    to: str | None = Field(default=None, min_length=1, max_length=64, pattern=KEY_PATTERN)


class StudyRequest(Received):
    """A study that is asked for.

    Attributes:
        study: Name of a study file, without its ending, in the folder that the service was given.
    """

    study: str = Field(min_length=1, max_length=100, pattern=NAME_PATTERN)


def outgoing(value: BaseModel) -> dict[str, Any]:
    """Give a value as it goes out."""
    return {"schema_version": SCHEMA_VERSION, **value.model_dump(mode="json")}
