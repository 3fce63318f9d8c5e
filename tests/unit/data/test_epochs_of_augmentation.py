"""Stored samples are augmented afresh each epoch, as the dataset itself would do it."""

import pytest
import torch
from torch.utils.data import Dataset

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.spec import LoaderConfig


class Jittered(Dataset):
    """Offers the three stages by name alone, with its own randomness when read plainly."""

    def read(self, index):
        return bytes([index])

    def decode(self, raw):
        return torch.tensor([float(raw[0] if isinstance(raw, bytes) else raw[0][0])])

    def augment(self, sample, generator):
        return sample + torch.rand(1, generator=generator)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.augment(self.decode(self.read(index)), None)


def epochs(count, *, shuffle, workers, set_epoch=None):
    config = LoaderConfig(batch_size=2, num_workers=workers, cache="memory")
    prepared = prepare(Jittered(), config)
    loader = make_loader(prepared.dataset, prepared.arguments, shuffle=shuffle, seed=3)
    found = []
    for epoch in range(count):
        if set_epoch is not None:
            prepared.dataset.set_epoch(set_epoch(epoch))
        found.append(sorted(float(value) for batch in loader for value in batch))
    return found


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_cached_samples_are_augmented_differently_in_each_epoch(shuffle, workers):
    first, second, third = epochs(3, shuffle=shuffle, workers=workers)
    assert first != second != third
    assert [int(value) for value in first] == [int(value) for value in third] == [0, 1, 2, 3, 4, 5]


def test_epochs_are_the_same_at_every_worker_count():
    assert epochs(2, shuffle=False, workers=0) == epochs(2, shuffle=False, workers=2)


def test_an_epoch_that_the_caller_sets_is_kept():
    first, second = epochs(2, shuffle=False, workers=0, set_epoch=lambda _: 7)
    assert first == second
