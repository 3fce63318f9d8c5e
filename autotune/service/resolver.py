"""`/v1/best` and friends: what `best_loader` asks, answered from the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import Field

from autotune.errors import SpecError
from autotune.registry import Registry
from autotune.resolve.lookup import answer
from autotune.resolve.question import Question
from autotune.service.authentication import requires
from autotune.service.documents import Decisions, LimitQuery, Received, ResolutionDocument, Studies, StudyName
from autotune.service.problems import Responses, documented, not_found
from autotune.service.settings import QUESTION_LIMIT
from autotune.service.state import Service, service_of
from autotune.spec import MachineFacts

router = APIRouter(prefix="/v1", tags=["resolver"], dependencies=[Depends(requires("read"))])

_NOT_MODIFIED: Responses = {304: {"description": "The client has this answer: its ETag was in If-None-Match."}}
_ANSWER: Responses = {200: {"model": ResolutionDocument, "headers": {"ETag": {"schema": {"type": "string"}}}}}

_Answered = tuple[str | None, str]
"""The class of dataset that an answer is about, None where it may be any, and its text."""


class BestQuery(Received):
    """What is asked.

    Attributes:
        question: The question: dataset, machine, pins and the like, as JSON.
    """

    question: str = Field(min_length=2, max_length=QUESTION_LIMIT)


class MachineQuery(Received):
    """Where a study's dataset is to be loaded.

    Attributes:
        machine: Facts of a machine, as JSON; left out, it is the machine of the study's newest decision.
    """

    machine: str | None = Field(default=None, min_length=2, max_length=QUESTION_LIMIT)


@router.get("/best", responses={**documented(), **_ANSWER, **_NOT_MODIFIED})
async def best(
    request: Request,
    query: Annotated[BestQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give the configuration that a dataset is loaded with on a machine, how well founded it is, and why."""
    service = service_of(request)

    def work() -> _Answered:
        question = Question.received(query.question)
        # where nothing answers for a study, the reason may be of another class of dataset
        topic = question.dataset.type_name if question.study is None else None
        return topic, _answered(service.registry, question)

    return await _reply(service, query.question, work, if_none_match)


@router.get("/studies", responses=documented())
async def studies(request: Request, _query: Annotated[Received, Query()]) -> Studies:
    """Give the names of all studies that have records or decisions."""
    service = service_of(request)
    return Studies(studies=await service.read(service.registry.studies))


@router.get("/studies/{study}/best", responses={**documented(404), **_ANSWER, **_NOT_MODIFIED})
async def best_of_study(
    request: Request,
    study: StudyName,
    query: Annotated[MachineQuery, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Give the configuration that a study's dataset is loaded with on a machine."""
    service = service_of(request)

    def work() -> _Answered:
        machine = None if query.machine is None else MachineFacts.from_json(query.machine)
        return None, _answered(service.registry, _question_of(service.registry, study, machine))

    return await _reply(service, f"{study} {query.machine}", work, if_none_match)


@router.get("/studies/{study}/decisions", responses=documented(404))
async def decisions(request: Request, study: StudyName, query: Annotated[LimitQuery, Query()]) -> Decisions:
    """Give what a study came to, the newest decision first."""
    service = service_of(request)
    found = await service.read(lambda: service.registry.decisions(study, limit=query.limit))
    if not found:
        raise not_found(f"study {study!r} has no decision")
    return Decisions(decisions=found)


async def _reply(service: Service, asked: str, work: Callable[[], _Answered], if_none_match: str | None) -> Response:
    await service.watch.current()
    found = await service.answers.get(asked, lambda: service.read(work))
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if found.answers(if_none_match):
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers=headers)


def _question_of(registry: Registry, study: str, machine: MachineFacts | None) -> Question:
    """Ask for the dataset that a study last decided on, where it did so for this class of machine."""
    found = registry.candidates_of_study(study)
    here = [one for one in found if machine is not None and one.machine_class == machine.machine_class]
    decision = registry.decision((here or found)[0].key) if found else None
    if decision is None:
        raise not_found(f"study {study!r} has no decision")
    question = Question(dataset=decision.dataset, machine=machine or decision.machine, study=study)
    return Question.received(question.to_json())


def _answered(registry: Registry, question: Question) -> str:
    try:
        return answer(registry, question).to_json()
    except (OverflowError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"the question holds numbers that no dataset or machine has: {error}") from error
