"""Passes of the sampler are epochs, of the order and of augmentation, wherever samples come from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from registry_values import Numbers
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler, Subset

from autotune.data.apply import apply
from autotune.data.build import make_loader
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.stages import StagedDataset
from autotune.resolve.best import best_loader
from autotune.spec import LoaderConfig

COUNT = 8
STORES = {
    "files": {},
    "cache": {"cache": "memory"},
    "archive": {"archive": "tar"},
    "both": {"archive": "tar", "cache": "memory"},
}


class Jittered(StagedDataset):
    """Adds to each sample what is random in it."""

    def __len__(self):
        return COUNT

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor([float(raw[0][0])])

    def augment(self, sample, generator):
        return sample + torch.rand(1, generator=generator)

    def fingerprint(self):
        return "jittered"


class ByName(Dataset):
    """Offers the stages of `Jittered` by name alone, without epochs of its own."""

    __len__, fingerprint = Jittered.__len__, Jittered.fingerprint
    read, decode, augment = Jittered.read, Jittered.decode, Jittered.augment

    def __getitem__(self, index):
        return self.augment(self.decode(self.read(index)), None)


def values(loader):
    return torch.cat(list(loader)).flatten().tolist()


def expected(dataset, epoch, **sampler):
    """Give what the dataset itself has in an epoch, in the order of torch's sampler."""
    order = DistributedSampler(dataset, **sampler)
    order.set_epoch(epoch)
    dataset.set_epoch(epoch)
    return [dataset[index].item() for index in order]


# Order


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**31 - 1),
    st.lists(st.integers(0, 9), max_size=3),
)
def test_passes_are_the_epochs_of_torchs_sampler(count, world_size, shuffle, seed, set_epochs):
    dataset = Numbers(count)
    for rank in range(world_size):
        ours = DistributedEpochSampler(dataset, seed=seed, shuffle=shuffle, rank=rank, world_size=world_size)
        theirs = DistributedSampler(dataset, world_size, rank, shuffle=shuffle, seed=seed)
        assert len(ours) == len(theirs)
        for number in range(3):
            theirs.set_epoch(number)
            assert list(ours) == list(theirs)
        for number in set_epochs:
            ours.set_epoch(number)
            for later in range(3):
                theirs.set_epoch(number + later)
                assert list(ours) == list(theirs), "later passes go on from an epoch that was set"


def test_one_process_has_all_samples_shuffled_where_nothing_else_is_said():
    sampler = DistributedEpochSampler(Numbers(COUNT), seed=3)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second


def test_a_pass_counts_once_its_first_index_is_asked_for():
    dataset = Jittered()
    sampler, fresh = (DistributedEpochSampler(dataset, seed=3) for _ in range(2))
    dataset.set_epoch(7)
    unread = dataset[0]
    dropped = [iter(sampler) for _ in range(3)]
    assert torch.equal(dataset[0], unread), "no pass began"
    assert [list(sampler) for _ in range(2)] == [list(fresh) for _ in range(2)]
    assert list(dropped[0]) == list(fresh)


def test_an_epoch_that_is_set_is_that_of_the_pass_that_begins_next():
    dataset = Jittered()
    sampler = DistributedEpochSampler(dataset, seed=3)
    of_first = expected(dataset, 0, num_replicas=1, rank=0, seed=3)
    running = iter(sampler)
    begun = [next(running)]
    sampler.set_epoch(5)
    begun += running
    assert [dataset[index].item() for index in begun] == of_first
    assert [dataset[index].item() for index in sampler] == expected(dataset, 5, num_replicas=1, rank=0, seed=3)


# Augmentation


@pytest.mark.parametrize("given_served", [False, True], ids=["over-dataset", "over-served"])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("workers", [0, 1])
def test_samples_of_a_pass_are_those_of_the_dataset_in_that_epoch(tmp_path, store, workers, given_served):
    dataset, share = Jittered(), {"num_replicas": 2, "rank": 1, "seed": 3}
    config = LoaderConfig(batch_size=2, num_workers=workers, persistent_workers=workers > 0, **STORES[store])
    served, arguments = apply(dataset, config, archive_root=tmp_path)
    sampler = DistributedEpochSampler(served if given_served else dataset, seed=3, rank=1, world_size=2)
    loader = make_loader(served, arguments, sampler=sampler)
    by_itself = [values(loader) for _ in range(3)]
    assert by_itself == [expected(Jittered(), epoch, **share) for epoch in range(3)]
    for epoch in (1, 6):
        sampler.set_epoch(epoch)
        assert values(loader) == expected(Jittered(), epoch, **share)
        assert values(loader) == expected(Jittered(), epoch + 1, **share)


@pytest.mark.parametrize("workers", [0, 1])
def test_each_pass_of_a_loader_without_batches_is_one_epoch(workers):
    dataset = Jittered()
    loader = DataLoader(dataset, batch_size=None, sampler=DistributedEpochSampler(dataset, seed=3), num_workers=workers)
    found = [values(loader) for _ in range(3)]
    assert found == [expected(Jittered(), epoch, num_replicas=1, rank=0, seed=3) for epoch in range(3)]


@pytest.mark.parametrize("store", [name for name in STORES if name != "files"])
def test_stages_that_are_offered_by_name_follow_behind_a_store(tmp_path, store):
    def epochs(*numbers):
        served, _ = apply(ByName(), LoaderConfig(**STORES[store]), archive_root=tmp_path)
        sampler = DistributedEpochSampler(served, seed=3, shuffle=False)
        found = []
        for number in numbers:
            if number is not None:
                sampler.set_epoch(number)
            found.append([served[index].item() for index in sampler])
        return found

    first, second, third = epochs(None, None, None)
    assert first != second != third
    assert epochs(2, 0, 1, 1) == [third, first, second, second]


def test_every_part_that_takes_epochs_is_told():
    parts = Jittered(), Jittered()
    whole = ConcatDataset([Subset(parts[0], [1, 3]), torch.utils.data.TensorDataset(torch.ones(2)), parts[1]])
    sampler = DistributedEpochSampler(whole, seed=3)
    reference = Jittered()
    for epoch in range(2):
        reference.set_epoch(epoch)
        next(iter(sampler))
        assert [part[3].item() for part in parts] == [reference[3].item()] * 2


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_a_loader_that_is_resolved_for_a_rank_goes_on_by_itself_and_takes_epochs(tmp_path, cache):
    share = {"num_replicas": 2, "rank": 1, "shuffle": False}
    loader = best_loader(
        Jittered(), home=tmp_path, environ={}, rank=1, world_size=2, cache=cache, num_workers=0, batch_size=2
    )
    assert [values(loader) for _ in range(2)] == [expected(Jittered(), epoch, **share) for epoch in range(2)]
    for epoch in (0, 4):
        loader.sampler.set_epoch(epoch)
        assert values(loader) == expected(Jittered(), epoch, **share)
