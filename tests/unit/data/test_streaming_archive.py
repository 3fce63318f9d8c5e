"""Archives read from front to back: every sample once, divided over ranks and workers, in a seeded order."""

import pickle

import pytest
import torch
import torch.multiprocessing
from data_sets import AugmentedDataset, BytesDataset, MixedDataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset

from autotune.data.archives import FORMATS
from autotune.data.build import make_loader
from autotune.data.facts import samples_equal
from autotune.data.stages import StagedDataset, augment_generator
from autotune.data.streaming import StreamedArchive, part_of
from autotune.errors import SampleError, SpecError
from autotune.spec.config import STREAMING_FORMATS

COUNT = 53


class Numbers(Dataset):
    """A number for each sample, and some bytes."""

    def __init__(self, count=COUNT):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((7,), index, dtype=torch.int64)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A reader of numbers for each streaming format."""
    readers = {}
    for name in STREAMING_FORMATS:
        folder = tmp_path_factory.mktemp(name.replace(".", "_"))
        FORMATS[name].build(Numbers(), folder)
        readers[name] = FORMATS[name].open(folder)
    return readers


def streamed(reader, *, shuffle=True, seed=3, buffer=8, **settings):
    dataset = StreamedArchive(Numbers(), reader, encoded=False, buffer=buffer, **settings)
    dataset.order_by(seed, shuffle)
    return dataset


def order_of(dataset, **arguments):
    return [int(sample[0]) for sample in DataLoader(dataset, batch_size=None, **arguments)]


def test_loaders_over_one_archive_keep_an_order_of_their_own(numbers):
    dataset = StreamedArchive(Numbers(), numbers["tar"], encoded=False, buffer=8)
    alone = make_loader(dataset, {"batch_size": None}, shuffle=True, seed=1)
    expected = [int(sample[0]) for sample in alone]
    dataset = StreamedArchive(Numbers(), numbers["tar"], encoded=False, buffer=8)
    training = make_loader(dataset, {"batch_size": None}, shuffle=True, seed=1)
    make_loader(dataset, {"batch_size": 4}, shuffle=False)
    assert [int(sample[0]) for sample in training] == expected != list(range(COUNT))


def test_epoch_after_an_early_break_has_the_order_of_its_number(numbers):
    def second_epoch(samples):
        loader = DataLoader(streamed(numbers["tar"], shuffle=True), batch_size=None, num_workers=2)
        for _ in zip(range(samples), loader, strict=False):
            pass
        return [int(sample[0]) for sample in loader]

    whole = second_epoch(COUNT)
    assert all(second_epoch(samples) == whole for samples in (1, 1, 1, 2, 3))


@pytest.mark.parametrize("name", STREAMING_FORMATS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_sample_comes_once_an_epoch(name, shuffle, workers, numbers):
    dataset = streamed(numbers[name], shuffle=shuffle)
    for _ in range(2):
        order = order_of(dataset, num_workers=workers)
        assert sorted(order) == list(range(COUNT))
        if workers < 2:
            assert (order == sorted(order)) != shuffle


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_divide_the_samples_and_know_their_length(world_size, workers, numbers):
    seen = []
    for rank in range(world_size):
        dataset = streamed(numbers["tar"], rank=rank, world_size=world_size)
        order = order_of(dataset, num_workers=workers)
        assert len(order) == len(dataset)
        seen.extend(order)
        assert abs(len(dataset) - COUNT / world_size) < 1
    assert sorted(seen) == list(range(COUNT))


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 9))
def test_ranges_of_ranks_and_workers_are_disjoint_complete_and_nearly_equal(count, ranks, workers):
    ranges = []
    for rank in range(ranks):
        first, stop = part_of(count, rank, ranks)
        for worker in range(workers):
            start, end = part_of(stop - first, worker, workers)
            ranges.append((first + start, first + end))
    assert [place for start, end in ranges for place in range(start, end)] == list(range(count))
    sizes = [end - start for start, end in ranges]
    assert max(sizes) - min(sizes) <= 1


def test_order_depends_on_seed_and_epoch_and_nothing_else(numbers):
    first = order_of(streamed(numbers["tar"]))
    assert order_of(streamed(numbers["tar"])) == first
    assert order_of(streamed(numbers["tar.zst"])) == first
    assert order_of(streamed(numbers["tar"], seed=4)) != first
    dataset = streamed(numbers["tar"])
    epochs = [order_of(dataset) for _ in range(3)]
    assert epochs[0] == first
    assert len(set(map(tuple, epochs))) == 3
    dataset.set_epoch(1)
    assert [order_of(dataset) for _ in range(2)] == epochs[1:], "later passes go on from an epoch that was set"


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_epochs_go_on_whether_workers_persist_or_not(start, numbers):
    orders = []
    for persistent in (False, True):
        dataset = streamed(numbers["tar"])
        loader = DataLoader(
            dataset, batch_size=None, num_workers=2, persistent_workers=persistent, multiprocessing_context=start
        )
        orders.append([[int(sample[0]) for sample in loader] for _ in range(2)])
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]


def test_set_epoch_reaches_running_workers(numbers):
    dataset = streamed(numbers["tar"])
    loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
    orders = []
    for epoch in (5, 7, 5):
        dataset.set_epoch(epoch)
        orders.append([int(sample[0]) for sample in loader])
    assert orders[0] == orders[2] != orders[1]


def test_early_break_and_two_iterators_lose_nothing(numbers):
    dataset = streamed(numbers["tar.gz"])
    iterator = iter(dataset)
    for _ in range(5):
        next(iterator)
    first, second = iter(dataset), iter(dataset)
    pairs = list(zip(first, second, strict=True))
    for side in range(2):
        assert sorted(int(pair[side][0]) for pair in pairs) == list(range(COUNT))


@pytest.mark.parametrize("buffer", [1, 2, 1000])
def test_buffer_of_any_size_gives_every_sample(buffer, numbers):
    assert sorted(order_of(streamed(numbers["tar"], buffer=buffer))) == list(range(COUNT))


def test_whole_batches_make_the_loaders_length_right(numbers):
    dataset = streamed(numbers["tar"])
    dataset.order_by(3, True, batch_size=4)
    loader = DataLoader(dataset, batch_size=4, num_workers=3)
    batches = [batch[:, 0].tolist() for batch in loader]
    assert len(batches) == len(loader) == 14
    assert sorted(len(batch) for batch in batches) == [1] + [4] * 13
    assert sorted(number for batch in batches for number in batch) == list(range(COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_is_that_of_the_dataset(workers, tmp_path):
    dataset = AugmentedDataset(20)
    FORMATS["tar"].build(dataset, tmp_path, stored="encoded")
    opened = StreamedArchive(dataset, FORMATS["tar"].open(tmp_path), encoded=True, buffer=4)
    opened.order_by(1, True)
    for epoch in (0, 3):
        opened.set_epoch(epoch)
        found = list(DataLoader(opened, batch_size=None, num_workers=workers))
        dataset.set_epoch(epoch)
        expected = {int(dataset.base_sample(index)[0]): dataset[index] for index in range(20)}
        assert len(found) == 20
        assert all(samples_equal(sample, expected[int(sample[0])]) for sample in found)


class OwnAugment:
    """Staged by its methods alone, so its augmentation varies by the archive's epochs."""

    def __len__(self):
        return 6

    def fingerprint(self):
        return "own"

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor(float(raw[0][0]))

    def augment(self, sample, generator):
        return sample + torch.rand((), generator=generator)

    def __getitem__(self, index):
        return self.decode(self.read(index))


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_varies_from_epoch_to_epoch_without_set_epoch(workers, tmp_path):
    dataset = OwnAugment()
    FORMATS["tar"].build(dataset, tmp_path, stored="encoded")
    opened = StreamedArchive(dataset, FORMATS["tar"].open(tmp_path), encoded=True)
    for epoch in range(2):
        found = sorted(float(sample) for sample in DataLoader(opened, batch_size=None, num_workers=workers))
        expected = [float(dataset.augment(dataset[index], augment_generator(0, epoch, index))) for index in range(6)]
        assert found == sorted(expected)


