"""What every archive format promises."""

import os
import pickle
import tarfile

import pytest
import torch
from data_sets import (
    AugmentedDataset,
    BytesDataset,
    FileDataset,
    MixedDataset,
    RandomDataset,
    SlowDataset,
    keep_list,
    write_files,
)
from torch.utils.data import Subset

from autotune.data.apply import prepare
from autotune.data.archives import FORMATS
from autotune.data.archives.store import open_or_build, verify
from autotune.data.build import make_loader
from autotune.data.facts import samples_equal
from autotune.drill.builders import KilledBuilders
from autotune.errors import (
    ArchiveDamagedError,
    ArchiveError,
    ArchiveStaleError,
    CapacityError,
    RandomSamplesError,
)
from autotune.spec import STORED_FORMS, LoaderConfig

STORING = [(name, form) for name, forms in STORED_FORMS.items() for form in forms if name != "files"]
STARTS = ["fork", "spawn", "forkserver"]


def config_of(name, form, **settings):
    return LoaderConfig(archive=name, stored=form, **{"batch_size": 4, **settings})


def dataset_for(form):
    return AugmentedDataset() if form == "encoded" else MixedDataset()


def test_table_has_the_formats_of_the_spec():
    assert list(FORMATS) == list(STORED_FORMS)


@pytest.mark.parametrize(("name", "form"), STORING)
def test_archive_gives_the_same_samples_in_the_same_order(name, form, tmp_path):
    dataset = dataset_for(form)
    opened = open_or_build(dataset, config_of(name, form), tmp_path)
    assert len(opened.dataset) == len(dataset)
    assert samples_equal([opened.dataset[i] for i in range(len(dataset))], [dataset[i] for i in range(len(dataset))])
    assert samples_equal(opened.dataset[-1], dataset[len(dataset) - 1])
    with pytest.raises(IndexError):
        opened.dataset[len(dataset)]


@pytest.mark.parametrize(("name", "form"), STORING)
def test_whole_batches_equal_single_samples(name, form, tmp_path):
    dataset = dataset_for(form)
    opened = open_or_build(dataset, config_of(name, form), tmp_path).dataset
    places = [5, 0, 5, 9]
    assert samples_equal(list(opened.__getitems__(places)), [dataset[place] for place in places])


@pytest.mark.parametrize(("name", "form"), STORING)
def test_callers_collate_gets_a_list_of_samples(name, form, tmp_path):
    dataset = dataset_for(form)
    prepared = prepare(dataset, config_of(name, form), archive_root=tmp_path)
    batch = next(iter(make_loader(prepared.dataset, prepared.arguments, collate_fn=keep_list)))
    assert isinstance(batch, list)
    assert samples_equal(list(batch), [dataset[index] for index in range(4)])


@pytest.mark.parametrize(("name", "form"), STORING)
def test_samples_may_be_changed_in_place(name, form, tmp_path):
    dataset = dataset_for(form)
    opened = open_or_build(dataset, config_of(name, form), tmp_path).dataset
    for sample in (opened[2], opened.__getitems__([2, 3])[0]):
        (sample["image"] if isinstance(sample, dict) else sample).add_(1)
    assert samples_equal(opened[2], dataset[2])


@pytest.mark.parametrize(("name", "form"), STORING)
def test_opened_dataset_survives_pickling_and_forwards_attributes(name, form, tmp_path):
    dataset = dataset_for(form)
    opened = open_or_build(dataset, config_of(name, form), tmp_path).dataset
    opened[0]
    copy = pickle.loads(pickle.dumps(opened))
    assert samples_equal(copy[1], dataset[1])
    assert copy.count == dataset.count
    with pytest.raises(AttributeError):
        _ = copy.nothing_of_this_name


@pytest.mark.parametrize(("name", "form"), STORING)
def test_second_opening_builds_nothing(name, form, tmp_path):
    first = open_or_build(dataset_for(form), config_of(name, form), tmp_path)
    second = open_or_build(dataset_for(form), config_of(name, form), tmp_path)
    assert first.build_s > 0
    assert second.build_s == 0
    assert second.manifest == first.manifest
    assert second.size_bytes == sum(file.size_bytes for file in first.manifest.files.values())


