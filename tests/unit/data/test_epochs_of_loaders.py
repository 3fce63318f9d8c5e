"""Passes over a loader are epochs of what is random in its dataset, wherever the dataset lies, until epochs are set."""

import pytest
import torch
from data_sets import AugmentedDataset
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    random_split,
)

from autotune.data.apply import apply
from autotune.data.build import EpochSampler, InOrderSampler, make_loader
from autotune.data.datasets.source_stream import StreamedSource
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.epochs import Epoch, StreamPasses
from autotune.data.stages import begin_epoch, follows_passes, set_epoch
from autotune.resolve.best import best_loader
from autotune.spec import LoaderConfig

COUNT = 8
STORES = {
    "bare": {},
    "cached": {"cache": "memory"},
    "archived": {"archive": "tar", "stored": "encoded"},
    "both": {"archive": "npy", "cache": "memory"},
}
SHAPES = {
    "whole": lambda dataset: dataset,
    "subset": lambda dataset: Subset(dataset, range(COUNT)),
    "concatenated": lambda dataset: ConcatDataset([Subset(dataset, range(3)), Subset(dataset, range(3, COUNT))]),
}


def expected(epoch):
    """Give what the dataset itself has in an epoch, in order."""
    dataset = AugmentedDataset(COUNT)
    dataset.set_epoch(epoch)
    return torch.stack([dataset[index] for index in range(COUNT)])


def in_order(loader):
    """Give the samples of a pass by what they are made of: the whole number below them."""
    samples = torch.cat(list(loader))
    return samples[samples[:, 0].floor().argsort()]


def served(shape, store, folder, workers, *, start=None, shuffle=False, **further):
    dataset = SHAPES[shape](AugmentedDataset(COUNT))
    config = LoaderConfig(batch_size=3, num_workers=workers, persistent_workers=workers > 0, **STORES[store])
    stored, arguments = apply(dataset, config, archive_root=folder)
    return make_loader(stored, arguments, shuffle=shuffle, seed=4, multiprocessing_context=start, **further)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in-order", "shuffled"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_pass_is_augmented_as_the_dataset_itself_is_in_that_epoch(shape, store, workers, shuffle, tmp_path):
    loader = served(shape, store, tmp_path, workers, shuffle=shuffle)
    for epoch in range(3):
        assert torch.equal(in_order(loader), expected(epoch))