def test_workers_of_a_pass_share_its_epoch_whatever_number_of_them_there_was_before(tmp_path):
    dataset = OwnAugment()
    FORMATS["tar"].build(dataset, tmp_path, stored="encoded")
    opened = StreamedArchive(dataset, FORMATS["tar"].open(tmp_path), encoded=True)
    for epoch, workers in enumerate((0, 2, 1, 3)):
        found = sorted(float(sample) for sample in DataLoader(opened, batch_size=None, num_workers=workers))
        expected = [float(dataset.augment(dataset[index], augment_generator(0, epoch, index))) for index in range(6)]
        assert found == sorted(expected)


def test_subset_is_streamed_on_its_own(tmp_path):
    subset = Subset(BytesDataset(), [4, 1, 7])
    FORMATS["tar.xz"].build(subset, tmp_path, stored="encoded")
    opened = StreamedArchive(subset, FORMATS["tar.xz"].open(tmp_path), encoded=True)
    assert samples_equal(list(opened), [subset[index] for index in range(3)])


def test_attributes_of_the_source_are_forwarded_and_copies_work(numbers):
    dataset = streamed(numbers["tar"])
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.count == COUNT
    assert [int(sample[0]) for sample in copy] == [int(sample[0]) for sample in dataset]
    with pytest.raises(AttributeError):
        _ = copy.nothing_of_this_name


class Broken(StagedDataset):
    """Fails on one sample."""

    def __len__(self):
        return 3

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        if raw[0] == b"\1":
            raise SampleError("the picture is broken")
        return 0


def test_broken_sample_is_named(tmp_path):
    FORMATS["tar"].build(Broken(), tmp_path, stored="encoded")
    opened = StreamedArchive(Broken(), FORMATS["tar"].open(tmp_path), encoded=True)
    with pytest.raises(SampleError, match="sample 1"):
        list(opened)


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}, {"buffer": 0}]
)
def test_settings_that_make_no_sense_are_refused(settings, numbers):
    with pytest.raises(SpecError):
        streamed(numbers["tar"], **settings)


def run_rank(rank, folder, store):
    group = torch.distributed.FileStore(store, 2)
    torch.distributed.init_process_group("gloo", store=group, rank=rank, world_size=2)
    dataset = StreamedArchive(MixedDataset(), FORMATS["tar"].open(folder), encoded=False)
    # Spawned workers have no process group, and are told.
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    seen = [int(sample["parts"][1][0]) for sample in loader]
    torch.save(seen, folder / f"seen-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_process_group_divides_the_samples(tmp_path):
    FORMATS["tar"].build(MixedDataset(), tmp_path)
    torch.multiprocessing.spawn(run_rank, args=(tmp_path, str(tmp_path / "store")), nprocs=2)
    seen = [torch.load(tmp_path / f"seen-{rank}.pt") for rank in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(23))
    assert len(seen[0]) == 12
