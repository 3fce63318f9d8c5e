"""Facts, fingerprints, factories and one look at a dataset."""

import functools
import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from data_sets import (
    AugmentedDataset,
    BytesDataset,
    FileDataset,
    MixedDataset,
    RandomDataset,
    RepeatedNumbers,
    ShardedNumbers,
    support_environment,
    write_files,
)
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from autotune.data.datasets.reference_step import small_unet_step
from autotune.data.extras import installed_formats
from autotune.data.factory import build_dataset, load_object
from autotune.data.facts import dataset_facts
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.data.sharding import shards_itself
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.home import home_folder
from autotune.spec import STORED_FORMS, DatasetSource, MachineFacts

MACHINE = MachineFacts(host="here", system="Linux x86_64", cpu_count=2, memory_bytes=2**34)


class TransformedDataset(FileDataset):
    """Takes a transform, as torchvision's datasets do."""

    def __init__(self, paths, transform):
        super().__init__(paths)
        self.transform = transform


class Scale:
    """A transform with a setting."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, sample):
        return sample * self.factor


def test_facts_of_tensors_and_parts_are_known_without_reading():
    tensors = TensorDataset(torch.zeros(5, 3, 8), torch.zeros(5, dtype=torch.int64))
    facts = dataset_facts(tensors)
    assert (facts.length, facts.structure, facts.declared) == (5, "(float32[3,8], int64[])", True)
    subset = dataset_facts(Subset(tensors, [1, 2]))
    assert (subset.length, subset.structure) == (2, facts.structure)
    assert "TensorDataset" in subset.type_name
    assert dataset_facts(ConcatDataset([tensors, tensors])).structure == facts.structure


def test_facts_of_a_plain_dataset_are_its_settings_and_no_sample_is_read():
    class Plain(MixedDataset):
        def __getitem__(self, index):
            raise AssertionError("read")

    facts = dataset_facts(Plain(7))
    assert (facts.length, facts.structure, facts.declared) == (7, "count=7", False)
    assert dataset_facts(ConcatDataset([Plain(7)])).structure == "count=7"
    assert (dataset_facts(RepeatedNumbers()).length, dataset_facts(RepeatedNumbers()).iterable) == (None, True)


def test_staged_datasets_are_known_through_subsets():
    assert dataset_facts(BytesDataset()).staged
    assert dataset_facts(Subset(AugmentedDataset(), [1])).staged
    assert not dataset_facts(MixedDataset()).staged
    assert not dataset_facts(ConcatDataset([BytesDataset(), MixedDataset()])).staged


class OtherMeaning(MixedDataset):
    """Has methods with the names of the stages that are for something else."""

    def read(self, name, mode):
        return name, mode

    def decode(self):
        return "text"


class OtherResult(OtherMeaning):
    """Can be called as stages are, and gives something else."""

    def read(self, name):
        return len(self) + name

    def decode(self, raw, strict=True):
        return raw, strict


class TakenBack(OtherResult):
    """Says that there are no stages."""

    staged = False


def test_methods_that_cannot_be_called_as_stages_are_none():
    dataset = OtherMeaning()
    assert not dataset_facts(dataset).staged
    dataset.read, dataset.decode = (lambda index: [b"x"]), bytes
    assert dataset_facts(dataset).staged
    dataset.decode = 3
    assert not dataset_facts(dataset).staged
    assert inspect_dataset(OtherMeaning(), MACHINE).encoded_bytes is None


def test_stages_that_fail_are_refused_until_they_are_taken_back():
    assert dataset_facts(OtherResult()).staged
    with pytest.raises(DatasetError, match="staged = False"):
        inspect_dataset(OtherResult(), MACHINE)
    assert not dataset_facts(TakenBack()).staged
    assert inspect_dataset(TakenBack(), MACHINE).encoded_bytes is None


def test_inspection_tells_structure_and_bytes():
    found = inspect_dataset(MixedDataset(), MACHINE)
    assert found.sample_structure == "{image: float32[2,5,3], parts: (numpy.uint16[2,3], [int, float]), flag: bool}"
    assert found.sample_bytes == found.largest_sample_bytes == 120 + 12 + 16 + 8
    assert (found.random, found.fingerprint is not None, found.encoded_bytes) == (False, True, None)
    assert found.machine == MACHINE


def test_inspection_tells_the_largest_and_the_encoded_bytes():
    found = inspect_dataset(BytesDataset(), MACHINE, samples=19)
    assert found.largest_sample_bytes == 40 + 7 * 18 + 1 + 8 + 6
    assert found.encoded_bytes == round(sum(40 + 7 * index + (index != 3) for index in range(19)) / 19)


def test_randomness_counts_where_it_would_be_stored():
    assert inspect_dataset(RandomDataset(), MACHINE).random
    assert not inspect_dataset(AugmentedDataset(), MACHINE).random


def test_inspection_tells_what_formats_and_caches_ask():
    fixed, varying, augmented = (inspect_dataset(d(), MACHINE) for d in (MixedDataset, BytesDataset, AugmentedDataset))
    assert (fixed.varying, varying.varying, augmented.varying) == (False, True, False)
    assert (fixed.augmented, varying.augmented, augmented.augmented) == (False, False, True)
    assert inspect_dataset(Subset(AugmentedDataset(), [1, 2]), MACHINE).augmented
    assert fixed.formats == inspect_dataset(ShardedNumbers(), MACHINE).formats == installed_formats()
    assert {"files", "tar", "npy"} <= set(fixed.formats) <= set(STORED_FORMS)


class CroppedDataset(AugmentedDataset):
    """Its samples differ in shape only after augmentation."""

    def augment(self, sample, generator):
        return sample[: int(torch.randint(1, 9, (), generator=generator))]


def test_shapes_vary_where_they_would_be_stored():
    found = inspect_dataset(CroppedDataset(), MACHINE)
    assert " | " in found.sample_structure
    assert not found.varying


def test_inspection_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    inspect_dataset(RandomDataset(), MACHINE)
    assert torch.equal(torch.rand(2), expected)


class EmptyIterable(IterableDataset):
    """Gives nothing."""

    def __iter__(self):
        return iter(())


class Broken(MixedDataset):
    """Fails when it is read."""

    def __getitem__(self, index):
        raise ValueError("no such luck")


@pytest.mark.fault(30)
def test_empty_and_broken_datasets_are_refused():
    for empty in (MixedDataset(0), EmptyIterable()):
        with pytest.raises(DatasetError, match="empty"):
            inspect_dataset(empty, MACHINE)
    with pytest.raises(DatasetError, match="no such luck"):
        inspect_dataset(Broken(), MACHINE)
    with pytest.raises(DatasetError, match="collate_fn"):
        inspect_dataset(MixedDataset(), MACHINE, collate_fn=lambda _: 1 / 0)


@pytest.mark.fault(12)
def test_unreadable_sample_is_named(tmp_path):
    paths = write_files(tmp_path, 1)

    class Strict(FileDataset):
        def __getitem__(self, index):
            raise SampleError("it is bad", self.paths[index])

    with pytest.raises(SampleError) as caught:
        inspect_dataset(Strict(paths), MACHINE)
    assert caught.value.path == str(paths[0])


def test_iterable_that_repeats_samples_is_noticed():
    assert inspect_dataset(ShardedNumbers(), MACHINE).shards_itself is True
    assert inspect_dataset(RepeatedNumbers(), MACHINE).shards_itself is False
    assert inspect_dataset(MixedDataset(), MACHINE).shards_itself is None


@pytest.mark.parametrize(("dataset", "expected"), [(ShardedNumbers(10**9), True), (RepeatedNumbers(10**9), False)])
def test_endless_iterable_is_judged_by_its_start(dataset, expected):
    assert shards_itself(dataset, samples=50) is expected


def test_fingerprint_changes_with_files_settings_and_transforms(tmp_path):
    paths = write_files(tmp_path)
    variants = {
        "plain": FileDataset(paths),
        "scaled": FileDataset(paths, scale=2),
        "fewer": FileDataset(paths[:-1]),
        "subset": Subset(FileDataset(paths), [0, 1]),
        "other subset": Subset(FileDataset(paths), [1, 0]),
        "twice": ConcatDataset([FileDataset(paths), FileDataset(paths)]),
        "object": TransformedDataset(paths, Scale(2)),
        "other object": TransformedDataset(paths, Scale(3)),
        "function": TransformedDataset(paths, lambda sample: sample + 1),
        "other function": TransformedDataset(paths, lambda sample: sample + 2),
        "partial": TransformedDataset(paths, functools.partial(torch.add, 1)),
        "other partial": TransformedDataset(paths, functools.partial(torch.add, 2)),
        "array": TransformedDataset(paths, np.arange(3)),
    }
    digests = {name: source_fingerprint(dataset) for name, dataset in variants.items()}
    assert None not in digests.values()
    assert len(set(digests.values())) == len(digests)
    for one, other in itertools.combinations(digests, 2):
        assert digests[one] != digests[other], (one, other)
    assert source_fingerprint(TransformedDataset(paths, Scale(2))) == digests["object"]


def test_fingerprint_is_none_where_none_can_be_had(tmp_path):
    assert source_fingerprint(TensorDataset(torch.zeros(2))) is None
    assert source_fingerprint(Subset(TensorDataset(torch.zeros(2)), [0])) is None
    with (tmp_path / "open").open("w") as handle:
        assert source_fingerprint(TransformedDataset(write_files(tmp_path / "files"), handle)) is None


def test_missing_source_file_is_said(tmp_path):
    paths = write_files(tmp_path)
    paths[2].unlink()
    with pytest.raises(DatasetError, match=r"2\.bin"):
        source_fingerprint(FileDataset(paths))


SENDING = """
import sys
import cloudpickle
from data_sets import FileDataset
from autotune.data.fingerprint import source_fingerprint
class Local(FileDataset):
    def __init__(self, paths, transform):
        super().__init__(paths)
        self.transform = transform
    def __getitem__(self, index):
        return self.transform["f"](super().__getitem__(index))
