"""Files that libraries hold open in the parent when a loader's workers are started."""

import os
import pickle
import threading

import h5py
import lmdb
import numpy as np
import pytest
import rasterio
import torch
from data_sets import BytesDataset, MixedDataset, write_raster
from torch.utils.data import DataLoader, Dataset

from autotune.data.archives import FORMATS
from autotune.data.facts import samples_equal
from autotune.data.whole_batch import collate_whole
from autotune.spec import STORED_FORMS

pytestmark = pytest.mark.fault(22)

STORING = [(name, form) for name, forms in STORED_FORMS.items() for form in forms if name != "files"]
# A fork is what carries handles over; the other ways to start a worker are slow, and tried where a library keeps some.
STARTED = [(name, "fork") for name, _ in STORED_FORMS.items() if name != "files"] + [
    (name, start) for name in ("hdf5", "lmdb") for start in ("spawn", "forkserver")
]


def keep(samples):
    """Collate nothing."""
    return samples


def loaded(dataset, start, **settings):
    workers = 2 if start == "fork" else 1
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=start, **settings)
    return [sample for batch in loader for sample in batch]


class OpenHandles(Dataset):
    """Reads rasters, HDF5 and LMDB as careless datasets do: opened once, in the constructor."""

    def __init__(self, folder, count=6):
        self.folder = folder
        self.count = count
        self.open()

    def open(self):
        self.raster = rasterio.open(self.folder / "image.tif")
        self.hdf5 = h5py.File(self.folder / "rows.h5", "r")
        self.lmdb = lmdb.open(str(self.folder / "rows.lmdb"), subdir=False, readonly=True, lock=False)

    def close(self):
        self.raster.close()
        self.hdf5.close()
        self.lmdb.close()

    def fingerprint(self):
        return f"open handles {self.count}"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        with self.lmdb.begin() as transaction:
            value = transaction.get(bytes([index]))
        row = torch.from_numpy(self.hdf5["rows"][index])
        return torch.from_numpy(self.raster.read(1, window=((index, index + 1), (0, 8)))), row, int(value)


@pytest.fixture
def open_handles(tmp_path):
    write_raster(tmp_path / "image.tif", np.arange(64, dtype=np.uint16).reshape(8, 8))
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["rows"] = np.arange(60, dtype=np.float32).reshape(6, 10)
    with lmdb.open(str(tmp_path / "rows.lmdb"), subdir=False) as file, file.begin(write=True) as transaction:
        for index in range(6):
            transaction.put(bytes([index]), str(index).encode())
    dataset = OpenHandles(tmp_path)
    yield dataset
    dataset.close()


@pytest.mark.parametrize(("name", "start"), STARTED)
def test_archive_of_a_dataset_with_open_handles_works_in_every_worker(name, start, open_handles, tmp_path):
    expected = [open_handles[index] for index in range(6)]
    folder = tmp_path / "archive"
    folder.mkdir()
    FORMATS[name].build(open_handles, folder, stored="decoded")
    opened = FORMATS[name].open(folder)
    assert samples_equal(opened[5], expected[5])  # the archive is open in the parent too
    assert samples_equal(loaded(opened, start, collate_fn=keep), expected)
    assert samples_equal(opened[0], expected[0])
    assert samples_equal(open_handles[0], expected[0])


@pytest.mark.parametrize(("name", "form"), STORING)
def test_archive_that_was_read_before_the_workers_started_works_in_them(name, form, tmp_path):
    dataset = BytesDataset(9) if form == "encoded" or name != "npy" else MixedDataset(9)
    expected = [dataset.read(index) if form == "encoded" else dataset[index] for index in range(9)]
    FORMATS[name].build(dataset, tmp_path, stored=form)
    opened = FORMATS[name].open(tmp_path)
    for _ in range(2):
        assert samples_equal([opened[index] for index in range(9)], expected)
        assert samples_equal(loaded(opened, "fork", collate_fn=keep), expected)


@pytest.mark.parametrize("name", ["hdf5", "lmdb"])
def test_two_loaders_over_one_archive_run_at_once(name, tmp_path):
    dataset = MixedDataset()
    FORMATS[name].build(dataset, tmp_path)
    opened = FORMATS[name].open(tmp_path)
    opened[0]
    copies = [opened, FORMATS[name].open(tmp_path), pickle.loads(pickle.dumps(opened))]
    settings = {"batch_size": 5, "num_workers": 1, "multiprocessing_context": "fork", "collate_fn": collate_whole}
    plain = list(DataLoader(dataset, batch_size=5))
    for batches in zip(*(DataLoader(copy, **settings) for copy in copies), plain, strict=True):
        assert all(samples_equal(batch, batches[-1]) for batch in batches)


def in_child(work):
    """Run `work` in a forked process that ends as loaders' workers do; give what it found wrong."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["hdf5", "lmdb"])
def test_child_that_drops_or_reads_what_it_inherited_leaves_the_parent_unharmed(name, tmp_path):
    dataset = MixedDataset()
    FORMATS[name].build(dataset, tmp_path)
    kept = {"opened": FORMATS[name].open(tmp_path)}
    assert samples_equal(kept["opened"][1], dataset[1])

    def read():
        return samples_equal(kept["opened"][2], dataset[2]) and samples_equal(kept["opened"][3], dataset[3])

    def drop_and_open_again():
        del kept["opened"]
        return samples_equal(FORMATS[name].open(tmp_path)[2], dataset[2])

    def fork_again():
        return read() and in_child(read) == 0 and read()

    for work in (read, drop_and_open_again, fork_again):
        assert in_child(work) == 0
        assert samples_equal(kept["opened"][4], dataset[4])


@pytest.mark.parametrize("name", ["hdf5", "lmdb"])
def test_process_forked_while_threads_read_can_read(name, tmp_path):
    dataset = MixedDataset()
    FORMATS[name].build(dataset, tmp_path)
    opened = FORMATS[name].open(tmp_path)
    done = threading.Event()

    def read():
        while not done.is_set():
            opened.__getitems__([0, 5, 9])

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: samples_equal(opened[2], dataset[2])) == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