@pytest.mark.parametrize(("name", "form"), STORING)
def test_progress_counts_every_sample(name, form, tmp_path):
    seen = []
    dataset = dataset_for(form)
    open_or_build(dataset, config_of(name, form), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(dataset)) for done in range(1, len(dataset) + 1)]


def data_files(directory):
    return sorted(path for path in directory.iterdir() if path.name not in ("manifest.json", "checked.json"))


@pytest.mark.fault(23)
@pytest.mark.parametrize(("name", "form"), STORING)
def test_truncated_file_is_found_before_use(name, form, tmp_path):
    opened = open_or_build(dataset_for(form), config_of(name, form), tmp_path)
    for path in data_files(opened.directory):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(ArchiveDamagedError, match=path.name):
            open_or_build(dataset_for(form), config_of(name, form), tmp_path, build=False)
        path.write_bytes(whole)
    open_or_build(dataset_for(form), config_of(name, form), tmp_path, build=False)


@pytest.mark.fault(23)
@pytest.mark.parametrize(("name", "form"), STORING)
@pytest.mark.parametrize("damage", ["cut", "drop", "manifest"])
def test_damaged_archive_is_built_anew_where_it_may_be(name, form, damage, tmp_path):
    dataset = dataset_for(form)
    opened = open_or_build(dataset, config_of(name, form), tmp_path)
    path = max(data_files(opened.directory), key=lambda file: file.stat().st_size)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "drop":
        path.unlink()
    else:
        (opened.directory / "manifest.json").write_text("{}")
    rebuilt = open_or_build(dataset, config_of(name, form), tmp_path)
    assert rebuilt.build_s > 0
    assert verify(rebuilt.directory, full=True).files.keys() == opened.manifest.files.keys()
    assert samples_equal([rebuilt.dataset[i] for i in range(len(dataset))], [dataset[i] for i in range(len(dataset))])


@pytest.mark.fault(23)
@pytest.mark.parametrize(("name", "form"), STORING)
@pytest.mark.parametrize("hidden", [False, True])
def test_flipped_byte_is_found(name, form, hidden, tmp_path):
    opened = open_or_build(dataset_for(form), config_of(name, form), tmp_path)
    path = max(data_files(opened.directory), key=lambda file: file.stat().st_size)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(before.st_size // 2)
        file.write(bytes([byte ^ 1]))
    if hidden:  # a failing disk changes bytes, not times
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ArchiveDamagedError, match="checksum"):
            verify(opened.directory, full=True)
    else:
        with pytest.raises(ArchiveDamagedError, match="checksum"):
            open_or_build(dataset_for(form), config_of(name, form), tmp_path, build=False)


@pytest.mark.fault(23)
@pytest.mark.parametrize(("name", "form"), STORING)
def test_dropped_file_is_found(name, form, tmp_path):
    opened = open_or_build(dataset_for(form), config_of(name, form), tmp_path)
    for path in data_files(opened.directory):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(ArchiveDamagedError, match="missing"):
            verify(opened.directory)
        path.write_bytes(whole)


@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
@pytest.mark.parametrize("change", ["touch", "grow", "add", "remove"])
def test_archive_of_a_changed_source_is_stale(name, form, change, tmp_path):
    paths = write_files(tmp_path / "source")
    config = config_of(name, form)
    open_or_build(FileDataset(paths), config, tmp_path / "archives")
    if change == "touch":
        os.utime(paths[1], ns=(1, 1))
    elif change == "grow":
        paths[1].write_bytes(b"longer than it was")
    elif change == "add":
        paths = [*paths, *write_files(tmp_path / "more", 1)]
    else:
        paths = paths[:-1]
    with pytest.raises(ArchiveStaleError, match="changed"):
        open_or_build(FileDataset(paths), config, tmp_path / "archives", build=False)
    rebuilt = open_or_build(FileDataset(paths), config, tmp_path / "archives")
    assert rebuilt.build_s > 0
    assert samples_equal(rebuilt.dataset[1], FileDataset(paths)[1])


@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
def test_source_that_differs_in_secret_is_noticed(name, form, tmp_path):
    paths = write_files(tmp_path / "source", 3)
    config = config_of(name, form)
    open_or_build(FileDataset(paths), config, tmp_path / "archives")
    for path in paths:
        times = path.stat()
        path.write_bytes(b"other"[: times.st_size])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ArchiveStaleError, match="differs"):
        open_or_build(FileDataset(paths), config, tmp_path / "archives", build=False)
    rebuilt = open_or_build(FileDataset(paths), config, tmp_path / "archives")
    assert rebuilt.build_s > 0
    assert samples_equal(rebuilt.dataset[1], FileDataset(paths)[1])


