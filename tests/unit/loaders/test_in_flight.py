"""Looking at samples before training takes none of them away."""

import logging
from typing import ClassVar

import pytest
import torch
from torch.utils.data import IterableDataset

from autotune.loaders.general import DataLoaderConfig, EfficientDataLoader
from autotune.loaders.in_flight import largest_sample_bytes


class Shared(IterableDataset):
    """Hands out what is left of one iterator."""

    def __init__(self, count, hold=iter):
        self.source = hold(torch.arange(count))

    def __iter__(self):
        yield from self.source if not isinstance(self.source, list) else self.source[0]


class Itself(IterableDataset):
    def __init__(self, count):
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return torch.tensor(self.left)


class Anew(IterableDataset):
    """Begins anew in each pass, and keeps what was asked for in its class, which copies share."""

    asked: ClassVar = []

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for number in range(self.count):
            self.asked.append(number)
            yield torch.full((number + 1,), 0.0)


@pytest.mark.parametrize("make", [Shared, lambda count: Shared(count, hold=lambda all_: [iter(all_)]), Itself])
def test_a_stream_that_can_be_read_once_keeps_all_of_its_samples(make, caplog):
    with caplog.at_level(logging.WARNING, logger="autotune.loaders.in_flight"):
        config = DataLoaderConfig(batch_size=4, num_workers=0, memory_efficient=True, pin_memory_device="cpu")
        loader = EfficientDataLoader(make(20), config)
    assert "can be read once" in caplog.text
    assert sum(len(batch) for batch in loader) == 20


def test_a_stream_that_begins_anew_is_looked_at_no_further_than_needed():
    Anew.asked.clear()
    assert largest_sample_bytes(Anew(100)) == 8 * 4, "the eighth sample has eight numbers"
    assert Anew.asked == list(range(8))
