"""What every cache mode promises."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from data_sets import (
    AugmentedDataset,
    BytesDataset,
    MixedDataset,
    RandomDataset,
    RepeatedNumbers,
    keep_list,
    support_environment,
)
from torch.utils.data import DataLoader, Dataset, Subset

from autotune.data.build import make_loader, prepare
from autotune.data.caches import CACHE_MODES
from autotune.data.facts import samples_equal
from autotune.errors import ArchiveError, CapacityError, RandomSamplesError, SpecError
from autotune.spec import LoaderConfig

MODES = list(CACHE_MODES)
KEEPING = [name for name in MODES if name != "none"]
STARTS = [None, "fork", "spawn", "forkserver"]


class CountingDataset(MixedDataset):
    """Counts how often it is read, in this process."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_cache_gives_the_same_samples_in_the_same_order(mode, fraction):
    dataset = MixedDataset()
    cached = CACHE_MODES[mode].wrap(dataset, fraction=fraction)
    assert len(cached) == len(dataset)
    for _ in range(2):
        got = [cached[index] for index in range(len(dataset))]
        assert samples_equal(got, [dataset[index] for index in range(len(dataset))])


@pytest.mark.parametrize(
    ("mode", "fraction"), [("none", None), *((mode, share) for mode in KEEPING for share in (1, 0.5))]
)
@pytest.mark.parametrize("start", STARTS)
def test_loader_gives_what_the_plain_loader_gives(mode, start, fraction):
    dataset = AugmentedDataset()
    workers = 0 if start is None else 2
    prepared = prepare(dataset, LoaderConfig(batch_size=3, num_workers=workers, cache=mode, cache_fraction=fraction))
    loader = make_loader(
        prepared.dataset, prepared.arguments, shuffle=True, seed=5, multiprocessing_context=start if workers else None
    )
    plain = DataLoader(dataset, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(5))
    for epoch in range(3):
        prepared.dataset.set_epoch(epoch)
        assert samples_equal(list(loader), list(plain))


@pytest.mark.parametrize("mode", KEEPING)
@pytest.mark.parametrize("start", STARTS[1:])
def test_workers_share_one_copy(mode, start):
    prepared = prepare(MixedDataset(), LoaderConfig(batch_size=4, num_workers=2, cache=mode))
    loader = make_loader(prepared.dataset, prepared.arguments, shuffle=True, seed=0, multiprocessing_context=start)
    list(loader)
    assert (prepared.cache.hits, prepared.cache.misses, prepared.cache.filled) == (0, 23, 23)
    list(loader)
    assert (prepared.cache.hits, prepared.cache.misses) == (23, 23)


@pytest.mark.parametrize("mode", KEEPING)
def test_fill_reads_each_sample_once_and_counts_no_miss(mode):
    dataset = CountingDataset()
    cached = CACHE_MODES[mode].wrap(dataset)
    probed, seen = dataset.reads, []
    cached.fill(lambda done, total: seen.append((done, total)))
    cached.fill()
    assert dataset.reads - probed == len(dataset)
    assert seen[-1] == (23, 23)
    list(cached.__getitems__(list(range(23))))
    assert dataset.reads - probed == len(dataset)
    assert (cached.hits, cached.misses) == (23, 0)
    cached.reset_counters()
    assert (cached.hits, cached.misses) == (0, 0)


@pytest.mark.parametrize("mode", KEEPING)
def test_fraction_keeps_that_share_and_no_more(mode):
    cached = CACHE_MODES[mode].wrap(MixedDataset(20), fraction=0.3)
    cached.fill()
    for _ in range(2):
        list(cached.__getitems__(list(range(20))))
    assert cached.filled == 6
    assert cached.fraction == pytest.approx(0.3)
    assert (cached.hits, cached.misses) == (12, 28)


@pytest.mark.parametrize("mode", KEEPING)
def test_limit_is_checked_before_memory_is_asked_for(mode):
    whole = CACHE_MODES[mode].wrap(MixedDataset()).size_bytes
    with pytest.raises(CapacityError) as caught:
        CACHE_MODES[mode].wrap(MixedDataset(), limit_bytes=whole - 1)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (whole, whole - 1)
    assert CACHE_MODES[mode].wrap(MixedDataset(), limit_bytes=whole).size_bytes == whole


