"""What preparing configurations takes of a budget, and what is refused for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import DATASET, MACHINE, measured_record

from autotune.space import Space
from autotune.spec import Inspection, Line, LoaderConfig, Profile, SpaceSpec
from autotune.study.preparation import Preparation

INSPECTION = Inspection(
    dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1000, largest_sample_bytes=1000,
    fingerprint="f" * 16,
)  # fmt: skip
SPACE = Space(
    SpaceSpec(
        batch_size=(32,), num_workers=(0, 2), archive=("files", "npy"), cache=("none", "memory", "disk"),
        cache_fraction=(0.5, 1.0),
    ),
    INSPECTION,
)  # fmt: skip
PROFILE = Profile(sample_s=0.01, gather=Line(per_sample=1e-6), collate=Line(per_sample=0.0))


def prepared(budget_s, samples=1000, space=SPACE):
    return Preparation(space, PROFILE, budget_s=budget_s, samples=samples)


def config(**fields):
    return LoaderConfig(batch_size=32, num_workers=0).replace(**fields).canonical(has_accelerator=False)


def test_a_memory_cache_is_filled_in_each_run_a_disk_cache_and_an_archive_once():
    times = prepared(60.0)
    once = times.seconds(config(cache="disk", cache_fraction=1.0))
    assert once == pytest.approx(10.0)
    assert times.seconds(config(cache="memory", cache_fraction=1.0)) == pytest.approx(5 * once)
    assert times.seconds(config(cache="memory", cache_fraction=0.5)) == pytest.approx(2.5 * once)
    assert times.seconds(config(archive="npy", stored="decoded")) == pytest.approx(once / MACHINE.cpu_count)
    assert times.seconds(config()) == 0.0


def test_an_archive_that_is_there_costs_nothing_more():
    times, archived = prepared(60.0), config(archive="npy", stored="decoded")
    times.learn(measured_record(archived, 100.0))
    assert times.seconds(archived) == 0.0


def test_what_takes_over_half_of_the_budget_is_refused_with_the_way_out():
    times = prepared(60.0)
    cached = config(cache="memory", cache_fraction=1.0)
    failure = times.breach(cached)
    assert (failure.kind, failure.phase, failure.infeasible) == ("budget", "predict", True)
    for words in ("1,000 samples", "50 s", "1 m", "longer budget", "subset"):
        assert words in failure.message
    assert times.breach(config(cache="memory", cache_fraction=0.5)) is None
    assert cached in times.left_out()
    assert prepared(101.0).breach(cached) is None


def test_nothing_is_refused_where_a_space_has_nothing_else_that_could_be_ready_in_time():
    pinned = Space(SpaceSpec(batch_size=(32,), cache=("memory",), archive=("files",)), INSPECTION)
    assert prepared(1.0, space=pinned).left_out() == []


def test_on_a_large_dataset_every_archive_and_cache_is_refused_and_workers_are_left():
    times = prepared(300.0, samples=1_280_000)
    left = set(SPACE.points) - set(times.left_out())
    assert left
    assert all(one.archive == "files" and one.cache == "none" for one in left)
    assert any(one.num_workers for one in left)


def test_a_disk_cache_that_was_filled_costs_nothing_more():
    times, kept = prepared(12.0), config(cache="disk", cache_fraction=1.0)
    assert times.breach(kept) is not None
    times.learn(measured_record(kept, 100.0))
    assert times.seconds(kept) == 0.0


def test_a_memory_cache_is_charged_for_what_can_fit():
    large = Inspection.model_validate({**INSPECTION.model_dump(), "sample_bytes": MACHINE.memory_bytes // 10})
    space = Space(SpaceSpec(batch_size=(32,), cache=("none", "memory"), archive=("files",)), large)
    whole = config(cache="memory", cache_fraction=1.0)
    assert Preparation(space, PROFILE, budget_s=60.0, samples=10**6).seconds(whole) < 5 * 11 * 0.02


def test_without_a_probe_or_a_length_nothing_is_known_and_nothing_refused():
    assert Preparation(SPACE, None, budget_s=1.0, samples=10**9).left_out() == []
    assert Preparation(SPACE, PROFILE, budget_s=1.0, samples=None).left_out() == []


@given(st.floats(0.1, 1e6), st.integers(0, 10**9))
def test_the_default_is_never_refused_and_a_longer_budget_refuses_no_more(budget_s, samples):
    short, long = prepared(budget_s, samples), prepared(2 * budget_s, samples)
    assert short.breach(config()) is None
    assert set(long.left_out()) <= set(short.left_out())
