"""Passes over a loader are epochs of what is random in its dataset, wherever the dataset lies, until epochs are set."""

import pytest
import torch
from data_sets import AugmentedDataset
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, SequentialSampler, Subset, TensorDataset

from autotune.data.apply import apply
from autotune.data.build import EpochSampler, InOrderSampler, make_loader
from autotune.data.datasets.source_stream import StreamedSource
from autotune.data.distributed_epoch_sampler import DistributedEpochSampler
from autotune.data.epochs import Epoch
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


def served(shape, store, folder, workers, *, start=None, shuffle=False, **given):
    dataset = SHAPES[shape](AugmentedDataset(COUNT))
    config = LoaderConfig(batch_size=3, num_workers=workers, persistent_workers=workers > 0, **STORES[store])
    stored, arguments = apply(dataset, config, archive_root=folder)
    return make_loader(stored, arguments, shuffle=shuffle, seed=4, multiprocessing_context=start, **given)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in-order", "shuffled"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_pass_is_augmented_as_the_dataset_itself_is_in_that_epoch(shape, store, workers, shuffle, tmp_path):
    loader = served(shape, store, tmp_path, workers, shuffle=shuffle)
    for epoch in range(3):
        assert torch.equal(in_order(loader), expected(epoch))


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
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
    for _ in range(2):
        assert torch.equal(in_order(loader), expected(3))
    again = make_loader(loader.dataset, {"batch_size": 3})
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
    for _ in range(2):
        assert torch.equal(in_order(loader), expected(1))


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
