"""The device cache, its path run on the CPU as the device."""

import copy

import numpy as np
import pytest
import torch
from data_sets import AugmentedDataset, MixedDataset, keep_list
from torch.utils.data import Dataset, default_collate

from autotune.data.apply import prepare
from autotune.data.build import make_loader
from autotune.data.caches import CACHE_MODES
from autotune.data.facts import samples_equal
from autotune.data.whole_batch import WholeBatch, collate_whole
from autotune.errors import ArchiveError, CapacityError, RandomSamplesError
from autotune.spec import LoaderConfig

CPU = torch.device("cpu")
DEVICE = CACHE_MODES["device"]


class Parts(Dataset):
    """Gives one part beside a tensor."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.full((2,), index), copy.deepcopy(self.part)


@pytest.mark.parametrize(
    "part",
    [
        3,
        2.5,
        True,
        np.float32(1.5),
        np.arange(3, dtype=np.uint16),
        np.zeros((0, 2)),
        np.array(4, dtype=np.int8),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.tensor(2 + 3j),
        torch.zeros(5, 0),
        torch.tensor([True, False, True]),
        {"a": [1, (2.0, False)], 3: torch.ones(3, 5, 7, dtype=torch.uint8)},
    ],
    ids=str,
)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_batches_are_what_torch_collates(part, fraction):
    dataset = Parts(part)
    cached = DEVICE.wrap(dataset, fraction=fraction, device=CPU)
    for indices in ([0, 1, 2], [2, 5, 0], [5, 4, 3, 2, 1, 0], [1, 1]):
        batch = cached.__getitems__(indices)
        expected = default_collate([dataset[index] for index in indices])
        assert isinstance(batch, WholeBatch)
        assert samples_equal(batch.collated, expected)
        assert samples_equal(default_collate(list(batch)), expected)
    assert samples_equal(default_collate([cached[4]]), default_collate([dataset[4]]))


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ("text", "text"),
        (b"bytes", "bytes"),
        (2**70, "64 bits"),
        (1j, "complex"),
        (None, "None"),
        (np.arange(3, dtype=">i4"), ">i4"),
        (np.array(["text"]), "<U4"),
        (np.datetime64("2020-01-01"), "M8"),
    ],
)
def test_parts_that_are_no_tensors_are_refused_with_the_way_out(part, word):
    with pytest.raises(ArchiveError, match="memory") as caught:
        DEVICE.wrap(Parts(part), device=CPU)
    assert word in str(caught.value)


def test_varying_shapes_are_refused_with_the_way_out():
    class Varying(MixedDataset):
        def __getitem__(self, index):
            return torch.zeros(1 + index % 4)

    with pytest.raises(ArchiveError, match="cache 'memory'"):
        DEVICE.wrap(Varying(), device=CPU)


def test_augment_stage_is_refused_with_the_way_out():
    with pytest.raises(RandomSamplesError, match="cache 'memory'"):
        DEVICE.wrap(AugmentedDataset(), device=CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an accelerator")
def test_machine_without_accelerator_is_refused_with_the_way_out():
    with pytest.raises(ArchiveError, match="cache 'memory'"):
        DEVICE.wrap(MixedDataset())


def test_share_is_charged_against_the_limit():
    whole = DEVICE.wrap(MixedDataset(), device=CPU).size_bytes
    with pytest.raises(CapacityError) as caught:
        DEVICE.wrap(MixedDataset(), device=CPU, fraction=1.0, limit_bytes=whole - 1)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (whole, whole - 1)
    assert DEVICE.wrap(MixedDataset(), device=CPU, fraction=None, limit_bytes=whole // 2).fraction == 11 / 23


def test_loader_gives_batches_on_the_device_without_workers():
    config = LoaderConfig(batch_size=5, num_workers=3, pin_memory=True, cache="device")
    ready = prepare(MixedDataset(), config, device=CPU)
    assert ready.arguments["num_workers"] == 0
    assert not ready.arguments["pin_memory"]
    for _ in range(2):
        batches = list(make_loader(ready.dataset, ready.arguments))
        assert samples_equal(batches[1], default_collate([MixedDataset()[index] for index in range(5, 10)]))
    assert (ready.cache.hits, ready.cache.misses, ready.cache.filled) == (23, 23, 23)
    assert ready.cache.device == CPU


def test_callers_collate_gets_tensors_on_the_device():
    ready = prepare(MixedDataset(), LoaderConfig(batch_size=5, cache="device"), device=CPU)
    batch = next(iter(make_loader(ready.dataset, ready.arguments, collate_fn=keep_list)))
    assert [int(sample["parts"][1][0]) for sample in batch] == [0, 1, 2, 3, 4]
    assert all(isinstance(sample["flag"], torch.Tensor) for sample in batch)
    assert isinstance(batch[0]["parts"], tuple)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_are_refused_with_the_way_out(start):
    cached = DEVICE.wrap(MixedDataset(), device=CPU)
    with pytest.raises(ArchiveError, match="num_workers=0"):
        next(iter(make_loader(cached, {"num_workers": 1, "multiprocessing_context": start})))


def test_copy_is_refused():
    with pytest.raises(ArchiveError, match="num_workers=0"):
        copy.deepcopy(DEVICE.wrap(MixedDataset(), device=CPU))


def test_odd_sample_goes_through_uncached_and_torch_says_what_it_says():
    class Odd(MixedDataset):
        def __getitem__(self, index):
            return torch.full((3 if index != 5 else 4,), index)

    cached = DEVICE.wrap(Odd(30), device=CPU)
    with pytest.raises(RuntimeError, match="equal size"):
        collate_whole(cached.__getitems__([4, 5]))
    assert samples_equal(list(cached.__getitems__([4, 5, 6])), [Odd()[index] for index in (4, 5, 6)])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_samples_lie_on_the_accelerator():
    ready = prepare(MixedDataset(), LoaderConfig(batch_size=5, cache="device"))
    for _ in range(2):
        batches = list(make_loader(ready.dataset, ready.arguments))
        assert batches[0]["image"].device.type == "cuda"
        host = {"image": batches[0]["image"].cpu(), "flag": batches[0]["flag"].cpu()}
        plain = default_collate([MixedDataset()[index] for index in range(5)])
        assert samples_equal(host, {"image": plain["image"], "flag": plain["flag"]})
