"""`EfficientDataLoader`: each setting of its configuration by its effect, and the factories."""

import logging
import os
import warnings
from collections import namedtuple

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from registry_values import decision_here
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    random_split,
)

from autotune.data.build import make_loader
from autotune.data.datasets.general_images import ImageDataset
from autotune.data.datasets.hdf5_arrays import ChunkShuffleSampler, HDF5Dataset
from autotune.data.stages import StagedDataset
from autotune.errors import CapacityError, SampleError, SpecError
from autotune.loaders.collating import CustomCollateFn
from autotune.loaders.general import DataLoaderFactory, EfficientDataLoader
from autotune.loaders.general_config import DataLoaderConfig
from autotune.loaders.transfer import Transfer, device_or_cpu, is_there
from autotune.measure.batches import move_batch
from autotune.registry import open_registry
from autotune.resolve.resolution import AutotuneWarning
from autotune.spec import LoaderConfig

COUNT = 20


class Numbers(Dataset):
    """Samples that tell their index."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return torch.full((4,), float(index)), torch.tensor(index)

    def fingerprint(self):
        return "numbers of a general loader"


class Processes(Numbers):
    """Samples that tell who made them."""

    def __getitem__(self, index):
        return torch.tensor(os.getpid()), torch.tensor(index)


class Stream(IterableDataset):
    """Samples in an order of their own."""

    def __iter__(self):
        return iter([torch.tensor(float(number)) for number in range(COUNT)])


class Augmented(StagedDataset):
    """Samples that are different in every epoch."""

    def fingerprint(self):
        return "augmented numbers of a general loader"

    def __len__(self):
        return COUNT

    def read(self, index):
        return (bytes([index]),)

    def decode(self, raw):
        return torch.tensor(float(raw[0][0]))

    def augment(self, sample, generator):
        return sample + torch.rand((), generator=generator)


def settings(**changes):
    """Give a configuration for the CPU, quiet and without workers."""
    quiet = {"num_workers": 0, "pin_memory_device": "cpu", "batch_size": 4, "enable_monitoring": False}
    return DataLoaderConfig(**{**quiet, "log_loading_stats": False, **changes})


def order_of(loader):
    return [int(index) for _, indices in loader for index in indices]


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutotuneWarning)
        yield


def test_batch_size_and_drop_last():
    loader = EfficientDataLoader(Numbers(), settings(batch_size=6))
    assert [len(indices) for _, indices in loader] == [6, 6, 6, 2]
    assert len(loader) == 4
    assert len(list(EfficientDataLoader(Numbers(), settings(batch_size=6, drop_last=True)))) == 3


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_num_workers_make_the_samples(workers):
    loader = EfficientDataLoader(Processes(), settings(num_workers=workers))
    makers = {int(pid) for pids, _ in loader for pid in pids}
    assert len(makers) == max(1, workers)
    assert (os.getpid() in makers) == (workers == 0)


def test_persistent_workers_stay_from_epoch_to_epoch():
    def makers(loader):
        return {int(pid) for pids, _ in loader for pid in pids}

    staying = EfficientDataLoader(Processes(), settings(num_workers=1))
    assert makers(staying) == makers(staying)
    leaving = EfficientDataLoader(Processes(), settings(num_workers=1, persistent_workers=False))
    assert makers(leaving) != makers(leaving)


def test_prefetch_factor_reaches_the_workers():
    assert EfficientDataLoader(Numbers(), settings(num_workers=1, prefetch_factor=5)).dataloader.prefetch_factor == 5
    assert EfficientDataLoader(Numbers(), settings(num_workers=0, prefetch_factor=5)).dataloader.prefetch_factor is None


def test_shuffle_and_generator_seed():
    plain = order_of(EfficientDataLoader(Numbers(), settings(shuffle=False)))
    assert plain == list(range(COUNT))
    seeded = [EfficientDataLoader(Numbers(), settings(generator_seed=3, num_workers=w)) for w in (0, 2)]
    first, second = order_of(seeded[0]), order_of(seeded[0])
    assert sorted(first) == plain != first
    assert first != second
    assert order_of(seeded[1]) == first
    assert order_of(EfficientDataLoader(Numbers(), settings(generator_seed=4))) != first
    reference = torch.utils.data.DataLoader(
        Numbers(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    assert order_of(reference) == first


def test_collate_fn_makes_the_batch():
    loader = EfficientDataLoader(Numbers(), settings(collate_fn=CustomCollateFn.variable_length_collate))
    sequences, targets = next(iter(loader))
    assert isinstance(sequences, list)
    assert targets.shape == (4,)
    stacked = next(iter(EfficientDataLoader(Numbers(), settings())))
    assert stacked[0].shape == (4, 4)


def test_samplers_give_the_order():
    backwards = list(reversed(range(COUNT)))
    loader = EfficientDataLoader(Numbers(), settings(custom_sampler=SequentialSampler(backwards)))
    assert order_of(loader) == list(range(COUNT))
    loader = EfficientDataLoader(Numbers(), settings(custom_sampler=backwards))
    assert order_of(loader) == backwards
    batches = BatchSampler(SequentialSampler(range(COUNT)), 7, drop_last=True)
    loader = EfficientDataLoader(
        Numbers(), settings(custom_batch_sampler=batches, custom_sampler=RandomSampler(range(3)), drop_last=False)
    )
    assert [indices.tolist() for _, indices in loader] == [list(range(7)), list(range(7, 14))]


def test_epochs_can_be_set_for_sampler_and_dataset(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=np.arange(COUNT), chunks=(3,), compression="gzip")
    dataset = HDF5Dataset(tmp_path / "a.h5")
    loader = EfficientDataLoader(dataset, settings(custom_sampler=ChunkShuffleSampler(dataset, chunks=2)))
    first = [batch.tolist() for batch in loader]
    assert sorted(index for batch in first for index in batch) == list(range(COUNT))
    assert [batch.tolist() for batch in loader] != first
    loader.set_epoch(0)
    assert [batch.tolist() for batch in loader] == first


def augmented(epoch):
    """Give the samples as the dataset itself has them in an epoch."""
    dataset = Augmented()
    dataset.set_epoch(epoch)
    return sorted(dataset[index].item() for index in range(COUNT))


def values(loader):
    return sorted(torch.cat(list(loader)).tolist())


SHAPES = {
    "bare": lambda dataset: dataset,
    "subset": lambda dataset: Subset(dataset, range(COUNT)),
    "split": lambda dataset: random_split(dataset, [COUNT, 0])[0],
    "concatenated": lambda dataset: ConcatDataset([Subset(dataset, [0]), Subset(dataset, range(1, COUNT))]),
}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_pass_is_an_epoch_of_its_own_for_augmentation(shape, workers, shuffle):
    loader = EfficientDataLoader(SHAPES[shape](Augmented()), settings(shuffle=shuffle, num_workers=workers))
    assert [values(loader) for _ in range(3)] == [augmented(epoch) for epoch in range(3)]
    loader.set_epoch(1)
    assert [values(loader) for _ in range(2)] == [augmented(1), augmented(2)]


@pytest.mark.parametrize("best", [LoaderConfig(num_workers=1), LoaderConfig(cache="memory")])
def test_each_pass_is_an_epoch_where_the_configuration_is_resolved(tmp_path, best):
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(Augmented(), best.canonical(has_accelerator=False)))
    loader = EfficientDataLoader(Augmented(), settings(num_workers=None), home=tmp_path)
    assert [values(loader) for _ in range(2)] == [augmented(0), augmented(1)]
    loader.set_epoch(0)
    assert values(loader) == augmented(0)


def test_a_benchmark_of_passes_leaves_later_loaders_counting_by_themselves():
    dataset = Augmented()
    for _ in EfficientDataLoader(dataset, settings()):
        pass
    later = make_loader(dataset, {"batch_size": 4})
    assert [values(later) for _ in range(2)] == [augmented(0), augmented(1)]


def test_validation_in_the_middle_of_an_epoch_leaves_that_of_training_alone():
    train, val = random_split(Augmented(), [COUNT - 8, 8])
    training, validation = (EfficientDataLoader(part, settings(shuffle=part is train)) for part in (train, val))
    for epoch in range(3):
        for batch in training:
            assert set(batch.tolist()) <= set(augmented(epoch))
            assert set(values(validation)) <= set(augmented(epoch))
    validation.set_epoch(7)
    assert set(values(validation)) <= set(augmented(7))


# Several processes


RANKS = [{"TORCHELASTIC_RUN_ID": "a run", "RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]


@pytest.fixture
def known(tmp_path):
    """A home that knows a configuration for numbers and augmented samples."""
    with open_registry(tmp_path) as registry:
        for dataset in (Numbers(), Augmented()):
            registry.save_decision(decision_here(dataset, LoaderConfig(num_workers=0).canonical(has_accelerator=False)))
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1, None])
@pytest.mark.parametrize("seed", [None, 3, -5])
def test_ranks_share_the_samples_however_workers_are_chosen(known, workers, seed):
    config = settings(num_workers=workers, generator_seed=seed)
    loaders = [EfficientDataLoader(Numbers(), config, home=known, environ=rank) for rank in RANKS]
    reference = [EfficientDataLoader(Numbers(), settings(generator_seed=seed), rank=r, world_size=2) for r in range(2)]
    for _ in range(2):
        shares = [order_of(loader) for loader in loaders]
        assert sorted(shares[0] + shares[1]) == list(range(COUNT))
        assert shares == [order_of(loader) for loader in reference]
    assert len(loaders[0]) == 3
    whole = EfficientDataLoader(Numbers(), config, home=known, rank=0, world_size=1, environ=RANKS[1])
    assert len(order_of(whole)) == COUNT


@pytest.mark.parametrize("workers", [0, None])
def test_an_epoch_that_is_set_has_order_and_augmentation_of_its_number_on_a_rank(known, workers):
    loader = EfficientDataLoader(Augmented(), settings(num_workers=workers), home=known, environ=RANKS[0])
    first, second = (torch.cat(list(loader)).tolist() for _ in range(2))
    assert [int(value) for value in first] != [int(value) for value in second]
    loader.set_epoch(0)
    assert [torch.cat(list(loader)).tolist() for _ in range(2)] == [first, second]


def test_streams_are_divided_and_callers_samplers_and_other_streams_are_not(photos):
    for number in (2, 3):
        (photos / f"{number}.png").unlink()
    shares = [
        EfficientDataLoader(ImageDataset(photos, 8, None, "streaming"), settings(batch_size=1), environ=rank)
        for rank in RANKS
    ]
    assert [sum(len(images) for images, _ in loader) for loader in shares] == [2, 2]
    own = settings(custom_sampler=SequentialSampler(range(COUNT)))
    assert order_of(EfficientDataLoader(Numbers(), own, environ=RANKS[1])) == list(range(COUNT))
    assert len(torch.cat(list(EfficientDataLoader(Stream(), settings(), environ=RANKS[1])))) == COUNT


def test_a_sampler_that_takes_epochs_is_told_those_that_are_set_and_what_a_batch_sampler_stands_on_too():
    ranks = DistributedSampler(Numbers(), 2, 0)
    loader = EfficientDataLoader(Numbers(), settings(custom_batch_sampler=BatchSampler(ranks, 4, drop_last=False)))
    ranks.set_epoch(6)
    order = order_of(loader)
    loader.set_epoch(0)
    assert order_of(loader) != order
    assert ranks.epoch == 0
    order_of(loader)
    assert ranks.epoch == 1
    loader.set_epoch(6)
    assert order_of(loader) == order


def test_iterable_datasets_keep_their_order(caplog):
    loader = EfficientDataLoader(Stream(), settings(shuffle=True))
    assert torch.cat(list(loader)).tolist() == list(range(COUNT))
    with caplog.at_level(logging.WARNING):
        ordered = EfficientDataLoader(Stream(), settings(custom_sampler=SequentialSampler(range(3))))
    assert len(torch.cat(list(ordered))) == COUNT
    assert "its own order" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_missing_device_falls_back_to_the_cpu_with_one_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = EfficientDataLoader(Numbers(), settings(pin_memory_device="cuda", num_workers=1))
        for _ in range(2):
            images, _ = next(iter(loader))
    assert [one.category for one in caught] == [AutotuneWarning]
    assert "pin_memory_device='cuda'" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert (images.device.type, loader.device.type) == ("cpu", "cpu")
    assert loader.dataloader.pin_memory is False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("non_blocking", [True, False])
@pytest.mark.parametrize("pin_memory", [True, False])
def test_batches_arrive_on_the_accelerator(non_blocking, pin_memory):
    config = settings(pin_memory_device="cuda", non_blocking=non_blocking, pin_memory=pin_memory, shuffle=False)
    loader = EfficientDataLoader(Numbers(), config)
    assert loader.dataloader.pin_memory is pin_memory
    batches = list(loader)
    assert all(images.is_cuda and targets.is_cuda for images, targets in batches)
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(COUNT))


class Telling(torch.Tensor):
    """A tensor that tells how it was moved."""

    def to(self, device, **how):
        self.moved = device, how
        return self


@pytest.mark.parametrize("non_blocking", [True, False])
def test_non_blocking_reaches_every_tensor_of_any_nesting(non_blocking):
    parts = [torch.zeros(1).as_subclass(Telling) for _ in range(4)]
    Named = namedtuple("Named", "a b")  # noqa: PYI024
    batch = {"x": [parts[0], (parts[1], "text")], "y": Named(parts[2], 3), "z": parts[3]}
    device = torch.device("meta")
    [moved] = Transfer(device, non_blocking=non_blocking).over([batch])
    assert [part.moved for part in parts] == [(device, {"non_blocking": non_blocking})] * 4
    assert isinstance(moved["y"], Named)
    assert isinstance(moved["x"][1], tuple)
    assert moved["x"][1][1] == "text"
    packed = move_batch(pack_sequence([torch.zeros(3), torch.zeros(2)]), device, non_blocking=non_blocking)
    assert isinstance(packed, PackedSequence)
    assert packed.data.device == device


def test_devices_that_are_there():
    assert is_there(torch.device("cpu"))
    assert is_there(torch.device("meta"))
    assert is_there(torch.device("cuda", 99)) is False
    assert device_or_cpu("cpu").type == "cpu"
    loader = EfficientDataLoader(Numbers(), settings(pin_memory_device="meta"))
    assert all(images.device.type == "meta" for images, _ in loader)


def test_memory_efficient_limits_batches_on_their_way():
    sample_bytes = 4 * 4 + 8

    def loader(free, **changes):
        config = settings(num_workers=2, prefetch_factor=4, memory_efficient=True, **changes)
        return EfficientDataLoader(Numbers(), config, available=lambda: free).dataloader

    batch_bytes = 4 * sample_bytes
    roomy = loader(1000 * batch_bytes)
    assert (roomy.num_workers, roomy.prefetch_factor) == (2, 4)
    tight = loader(10 * batch_bytes, max_memory_usage=0.5)  # five batches: two for each worker, and one in use
    assert (tight.num_workers, tight.prefetch_factor) == (2, 2)
    less = loader(10 * batch_bytes, max_memory_usage=0.2)
    assert (less.num_workers, less.prefetch_factor) == (1, 1)
    assert loader(10 * batch_bytes, max_memory_usage=0.1).num_workers == 0
    with pytest.raises(CapacityError, match="one batch needs 96 B"):
        loader(10 * batch_bytes, max_memory_usage=0.01)
    assert (
        EfficientDataLoader(
            Numbers(), settings(num_workers=2, max_memory_usage=0.01), available=lambda: 1
        ).dataloader.num_workers
        == 2
    )


def test_memory_efficient_on_streams():
    config = settings(num_workers=1, memory_efficient=True, max_memory_usage=1.0)
    loader = EfficientDataLoader(Stream(), config, available=lambda: 3 * 4 * 4)
    assert (loader.dataloader.num_workers, loader.dataloader.prefetch_factor) == (1, 2)
    assert len(torch.cat(list(loader))) == COUNT


def test_monitoring_gives_figures():
    loader = EfficientDataLoader(Numbers(), settings(enable_monitoring=True))
    assert loader.get_stats() == {}
    list(loader)
    stats = loader.get_stats()
    assert (stats["batches"], stats["samples"]) == (5, COUNT)
    for name in ("batches_per_second", "avg_memory_usage", "avg_wait_time", "total_time"):
        assert stats[name] >= 0
    assert 0 <= stats.get("avg_cpu_usage", 0) <= 100, "absent where the epoch is too short for the system's clock"
    unwatched = EfficientDataLoader(Numbers(), settings())
    list(unwatched)
    assert unwatched.get_stats() == {}
    assert unwatched.performance_monitor is None


def test_loading_stats_are_logged_at_the_end_of_each_epoch(caplog):
    with caplog.at_level(logging.INFO, logger="autotune.loaders.general"):
        list(EfficientDataLoader(Numbers(), settings()))
        assert not caplog.records
        loader = EfficientDataLoader(Numbers(), settings(log_loading_stats=True))
        list(loader)
        list(loader)
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "epoch 0: 5 batches",
        "epoch 1: 5 batches",
    ]


def test_changed_configuration_is_checked_when_a_loader_is_made():
    config = settings()
    config.batch_size = -1
    with pytest.raises(SpecError, match="batch_size"):
        EfficientDataLoader(Numbers(), config)


@pytest.mark.parametrize(
    "best",
    [LoaderConfig(num_workers=1, prefetch_factor=3), LoaderConfig(), LoaderConfig(num_workers=1, cache="memory")],
)
def test_no_number_of_workers_takes_what_was_measured_best(tmp_path, best):
    with open_registry(tmp_path) as registry:
        registry.save_decision(decision_here(Numbers(), best.canonical(has_accelerator=False)))
    config = settings(num_workers=None, generator_seed=3)
    loader = EfficientDataLoader(Numbers(), config, home=tmp_path)
    assert loader.dataloader.num_workers == best.num_workers
    assert loader.dataloader.prefetch_factor == best.prefetch_factor or best.prefetch_factor is None
    assert loader.dataloader.batch_size == 4
    assert hasattr(loader.dataloader.dataset, "filled") == (best.cache == "memory")
    fixed = EfficientDataLoader(Numbers(), settings(generator_seed=3))
    for _ in range(2):
        assert order_of(loader) == order_of(fixed)


def test_resolved_workers_stay_within_memory(tmp_path):
    with open_registry(tmp_path) as registry:
        best = LoaderConfig(num_workers=2, prefetch_factor=4).canonical(has_accelerator=False)
        registry.save_decision(decision_here(Numbers(), best))
    config = settings(num_workers=None, memory_efficient=True, max_memory_usage=1.0)
    loader = EfficientDataLoader(Numbers(), config, home=tmp_path, available=lambda: 3 * 96)
    assert (loader.dataloader.num_workers, loader.dataloader.prefetch_factor) == (2, 1)
    batches = BatchSampler(SequentialSampler(range(COUNT)), 4, drop_last=False)
    own = EfficientDataLoader(Numbers(), settings(num_workers=None, custom_batch_sampler=batches), home=tmp_path)
    assert order_of(own) == list(range(COUNT))


@pytest.fixture
def photos(tmp_path):
    """Six images, two of them broken."""
    for number in range(6):
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    for number in (2, 3):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    return tmp_path


@pytest.mark.fault(12)
@pytest.mark.parametrize("mode", ["lazy", "eager", "cached", "streaming"])
@pytest.mark.parametrize("workers", [0, 1, None])
def test_broken_images_are_left_out_and_counted(photos, mode, workers):
    dataset = ImageDataset(photos, 8, None, mode, on_broken="skip")
    config = settings(batch_size=2, num_workers=workers, shuffle=False, enable_monitoring=True)
    with open_registry(photos / "home"):  # an empty one
        loader = EfficientDataLoader(dataset, config, home=photos / "home")
    for _ in range(2):
        assert [len(images) for images, _ in loader] == [2, 2]
    assert len(loader) == 3
    assert loader.get_stats()["broken_files"] == 2


@pytest.mark.fault(12)
@pytest.mark.parametrize("mode", ["lazy", "cached", "streaming"])
def test_broken_images_are_replaced(photos, mode):
    dataset = ImageDataset(photos, 8, None, mode, on_broken="substitute")
    loader = EfficientDataLoader(dataset, settings(batch_size=2, shuffle=False))
    images = torch.cat([images for images, _ in loader])
    assert len(images) == 6
    assert torch.equal(images[2], images[4])
    assert len(dataset.broken_files) == 2


@pytest.mark.fault(12)
@pytest.mark.parametrize("workers", [0, 1, None])
def test_broken_images_inside_a_subset_are_left_out_and_counted(photos, workers):
    subset = Subset(ImageDataset(photos, 8, on_broken="skip"), [5, 3, 2, 0])
    with open_registry(photos / "home") as registry:
        best = LoaderConfig(num_workers=0, cache="memory").canonical(has_accelerator=False)
        registry.save_decision(decision_here(subset, best))
    config = settings(batch_size=2, num_workers=workers, shuffle=False, enable_monitoring=True)
    loader = EfficientDataLoader(subset, config, home=photos / "home")
    for _ in range(2):
        assert [targets.shape for _, targets in loader] == [(1,), (1,)]
    assert loader.get_stats()["broken_files"] == 2


@pytest.mark.fault(12)
@pytest.mark.parametrize("workers", [0, 1, None])
@pytest.mark.parametrize("inside", [False, True])
def test_broken_images_inside_a_concatenation_are_left_out_and_counted(photos, workers, inside):
    part = ImageDataset(photos, 8, on_broken="skip")
    whole = ConcatDataset([Subset(part, range(3)), Subset(part, range(3, 6))])
    dataset = Subset(whole, range(6)) if inside else whole
    with open_registry(photos / "home") as registry:
        best = LoaderConfig(num_workers=1, prefetch_factor=3).canonical(has_accelerator=False)
        registry.save_decision(decision_here(dataset, best))
    config = settings(batch_size=2, num_workers=workers, shuffle=False, enable_monitoring=True)
    loader = EfficientDataLoader(dataset, config, home=photos / "home")
    assert loader.num_workers == (1 if workers is None else workers), "what was measured is known"
    assert [len(images) for images, _ in loader] == [2, 2]
    assert loader.get_stats()["broken_files"] == 2


@pytest.mark.fault(12)
def test_a_part_that_raises_is_not_left_out_because_another_part_may_be(photos):
    parts = [ImageDataset(photos, 8, on_broken=policy) for policy in ("skip", "raise")]
    with pytest.raises(SampleError, match=r"2\.png"):
        list(EfficientDataLoader(ConcatDataset(parts), settings(shuffle=False)))


def test_streaming_inside_a_subset_is_not_ignored_without_a_word(photos, caplog):
    subset = Subset(ImageDataset(photos, 8, None, "streaming"), [0, 1])
    loader = EfficientDataLoader(subset, settings(shuffle=False))
    assert "streamed as a whole alone" in caplog.text
    assert [len(images) for images, _ in loader] == [2]


def test_settings_of_the_loader_behind_it_can_be_read():
    loader = EfficientDataLoader(Numbers(), settings(num_workers=2, prefetch_factor=3))
    told = (loader.batch_size, loader.num_workers, loader.prefetch_factor, loader.persistent_workers)
    assert told == (4, 2, 3, True)
    batches = BatchSampler(SequentialSampler(range(COUNT)), 7, drop_last=True)
    alone = EfficientDataLoader(Numbers(), settings(custom_batch_sampler=batches))
    told = (alone.batch_size, alone.num_workers, alone.prefetch_factor, alone.persistent_workers)
    assert told == (None, 0, None, False)


def test_streaming_mode_reads_an_archive_where_there_is_a_folder_for_it(photos, tmp_path):
    dataset = ImageDataset(photos, 8, None, "streaming", on_broken="substitute")
    loader = EfficientDataLoader(dataset, settings(), archive_root=tmp_path / "archives")
    assert sum(len(images) for images, _ in loader) == 6
    assert (tmp_path / "archives").is_dir()


def test_factory_for_images(photos):
    for number in (2, 3):
        (photos / f"{number}.png").unlink()
    loader = DataLoaderFactory.create_image_dataloader(photos, settings(), image_size=(8, 9), on_broken="skip")
    images, targets = next(iter(loader))
    assert (images.shape, targets.tolist()) == ((4, 3, 8, 9), [0] * 4)


def test_factory_for_texts(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo words\nthree\nand a fourth line\n")
    ids, targets = next(iter(DataLoaderFactory.create_text_dataloader(tmp_path / "a.txt", settings(), max_length=16)))
    assert (ids.shape, targets.shape) == ((4, 16), (4,))
    default = DataLoaderFactory.create_text_dataloader(tmp_path / "a.txt", settings())
    assert next(iter(default))[0].shape == (4, 512)
    varying = settings(collate_fn=CustomCollateFn.variable_length_collate, shuffle=False)
    texts, _ = next(iter(DataLoaderFactory.create_text_dataloader(tmp_path / "a.txt", varying, max_length=5)))
    assert [len(one) for one in texts] == [3, 5, 5, 5]
    padded = settings(collate_fn=CustomCollateFn.padded_collate, shuffle=False)
    own = DataLoaderFactory.create_text_dataloader(tmp_path / "a.txt", padded, tokenizer=lambda text: [len(text)])
    assert next(iter(own))[0].tolist() == [[3], [9], [5], [17]]


def test_factory_for_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.arange(12, dtype=np.float32).reshape(6, 2)
        file["data"] = np.arange(6)
    loader = DataLoaderFactory.create_hdf5_dataloader(
        tmp_path / "a.h5", settings(shuffle=False), dataset_name="features"
    )
    assert torch.cat(list(loader)).tolist() == np.arange(12).reshape(6, 2).tolist()
    default = DataLoaderFactory.create_hdf5_dataloader(tmp_path / "a.h5", settings(), target_name="features")
    assert [part.shape for part in next(iter(default))] == [(4,), (4, 2)]


def test_factory_for_any_dataset(tmp_path):
    loader = DataLoaderFactory.create_dataloader(Numbers(), settings(), home=tmp_path)
    assert isinstance(loader, EfficientDataLoader)
    assert sorted(order_of(loader)) == list(range(COUNT))


def test_factories_of_one_kind_take_what_the_one_for_any_dataset_takes(photos, tmp_path):
    for number in (2, 3):
        (photos / f"{number}.png").unlink()
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.arange(6)
    resolved, home = settings(num_workers=None, memory_efficient=True), tmp_path / "home"
    with open_registry(home):  # an empty one; another home would warn
        asked = []
        given = {"home": home, "available": lambda: asked.append(True) or 2**30}
        makers = DataLoaderFactory
        makers.create_image_dataloader(photos, resolved, (8, 8), **given)
        makers.create_text_dataloader(tmp_path / "a.txt", resolved, **given)
        makers.create_hdf5_dataloader(tmp_path / "a.h5", resolved, **given)
    assert len(asked) >= 3
    archives = tmp_path / "archives"
    makers.create_image_dataloader(photos, settings(), (8, 8), archive_root=archives, loading_mode="streaming")
    assert archives.is_dir()
