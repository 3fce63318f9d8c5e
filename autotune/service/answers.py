"""Answers that are kept while nothing changes what they rest on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from autotune.service.settings import ANSWER_AGE_S, ANSWERS_LIMIT

Work = Callable[[], Awaitable[tuple[str | None, str]]]
"""Works an answer out: the class of dataset that it is about, None where it may be any, and its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A document as it goes out.

    Attributes:
        body: JSON text.
        etag: Strong entity tag: equal exactly when the bodies are.
        topic: Class of the dataset that it is about; None may be any.
        version: Number of the newest event when it was made: it holds until there is a newer one of the topic.
        made_at: Monotonic time in seconds.
    """

    body: bytes
    etag: str
    topic: str | None
    version: int
    made_at: float

    def answers(self, if_none_match: str | None) -> bool:
        """Say whether a client that has these tags has this document already."""
        if if_none_match is None:
            return False
        given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return self.etag in given or "*" in given


class Answers:
    """Keeps answers by question; those to one question that come at once are worked out once.

    Args:
        changed_at: Gives the number of the newest event of a topic.
        clock: Monotonic clock, in seconds.
    """

    def __init__(self, changed_at: Callable[[str | None], int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed_at = changed_at
        self._clock = clock
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._under_way: dict[tuple[str, int], asyncio.Task[Answer]] = {}
        self.hits = 0
        self.misses = 0

    async def get(self, question: str, work: Work) -> Answer:
        """Give the answer to a question.

        Args:
            question: The question's text.
            work: Works the answer out.
        """
        kept, version = self._kept.get(question), self._changed_at(None)
        if kept is not None and self._holds(kept):
            self.hits += 1
            self._kept.move_to_end(question)
            return kept
        self.misses += 1
        task = self._under_way.get((question, version))
        if task is None:  # a task of its own: the client that asked first may leave before the others have an answer
            task = asyncio.create_task(self._made(question, version, work))
            self._under_way[question, version] = task
            task.add_done_callback(lambda done: self._end(question, version, done))
        return await asyncio.shield(task)

    def _holds(self, kept: Answer) -> bool:
        """Say whether nothing happened to what an answer is about; a registry that was set back voids all."""
        young = self._clock() - kept.made_at <= ANSWER_AGE_S
        return young and self._changed_at(kept.topic) <= kept.version <= self._changed_at(None)

    def _end(self, question: str, version: int, done: asyncio.Task[Answer]) -> None:
        del self._under_way[question, version]
        if not done.cancelled():
            done.exception()  # taken note of here too: where every client has left, nobody else does

    async def _made(self, question: str, version: int, work: Work) -> Answer:
        started = self._clock()
        topic, text = await work()
        body = text.encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        answer = Answer(body=body, etag=tag, topic=topic, version=version, made_at=started)
        self._kept[question] = answer
        self._kept.move_to_end(question)
        while len(self._kept) > ANSWERS_LIMIT:
            self._kept.popitem(last=False)
        return answer
