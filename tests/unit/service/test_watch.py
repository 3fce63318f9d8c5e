"""Looking at the registry: at most twice a second, together, and going by the last look for a minute."""

import asyncio

import pytest

from autotune.errors import RegistryError
from autotune.registry import Changes
from autotune.service.settings import HONOURED_S, PAUSE_S, REFRESH_S
from autotune.service.watch import Watch


class World:
    """A registry that can be away, and a clock."""

    def __init__(self):
        self.now = 1000.0
        self.away = False
        self.looks = 0

    def clock(self):
        return self.now

    async def look(self, since):
        self.looks += 1
        await asyncio.sleep(0)
        if self.away:
            raise RegistryError("away")
        assert since < self.looks
        return Changes(newest_event=self.looks, changed={f"pack.Data{self.looks}": self.looks}, tokens={})


def _story(story):
    world = World()
    asyncio.run(story(world, Watch(world.look, clock=world.clock)))


def test_registry_is_looked_at_once_by_requests_that_come_together():
    async def story(world, watch):
        found = await asyncio.gather(*(watch.current() for _ in range(10)))
        assert {one.newest_event for one in found} == {1}
        world.now += REFRESH_S / 2
        assert (await watch.current()).newest_event == 1
        world.now += REFRESH_S
        assert (await watch.current()).newest_event == 2
        assert world.looks == 2

    _story(story)


def test_last_look_counts_for_a_minute_while_the_registry_is_away():
    async def story(world, watch):
        await watch.current()
        world.away = True
        world.now += HONOURED_S / 2
        assert (await watch.current()).newest_event == 1
        with pytest.raises(RegistryError):
            await watch.fresh()
        world.now += HONOURED_S
        with pytest.raises(RegistryError):
            await watch.current()
        world.away = False
        world.now += PAUSE_S + 0.1
        assert (await watch.fresh()).newest_event == world.looks

    _story(story)


def test_registry_that_is_away_is_not_asked_for_each_request():
    async def story(world, watch):
        world.away = True
        for _ in range(5):
            with pytest.raises(RegistryError):
                await watch.current()
        assert world.looks == 1
        world.now += PAUSE_S + 0.1
        with pytest.raises(RegistryError):
            await watch.current()
        assert world.looks == 2

    _story(story)


def test_request_goes_on_with_the_last_look_when_the_next_one_hangs():
    async def story():
        looks = []

        async def look(_since):
            looks.append(1)
            if len(looks) > 1:
                await asyncio.sleep(3600)
            return Changes(newest_event=7, changed={}, tokens={})

        now = [0.0]
        watch = Watch(look, clock=lambda: now[0])
        await watch.current()
        now[0] = 2 * REFRESH_S
        assert (await watch.current()).newest_event == 7
        assert (await watch.current()).newest_event == 7
        now[0] += HONOURED_S
        with pytest.raises(RegistryError):
            await watch.current()
        assert len(looks) == 2

    asyncio.run(story())


def test_each_class_of_dataset_keeps_its_newest_event():
    async def story(world, watch):
        assert watch.changed_at(None) == 0
        for _ in range(3):
            await watch.current()
            world.now += REFRESH_S + 0.1
        assert [watch.changed_at(f"pack.Data{number}") for number in (1, 2, 3, 4)] == [1, 2, 3, 0]
        assert watch.changed_at(None) == 3

    _story(story)