dataset = Local(sys.argv[2:], {"names": {"b", "a", "c"}, "f": lambda x: x if x in {"p", "q", "r"} else x + 1})
open(sys.argv[1], "wb").write(cloudpickle.dumps(dataset))
print(source_fingerprint(dataset))
"""

RECEIVING = """
import pickle, sys
from autotune.data.fingerprint import source_fingerprint
print(source_fingerprint(pickle.load(open(sys.argv[1], "rb"))))
"""


def test_fingerprint_is_the_same_in_another_process_and_after_cloudpickle(tmp_path):
    paths = write_files(tmp_path / "source")
    arguments = [str(path) for path in (tmp_path / "sent.pkl", *paths)]
    shown = []
    for seed, code in (("1", SENDING), ("2", SENDING), ("3", RECEIVING)):
        environment = {**support_environment(), "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        shown.append(done.stdout.strip())
    assert len(shown[0]) == 32
    assert shown[0] == shown[1] == shown[2]


RUN_AS_SCRIPT_OR_IMPORTED = """
import sys
from data_sets import FileDataset
from autotune.data.fingerprint import source_fingerprint
class Own(FileDataset):
    pass
def show(paths):
    print(source_fingerprint(Own(paths)))
if __name__ == "__main__":
    show(sys.argv[1:])
