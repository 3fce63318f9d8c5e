"""Configurations from other machines, as the space of this one has room for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_records import DATASET, MACHINE

from autotune.space import Space
from autotune.space.adapting import adapted, scaled_workers
from autotune.spec import Inspection, LoaderConfig, SpaceSpec

FAST = MACHINE.replace(cpu_count=8, accelerator="H100", accelerator_count=1, accelerator_memory_bytes=2**36)


def space(**fields):
    inspection = Inspection(
        dataset=DATASET, machine=MACHINE, sample_structure="x", sample_bytes=1000, largest_sample_bytes=1000,
        fingerprint="f" * 16,
    )  # fmt: skip
    return Space(SpaceSpec(**{"archive": ("files", "npy"), **fields}), inspection)


HERE = space()


@given(st.integers(0, 64), st.integers(1, 128), st.integers(1, 128))
def test_workers_follow_the_cpus_and_none_stays_none(workers, there, here):
    found = scaled_workers(workers, there=there, here=here)
    assert bool(found) == bool(workers)
    assert abs(found - max(1, workers * here / there)) <= 0.5 or not workers
    assert scaled_workers(workers, there=there, here=there) == workers


def test_workers_batch_size_and_prefetching_become_the_nearest_that_are_possible():
    config = LoaderConfig(batch_size=500, num_workers=8, prefetch_factor=4, pin_memory=True)
    found = adapted(config, there=FAST, space=HERE)
    assert found in HERE.points
    assert (found.num_workers, found.batch_size, found.prefetch_factor, found.pin_memory) == (2, 128, 4, False)


def test_a_cache_on_the_device_becomes_one_in_memory_without_an_accelerator():
    found = adapted(LoaderConfig(batch_size=32, cache="device", archive="npy"), there=FAST, space=HERE)
    assert found in HERE.points
    assert (found.cache, found.num_workers, found.archive) == ("memory", 0, "npy")


@pytest.mark.parametrize(
    ("config", "narrowed"),
    [
        (LoaderConfig(archive="lmdb"), {}),
        (LoaderConfig(cache="memory"), {"cache": ("none",)}),
        (LoaderConfig(num_workers=4), {"num_workers": (0,)}),
        (LoaderConfig(archive="tar", order="streaming"), {"archive": ("files", "tar")}),
    ],
)
def test_another_way_of_loading_stands_for_nothing(config, narrowed):
    assert adapted(config, there=FAST, space=space(**narrowed)) is None


def test_every_point_of_a_space_stands_for_itself_on_the_same_machine():
    for point in HERE.points:
        assert adapted(point, there=MACHINE, space=HERE) == point