@pytest.mark.parametrize("start", [pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
def test_workers_that_persist_follow_however_they_were_started(start, tmp_path):
    loader = served("subset", "cached", tmp_path, 1, start=start)
    for epoch in range(2):
        assert torch.equal(in_order(loader), expected(epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_leave_after_an_epoch_follow(workers, tmp_path):
    loader = served("whole", "bare", tmp_path, workers, **({"persistent_workers": False} if workers else {}))
    next(iter(loader))  # a pass that was broken off
    for epoch in (1, 2):
        assert torch.equal(in_order(loader), expected(epoch))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("store", STORES)
def test_an_epoch_that_is_set_stays_until_another_is_set(store, workers, tmp_path):
    loader = served("subset", store, tmp_path, workers)
    set_epoch(loader.dataset, 5)
    assert [torch.equal(in_order(loader), expected(5)) for _ in range(2)] == [True, True]
    set_epoch(loader.dataset, 2)
    assert torch.equal(in_order(loader), expected(2))


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_that_is_set_on_the_sampler_wins_over_one_of_the_dataset(shuffle, tmp_path):
    loader = served("subset", "cached", tmp_path, 0, shuffle=shuffle)
    assert isinstance(loader.sampler, EpochSampler if shuffle else InOrderSampler)
    set_epoch(loader.dataset, 7)
    loader.sampler.set_epoch(3)
    for epoch in (3, 4):
        assert torch.equal(in_order(loader), expected(epoch))
    dataset = loader.dataset
    del loader
    again = make_loader(dataset, {"batch_size": 3})
    assert torch.equal(in_order(again), expected(0)), "the sampler steered its own passes alone"


def test_the_order_of_a_generator_is_that_of_torch_whatever_epochs_are_set(tmp_path):
    plain = DataLoader(range(COUNT), batch_size=None, shuffle=True, generator=torch.Generator().manual_seed(4))
    loader = served("whole", "bare", tmp_path, 0, shuffle=True)
    for epoch in (0, 6, 1):
        loader.sampler.set_epoch(epoch)
        assert torch.cat(list(loader))[:, 0].int().tolist() == [int(index) for index in plain]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_the_dataset_goes_on_by_itself_and_takes_epochs(workers):
    stream = StreamedSource(AugmentedDataset(COUNT))
    loader = make_loader(stream, {"batch_size": 3, "num_workers": workers}, shuffle=True, seed=1)
    for epoch in range(3):
        assert torch.equal(in_order(loader), expected(epoch))
    loader.dataset.set_epoch(1)
    for epoch in (1, 2):
        assert torch.equal(in_order(loader), expected(epoch))
    stream.set_epoch(7)
    assert torch.equal(in_order(loader), expected(7)), "of the stream that the loader was made over"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore::autotune.resolve.resolution.AutotuneWarning")
def test_a_resolved_loader_goes_on_by_itself(workers, tmp_path):
    loader = best_loader(
        Subset(AugmentedDataset(COUNT), range(COUNT)), home=tmp_path, environ={}, num_workers=workers, batch_size=3
    )
    for epoch in range(3):
        assert torch.equal(in_order(loader), expected(epoch))


class Own(Dataset):
    """Counts epochs in a way of its own, as its caller sets them."""

    epoch = 40

    def __len__(self):
        return COUNT

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        return torch.tensor([index, self.epoch])


def test_a_dataset_that_has_set_epoch_alone_is_told_what_the_caller_sets_and_nothing_else():
    dataset = Own()
    for loader in (make_loader(dataset, {}, shuffle=True), make_loader(dataset, {}, sampler=DistributedEpochSampler(
            dataset, seed=0))):  # fmt: skip
        dataset.epoch = 40
        assert {batch[0, 1].item() for _ in range(2) for batch in loader} == {40}
        loader.sampler.set_epoch(2)
        assert {batch[0, 1].item() for batch in loader} == {2}


def test_samples_without_a_random_stage_keep_the_sampler_of_torch():
    loader = make_loader(TensorDataset(torch.arange(COUNT)), {"batch_size": 2})
    assert type(loader.sampler) is SequentialSampler
    assert not follows_passes(TensorDataset(torch.arange(COUNT)))
    assert isinstance(make_loader(AugmentedDataset(COUNT), {}, sampler=RandomSampler(range(3))).sampler, RandomSampler)


class Plain(AugmentedDataset):
    """Has no random part, and does without the base's constructor."""

    augment = None

    def __init__(self):
        self.count = COUNT


def test_a_staged_dataset_without_a_random_stage_needs_no_epoch():
    loader = make_loader(Plain(), {"batch_size": 4}, shuffle=True, seed=0)
    assert sorted(int(value) for value in torch.cat(list(loader))[:, 0]) == list(range(COUNT))
    begin_epoch(Plain(), 3, steered=True)


def test_validation_without_augmentation_leaves_the_epoch_of_training_alone():
    training = AugmentedDataset(COUNT)
    begin_epoch(training, 3)
    validation = AugmentedDataset(COUNT)
    validation.__dict__.update(vars(training), augment=None)
    in_order(make_loader(validation, {"batch_size": 3}, shuffle=True))
    assert torch.equal(torch.stack([training[index] for index in range(COUNT)]), expected(3))


def test_rules_of_an_epoch():
    epoch = Epoch()
    assert (epoch.begin(1, steered=False), epoch.number) == (True, 1)
    epoch.set(9)
    assert (epoch.begin(2, steered=False), epoch.number) == (False, 9)
    assert (epoch.begin(3, steered=True), epoch.number) == (True, 3)
    assert (epoch.begin(4, steered=False), epoch.number) == (True, 4)
    assert not epoch.is_led
    leader = Plain()
    epoch.lead(leader)
    assert epoch.is_led
    del leader
    assert not epoch.is_led


# Several loaders over one dataset


class Part(Subset):
    """A subset that adds nothing to how samples are given."""


class Joined(ConcatDataset):
    """Likewise."""


class Clean(Subset):
    """Gives samples in a way of its own."""

    def __getitem__(self, index):
        return self.dataset.base_sample(self.indices[index])

    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Steering(Part):
    """Takes epochs in a way of its own."""

    def begin_epoch(self, epoch, *, steered=False):
        self.dataset.begin_epoch(epoch + 10, steered=steered)


PARTS = {
    "part": lambda dataset: Part(dataset, range(COUNT)),
    "joined": lambda dataset: Joined([Part(dataset, range(3)), Subset(dataset, range(3, COUNT))]),
}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("shape", PARTS)
def test_subclasses_that_give_samples_as_their_base_does_are_looked_into(shape, shuffle):
    loader = make_loader(PARTS[shape](AugmentedDataset(COUNT)), {"batch_size": 3}, shuffle=shuffle)
    for epoch in range(2):
        assert torch.equal(in_order(loader), expected(epoch))
    set_epoch(loader.dataset, 6)
    assert torch.equal(in_order(loader), expected(6))


def test_subclasses_with_samples_or_epochs_of_their_own_are_taken_as_they_are():
    dataset = AugmentedDataset(COUNT)
    dataset.begin_epoch(3)
    in_order(make_loader(Clean(dataset, range(COUNT)), {"batch_size": 3}, shuffle=True))
    assert torch.equal(torch.stack([dataset[index] for index in range(COUNT)]), expected(3))
    loader = make_loader(Steering(dataset, range(COUNT)), {"batch_size": 3}, shuffle=True)
    assert torch.equal(in_order(loader), expected(10))


def halves(dataset):
    return random_split(dataset, [4, COUNT - 4], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_validation_in_the_middle_of_an_epoch_leaves_the_epoch_of_training_alone(cached, distributed):
    train, val = halves(AugmentedDataset(COUNT))
    if cached:
        train, val = (apply(part, LoaderConfig(cache="memory"))[0] for part in (train, val))
    samplers = [
        {"sampler": DistributedEpochSampler(part, seed=0, shuffle=part is train)} if distributed else {}
        for part in (train, val)
    ]
    training = make_loader(train, {"batch_size": 1}, shuffle=not distributed, seed=0, **samplers[0])
    validation = make_loader(val, {"batch_size": 1}, **samplers[1])
    for epoch in range(3):
        samples = []
        for sample in training:
            samples.append(sample)
            validated = torch.cat(list(validation))
            assert all(any(torch.equal(one, two) for two in expected(epoch)) for one in validated)
        assert all(any(torch.equal(one, two) for two in expected(epoch)) for one in torch.cat(samples))
    validation.sampler.set_epoch(9)
    ninth = torch.stack([expected(9)[index] for index in halves(range(COUNT))[1].indices])
    assert torch.equal(torch.cat(list(validation)), ninth)


def test_passes_in_order_count_again_once_the_shuffling_loader_is_gone():
    dataset = AugmentedDataset(COUNT)
    training, plain = make_loader(dataset, {"batch_size": 3}, shuffle=True), make_loader(dataset, {"batch_size": 3})
    for _ in range(3):
        in_order(training)
    assert torch.equal(in_order(plain), expected(2))
    del training
    assert [torch.equal(in_order(plain), expected(epoch)) for epoch in (1, 2)] == [True, True]


# Streams


def test_a_stream_counts_a_pass_once_whatever_the_number_of_workers():
    stream = StreamedSource(AugmentedDataset(COUNT))
    for epoch, workers in enumerate((0, 2, 1, 2)):
        loader = DataLoader(stream, batch_size=3, num_workers=workers)
        torch.manual_seed(0)  # draws the same number for every start of workers
        assert torch.equal(in_order(loader), expected(epoch))


def test_loaders_over_one_stream_count_their_own_passes_and_what_was_set_last_wins():
    stream = StreamedSource(AugmentedDataset(COUNT))
    loaders = [make_loader(stream, {"batch_size": 3}, shuffle=True, seed=1) for _ in range(2)]
    for epoch in range(2):
        assert [torch.equal(in_order(loader), expected(epoch)) for loader in loaders] == [True, True]
    stream.set_epoch(5)
    begin_epoch(loaders[0].dataset, 8, steered=True)
    begin_epoch(loaders[1].dataset, 8)
    assert [torch.equal(in_order(loader), expected(epoch)) for loader, epoch in zip(loaders, (8, 5), strict=True)] == [
        True,
        True,
    ]
    stream.set_epoch(3)
    assert [torch.equal(in_order(loader), expected(3)) for loader in loaders] == [True, True]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), max_size=12), st.randoms(use_true_random=False))
def test_workers_of_a_pass_share_its_epoch_in_whatever_order_they_begin(sessions, random):
    passes = StreamPasses()
    for epoch, (session, workers) in enumerate(sessions):  # a number of a session may come again
        assert [passes.begin(session, 0, workers=workers) for _ in range(workers)] == [epoch] * workers
    at_once = [(session, turn) for session in (5, 6) for turn in range(2) for _ in range(3)]
    random.shuffle(at_once)
    found = {}
    for session, turn in at_once:
        found.setdefault((session, turn), set()).add(passes.begin(session, turn, workers=3))
    assert sorted(found.values(), key=min) == [{len(sessions) + number} for number in range(4)]
