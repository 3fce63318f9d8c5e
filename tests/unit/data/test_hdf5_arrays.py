"""Rows of HDF5 datasets as samples."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from autotune.data.apply import apply
from autotune.data.datasets.hdf5_arrays import ChunkShuffleSampler, HDF5Dataset
from autotune.data.datasets.hdf5_files import datasets_of
from autotune.data.facts import describe_sample, samples_equal
from autotune.data.fingerprint import source_fingerprint
from autotune.data.inspect import inspect_dataset
from autotune.errors import DatasetError, SampleError, SpecError
from autotune.machine import machine_facts
from autotune.spec import LoaderConfig

ROWS, CHUNK = 25, 4
VALUES = np.random.default_rng(0).normal(size=(ROWS, 3, 2)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    """A file with datasets of every kind."""
    place = tmp_path / "arrays.h5"
    with h5py.File(place, "w") as file:
        file.create_dataset("data", data=VALUES, chunks=(CHUNK, 3, 2), compression="gzip", shuffle=True)
        file.create_dataset("plain", data=VALUES.astype(">f8"))
        file.create_dataset("labels", data=np.arange(ROWS), chunks=(7,), compression="lzf")
        file.create_dataset("flags", data=np.arange(ROWS) % 2 == 0)
        file.create_dataset("half", data=VALUES.astype(np.float16), fletcher32=True)
        file.create_dataset("unsigned", data=np.arange(ROWS, dtype=np.uint16))
        file.create_dataset("complex", data=VALUES[:, 0, 0] * 1j)
        file.create_dataset("names", data=[f"naïve {number}" for number in range(ROWS)], dtype=h5py.string_dtype())
        file.create_dataset("codes", data=np.array([f"c{number}".encode() for number in range(ROWS)], dtype="S4"))
        varying = file.create_dataset("varying", (ROWS,), dtype=h5py.vlen_dtype(np.int32))
        for number in range(ROWS):
            varying[number] = np.arange(number % 4)
        group = file.create_group("inside/deeper")
        group["x"] = np.arange(ROWS, dtype=np.float32)
        group["y"] = np.arange(ROWS, dtype=np.int8)
        file["short"] = np.arange(3)
        file["single"] = 5
        file["none"] = h5py.Empty("f4")
        file["no_rows"] = np.zeros((0, 2))
        file["pairs"] = np.zeros(ROWS, dtype=[("a", "i4"), ("b", "f4")])
        file["texts"] = np.array([[b"a", b"b"]] * ROWS)
        file.create_group("empty")
    return place


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def doubled(row):
    return 2 * row


@pytest.mark.parametrize("name", ["data", "plain", "labels", "flags", "half", "unsigned", "complex", "inside/deeper/x"])
def test_rows_are_tensors_of_the_stored_type(path, name):
    dataset = HDF5Dataset(path, name)
    with h5py.File(path) as file:
        stored = file[name][:]
    assert len(dataset) == ROWS
    for index in (0, 3, 4, ROWS - 1):
        assert torch.equal(
            dataset[index], torch.from_numpy(np.asarray(stored[index]).astype(stored.dtype.newbyteorder("=")))
        )
    assert dataset.sample_structure() == describe_sample(dataset[0])


def test_default_name_target_and_transforms(path):
    row, target = HDF5Dataset(path, target_name="labels")[6]
    assert torch.equal(row, torch.from_numpy(VALUES[6]))
    assert int(target) == 6
    changed, target = HDF5Dataset(path, target_name="labels", transform=doubled, target_transform=doubled)[6]
    assert torch.equal(changed, 2 * row)
    assert int(target) == 12


def test_texts_and_rows_of_varying_length(path):
    assert HDF5Dataset(path, "names")[3] == "naïve 3"
    assert HDF5Dataset(path, "codes")[3] == "c3"
    varying = HDF5Dataset(path, "varying")
    assert [varying[index].tolist() for index in range(4)] == [[], [0], [0, 1], [0, 1, 2]]
    assert varying[1].dtype == torch.int32
    assert varying.sample_structure() is None


def test_several_datasets_and_groups_are_a_dict(path):
    dataset = HDF5Dataset(path, ["data", "names"], "labels")
    sample, target = dataset[2]
    assert list(sample) == ["data", "names"]
    assert (sample["names"], int(target)) == ("naïve 2", 2)
    assert dataset.sample_structure() == describe_sample(dataset[2])
    batch, targets = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch["data"].shape == (5, 3, 2)
    assert targets.tolist() == [0, 1, 2, 3, 4]
    group = HDF5Dataset(path, "inside/deeper")
    assert {name: int(value) for name, value in group[7].items()} == {"inside/deeper/x": 7, "inside/deeper/y": 7}


def test_target_is_left_out_of_its_group(path):
    with h5py.File(path, "a") as file:
        file["inside/deeper/z"] = np.zeros(ROWS)
        file["inside/deeper/same"] = file["inside/deeper/y"]
    for target in ("inside/deeper/y", "/inside/deeper//y", "inside/deeper/same"):
        row, number = HDF5Dataset(path, "inside/deeper", target)[7]
        assert list(row) == ["inside/deeper/x", "inside/deeper/z"]
        assert int(number) == 7
    with h5py.File(path, "a") as file:
        file["lonely/y"] = np.zeros(ROWS)
    with pytest.raises(DatasetError, match="nothing but the target"):
        HDF5Dataset(path, "lonely", "lonely/y")


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (["data", "data"], None),
        (["data", "/data"], None),
        (["inside/deeper", "inside/deeper/x"], None),
        (["data", "labels"], "labels"),
        ("labels", "labels"),
    ],
)
def test_dataset_that_is_named_twice_is_refused(path, names, target):
    with pytest.raises(SpecError, match="named once"):
        HDF5Dataset(path, names, target)


def test_file_is_found_from_another_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    dataset = HDF5Dataset(path.name)
    monkeypatch.chdir("/")
    assert torch.equal(dataset[3], torch.from_numpy(VALUES[3]))
    assert dataset.path_of(0) == str(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", r"no dataset 'missing'.*data float32\[25, 3, 2\].*inside/deeper/x"),
        ("", "no dataset ''"),
        ("empty", "holds no dataset directly"),
        ("single", "single value"),
        ("none", "single value or none"),
        ("no_rows", "there must be rows"),
        ("pairs", "numbers that torch has a type for"),
        ("texts", "2 dimensions"),
        (["data", "short"], "one length, got data 25, short 3"),
    ],
)
def test_what_gives_no_samples_is_told(path, name, told):
    with pytest.raises(DatasetError, match=told):
        HDF5Dataset(path, name)
    with pytest.raises(SpecError, match="got none"):
        HDF5Dataset(path, [])


@pytest.mark.fault(12)
def test_files_that_are_no_hdf5_are_told(path, tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:3000])
    for name in ("text.h5", "cut.h5", "gone.h5", "."):
        with pytest.raises(DatasetError):
            HDF5Dataset(tmp_path / name)


def unreadable(path, number):
    """Write a dataset whose one chunk claims to have gone through a filter that nobody knows."""
    with h5py.File(path, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((4,))
        made = h5py.h5d.create(file.id, b"squeezed", h5py.h5t.NATIVE_INT32, space, plan)
        made.write_direct_chunk((0,), bytes(16), 0)


@pytest.mark.fault(12)
@pytest.mark.parametrize(("number", "told"), [(32999, "filter 32999"), (32001, r"filter 32001 \(blosc\)")])
def test_unknown_compression_filter_is_named(tmp_path, number, told):
    place = tmp_path / "squeezed.h5"
    unreadable(place, number)
    with pytest.raises(DatasetError, match=rf"squeezed.*{told}.*hdf5plugin"):
        HDF5Dataset(place, "squeezed")


@pytest.mark.fault
def test_filter_that_was_left_out_in_writing_is_no_error(tmp_path):
    place = tmp_path / "left.h5"
    with h5py.File(place, "w") as file:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
        made = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((4,)), plan)
        made.write_direct_chunk((0,), np.arange(4, dtype=np.int32).tobytes(), 1)
    assert [int(row) for row in all_of(HDF5Dataset(place))] == [0, 1, 2, 3]


@pytest.mark.fault(12)
def test_damaged_chunk_is_a_broken_sample(path):
    with h5py.File(path) as file:
        where = file["data"].id.get_chunk_info(2)
    with path.open("r+b") as opened:
        opened.seek(where.byte_offset)
        opened.write(b"\xff" * where.size)
    dataset = HDF5Dataset(path)
    assert torch.equal(dataset[0], torch.from_numpy(VALUES[0]))
    with pytest.raises(SampleError, match=r"arrays\.h5: row 9 of the dataset 'data'"):
        dataset[9]
    left = HDF5Dataset(path, on_broken="skip")
    assert sum(len(batch) for batch in DataLoader(left, batch_size=6)) == ROWS - CHUNK
    assert left.broken_samples == (8, 9, 10, 11)
    assert left.broken_files == (str(path),)
    replaced = HDF5Dataset(path, on_broken="substitute")
    assert torch.equal(replaced[9], torch.from_numpy(VALUES[12]))


@pytest.mark.fault(12)
def test_file_that_goes_away_is_told(path):
    dataset = HDF5Dataset(path)
    path.unlink()
    with pytest.raises(SampleError, match=r"arrays\.h5"):
        dataset[0]


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", ["data", "plain", ["data", "names"]])
def test_rows_that_were_taken_away_are_told_and_end_no_loop(path, name):
    left, told = (HDF5Dataset(path, name, on_broken=policy) for policy in ("substitute", "raise"))
    with h5py.File(path, "a") as file:
        for one in ("data", "plain", "names"):
            kept = file[one][:CHUNK]
            del file[one]
            file.create_dataset(one, data=kept, compression="gzip" if one == "data" else None)
    with pytest.raises(SampleError, match=rf"arrays\.h5: row {CHUNK} of the dataset"):
        list(told)
    assert len(list(left)) == ROWS
    assert samples_equal(left[CHUNK], left[0])
    assert left.broken_samples == tuple(range(CHUNK, ROWS))


@pytest.mark.fault(12)
def test_rows_that_became_others_are_told(path):
    dataset = HDF5Dataset(path, "plain")
    texts = HDF5Dataset(path, "labels")
    with h5py.File(path, "a") as file:
        del file["plain"], file["labels"]
        file["plain"] = np.zeros((ROWS, 5))
        file["labels"] = [b"x"] * ROWS
    with pytest.raises(SampleError, match=r"arrays\.h5.*'plain'"):
        dataset[0]
    with pytest.raises(SampleError, match=r"arrays\.h5.*'labels'"):
        texts[0]


def handles_of(pid, path):
    return [name for name in Path(f"/proc/{pid}/fd").iterdir() if os.path.realpath(name) == str(path)]


class TellsHandles(HDF5Dataset):
    """Gives with each row the process that reads it, and the one that opened the file."""

    def __getitems__(self, indices):
        rows = super().__getitems__(indices)
        return [(row, os.getpid(), self._reader._handle._pid) for row in rows]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_each_process_opens_the_file_for_itself(path, start):
    dataset = TellsHandles(path)
    assert handles_of(os.getpid(), path) == []
    expected = [torch.from_numpy(row) for row in VALUES]
    HDF5Dataset.__getitem__(dataset, 0)  # open in this process, too
    loader = DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context=start)
    rows, pids = [], set()
    for batch, reading, opened in loader:
        rows += list(batch)
        pids |= set(reading.tolist())
        assert torch.equal(reading, opened)
    assert samples_equal(rows, expected)
    assert len(pids) == 2
    assert os.getpid() not in pids
    dataset.close()
    assert handles_of(os.getpid(), path) == []
    assert torch.equal(HDF5Dataset.__getitem__(dataset, 5), expected[5])


def test_compressed_rows_are_read_a_chunk_at_a_time(path):
    dataset = HDF5Dataset(path)
    list(DataLoader(dataset, batch_size=7))
    assert sorted(dataset._reader._blocks["data"]) == list(range(0, ROWS, CHUNK))
    plain = HDF5Dataset(path, "plain")
    all_of(plain)
    assert not plain._reader._blocks["plain"]
    assert dataset.chunk_rows == CHUNK
    assert HDF5Dataset(path, ["data", "labels"]).chunk_rows == 7


def test_batches_keep_their_order_and_own_their_memory(path):
    dataset = HDF5Dataset(path)
    rows = dataset.__getitems__([9, 0, 9, 24])
    assert samples_equal(rows, [torch.from_numpy(VALUES[index]) for index in (9, 0, 9, 24)])
    rows[0].zero_()
    assert torch.equal(rows[2], torch.from_numpy(VALUES[9]))


@pytest.mark.parametrize("mode", ["lazy", "eager", "cached"])
@pytest.mark.parametrize("name", ["data", "names", "varying", ["data", "labels"]])
def test_modes_give_the_same_rows(path, mode, name):
    lazy, dataset = HDF5Dataset(path, name), HDF5Dataset(path, name, None, mode)
    for _ in range(2):
        assert samples_equal(all_of(dataset), all_of(lazy))
        assert samples_equal(list(dataset.__getitems__([4, 1])), [lazy[4], lazy[1]])
    streamed = HDF5Dataset(path, name, loading_mode="streaming").loaded()
    assert samples_equal(list(streamed), all_of(lazy))


@pytest.mark.parametrize("name", ["data", "names", ["data", "varying"]])
@pytest.mark.parametrize("archive", ["tar", "lmdb"])
@pytest.mark.parametrize("stored", ["encoded", "decoded"])
def test_archives_give_the_same_rows(path, tmp_path, name, archive, stored):
    dataset = HDF5Dataset(path, name, "labels")
    config = LoaderConfig(archive=archive, stored=stored)
    assert samples_equal(all_of(apply(dataset, config, archive_root=tmp_path / "a").dataset), all_of(dataset))


def test_tuner_takes_it_like_any_other(path):
    dataset = HDF5Dataset(path, target_name="labels")
    found = inspect_dataset(dataset, machine_facts(accelerator=False))
    assert (found.random, found.varying, found.dataset.declared) == (False, False, True)
    assert handles_of(os.getpid(), path) == []
    assert source_fingerprint(dataset) is not None
    assert source_fingerprint(dataset) != source_fingerprint(HDF5Dataset(path, "plain", "labels"))
    dataset[0]
    assert source_fingerprint(dataset) == source_fingerprint(HDF5Dataset(path, target_name="labels"))
    assert samples_equal(pickle.loads(pickle.dumps(dataset))[3], dataset[3])


class Chunked:
    """What a sampler needs to know of a dataset."""

    def __init__(self, count, rows):
        self.count = count
        self.chunk_rows = rows

    def __len__(self):
        return self.count


@settings(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 5), st.integers(0, 9))
def test_chunk_shuffle_gives_each_row_once_and_few_chunks_at_a_time(count, rows, chunks, seed):
    sampler = ChunkShuffleSampler(Chunked(count, rows), chunks=chunks, seed=seed)
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(count))
    assert len(sampler) == count
    sampler.set_epoch(0)
    assert list(sampler) == first
    touched = [row // rows for row in first]
    for chunk in set(touched):
        places = [place for place, one in enumerate(touched) if one == chunk]
        assert places[-1] - places[0] < chunks * rows


def test_chunk_shuffle_mixes_and_refuses_nothing_to_mix(path):
    dataset = HDF5Dataset(path, target_name="labels")
    order = [
        int(target) for _, targets in DataLoader(dataset, 5, sampler=ChunkShuffleSampler(dataset)) for target in targets
    ]
    assert sorted(order) == list(range(ROWS)) != order
    with pytest.raises(SpecError, match="chunks"):
        ChunkShuffleSampler(dataset, chunks=0)


def test_every_real_dataset_loads_or_is_told(real_data):
    loaded, refused = 0, []
    for path in sorted((real_data / "hdf5").rglob("*.h5")):
        with h5py.File(path) as file:
            names = [name for name, _ in datasets_of(file)]
        for name in names:
            try:
                dataset = HDF5Dataset(path, name)
            except DatasetError as error:
                refused.append(str(error))
                continue
            batch = next(iter(DataLoader(dataset, batch_size=len(dataset))))
            with h5py.File(path) as file:
                stored = file[name][:]
            if stored.dtype.kind == "S":
                assert batch == [one.decode() for one in stored]
            else:
                assert np.array_equal(batch.numpy(), stored)
            loaded += 1
    assert loaded == 68
    assert len(refused) == 1
    assert "another_genome/scalar_dataset" in refused[0]
