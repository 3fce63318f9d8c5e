"""`device_transform`: where it is found, and that nothing that is stored knows of it."""

import functools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, random_split

from autotune.data.apply import apply, prepare
from autotune.data.build import make_loader
from autotune.data.device_stage import TransformsOnDevice, device_transform_of
from autotune.data.fingerprint import device_transform_digest, source_fingerprint
from autotune.data.stages import StagedDataset
from autotune.errors import SpecError
from autotune.spec import LoaderConfig
from autotune.trial.payload import sent_source


class Scaled(StagedDataset):
    """Bytes that are scaled on the device."""

    unfingerprinted = ("factor", "handle")

    def __init__(self, folder, factor=2.0):
        StagedDataset.__init__(self)
        self.folder, self.factor, self.handle = folder, factor, object()

    def __len__(self):
        return 12

    def read(self, index):
        return ((self.folder / f"{index}").read_bytes(),)

    def decode(self, raw):
        return torch.tensor(list(raw[0]), dtype=torch.uint8)

    def source_paths(self):
        return [self.folder / f"{index}" for index in range(12)]

    def device_transform(self, batch):
        return batch * self.factor


def scaled_and_one_more(self, batch):
    return batch * self.factor + 1


MEMBERS = {name: value for name, value in vars(Scaled).items() if name not in ("__dict__", "__weakref__")}
ScaledOtherwise = type("Scaled", (StagedDataset,), {**MEMBERS, "device_transform": scaled_and_one_more})
"""The same class but for what it does on the device."""


