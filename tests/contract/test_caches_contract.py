"""What every cache mode promises."""

import copy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from data_sets import (
    AugmentedDataset,
    MixedDataset,
    RandomDataset,
    RepeatedNumbers,
    keep_list,
    support_environment,
)
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset, default_collate

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.caches import CACHE_MODES, CachedDataset
from autotune.data.facts import samples_equal
from autotune.data.whole_batch import collate_whole
from autotune.errors import ArchiveError, CapacityError, RandomSamplesError, SpecError
from autotune.spec import LoaderConfig

MODES = list(CACHE_MODES)
KEEPING = [name for name in MODES if name != "none"]
ON_HOST = [name for name in KEEPING if name != "device"]
KINDS = [(mode, kind) for mode in KEEPING for kind in ("fixed", "varying") if (mode, kind) != ("device", "varying")]
STARTS = ["fork", "spawn", "forkserver"]
CPU = torch.device("cpu")


READS = []
"""Indices that counting datasets of this process were read at, copies of them too."""


class CountingDataset(MixedDataset):
    def __getitem__(self, index):
        READS.append(index)
        return super().__getitem__(index)


class Varying(MixedDataset):
    """Shapes that differ, an empty one among them."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return {**sample, "text": "x" * index, "image": sample["image"][:, : index % 5]}


class CountingVarying(Varying):
    def __getitem__(self, index):
        READS.append(index)
        return super().__getitem__(index)


class OneOdd(Dataset):
    """One sample that the first look does not see has another shape."""

    def __len__(self):
        return 30

    def fingerprint(self):
        return "one odd"

    def __getitem__(self, index):
        return torch.full((3 if index != 5 else 4,), index)


def dataset_of(kind, count=23):
    return MixedDataset(count) if kind == "fixed" else Varying(count)


@pytest.fixture
def wrap(tmp_path):
    """Wrap a dataset in a mode; caches on a device lie in host memory here."""

    def wrapped(mode, dataset, **settings):
        return CACHE_MODES[mode].wrap(dataset, **{"directory": tmp_path / "cache", "device": CPU, **settings})

    return wrapped


@pytest.fixture
def prepared(tmp_path):
    """Apply a configuration with a cache."""
    return partial(prepare, cache_root=tmp_path / "cache", device=CPU)


def plain_batches(dataset, order, batch_size=3, collate=default_collate):
    starts = range(0, len(order), batch_size)
    return [collate([dataset[index] for index in order[start : start + batch_size]]) for start in starts]


def like_default(mode, samples):
    """Give samples as they can be compared with plain ones: those on a device are all tensors."""
    return [default_collate([sample]) for sample in samples] if mode == "device" else list(samples)


def assert_same(mode, got, dataset, indices):
    plain = [dataset[index] for index in indices]
    assert samples_equal(like_default(mode, got), like_default(mode, plain))


@pytest.mark.parametrize(("mode", "kind"), KINDS)
@pytest.mark.parametrize("fraction", [1.0, 0.4, None])
def test_cache_gives_the_same_samples_in_the_same_order(wrap, mode, kind, fraction):
    dataset = dataset_of(kind)
    cached = wrap(mode, dataset, fraction=fraction)
    order = [*range(len(dataset)), 3, 3, -1]
    assert len(cached) == len(dataset)
    for _ in range(3):
        assert_same(mode, [cached[index] for index in order], dataset, [index % 23 for index in order])
        assert_same(mode, cached.__getitems__(order), dataset, [index % 23 for index in order])
    with pytest.raises(IndexError):
        cached[23]


def _marks(kind, fraction, start):
    """A spawned worker imports torch anew, so these are left to the slow run, and half of them to the long one."""
    if start not in {"spawn", "forkserver"}:
        return []
    return [pytest.mark.long if (kind == "fixed") == (fraction == 1) else pytest.mark.slow]


LOADED = [
    pytest.param(mode, kind, fraction, start, marks=_marks(kind, fraction, start))
    for mode, kind in KINDS
    for fraction in (1, 0.5)
    for start in (None, *STARTS)
    if start is None or mode != "device"  # which only the process that made it reads
]


@pytest.mark.parametrize(("mode", "kind", "fraction", "start"), LOADED)
def test_loader_gives_what_the_plain_loader_gives(prepared, mode, kind, fraction, start):
    dataset = dataset_of(kind)
    workers = 0 if start is None else 2
    ready = prepared(dataset, LoaderConfig(batch_size=3, num_workers=workers, cache=mode, cache_fraction=fraction))
    collate = {} if kind == "fixed" else {"collate_fn": keep_list}
    start_method = {"multiprocessing_context": start} if workers else {}
    loader = make_loader(ready.dataset, ready.arguments, shuffle=True, seed=5, **collate, **start_method)
    plain = DataLoader(dataset, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(5), **collate)
    for _ in range(3):
        assert samples_equal(list(loader), list(plain))
    places = round(fraction * 23)
    assert (ready.cache.filled, ready.cache.hits, ready.cache.misses) == (places, 2 * places, 3 * 23 - 2 * places)


@pytest.mark.parametrize("mode", ON_HOST)
@pytest.mark.parametrize("start", [None, "fork"])
def test_augmentation_comes_out_as_without_the_cache(prepared, mode, start):
    dataset = AugmentedDataset()
    workers = 0 if start is None else 2
    ready = prepared(dataset, LoaderConfig(batch_size=3, num_workers=workers, cache=mode, cache_fraction=0.5))
    loader = make_loader(ready.dataset, ready.arguments, shuffle=True, seed=5)
    plain = DataLoader(dataset, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(5))
    for epoch in range(3):
        ready.dataset.set_epoch(epoch)
        assert samples_equal(list(loader), list(plain))


@pytest.mark.parametrize("mode", ON_HOST)
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
def test_early_break_and_two_iterators_at_once_change_nothing(prepared, mode, workers):
    dataset = MixedDataset()
    ready = prepared(dataset, LoaderConfig(batch_size=4, num_workers=workers, cache=mode))
    loader = make_loader(ready.dataset, ready.arguments, persistent_workers=False)
    expected = plain_batches(dataset, list(range(23)), 4)
    for batch in loader:
        assert samples_equal(batch, expected[0])
        break
    first, second = [], []
    for one, other in zip(loader, loader, strict=True):
        first.append(one)
        second.append(other)
    assert samples_equal(first, expected)
    assert samples_equal(second, expected)
    assert ready.cache.filled == 23


def test_two_iterators_at_once_over_a_device_cache(prepared):
    dataset = MixedDataset()
    ready = prepared(dataset, LoaderConfig(batch_size=4, cache="device"))
    loader = make_loader(ready.dataset, ready.arguments)
    expected = plain_batches(dataset, list(range(23)), 4)
    for _ in loader:
        break
    pairs = list(zip(loader, loader, strict=True))
    assert samples_equal([pair[0] for pair in pairs], expected)
    assert samples_equal([pair[1] for pair in pairs], expected)


@pytest.mark.parametrize("mode", KEEPING)
@pytest.mark.parametrize("ranks", [1, 3])
def test_ranks_together_get_each_sample_once(prepared, mode, ranks):
    dataset = MixedDataset(24)
    ready = prepared(dataset, LoaderConfig(batch_size=4, cache=mode))
    seen = []
    for rank in range(ranks):
        sampler = DistributedSampler(ready.dataset, num_replicas=ranks, rank=rank, shuffle=True, seed=3)
        for batch in make_loader(ready.dataset, ready.arguments, sampler=sampler):
            seen += batch["parts"][1][0].tolist()
    assert sorted(seen) == list(range(24))
    assert ready.cache.misses == 24


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_subset_of_a_cache_and_cache_of_a_subset(wrap, mode, kind):
    dataset = dataset_of(kind)
    places = [20, 3, 3, 11]
    below = wrap(mode, Subset(dataset, places))
    above = Subset(wrap(mode, dataset), places)
    for _ in range(2):
        assert_same(mode, below.__getitems__([0, 1, 2, 3]), dataset, places)
        assert_same(mode, [above[index] for index in range(4)], dataset, places)
        assert_same(mode, above.__getitems__([0, 1, 2, 3]), dataset, places)


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_fill_reads_each_sample_once_and_counts_no_miss(wrap, mode, kind):
    cached = wrap(mode, CountingDataset() if kind == "fixed" else CountingVarying())
    READS.clear()
    seen = []
    cached.fill(lambda done, total: seen.append((done, total)))
    cached.fill()
    assert list(range(23)) == READS
    assert seen == [(done, 23) for done in range(1, 24)]
    cached.__getitems__(list(range(23)))
    assert len(READS) == 23
    assert (cached.filled, cached.hits, cached.misses) == (23, 23, 0)
    cached.reset_counters()
    assert (cached.hits, cached.misses) == (0, 0)


@pytest.mark.parametrize("mode", KEEPING)
def test_open_share_is_found_with_few_looks(wrap, mode):
    READS.clear()
    wrap(mode, CountingDataset(200), fraction=None)
    assert len(READS) <= 40


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_fraction_keeps_that_share_and_no_more(wrap, mode, kind):
    cached = wrap(mode, dataset_of(kind, 20), fraction=0.3)
    cached.fill()
    for _ in range(2):
        cached.__getitems__(list(range(20)))
    assert cached.filled == 6
    assert cached.fraction == pytest.approx(0.3)
    assert (cached.hits, cached.misses) == (12, 28)


@pytest.mark.parametrize("mode", KEEPING)
def test_larger_share_keeps_the_smaller_one(wrap, mode):
    kept = [np.flatnonzero(wrap(mode, MixedDataset(20), fraction=share)._rows >= 0) for share in (0.3, 0.6, 1.0)]
    assert set(kept[0]) < set(kept[1]) < set(kept[2])


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_limit_is_checked_before_room_is_asked_for(wrap, mode, kind):
    whole = wrap(mode, dataset_of(kind)).size_bytes
    with pytest.raises(CapacityError, match="cache_fraction") as caught:
        wrap(mode, dataset_of(kind), limit_bytes=whole - 1)
    assert caught.value.needed_bytes > caught.value.available_bytes
    assert wrap(mode, dataset_of(kind), limit_bytes=whole).size_bytes == whole


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_open_fraction_becomes_what_fits(prepared, wrap, mode, kind):
    # so many that the plan of a disk cache is not its database alone
    whole = wrap(mode, dataset_of(kind, 400)).size_bytes
    cache = prepared(dataset_of(kind, 400), LoaderConfig(cache=mode), limit_bytes=whole * 2 // 3).cache
    assert 0.4 < cache.fraction < 0.7
    cache.fill()
    assert cache.used_bytes <= whole * 2 // 3
    with pytest.raises(CapacityError):
        prepared(dataset_of(kind, 400), LoaderConfig(cache=mode), limit_bytes=10)


@pytest.mark.parametrize("mode", KEEPING)
def test_random_samples_are_refused_with_the_way_out(wrap, mode):
    with pytest.raises(RandomSamplesError, match="augment"):
        wrap(mode, RandomDataset())


@pytest.mark.parametrize("mode", ON_HOST)
def test_augmentation_stays_random_behind_the_cache(wrap, mode):
    cached = wrap(mode, AugmentedDataset())
    cached.fill()
    first = cached[3]
    assert samples_equal(cached[3], first)
    cached.set_epoch(1)
    assert not samples_equal(cached[3], first)


@pytest.mark.parametrize("mode", ON_HOST)
def test_augmentation_behind_subset_is_the_same(wrap, mode):
    subset = Subset(AugmentedDataset(), [9, 2, 11])
    cached = wrap(mode, subset)
    cached.fill()
    assert samples_equal(list(cached.__getitems__([0, 1, 2])), [subset[index] for index in range(3)])


@pytest.mark.parametrize("mode", KEEPING)
def test_single_odd_sample_is_passed_on(wrap, mode, caplog):
    cached = wrap(mode, OneOdd())
    for _ in range(2):
        assert samples_equal([cached[index] for index in range(30)], [OneOdd()[index] for index in range(30)])
    assert samples_equal(list(cached.__getitems__([4, 5, 6])), [OneOdd()[index] for index in (4, 5, 6)])
    cached.fill()
    left_out = [record for record in caplog.records if "stay out" in record.getMessage()]
    if mode == "disk":  # blocks have any shape
        assert (cached.filled, len(left_out)) == (30, 0)
    else:
        assert (cached.filled, len(left_out)) == (29, 1)
        assert "Sample 5" in left_out[0].getMessage()


@pytest.mark.parametrize("mode", KEEPING)
def test_iterable_dataset_is_refused(wrap, mode):
    with pytest.raises(ArchiveError, match="index"):
        wrap(mode, RepeatedNumbers())


@pytest.mark.parametrize("mode", KEEPING)
@pytest.mark.parametrize("fraction", [0, -1, 1.5, float("nan")])
def test_impossible_fraction_is_refused(wrap, mode, fraction):
    with pytest.raises(SpecError, match="fraction"):
        wrap(mode, MixedDataset(), fraction=fraction)


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_samples_may_be_changed_in_place(wrap, mode, kind):
    dataset = dataset_of(kind)
    cached = wrap(mode, dataset)
    cached[2]["image"].add_(1)  # the one that was kept
    cached[2]["image"].add_(1)
    cached.__getitems__([2])[0]["image"].add_(1)
    batch = cached.__getitems__([1, 2])
    batch[1]["image"].add_(1)
    assert_same(mode, [cached[2]], dataset, [2])


@pytest.mark.parametrize("mode", MODES)
def test_attributes_are_forwarded_and_callers_collate_gets_a_list(prepared, mode):
    ready = prepared(MixedDataset(), LoaderConfig(batch_size=4, cache=mode))
    assert ready.dataset.version == "1"
    with pytest.raises(AttributeError):
        _ = ready.dataset.no_such_thing
    batch = next(iter(make_loader(ready.dataset, ready.arguments, collate_fn=keep_list)))
    assert isinstance(batch, list)
    assert len(batch) == 4
    assert samples_equal(default_collate(batch), default_collate([MixedDataset()[index] for index in range(4)]))


@pytest.mark.parametrize("mode", KEEPING)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_whole_batches_are_what_torch_collates(wrap, mode, fraction):
    cached = wrap(mode, MixedDataset(), fraction=fraction)
    for _ in range(2):
        got = collate_whole(cached.__getitems__([7, 1, 9]))
        assert samples_equal(got, default_collate([MixedDataset()[index] for index in (7, 1, 9)]))


def test_no_cache_is_the_dataset_itself(wrap):
    dataset = MixedDataset()
    assert wrap("none", dataset) is dataset
    assert prepare(dataset, LoaderConfig()).dataset is dataset


@pytest.mark.parametrize("mode", ON_HOST)
def test_copy_shares_what_is_kept(wrap, mode):
    cached = wrap(mode, MixedDataset())
    other = copy.deepcopy(cached)
    other.fill()
    other[3]
    assert isinstance(other, CachedDataset)
    assert (cached.filled, cached.hits) == (23, 1)
    assert samples_equal(cached[4], MixedDataset()[4])


KILLED = """
import sys, time
from pathlib import Path
from data_sets import MixedDataset
from autotune.data.apply import prepare
from autotune.spec import LoaderConfig
prepared = prepare(MixedDataset(), LoaderConfig(batch_size=4, cache=sys.argv[1]), cache_root=Path(sys.argv[2]))
prepared.cache.fill()
print("full", flush=True)
time.sleep(60)
"""


@pytest.mark.fault(24)
@pytest.mark.parametrize("mode", ON_HOST)
def test_killed_process_leaves_no_shared_memory(mode, tmp_path):
    before = {path.name for path in Path("/dev/shm").iterdir()}
    command = [sys.executable, "-c", KILLED, mode, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=support_environment()) as child:
        assert child.stdout.readline() == b"full\n"
        child.send_signal(signal.SIGKILL)
    left = {path.name for path in Path("/dev/shm").iterdir()} - before
    assert not {name for name in left if str(child.pid) in name or "autotune" in name}
