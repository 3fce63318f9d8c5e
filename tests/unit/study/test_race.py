"""Races over made rates: who enters, who is dropped, when it ends, and what is chosen."""

import math

import pytest
from study_records import MACHINE, measured_record, measurement, record

from autotune.constants import (
    RACE_BLOCKS_MAX,
    RACE_BLOCKS_MIN,
    RACE_ENTRANTS_MAX,
)
from autotune.spec import ArchiveUse, Consumer, Failure, LoaderConfig, MemoryUse
from autotune.study.choose import choose, cost
from autotune.study.ledger import Ledger
from autotune.study.race import Race, Raced, entrants, storage_tier
from autotune.study.runs import Runs
from autotune.units import GIB, MIB

OVER = Failure(kind="device_memory", phase="measure", message="the peak passed the limit")
SENSELESS = Failure(kind="senseless", phase="report", message="the rate was no number")


def config(batch_size=32, **fields):
    return LoaderConfig(batch_size=batch_size, **fields).canonical(has_accelerator=False)


@pytest.fixture
def make_race(make_bench):
    """Make a race over a bench's landscape, with what its search would have found."""

    def make(rates, *, noise=0.0, draws=0):
        bench = make_bench(rates, noise=noise, draws=draws)
        points = sorted(bench.setting.space.points, key=LoaderConfig.label)
        found = [measured_record(point, rates(point)[0]) for point in points if not isinstance(rates(point), Failure)]
        runs = Runs(bench.setting, Ledger(found), 0.0)
        return runs, Race(runs, seed=draws)

    return make


def test_those_within_a_tenth_of_the_best_enter_and_the_best_of_every_tier():
    found = [measured_record(config(8 + number), 1000.0 - number) for number in range(RACE_ENTRANTS_MAX + 3)]
    npy, cached = config(archive="npy"), config(cache="memory")
    found += [measured_record(npy, 500.0), measured_record(cached, 400.0), measured_record(config(99), 100.0)]
    entering = entrants(Ledger(found))
    assert entering[:RACE_ENTRANTS_MAX] == [one.config for one in found[:RACE_ENTRANTS_MAX]]
    assert entering[RACE_ENTRANTS_MAX:] == [npy, cached]
    assert [storage_tier(one) for one in entering[-2:]] == ["archive", "cache"]


def test_what_was_given_up_as_futile_does_not_enter():
    futile = record(config(8), measurement=measurement(95.0, stopped="futility"))
    assert entrants(Ledger([futile, measured_record(config(16), 100.0)])) == [config(16)]
    assert entrants(Ledger([futile])) == []


def test_a_rematch_counts_the_search_as_one_run_and_orders_by_both(make_race):
    slow, fast = config(num_workers=1), config(num_workers=2)
    runs, race = make_race(lambda one: (100.0 + one.num_workers,))
    runs.ledger.add(measured_record(slow, 150.0))  # a lucky run in the search: the mean of both is still ahead
    raced = race.rematch([fast, slow])
    assert raced.survivors == [slow, fast]
    assert raced.equivalent == [slow]
    runs.ledger.add(measured_record(slow, 102.5))
    assert race.rematch([slow, fast]).survivors == [fast, slow]
    assert [len(logs) for logs in raced.logs.values()] == [2, 2]
    assert runs.processes == 4


def test_in_a_rematch_what_another_machine_measured_in_the_search_is_held_against_nothing(make_race):
    slow, fast = config(num_workers=1), config(num_workers=2)
    runs, race = make_race(lambda one: (100.0 + one.num_workers,))
    runs.ledger.add(measured_record(slow, 150.0, machine=MACHINE.replace(host="faster")))
    raced = race.rematch([slow, fast])
    assert (raced.survivors, raced.equivalent, raced.blocks) == ([fast, slow], [fast], 1)


def test_a_rematch_that_comes_to_no_reading_leaves_the_order_of_the_search(make_race):
    slow, bad = config(num_workers=1), config(num_workers=2)
    runs, race = make_race(lambda one: (100.0,) if one == slow else SENSELESS)
    runs.ledger.add(measured_record(bad, 150.0, machine=MACHINE.replace(host="faster")))
    assert race.rematch([bad, slow]).survivors == [bad, slow]


def test_who_breaks_a_limit_in_a_rematch_leaves_it(make_race):
    broken, sound = config(num_workers=1), config(num_workers=2)
    _, race = make_race(lambda one: OVER if one == broken else (100.0,))
    race._ledger.add(measured_record(broken, 500.0))
    assert race.rematch([broken, sound]).survivors == [sound]


def test_slower_ones_are_dropped_and_the_fastest_is_left(make_race):
    runs, race = make_race(lambda one: (100.0 - one.num_workers * 20 - (one.batch_size == 16),), noise=0.005)
    racing = [config(archive="npy"), config(archive="npy", num_workers=1), config(archive="npy", num_workers=2)]
    raced = race.run(racing, until_s=math.inf)
    assert raced.survivors == [racing[0]]
    assert raced.blocks == RACE_BLOCKS_MIN
    assert all(record.phase == "race" for record in runs.records)
    assert len(runs.records) == RACE_BLOCKS_MIN * 3


