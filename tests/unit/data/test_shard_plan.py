"""Shards as ranges of samples, and indexes of tars put together from those of shards."""

import tempfile
from pathlib import Path

import pytest
from data_sets import MixedDataset, VaryingDataset
from hypothesis import given
from hypothesis import strategies as st

from autotune.data.archives import FORMATS
from autotune.data.archives.shard_plan import Sharding, ShardPlan, plan_of
from autotune.data.archives.store import open_or_build
from autotune.data.archives.tar_index import TarIndex
from autotune.data.archives.tar_index_parts import joined, of_file
from autotune.errors import ArchiveError, SpecError
from autotune.spec import LoaderConfig


def plan(count, shard_samples):
    return ShardPlan(format="webdataset", stored="decoded", count=count, shard_samples=shard_samples)


@given(st.integers(1, 500), st.integers(1, 600), st.integers(1, 9))
def test_shards_hold_each_sample_once_in_order_and_ranks_begin_apart(count, shard_samples, world_size):
    shards = plan(count, shard_samples)
    ranges = [shards.places(number) for number in range(shards.shards)]
    assert [place for places in ranges for place in places] == list(range(count))
    assert all(len(places) == shard_samples for places in ranges[:-1])
    orders = [shards.order_of(rank, world_size) for rank in range(world_size)]
    assert all(sorted(order) == list(range(shards.shards)) for order in orders)
    begun = [order[0] for order in orders]
    assert shards.shards < world_size or begun == sorted(set(begun))


def test_there_is_no_shard_beyond_the_last():
    with pytest.raises(SpecError, match="0 to 2, got 3"):
        plan(5, 2).places(3)


@pytest.mark.parametrize("settings", [{"shard_samples": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(SpecError, match="got"):
        Sharding(**settings)


def test_a_plan_is_the_same_each_time_and_has_no_more_shards_than_names():
    assert plan_of(MixedDataset(400), ("webdataset", "decoded")) == plan_of(
        MixedDataset(400), ("webdataset", "decoded")
    )
    with pytest.raises(ArchiveError, match="1,000,000 shards"):
        plan_of(MixedDataset(10**6 + 1), ("webdataset", "decoded"), 1)
    with pytest.raises(SpecError, match="come in shards"):
        plan_of(MixedDataset(), ("tar", "decoded"))


@given(st.integers(1, 40), st.integers(1, 45))
def test_an_index_taken_apart_by_shards_and_joined_again_is_the_same(count, shard_samples):
    with tempfile.TemporaryDirectory() as folder:
        config = LoaderConfig(archive="webdataset", stored="decoded")
        sharding = Sharding(shard_samples=shard_samples)
        opened = open_or_build(VaryingDataset(count), config, Path(folder), sharding=sharding)
        path = opened.directory / "samples.index"
        index = TarIndex.from_file(path)
        parts = [of_file(index, number) for number in range(-(-count // shard_samples))]
        assert joined(parts).to_bytes() == path.read_bytes()
        assert sum(len(part.samples) for part in parts) == count


def test_one_large_shard_has_the_index_of_a_tar(tmp_path):
    for name in ("tar", "webdataset"):
        (tmp_path / name).mkdir()
        FORMATS[name].build(VaryingDataset(23), tmp_path / name)
    assert (tmp_path / "tar" / "samples.tar").read_bytes() == (tmp_path / "webdataset/shard-000000.tar").read_bytes()
    assert len({(tmp_path / name / "samples.index").read_bytes() for name in ("tar", "webdataset")}) == 1
