"""Answers that are kept: whether they count, how many are worked out, and when a client has one already."""

import asyncio

import pytest

from autotune.errors import RegistryError
from autotune.service.answers import Answers
from autotune.service.settings import ANSWER_AGE_S, ANSWERS_LIMIT


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Events:
    """Numbers of the newest events of topics."""

    def __init__(self):
        self.newest, self.of = 1, {}

    def __call__(self, topic):
        return self.newest if topic is None else self.of.get(topic, 0)

    def happen(self, topic):
        self.newest += 1
        self.of[topic] = self.newest


def _work(text, counted, topic=None):
    async def work():
        counted.append(text)
        await asyncio.sleep(0)
        return topic, text

    return work


def test_answer_is_worked_out_once_while_nothing_changes():
    async def story():
        clock, counted, events = Clock(), [], Events()
        answers = Answers(events, clock=clock)
        first = await answers.get("q", _work("a", counted))
        again = await answers.get("q", _work("b", counted))
        assert (first, counted, answers.hits, answers.misses) == (again, ["a"], 1, 1)
        events.happen("anything")
        changed = await answers.get("q", _work("b", counted))
        assert changed.body == b"b"
        assert changed.etag != first.etag
        clock.now = ANSWER_AGE_S + 1
        assert (await answers.get("q", _work("c", counted))).body == b"c"
        assert (await answers.get("other", _work("d", counted))).body == b"d"
        assert counted == ["a", "b", "c", "d"]

    asyncio.run(story())


def test_answer_holds_while_other_datasets_change():
    async def story():
        counted, events = [], Events()
        answers = Answers(events)
        await answers.get("q", _work("a", counted, topic="pack.Data"))
        events.happen("pack.Other")
        await answers.get("q", _work("b", counted, topic="pack.Data"))
        assert counted == ["a"]
        events.happen("pack.Data")
        await answers.get("q", _work("c", counted, topic="pack.Data"))
        assert counted == ["a", "c"]

    asyncio.run(story())


def test_no_answer_holds_in_a_registry_that_was_set_back():
    async def story():
        counted, events = [], Events()
        answers = Answers(events)
        events.happen("pack.Data")
        await answers.get("q", _work("a", counted, topic="pack.Data"))
        events.newest, events.of = 1, {}
        await answers.get("q", _work("b", counted, topic="pack.Data"))
        assert counted == ["a", "b"]

    asyncio.run(story())


def test_answer_is_worked_out_once_for_clients_that_ask_at_once_even_if_the_first_one_leaves():
    async def story():
        counted = []
        answers = Answers(Events())
        asking = [asyncio.create_task(answers.get("q", _work("a", counted))) for _ in range(5)]
        await asyncio.sleep(0)
        asking[0].cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert {one.body for one in found[1:]} == {b"a"}
        assert counted == ["a"]

    asyncio.run(story())


def test_failure_is_told_to_everybody_and_not_kept():
    async def fails():
        raise RegistryError("away")

    async def story():
        answers = Answers(Events())
        found = await asyncio.gather(*(answers.get("q", fails) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [RegistryError] * 3
        assert (await answers.get("q", _work("a", []))).body == b"a"

    asyncio.run(story())


def test_oldest_answers_go_first_when_there_are_too_many():
    async def story():
        counted = []
        answers = Answers(Events())
        for number in range(ANSWERS_LIMIT):
            await answers.get(str(number), _work(str(number), []))
        await answers.get("0", _work("used", counted))
        await answers.get("one more", _work("x", []))
        await answers.get("0", _work("0", counted))
        assert counted == []
        await answers.get("1", _work("1", counted))
        assert counted == ["1"]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("header", "has_it"),
    [(None, False), ("", False), ('"other"', False), ("TAG", True), ("W/TAG", True), ('"x", TAG', True), ("*", True)],
)
def test_client_has_an_answer_when_it_names_the_tag(header, has_it):
    async def story():
        answer = await Answers(Events()).get("q", _work("a", []))
        assert answer.answers(None if header is None else header.replace("TAG", answer.etag)) is has_it

    asyncio.run(story())
