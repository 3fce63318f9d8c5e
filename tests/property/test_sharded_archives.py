"""Archives of any shard size, built by any number of builders that are killed at any point: the samples, in order."""

import tempfile
import time
from pathlib import Path

import pytest
from data_sets import MixedDataset, SlowDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_builders import WEB, ended, shards_under_way, start_builder

from autotune.data.archives.checking import verify
from autotune.data.archives.listing import list_archives
from autotune.data.archives.shard_plan import Sharding
from autotune.data.archives.store import open_or_build
from autotune.data.facts import samples_equal
from autotune.data.streaming import StreamedArchive

KILLS = st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.25)), max_size=4)
"""Which builder is killed after how many seconds; then another one takes its place."""


@pytest.mark.slow
@pytest.mark.fault
@settings(max_examples=8)
@given(
    count=st.integers(1, 45),
    shard_samples=st.integers(1, 12),
    world_size=st.integers(1, 3),
    workers=st.sampled_from([0, 0, 2]),
    kills=KILLS,
)
def test_builders_killed_anywhere_end_in_the_archive_of_a_plain_build(count, shard_samples, world_size, workers, kills):
    dataset = SlowDataset(count)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "together"

        def start(rank):
            sharding = {"rank": rank, "world_size": world_size, "shard_samples": shard_samples}
            return start_builder(dataset, root, workers=workers, **sharding)

        builders = [start(rank) for rank in range(world_size)]
        for rank, after_s in kills:
            time.sleep(after_s)
            builders[rank % world_size].kill()
            ended(builders[rank % world_size])
            for entry in list_archives(root):
                verify(root / entry.name, full=True)
            builders[rank % world_size] = start(rank % world_size)
        assert ended(*builders) == [0] * world_size
        opened = open_or_build(dataset, WEB, root, build=False)
        plain = open_or_build(dataset, WEB, Path(folder) / "plain", sharding=Sharding(shard_samples=shard_samples))
        assert opened.manifest.files == plain.manifest.files
        assert verify(opened.directory, full=True).shard_samples == min(count, shard_samples)
        places = range(count)
        assert samples_equal([opened.dataset[i] for i in places], [MixedDataset(count)[i] for i in places])
        assert shards_under_way(root) is None
        assert {path.name for path in opened.directory.iterdir()} == {
            *opened.manifest.files, "manifest.json", "checked.json",
        }  # fmt: skip


@settings(max_examples=12)  # each builds an archive
@given(
    count=st.integers(1, 60),
    shard_samples=st.integers(1, 20),
    world_size=st.integers(1, 7),
    workers=st.integers(1, 4),
    batch_size=st.sampled_from([None, 4]),
)
def test_ranks_and_workers_read_each_sample_of_the_shards_once(count, shard_samples, world_size, workers, batch_size):
    dataset = MixedDataset(count)
    with tempfile.TemporaryDirectory() as folder:
        reader = open_or_build(dataset, WEB, Path(folder), sharding=Sharding(shard_samples=shard_samples)).reader
        seen, lengths = [], []
        for rank in range(world_size):
            stream = StreamedArchive(dataset, reader, encoded=False, rank=rank, world_size=world_size)
            stream.order_by(1, False, batch_size=batch_size)
            ranges = [stream.worker_range(worker, workers) for worker in range(workers)]
            found = [int(sample["parts"][1][0]) for first, stop in ranges for sample in reader.stream(first, stop)]
            assert len(found) == len(stream)
            seen += found
            lengths.append(len(found))
        assert seen == list(range(count))
        assert max(lengths) - min(lengths) <= 1