@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
def test_missing_archive_is_said_when_it_may_not_be_built(name, form, tmp_path):
    with pytest.raises(ArchiveError, match="no archive"):
        open_or_build(MixedDataset(), config_of(name, form), tmp_path, build=False)


@pytest.mark.parametrize(("name", "form"), STORING)
def test_random_samples_are_refused_with_the_way_out(name, form, tmp_path):
    config = config_of(name, form)
    with pytest.raises(RandomSamplesError, match="augment"):
        open_or_build(RandomDataset(), config, tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize(("name", "form"), STORING)
def test_subset_is_archived_on_its_own(name, form, tmp_path):
    subset = Subset(dataset_for(form), [4, 1, 7])
    opened = open_or_build(subset, config_of(name, form), tmp_path)
    assert opened.manifest.count == 3
    assert samples_equal([opened.dataset[i] for i in range(3)], [subset[i] for i in range(3)])


@pytest.mark.parametrize("form", STORED_FORMS["tar"])
def test_tar_keeps_samples_of_different_sizes(form, tmp_path):
    dataset = BytesDataset()
    opened = open_or_build(dataset, config_of("tar", form), tmp_path)
    assert samples_equal([opened.dataset[i] for i in range(len(dataset))], [dataset[i] for i in range(len(dataset))])
    with tarfile.open(opened.directory / "samples.tar") as archive:
        assert sum(member.isfile() for member in archive) == len(dataset) * (2 if form == "encoded" else 4)


def test_encoded_tar_holds_the_original_bytes(tmp_path):
    dataset = BytesDataset()
    opened = open_or_build(dataset, config_of("tar", "encoded"), tmp_path)
    with tarfile.open(opened.directory / "samples.tar") as archive:
        assert archive.extractfile("00000004.0.bin").read() == dataset.read(4)[0]


def test_npy_refuses_samples_of_different_sizes(tmp_path):
    with pytest.raises(ArchiveError, match="fixed shape"):
        open_or_build(BytesDataset(), config_of("npy", "decoded"), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and "npy" in path.name]


def test_encoded_form_needs_a_staged_dataset(tmp_path):
    with pytest.raises(ArchiveError, match="decode"):
        open_or_build(MixedDataset(), config_of("tar", "encoded"), tmp_path)


def test_dataset_without_fingerprint_is_not_stored(tmp_path):
    plain = torch.utils.data.TensorDataset(torch.zeros(3, 2))
    with pytest.raises(ArchiveError, match="fingerprint"):
        open_or_build(plain, config_of("npy", "decoded"), tmp_path)
    assert not list(tmp_path.iterdir())


class HugeDataset(MixedDataset):
    """Claims more samples than any disk holds."""

    def __len__(self):
        return 10**14

    def __getitem__(self, index):
        return torch.zeros(100)


@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
def test_full_disk_is_refused_before_anything_is_written(name, form, tmp_path):
    with pytest.raises(CapacityError) as caught:
        open_or_build(HugeDataset(), config_of(name, form), tmp_path)
    assert caught.value.needed_bytes > caught.value.available_bytes
    assert not list(tmp_path.rglob("*building*"))


@pytest.fixture(scope="module")
def builders():
    with KilledBuilders("data_sets:SlowDataset") as made:
        yield made


@pytest.mark.fault(24)
@pytest.mark.parametrize(("name", "form"), [pair for pair in STORING if pair[1] == "decoded"])
@pytest.mark.parametrize("after_s", [0.06, 0.12])
def test_killed_builder_leaves_an_archive_that_is_absent_or_whole(name, form, after_s, builders, tmp_path):
    builders.kill_one(name, form, tmp_path, workers=0, count=60, after_s=after_s)
    for manifest in tmp_path.glob(f"*/{name}-{form}/manifest.json"):
        verify(manifest.parent, full=True)
    opened = open_or_build(SlowDataset(60), config_of(name, form), tmp_path)
    assert samples_equal(opened.dataset[59], SlowDataset(60)[59])
    assert not list(tmp_path.rglob("*.building-*"))
