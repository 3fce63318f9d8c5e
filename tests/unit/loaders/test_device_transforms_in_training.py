"""Where training meets `device_transform`: run by what moves batches itself, left to the caller by plain loaders."""

import warnings

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from autotune.data.device_stage import device_transform_of
from autotune.errors import SpecError
from autotune.loaders.benchmarking import benchmark_dataloader
from autotune.loaders.general import EfficientDataLoader
from autotune.loaders.general_config import DataLoaderConfig
from autotune.resolve.best import best_loader
from autotune.resolve.resolution import AutotuneWarning


class Doubled(Dataset):
    """Numbers that are doubled on the device, which is noted."""

    def __init__(self):
        self.seen = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if not 0 <= index < 10:
            raise IndexError(index)
        return torch.tensor(float(index))

    def fingerprint(self):
        return "doubled"

    def device_transform(self, batch):
        self.seen.append((str(batch.device), len(batch)))
        return 2 * batch


def config(**changes):
    return DataLoaderConfig(
        **{"batch_size": 4, "num_workers": 0, "shuffle": False, "pin_memory_device": "cpu", **changes}
    )


def values(loader):
    return torch.cat(list(loader)).tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_efficient_loader_gives_batches_after_it_and_its_dataloader_before_it(workers):
    dataset = Doubled()
    loader = EfficientDataLoader(Subset(dataset, range(10)), config(num_workers=workers))
    assert values(loader) == [2.0 * number for number in range(10)]
    assert dataset.seen == [("cpu", 4), ("cpu", 4), ("cpu", 2)], "run here and not in a worker"
    assert values(loader.dataloader) == [float(number) for number in range(10)]


def test_efficient_loader_runs_it_on_the_device_that_batches_are_moved_to():
    dataset = Doubled()
    loader = EfficientDataLoader(dataset, config(pin_memory_device="meta"))
    assert {str(batch.device) for batch in loader} == {"meta"}
    assert {device for device, _ in dataset.seen} == {"meta"}


def test_efficient_loader_refuses_parts_that_differ_before_it_loads():
    other = Doubled()
    other.device_transform = None
    with pytest.raises(SpecError, match="set device_transform on the ConcatDataset"):
        EfficientDataLoader(ConcatDataset([Doubled(), other]), config())


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_best_loader_leaves_it_to_the_caller(tmp_path, cache):
    dataset = Doubled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutotuneWarning)
        loader = best_loader(Subset(dataset, range(10)), home=tmp_path, batch_size=4, cache=cache)
    assert values(loader) == [float(number) for number in range(10)]
    assert dataset.seen == []
    assert device_transform_of(loader.dataset)(torch.ones(1)).item() == 2.0


def test_a_benchmark_runs_it_once_for_every_batch():
    given = []
    for make in (lambda one: DataLoader(one, batch_size=5), lambda one: EfficientDataLoader(one, config(batch_size=5))):
        dataset = Doubled()
        found = benchmark_dataloader(make(dataset), process=given.append, time_cap_s=0.05)
        assert len(dataset.seen) >= found.batches > 0
        assert len(given) == len(dataset.seen)
        assert {batch.max().item() for batch in given} <= {8.0, 18.0}
        given.clear()
