"""What is taken for random, what is not, and that nothing of it shows in the caller's dataset."""

import io
import logging
import random

import numpy as np
import pytest
import random_data_sets as kinds
import torch
from data_sets import AugmentedDataset, BytesDataset, MixedDataset, RandomDataset, write_files, write_raster
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from autotune.data.datasets.gaps import GapMaskDataset
from autotune.data.datasets.raster import GeoTiffPairDataset
from autotune.data.inspect import inspect_dataset
from autotune.data.kept_state import KeptState
from autotune.data.randomness import refuse_random, refuse_unlike_stages, why_random
from autotune.data.stages import apart
from autotune.data.wrapped import WrappedDataset
from autotune.errors import RandomSamplesError
from autotune.spec import MachineFacts

MACHINE = MachineFacts(host="here", system="Linux x86_64", cpu_count=2, memory_bytes=2**34)


@pytest.mark.parametrize("kind", kinds.RANDOM)
def test_rare_and_hidden_randomness_is_refused(kind):
    with pytest.raises(RandomSamplesError, match=kind.__name__) as caught:
        refuse_random(kind(), "cached")
    for part in ("read(index)", "decode(raw)", "augment(sample, generator)", "cached"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", kinds.STEADY)
def test_what_is_the_same_each_time_is_not_refused(kind):
    assert why_random(kind()) is None


@pytest.mark.parametrize("dataset", [MixedDataset(), BytesDataset(), AugmentedDataset()])
def test_only_what_would_be_stored_counts(dataset):
    assert why_random(dataset) is None


@pytest.mark.parametrize(
    "generator",
    [np.random.default_rng(1), np.random.RandomState(1), random.Random(1), torch.Generator()],
    ids=lambda generator: type(generator).__name__,
)
def test_own_generator_of_every_kind_is_named(generator):
    assert "changes its rng" in why_random(kinds.OwnGenerator(generator=generator))


@pytest.mark.parametrize(
    ("kind", "named"),
    [(kinds.RarePython, "Python's"), (kinds.RareNumpy, "NumPy's"), (kinds.RareTorch, "torch's")],
)
def test_global_generator_that_moves_is_named(kind, named):
    assert f"draws from {named} global generator" in why_random(kind())


def test_seeding_a_global_generator_is_named_as_that():
    reason = why_random(kinds.SeedsItself())
    assert "seeds torch's global generator" in reason
    assert "torch.Generator().manual_seed(index)" in reason


def test_changed_attribute_is_named_with_the_way_out():
    reason = why_random(kinds.Counting())
    assert "changes its reads" in reason
    assert "unfingerprinted = ('reads',)" in reason
    assert "unfingerprinted" not in why_random(kinds.ModuleGenerator())


def test_random_part_of_many_is_found():
    parts = [kinds.Numbers(400), kinds.Numbers(400), Subset(kinds.OwnGenerator(), [3, 5])]
    assert why_random(ConcatDataset(parts[:2])) is None
    assert "OwnGenerator" in why_random(ConcatDataset(parts))


class Keeps(Dataset):
    """Reads another dataset."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


def test_dataset_inside_another_is_looked_into_but_for_what_it_names():
    assert "changes its inner" in why_random(Keeps(kinds.Counting()))
    assert why_random(Keeps(kinds.DeclaredMemo())) is None


def test_files_opened_on_first_use_are_neither_refused_nor_left_open(tmp_path):
    dataset = kinds.OpensFiles(write_files(tmp_path, 9))
    assert why_random(dataset) is None
    assert not inspect_dataset(Subset(dataset, range(8)), MACHINE).random
    refuse_unlike_stages(dataset)
    assert (dataset.file, dataset.files, dataset.lock) == (None, {}, None)


def test_rasters_opened_by_window_are_neither_refused_nor_left_open(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.arange(64, dtype=np.float32).reshape(8, 8))
    for dataset in (GapMaskDataset([path], window=4), GeoTiffPairDataset([path], [path], window=4)):
        assert why_random(dataset) is None
        assert not inspect_dataset(dataset, MACHINE).random
        assert not dataset._open._open
        dataset[0]
        assert dataset._open._open


def test_global_generators_are_put_back():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    for kind in (*kinds.RANDOM, *kinds.STEADY):
        why_random(kind())
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("kind", [*kinds.RANDOM, *kinds.STEADY, RandomDataset])
def test_inspection_agrees_with_what_is_refused(kind, caplog):
    caplog.set_level(logging.WARNING, "autotune")
    reason = why_random(kind())
    assert inspect_dataset(kind(), MACHINE).random is (reason is not None)
    assert any("augment(sample, generator)" in record.message for record in caplog.records) is (reason is not None)


def test_one_sample_is_enough():
    assert why_random(kinds.Numbers(1)) is None
    assert why_random(kinds.RareTorch(1)) is not None


class Plain:
    """Anything with attributes."""


def changed_by(attribute, change):
    holder = Plain()
    holder.attribute = attribute
    before = KeptState.of(holder)
    assert before.changed_in(KeptState.of(holder)) == []
    change(holder)
    return before.changed_in(KeptState.of(holder))


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ([1], lambda holder: holder.attribute.append(2)),
        (torch.zeros(3), lambda holder: holder.attribute.add_(1)),
        (torch.zeros(1 << 20), lambda holder: holder.attribute.add_(1)),
        (np.zeros(3), lambda holder: holder.attribute.__setitem__(0, 1)),
        (np.zeros(1 << 20), lambda holder: setattr(holder, "attribute", np.zeros(1 << 20))),
        (torch.zeros(3), lambda holder: setattr(holder, "attribute", torch.zeros(3, dtype=torch.int32))),
        ({"a": {1}}, lambda holder: holder.attribute["a"].add(2)),
        (None, lambda holder: setattr(holder, "attribute", 1)),
        (1, lambda holder: delattr(holder, "attribute")),
        (iter([1, 2]), lambda holder: next(holder.attribute)),
    ],
)
def test_change_of_an_attribute_is_noticed(attribute, change):
    assert changed_by(attribute, change) == ["attribute"]


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        (("ab", "ab"), lambda holder: setattr(holder, "attribute", ("".join("ab"), "".join(list("ab"))))),
        (None, lambda holder: setattr(holder, "attribute", io.BytesIO())),
        (io.BytesIO(b"abc"), lambda holder: holder.attribute.read(1)),
        (torch.zeros(3), lambda holder: setattr(holder, "attribute", torch.zeros(3))),
        (torch.nn.Linear(2, 2), lambda holder: holder.attribute(torch.zeros(1, 2))),
    ],
)
def test_equal_values_and_handles_are_no_change(attribute, change):
    assert changed_by(attribute, change) == []


class Wrapper(WrappedDataset):
    """Gives what the source gives."""

    def base_sample(self, index):
        return self.source[index]


def test_apart_copies_what_holds_samples_and_nothing_else():
    leaf = kinds.DeclaredMemo()
    leaf.paths = [str(number) for number in range(3)]
    tree = ConcatDataset([Subset(Wrapper(leaf), [1, 2]), leaf])
    copy = apart(tree)
    inner, other = copy.datasets[0].dataset.source, copy.datasets[1]
    assert inner is other is not leaf
    assert type(copy.datasets[0].dataset) is Wrapper
    copy[0], copy[5]
    assert len(inner.memo) == 2
    assert leaf.memo == {}
    assert [sample.tolist() for sample in copy] == [sample.tolist() for sample in tree]


class CannotBeCopied(kinds.Numbers):
    """Refuses."""

    def __reduce_ex__(self, protocol):
        raise TypeError("no")


def test_dataset_that_cannot_be_copied_is_read_itself():
    dataset = CannotBeCopied()
    assert apart(dataset) is dataset
    assert why_random(dataset) is None
    tensors = TensorDataset(torch.zeros(3, 2))
    assert apart(tensors).tensors[0] is tensors.tensors[0]