@pytest.mark.parametrize("mode", KEEPING)
def test_open_fraction_becomes_what_fits(mode):
    whole = CACHE_MODES[mode].wrap(MixedDataset()).size_bytes
    prepared = prepare(MixedDataset(), LoaderConfig(cache=mode), limit_bytes=whole // 2)
    assert prepared.cache.fraction == pytest.approx(11 / 23)
    with pytest.raises(CapacityError):
        prepare(MixedDataset(), LoaderConfig(cache=mode), limit_bytes=10)


@pytest.mark.parametrize("mode", KEEPING)
def test_random_samples_are_refused_with_the_way_out(mode):
    with pytest.raises(RandomSamplesError, match="augment"):
        CACHE_MODES[mode].wrap(RandomDataset())


@pytest.mark.parametrize("mode", KEEPING)
def test_augmentation_stays_random_behind_the_cache(mode):
    cached = CACHE_MODES[mode].wrap(AugmentedDataset())
    cached.fill()
    first = cached[3]
    assert samples_equal(cached[3], first)
    cached.set_epoch(1)
    assert not samples_equal(cached[3], first)


@pytest.mark.parametrize("mode", KEEPING)
def test_augmentation_behind_subset_is_the_same(mode):
    subset = Subset(AugmentedDataset(), [9, 2, 11])
    cached = CACHE_MODES[mode].wrap(subset)
    cached.fill()
    assert samples_equal(list(cached.__getitems__([0, 1, 2])), [subset[index] for index in range(3)])


@pytest.mark.parametrize("mode", KEEPING)
def test_samples_of_different_sizes_are_refused(mode):
    with pytest.raises(ArchiveError, match="fixed shape"):
        CACHE_MODES[mode].wrap(BytesDataset())


class OneOdd(Dataset):
    """One sample that the first look does not see has another shape."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.full((3 if index != 5 else 4,), index)


@pytest.mark.parametrize("mode", KEEPING)
def test_single_odd_sample_is_passed_on_uncached(mode, caplog):
    cached = CACHE_MODES[mode].wrap(OneOdd())
    for _ in range(2):
        assert samples_equal([cached[index] for index in range(30)], [OneOdd()[index] for index in range(30)])
    assert cached.filled == 29
    assert len(caplog.records) == 1
    with pytest.raises(ArchiveError, match="sample 5"):
        cached.fill()


@pytest.mark.parametrize("mode", KEEPING)
def test_iterable_dataset_is_refused(mode):
    with pytest.raises(ArchiveError, match="index"):
        CACHE_MODES[mode].wrap(RepeatedNumbers())


@pytest.mark.parametrize("mode", KEEPING)
@pytest.mark.parametrize("fraction", [0, -1, 1.5])
def test_impossible_fraction_is_refused(mode, fraction):
    with pytest.raises(SpecError, match="fraction"):
        CACHE_MODES[mode].wrap(MixedDataset(), fraction=fraction)


@pytest.mark.parametrize("mode", KEEPING)
def test_samples_may_be_changed_in_place(mode):
    dataset = MixedDataset()
    cached = CACHE_MODES[mode].wrap(dataset)
    cached.fill()
    cached[2]["image"].add_(1)
    cached.__getitems__([2])[0]["image"].add_(1)
    assert samples_equal(cached[2], dataset[2])


@pytest.mark.parametrize("mode", MODES)
def test_attributes_are_forwarded_and_callers_collate_gets_a_list(mode):
    prepared = prepare(MixedDataset(), LoaderConfig(batch_size=4, cache=mode))
    assert prepared.dataset.version == "1"
    batch = next(iter(make_loader(prepared.dataset, prepared.arguments, collate_fn=keep_list)))
    assert isinstance(batch, list)
    assert len(batch) == 4


def test_no_cache_is_the_dataset_itself():
    dataset = MixedDataset()
    assert CACHE_MODES["none"].wrap(dataset) is dataset
    assert prepare(dataset, LoaderConfig()).dataset is dataset


def test_mode_that_is_not_there_yet_is_refused_by_name():
    with pytest.raises(SpecError, match="none, memory"):
        prepare(MixedDataset(), LoaderConfig(cache="device"))


def test_pickled_copy_in_one_process_shares_the_memory():
    cached = CACHE_MODES["memory"].wrap(MixedDataset())
    copy = pickle.loads(pickle.dumps(cached))
    copy.fill()
    assert cached.filled == 23


KILLED = """
import time
from data_sets import MixedDataset
from autotune.data.caches import CACHE_MODES
from autotune.data.build import make_loader, prepare
from autotune.spec import LoaderConfig
prepared = prepare(MixedDataset(), LoaderConfig(batch_size=4, cache="memory"))
prepared.cache.fill()
print("full", flush=True)
time.sleep(60)
"""


@pytest.mark.fault
def test_killed_process_leaves_no_shared_memory():
    before = {path.name for path in Path("/dev/shm").iterdir()}
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env=support_environment()) as child:
        assert child.stdout.readline() == b"full\n"
        child.send_signal(signal.SIGKILL)
    left = {path.name for path in Path("/dev/shm").iterdir()} - before
    assert not {name for name in left if str(child.pid) in name or "autotune" in name}