class Bare(Dataset):
    """Nothing of its own for the device."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.tensor(index)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(4))

    def device_transform(self, batch):
        return -batch


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "files"
    made.mkdir()
    for number in range(12):
        (made / f"{number}").write_bytes(bytes([number, number]))
    return made


def halved(batch):
    return batch / 2


CONFIGS = [
    LoaderConfig(batch_size=4, archive="npy"),
    LoaderConfig(batch_size=4, archive="tar", stored="encoded"),
    LoaderConfig(batch_size=4, archive="tar", cache="memory"),
    LoaderConfig(batch_size=4, cache="memory"),
    LoaderConfig(batch_size=4, archive="tar", order="streaming"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.label())
@pytest.mark.parametrize("inside", [False, True])
def test_it_is_found_behind_archives_and_caches_which_give_samples_before_it(folder, tmp_path, config, inside):
    dataset = Subset(Scaled(folder), range(1, 12)) if inside else Scaled(folder)
    prepared = prepare(dataset, config, archive_root=tmp_path / "archives")
    transform = device_transform_of(prepared.dataset)
    batch = next(iter(make_loader(prepared.dataset, prepared.arguments, seed=0)))
    assert batch.dtype == torch.uint8, "what is stored is as it was read"
    assert torch.equal(transform(batch), batch * 2.0)
    assert transform == device_transform_of(dataset)


def test_it_is_found_in_parts_of_a_dataset(folder):
    dataset = Scaled(folder)
    train, _ = random_split(dataset, [8, 4])
    assert device_transform_of(train) == device_transform_of(Subset(train, [0])) == dataset.device_transform
    assert isinstance(dataset, TransformsOnDevice)
    assert device_transform_of(Stream())(torch.tensor(1)) == -1


def test_a_dataset_without_one_or_with_none_has_none():
    dataset = Bare()
    assert device_transform_of(dataset) is None
    assert not isinstance(dataset, TransformsOnDevice)
    dataset.device_transform = None
    assert device_transform_of(Subset(dataset, [0])) is None
    assert device_transform_of(ConcatDataset([dataset, Bare()])) is None


def test_parts_that_share_batches_must_agree(folder):
    whole = Scaled(folder)
    alike = ConcatDataset([whole, Subset(whole, range(3))])
    assert torch.equal(device_transform_of(alike)(torch.ones(1)), torch.full((1,), 2.0))
    for other in (Scaled(folder, factor=3.0), ScaledOtherwise(folder), Bare()):
        mixed = ConcatDataset([Scaled(folder), other])
        with pytest.raises(SpecError, match="set device_transform on the ConcatDataset itself"):
            device_transform_of(mixed)
        mixed.device_transform = halved
        assert device_transform_of(Subset(mixed, [0])) is halved


class Centred(Bare):
    """Takes off what it holds, by way of a method and a property; the rest changes nothing."""

    def __init__(self, mean, length=12):
        self.mean, self.length, self.handle = mean, length, object()

    def __len__(self):
        return self.length

    @property
    def centre(self):
        return torch.as_tensor(self.mean)

    def centred(self, batch):
        return batch - self.centre

    def device_transform(self, batch):
        return self.centred(batch)


class ByAnotherObject(Bare):
    """Holds an object that takes something off, with no comparison of its own."""

    def __init__(self, mean):
        self.device_transform = TakesOff(mean)


class TakesOff:
    def __init__(self, mean):
        self.mean = mean

    def __call__(self, batch):
        return batch - self.mean


class ByAModule(Bare):
    def __init__(self, mean):
        self.device_transform = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.device_transform.weight, float(torch.as_tensor(mean).sum()))
        torch.nn.init.zeros_(self.device_transform.bias)


MEANS = [
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])),
    (np.array([1.0, 2.0]), np.array([1.0, 3.0])),
    ([torch.tensor(1.0)], [torch.tensor(3.0)]),
    (1.0, 3.0),
]


@pytest.mark.parametrize("kind", [ByAnotherObject, ByAModule])
@pytest.mark.parametrize(("mean", "other"), MEANS, ids=lambda mean: type(mean).__name__)
def test_parts_agree_by_the_state_of_their_objects(kind, mean, other):
    alike = ConcatDataset([kind(mean), kind(pickle.loads(pickle.dumps(mean)))])
    assert device_transform_of(alike) == alike.datasets[0].device_transform
    with pytest.raises(SpecError, match="set device_transform on the ConcatDataset itself"):
        device_transform_of(ConcatDataset([kind(mean), kind(other)]))


def test_methods_of_two_datasets_are_different_whatever_they_hold():
    one = Centred(1.0)
    assert device_transform_of(ConcatDataset([Subset(one, [0]), one])) == one.device_transform
    for other in (Centred(1.0), Centred(torch.tensor(3.0))):
        with pytest.raises(SpecError, match="must have equal device transforms"):
            device_transform_of(ConcatDataset([one, other]))


@pytest.mark.parametrize("make", [lambda: torch.eye(2).to_sparse(), object])
def test_what_cannot_be_compared_is_different_unless_it_is_one_object(make):
    one, same, other = (ByAnotherObject(make()) for _ in range(3))
    same.device_transform = one.device_transform
    assert device_transform_of(ConcatDataset([one, same])) is one.device_transform
    with pytest.raises(SpecError, match="must have equal device transforms"):
        device_transform_of(ConcatDataset([one, other]))


def test_modules_of_torch_are_told_apart_by_their_class():
    one, other = Bare(), Bare()
    one.device_transform, other.device_transform = torch.nn.Tanh(), torch.nn.Sigmoid()
    assert device_transform_digest(one) != device_transform_digest(other)


def test_one_of_the_subset_itself_counts_before_the_one_inside(folder):
    part = Subset(Scaled(folder), range(3))
    part.device_transform = halved
    assert device_transform_of(part) is halved


def test_one_that_cannot_be_called_is_refused():
    dataset = Bare()
    dataset.device_transform = 0.5
    with pytest.raises(SpecError, match="takes a batch and gives one, got float on Bare"):
        device_transform_of(dataset)


def test_archives_stay_valid_when_it_changes(folder, tmp_path):
    made, changed, by_setting = Scaled(folder), ScaledOtherwise(folder), Scaled(folder, factor=3.0)
    by_attribute = Scaled(folder)
    by_attribute.device_transform = halved
    assert len({source_fingerprint(one) for one in (made, changed, by_setting, by_attribute)}) == 1
    config = LoaderConfig(batch_size=4, archive="npy")
    prepare(made, config, archive_root=tmp_path)
    opened = apply(changed, config, archive_root=tmp_path, build=False)
    assert torch.equal(device_transform_of(opened.dataset)(torch.ones(1)), torch.full((1,), 3.0))


def test_measurements_are_told_apart_by_it(folder):
    made = Scaled(folder)
    by_attribute, by_partial = Scaled(folder), Scaled(folder)
    by_attribute.device_transform = halved
    by_partial.device_transform = functools.partial(torch.mul, other=3)
    variants = (made, ScaledOtherwise(folder), Scaled(folder, factor=3.0), by_attribute, by_partial)
    digests = {sent_source({"dataset": dataset}).digest() for dataset in variants}
    assert len(digests) == len(variants)
    centred = {device_transform_digest(Centred(mean)) for pair in MEANS for mean in pair}
    assert len(centred) == 2 * len(MEANS)
    again = pickle.loads(pickle.dumps(by_attribute))
    assert device_transform_digest(again) == device_transform_digest(by_attribute)
    assert sent_source({"dataset": Scaled(folder)}) == sent_source({"dataset": Subset(made, [0]).dataset})


def test_datasets_without_one_are_told_apart_as_before():
    plain, none = Bare(), Bare()
    none.device_transform = None
    assert device_transform_digest(plain) is None
    assert sent_source({"dataset": plain}) == sent_source({"dataset": none})
