"""What LMDB archives hold, as the LMDB library itself reads it, and what they refuse."""

import gc
import pickle
import subprocess
import sys
import threading

import lmdb
import numpy as np
import pytest
import torch
from data_sets import BytesDataset, MixedDataset, support_environment
from torch.utils.data import Dataset

from autotune.data.archives import lmdb_store
from autotune.data.archives.lmdb_store import LmdbFormat
from autotune.data.facts import samples_equal
from autotune.data.records import unpack
from autotune.errors import ArchiveDamagedError, ArchiveError

FORMAT = LmdbFormat()
READING = {"subdir": False, "readonly": True, "lock": False, "create": False}


class Blocks(Dataset):
    """More bytes than the map has at first; some samples are larger than a transaction."""

    def __init__(self, count=60):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        size = 9_000_000 if index == 7 else 400_000 + index
        return np.full(size, index, np.uint8)


def all_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


def built(directory, dataset, **settings):
    manifest = FORMAT.build(dataset, directory, **settings)
    assert list(manifest.files) == ["samples.lmdb"]
    return FORMAT.open(directory)


@pytest.mark.parametrize("stored", ["encoded", "decoded"])
def test_values_lie_under_their_numbers_as_the_library_reads_them(stored, tmp_path):
    dataset = BytesDataset()
    built(tmp_path, dataset, stored=stored)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "samples.lmdb"]
    with lmdb.open(str(tmp_path / "samples.lmdb"), **READING) as file, file.begin() as transaction:
        pairs = list(transaction.cursor())
    assert [key for key, _ in pairs] == [index.to_bytes(8, "big") for index in range(len(dataset))]
    expected = [dataset.read(i) if stored == "encoded" else dataset[i] for i in range(len(dataset))]
    assert samples_equal([unpack(value, check=True) for _, value in pairs], expected)


def test_map_grows_with_the_samples_and_the_file_holds_no_more(tmp_path):
    dataset = Blocks()
    opened = built(tmp_path, dataset)
    size = (tmp_path / "samples.lmdb").stat().st_size
    assert lmdb_store._FIRST_MAP_BYTES < size < 1.02 * sum(len(dataset[i]) for i in range(60))
    assert samples_equal(all_of(opened), all_of(dataset))


@pytest.mark.parametrize(
    ("dataset", "stored"), [(MixedDataset(), "decoded"), (Blocks(), "decoded"), (BytesDataset(), "encoded")]
)
def test_number_of_processes_leaves_the_bytes_as_they_are(dataset, stored, tmp_path):
    manifests = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        manifests.append(FORMAT.build(dataset, folder, stored=stored, workers=workers))
    assert manifests[0].files == manifests[1].files


def test_one_archive_is_opened_any_number_of_times(tmp_path):
    dataset = MixedDataset()
    opened = built(tmp_path, dataset)
    others = [opened, FORMAT.open(tmp_path), pickle.loads(pickle.dumps(opened))]
    for other in others:
        assert samples_equal(all_of(other), all_of(dataset))
    del opened, others, other
    gc.collect()
    with lmdb.open(str(tmp_path / "samples.lmdb"), **READING) as file:  # nothing of ours holds it any more
        assert file.stat()["entries"] == len(dataset)


def test_archive_that_was_built_again_in_its_place_is_opened_anew(tmp_path):
    old = built(tmp_path, MixedDataset(5))
    old[0]
    (tmp_path / "samples.lmdb").unlink()
    new = built(tmp_path, BytesDataset(7))
    assert samples_equal(all_of(new), all_of(BytesDataset(7)))
    assert samples_equal(all_of(old), all_of(MixedDataset(5)))


def test_threads_read_at_once(tmp_path):
    dataset = BytesDataset()
    built(tmp_path, dataset)
    for _ in range(20):
        opened = FORMAT.open(tmp_path)
        wrong = []
        gate = threading.Barrier(4)

        def read(opened=opened, gate=gate, wrong=wrong):
            gate.wait()
            for index in range(len(dataset)):
                if not samples_equal(opened[index], dataset[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_samples_are_copies_that_outlive_the_file(tmp_path):
    opened = built(tmp_path, MixedDataset())
    sample, batch = opened[3], opened.__getitems__([1, 2])
    del opened
    gc.collect()
    assert samples_equal([sample, *batch], [MixedDataset()[index] for index in (3, 1, 2)])
    sample["image"].add_(1)


def test_sample_that_cannot_be_given_back_is_refused(tmp_path):
    with pytest.raises(ArchiveError):
        FORMAT.build(torch.utils.data.TensorDataset(torch.eye(2).to_sparse()), tmp_path)


READER = """
import sys
from pathlib import Path
from autotune.data.archives.lmdb_store import LmdbFormat
from autotune.errors import ArchiveDamagedError
path = Path(sys.argv[1])
file, whole = path / "samples.lmdb", (path / "samples.lmdb").read_bytes()
for size in [0, 1, 43, 44, 4096, *range(8192, len(whole), 8192), len(whole) - 4096, len(whole) - 1]:
    file.write_bytes(whole[:size])
    for _ in range(2):
        try:
            opened = LmdbFormat().open(path)
            [opened[index] for index in range(len(opened))]
        except ArchiveDamagedError:
            break
    else:
        sys.exit(f"{size} bytes of {len(whole)} were read")
file.write_bytes(whole)
opened = LmdbFormat().open(path)
file.write_bytes(whole[:4096 * 5])  # cut off after it was opened and before it is mapped
try:
    opened[0]
except ArchiveDamagedError:
    print("damaged")
"""


@pytest.mark.fault(23)
def test_file_cut_off_anywhere_is_damaged_when_nobody_checked_it(tmp_path):
    built(tmp_path, MixedDataset(200))
    command = [sys.executable, "-c", READER, str(tmp_path)]
    ended = subprocess.run(command, env=support_environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "damaged\n"), ended.stderr


WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from autotune.data.archives.lmdb_store import LmdbFormat
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
try:
    LmdbFormat().build([np.zeros(100_000, np.uint8)] * 60, Path(sys.argv[1]))
except OSError as error:
    print(type(error).__name__, "samples.lmdb" in str(error))
"""


@pytest.mark.fault(10)
def test_write_that_fails_is_an_error_of_the_system(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    ended = subprocess.run(command, env=support_environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "OSError True\n"), ended.stderr


@pytest.mark.fault(23)
def test_file_of_another_count_is_damaged(tmp_path):
    opened = built(tmp_path, MixedDataset())
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"count":23', '"count":22').replace('"count": 23', '"count": 22'))
    opened = FORMAT.open(tmp_path)
    assert len(opened) == 22
    with pytest.raises(ArchiveDamagedError, match="22 samples"):
        opened[0]


@pytest.mark.fault(23)
def test_file_that_is_none_of_the_librarys_is_damaged(tmp_path):
    built(tmp_path, MixedDataset())
    path = tmp_path / "samples.lmdb"
    whole = path.read_bytes()
    for wrong in (bytes(len(whole)), b"\xff" * len(whole), whole[:40] + b"\xff\xff\xff\x7f" + whole[44:]):
        path.write_bytes(wrong)
        with pytest.raises(ArchiveDamagedError):
            FORMAT.open(tmp_path)[0]
