"""What HDF5 archives hold, as the HDF5 library itself reads it, and what they refuse."""

import json
import pickle
import tracemalloc
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from data_sets import BytesDataset, MixedDataset
from torch.utils.data import Dataset

from autotune.data.archives.hdf5 import Hdf5Blocks, Hdf5Format, Hdf5Rows
from autotune.data.archives.hdf5_writing import CHUNK_BYTES
from autotune.data.facts import samples_equal
from autotune.errors import ArchiveDamagedError, ArchiveError, SpecError

FORMAT = Hdf5Format()


class Listed(Dataset):
    """A list of samples."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Large(Dataset):
    """Samples of more bytes than a chunk, of one shape but for the last."""

    def __init__(self, count=5, odd=True):
        self.count = count
        self.odd = odd

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rows = 3 if self.odd and index == self.count - 1 else 2
        return np.random.default_rng(index).integers(0, 255, (rows, CHUNK_BYTES // 2 + 17), np.uint8)


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def built(directory, dataset, **settings):
    manifest = FORMAT.build(dataset, directory, **settings)
    assert list(manifest.files) == ["samples.h5"]
    return FORMAT.open(directory)


def test_samples_of_one_layout_are_typed_datasets_that_the_library_reads(tmp_path):
    dataset = MixedDataset()
    opened = built(tmp_path, dataset)
    assert isinstance(opened, Hdf5Rows)
    with h5py.File(tmp_path / "samples.h5", "r") as file:
        images = file["leaf_00"]
        assert images.shape == (23, 2, 5, 3)
        assert images.dtype == np.float32
        assert images.chunks is None
        for index in range(23):
            assert images[index].tobytes() == dataset[index]["image"].numpy().tobytes()
            assert np.array_equal(file["leaf_01"][index], dataset[index]["parts"][0])
            assert file["leaf_02"][index] == index
            assert file["leaf_04"][index] == (index % 2 == 0)
        assert file["leaf_04"].dtype == np.bool_
    assert samples_equal(all_of(opened), all_of(dataset))


@pytest.mark.parametrize("stored", ["encoded", "decoded"])
def test_samples_of_differing_layout_are_blocks_with_extents(stored, tmp_path):
    dataset = BytesDataset()
    opened = built(tmp_path, dataset, stored=stored)
    assert isinstance(opened, Hdf5Blocks)
    expected = [dataset.read(i) if stored == "encoded" else dataset[i] for i in range(len(dataset))]
    assert samples_equal(all_of(opened), expected)
    with h5py.File(tmp_path / "samples.h5", "r") as file:
        assert set(file) == {"data", "extents"}
        start, size = file["extents"][4]
        assert file["data"][start : start + 4].tobytes() == (b"ATP1" if stored == "encoded" else b"ATS1")
        assert file["data"].shape == (sum(file["extents"][-1]),)
        assert size > 0


@pytest.mark.parametrize("odd", [1, 2, 400, 699])
def test_sample_that_differs_late_turns_rows_into_blocks(odd, tmp_path):
    samples = [(torch.full((700,), float(index)), index, "text") for index in range(700)]
    samples[odd] = (torch.zeros(3), odd, "text")
    opened = built(tmp_path, Listed(samples))
    assert isinstance(opened, Hdf5Blocks)
    assert samples_equal(all_of(opened), samples)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "samples.h5"]


@pytest.mark.parametrize("odd", [False, True])
def test_samples_larger_than_a_chunk_come_back(odd, tmp_path):
    dataset = Large(odd=odd)
    opened = built(tmp_path, dataset)
    assert isinstance(opened, Hdf5Blocks if odd else Hdf5Rows)
    for copy in (opened, pickle.loads(pickle.dumps(opened))):
        assert samples_equal(all_of(copy), all_of(dataset))


def test_blocks_in_chunks_that_lie_apart_are_joined(tmp_path):
    dataset = Large()
    opened = built(tmp_path, dataset)
    path = tmp_path / "samples.h5"
    size = path.stat().st_size
    with path.open("ab") as file:  # the same chunks in another order behind the file
        places = opened._data.chunk_offsets.tolist()
        for place in reversed(places):
            file.write(path.read_bytes()[place : place + CHUNK_BYTES])
    opened._data.chunk_offsets[:] = [size + number * CHUNK_BYTES for number in reversed(range(len(places)))]
    opened._file._size = path.stat().st_size
    assert samples_equal(all_of(opened), all_of(dataset))


LEAVES = [
    np.array(["ä", "bcd"]),
    np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
    np.array([1, 2], dtype="m8[ns]"),
    np.array([b"ab", b"abc\0"], dtype="S5"),
    np.arange(3, dtype=">c8"),
    np.arange(3, dtype=">i4"),
    np.arange(3, dtype=np.longdouble) / 3,
    np.arange(3, dtype=np.clongdouble) / 3,
    np.float16(1.5),
    np.zeros((3, 0, 2), dtype=np.float64),
    np.zeros((1,) * 40, dtype=np.uint8),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.frombuffer(bytes(range(64, 128)) + b"\x01\x00\xa0\x7f", dtype="<f4"),  # among them a signalling NaN
    torch.arange(6, dtype=torch.bfloat16),
    torch.zeros(4, dtype=torch.complex64),
    torch.tensor(True),
    10**30,
    None,
    "",
    b"\0\1",
    {1: (), False: []},
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
def test_leaves_of_every_kind_come_back_as_rows(leaf, tmp_path):
    samples = [(leaf, index) for index in range(3)]
    opened = built(tmp_path, Listed(samples))
    assert isinstance(opened, Hdf5Rows)
    assert samples_equal(all_of(opened), samples)
    assert samples_equal(list(opened.__getitems__([2, -3])), [samples[2], samples[0]])


def test_many_leaves_come_back(tmp_path):
    samples = [{f"key {number}" * 50: number + index for number in range(150)} for index in range(2)]
    assert samples_equal(all_of(built(tmp_path, Listed(samples))), samples)


@pytest.mark.parametrize(
    ("dataset", "stored"), [(MixedDataset(), "decoded"), (Large(), "decoded"), (BytesDataset(), "encoded")]
)
def test_number_of_processes_leaves_the_bytes_as_they_are(dataset, stored, tmp_path):
    manifests = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        manifests.append(FORMAT.build(dataset, folder, stored=stored, workers=workers))
    assert manifests[0].files == manifests[1].files


def test_no_handle_of_the_library_is_left_open(tmp_path):
    opened = built(tmp_path, MixedDataset())
    opened[0]
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_GROUP
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, kinds) == 0


@pytest.mark.parametrize("form", ["zip", ""])
def test_unknown_form_is_refused(form, tmp_path):
    with pytest.raises(SpecError):
        FORMAT.build(MixedDataset(), tmp_path, stored=form)


def test_sample_that_cannot_be_given_back_is_refused(tmp_path):
    with pytest.raises(ArchiveError):
        FORMAT.build(Listed([1, object()]), tmp_path)


@pytest.mark.fault(23)
@pytest.mark.parametrize("dataset", [MixedDataset(), BytesDataset(), Large()])
def test_file_cut_off_anywhere_is_damaged_when_nobody_checked_it(dataset, tmp_path):
    built(tmp_path, dataset)
    path = tmp_path / "samples.h5"
    whole = path.read_bytes()
    for size in [0, 1, 8, 100, *range(512, len(whole), max(512, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ArchiveDamagedError):
            FORMAT.open(tmp_path)


@pytest.mark.fault(23)
def test_file_cut_off_after_it_was_opened_is_damaged(tmp_path):
    for dataset in (MixedDataset(), BytesDataset()):
        opened = built(tmp_path, dataset)
        path = tmp_path / "samples.h5"
        path.write_bytes(path.read_bytes()[:-4096])
        with pytest.raises(ArchiveDamagedError):
            opened[0]
        path.unlink()
        with pytest.raises(ArchiveDamagedError):
            opened[0]


@pytest.mark.fault(23)
@pytest.mark.parametrize("dataset", [MixedDataset(5), BytesDataset(5)])
def test_flipped_byte_gives_an_error_or_other_samples_and_never_ends_the_process(dataset, tmp_path):
    opened = built(tmp_path, dataset)
    path = tmp_path / "samples.h5"
    whole = path.read_bytes()
    data_start = min(opened._data.chunk_offsets) if isinstance(opened, Hdf5Blocks) else len(whole)
    for place in [*range(0, min(data_start, len(whole)), 13)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        with suppress(ArchiveDamagedError):
            all_of(FORMAT.open(tmp_path))


def damaged_file(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, settings in datasets.items():
            file.create_dataset(name, **settings)


class Canary:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


EXTENTS = {"data": np.zeros((23, 2), np.int64)}


def layout_text(dtype, shape):
    text = json.dumps(['["array"]', [dtype], [shape]]).encode()
    return {"data": np.frombuffer(text, np.uint8)}


@pytest.mark.fault(27)
def test_pickles_and_objects_are_never_read(tmp_path):
    built(tmp_path, MixedDataset())
    path, canary = tmp_path / "samples.h5", tmp_path / "canary"
    pickled = np.frombuffer(pickle.dumps(Canary(canary)), np.uint8)
    variable = h5py.vlen_dtype(np.uint8)
    objects = np.empty(23, dtype=object)
    objects[:] = [pickled] * 23
    for layout in ("|O", "|V8", "<i8"):
        damaged_file(path, layout=layout_text(layout, []), leaf_00={"data": objects, "dtype": variable})
        with pytest.raises(ArchiveDamagedError):
            FORMAT.open(tmp_path)
    damaged_file(path, extents={"data": objects, "dtype": variable}, data={"data": pickled})
    with pytest.raises(ArchiveDamagedError):
        FORMAT.open(tmp_path)
    damaged_file(path, layout={"data": "text", "dtype": h5py.string_dtype()})
    with pytest.raises(ArchiveDamagedError):
        FORMAT.open(tmp_path)
    assert not canary.exists()


@pytest.mark.fault
@pytest.mark.parametrize(
    "datasets",
    [
        {"layout": layout_text("|u1", [2**40]), "leaf_00": {"shape": (23, 2**40), "dtype": "u1"}},
        {"layout": layout_text("|u1", [2**40]), "leaf_00": {"shape": (23, 2**40), "dtype": "u1", "chunks": (1, 2**20)}},
        {"layout": layout_text("|u1", [2**70]), "leaf_00": {"shape": (23, 2**40), "dtype": "u1"}},
        {"layout": {"shape": (2**50,), "dtype": "u1"}},
        {"extents": EXTENTS, "data": {"shape": (2**50,), "chunks": (CHUNK_BYTES,), "dtype": "u1"}},
        {"extents": EXTENTS, "data": {"shape": (4096,), "chunks": (512,), "dtype": "u1"}},
        {"extents": EXTENTS, "data": {"shape": (4096,), "dtype": "u1"}},
        {
            "extents": EXTENTS,
            "data": {"shape": (CHUNK_BYTES,), "chunks": (CHUNK_BYTES,), "compression": "gzip", "dtype": "u1"},
        },
        {"extents": {"shape": (2**50, 2), "dtype": "<i8"}, "data": {"shape": (16,), "dtype": "u1"}},
    ],
)
def test_huge_or_foreign_shapes_are_refused_before_memory_is_taken(datasets, tmp_path):
    built(tmp_path, MixedDataset())
    damaged_file(tmp_path / "samples.h5", **datasets)  # what was never written takes no disk
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveDamagedError):
            FORMAT.open(tmp_path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000


@pytest.mark.fault(26)
@pytest.mark.parametrize("extent", [(-1, 5), (0, -1), (0, 0), (0, 2**62), (2**62, 2**62), (5, 60)])
def test_extents_outside_the_data_are_refused(extent, tmp_path):
    opened = built(tmp_path, BytesDataset())
    with h5py.File(tmp_path / "samples.h5", "r+") as file:
        file["extents"][3] = extent
    opened = FORMAT.open(tmp_path)
    with pytest.raises(ArchiveDamagedError):
        opened[3]
    assert samples_equal(opened[4], BytesDataset()[4])


@pytest.mark.fault(25)
def test_data_in_another_file_is_never_followed(tmp_path):
    built(tmp_path, Listed([np.arange(8)] * 3))
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(3 * 8 * 8))
    with h5py.File(tmp_path / "samples.h5", "r+") as file:
        del file["leaf_00"]
        file.create_dataset("leaf_00", shape=(3, 8), dtype="<i8", external=[(str(secret), 0, 192)])
    with pytest.raises(ArchiveDamagedError):
        FORMAT.open(tmp_path)