def test_a_race_of_equals_ends_when_they_are_shown_to_be_equal(make_race):
    _, race = make_race(lambda _: (100.0,), noise=0.004)
    raced = race.run([config(num_workers=count) for count in (0, 1, 2)], until_s=math.inf)
    assert len(raced.equivalent) == 3
    assert RACE_BLOCKS_MIN <= raced.blocks < RACE_BLOCKS_MAX


def test_what_cannot_be_told_apart_is_not_taken_for_equal(make_race):
    _, race = make_race(lambda _: (100.0,), noise=0.1)
    raced = race.run([config(num_workers=count) for count in (0, 1, 2)], until_s=math.inf)
    assert raced.blocks == RACE_BLOCKS_MAX
    assert len(raced.survivors) > 1
    assert raced.equivalent == raced.survivors[:1]


def test_the_fewest_blocks_are_run_when_the_time_is_over(make_race):
    _, race = make_race(lambda _: (100.0,), noise=0.1)
    assert race.run([config(), config(num_workers=1)], until_s=0.0).blocks == RACE_BLOCKS_MIN


def test_one_that_breaks_a_limit_in_the_race_leaves_it(make_race):
    broken = config(num_workers=2)
    runs, race = make_race(lambda one: OVER if one.num_workers == 2 else (100.0,), noise=0.01)
    raced = race.run([broken, config(), config(num_workers=1)], until_s=math.inf)
    assert broken not in raced.survivors
    assert len(raced.of(broken)) == 1
    assert runs.ledger.get(broken).failure == OVER


# Choosing


def raced_of(rates, **costs):
    """Give a race whose entrants are all shown to be equal, the first one leading."""
    logs = {one: [math.log(rate)] * 3 for one, rate in rates.items()}
    found = Raced(survivors=list(rates), equivalent=list(rates), logs=logs, blocks=3)
    for one, rate in rates.items():
        memory = MemoryUse(host_pss_bytes=costs.get("memory", {}).get(one, GIB))
        archive = ArchiveUse(size_bytes=costs.get("archive", {}).get(one, 0)) if one.archive != "files" else None
        wait = costs.get("waits", {}).get(one, 0.5)
        measured = measurement(rate, memory=memory, archive=archive, data_wait_share=wait)
        found.records += [record(one, measurement=measured, phase="race")] * 3
    return found


def test_the_fewest_workers_win_among_equals_then_memory_then_bytes():
    two, none, npy = config(num_workers=2), config(cache="memory"), config(archive="npy")
    loader = Consumer()
    assert choose(raced_of({two: 101.0, none: 100.0}), loader).config == none
    heavy = raced_of({none: 100.0, npy: 100.0}, memory={none: 2 * GIB, npy: GIB})
    assert choose(heavy, loader).config == npy
    large = config(archive="tar", stored="decoded")
    bytes_differ = raced_of({large: 100.0, npy: 100.0}, archive={large: 2 * MIB, npy: MIB})
    assert choose(bytes_differ, loader).config == npy
    assert "cheapest of 2" in choose(bytes_differ, loader).why


def test_memory_that_differs_as_runs_do_decides_nothing():
    one, other = config(archive="npy"), config(archive="tar", stored="decoded")
    costs = {"memory": {one: GIB + MIB, other: GIB}, "archive": {one: MIB, other: 2 * MIB}}
    assert choose(raced_of({one: 100.0, other: 100.0}, **costs), Consumer()).config == one


def test_without_proof_of_equivalence_the_leader_is_taken():
    first, cheap = config(num_workers=2), config()
    found = raced_of({first: 100.0, cheap: 99.0})
    found.equivalent = [first]
    choice = choose(found, Consumer())
    assert choice.config == first
    assert choice.others == (cheap,)


def test_a_consumer_that_hardly_waits_takes_the_cheapest_loader_of_its_batch_size():
    first, cheap, other_batch = config(num_workers=2), config(cache="memory"), config(16)
    waits = {first: 0.01, cheap: 0.04, other_batch: 0.01}
    found = raced_of({first: 100.0, cheap: 96.0, other_batch: 96.0}, waits=waits)
    found.equivalent, found.survivors = [first], [first]
    emulated = Consumer(kind="emulated", step_ms=5)
    assert choose(found, emulated).config == cheap
    assert choose(found, Consumer()).config == first
    found_waiting = raced_of({first: 100.0, cheap: 90.0}, waits={first: 0.01, cheap: 0.1})
    found_waiting.equivalent = [first]
    assert choose(found_waiting, emulated).config == first


def test_a_loader_that_slows_the_step_down_is_no_cheap_way_to_feed_it():
    """Without an accelerator workers take CPU time from the step, which then hardly waits."""
    first, cheap = config(num_workers=4, cache="memory"), config(num_workers=1)
    found = raced_of({first: 100.0, cheap: 78.0}, waits={first: 0.08, cheap: 0.02})
    found.equivalent = [first]
    assert choose(found, Consumer(kind="step")).config == first


def test_nothing_is_chosen_where_nothing_survived():
    assert choose(Raced(), Consumer()) is None


def test_what_was_never_measured_costs_what_its_settings_say():
    assert cost(config(num_workers=2), [])[:3] == (2, 0, 0)