"""


def test_fingerprint_is_the_same_for_a_script_and_for_its_import(tmp_path):
    paths = [str(path) for path in write_files(tmp_path / "source")]
    (tmp_path / "my_training.py").write_text(RUN_AS_SCRIPT_OR_IMPORTED)
    imported = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from my_training import show; show(sys.argv[1:])"
    shown = [
        subprocess.run(
            [sys.executable, *code, *paths], capture_output=True, text=True, check=True, env=support_environment()
        ).stdout
        for code in ([str(tmp_path / "my_training.py")], ["-c", imported])
    ]
    assert len(shown[0].strip()) == 32
    assert shown[0] == shown[1]


def test_dotted_path_is_loaded_and_mistakes_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_module.py").write_text("class Inner:\n    value = 3\n")
    (tmp_path / "my_broken_module.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "my_failing_module.py").write_text("1 / 0\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_object("my_own_module:Inner.value") == 3
    for path, error, told in (
        ("no colon", SpecError, "package.module:callable"),
        ("absent_module_x:f", SpecError, "absent_module_x"),
        ("my_own_module.inner:f", SpecError, "my_own_module"),
        ("my_own_module:absent", SpecError, "absent"),
        ("my_broken_module:f", DatasetError, "not_installed_anywhere"),
        ("my_failing_module:f", DatasetError, "ZeroDivisionError"),
    ):
        with pytest.raises(error, match=told):
            load_object(path)


def test_dataset_is_built_from_factory_or_payload():
    built = build_dataset(DatasetSource(factory="data_sets:MixedDataset", arguments={"count": 4}), None)
    assert len(built) == 4
    sent = MixedDataset(2)
    assert build_dataset(DatasetSource(type_name="MixedDataset"), {"dataset": sent}) is sent
    for source, told in (
        (DatasetSource(factory="data_sets:MixedDataset", arguments={"wrong": 1}), "TypeError"),
        (DatasetSource(factory="os:getcwd"), "must give a dataset"),
        (DatasetSource(type_name="Gone"), "Gone"),
    ):
        with pytest.raises(DatasetError, match=told):
            build_dataset(source, {})
    with pytest.raises(SpecError, match="callable"):
        build_dataset(DatasetSource(factory="os:name"))


def test_home_is_what_was_named_then_the_variable_then_the_users_folder(tmp_path):
    assert home_folder(tmp_path / "named", {"AUTOTUNE_HOME": "/elsewhere"}) == tmp_path / "named"
    assert home_folder(None, {"AUTOTUNE_HOME": str(tmp_path / "set")}) == tmp_path / "set"
    assert home_folder(None, {}).name == "autotune"
    assert not (tmp_path / "named").exists()


def test_reference_step_trains_on_odd_sizes():
    step = small_unet_step("cpu", width=2)
    batch = [torch.rand(2, 1, 13, 9), torch.randint(0, 2, (2, 1, 13, 9), dtype=torch.uint8)]
    state = torch.get_rng_state()
    assert step(batch) is None
    assert torch.equal(torch.get_rng_state(), state)


class NoLength(Dataset):
    """Map-style without a length."""

    def __getitem__(self, index):
        return index


def test_map_without_length_is_refused():
    with pytest.raises(DatasetError, match="__len__"):
        inspect_dataset(NoLength(), MACHINE)
